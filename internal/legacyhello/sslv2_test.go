package legacyhello

import (
	"encoding/binary"
	"slices"
	"testing"
	"time"

	"postern/internal/hello"
	"postern/internal/posterntest"
	"postern/policy"
)

// sslv2Bytes builds a hello in the SSLv2-compatible format from its parts.
func sslv2Bytes(version uint16, specs, session, challenge []byte) []byte {
	body := []byte{hello.TypeClientHello, byte(version >> 8), byte(version), 0, byte(len(specs)), 0, byte(len(session)), 0, byte(len(challenge))}
	body = append(append(append(body, specs...), session...), challenge...)
	return append([]byte{0x80 | byte(len(body)>>8), byte(len(body))}, body...)
}

func TestSSLv2HelloFacts(t *testing.T) {
	for _, tt := range []struct {
		version  uint16
		versions []uint16
		highest  policy.Version
	}{
		{0x0002, []uint16{0x0002}, policy.SSL2},
		{0x0300, []uint16{0x0300}, policy.SSL3},
		{0x0301, []uint16{0x0301}, policy.TLS10},
		{0x0302, []uint16{0x0302, 0x0301}, policy.TLS11},
		{0x0303, []uint16{0x0303, 0x0302, 0x0301}, policy.TLS12},
		{0x0304, []uint16{0x0303, 0x0302, 0x0301}, policy.TLS12}, // 1.3 cannot be offered so
		{0x03ff, []uint16{0x0303, 0x0302, 0x0301}, policy.TLS12},
		{0x0400, []uint16{0x0400}, policy.NoVersion},
		{0x0003, []uint16{0x0003}, policy.NoVersion},
	} {
		h, ok := ParseSSLv2(sslv2Bytes(tt.version, []byte{0, 0, 0x2f, 7, 0, 0xc0, 0, 0x56, 0}, nil, make([]byte, 16)))
		if !ok || !h.SSL2Format || !slices.Equal(h.Versions, tt.versions) || h.Version() != tt.highest {
			t.Errorf("%#04x: %v, highest %v, %v", tt.version, h.Versions, h.Version(), ok)
		}
		if !slices.Equal(h.CipherSuites, []uint16{0x2f, 0x5600}) || !slices.Equal(h.SSL2Ciphers, []uint32{0x0700c0}) || !h.Fallback() {
			t.Errorf("%#04x: suites %x, ciphers %x", tt.version, h.CipherSuites, h.SSL2Ciphers)
		}
	}
	for _, b := range [][]byte{hello.SSLv2(), posterntest.SSLv2Offering(0x0301), posterntest.SSLv2Large(0x0303)} {
		if h, ok := ParseSSLv2(b); !ok || len(h.CipherSuites)+len(h.SSL2Ciphers) == 0 {
			t.Errorf("% x: %+v, %v", b[:11], h, ok)
		}
	}
}

func TestMalformedSSLv2Hellos(t *testing.T) {
	good := sslv2Bytes(0x0301, []byte{0, 0, 0x2f}, nil, make([]byte, 16))
	with := func(at int, b byte) []byte {
		c := slices.Clone(good)
		c[at] = b
		return c
	}
	for name, b := range map[string][]byte{
		"empty": nil, "header alone": good[:2], "cut in the header": good[:10], "no specs": sslv2Bytes(0x0301, nil, nil, make([]byte, 16)),
		"specs not by three": with(6, 2), "specs beyond the end": with(6, 33), "session beyond the end": with(8, 1),
		"challenge too short": with(10, 15), "challenge too long": with(10, 17), "huge lengths": with(5, 0xff),
		"a byte short": good[:len(good)-1], "a byte more": append(slices.Clone(good), 0),
	} {
		if h, ok := ParseSSLv2(b); ok {
			t.Errorf("%s is taken for %+v", name, h)
		}
	}
}

// FuzzSSLv2 parses any bytes.
func FuzzSSLv2(f *testing.F) {
	for _, b := range [][]byte{
		hello.SSLv2(), posterntest.SSLv2Offering(0x0300), posterntest.SSLv2Offering(0x0301), posterntest.SSLv2Offering(0x0303), posterntest.SSLv2Large(0x0302),
		sslv2Bytes(0x0304, []byte{0, 0, 1}, []byte{1}, nil), sslv2Bytes(2, []byte{1, 0, 0x80}, nil, []byte{9}), {0x80, 9, 1}, {}, {0x80},
	} {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		h, ok := ParseSSLv2(b)
		if !ok {
			return
		}
		specs := int(binary.BigEndian.Uint16(b[5:]))
		if !h.SSL2Format || len(h.Versions) == 0 || 3*(len(h.CipherSuites)+len(h.SSL2Ciphers)) != specs {
			t.Fatalf("% x: %+v", b, h)
		}
		if h.Version() == policy.TLS13 || h.Versions[0] > binary.BigEndian.Uint16(b[3:]) {
			t.Fatalf("% x offers %v", b, h.Versions)
		}
		verdict := policy.New(policy.FloorTLS12Compat, policy.Observe).At(time.Now()).Decide(&h, policy.ConnInfo{Keys: policy.RSA}, time.Time{}, 0)
		if verdict.Serve != policy.Enforce || h.Version() != policy.NoVersion && !verdict.Legacy() {
			t.Fatalf("% x: %+v", b, verdict)
		}
		again := sslv2Bytes(binary.BigEndian.Uint16(b[3:]), b[11:11+specs], nil, make([]byte, 16))
		if specs < 256 {
			if h2, ok := ParseSSLv2(again); !ok || !slices.Equal(h2.CipherSuites, h.CipherSuites) || !slices.Equal(h2.SSL2Ciphers, h.SSL2Ciphers) {
				t.Fatalf("% x: %+v, built again %+v", b, h, h2)
			}
		}
	})
}
