package hello

import "encoding/binary"

// Cipher kinds of SSLv2 itself (draft-hickman-netscape-ssl, Appendix C.4).
var ssl2Kinds = []uint32{
	0x010080, // RC4 128 with MD5
	0x030080, // RC2 128 CBC with MD5
	0x0700c0, // 3DES CBC with MD5
	0x060040, // DES CBC with MD5
	0x020080, // RC4 128 export with MD5
}

// Suites of SSL 3.0 and later, as a hello in SSLv2 format carries them: two
// bytes behind a zero (RFC 5246, Appendix E.2).
var ssl2Suites = []uint32{
	0x00002f, // TLS_RSA_WITH_AES_128_CBC_SHA
	0x000035, // TLS_RSA_WITH_AES_256_CBC_SHA
	0x00000a, // TLS_RSA_WITH_3DES_EDE_CBC_SHA
	0x000005, // TLS_RSA_WITH_RC4_128_SHA
}

// SSLv2 returns the CLIENT-HELLO of a client that knows SSLv2 and nothing
// later.
func SSLv2() []byte { return ssl2Hello(VersionSSL20, ssl2Kinds) }

// SSLv2Offering returns a hello in SSLv2 format that offers version, SSL 3.0
// or later: what clients sent to servers of which they could not know whether
// they spoke more than SSLv2.
func SSLv2Offering(version uint16) []byte {
	return ssl2Hello(version, append(ssl2Suites[:len(ssl2Suites):len(ssl2Suites)], ssl2Kinds...))
}

// SSLv2Large is SSLv2Offering with so many cipher kinds that the message has
// more than 255 bytes and the header begins with 0x81.
func SSLv2Large(version uint16) []byte {
	specs := ssl2Suites[:len(ssl2Suites):len(ssl2Suites)]
	for len(specs) < 100 {
		specs = append(specs, uint32(0xc000+len(specs)))
	}
	return ssl2Hello(version, specs)
}

func ssl2Hello(version uint16, specs []uint32) []byte {
	const challenge = 16
	message := []byte{1}
	message = binary.BigEndian.AppendUint16(message, version)
	message = binary.BigEndian.AppendUint16(message, uint16(3*len(specs)))
	message = binary.BigEndian.AppendUint16(message, 0)
	message = binary.BigEndian.AppendUint16(message, challenge)
	for _, s := range specs {
		message = append(message, byte(s>>16), byte(s>>8), byte(s))
	}
	message = append(message, random(challenge)...)
	header := binary.BigEndian.AppendUint16(nil, 0x8000|uint16(len(message)))
	return append(header, message...)
}
