package proxy

import (
	"slices"
	"testing"

	"postern/internal/hello"
	"postern/policy"
)

// ssl2Bytes builds a hello in SSL 2.0 format from its parts.
func ssl2Bytes(version uint16, specs, session, challenge []byte) []byte {
	body := []byte{ssl2ClientHello, byte(version >> 8), byte(version), 0, byte(len(specs)), 0, byte(len(session)), 0, byte(len(challenge))}
	body = append(append(append(body, specs...), session...), challenge...)
	return append([]byte{0x80 | byte(len(body)>>8), byte(len(body))}, body...)
}

func TestSSL2HelloFacts(t *testing.T) {
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
		h, ok := parseSSL2Hello(ssl2Bytes(tt.version, []byte{0, 0, 0x2f, 7, 0, 0xc0, 0, 0x56, 0}, nil, make([]byte, 16)))
		if !ok || !h.SSL2Format || !slices.Equal(h.Versions, tt.versions) || h.Version() != tt.highest {
			t.Errorf("%#04x: %v, highest %v, %v", tt.version, h.Versions, h.Version(), ok)
		}
		if !slices.Equal(h.CipherSuites, []uint16{0x2f, 0x5600}) || !slices.Equal(h.SSL2Ciphers, []uint32{0x0700c0}) || !h.Fallback() {
			t.Errorf("%#04x: suites %x, ciphers %x", tt.version, h.CipherSuites, h.SSL2Ciphers)
		}
	}
	for _, b := range [][]byte{hello.SSLv2(), hello.SSLv2Offering(0x0301), hello.SSLv2Large(0x0303)} {
		if h, ok := parseSSL2Hello(b); !ok || len(h.CipherSuites)+len(h.SSL2Ciphers) == 0 {
			t.Errorf("% x: %+v, %v", b[:11], h, ok)
		}
	}
}

func TestMalformedSSL2Hellos(t *testing.T) {
	good := ssl2Bytes(0x0301, []byte{0, 0, 0x2f}, nil, make([]byte, 16))
	with := func(at int, b byte) []byte {
		c := slices.Clone(good)
		c[at] = b
		return c
	}
	for name, b := range map[string][]byte{
		"empty": nil, "header alone": good[:2], "cut in the header": good[:10], "no specs": ssl2Bytes(0x0301, nil, nil, make([]byte, 16)),
		"specs not by three": with(6, 2), "specs beyond the end": with(6, 33), "session beyond the end": with(8, 1),
		"challenge too short": with(10, 15), "challenge too long": with(10, 17), "huge lengths": with(5, 0xff),
		"a byte short": good[:len(good)-1], "a byte more": append(slices.Clone(good), 0),
	} {
		if h, ok := parseSSL2Hello(b); ok {
			t.Errorf("%s is taken for %+v", name, h)
		}
	}
}
