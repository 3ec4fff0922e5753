package config

import (
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"postern/proxy"
)

// Scheme is the meaning of an upstream URL's scheme.
type Scheme struct {
	Name        string
	Protocol    string // imap or pop3
	DefaultPort int
	TLS         proxy.LineSecurity
}

var schemes = []Scheme{
	{"imap", "imap", 143, proxy.LinePlain},
	{"imaps", "imap", 993, proxy.LineTLS},
	{"imap+starttls", "imap", 143, proxy.LineStartTLS},
	{"pop3", "pop3", 110, proxy.LinePlain},
	{"pop3s", "pop3", 995, proxy.LineTLS},
	{"pop3+starttls", "pop3", 110, proxy.LineStartTLS},
}

// Upstream is one mail server behind the proxy.
type Upstream struct {
	Scheme Scheme
	Host   string // a name in lower case, or an IP address without brackets
	Port   int    // 1 to 65535
}

// Addr returns host:port, ready for a dialer.
func (u Upstream) Addr() string { return net.JoinHostPort(u.Host, strconv.Itoa(u.Port)) }

// String returns the URL, always with the port.
func (u Upstream) String() string { return u.Scheme.Name + "://" + u.Addr() }

// Variable is the one that names upstreams of this protocol.
func (u Upstream) Variable() string { return Prefix + "UPSTREAM_" + strings.ToUpper(u.Scheme.Protocol) }

// ForProxy returns the upstream as the proxy knows it.
func (c *Config) ForProxy(u Upstream) proxy.UpstreamConfig {
	return proxy.UpstreamConfig{Name: u.String(), Addr: u.Addr(), TLS: u.Scheme.TLS, ServerName: c.ServerName(u)}
}

// ProxyVersion returns the version of the PROXY header for upstreams; 0 for none.
func (c *Config) ProxyVersion() int {
	return map[string]int{"v1": 1, "v2": 2}[c.UpstreamProxyProtocol]
}

// parseUpstream reads scheme://host or scheme://host:port, or returns the
// problem. net/url would accept too much.
func parseUpstream(s string) (u Upstream, problem string) {
	name, rest, found := strings.Cut(s, "://")
	if strings.HasPrefix(s, "/") || strings.HasPrefix(strings.ToLower(s), "unix:") {
		return u, "a Unix socket cannot be used: let the server listen on a port of loopback, and write {protocol}://127.0.0.1:port"
	}
	if !found {
		return u, "the scheme is missing: put {protocol}:// before it where the server speaks in plaintext, {protocol}+starttls:// where it has STARTTLS, or {protocol}s:// where it begins with TLS"
	}
	i := slices.IndexFunc(schemes, func(k Scheme) bool { return k.Name == strings.ToLower(name) })
	if i < 0 {
		return u, "unknown scheme: write {protocol}://, {protocol}+starttls:// or {protocol}s://"
	}
	if strings.ContainsAny(rest, "/?#") {
		return u, "a URL holds only scheme, host and port: take away what follows them"
	}
	u.Scheme = schemes[i]
	u.Host, u.Port, problem = parseAddr(rest, true, u.Scheme.DefaultPort)
	return u, problem
}

// OwnListener returns the variable of the listener that a connection from this host to
// one of these addresses would reach, if any.
func (c *Config) OwnListener(to []netip.Addr, port string) string {
	for _, l := range c.Listeners() {
		for _, addr := range l.Addrs {
			if slices.ContainsFunc(to, func(ip netip.Addr) bool { return overlap(addr, net.JoinHostPort(ip.String(), port)) }) {
				return l.Variable
			}
		}
	}
	return ""
}

// overlap reports whether two addresses cannot both be bound. Names are taken to be
// different, but for localhost.
func overlap(a, b string) bool {
	parse := func(addr string) (host, port string, ip netip.Addr) {
		host, port, _ = net.SplitHostPort(addr)
		if ip, _ = netip.ParseAddr(host); host == "localhost" {
			ip = netip.AddrFrom4([4]byte{127, 0, 0, 1})
		}
		return host, port, ip
	}
	hostA, portA, ipA := parse(a)
	hostB, portB, ipB := parse(b)
	switch {
	case portA != portB:
		return false
	case hostA == "" || hostB == "" || hostA == hostB:
		return true
	}
	return ipA.IsValid() && ipA.Is4() == ipB.Is4() && (ipA == ipB || ipA.IsUnspecified() || ipB.IsUnspecified())
}
