package posterntest

import (
	"crypto/rand"
	"slices"

	"golang.org/x/crypto/cryptobyte"
)

// maxRecord is the most plaintext that one record holds (RFC 8446, Section 5.1).
const maxRecord = 1 << 14

// Fragment returns the same handshake message cut into records of n bytes,
// which TLS allows at any place (RFC 8446, Section 5.1). hello is a ClientHello
// in whole records.
func Fragment(hello []byte, n int) []byte {
	var version uint16
	var message []byte
	for in := cryptobyte.String(hello); !in.Empty(); {
		var part cryptobyte.String
		if n <= 0 || !in.Skip(1) || !in.ReadUint16(&version) || !in.ReadUint16LengthPrefixed(&part) {
			return slices.Clone(hello)
		}
		message = append(message, part...)
	}
	var b cryptobyte.Builder
	for part := range slices.Chunk(message, min(n, maxRecord)) {
		b.AddUint8(22) // handshake
		b.AddUint16(version)
		b.AddUint16LengthPrefixed(func(b *cryptobyte.Builder) { b.AddBytes(part) })
	}
	return b.BytesOrPanic()
}

// ALPN is the data of the extension of number 16 (RFC 7301).
func ALPN(names ...string) []byte {
	var b cryptobyte.Builder
	b.AddUint16LengthPrefixed(func(b *cryptobyte.Builder) {
		for _, name := range names {
			b.AddUint8LengthPrefixed(func(b *cryptobyte.Builder) { b.AddBytes([]byte(name)) })
		}
	})
	return b.BytesOrPanic()
}

// Padding is the data of the extension of number 21 (RFC 7685) that makes a ClientHello,
// one record with an extensions block, a message of so many bytes.
func Padding(hello []byte, size int) []byte {
	const recordHeader, extensionHeader = 5, 4
	return make([]byte, size-(len(hello)-recordHeader)-extensionHeader)
}

// ssl2Suites are suites of SSL 3.0 and later, as an SSLv2-compatible ClientHello
// carries them: two bytes behind a zero (RFC 5246, Appendix E.2). The last is of
// SSLv2 itself.
var ssl2Suites = []uint32{
	0x00002f, // TLS_RSA_WITH_AES_128_CBC_SHA
	0x000035, // TLS_RSA_WITH_AES_256_CBC_SHA
	0x00000a, // TLS_RSA_WITH_3DES_EDE_CBC_SHA
	0x000005, // TLS_RSA_WITH_RC4_128_SHA
	0x010080, // RC4 128 with MD5
}

// SSLv2Offering returns an SSLv2-compatible ClientHello that offers version,
// SSL 3.0 or later. Clients sent it to servers that might only speak SSLv2.
func SSLv2Offering(version uint16) []byte { return ssl2Hello(version, ssl2Suites) }

// SSLv2Large is SSLv2Offering with so many cipher kinds that the message has
// more than 255 bytes and the header begins with 0x81.
func SSLv2Large(version uint16) []byte {
	specs := slices.Clone(ssl2Suites)
	for len(specs) < 100 {
		specs = append(specs, uint32(0xc000+len(specs)))
	}
	return ssl2Hello(version, specs)
}

func ssl2Hello(version uint16, specs []uint32) []byte {
	challenge := make([]byte, 16)
	rand.Read(challenge)
	var b cryptobyte.Builder
	b.AddUint8(1) // CLIENT-HELLO
	b.AddUint16(version)
	b.AddUint16(uint16(3 * len(specs)))
	b.AddUint16(0) // of a session ID
	b.AddUint16(uint16(len(challenge)))
	for _, s := range specs {
		b.AddUint24(s)
	}
	b.AddBytes(challenge)
	message := b.BytesOrPanic()
	return append([]byte{0x80 | byte(len(message)>>8), byte(len(message))}, message...)
}
