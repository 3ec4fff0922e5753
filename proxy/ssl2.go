package proxy

import (
	"encoding/binary"

	"postern/policy"
)

// A hello in the format of SSL 2.0 may offer SSL 2.0 itself, or anything up to
// TLS 1.2 (RFC 5246, Appendix E.2). crypto/tls cannot read it, so it is read
// here, to be named and refused.

const (
	ssl2ClientHello = 1
	// ssl2HeaderLen is the record header (two bytes, the first with its high
	// bit set), the message type, the version, and three lengths.
	ssl2HeaderLen = 11
)

// ssl2Hello reports whether what comes first is a hello in SSL 2.0 format.
func (c *clientConn) ssl2Hello() bool {
	b, err := c.peek(3)
	return err == nil && b[0]&0x80 != 0 && b[2] == ssl2ClientHello
}

// readSSL2Hello reads a hello in SSL 2.0 format, and leaves its bytes, length
// of them, unread; ok is false where it is malformed.
func (c *clientConn) readSSL2Hello() (h policy.Hello, length int, ok bool, err error) {
	b, err := c.peek(2)
	if err != nil {
		return h, 0, false, err
	}
	length = 2 + int(binary.BigEndian.Uint16(b)&0x7fff)
	if b, err = c.peek(length); err != nil {
		return h, 0, false, err
	}
	h, ok = parseSSL2Hello(b[:length])
	return h, length, ok, nil
}

func parseSSL2Hello(b []byte) (h policy.Hello, ok bool) {
	if len(b) < ssl2HeaderLen {
		return h, false
	}
	specs := int(binary.BigEndian.Uint16(b[5:]))
	session := int(binary.BigEndian.Uint16(b[7:]))
	challenge := int(binary.BigEndian.Uint16(b[9:]))
	if specs == 0 || specs%3 != 0 || len(b) != ssl2HeaderLen+specs+session+challenge {
		return h, false
	}
	h.SSL2Format = true
	h.Versions = ssl2Versions(policy.Version(binary.BigEndian.Uint16(b[3:])))
	for s := b[ssl2HeaderLen : ssl2HeaderLen+specs]; len(s) > 0; s = s[3:] {
		if s[0] == 0 {
			h.CipherSuites = append(h.CipherSuites, binary.BigEndian.Uint16(s[1:]))
		} else {
			h.SSL2Ciphers = append(h.SSL2Ciphers, uint32(s[0])<<16|uint32(s[1])<<8|uint32(s[2]))
		}
	}
	return h, true
}

// ssl2Versions lists what such a hello offers: the version it names, and for
// TLS those below. TLS 1.3 cannot be offered in it.
func ssl2Versions(v policy.Version) []uint16 {
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
