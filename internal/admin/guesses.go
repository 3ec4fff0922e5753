package admin

import (
	"maps"
	"net/netip"
	"sync"
	"time"
)

const (
	// A client may send maxWrong wrong tokens in guessMemory. Then it has to
	// wait until the first of them is that old, even with the right token.
	maxWrong    = 10
	guessMemory = time.Minute
	// maxClients bounds the remembered clients. All others count as one client,
	// so that many addresses are no way around the limit.
	maxClients = 10_000
	// sweepEvery bounds the work of making room.
	sweepEvery = time.Second
)

// guesses remembers wrong tokens.
type guesses struct {
	mu sync.Mutex
	// wrong has the times of a client's last maxWrong wrong tokens, oldest
	// first. The zero prefix stands for all clients over maxClients.
	wrong map[netip.Prefix][]time.Time
	swept time.Time
}

// try returns how long a client has to wait before its token counts. If it need
// not wait, try notes a wrong token; last reports that the next one has to wait.
// Both are one step, so that concurrent requests do not get more tries.
func (g *guesses) try(client netip.Prefix, wrong bool, now time.Time) (wait time.Duration, last bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	client = g.key(client, now)
	times := g.wrong[client]
	if len(times) == maxWrong {
		if wait = guessMemory - now.Sub(times[0]); wait > 0 {
			return wait, false
		}
	}
	if !wrong {
		return 0, false
	}
	times = append(times[max(0, len(times)+1-maxWrong):], now)
	g.wrong[client] = times
	return 0, len(times) == maxWrong && now.Sub(times[0]) < guessMemory
}

// key returns the client if it is remembered or can be, else the zero prefix.
func (g *guesses) key(client netip.Prefix, now time.Time) netip.Prefix {
	if _, known := g.wrong[client]; known || len(g.wrong) < maxClients {
		return client
	}
	if now.Sub(g.swept) >= sweepEvery {
		g.swept = now
		maps.DeleteFunc(g.wrong, func(_ netip.Prefix, times []time.Time) bool {
			return now.Sub(times[len(times)-1]) >= guessMemory
		})
	}
	if len(g.wrong) < maxClients {
		return client
	}
	return netip.Prefix{}
}
