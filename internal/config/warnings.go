package config

import (
	"fmt"
	"math"
	"net"
	"net/netip"
	"slices"
	"strings"
	"syscall"
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
	for _, l := range c.listeners() {
		if c.given[l.Variable] != "" && len(l.Addrs) > 0 && len(l.upstreams) == 0 && c.given[l.upstreamVariable] == "" {
			w = append(w, l.Variable+": not opened, since "+l.upstreamVariable+" is not set: set that, or this to off")
		}
	}
	for _, l := range c.Listeners() {
		for _, addr := range l.Addrs {
			if host, port, _ := net.SplitHostPort(addr); Network(addr) == "tcp6" && netip.MustParseAddr(host).IsUnspecified() && !slices.Contains(l.Addrs, "0.0.0.0:"+port) {
				w = append(w, l.Variable+": "+show(addr)+" is IPv6 alone; for IPv4 as well write :"+port)
			}
		}
	}
	for entry := range strings.SplitSeq(c.given[Prefix+"PROXY_PROTOCOL_FROM"], ",") {
		if problem := text.HostBits(strings.TrimSpace(entry)); problem != "" {
			w = append(w, Prefix+"PROXY_PROTOCOL_FROM: "+problem)
		}
	}
	for _, p := range c.ProxyProtocolFrom {
		if p.Bits() == 0 {
			w = append(w, Prefix+"PROXY_PROTOCOL_FROM: "+p.String()+" lets everybody claim any address: name the load balancers alone")
		}
	}
	// The zero value of a variable stands for one that did not parse.
	encrypted := slices.ContainsFunc(slices.Concat(c.UpstreamIMAP, c.UpstreamPOP3), func(u Upstream) bool { return u.Scheme.TLS != proxy.LinePlain })
	limit := limitWarning(c.given[Prefix+"LIMIT_CONNECTIONS"] != "", int(c.LimitConnections), Descriptors())
	for _, about := range []struct {
		holds         bool
		name, problem string
	}{
		{!encrypted && c.UpstreamCAFile != "", "UPSTREAM_CA_FILE", "not used, since no upstream has TLS: take it away, or write imaps:// or imap+starttls://"},
		{!encrypted && c.UpstreamServerName != "", "UPSTREAM_SERVER_NAME", "not used, since no upstream has TLS: take it away, or write imaps:// or imap+starttls://"},
		{c.UpstreamClientID == "id" && len(c.UpstreamIMAP) == 0, "UPSTREAM_CLIENT_ID", "not used, since " + Prefix + "UPSTREAM_IMAP is not set: take it away"},
		{len(c.UpstreamIMAP) > 0 && 0 < c.TimeoutIdle && c.TimeoutIdle < imapIdle, "TIMEOUT_IDLE", "under 30m, the least that RFC 9051, Section 5.4 allows: write 30m or more"},
		{len(c.UpstreamIMAP) == 0 && 0 < c.TimeoutIdle && c.TimeoutIdle < pop3Idle, "TIMEOUT_IDLE", "under 10m, the least that RFC 1939, Section 3 allows: write 10m or more"},
		{0 < c.TimeoutHandshake && c.TimeoutHandshake < time.Second, "TIMEOUT_HANDSHAKE", "under 1s, too short for clients that are far away or slow: write 10s"},
		{c.AdminListen != "" && !OnLoopback(c.AdminListen) && c.AdminTokenFile != "" && c.AdminTLSCertFile == "", "ADMIN_TOKEN_FILE",
			"the token comes unencrypted, since " + Prefix + "ADMIN_LISTEN is not on loopback: set " + Prefix + "ADMIN_TLS_CERT_FILE"},
		{c.LedgerIdentityKeyFile != "" && c.LedgerIdentity != "hashed" && c.LedgerIdentity != "", "LEDGER_IDENTITY_KEY_FILE",
			"not used, since " + Prefix + "LEDGER_IDENTITY is " + c.LedgerIdentity + ": take it away, or set that to hashed"},
		{limit != "", "LIMIT_CONNECTIONS", limit},
	} {
		if about.holds {
			w = append(w, Prefix+about.name+": "+about.problem)
		}
	}
	return w
}

func (c *Config) upstreamWarnings() (w []string) {
	for _, u := range slices.Concat(c.UpstreamIMAP, c.UpstreamPOP3) {
		if u.Scheme.TLS == proxy.LinePlain && !OnLoopback(u.Addr()) {
			protocol, _, _ := strings.Cut(u.String(), ":")
			w = append(w, u.Variable()+": passwords go to "+show(u.String())+" unencrypted; that is meant for loopback or the same pod: "+
				"to another host write "+protocol+"+starttls:// or "+protocol+"s://")
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
			w = append(w, l.PassthroughVariable()+": not used, since "+l.upstreamVariable+" is not set: take it away")
		case l.Addrs != nil && len(l.Addrs) == 0:
			w = append(w, l.PassthroughVariable()+": not used, since "+l.Variable+" is off: take it away")
		}
		_, port, _ := net.SplitHostPort(string(l.Passthrough))
		if port == map[string]string{"imaps": "995", "pop3s": "993"}[l.Name] {
			w = append(w, l.PassthroughVariable()+": "+port+" is the port of the other protocol: name that of "+l.Name)
		}
	}
	return w
}

const (
	// sessionDescriptors are the client's and the upstream's connection.
	sessionDescriptors = 2
	// reservedDescriptors are for listeners, the admin port, files, and
	// connections that are about to be refused.
	reservedDescriptors = 128
	// leastConnections is the limit with next to no descriptors.
	leastConnections = 16
)

// ConnectionLimit returns LIMIT_CONNECTIONS or, if that is not set, the number
// of connections that this process has file descriptors for. 0 is no limit.
func (c *Config) ConnectionLimit() int {
	if c.given[Prefix+"LIMIT_CONNECTIONS"] != "" {
		return int(c.LimitConnections)
	}
	return connectionLimit(Descriptors())
}

func connectionLimit(descriptors uint64) int {
	return max((int(min(descriptors, math.MaxInt32))-reservedDescriptors)/sessionDescriptors, leastConnections)
}

// fewConnections are too few for most mail servers.
const fewConnections = 400

// limitWarning says that a limit on connections does not go with the file descriptors, or
// that there are few.
func limitWarning(given bool, limit int, descriptors uint64) string {
	switch n := connectionLimit(descriptors); {
	case given && limit > n:
		return fmt.Sprintf("%d file descriptors are enough for %d: set no more, or raise their limit (ulimit -n; LimitNOFILE= of a unit)", descriptors, n)
	case !given && n < fewConnections:
		return fmt.Sprintf("%d connections, all that %d file descriptors are enough for: raise their limit (ulimit -n; LimitNOFILE= of a unit)", n, descriptors)
	}
	return ""
}

// Descriptors returns how many files and connections this process may have open
// at once. The Go runtime has raised it as far as it may.
func Descriptors() uint64 {
	var r syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &r); err != nil {
		return math.MaxInt32 // no limit that could be asked for
	}
	return uint64(r.Cur)
}
