// Package hello makes the first bytes that TLS clients of every generation
// send, and reads the first answer of a server. The bytes are written by hand
// because crypto/tls, as a client, can offer neither SSLv2 nor SSLv3 nor the
// oddities that servers meet in the field.
package hello

import (
	"cmp"
	"crypto/rand"
	"crypto/tls"
	"slices"

	"golang.org/x/crypto/cryptobyte"
)

// Versions that crypto/tls has no usable name for.
const (
	VersionSSL20 = 0x0002
	VersionSSL30 = 0x0300
)

// Extension numbers (IANA, TLS ExtensionType Values).
const (
	ExtServerName          = 0
	ExtSupportedGroups     = 10
	ExtPointFormats        = 11
	ExtSignatureAlgorithms = 13
	ExtALPN                = 16
	ExtSupportedVersions   = 43
	extKeyShare            = 51
)

const (
	recordAlert     = 21
	RecordHandshake = 22

	TypeClientHello       = 1
	typeServerHello       = 2
	typeCertificate       = 11
	typeServerKeyExchange = 12
	typeServerHelloDone   = 14

	// maxRecord is the most plaintext that one record holds (RFC 8446,
	// Section 5.1).
	maxRecord = 1 << 14

	RecordHeader = 5
)

// Spec describes a ClientHello. Empty fields are left out; the zero Spec is a
// TLS 1.2 hello that offers no cipher suite.
type Spec struct {
	// Version is the legacy_version field, TLS 1.2 where it is 0. SSL 2.0 makes it the
	// hello of that, whatever the other fields say.
	Version      uint16
	CipherSuites []uint16
	// SessionID holds at most 32 bytes.
	SessionID []byte

	// NoExtensions leaves the whole extensions block out, whatever the fields
	// below say, as clients of SSL 3.0 and many of TLS 1.0 do.
	NoExtensions bool
	ServerName   string
	// Groups adds the extension for point formats. A Spec that offers TLS 1.3
	// and X25519 also gets an X25519 key share.
	Groups            []tls.CurveID
	SignatureSchemes  []tls.SignatureScheme
	SupportedVersions []uint16
	// Extra extensions come after the others, in their order.
	Extra []Extension
}

// Extension is one raw extension of a ClientHello.
type Extension struct {
	Type uint16
	Data []byte
}

// ClientHello returns the hello in as many records as it takes. The random is
// fresh on every call. It panics if a list does not fit its length field.
func ClientHello(s Spec) []byte {
	if s.Version == VersionSSL20 {
		return SSLv2()
	}
	var b cryptobyte.Builder
	b.AddUint8(TypeClientHello)
	b.AddUint24LengthPrefixed(func(b *cryptobyte.Builder) { // RFC 8446, Section 4.1.2
		b.AddUint16(s.version())
		b.AddBytes(random(32))
		b.AddUint8LengthPrefixed(raw(s.SessionID))
		b.AddUint16LengthPrefixed(list(s.CipherSuites))
		b.AddUint8LengthPrefixed(raw([]byte{0})) // no compression
		if !s.NoExtensions {
			b.AddUint16LengthPrefixed(s.extensions)
		}
	})
	// RFC 8446, Appendix D.2: a record has the version TLS 1.0, or SSL 3.0 for a client of that.
	return records(b.BytesOrPanic(), min(max(s.version(), VersionSSL30), tls.VersionTLS10))
}

func records(message []byte, version uint16) []byte {
	var b cryptobyte.Builder
	for part := range slices.Chunk(message, maxRecord) {
		b.AddUint8(RecordHandshake)
		b.AddUint16(version)
		b.AddUint16LengthPrefixed(raw(part))
	}
	return b.BytesOrPanic()
}

func (s Spec) version() uint16 { return cmp.Or(s.Version, tls.VersionTLS12) }

func (s Spec) extensions(b *cryptobyte.Builder) {
	prefixed := func(number uint16, list cryptobyte.BuilderContinuation) {
		addExtension(b, number, func(b *cryptobyte.Builder) { b.AddUint16LengthPrefixed(list) })
	}
	if s.ServerName != "" {
		prefixed(ExtServerName, func(b *cryptobyte.Builder) {
			b.AddUint8(0) // host_name
			b.AddUint16LengthPrefixed(raw(s.ServerName))
		})
	}
	if len(s.Groups) > 0 {
		prefixed(ExtSupportedGroups, list(s.Groups))
		addExtension(b, ExtPointFormats, raw([]byte{1, 0}))
	}
	if len(s.SignatureSchemes) > 0 {
		prefixed(ExtSignatureAlgorithms, list(s.SignatureSchemes))
	}
	if len(s.SupportedVersions) > 0 {
		addExtension(b, ExtSupportedVersions, func(b *cryptobyte.Builder) { b.AddUint8LengthPrefixed(list(s.SupportedVersions)) })
	}
	if slices.Contains(s.SupportedVersions, tls.VersionTLS13) {
		prefixed(extKeyShare, s.keyShare)
	}
	for _, e := range s.Extra {
		addExtension(b, e.Type, raw(e.Data))
	}
}

// keyShare is a share for X25519, where any 32 bytes are a public key. Without
// that group the list is empty, which asks for a HelloRetryRequest (RFC 8446,
// Section 4.2.8).
func (s Spec) keyShare(b *cryptobyte.Builder) {
	if slices.Contains(s.Groups, tls.X25519) {
		b.AddUint16(uint16(tls.X25519))
		b.AddUint16LengthPrefixed(raw(random(32)))
	}
}

func addExtension(b *cryptobyte.Builder, number uint16, data cryptobyte.BuilderContinuation) {
	b.AddUint16(number)
	b.AddUint16LengthPrefixed(data)
}

func list[T ~uint16](values []T) cryptobyte.BuilderContinuation {
	return func(b *cryptobyte.Builder) {
		for _, v := range values {
			b.AddUint16(uint16(v))
		}
	}
}

func raw[T string | []byte](data T) cryptobyte.BuilderContinuation {
	return func(b *cryptobyte.Builder) { b.AddBytes([]byte(data)) }
}

func random(n int) []byte {
	b := make([]byte, n)
	rand.Read(b)
	return b
}
