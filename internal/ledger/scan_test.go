package ledger

import (
	"context"
	"sync"
	"testing"
	"time"
)

// TestSlowReadersDoNotKeepFromWriting: those of a report, the page and gauges may all
// be slow at once.
func TestSlowReadersDoNotKeepFromWriting(t *testing.T) {
	each(t, func(t *testing.T, g *replica) {
		g.meetMany(300)
		g.flush()
		begun, end := make(chan struct{}), make(chan struct{})
		var scans sync.WaitGroup
		defer scans.Wait()
		defer close(end)
		for range scansAtOnce {
			once := sync.OnceFunc(func() { begun <- struct{}{} })
			scans.Go(func() {
				if err := g.store.Scan(context.Background(), Scope{}, func([]Client) error { once(); <-end; return nil }); err != nil {
					t.Error(err)
				}
			})
			<-begun
		}
		g.meet(hello("192.0.2.7"))
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		if err := g.Flush(ctx); err != nil {
			t.Error(err)
		}
	})
}
