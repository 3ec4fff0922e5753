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

// Warnings are lines, each of which begins with a variable.
type Warnings []string

// Add adds words about a variable, if they hold.
func (w *Warnings) Add(holds bool, variable, words string) {
	if holds {
		*w = append(*w, variable+": "+words)
	}
}

// Warnings returns settings that are allowed but probably not meant.
func (c *Config) Warnings() (w Warnings) {
	for _, u := range slices.Concat(c.UpstreamIMAP, c.UpstreamPOP3) {
		w.Add(u.Scheme.TLS == proxy.LinePlain && !OnLoopback(u.Addr()), u.Variable(), "passwords go to "+show(u.String())+" unencrypted; "+
			"that is meant for loopback or the same pod: to another host write "+u.Scheme.Name+"+starttls:// or "+u.Scheme.Name+"s://")
	}
	c.warnOfPassthrough(&w)
	for _, l := range c.listeners() {
		w.Add(c.given[l.Variable] != "" && len(l.Addrs) > 0 && len(l.upstreams) == 0 && c.given[l.upstreamVariable] == "",
			l.Variable, "not opened, since "+l.upstreamVariable+" is not set: set that, or this to off")
	}
	for _, l := range c.Listeners() {
		for _, addr := range l.Addrs {
			host, port, _ := net.SplitHostPort(addr)
			ip, _ := netip.ParseAddr(host)
			w.Add(ip == netip.IPv6Unspecified() && !slices.Contains(l.Addrs, "0.0.0.0:"+port), l.Variable,
				show(addr)+" is IPv6 alone; for IPv4 as well write :"+port)
		}
	}
	const from = Prefix + "PROXY_PROTOCOL_FROM"
	for entry := range strings.SplitSeq(c.given[from], ",") {
		problem := text.HostBits(strings.TrimSpace(entry))
		w.Add(problem != "", from, problem)
	}
	for _, p := range c.ProxyProtocolFrom {
		w.Add(p.Bits() == 0, from, p.String()+" lets everybody claim any address: name the load balancers alone")
	}
	// The zero value of a variable stands for one that did not parse.
	encrypted := slices.ContainsFunc(slices.Concat(c.UpstreamIMAP, c.UpstreamPOP3), func(u Upstream) bool { return u.Scheme.TLS != proxy.LinePlain })
	const unused = "not used, since no upstream has TLS: take it away, or write imaps:// or imap+starttls://"
	w.Add(!encrypted && c.UpstreamCAFile != "", Prefix+"UPSTREAM_CA_FILE", unused)
	w.Add(!encrypted && c.UpstreamServerName != "", Prefix+"UPSTREAM_SERVER_NAME", unused)
	w.Add(c.UpstreamClientID == "id" && len(c.UpstreamIMAP) == 0, Prefix+"UPSTREAM_CLIENT_ID", "not used, since "+Prefix+"UPSTREAM_IMAP is not set: take it away")
	w.Add(len(c.UpstreamIMAP) > 0 && 0 < c.TimeoutIdle && c.TimeoutIdle < imapIdle, Prefix+"TIMEOUT_IDLE",
		"under 30m, the least that RFC 9051, Section 5.4 allows: write 30m or more")
	w.Add(len(c.UpstreamIMAP) == 0 && 0 < c.TimeoutIdle && c.TimeoutIdle < pop3Idle, Prefix+"TIMEOUT_IDLE",
		"under 10m, the least that RFC 1939, Section 3 allows: write 10m or more")
	w.Add(0 < c.TimeoutHandshake && c.TimeoutHandshake < time.Second, Prefix+"TIMEOUT_HANDSHAKE", "under 1s, too short for clients that are far away or slow: write 10s")
	w.Add(c.AdminListen != "" && !OnLoopback(c.AdminListen) && c.AdminTokenFile != "" && c.AdminTLSCertFile == "", Prefix+"ADMIN_TOKEN_FILE",
		"the token comes unencrypted, since "+Prefix+"ADMIN_LISTEN is not on loopback: set "+Prefix+"ADMIN_TLS_CERT_FILE")
	w.Add(c.LedgerIdentityKeyFile != "" && c.LedgerIdentity != "hashed" && c.LedgerIdentity != "", Prefix+"LEDGER_IDENTITY_KEY_FILE",
		"not used, since "+Prefix+"LEDGER_IDENTITY is "+c.LedgerIdentity+": take it away, or set that to hashed")
	limit := limitWarning(c.given[Prefix+"LIMIT_CONNECTIONS"] != "", int(c.LimitConnections), Descriptors())
	w.Add(limit != "", Prefix+"LIMIT_CONNECTIONS", limit)
	return w
}

func (c *Config) warnOfPassthrough(w *Warnings) {
	for _, l := range c.listeners() {
		if l.Passthrough == "" {
			continue
		}
		without := len(l.upstreams) == 0 && c.given[l.upstreamVariable] == ""
		w.Add(without, l.PassthroughVariable(), "not used, since "+l.upstreamVariable+" is not set: take it away")
		w.Add(!without && l.Addrs != nil && len(l.Addrs) == 0, l.PassthroughVariable(), "not used, since "+l.Variable+" is off: take it away")
		_, port, _ := net.SplitHostPort(string(l.Passthrough))
		w.Add(port == map[string]string{"imaps": "995", "pop3s": "993"}[l.Name], l.PassthroughVariable(),
			port+" is the port of the other protocol: name that of "+l.Name)
	}
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
