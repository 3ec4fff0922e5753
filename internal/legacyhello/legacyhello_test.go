package legacyhello

import (
	"bytes"
	"crypto/tls"
	"encoding/binary"
	"encoding/hex"
	"net"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"postern/internal/hello"
	"postern/internal/posterntest"
	"postern/policy"
)

// What Parse says of a hello is compared with crypto/tls, which is given the same
// bytes.

// helloConn hands out a hello, then the end, and keeps what is written and
// what the hook saw.
type helloConn struct {
	net.Conn
	hello   bytes.Reader
	written []byte
	asked   int
	seen    policy.Hello
}

func (c *helloConn) Read(p []byte) (int, error) { return c.hello.Read(p) }

func (c *helloConn) Write(p []byte) (int, error) {
	c.written = append(c.written, p...)
	return len(p), nil
}

// strictConfigs are those of every floor.
var strictConfigs = func() (configs []*tls.Config) {
	for _, f := range policy.Floors {
		c := f.TLSConfig()
		c.GetConfigForClient = func(chi *tls.ClientHelloInfo) (*tls.Config, error) {
			conn := chi.Conn.(*helloConn)
			conn.asked++
			conn.seen = policy.FromClientHello(chi)
			return nil, nil
		}
		configs = append(configs, c)
	}
	return configs
}()

// cryptoTLS gives b to crypto/tls; asked says whether the hook has seen a hello.
func cryptoTLS(b []byte, config *tls.Config) *helloConn {
	c := new(helloConn)
	c.hello.Reset(b)
	if err := tls.Server(c, config).Handshake(); err == nil {
		panic("a handshake without a client")
	}
	return c
}

// check compares what Parse says of b with what crypto/tls does, where that takes it at
// all; and an old hello is refused by crypto/tls for its version, under every floor, or
// cannot be read.
func check(t testing.TB, b []byte) (taken bool) {
	t.Helper()
	mine := bytes.Clone(b)
	got, ok := Parse(mine)
	old := SoleOld(mine)
	if !bytes.Equal(mine, b) {
		t.Fatalf("%x: became %x", b, mine)
	}
	clear(mine) // nothing of it may be kept
	if ok && (len(got.CipherSuites) == 0 || len(got.Versions) == 0) {
		t.Fatalf("%x: offers nothing: %+v", b, got)
	}
	configs := strictConfigs[:1]
	if old {
		configs = strictConfigs
	}
	for i, config := range configs {
		c := cryptoTLS(b, config)
		taken = ok && c.asked == 1
		if taken && !reflect.DeepEqual(got, c.seen) {
			t.Fatalf("%x:\n     %#v\nwant %#v", b, got, c.seen)
		}
		verdict := policy.New(policy.Floors[i], policy.Enforce).At(time.Time{}).Decide(&got, policy.ConnInfo{Keys: policy.RSA}, time.Time{}, 0)
		if r := verdict.Reason; ok && old && (r == policy.ReasonVersion || r == policy.ReasonFallback) {
			if len(c.written) != 7 || c.written[0] != 21 || taken && c.written[6] != 70 {
				t.Fatalf("%x: floor %s: crypto/tls wrote %x", b, policy.Floors[i], c.written)
			}
		}
	}
	return taken
}

// namedHello is the hello of some client.
type namedHello struct {
	name  string
	bytes []byte
}

// capturedHellos are those of testdata.
func capturedHellos(t testing.TB) (list []namedHello) {
	t.Helper()
	text, err := os.ReadFile("testdata/hellos.txt")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		name, digits, _ := strings.Cut(line, ": ")
		b, err := hex.DecodeString(digits)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		list = append(list, namedHello{name, b})
	}
	return list
}

// goHello is what crypto/tls itself sends as a client.
func goHello(version uint16) []byte {
	c := new(helloConn)
	tls.Client(c, &tls.Config{
		MinVersion: tls.VersionTLS10, MaxVersion: version,
		ServerName: "mail.example.org", NextProtos: []string{"imap"}, CipherSuites: hello.Typical(version).CipherSuites,
	}).Handshake()
	clear(c.written[11:43]) // the random
	return c.written
}

// typicalHello is that of internal/hello, with changes, and the same each time.
func typicalHello(version uint16, change func(*hello.Spec)) []byte {
	s := hello.Typical(version)
	s.ServerName = "mail.example.org"
	if change != nil {
		change(&s)
	}
	b := hello.ClientHello(s)
	clear(b[11:43]) // the random
	return b
}

