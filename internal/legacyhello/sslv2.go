package legacyhello

import (
	"golang.org/x/crypto/cryptobyte"

	"postern/policy"
)

// IsSSLv2 reports whether a flight that begins with b, at least three bytes of
// it, is an SSLv2-compatible ClientHello.
func IsSSLv2(b []byte) bool {
	return len(b) >= 3 && b[0]&0x80 != 0 && b[2] == typeClientHello
}

// SSLv2Len is the length of an SSLv2-compatible ClientHello whose first two
// bytes are given.
func SSLv2Len(b []byte) int { return 2 + int(b[0]&0x7f)<<8 + int(b[1]) }

// ParseSSLv2 parses an SSLv2-compatible ClientHello (RFC 5246, Appendix E.2). It
// may offer SSL 2.0 itself, or anything up to TLS 1.2.
func ParseSSLv2(b []byte) (h policy.Hello, ok bool) {
	s := cryptobyte.String(b)
	var version, specsLen, sessionLen, challengeLen uint16
	var specs []byte
	if !s.Skip(3) || !s.ReadUint16(&version) ||
		!s.ReadUint16(&specsLen) || !s.ReadUint16(&sessionLen) || !s.ReadUint16(&challengeLen) ||
		specsLen == 0 || specsLen%3 != 0 || !s.ReadBytes(&specs, int(specsLen)) ||
		len(s) != int(sessionLen)+int(challengeLen) {
		return h, false
	}
	h.SSL2Format = true
	h.Versions = sslv2Versions(policy.Version(version))
	for ; len(specs) > 0; specs = specs[3:] {
		if spec := uint32(specs[0])<<16 | uint32(specs[1])<<8 | uint32(specs[2]); spec>>16 == 0 {
			h.CipherSuites = append(h.CipherSuites, uint16(spec))
		} else {
			h.SSL2Ciphers = append(h.SSL2Ciphers, spec)
		}
	}
	return h, true
}

// sslv2Versions lists what such a hello offers: the version it names, and for
// TLS those below. TLS 1.3 cannot be offered in this format.
func sslv2Versions(v policy.Version) []uint16 {
	if v > policy.TLS12 && v>>8 == 3 {
		v = policy.TLS12
	}
	versions := []uint16{uint16(v)}
	if v > policy.TLS10 && v <= policy.TLS12 {
		for v--; v >= policy.TLS10; v-- {
			versions = append(versions, uint16(v))
		}
	}
	return versions
}
