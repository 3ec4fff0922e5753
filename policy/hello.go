package policy

import (
	"crypto/tls"
	_ "embed"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"

	"postern/internal/text"
)

// Hello is what a client offered. The slices are shared with whoever made it
// and are only read.
type Hello struct {
	// SSL2Format: an SSLv2-compatible ClientHello, whatever versions
	// it offers (RFC 5246, Appendix E.2). crypto/tls cannot serve one.
	SSL2Format bool
	// Unreadable: crypto/tls refuses the form of the hello, whatever it offers.
	Unreadable bool
	// Versions as offered, GREASE and unknown ones included. A hello without
	// the supported_versions extension offers its own version and those below
	// (RFC 8446, Section 4.2.1).
	Versions []uint16
	// CipherSuites as offered, signalling values included.
	CipherSuites []uint16
	// SSL2Ciphers are the three-byte cipher kinds of SSL 2.0 that are no TLS
	// suites; only with SSL2Format.
	SSL2Ciphers []uint32
	Groups      []tls.CurveID
	// Points are the ec_point_formats of RFC 8422, Section 5.1.2.
	Points           []uint8
	SignatureSchemes []tls.SignatureScheme
	Extensions       []uint16
	ServerName       string
	ALPN             []string
}

var onlySSL3 = []uint16{uint16(SSL3)}

// FromClientHello takes the facts from crypto/tls's view of a hello.
func FromClientHello(chi *tls.ClientHelloInfo) Hello {
	h := Hello{
		Versions:         chi.SupportedVersions,
		CipherSuites:     chi.CipherSuites,
		Groups:           chi.SupportedCurves,
		Points:           chi.SupportedPoints,
		SignatureSchemes: chi.SignatureSchemes,
		Extensions:       chi.Extensions,
		ServerName:       chi.ServerName,
		ALPN:             chi.SupportedProtos,
	}
	const extensionSupportedVersions = 43
	switch {
	case len(h.Versions) == 0:
		h.Versions = onlySSL3
	case h.Versions[0] == uint16(TLS13) && !slices.Contains(h.Extensions, extensionSupportedVersions):
		// TLS 1.3 and later are offered in the extension or not at all.
		h.Versions = h.Versions[1:]
	}
	return h
}

// Version is the highest known version that was offered; NoVersion where there
// is none, as in a hello that offers only versions of the future.
func (h *Hello) Version() Version {
	highest := NoVersion
	for _, v := range h.Versions {
		if v := Version(v); v.known() && v > highest {
			highest = v
		}
	}
	return highest
}

// Fallback reports whether the client says that it can do better than it
// offers here (TLS_FALLBACK_SCSV, RFC 7507). Nothing is better than TLS 1.3.
func (h *Hello) Fallback() bool {
	return h.Version() < TLS13 && slices.Contains(h.CipherSuites, tls.TLS_FALLBACK_SCSV)
}

// highestWithin is the version that a server from min up to TLS 1.3 would
// negotiate, or NoVersion.
func (h *Hello) highestWithin(min Version) Version {
	for v := TLS13; v >= min; v-- {
		if slices.Contains(h.Versions, uint16(v)) {
			return v
		}
	}
	return NoVersion
}

// maxListed bounds what a stranger's hello can put into one log line.
const maxListed = 64

// VersionNames lists the offered versions by label, as sent, without GREASE;
// 64 at most.
func (h *Hello) VersionNames() []string {
	return named(make([]string, 0, len(h.Versions)), h.Versions, func(v uint16) string { return Version(v).String() })
}

// CipherSuiteNames lists the offered suites by IANA name, unknown ones as
// 0x1a2b, as sent, without GREASE; 64 at most.
func (h *Hello) CipherSuiteNames() []string {
	names := make([]string, 0, min(len(h.CipherSuites)+len(h.SSL2Ciphers), maxListed))
	return named(named(names, h.SSL2Ciphers, ssl2CipherName), h.CipherSuites, CipherSuiteName)
}

// Version is a protocol version as it stands on the wire.
type Version uint16

// The versions that have a name in logs and metrics.
const (
	NoVersion Version = 0      // there was no hello, or none that can be read
	SSL2      Version = 0x0002 // SSL 2.0, forbidden by RFC 6176
	SSL3      Version = 0x0300 // SSL 3.0, forbidden by RFC 7568
	TLS10     Version = tls.VersionTLS10
	TLS11     Version = tls.VersionTLS11
	TLS12     Version = tls.VersionTLS12
	TLS13     Version = tls.VersionTLS13
)

// Versions lists every version that is a label value, oldest first and
// NoVersion last.
var Versions = []Version{SSL2, SSL3, TLS10, TLS11, TLS12, TLS13, NoVersion}

