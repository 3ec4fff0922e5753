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

// Families of cipher suites of TLS 1.2 and below, by key exchange or cipher; a test has
// their names.
var (
	RSA = []uint16{0x9c, 0x9d, 0x3c, 0x3d, 0x2f, 0x35, 0xc09c, 0xc09d, 0xc0a0, 0xc0a1, 0x41, 0x84, 0xba, 0xc0, 0xc07a, 0xc07b,
		0xc050, 0xc051, 0x96, 0x07}
	DHE = []uint16{0x9e, 0x9f, 0xccaa, 0x67, 0x6b, 0x33, 0x39, 0xc09e, 0xc09f, 0xc0a2, 0xc0a3, 0x45, 0x88, 0xbe, 0xc4, 0xc07c, 0xc07d,
		0xc052, 0xc053, 0x9a, 0xa2, 0xa3, 0x40, 0x6a, 0x32, 0x38, 0x44, 0x87, 0xbd, 0xc3, 0xc080, 0xc081, 0xc056, 0xc057, 0x99}
	ECDHE = slices.Concat([]uint16{0xc02b, 0xc02c, 0xc02f, 0xc030, 0xcca8, 0xcca9, 0xc0ac, 0xc0ad, 0xc0ae, 0xc0af,
		0xc086, 0xc087, 0xc08a, 0xc08b, 0xc05c, 0xc05d, 0xc060, 0xc061}, CBC)
	// CBC is with ECDHE.
	CBC  = []uint16{0xc023, 0xc024, 0xc027, 0xc028, 0xc009, 0xc00a, 0xc013, 0xc014, 0xc072, 0xc073, 0xc076, 0xc077}
	TDES = []uint16{0x0a, 0x13, 0x16, 0xc008, 0xc012}
	RC4  = []uint16{0x04, 0x05, 0xc007, 0xc011}
)

// Wide is Typical with all that a server might choose for a client of that version, so
// that a refusal is one of the version.
func Wide(version uint16) Spec {
	s := Typical(version)
	s.Groups = append(s.Groups, tls.CurveP521)
	if version >= tls.VersionTLS12 {
		s.SignatureSchemes = append(s.SignatureSchemes, tls.ECDSAWithP384AndSHA384, tls.ECDSAWithP521AndSHA512, tls.Ed25519,
			tls.PSSWithSHA512, tls.PKCS1WithSHA512, tls.ECDSAWithSHA1)
	}
	if version < tls.VersionTLS13 {
		return s.Only(slices.Concat(ECDHE, DHE, RSA, TDES, RC4)...)
	}
	s.CipherSuites = append(s.CipherSuites, tls.TLS_AES_256_GCM_SHA384)
	return s
}

// Only returns the spec with these suites in the place of its own.
func (s Spec) Only(suites ...uint16) Spec {
	s.CipherSuites = suites
	return s
}

// Typical returns the offer of an ordinary client with that highest version:
// suites of its time, and extensions from TLS 1.0 on.
func Typical(version uint16) Spec {
	s := Spec{Version: min(version, tls.VersionTLS12), CipherSuites: suitesOf(version)}
	if version <= VersionSSL30 {
		s.NoExtensions = true
		return s
	}
	s.Groups = []tls.CurveID{tls.X25519, tls.CurveP256, tls.CurveP384}
	if version >= tls.VersionTLS12 {
		s.SignatureSchemes = []tls.SignatureScheme{
			tls.ECDSAWithP256AndSHA256, tls.PSSWithSHA256, tls.PKCS1WithSHA256,
			tls.PSSWithSHA384, tls.PKCS1WithSHA384, tls.PKCS1WithSHA1,
		}
	}
	if version >= tls.VersionTLS13 {
		s.SessionID = random(32)
		s.SupportedVersions = []uint16{tls.VersionTLS13, tls.VersionTLS12}
	}
	return s
}

func suitesOf(version uint16) []uint16 {
	suites := []uint16{
		tls.TLS_AES_128_GCM_SHA256, tls.TLS_CHACHA20_POLY1305_SHA256,
		tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256, tls.TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
		tls.TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA, tls.TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA,
		tls.TLS_RSA_WITH_AES_128_CBC_SHA, tls.TLS_RSA_WITH_AES_256_CBC_SHA, tls.TLS_RSA_WITH_3DES_EDE_CBC_SHA,
	}
	switch {
	case version <= VersionSSL30:
		return append([]uint16{tls.TLS_RSA_WITH_RC4_128_SHA}, suites[7:]...)
	case version < tls.VersionTLS12:
		return suites[5:]
	case version == tls.VersionTLS12:
		return suites[2:]
	}
	return suites[:7]
}

// ssl2Kinds are cipher kinds of SSLv2 itself (draft-hickman-netscape-ssl, Appendix C.4):
// RC4, RC2, 3DES and DES, and RC4 for export, all with MD5.
var ssl2Kinds = []uint32{0x010080, 0x030080, 0x0700c0, 0x060040, 0x020080}

// SSLv2 returns the CLIENT-HELLO of a client that knows SSLv2 and nothing
// later.
func SSLv2() []byte {
	const challenge = 16
	var b cryptobyte.Builder
	b.AddUint8(1) // CLIENT-HELLO
	b.AddUint16(VersionSSL20)
	b.AddUint16(uint16(3 * len(ssl2Kinds)))
	b.AddUint16(0) // of a session ID
	b.AddUint16(challenge)
	for _, k := range ssl2Kinds {
		b.AddUint24(k)
	}
	b.AddBytes(random(challenge))
	message := b.BytesOrPanic()
	return append([]byte{0x80, byte(len(message))}, message...)
}
