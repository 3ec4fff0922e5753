package policy

import (
	_ "embed"
	"fmt"
	"strconv"
	"strings"
	"sync"
)

// suitesText maps the code points of the IANA registry "TLS Cipher Suites" to
// their names, one a line; crypto/tls knows only those that it can speak. The
// cipher kinds of the SSL 2.0 specification, which have three bytes, follow.
//
//go:embed suites.txt
var suitesText string

var suiteNames = sync.OnceValue(func() map[uint32]string {
	names := make(map[uint32]string, 256)
	for line := range strings.Lines(suitesText) {
		id, name, _ := strings.Cut(strings.TrimSpace(line), " ")
		n, err := strconv.ParseUint(id, 16, 24)
		if err != nil {
			panic("policy: suites.txt: " + err.Error())
		}
		names[uint32(n)] = name
	}
	return names
})

// CipherSuiteName is the IANA name of a suite, or its number as in 0x1a2b.
func CipherSuiteName(id uint16) string {
	if name, ok := suiteNames()[uint32(id)]; ok {
		return name
	}
	return fmt.Sprintf("0x%04x", id)
}

func ssl2CipherName(kind uint32) string {
	if name, ok := suiteNames()[kind]; ok {
		return name
	}
	return fmt.Sprintf("0x%06x", kind)
}
