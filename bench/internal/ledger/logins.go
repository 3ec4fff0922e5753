package ledger

import (
	"context"
	"crypto/tls"
	"slices"
	"sync"
	"time"

	"postern/bench/internal/client"
)

// every is the time between two logins of a steady load, whatever becomes of
// them.
const every = 20 * time.Millisecond

// logins is what became of a load.
type logins struct {
	took   []time.Duration // from when each was due to the answer, ascending
	failed int
	err    error // of the first that failed
}

// login logs in at a steady beat until the context ends or span is over.
func login(ctx context.Context, addr string, span time.Duration) *logins {
	l := &logins{}
	var lock sync.Mutex
	var group sync.WaitGroup
	target := client.Target{Addr: addr, TLS: client.Config(tls.VersionTLS13, false, false)}
	begun := time.Now()
	for n := 0; ; n++ {
		due := begun.Add(time.Duration(n) * every)
		if time.Sleep(time.Until(due)); ctx.Err() != nil || due.Sub(begun) >= span {
			break
		}
		group.Go(func() {
			err := one(target, n)
			took := time.Since(due)
			lock.Lock()
			defer lock.Unlock()
			if err != nil {
				l.failed++
				l.err = err
				return
			}
			l.took = append(l.took, took)
		})
	}
	group.Wait()
	slices.Sort(l.took)
	return l
}

// one logs in, from one of eight addresses.
func one(target client.Target, n int) error {
	c, err := client.Dial(target, client.Source(n%8))
	if err != nil {
		return err
	}
	defer c.Close()
	if err := c.Greeting(); err != nil {
		return err
	}
	return c.Login()
}

// p99 is the time that all but a hundredth of the logins have kept, in
// milliseconds.
func (l *logins) p99() float64 {
	if len(l.took) == 0 {
		return 0
	}
	return millis(l.took[len(l.took)*99/100])
}

func millis(d time.Duration) float64 { return d.Seconds() * 1000 }
