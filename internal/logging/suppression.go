package logging

import (
	"context"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"
)

// Bounds on the lines about legacy handshakes, and on those about refused logins.
// Metrics and ledger suppress nothing.
const (
	// period is the time for which the lines of one client are counted, from its
	// first line on.
	period = time.Minute
	// linesPerClient bounds the lines of one client in a period. The rest becomes
	// one line at its end.
	linesPerClient = 20
	// linesPerSecond bounds the lines of all clients, those at the end of a period
	// included. Lines of one second that were not written may follow in the next.
	linesPerSecond = 1000
	// maxPeriods bounds the memory. Only a written line starts a period, so there
	// are at most 60,000 a minute while Tick is called.
	maxPeriods = 100_000

	tick = time.Second
)

// Suppression decides which events of clients, such as legacy handshakes, get a
// line of their own. Each one ends in one of three ways: it is written, it is
// among the suppressed of its client's line at the period's end, or it is lost.
// Safe for concurrent use.
type Suppression struct {
	now   func() time.Time
	flush func(client netip.Addr, suppressed uint64)

	mu      sync.Mutex
	current map[netip.Addr]*clientPeriod
	// queue has all periods whose line may be due. They are equally long, so the
	// first one ends first.
	queue  []*clientPeriod
	lines  *rate.Limiter
	owed   bool // the last Tick could not write all that was due
	closed bool // nobody will call Tick again

	lost atomic.Uint64
}

// clientPeriod is one period of one client.
type clientPeriod struct {
	client     netip.Addr
	start      time.Time
	written    int
	suppressed uint64
}

// NewSuppression returns a Suppression with the clock now. flush writes a
// client's line at its period's end. Several goroutines may call it at once. It
// must not block.
func NewSuppression(now func() time.Time, flush func(client netip.Addr, suppressed uint64)) *Suppression {
	return &Suppression{now: now, flush: flush, current: map[netip.Addr]*clientPeriod{}, lines: rate.NewLimiter(linesPerSecond, linesPerSecond)}
}

// Lost returns the number of events that no line accounts for.
func (s *Suppression) Lost() uint64 { return s.lost.Load() }

// Allow reports whether an event of client gets its line now. The caller
// writes that line itself.
func (s *Suppression) Allow(client netip.Addr) bool {
	client, now := client.Unmap(), s.now()
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.current[client]
	if p != nil && now.Sub(p.start) >= period {
		delete(s.current, client) // it stays in the queue until Tick writes its line
		p = nil
	}
	full := p != nil && p.written == linesPerClient
	if full && !s.closed {
		p.suppressed++
		return false
	}
	// Waiting lines get half of the allowance, or they would have to wait for the end of a storm.
	owed := s.owed && s.lines.TokensAt(now) <= linesPerSecond/2
	if full || owed || p == nil && len(s.queue) == maxPeriods || !s.lines.AllowN(now, 1) {
		s.lost.Add(1)
		return false
	}
	if p == nil {
		p = &clientPeriod{client: client, start: now}
		s.current[client] = p
		s.queue = append(s.queue, p)
	}
	p.written++
	return true
}

// Tick writes the lines of the periods that have ended by now, up to the rest of
// the allowance. The others wait for the next call.
func (s *Suppression) Tick(now time.Time) { s.end(now, false) }

// end writes the lines of the periods that have ended, and of all at last. Those get the
// allowance of one second; the rest is lost.
func (s *Suppression) end(now time.Time, all bool) {
	s.mu.Lock()
	if s.closed = all; all {
		s.lines = rate.NewLimiter(linesPerSecond, linesPerSecond)
	}
	s.owed = false
	var due []*clientPeriod
	for !s.owed && len(s.queue) > 0 && (all || now.Sub(s.queue[0].start) >= period) {
		p := s.queue[0]
		switch {
		case p.suppressed == 0:
		case s.lines.AllowN(now, 1):
			due = append(due, p)
		case all:
			s.lost.Add(p.suppressed)
		default:
			s.owed = true
			continue
		}
		s.queue[0], s.queue = nil, s.queue[1:]
		if s.current[p.client] == p {
			delete(s.current, p.client)
		}
	}
	s.mu.Unlock()
	for _, p := range due {
		s.flush(p.client, p.suppressed)
	}
}

// Run calls Tick every second until ctx ends; then it writes what is left.
func (s *Suppression) Run(ctx context.Context) {
	ticker := time.NewTicker(tick)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
			s.Tick(s.now())
		case <-ctx.Done():
			s.end(s.now(), true)
			return
		}
	}
}
