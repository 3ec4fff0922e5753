package admin

import (
	"context"
	"sync"
	"time"
)

const (
	// keptWait is how long the page waits for what was never read, freshWait for
	// what is known already, and keptTimeout how long reading may take.
	keptWait    = 250 * time.Millisecond
	freshWait   = 40 * time.Millisecond
	keptTimeout = 2 * time.Minute
	// It is read again after keptRest times as long as reading took, and after an
	// error not before retryAfter.
	keptRest   = 20
	retryAfter = 5 * time.Second
)

// kept keeps what was read from the ledger, so that pages at once, and pages that
// are asked for again and again, cost the ledger one query. Safe for concurrent
// use.
type kept[T any] struct {
	read func(ctx context.Context) (T, error)

	mu      sync.Mutex
	value   T
	known   bool
	state   string        // that it was read in
	err     error         // of the last time
	until   time.Time     // it is not read again
	reading chan struct{} // is closed when reading ends; nil while nobody reads
}

// get returns what was read last; where reading has failed, or takes too long,
// what was read earlier, or nothing. It has it read where the state is another one.
func (k *kept[T]) get(ctx context.Context, state string) (value T, known bool, err error) {
	if done, limit := k.refresh(state); done != nil {
		wait := time.NewTimer(limit)
		defer wait.Stop()
		select {
		case <-done:
		case <-wait.C:
		case <-ctx.Done():
		}
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.value, k.known, k.err
}

// refresh has it read where that is due, and returns what is closed at the end of
// it, and how long to wait for that; nil where nobody reads.
func (k *kept[T]) refresh(state string) (<-chan struct{}, time.Duration) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if due := !k.known || k.err != nil || k.state != state; due && k.reading == nil && time.Now().After(k.until) {
		k.reading = make(chan struct{})
		go k.run(k.reading, state)
	}
	switch {
	case k.reading == nil:
		return nil, 0
	case k.known:
		return k.reading, freshWait
	}
	return k.reading, keptWait
}

// run outlives the request, since the next one profits.
func (k *kept[T]) run(done chan struct{}, state string) {
	ctx, cancel := context.WithTimeout(context.Background(), keptTimeout)
	defer cancel()
	begun := time.Now()
	value, err := k.read(ctx)
	rest := keptRest * time.Since(begun)
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.err = err; err == nil {
		k.value, k.known, k.state = value, true, state
	} else {
		rest = max(rest, retryAfter)
	}
	k.until = time.Now().Add(rest)
	k.reading = nil
	close(done)
}
