package logging

import (
	"context"
	"maps"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// suppressed is a Suppression under a clock of the test's, with its lines.
type suppressed struct {
	*Suppression
	clock time.Time
	lines map[netip.Addr]uint64 // suppressed by client
	count int                   // minute-end lines
}

func newSuppressed() *suppressed {
	f := &suppressed{clock: time.Unix(1_800_000_000, 0), lines: map[netip.Addr]uint64{}}
	f.Suppression = NewSuppression(
		func() time.Time { return f.clock },
		func(client netip.Addr, n uint64) { f.lines[client] += n; f.count++ })
	return f
}

// allow asks n times and returns how often it was a yes.
func (f *suppressed) allow(client netip.Addr, n int) (yes int) {
	for range n {
		if f.Allow(client) {
			yes++
		}
	}
	return yes
}

func (f *suppressed) pass(d time.Duration) {
	f.clock = f.clock.Add(d)
	f.Tick(f.clock)
}

// client returns one of many addresses.
func client(n int) netip.Addr {
	return netip.AddrFrom4([4]byte{10, byte(n >> 16), byte(n >> 8), byte(n)})
}

func TestTwentyLinesOfAClientThenOneAtTheMinutesEnd(t *testing.T) {
	f := newSuppressed()
	if got := f.allow(client(1), 50); got != 20 {
		t.Errorf("%d lines, want 20", got)
	}
	if got := f.allow(client(2), 20); got != 20 {
		t.Errorf("another client: %d lines, want 20", got)
	}
	f.pass(59 * time.Second)
	if f.allow(client(1), 5) != 0 || f.count != 0 {
		t.Errorf("before the minute's end: lines %v", f.lines)
	}
	f.pass(time.Second)
	if want := map[netip.Addr]uint64{client(1): 35}; !maps.Equal(f.lines, want) || f.count != 1 {
		t.Errorf("at the minute's end: %v, want %v", f.lines, want)
	}
	if got := f.allow(client(1), 21); got != 20 {
		t.Errorf("in the next minute: %d lines, want 20", got)
	}
	if f.Lost() != 0 {
		t.Errorf("%d lost, want 0: the line accounts for them", f.Lost())
	}
}

func TestANewMinuteBeginsThoughTickIsLate(t *testing.T) {
	f := newSuppressed()
	f.allow(client(1), 25)
	f.clock = f.clock.Add(time.Minute)
	if got := f.allow(client(1), 27); got != 20 {
		t.Errorf("%d lines, want 20", got)
	}
	f.pass(0)
	if f.lines[client(1)] != 5 || f.count != 1 {
		t.Errorf("first minute: %v", f.lines)
	}
	f.pass(time.Minute)
	if f.lines[client(1)] != 12 || f.count != 2 {
		t.Errorf("both minutes: %v", f.lines)
	}
}

func TestAMappedAddressIsTheSameClient(t *testing.T) {
	f := newSuppressed()
	f.allow(client(1), 15)
	if got := f.allow(netip.AddrFrom16(client(1).As16()), 15); got != 5 {
		t.Errorf("%d lines, want the 5 that are left", got)
	}
	f.pass(time.Minute)
	if f.lines[client(1)] != 10 {
		t.Errorf("got %v", f.lines)
	}
}

func TestAThousandLinesASecondTheRestCounted(t *testing.T) {
	f := newSuppressed()
	yes := 0
	for n := range 1500 {
		yes += f.allow(client(n), 1)
	}
	if yes != 1000 || f.Lost() != 500 {
		t.Errorf("%d lines and %d lost, want 1000 and 500", yes, f.Lost())
	}
	f.clock = f.clock.Add(time.Second)
	// A client that had no line is not charged for it.
	if got := f.allow(client(1400), 25); got != 20 || f.Lost() != 500 {
		t.Errorf("next second: %d lines, %d lost", got, f.Lost())
	}
	if len(f.current) != 1001 {
		t.Errorf("%d clients tracked, want those with a line", len(f.current))
	}
}

func TestMinuteEndLinesAreAmongTheThousand(t *testing.T) {
	f := newSuppressed()
	for n := range 1000 {
		f.Allow(client(n))
	}
	for n := range 1000 { // 20 and a suppressed one each, 50 clients a second
		if n%50 == 0 {
			f.clock = f.clock.Add(time.Second)
		}
		f.allow(client(n), 20)
	}
	f.clock = time.Unix(1_800_000_060, 0)
	for n := range 800 {
		if !f.Allow(client(5000 + n)) {
			t.Fatal("refused below a thousand")
		}
	}
	f.pass(0)
	if f.count != 200 {
		t.Errorf("%d minute-end lines beside 800 others, want 200", f.count)
	}

	// The storm goes on; half of the next second is for the lines that wait.
	f.clock = f.clock.Add(time.Second)
	yes := 0
	for n := range 2000 {
		yes += f.allow(client(7000+n), 1)
	}
	f.pass(0)
	if yes != 500 || f.count != 700 {
		t.Errorf("%d lines and %d minute-end lines, want 500 and 700", yes, f.count)
	}
	f.pass(time.Second)
	if f.count != 1000 {
		t.Errorf("%d minute-end lines in the end, want 1000", f.count)
	}
}

func TestMemoryIsBoundedUnderAStorm(t *testing.T) {
	f := newSuppressed()
	n := 0
	for range 130 { // no Tick comes
		for range 1000 {
			f.Allow(client(n))
			n++
		}
		f.clock = f.clock.Add(time.Second)
	}
	if len(f.queue) != maxPeriods || len(f.current) > maxPeriods || f.Lost() != 30_000 {
		t.Errorf("%d tracked, %d lost", len(f.queue), f.Lost())
	}
	f.pass(time.Minute)
	if len(f.queue) != 0 || len(f.current) != 0 {
		t.Errorf("%d tracked after they went", len(f.queue))
	}
	if f.allow(client(1), 1) != 1 {
		t.Error("refused with room again")
	}
}

func TestLinesSuppressedAtShutdownAreWritten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		lines := map[netip.Addr]uint64{}
		f := NewSuppression(time.Now, func(client netip.Addr, n uint64) { lines[client] += n })
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() { f.Run(ctx); close(ended) }()

		for range 30 {
			f.Allow(client(1))
		}
		time.Sleep(61 * time.Second)
		synctest.Wait()
		if lines[client(1)] != 10 {
			t.Errorf("after a minute: %v", lines)
		}
		for range 23 {
			f.Allow(client(2))
		}
		cancel()
		<-ended
		if lines[client(2)] != 3 || f.Lost() != 0 {
			t.Errorf("after shutdown: %v, %d lost", lines, f.Lost())
		}
		for range 22 { // of connections that end after the log's last line
			f.Allow(client(3))
		}
		if f.Lost() != 2 {
			t.Errorf("late ones: %d lost, want 2", f.Lost())
		}
	})
}

func TestEveryHandshakeIsAccountedForOnce(t *testing.T) {
	var written, flushed atomic.Uint64
	f := NewSuppression(time.Now, func(_ netip.Addr, n uint64) { flushed.Add(n) })
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { f.Run(ctx); close(ended) }()
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for i := range 20_000 {
				n := i % 300
				if i%2 == 0 {
					n = 0 // this one is suppressed, the others make it a storm
				}
				if f.Allow(client(n)) {
					written.Add(1)
				}
			}
		})
	}
	wg.Wait()
	cancel()
	<-ended
	if got := written.Load() + flushed.Load() + f.Lost(); got != 160_000 {
		t.Errorf("%d written, %d suppressed, %d lost: %d of 160000", written.Load(), flushed.Load(), f.Lost(), got)
	}
	if flushed.Load() == 0 || f.Lost() == 0 {
		t.Errorf("%d suppressed and %d lost: the test shows nothing", flushed.Load(), f.Lost())
	}
}

func BenchmarkAllow(b *testing.B) {
	f := NewSuppression(time.Now, func(netip.Addr, uint64) {})
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for n := 0; pb.Next(); n++ {
			f.Allow(client(n % 1000))
		}
	})
}
