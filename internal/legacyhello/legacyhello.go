// Package legacyhello reads what ClientHellos offer: of those in the SSLv2-compatible
// format, which crypto/tls does not know; of those in a form that crypto/tls does not
// take; and of old ones, which no floor accepts, at a fraction of what crypto/tls costs.
//
// All functions are pure, and the hellos they return keep nothing of the input.
package legacyhello

import (
	"bytes"
	"slices"

	"golang.org/x/crypto/cryptobyte"

	"postern/internal/hello"
	"postern/policy"
)

const (
	handshakeHeaderLen = 4 // the type and the length of a message
	randomLen          = 32
)

// SoleOld reports whether b is one record with one whole ClientHello and nothing else,
// that names a version below TLS 1.2 as its own.
func SoleOld(b []byte) bool {
	const headers = hello.RecordHeader + handshakeHeaderLen
	return len(b) > headers && b[0] == hello.RecordHandshake && b[1] == 3 && hello.RecordHeader+int(b[3])<<8+int(b[4]) == len(b) &&
		headers+int(b[6])<<16+int(b[7])<<8+int(b[8]) == len(b) && Version(b) != policy.NoVersion && Version(b) < policy.TLS12
}

// Parse reads what a ClientHello offers. It takes what crypto/tls does not: a name that
// ends in a dot, an extension that comes twice or in a form that is not known, or a
// hello that is longer than crypto/tls reads; of a hello that crypto/tls takes it says
// the same. b is the flight in its records, or the beginning of it. ok is false where
// the lengths of a whole hello contradict each other, or where there is no cipher suite.
func Parse(b []byte) (h policy.Hello, ok bool) {
	message := cryptobyte.String(firstMessage(b, len(b)))
	var messageType uint8
	var length uint32
	var version uint16
	var session, suites, compression cryptobyte.String
	if !message.ReadUint8(&messageType) || messageType != hello.TypeClientHello || !message.ReadUint24(&length) {
		return h, false
	}
	whole := len(message) >= int(length)
	message = message[:min(len(message), int(length))]
	if !message.ReadUint16(&version) || !message.Skip(randomLen) || !message.ReadUint8LengthPrefixed(&session) ||
		!message.ReadUint16LengthPrefixed(&suites) || len(suites) == 0 || len(suites)%2 != 0 {
		return h, false
	}
	numbers(suites, &h.CipherSuites)
	sound := message.ReadUint8LengthPrefixed(&compression)
	if sound && !message.Empty() {
		var size uint16
		sound = message.ReadUint16(&size) && parseExtensions(message, &h) && len(message) == int(size)
	}
	if whole && !sound {
		return policy.Hello{}, false
	}
	if len(h.Versions) == 0 {
		h.Versions = versionsUpTo(policy.Version(version))
	}
	return h, true
}

// Version is the version that the ClientHello at the beginning of b names as its
// own; in a hello of TLS 1.3 that is TLS 1.2. What is below SSL 3.0 is taken for that.
// It is NoVersion where b is too short.
func Version(b []byte) policy.Version {
	m := firstMessage(b, handshakeHeaderLen+2)
	if len(m) < handshakeHeaderLen+2 || m[0] != hello.TypeClientHello {
		return policy.NoVersion
	}
	return max(policy.SSL3, policy.Version(m[handshakeHeaderLen])<<8|policy.Version(m[handshakeHeaderLen+1]))
}

// firstMessage puts together what is in the handshake records at the beginning of
// b, up to n bytes of it.
func firstMessage(b cryptobyte.String, n int) (message []byte) {
	for len(message) < n && len(b) > hello.RecordHeader && b[0] == hello.RecordHandshake {
		part := b[hello.RecordHeader:min(len(b), hello.RecordHeader+int(b[3])<<8+int(b[4]))]
		b = b[hello.RecordHeader+len(part):]
		if message == nil && (len(b) == 0 || len(part) >= n) {
			return part // all in one piece, as most are
		}
		message = append(message, part...)
	}
	return message
}

// versionsUpTo lists what a hello without supported_versions offers, as crypto/tls
// does.
func versionsUpTo(v policy.Version) (list []uint16) {
	for v = min(v, policy.TLS12); v >= policy.TLS10; v-- {
		list = append(list, uint16(v))
	}
	if list == nil {
		list = []uint16{uint16(policy.SSL3)}
	}
	return list
}

// parseExtensions reads the extensions that are there, the first of each kind, and
// reports whether they end where b does.
func parseExtensions(b cryptobyte.String, h *policy.Hello) bool {
	var number uint16
	var data cryptobyte.String
	for !b.Empty() {
		if !b.ReadUint16(&number) || !b.ReadUint16LengthPrefixed(&data) {
			return false
		}
		if !slices.Contains(h.Extensions, number) {
			h.Extensions = append(h.Extensions, number)
			parseExtension(number, data, h)
		}
	}
	return true
}

// parseExtension reads a list whatever its own length says.
func parseExtension(number uint16, data cryptobyte.String, h *policy.Hello) {
	var name cryptobyte.String
	switch number {
	case hello.ExtServerName:
		var nameType uint8
		for data.Skip(2); data.ReadUint8(&nameType) && data.ReadUint16LengthPrefixed(&name); {
			if nameType == 0 && h.ServerName == "" {
				h.ServerName = string(bytes.TrimRight(name, "."))
			}
		}
	case hello.ExtSupportedGroups:
		data.Skip(2)
		numbers(data, &h.Groups)
	case hello.ExtPointFormats:
		data.Skip(1)
		h.Points = bytes.Clone(data)
	case hello.ExtSignatureAlgorithms:
		data.Skip(2)
		numbers(data, &h.SignatureSchemes)
	case hello.ExtALPN:
		for data.Skip(2); data.ReadUint8LengthPrefixed(&name); {
			h.ALPN = append(h.ALPN, string(name))
		}
	case hello.ExtSupportedVersions:
		data.Skip(1)
		numbers(data, &h.Versions)
	}
}

// numbers appends the 16-bit numbers that are there.
func numbers[T ~uint16](list cryptobyte.String, into *[]T) {
	var n uint16
	*into = slices.Grow(*into, len(list)/2)
	for list.ReadUint16(&n) {
		*into = append(*into, T(n))
	}
}

// IsSSLv2 reports whether a flight that begins with b, at least three bytes of
// it, is an SSLv2-compatible ClientHello.
func IsSSLv2(b []byte) bool {
	return len(b) >= 3 && b[0]&0x80 != 0 && b[2] == hello.TypeClientHello
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
	// SSL 2.0 is offered alone. TLS 1.3 cannot be in this format.
	if h.Versions = []uint16{version}; version>>8 == 3 {
		h.Versions = versionsUpTo(policy.Version(version))
	}
	for ; len(specs) > 0; specs = specs[3:] {
		if spec := uint32(specs[0])<<16 | uint32(specs[1])<<8 | uint32(specs[2]); spec>>16 == 0 {
			h.CipherSuites = append(h.CipherSuites, uint16(spec))
		} else {
			h.SSL2Ciphers = append(h.SSL2Ciphers, spec)
		}
	}
	return h, true
}
