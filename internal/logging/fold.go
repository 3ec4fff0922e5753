package logging

import (
	"context"
	"net/netip"
	"sync"
	"time"
)

// What the log holds of legacy handshakes. Metrics and ledger never fold.
const (
	// foldMinute is how long the lines of one client are counted together,
	// from its first one.
	foldMinute = time.Minute
	// linesPerClient is how many lines of one client are written in that
	// time. What follows becomes one line at its end.
	linesPerClient = 20
	// linesPerSecond is how many lines are written in one second of the
	// clock, of all clients, those at the end of a minute among them.
	linesPerSecond = 1000
	// clientsTracked bounds the memory. A client comes in only with a line
	// that is written, so that 60,000 a minute are the most while Tick is
	// called.
	clientsTracked = 100_000

	tick = time.Second
)

// Fold decides which legacy handshakes get a line of their own. Each one ends
// in one of three ways: it is written, it is among the suppressed of its
// client's line at the minute's end, or it is in the suppressed total. Safe
// for concurrent use.
type Fold struct {
	now             func() time.Time
	flush           func(client netip.Addr, suppressed uint64)
	suppressedTotal func(n uint64)

	mu      sync.Mutex
	clients map[netip.Addr]*foldClient
	// All minutes are equally long, so that the oldest ends first.
	oldest, newest *foldClient
	tracked        int // clients in the list; may exceed len(clients) until Tick
	second         int64
	used           int  // lines written in this second
	owed           bool // the last Tick could not write all that was due
	reserve        int  // lines of this second that only Tick may use
	closed         bool // nobody will call Tick again
}

// foldClient is one minute of one client.
type foldClient struct {
	addr       netip.Addr
	start      time.Time
	written    int
	suppressed uint64
	next       *foldClient
}

// NewFold returns a Fold that reads the time from now. flush is to write a
// client's line at its minute's end; suppressedTotal is told of handshakes
// that no line accounts for. Both may be called by several goroutines at once
// and must not block.
func NewFold(now func() time.Time, flush func(client netip.Addr, suppressed uint64), suppressedTotal func(n uint64)) *Fold {
	return &Fold{
		now:             now,
		flush:           flush,
		suppressedTotal: suppressedTotal,
		clients:         map[netip.Addr]*foldClient{},
	}
}

// Allow tells whether a handshake of client gets its line now. The caller
// writes that line itself.
func (f *Fold) Allow(client netip.Addr) bool {
	allowed, lost := f.take(client.Unmap(), f.now())
	if lost {
		f.suppressedTotal(1)
	}
	return allowed
}

// take counts one handshake; lost tells that no line will account for it.
func (f *Fold) take(client netip.Addr, now time.Time) (allowed, lost bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	c := f.clients[client]
	if c != nil && now.Sub(c.start) >= foldMinute {
		// Stays in the list until Tick writes its line.
		delete(f.clients, client)
		c = nil
	}
	if c != nil && c.written == linesPerClient {
		if f.closed {
			return false, true
		}
		c.suppressed++
		return false, false
	}
	f.turnSecond(now)
	if f.used >= linesPerSecond-f.reserve {
		return false, true
	}
	if c == nil {
		if f.tracked == clientsTracked {
			return false, true
		}
		c = f.add(client, now)
	}
	c.written++
	f.used++
	return true, false
}

// turnSecond starts a new allowance when the clock has moved on. Under a
// storm the minute-end lines that wait get half of it, or they would wait for
// as long as it lasts.
func (f *Fold) turnSecond(now time.Time) {
	if second := now.Unix(); second != f.second {
		f.second, f.used, f.reserve = second, 0, 0
		if f.owed {
			f.reserve = linesPerSecond / 2
		}
	}
}

func (f *Fold) add(client netip.Addr, now time.Time) *foldClient {
	c := &foldClient{addr: client, start: now}
	if f.newest == nil {
		f.oldest = c
	} else {
		f.newest.next = c
	}
	f.newest = c
	f.clients[client] = c
	f.tracked++
	return c
}

// Tick writes the lines of the minutes that have ended at now, as many as
// this second still has room for, and forgets their clients. Lines without
// room wait for the next call.
func (f *Fold) Tick(now time.Time) {
	f.mu.Lock()
	f.turnSecond(now)
	var due []*foldClient
	f.owed = false
	for c := f.oldest; c != nil && now.Sub(c.start) >= foldMinute; c = f.oldest {
		if c.suppressed > 0 {
			if f.used == linesPerSecond {
				f.owed = true
				break
			}
			f.used++
			due = append(due, c)
		}
		f.remove(c)
	}
	f.mu.Unlock()
	f.write(due)
}

// remove takes c, the oldest, out.
func (f *Fold) remove(c *foldClient) {
	f.oldest = c.next
	if f.oldest == nil {
		f.newest = nil
	}
	if f.clients[c.addr] == c {
		delete(f.clients, c.addr)
	}
	f.tracked--
}

func (f *Fold) write(due []*foldClient) {
	for _, c := range due {
		f.flush(c.addr, c.suppressed)
	}
}

// Run calls Tick every second until ctx ends; then it writes what is left.
func (f *Fold) Run(ctx context.Context) {
	ticker := time.NewTicker(tick)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
			f.Tick(f.now())
		case <-ctx.Done():
			f.finish()
			return
		}
	}
}

// finish writes a line for every client that still has one to come, whether
// its minute has ended or not. These are the log's last second: as many lines
// as one second has, the rest goes to the total.
func (f *Fold) finish() {
	f.mu.Lock()
	f.closed = true
	var due []*foldClient
	var lost uint64
	for c := f.oldest; c != nil; c = f.oldest {
		f.remove(c)
		if c.suppressed > 0 && len(due) < linesPerSecond {
			due = append(due, c)
		} else {
			lost += c.suppressed
		}
	}
	f.mu.Unlock()
	f.write(due)
	if lost > 0 {
		f.suppressedTotal(lost)
	}
}