// withCompression has a hello without a session ID offer DEFLATE too, before the null method.
func withCompression(b []byte) []byte {
	const suites = 5 + 4 + 2 + 32 + 1 // after headers, version, random and the session ID's length
	methods := suites + 2 + int(binary.BigEndian.Uint16(b[suites:]))
	b = slices.Concat(b[:methods], []byte{2, 1, 0}, b[methods+len("\x01\x00"):])
	binary.BigEndian.PutUint16(b[3:], uint16(len(b)-5))
	binary.BigEndian.PutUint16(b[7:], uint16(len(b)-5-4))
	return b
}

// legacyHellos are what old clients send.
func legacyHellos(t testing.TB) []namedHello {
	list := append(capturedHellos(t), namedHello{"Go TLS 1.0", goHello(tls.VersionTLS10)}, namedHello{"Go TLS 1.1", goHello(tls.VersionTLS11)})
	for name, version := range map[string]uint16{"SSL 3.0": 0x0300, "TLS 1.0": 0x0301, "TLS 1.1": 0x0302} {
		for change, f := range map[string]func(*hello.Spec){
			"":                      nil,
			" without a name":       func(s *hello.Spec) { s.ServerName = "" },
			" without extensions":   func(s *hello.Spec) { s.NoExtensions = true },
			" with an empty block":  func(s *hello.Spec) { s.NoExtensions, s.ServerName, s.Groups = false, "", nil },
			" with every extension": func(s *hello.Spec) { s.NoExtensions, s.Extra = false, someExtensions },
			" with ALPN": func(s *hello.Spec) {
				s.NoExtensions, s.Extra = false, []hello.Extension{{Type: hello.ExtALPN, Data: posterntest.ALPN("imap", "pop3")}}
			},
			" that resumes":            func(s *hello.Spec) { s.SessionID = bytes.Repeat([]byte{7}, 32) },
			" that falls back":         func(s *hello.Spec) { s.CipherSuites = append(s.CipherSuites, tls.TLS_FALLBACK_SCSV, 0x00ff) },
			" padded":                  func(s *hello.Spec) { pad(s, 512) },
			" in supported_versions":   func(s *hello.Spec) { s.NoExtensions, s.SupportedVersions = false, []uint16{version} },
			" as large as a record is": func(s *hello.Spec) { pad(s, 1<<14) },
		} {
			list = append(list, namedHello{name + change, typicalHello(version, f)})
		}
		for change, recordVersion := range map[string]uint16{" in a record of SSL 3.0": 0x0300, " in a record of TLS 1.2": 0x0303} {
			b := typicalHello(version, nil)
			binary.BigEndian.PutUint16(b[1:], recordVersion)
			list = append(list, namedHello{name + change, b})
		}
		list = append(list, namedHello{name + " with compression", withCompression(typicalHello(version, nil))})
	}
	slices.SortFunc(list, func(a, b namedHello) int { return strings.Compare(a.name, b.name) })
	return list
}

func pad(s *hello.Spec, size int) {
	s.NoExtensions = false
	s.Extra = []hello.Extension{{Type: 21, Data: posterntest.Padding(hello.ClientHello(*s), size)}}
}

// someExtensions are those that internal/hello has no field for.
var someExtensions = []hello.Extension{
	{Type: 5, Data: []byte{1, 0, 0, 0, 0}},
	{Type: hello.ExtSignatureAlgorithms, Data: []byte{0, 4, 4, 1, 2, 1}},
	{Type: 18},
	{Type: 23},
	{Type: 35, Data: []byte("a ticket")},
	{Type: 0xff01, Data: []byte{0}},
	{Type: 1, Data: []byte{2}},
	{Type: 15, Data: []byte{1}},
	{Type: 17, Data: []byte{0, 7, 2, 0, 4, 0, 0, 0, 0}},
	{Type: 22},
	{Type: 28, Data: []byte{0x40, 1}},
	{Type: 13172},
	{Type: 0x1a1a},
	{Type: 0xfafa, Data: []byte{0}},
}

func TestHellosOfOldClientsAreUnderstood(t *testing.T) {
	for _, h := range legacyHellos(t) {
		if !check(t, h.bytes) || !SoleOld(h.bytes) {
			t.Errorf("%s: not understood: %x", h.name, h.bytes)
		}
	}
}
