// Package hello makes the first bytes that TLS clients of every generation
// send, and reads the first answer of a server. The bytes are written by hand
// because crypto/tls, as a client, can offer neither SSLv2 nor SSLv3 nor the
// oddities that servers meet in the field.
package hello

import (
	"crypto/rand"
	"crypto/tls"
	"encoding/binary"
	"fmt"
	"slices"
)

// Versions that crypto/tls has no usable name for.
const (
	VersionSSL20 = 0x0002
	VersionSSL30 = 0x0300
)

// Extension numbers (IANA, TLS ExtensionType Values).
const (
	extServerName          = 0
	extSupportedGroups     = 10
	extPointFormats        = 11
	extSignatureAlgorithms = 13
	extALPN                = 16
	extPadding             = 21
	extSupportedVersions   = 43
	extKeyShare            = 51
)

const (
	recordAlert     = 21
	recordHandshake = 22

	typeClientHello = 1
	typeServerHello = 2

	// maxRecord is the most plaintext that one record holds (RFC 8446,
	// Section 5.1).
	maxRecord = 1 << 14

	recordHeader  = 5
	messageHeader = 4
)

// Spec says what a ClientHello offers. What is left empty is left out; the
// zero Spec is a TLS 1.2 hello that offers no cipher suite.
type Spec struct {
	// Version is the legacy_version field, TLS 1.2 where it is 0.
	Version uint16
	// RecordVersion stands in the record header. Where it is 0, it is TLS 1.0,
	// or SSL 3.0 for a Version of SSL 3.0 (RFC 8446, Appendix D.2).
	RecordVersion uint16
	CipherSuites  []uint16
	// SessionID holds at most 32 bytes.
	SessionID []byte
	// Compression lists the methods; empty means the null method alone.
	Compression []byte

	// NoExtensions leaves the whole extensions block out, whatever the fields
	// below say, as clients of SSL 3.0 and many of TLS 1.0 do.
	NoExtensions bool
	ServerName   string
	// Groups brings the extension for point formats along. A Spec that offers
	// TLS 1.3 and X25519 also gets an X25519 key share.
	Groups            []tls.CurveID
	SignatureSchemes  []tls.SignatureScheme
	ALPN              []string
	SupportedVersions []uint16
	// Extra extensions come after the others, in their order.
	Extra []Extension
	// Size pads the handshake message, its four-byte header included, to this
	// many bytes by the extension of RFC 7685. A message that is longer
	// already, or lacks fewer bytes than the extension takes, stays as it is.
	Size int
}

// Extension is one raw extension of a ClientHello.
type Extension struct {
	Type uint16
	Data []byte
}

// ClientHello returns the hello in as many records as it takes. The random is
// fresh on every call. It panics where a list does not fit the length field
// that the protocol gives it.
func ClientHello(s Spec) []byte {
	body := s.body()
	message := []byte{typeClientHello, byte(len(body) >> 16), byte(len(body) >> 8), byte(len(body))}
	message = append(message, body...)
	return records(message, s.recordVersion(), maxRecord)
}

// Fragment returns the same handshake message cut into records of n bytes,
// which TLS allows at any place (RFC 8446, Section 5.1). hello is what
// ClientHello returns.
func Fragment(hello []byte, n int) []byte {
	if len(hello) < recordHeader || n <= 0 {
		return slices.Clone(hello)
	}
	version := binary.BigEndian.Uint16(hello[1:])
	var message []byte
	for rest := hello; len(rest) >= recordHeader; {
		end := recordHeader + int(binary.BigEndian.Uint16(rest[3:]))
		if end > len(rest) {
			return slices.Clone(hello)
		}
		message = append(message, rest[recordHeader:end]...)
		rest = rest[end:]
	}
	return records(message, version, min(n, maxRecord))
}

