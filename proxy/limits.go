package proxy

import (
	"cmp"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"postern/policy"
)

// Limits bound what the proxy accepts; zero is no limit.
type Limits struct {
	// Connections at once, over all listeners.
	Connections int
	// ConnectionsPerClient at once, per IPv4 address or IPv6 /64.
	ConnectionsPerClient int
	// HandshakesPerClient are new handshakes a second, per the same key.
	HandshakesPerClient int
}

// Limit names a limit, as label value.
type Limit string

const (
	LimitConnections          Limit = "connections"
	LimitConnectionsPerClient Limit = "connections_per_client"
	LimitHandshakesPerClient  Limit = "handshakes_per_client"
)

// LimitNames lists all limits.
var LimitNames = []Limit{LimitConnections, LimitConnectionsPerClient, LimitHandshakesPerClient}

const (
	// handshakeMemory is how long an address is remembered after its last
	// handshake: by then its allowance is whole again, so that forgetting it
	// changes nothing.
	handshakeMemory = 2 * time.Second
	// maxRemembered bounds the addresses that are remembered at once. A handshake of
	// one more is let through: a client with so many addresses is not stopped by a
	// limit per address.
	maxRemembered = 1 << 17
)

// clientLimits counts connections and handshakes by client.
type clientLimits struct {
	limits Limits

	mu   sync.Mutex
	open map[netip.Prefix]int
	// recent and older are two generations of handshake allowances.
	recent, older map[netip.Prefix]*rate.Limiter
	recentSince   time.Time
}

func newClientLimits(l Limits) *clientLimits {
	return &clientLimits{limits: l, open: make(map[netip.Prefix]int)}
}

// enter counts a connection of the client; false where it has too many.
func (c *clientLimits) enter(client netip.Addr) bool {
	if c.limits.ConnectionsPerClient == 0 {
		return true
	}
	key := policy.ClientPrefix(client)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.open[key] >= c.limits.ConnectionsPerClient {
		return false
	}
	c.open[key]++
	return true
}

// leave takes back an enter that was true.
func (c *clientLimits) leave(client netip.Addr) {
	if c.limits.ConnectionsPerClient == 0 {
		return
	}
	key := policy.ClientPrefix(client)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.open[key]--; c.open[key] <= 0 {
		delete(c.open, key)
	}
}

// allowHandshake takes one allowHandshake from the client's allowance; false where there
// is none left.
func (c *clientLimits) allowHandshake(client netip.Addr, now time.Time) bool {
	n := c.limits.HandshakesPerClient
	if n == 0 {
		return true
	}
	key := policy.ClientPrefix(client)
	c.mu.Lock()
	defer c.mu.Unlock()
	if now.Sub(c.recentSince) > handshakeMemory {
		c.older, c.recent, c.recentSince = c.recent, make(map[netip.Prefix]*rate.Limiter), now
	}
	l := cmp.Or(c.recent[key], c.older[key])
	if l == nil {
		l = rate.NewLimiter(rate.Limit(n), n)
	}
	if len(c.recent) < maxRemembered {
		c.recent[key] = l
	}
	return l.AllowN(now, 1)
}
