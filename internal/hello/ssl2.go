package hello

import (
	"slices"

	"golang.org/x/crypto/cryptobyte"
)

// Cipher kinds of SSLv2 itself (draft-hickman-netscape-ssl, Appendix C.4).
var ssl2Kinds = []uint32{
	0x010080, // RC4 128 with MD5
	0x030080, // RC2 128 CBC with MD5
	0x0700c0, // 3DES CBC with MD5
	0x060040, // DES CBC with MD5
	0x020080, // RC4 128 export with MD5
}

// Suites of SSL 3.0 and later, as an SSLv2-compatible ClientHello carries them:
// two bytes behind a zero (RFC 5246, Appendix E.2).
var ssl2Suites = []uint32{
	0x00002f, // TLS_RSA_WITH_AES_128_CBC_SHA
	0x000035, // TLS_RSA_WITH_AES_256_CBC_SHA
	0x00000a, // TLS_RSA_WITH_3DES_EDE_CBC_SHA
	0x000005, // TLS_RSA_WITH_RC4_128_SHA
}

// SSLv2 returns the CLIENT-HELLO of a client that knows SSLv2 and nothing
// later.
func SSLv2() []byte { return ssl2Hello(VersionSSL20, ssl2Kinds) }

// SSLv2Offering returns an SSLv2-compatible ClientHello that offers version,
// SSL 3.0 or later. Clients sent it to servers that might only speak SSLv2.
func SSLv2Offering(version uint16) []byte {
	return ssl2Hello(version, slices.Concat(ssl2Suites, ssl2Kinds))
}

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
	const challenge = 16
	var b cryptobyte.Builder
	b.AddUint8(1) // CLIENT-HELLO
	b.AddUint16(version)
	b.AddUint16(uint16(3 * len(specs)))
	b.AddUint16(0) // of a session ID
	b.AddUint16(challenge)
	for _, s := range specs {
		b.AddUint24(s)
	}
	b.AddBytes(random(challenge))
	message := b.BytesOrPanic()
	return append([]byte{0x80 | byte(len(message)>>8), byte(len(message))}, message...)
}
