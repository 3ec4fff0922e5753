package policy

import (
	"crypto/tls"
	"slices"
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
// offers here (TLS_FALLBACK_SCSV, RFC 7507).
func (h *Hello) Fallback() bool {
	return slices.Contains(h.CipherSuites, tls.TLS_FALLBACK_SCSV)
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
	for _, c := range h.SSL2Ciphers {
		if len(names) < maxListed {
			names = append(names, ssl2CipherName(c))
		}
	}
	return named(names, h.CipherSuites, CipherSuiteName)
}
