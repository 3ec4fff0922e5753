package handshake

import (
	"crypto/sha256"
	"crypto/tls"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
	"testing"

	"postern/internal/hello"
	"postern/internal/posterntest"
)

// ja4 is the fingerprint of a hello in records, computed from its bytes.
func ja4(flight []byte) string {
	var m []byte
	for len(flight) > 0 {
		n := int(binary.BigEndian.Uint16(flight[3:]))
		m = append(m, flight[5:5+n]...)
		flight = flight[5+n:]
	}
	r := reader(m[4:])
	version := r.uint16()
	r.skip(32)
	r.skip(int(r.skip(1)[0]))
	suites := numbers(r.vector16())
	r.skip(int(r.skip(1)[0]))

	var extensions, hashed, schemes []string
	name, alpn := "i", "00"
	if len(r) > 0 {
		r = r.vector16()
	}
	for len(r) > 0 {
		number := r.skip(2)
		data := r.vector16()
		if isGrease(number) {
			continue
		}
		extensions = append(extensions, hexOf(number))
		switch binary.BigEndian.Uint16(number) {
		case 0:
			name = "d"
			continue
		case 16:
			data.skip(2)
			first := data.skip(int(data.skip(1)[0]))
			alpn = string([]byte{first[0], first[len(first)-1]})
			continue
		case 13:
			schemes = numbers(data.vector16())
		case 43:
			version = highest(data[1:])
		}
		hashed = append(hashed, hexOf(number))
	}
	slices.Sort(suites)
	slices.Sort(hashed)
	tail := strings.Join(hashed, ",")
	if len(schemes) > 0 {
		tail += "_" + strings.Join(schemes, ",")
	}
	label := map[uint16]string{0x0300: "s3", 0x0301: "10", 0x0302: "11", 0x0303: "12", 0x0304: "13"}[version]
	return fmt.Sprintf("t%s%s%02d%02d%s_%s_%s", label, name, min(len(suites), 99), min(len(extensions), 99), alpn,
		cut(strings.Join(suites, ",")), cut(tail))
}

func cut(s string) string {
	if s == "" {
		return "000000000000"
	}
	return fmt.Sprintf("%x", sha256.Sum256([]byte(s)))[:12]
}

type reader []byte

func (r *reader) skip(n int) []byte {
	b := (*r)[:n]
	*r = (*r)[n:]
	return b
}
func (r *reader) uint16() uint16   { return binary.BigEndian.Uint16(r.skip(2)) }
func (r *reader) vector16() reader { return r.skip(int(r.uint16())) }

func hexOf(b []byte) string   { return fmt.Sprintf("%02x%02x", b[0], b[1]) }
func isGrease(b []byte) bool  { return b[0] == b[1] && b[0]&0xf == 0xa }
func highest(b []byte) uint16 { return slices.Max(append(values(b), 0)) }

func values(b []byte) []uint16 {
	var out []uint16
	for pair := range slices.Chunk(b, 2) {
		if !isGrease(pair) {
			out = append(out, binary.BigEndian.Uint16(pair))
		}
	}
	return out
}

func numbers(b []byte) []string {
	var out []string
	for _, v := range values(b) {
		out = append(out, fmt.Sprintf("%04x", v))
	}
	return out
}

