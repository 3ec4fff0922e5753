package config

import (
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"postern/internal/text"
	"postern/proxy"
)

// The shortest idle time after which a server may close a session.
const (
	imapIdle = 30 * time.Minute // RFC 9051, Section 5.4
	pop3Idle = 10 * time.Minute // RFC 1939, Section 3
)

// Warnings returns settings that are allowed but probably not meant, one line
// each, naming the variable.
func (c *Config) Warnings() []string {
	w := append(c.upstreamWarnings(), c.passthroughWarnings()...)
	warn := func(name, problem string) { w = append(w, Prefix+name+": "+problem) }
	for _, l := range c.listeners() {
		if c.given[l.Variable] != "" && len(l.Addrs) > 0 && len(l.upstreams) == 0 && c.given[l.upstreamVariable] == "" {
			w = append(w, l.Variable+": not opened, since "+l.upstreamVariable+" is not set")
		}
	}
	for _, l := range c.Listeners() {
		for _, addr := range l.Addrs {
			if host, port, _ := net.SplitHostPort(addr); Network(addr) == "tcp6" && netip.MustParseAddr(host).IsUnspecified() && !slices.Contains(l.Addrs, "0.0.0.0:"+port) {
				w = append(w, l.Variable+": "+show(addr)+" is IPv6 alone; for IPv4 as well write :"+port)
			}
		}
	}
	switch {
	case c.TimeoutIdle == 0: // it did not parse
	case len(c.UpstreamIMAP) > 0 && c.TimeoutIdle < imapIdle:
		warn("TIMEOUT_IDLE", "under 30m, the least that RFC 9051, Section 5.4 allows")
	case len(c.UpstreamPOP3) > 0 && c.TimeoutIdle < pop3Idle:
		warn("TIMEOUT_IDLE", "under 10m, the least that RFC 1939, Section 3 allows")
	}
	if c.TimeoutHandshake > 0 && c.TimeoutHandshake < time.Second {
		warn("TIMEOUT_HANDSHAKE", "under 1s, too short for clients that are far away or slow")
	}
	for entry := range strings.SplitSeq(c.given[Prefix+"PROXY_PROTOCOL_FROM"], ",") {
		if problem := text.HostBits(strings.TrimSpace(entry)); problem != "" {
			warn("PROXY_PROTOCOL_FROM", problem)
		}
	}
	for _, p := range c.ProxyProtocolFrom {
		if p.Bits() == 0 {
			warn("PROXY_PROTOCOL_FROM", p.String()+" lets everybody claim any address: name the load balancers alone")
		}
	}
	if c.AdminListen != "" && !OnLoopback(c.AdminListen) && c.AdminTokenFile != "" && c.AdminTLSCertFile == "" {
		warn("ADMIN_TOKEN_FILE", "the token comes unencrypted, since "+Prefix+"ADMIN_LISTEN is not on loopback and "+
			Prefix+"ADMIN_TLS_CERT_FILE is not set")
	}
	if c.LedgerIdentityKeyFile != "" && c.LedgerIdentity != "hashed" && c.LedgerIdentity != "" {
		warn("LEDGER_IDENTITY_KEY_FILE", "not used, since "+Prefix+"LEDGER_IDENTITY is "+c.LedgerIdentity)
	}
	if problem := limitWarning(c.given[Prefix+"LIMIT_CONNECTIONS"] != "", int(c.LimitConnections), Descriptors()); problem != "" {
		warn("LIMIT_CONNECTIONS", problem)
	}
	return w
}

func (c *Config) upstreamWarnings() (w []string) {
	encrypted := false
	for _, l := range c.listeners()[:2] { // each protocol once
		for _, u := range l.upstreams {
			encrypted = encrypted || u.Scheme.TLS != proxy.LinePlain
			if u.Scheme.TLS == proxy.LinePlain && !loopback(u.Host) {
				w = append(w, l.upstreamVariable+": passwords go to "+show(u.String())+" unencrypted; that is meant for loopback or the same pod")
			}
		}
	}
	for _, unused := range []struct {
		is        bool
		name, why string
	}{
		{!encrypted && c.UpstreamCAFile != "", "UPSTREAM_CA_FILE", "no upstream has TLS"},
		{!encrypted && c.UpstreamServerName != "", "UPSTREAM_SERVER_NAME", "no upstream has TLS"},
		{c.UpstreamClientID == "id" && len(c.UpstreamIMAP) == 0, "UPSTREAM_CLIENT_ID", Prefix + "UPSTREAM_IMAP is not set"},
	} {
		if unused.is {
			w = append(w, Prefix+unused.name+": not used, since "+unused.why)
		}
	}
	return w
}

func (c *Config) passthroughWarnings() (w []string) {
	for _, l := range c.listeners() {
		if l.Passthrough == "" {
			continue
		}
		switch {
		case len(l.upstreams) == 0 && c.given[l.upstreamVariable] == "":
			w = append(w, l.PassthroughVariable()+": not used, since "+l.upstreamVariable+" is not set")
		case l.Addrs != nil && len(l.Addrs) == 0:
			w = append(w, l.PassthroughVariable()+": not used, since "+l.Variable+" is off")
		}
		_, port, _ := net.SplitHostPort(string(l.Passthrough))
		if port == map[string]string{"imaps": "995", "pop3s": "993"}[l.Name] {
			w = append(w, l.PassthroughVariable()+": "+port+" is the port of the other protocol: name that of "+l.Name)
		}
	}
	return w
}

func loopback(host string) bool {
	if ip, err := netip.ParseAddr(host); err == nil {
		return ip.Unmap().IsLoopback()
	}
	// RFC 6761, Section 6.3: these names never leave the host.
	host = strings.TrimSuffix(host, ".")
	return host == "localhost" || strings.HasSuffix(host, ".localhost")
}
