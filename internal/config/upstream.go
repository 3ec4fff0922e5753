package config

import (
	"net"
	"slices"
	"strconv"
	"strings"
)

// TLSKind is how TLS to an upstream begins.
type TLSKind int

const (
	TLSNone     TLSKind = iota // plaintext, for loopback or the same pod
	TLSImplicit                // from the first byte, RFC 8314, Section 3
	TLSStart                   // after STARTTLS or STLS
)

// Scheme is what the scheme of an upstream URL stands for.
type Scheme struct {
	Name        string
	Protocol    string // imap or pop3
	DefaultPort int
	TLS         TLSKind
}

var schemes = []Scheme{
	{"imap", "imap", 143, TLSNone},
	{"imaps", "imap", 993, TLSImplicit},
	{"imap+starttls", "imap", 143, TLSStart},
	{"pop3", "pop3", 110, TLSNone},
	{"pop3s", "pop3", 995, TLSImplicit},
	{"pop3+starttls", "pop3", 110, TLSStart},
}

// Upstream is one mail server behind the gate.
type Upstream struct {
	Scheme Scheme
	Host   string // a name in lower case, or an IP address without brackets
	Port   int    // 1 to 65535
}

// Addr returns host:port, ready for a dialer.
func (u Upstream) Addr() string { return net.JoinHostPort(u.Host, strconv.Itoa(u.Port)) }

// String returns the URL, the port always in it.
func (u Upstream) String() string { return u.Scheme.Name + "://" + u.Addr() }

// Upstreams is a list of mail servers of one protocol.
type Upstreams []Upstream

// UnmarshalText reads comma-separated URLs of any scheme that has a meaning.
func (us *Upstreams) UnmarshalText(text []byte) error {
	*us = nil
	if strings.Contains(string(text), "@") {
		// Nothing of it is shown: what looks like a host may be half a password.
		return badValue{"", "a URL holds only scheme, host and port; no user or password"}
	}
	return eachEntry(string(text), func(entry string) error {
		u, reason := parseUpstream(entry)
		if reason == "" && slices.Contains(*us, u) {
			reason = "listed twice"
		}
		if reason != "" {
			return badValue{entry, reason}
		}
		*us = append(*us, u)
		return nil
	})
}

// parseUpstream reads scheme://host or scheme://host:port, or says what is
// wrong. net/url would let more pass than can be meant here.
func parseUpstream(s string) (u Upstream, reason string) {
	name, rest, found := strings.Cut(s, "://")
	if !found {
		return u, "not a URL such as imap://host:port"
	}
	i := slices.IndexFunc(schemes, func(k Scheme) bool { return k.Name == strings.ToLower(name) })
	if i < 0 {
		return u, "unknown scheme; write imap://host:port or pop3://host:port"
	}
	u.Scheme = schemes[i]
	if strings.ContainsAny(rest, "/?#") {
		return u, "a URL holds only scheme, host and port; no path, query or fragment"
	}
	host, port, reason := splitHostPort(rest)
	if reason != "" {
		return u, reason
	}
	if host == "" {
		return u, "the host is missing"
	}
	if u.Host, reason = parseHost(host); reason != "" {
		return u, reason
	}
	u.Port = u.Scheme.DefaultPort
	if port == "" {
		return u, ""
	}
	if u.Port, reason = parsePort(port); reason == "" && u.Port == 0 {
		reason = "port 0 cannot be dialled"
	}
	return u, reason
}
