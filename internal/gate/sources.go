package gate

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"postern/proxy"
)

// A few addresses are suspicious if they have this part of at least this many
// handshakes within this time.
const (
	fewSources     = 3
	mostOf         = 0.9
	sourcesEnough  = 200
	sourcesTime    = 10 * time.Minute
	sourcesCounted = 1000 // at once; there is no telling more of them apart from strangers
)

// sources notices that most clients have one of a few private addresses. Then
// a load balancer stands in front, and what is counted or limited by client
// means nothing. It warns once.
type sources struct {
	chain // empty: it does nothing with other events

	warn func([]netip.Addr)
	now  func() time.Time
	done atomic.Bool

	mu    sync.Mutex
	begun time.Time
	total int
	seen  map[netip.Addr]int // private ones
}

func newSources(warn func([]netip.Addr)) *sources {
	return &sources{warn: warn, now: time.Now, seen: make(map[netip.Addr]int)}
}

// Handshake counts handshakes with a hello. Those without one are health
// checks.
func (s *sources) Handshake(h *proxy.Handshake) {
	if h.Hello == nil || s.done.Load() {
		return
	}
	if few := s.count(h.Client.Addr()); few != nil && !s.done.Swap(true) {
		s.warn(few)
	}
}

// count returns the suspicious addresses, busiest first, or nil.
func (s *sources) count(client netip.Addr) []netip.Addr {
	s.mu.Lock()
	defer s.mu.Unlock()
	if now := s.now(); now.Sub(s.begun) > sourcesTime {
		s.begun, s.total = now, 0
		clear(s.seen)
	}
	s.total++
	_, known := s.seen[client]
	if (client.IsPrivate() || client.IsLoopback()) && (known || len(s.seen) < sourcesCounted) {
		s.seen[client]++
	}
	if s.total%sourcesEnough != 0 {
		return nil
	}
	addrs := slices.SortedFunc(maps.Keys(s.seen), func(a, b netip.Addr) int {
		return cmp.Or(cmp.Compare(s.seen[b], s.seen[a]), a.Compare(b))
	})
	addrs = addrs[:min(len(addrs), fewSources)]
	sum := 0
	for _, a := range addrs {
		sum += s.seen[a]
	}
	if float64(sum) <= mostOf*float64(s.total) {
		return nil
	}
	return addrs
}
