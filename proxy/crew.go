package proxy

import (
	"context"
	"runtime"
	"sync/atomic"
	"time"
)

// A crew does jobs on goroutines that it keeps for the next ones. A handshake
// needs a deep stack, and a new goroutine gets there by copying it four times.
type crew struct {
	jobs    chan func()
	idle    atomic.Int32
	least   atomic.Int32 // idle at once, since the last trim
	stopped atomic.Bool
}

// crewIdle is how many goroutines are kept at most, for a second or two; more are
// there while there is something to do for them.
const crewIdle = 64

func newCrew() *crew { return &crew{jobs: make(chan func())} }

// do has a job done, and does not wait for that.
func (c *crew) do(job func()) {
	select {
	case c.jobs <- job:
	default:
		go c.work(job)
	}
}

// work does a job, and those that come after it.
func (c *crew) work(job func()) {
	for job != nil {
		job()
		if c.idle.Add(1) > crewIdle || c.stopped.Load() {
			c.idle.Add(-1)
			return
		}
		job = <-c.jobs
		for left := c.idle.Add(-1); ; {
			if least := c.least.Load(); left >= least || c.least.CompareAndSwap(least, left) {
				break
			}
		}
	}
}

// trimEvery is how often it is looked who had nothing to do.
const trimEvery = time.Second

// run sends home who had nothing to do, until the context ends.
func (c *crew) run(ctx context.Context) {
	tick := time.NewTicker(trimEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			c.trim()
		case <-ctx.Done():
			return
		}
	}
}

func (c *crew) trim() {
	for n := c.least.Load(); n > 0; n-- {
		select {
		case c.jobs <- nil:
		default:
		}
	}
	c.least.Store(c.idle.Load())
}

// stop sends home who has nothing to do, now or later.
func (c *crew) stop() {
	c.stopped.Store(true)
	for c.idle.Load() > 0 {
		select {
		case c.jobs <- nil:
		default:
			runtime.Gosched() // just about to wait, or to leave
		}
	}
}