func records(message []byte, version uint16, n int) []byte {
	var out []byte
	for part := range slices.Chunk(message, n) {
		out = append(out, recordHandshake)
		out = binary.BigEndian.AppendUint16(out, version)
		out = append16(out, part)
	}
	return out
}

func (s Spec) version() uint16 {
	if s.Version == 0 {
		return tls.VersionTLS12
	}
	return s.Version
}

func (s Spec) recordVersion() uint16 {
	switch {
	case s.RecordVersion != 0:
		return s.RecordVersion
	case s.version() <= VersionSSL30:
		return VersionSSL30
	}
	return tls.VersionTLS10
}

// body is the message behind its header (RFC 8446, Section 4.1.2).
func (s Spec) body() []byte {
	b := binary.BigEndian.AppendUint16(nil, s.version())
	b = append(b, random(32)...)
	b = append8(b, s.SessionID)
	b = append16(b, list16(s.CipherSuites))
	compression := s.Compression
	if len(compression) == 0 {
		compression = []byte{0}
	}
	b = append8(b, compression)
	if s.NoExtensions {
		return b
	}
	extensions := s.extensions()
	if pad := s.Size - messageHeader - len(b) - 2 - len(extensions) - 4; pad >= 0 {
		extensions = appendExtension(extensions, extPadding, make([]byte, pad))
	}
	return append16(b, extensions)
}

func (s Spec) extensions() []byte {
	var b []byte
	if s.ServerName != "" {
		name := append16([]byte{0}, []byte(s.ServerName))
		b = appendExtension(b, extServerName, append16(nil, name))
	}
	if len(s.Groups) > 0 {
		b = appendExtension(b, extSupportedGroups, append16(nil, list16(s.Groups)))
		b = appendExtension(b, extPointFormats, []byte{1, 0})
	}
	if len(s.SignatureSchemes) > 0 {
		b = appendExtension(b, extSignatureAlgorithms, append16(nil, list16(s.SignatureSchemes)))
	}
	if len(s.ALPN) > 0 {
		var names []byte
		for _, name := range s.ALPN {
			names = append8(names, []byte(name))
		}
		b = appendExtension(b, extALPN, append16(nil, names))
	}
	if len(s.SupportedVersions) > 0 {
		b = appendExtension(b, extSupportedVersions, append8(nil, list16(s.SupportedVersions)))
	}
	if slices.Contains(s.SupportedVersions, tls.VersionTLS13) {
		b = appendExtension(b, extKeyShare, append16(nil, s.keyShare()))
	}
	for _, e := range s.Extra {
		b = appendExtension(b, e.Type, e.Data)
	}
	return b
}

// keyShare is a share for X25519, where any 32 bytes are a public key. Without
// that group the list is empty, which asks for a HelloRetryRequest (RFC 8446,
// Section 4.2.8).
func (s Spec) keyShare() []byte {
	if !slices.Contains(s.Groups, tls.X25519) {
		return nil
	}
	b := binary.BigEndian.AppendUint16(nil, uint16(tls.X25519))
	return append16(b, random(32))
}

func random(n int) []byte {
	b := make([]byte, n)
	rand.Read(b)
	return b
}

func list16[T ~uint16](values []T) []byte {
	var b []byte
	for _, v := range values {
		b = binary.BigEndian.AppendUint16(b, uint16(v))
	}
	return b
}

func appendExtension(b []byte, number uint16, data []byte) []byte {
	return append16(binary.BigEndian.AppendUint16(b, number), data)
}

func append8(b, data []byte) []byte {
	if len(data) > 0xff {
		panic(fmt.Sprintf("hello: %d bytes in a list of at most 255", len(data)))
	}
	return append(append(b, byte(len(data))), data...)
}

func append16(b, data []byte) []byte {
	if len(data) > 0xffff {
		panic(fmt.Sprintf("hello: %d bytes in a list of at most 65535", len(data)))
	}
	return append(binary.BigEndian.AppendUint16(b, uint16(len(data))), data...)
}
