package admin

import (
	"context"
	"sync"
	"time"

	"postern/internal/ledger"
)

const (
	// trendWait is how long the page waits for the days of the chart, which may
	// take seconds in a large ledger, and trendTimeout how long reading them may
	// take.
	trendWait    = 2 * time.Second
	trendTimeout = 2 * time.Minute
	// They are read again after trendFresh at the earliest, and after trendRest
	// times as long as reading took.
	trendFresh = 5 * time.Second
	trendRest  = 20
)

// trend keeps the days of the chart, so that pages at once, and pages that are
// asked for again and again, cost the ledger one query. Safe for concurrent use.
type trend struct {
	read func(ctx context.Context) ([]ledger.Period, error)

	mu      sync.Mutex
	days    []ledger.Period
	known   bool
	err     error         // of the last time
	until   time.Time     // they are fresh
	reading chan struct{} // is closed when reading ends; nil while nobody reads
}

// get returns the last days that are known; where reading them has failed, or
// takes too long, those of an earlier time, or none.
func (t *trend) get(ctx context.Context) (days []ledger.Period, known bool, err error) {
	if done := t.refresh(); done != nil {
		wait := time.NewTimer(trendWait)
		defer wait.Stop()
		select {
		case <-done:
		case <-wait.C:
		case <-ctx.Done():
		}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.days, t.known, t.err
}

// refresh has them read where that is due, and returns what is closed at the
// end of it; nil where it is not due.
func (t *trend) refresh() <-chan struct{} {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.reading == nil && time.Now().After(t.until) {
		t.reading = make(chan struct{})
		go t.run(t.reading)
	}
	if t.reading == nil {
		return nil
	}
	return t.reading
}

// run outlives the request, since the next one profits.
func (t *trend) run(done chan struct{}) {
	ctx, cancel := context.WithTimeout(context.Background(), trendTimeout)
	defer cancel()
	begun := time.Now()
	days, err := t.read(ctx)
	took := time.Since(begun)
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.err = err; err == nil {
		t.days, t.known = days, true
	}
	t.until = time.Now().Add(max(trendFresh, trendRest*took))
	t.reading = nil
	close(done)
}