// versionNames are the label of a version, its number for people, and the one
// in a JA4 fingerprint.
var versionNames = map[Version]struct{ label, number, ja4 string }{
	NoVersion: {"none", "none", "00"},
	SSL2:      {"ssl2", "SSL 2.0", "s2"},
	SSL3:      {"ssl3", "SSL 3.0", "s3"},
	TLS10:     {"tls1.0", "1.0", "10"},
	TLS11:     {"tls1.1", "1.1", "11"},
	TLS12:     {"tls1.2", "1.2", "12"},
	TLS13:     {"tls1.3", "1.3", "13"},
}

// String returns the label of a version, such as tls1.0; none for NoVersion,
// and the number, such as 0x0305, for one that is not known.
func (v Version) String() string {
	if names, ok := versionNames[v]; ok {
		return names.label
	}
	return fmt.Sprintf("0x%04x", uint16(v))
}

// MarshalText is String.
func (v Version) MarshalText() ([]byte, error) { return []byte(v.String()), nil }

// UnmarshalText reads one of the labels.
func (v *Version) UnmarshalText(label []byte) (err error) {
	*v, err = oneOf("version", "", Versions, string(label))
	return err
}

// Number returns the version as people write it, such as 1.0; SSL versions
// keep their name, as in SSL 3.0.
func (v Version) Number() string {
	if names, ok := versionNames[v]; ok {
		return names.number
	}
	return v.String()
}

// Name returns the version with its protocol, such as TLS 1.0.
func (v Version) Name() string { return text.Either(v >= TLS10, "TLS ", "") + v.Number() }

// ParseVersion returns the version of that label; NoVersion has none.
func ParseVersion(s string) (Version, error) {
	return oneOf("version", "", Versions[:len(Versions)-1], s)
}

func (v Version) known() bool { return v == SSL2 || v >= SSL3 && v <= TLS13 }

// isGREASE reports whether v is one of the values that RFC 8701 reserves for
// clients to keep servers tolerant.
func isGREASE(v uint32) bool {
	return v&^0xf0f0 == 0x0a0a && v>>8 == v&0xff
}

// GroupName is the IANA name of a group, or its number as in 0x1a2b. Clients of TLS
// 1.0 offer many that no one else remembers.
func GroupName(id tls.CurveID) string { return ianaName("group", uint32(id), 4) }

// SchemeName is the IANA name of a signature scheme, with those of RFC 5246, Section
// 7.4.1.4.1, or its number.
func SchemeName(id tls.SignatureScheme) string { return ianaName("scheme", uint32(id), 4) }

// named lists what a hello offers by name, as sent, without GREASE; maxListed at
// most, with those that are listed already.
func named[T ~uint16 | ~uint32](names []string, ids []T, name func(T) string) []string {
	for _, id := range ids {
		if !isGREASE(uint32(id)) && len(names) < maxListed {
			names = append(names, name(id))
		}
	}
	return names
}

// GroupNames lists the offered groups by IANA name, unknown ones as 0x1a2b, as
// sent, without GREASE; 64 at most.
func (h *Hello) GroupNames() []string { return named([]string{}, h.Groups, GroupName) }

// SignatureNames is GroupNames for signature schemes.
func (h *Hello) SignatureNames() []string {
	return named([]string{}, h.SignatureSchemes, SchemeName)
}

// namesText has a code point of TLS and its name on each line, from the IANA
// registries of suites, groups and signature schemes; crypto/tls knows only what it
// can speak. The cipher kinds of the SSL 2.0 specification, which have three bytes,
// are among the suites.
//
//go:embed names.txt
var namesText string

// ianaNames are by registry and code point.
var ianaNames = sync.OnceValue(func() map[string]map[uint32]string {
	names := map[string]map[uint32]string{"suite": {}, "group": {}, "scheme": {}}
	for line := range strings.Lines(namesText) {
		word := strings.Fields(line)
		n, err := strconv.ParseUint(word[1], 16, 24)
		if err != nil {
			panic("policy: names.txt: " + err.Error())
		}
		names[word[0]][uint32(n)] = word[2]
	}
	return names
})

// ianaName is a name, or else the number with so many digits.
func ianaName(registry string, id uint32, digits int) string {
	if name, ok := ianaNames()[registry][id]; ok {
		return name
	}
	return fmt.Sprintf("0x%0*x", digits, id)
}

// CipherSuiteName is the IANA name of a suite, or its number as in 0x1a2b.
func CipherSuiteName(id uint16) string { return ianaName("suite", uint32(id), 4) }

func ssl2CipherName(kind uint32) string { return ianaName("suite", kind, 6) }