// The hellos of clients whose JA4 is published, each changed only where JA4
// does not look: the groups are such that nobody here has one in common.
var (
	unknownGroups = []tls.CurveID{0x0100, 0x0015}

	schannel = hello.Spec{
		CipherSuites: []uint16{
			0xc02c, 0xc02b, 0xc030, 0xc02f, 0xc024, 0xc023, 0xc028, 0xc027, 0xc00a, 0xc009,
			0xc014, 0xc013, 0x009d, 0x009c, 0x003d, 0x003c, 0x0035, 0x002f, 0x000a,
		},
		Groups:           []tls.CurveID{tls.X25519, tls.CurveP256, tls.CurveP384},
		SignatureSchemes: []tls.SignatureScheme{0x0401, 0x0501, 0x0201, 0x0403, 0x0503, 0x0203, 0x0202, 0x0601, 0x0603},
		Extra:            []hello.Extension{{Type: 5, Data: []byte{1, 0, 0, 0, 0}}, {Type: 35}, {Type: 23}, {Type: 0xff01, Data: []byte{0}}},
	}
	golang = hello.Spec{
		CipherSuites: []uint16{
			0xc02f, 0xc030, 0xc02b, 0xc02c, 0xcca8, 0xcca9, 0xc013, 0xc009, 0xc014, 0xc00a,
			0x009c, 0x009d, 0x002f, 0x0035, 0xc012, 0x000a, 0x1301, 0x1302, 0x1303,
		},
		ServerName: "mail.example.org",
		Groups:     unknownGroups,
		SignatureSchemes: []tls.SignatureScheme{
			0x0804, 0x0403, 0x0807, 0x0805, 0x0806, 0x0401, 0x0501, 0x0601, 0x0503, 0x0603, 0x0201, 0x0203,
		},
		SupportedVersions: []uint16{tls.VersionTLS13, tls.VersionTLS12},
		Extra:             []hello.Extension{{Type: 5, Data: []byte{1, 0, 0, 0, 0}}, {Type: 18}, {Type: 0xff01, Data: []byte{0}}},
	}
	golangEMS = func() hello.Spec {
		s := golang
		s.Extra = append(slices.Clone(s.Extra), hello.Extension{Type: 23})
		return s
	}()
)

func TestJA4OfPublishedClients(t *testing.T) {
	t.Parallel()
	r := newRig(t, map[string]string{"POLICY_FLOOR": "tls1.3"})
	for _, c := range []struct {
		spec            hello.Spec
		ja4             string
		version, reason string
		alert           uint8
	}{
		{schannel, "t12i190700_d83cc789557e_16bbda4055b2", "tls1.2", "version", 70},
		{golang, "t13d190900_9dc949149365_97f8aa674fd9", "tls1.3", "cipher", 40},
		{golangEMS, "t13d191000_9dc949149365_e7c285222651", "tls1.3", "cipher", 40},
	} {
		t.Run(c.ja4, func(t *testing.T) {
			flight := hello.ClientHello(c.spec)
			if got := ja4(flight); got != c.ja4 {
				t.Fatalf("this test computes %s", got)
			}
			w := want{version: c.version, outcome: "rejected", reason: c.reason, log: &logged{ja4: c.ja4, name: c.spec.ServerName}}
			r.refused(t, "imaps", flight, c.alert, w)
		})
	}
	r.finish(t)
}

// TestJA4OfChrome has ALPN and GREASE, which the legacy hellos lack.
func TestJA4OfChrome(t *testing.T) {
	t.Parallel()
	grease := hello.Extension{Type: 0x3a3a}
	flight := hello.ClientHello(hello.Spec{
		CipherSuites: []uint16{
			0x8a8a, 0x1301, 0x1302, 0x1303, 0xc02b, 0xc02f, 0xc02c, 0xc030, 0xcca9, 0xcca8, 0xc013, 0xc014, 0x009c, 0x009d, 0x002f, 0x0035,
		},
		ServerName:        "example.org",
		Groups:            []tls.CurveID{0x6a6a, tls.X25519},
		SignatureSchemes:  []tls.SignatureScheme{0x0403, 0x0804, 0x0401, 0x0503, 0x0805, 0x0501, 0x0806, 0x0601},
		SupportedVersions: []uint16{0xdada, tls.VersionTLS13, tls.VersionTLS12},
		Extra: []hello.Extension{
			grease, {Type: 16, Data: posterntest.ALPN("h2", "http/1.1")}, {Type: 5}, {Type: 18}, {Type: 21}, {Type: 23}, {Type: 27}, {Type: 35}, {Type: 45}, {Type: 0x4469}, {Type: 0xff01},
		},
	})
	if got, published := ja4(flight), "t13d1516h2_8daaf6152771_e5627efa2ab1"; got != published {
		t.Errorf("this test computes %s, published is %s", got, published)
	}
}
