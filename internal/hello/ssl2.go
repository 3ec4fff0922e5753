package hello

import "golang.org/x/crypto/cryptobyte"

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
