package admin

import (
	"context"
	"sync"
	"time"
)

const (
	// trendWait is how long the page waits for the days of the chart or for the
	// report, which may take seconds in a large ledger, and trendTimeout how long
	// reading them may take.
	trendWait    = 2 * time.Second
	trendTimeout = 2 * time.Minute
	// They are read again after trendFresh at the earliest, and after trendRest
	// times as long as reading took.
	trendFresh = 5 * time.Second
	trendRest  = 20
)

// kept keeps what was read from the ledger, so that pages at once, and pages that
// are asked for again and again, cost the ledger one query. Safe for concurrent
// use. Without read, nothing is known.
type kept[T any] struct {
	read func(ctx context.Context) (T, error)

	mu      sync.Mutex
	value   T
	known   bool
	err     error         // of the last time
	until   time.Time     // they are fresh
	reading chan struct{} // is closed when reading ends; nil while nobody reads
}

// get returns what was read last; where reading has failed, or takes too long,
// what was read earlier, or nothing.
func (t *kept[T]) get(ctx context.Context) (value T, known bool, err error) {
	if t.read == nil {
		return value, false, nil
	}
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
	return t.value, t.known, t.err
}

// refresh has them read where that is due, and returns what is closed at the
// end of it; nil where it is not due.
func (t *kept[T]) refresh() <-chan struct{} {
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
func (t *kept[T]) run(done chan struct{}) {
	ctx, cancel := context.WithTimeout(context.Background(), trendTimeout)
	defer cancel()
	begun := time.Now()
	value, err := t.read(ctx)
	took := time.Since(begun)
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.err = err; err == nil {
		t.value, t.known = value, true
	}
	t.until = time.Now().Add(max(trendFresh, trendRest*took))
	t.reading = nil
	close(done)
}
