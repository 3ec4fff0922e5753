package legacyhello

import (
	"bytes"
	"slices"

	"golang.org/x/crypto/cryptobyte"

	"postern/policy"
)

// handshakeHeaderLen is the type and the length of a message.
const handshakeHeaderLen = 4

// ParseLoose reads what a ClientHello offers, where crypto/tls does not take it:
// because a name ends in a dot, an extension has a length or a form that it does
// not know, or the hello is longer than it reads. b is the flight in its records,
// or the beginning of it. ok is false where it does not get as far as to a cipher
// suite. What it says of a hello that crypto/tls takes is the same.
func ParseLoose(b []byte) (h policy.Hello, ok bool) {
	message := cryptobyte.String(firstMessage(b, len(b)))
	var messageType uint8
	var length uint32
	var version uint16
	var session, suites, compression cryptobyte.String
	if !message.ReadUint8(&messageType) || messageType != typeClientHello || !message.ReadUint24(&length) {
		return h, false
	}
	message = message[:min(len(message), int(length))]
	if !message.ReadUint16(&version) || !message.Skip(randomLen) || !message.ReadUint8LengthPrefixed(&session) ||
		!message.ReadUint16LengthPrefixed(&suites) || len(suites) < 2 {
		return h, false
	}
	h.Unreadable = true
	looseNumbers(suites, &h.CipherSuites)
	if message.ReadUint8LengthPrefixed(&compression) && message.Skip(2) {
		looseExtensions(message, &h)
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
	if len(m) < handshakeHeaderLen+2 || m[0] != typeClientHello {
		return policy.NoVersion
	}
	return max(policy.SSL3, policy.Version(m[handshakeHeaderLen])<<8|policy.Version(m[handshakeHeaderLen+1]))
}

// firstMessage puts together what is in the handshake records at the beginning of
// b, up to n bytes of it.
func firstMessage(b cryptobyte.String, n int) (message []byte) {
	for len(message) < n && len(b) > 5 && b[0] == recordHandshake {
		length := int(b[3])<<8 | int(b[4])
		part := b[5:min(len(b), 5+length)]
		b = b[5+len(part):]
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

// looseExtensions reads the extensions that are there, the first of each kind.
func looseExtensions(b cryptobyte.String, h *policy.Hello) {
	var number, length uint16
	for b.ReadUint16(&number) && b.ReadUint16(&length) {
		data := b[:min(len(b), int(length))]
		b = b[len(data):]
		if !slices.Contains(h.Extensions, number) {
			h.Extensions = append(h.Extensions, number)
			looseExtension(number, data, h)
		}
	}
}

// looseExtension reads a list whatever its own length says.
func looseExtension(number uint16, data cryptobyte.String, h *policy.Hello) {
	var name cryptobyte.String
	switch number {
	case extServerName:
		var nameType uint8
		for data.Skip(2); data.ReadUint8(&nameType) && data.ReadUint16LengthPrefixed(&name); {
			if nameType == 0 && h.ServerName == "" {
				h.ServerName = string(bytes.TrimRight(name, "."))
			}
		}
	case extSupportedGroups:
		data.Skip(2)
		looseNumbers(data, &h.Groups)
	case extPointFormats:
		data.Skip(1)
		h.Points = bytes.Clone(data)
	case extSignatureAlgorithms:
		data.Skip(2)
		looseNumbers(data, &h.SignatureSchemes)
	case extALPN:
		for data.Skip(2); data.ReadUint8LengthPrefixed(&name); {
			h.ALPN = append(h.ALPN, string(name))
		}
	case extSupportedVersions:
		data.Skip(1)
		looseNumbers(data, &h.Versions)
	}
}

// looseNumbers appends the 16-bit numbers that are there.
func looseNumbers[T ~uint16](list cryptobyte.String, into *[]T) {
	var n uint16
	for list.ReadUint16(&n) {
		*into = append(*into, T(n))
	}
}
