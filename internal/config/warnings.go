package config

import (
	"fmt"
	"net/netip"
	"strings"
	"time"
)

// Shortest silence that a server may close a session for.
const (
	imapIdle = 30 * time.Minute // RFC 9051, Section 5.4
	pop3Idle = 10 * time.Minute // RFC 1939, Section 3
)

// Warnings returns what is allowed but probably not meant, one line each,
// naming the variable.
func (c *Config) Warnings() []string {
	w := append(c.upstreamWarnings(), c.passthroughWarnings()...)
	for _, d := range c.doors() {
		if c.explicit[d.variable] && len(d.addrs) > 0 && len(d.upstreams) == 0 && !c.explicit[d.upstream] {
			w = append(w, d.variable+": not opened, since "+d.upstream+" is not set")
		}
	}
	switch {
	case c.TimeoutIdle == 0: // it did not parse
	case len(c.UpstreamIMAP) > 0 && c.TimeoutIdle < imapIdle:
		w = append(w, Prefix+"TIMEOUT_IDLE: under 30m, the least that RFC 9051, Section 5.4 allows")
	case len(c.UpstreamPOP3) > 0 && c.TimeoutIdle < pop3Idle:
		w = append(w, Prefix+"TIMEOUT_IDLE: under 10m, the least that RFC 1939, Section 3 allows")
	}
	for _, p := range c.ProxyProtocolFrom {
		if p.Bits() == 0 {
			w = append(w, Prefix+"PROXY_PROTOCOL_FROM: "+p.String()+" lets everybody claim any address")
		}
	}
	if c.AdminListen != "" && !OnLoopback(c.AdminListen) && c.AdminTokenFile != "" && c.AdminTLSCertFile == "" {
		w = append(w, Prefix+"ADMIN_TOKEN_FILE: the token comes unencrypted, since "+Prefix+"ADMIN_LISTEN is not on loopback and "+
			Prefix+"ADMIN_TLS_CERT_FILE is not set")
	}
	if c.LedgerIdentityKeyFile != "" && c.LedgerIdentity != "hashed" && c.LedgerIdentity != "" {
		w = append(w, Prefix+"LEDGER_IDENTITY_KEY_FILE: not used, since "+Prefix+"LEDGER_IDENTITY is "+c.LedgerIdentity)
	}
	descriptors := Descriptors()
	if n := connectionLimit(descriptors); int(c.LimitConnections) > n {
		w = append(w, fmt.Sprintf("%sLIMIT_CONNECTIONS: %d file descriptors are enough for %d", Prefix, descriptors, n))
	}
	return w
}

func (c *Config) upstreamWarnings() []string {
	var w []string
	encrypted := false
	for _, d := range c.doors()[:2] {
		for _, u := range d.upstreams {
			encrypted = encrypted || u.Scheme.TLS != TLSNone
			if own := ownListener(c.doors(), u.Addr()); own != "" {
				w = append(w, d.upstream+": "+show(u.String())+" is this gate's own "+own)
			}
			if u.Scheme.TLS == TLSNone && !loopback(u.Host) {
				w = append(w, d.upstream+": passwords go to "+show(u.String())+" unencrypted; that is meant for loopback or the same pod")
			}
		}
	}
	if !encrypted && c.UpstreamCAFile != "" {
		w = append(w, Prefix+"UPSTREAM_CA_FILE: not used, since no upstream has TLS")
	}
	if !encrypted && c.UpstreamServerName != "" {
		w = append(w, Prefix+"UPSTREAM_SERVER_NAME: not used, since no upstream has TLS")
	}
	if c.UpstreamClientID == "id" && len(c.UpstreamIMAP) == 0 {
		w = append(w, Prefix+"UPSTREAM_CLIENT_ID: not used, since "+Prefix+"UPSTREAM_IMAP is not set")
	}
	return w
}

func (c *Config) passthroughWarnings() []string {
	var w []string
	for _, d := range c.doors() {
		if d.passthrough == "" {
			continue
		}
		own := ownListener(c.doors(), string(d.passthrough))
		switch {
		case len(d.upstreams) == 0 && !c.explicit[d.upstream]:
			w = append(w, d.passthroughVariable()+": not used, since "+d.upstream+" is not set")
		case d.addrs != nil && len(d.addrs) == 0:
			w = append(w, d.passthroughVariable()+": not used, since "+d.variable+" is off")
		case own != "":
			w = append(w, d.passthroughVariable()+": "+show(string(d.passthrough))+" is this gate's own "+own)
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
