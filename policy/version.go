package policy

import (
	"crypto/tls"
	"fmt"
)

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

// ParseVersion returns the version of that label; NoVersion has none.
func ParseVersion(s string) (Version, error) {
	return oneOf("version", "", Versions[:len(Versions)-1], s)
}

func (v Version) known() bool { return v == SSL2 || v >= SSL3 && v <= TLS13 }

// isGREASE reports whether v is one of the values that RFC 8701 reserves for
// clients to keep servers tolerant.
func isGREASE(v uint16) bool {
	return v&0x0f0f == 0x0a0a && v>>8 == v&0xff
}
