package policy

import (
	"crypto/sha256"
	"encoding/hex"
	"slices"
)

// The extensions that JA4 counts but does not hash: they differ between
// connections of one client.
const (
	extensionServerName = 0
	extensionALPN       = 16
)

const emptyJA4Hash = "000000000000"

// JA4 is a fingerprint of a hello, such as t13d1516h2_8daaf6152771_e5627efa2ab1.
type JA4 [36]byte

// String returns the fingerprint as text; empty for the zero value.
func (j JA4) String() string {
	if j == (JA4{}) {
		return ""
	}
	return string(j[:])
}

// MarshalText is String.
func (j JA4) MarshalText() ([]byte, error) { return []byte(j.String()), nil }

// JA4 is the fingerprint as text.
func (h *Hello) JA4() string { return h.Fingerprint().String() }

// Fingerprint is that of the hello by the JA4 method (for TLS over TCP): the
// version, whether a name was sent, how many suites and extensions, the first
// ALPN protocol, then hashes of the sorted suites, and of the sorted
// extensions with the signature schemes in their order. GREASE is left out.
//
// It takes no memory where no list is longer than those of honest clients.
func (h *Hello) Fingerprint() (ja4 JA4) {
	const usualList = 128
	var suiteSpace, extensionSpace, schemeSpace [usualList]uint16
	var text [3 * 5 * usualList]byte

	suites := appendWithoutGREASE(suiteSpace[:0], h.CipherSuites)
	extensions := appendWithoutGREASE(extensionSpace[:0], h.Extensions)
	name := byte('i')
	if slices.Contains(extensions, extensionServerName) {
		name = 'd'
	}
	b := append(ja4[:0], 't')
	b = append(b, versionNames[h.Version()].ja4...)
	b = append(b, name)
	b = appendCount(b, len(suites))
	b = appendCount(b, len(extensions))
	b = appendALPN(b, h.ALPN)

	slices.Sort(suites)
	b = appendHash(append(b, '_'), appendHexList(text[:0], suites))

	kept := extensions[:0]
	for _, e := range extensions {
		if e != extensionServerName && e != extensionALPN {
			kept = append(kept, e)
		}
	}
	slices.Sort(kept)
	hashed := appendHexList(text[:0], kept)
	if schemes := appendWithoutGREASE(schemeSpace[:0], h.SignatureSchemes); len(schemes) > 0 {
		hashed = appendHexList(append(hashed, '_'), schemes)
	}
	appendHash(append(b, '_'), hashed)
	return ja4
}

// appendCount appends two digits, 99 at most.
func appendCount(b []byte, n int) []byte {
	n = min(n, 99)
	return append(b, '0'+byte(n/10), '0'+byte(n%10))
}

// appendALPN appends the first and last character of the first protocol that
// the client names, or of its hexadecimal form where they are not alphanumeric.
func appendALPN(b []byte, protocols []string) []byte {
	if len(protocols) == 0 || protocols[0] == "" {
		return append(b, "00"...)
	}
	p := protocols[0]
	first, last := p[0], p[len(p)-1]
	if alphanumeric(first) && alphanumeric(last) {
		return append(b, first, last)
	}
	return hex.AppendEncode(b, []byte{first&0xf0 | last&0x0f})
}

func alphanumeric(c byte) bool {
	return c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
}

// appendHash appends the first twelve digits of the text's SHA-256.
func appendHash(b, text []byte) []byte {
	if len(text) == 0 {
		return append(b, emptyJA4Hash...)
	}
	sum := sha256.Sum256(text)
	return hex.AppendEncode(b, sum[:6])
}

// appendHexList appends four digits a value, with commas in between.
func appendHexList(b []byte, values []uint16) []byte {
	for i, v := range values {
		if i > 0 {
			b = append(b, ',')
		}
		b = hex.AppendEncode(b, []byte{byte(v >> 8), byte(v)})
	}
	return b
}

func appendWithoutGREASE[T ~uint16](kept []uint16, values []T) []uint16 {
	for _, v := range values {
		if !isGREASE(uint32(v)) {
			kept = append(kept, uint16(v))
		}
	}
	return kept
}
