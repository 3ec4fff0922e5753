package ledger

import (
	"context"
	"net/netip"
	"sync"
	"testing"
	"time"

	"postern/internal/posterntest"
	"postern/proxy"
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
		posterntest.Within(t, "writing", 3*time.Second, func() time.Duration {
			g.meet(hello("192.0.2.7"))
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			begun := time.Now()
			if err := g.Flush(ctx); err != nil {
				t.Error(err)
			}
			return time.Since(begun)
		})
	})
}

// TestNetworksOfOneHashComeApart: their rows lie between each other.
func TestNetworksOfOneHashComeApart(t *testing.T) {
	bucket := func(n int) uint64 { return shardNumber(networkNumber(nthClient(n).Addr())) >> (64 - bucketBits) }
	same := 1
	for bucket(same) != bucket(0) {
		same++
	}
	each(t, func(t *testing.T, g *replica) {
		for i := range 12 {
			for _, n := range []int{0, same} {
				g.meet(hello("192.0.2.1", program(i), func(h *proxy.Handshake) { h.Client = netip.AddrPortFrom(nthClient(n).Addr(), 4000) }))
			}
		}
		if n := len(g.clients(Filter{Noise: true})); n != 24 { // which holds Scan against them
			t.Errorf("%d clients", n)
		}
	})
}
