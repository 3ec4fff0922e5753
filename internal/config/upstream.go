package config

import (
	"net"
	"net/netip"
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

// ServerName is the name that the upstream's certificate must have: that of
// UPSTREAM_SERVER_NAME or the URL's host, without a final dot.
func (c *Config) ServerName(u Upstream) string {
	if c.UpstreamServerName != "" {
		return c.UpstreamServerName
	}
	return strings.TrimSuffix(u.Host, ".")
}

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
		return u, "unknown scheme; one of imap, imaps, imap+starttls, pop3, pop3s, pop3+starttls"
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

// Endpoint is host:port of a server that is dialled, in its one form; empty
// where there is none.
type Endpoint string

// UnmarshalText reads host:port.
func (e *Endpoint) UnmarshalText(text []byte) error {
	addr, reason := dialAddr(string(text))
	if reason != "" {
		return badValue{string(text), reason}
	}
	*e = Endpoint(addr)
	return nil
}

// dialAddr brings an address to dial into its one form, or says what is wrong
// with it.
func dialAddr(s string) (addr, reason string) {
	if strings.Contains(s, "://") {
		return "", "not host:port; there is no scheme"
	}
	host, port, reason := splitHostPort(s)
	switch {
	case reason != "":
		return "", reason
	case port == "":
		return "", "the port is missing"
	case host == "":
		return "", "the host is missing"
	}
	if host, reason = parseHost(host); reason != "" {
		return "", reason
	}
	number, reason := parsePort(port)
	if reason == "" && number == 0 {
		reason = "port 0 cannot be dialled"
	}
	return net.JoinHostPort(host, strconv.Itoa(number)), reason
}

// Passthrough is an old server that legacy clients of a listener are passed
// through to.
type Passthrough struct {
	Listener string // imaps or pop3s
	Variable string
	Addr     string // host:port
}

// Passthrough returns those that are in use: of listeners that are open.
func (c *Config) Passthrough() []Passthrough {
	var used []Passthrough
	for _, d := range c.doors() {
		if d.passthrough != "" && len(d.addrs) > 0 && len(d.upstreams) > 0 {
			used = append(used, Passthrough{d.name, d.passthroughVariable(), string(d.passthrough)})
		}
	}
	return used
}

// ownListener names the variable of a listener that the upstream is, if any: a
// gate that stands behind itself would be its own client without end.
func ownListener(doors []door, upstream string) string {
	dialled, dialledPort, _ := net.SplitHostPort(upstream)
	for _, d := range doors {
		for _, addr := range d.addrs {
			host, port, _ := net.SplitHostPort(addr)
			ip, err := netip.ParseAddr(host)
			everywhere := host == "" || err == nil && ip.IsUnspecified()
			if len(d.upstreams) > 0 && port == dialledPort && (host == dialled || loopback(dialled) && everywhere) {
				return d.variable
			}
		}
	}
	return ""
}
