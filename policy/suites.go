package policy

import (
	_ "embed"
	"fmt"
	"strconv"
	"strings"
	"sync"
)

// suitesText maps the code points of the IANA registry "TLS Cipher Suites" to
// their names, one a line; crypto/tls knows only those that it can speak.
//
//go:embed suites.txt
var suitesText string

var suiteNames = sync.OnceValue(func() map[uint16]string {
	names := make(map[uint16]string, 256)
	for line := range strings.Lines(suitesText) {
		id, name, _ := strings.Cut(strings.TrimSpace(line), " ")
		n, err := strconv.ParseUint(id, 16, 16)
		if err != nil {
			panic("policy: suites.txt: " + err.Error())
		}
		names[uint16(n)] = name
	}
	return names
})

// CipherSuiteName is the IANA name of a suite, or its number as in 0x1a2b.
func CipherSuiteName(id uint16) string {
	if name, ok := suiteNames()[id]; ok {
		return name
	}
	return fmt.Sprintf("0x%04x", id)
}

// ssl2CipherName is the name of a cipher kind in the SSL 2.0 specification.
func ssl2CipherName(kind uint32) string {
	switch kind {
	case 0x010080:
		return "SSL_CK_RC4_128_WITH_MD5"
	case 0x020080:
		return "SSL_CK_RC4_128_EXPORT40_WITH_MD5"
	case 0x030080:
		return "SSL_CK_RC2_128_CBC_WITH_MD5"
	case 0x040080:
		return "SSL_CK_RC2_128_CBC_EXPORT40_WITH_MD5"
	case 0x050080:
		return "SSL_CK_IDEA_128_CBC_WITH_MD5"
	case 0x060040:
		return "SSL_CK_DES_64_CBC_WITH_MD5"
	case 0x0700c0:
		return "SSL_CK_DES_192_EDE3_CBC_WITH_MD5"
	}
	return fmt.Sprintf("0x%06x", kind)
}
