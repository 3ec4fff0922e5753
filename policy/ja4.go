package policy

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
)

// The extensions that JA4 counts but does not hash: they differ between
// connections of one client.
const (
	extensionServerName = 0
	extensionALPN       = 16
)

const emptyJA4Hash = "000000000000"

// JA4 is the fingerprint of the hello by the JA4 method (for TLS over TCP): the
// version, whether a name was sent, how many suites and extensions, the first
// ALPN protocol, then hashes of the sorted suites, and of the sorted
// extensions with the signature schemes in their order. GREASE is left out.
func (h *Hello) JA4() string {
	suites := withoutGREASE(h.CipherSuites)
	extensions := withoutGREASE(h.Extensions)
	name := "i"
	if slices.Contains(extensions, extensionServerName) {
		name = "d"
	}
	var b strings.Builder
	fmt.Fprintf(&b, "t%s%s%02d%02d%s_", ja4Version(h.Version()), name,
		min(len(suites), 99), min(len(extensions), 99), ja4ALPN(h.ALPN))
	slices.Sort(suites)
	b.WriteString(ja4Hash(hexList(suites)))
	b.WriteByte('_')

	extensions = slices.DeleteFunc(extensions, func(e uint16) bool {
		return e == extensionServerName || e == extensionALPN
	})
	slices.Sort(extensions)
	hashed := hexList(extensions)
	schemes := make([]uint16, 0, len(h.SignatureSchemes))
	for _, s := range h.SignatureSchemes {
		schemes = append(schemes, uint16(s))
	}
	if schemes = withoutGREASE(schemes); len(schemes) > 0 {
		hashed += "_" + hexList(schemes)
	}
	b.WriteString(ja4Hash(hashed))
	return b.String()
}

func ja4Version(v Version) string {
	switch v {
	case SSL2:
		return "s2"
	case SSL3:
		return "s3"
	case TLS10, TLS11, TLS12, TLS13:
		return string([]byte{'1', '0' + byte(v-TLS10)})
	}
	return "00"
}

// ja4ALPN is the first and last character of the first protocol that the
// client names, or of its hexadecimal form where they are not alphanumeric.
func ja4ALPN(protocols []string) string {
	if len(protocols) == 0 || protocols[0] == "" {
		return "00"
	}
	p := protocols[0]
	if !alphanumeric(p[0]) || !alphanumeric(p[len(p)-1]) {
		p = hex.EncodeToString([]byte(p))
	}
	return string([]byte{p[0], p[len(p)-1]})
}

func alphanumeric(c byte) bool {
	return c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
}

func ja4Hash(s string) string {
	if s == "" {
		return emptyJA4Hash
	}
	sum := sha256.Sum256([]byte(s))
	return hex.EncodeToString(sum[:6])
}

func hexList(values []uint16) string {
	b := make([]byte, 0, 5*len(values))
	for i, v := range values {
		if i > 0 {
			b = append(b, ',')
		}
		b = fmt.Appendf(b, "%04x", v)
	}
	return string(b)
}

func withoutGREASE(values []uint16) []uint16 {
	kept := make([]uint16, 0, len(values))
	for _, v := range values {
		if !isGREASE(v) {
			kept = append(kept, v)
		}
	}
	return kept
}
