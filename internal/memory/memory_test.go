package memory

import (
	"context"
	"runtime"
	"runtime/debug"
	"sync/atomic"
	"testing"
	"time"
)

func none() int { return 0 }

func start(t *testing.T, sessions func() int) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	percent := debug.SetGCPercent(defaultPercent)
	go func() {
		defer close(done)
		run(ctx, sessions, 10*time.Millisecond, true)
	}()
	t.Cleanup(func() {
		cancel()
		<-done
		debug.SetGCPercent(percent)
	})
}

// within waits until something is so.
func within(t *testing.T, d time.Duration, what string, so func() bool) {
	t.Helper()
	for end := time.Now().Add(d); !so(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within %v: %s", d, what)
		}
	}
}

func TestMemoryComesBackAfterABurst(t *testing.T) {
	r := newReader(none)
	before := r.now().mapped
	var open atomic.Int64
	start(t, func() int { return int(open.Load()) })
	leave := make(chan struct{})
	ready := make(chan struct{})
	const sessions, each = 1000, 64 << 10
	for range sessions {
		go func() {
			buf := make([]byte, each)
			for i := range buf {
				buf[i] = 1
			}
			open.Add(1)
			ready <- struct{}{}
			<-leave
			runtime.KeepAlive(buf)
			open.Add(-1)
		}()
	}
	for range sessions {
		<-ready
	}
	if full := r.now().mapped; full < before+sessions*each {
		t.Fatalf("%d bytes with the sessions, %d without", full, before)
	}
	close(leave)
	within(t, time.Minute, "that half of it is the system's again", func() bool {
		return r.now().mapped < before+sessions*each/2
	})
}

func TestThePercentageFollowsTheHeap(t *testing.T) {
	start(t, none)
	r := newReader(none)
	within(t, time.Minute, "that a small heap has its headroom", func() bool {
		runtime.GC()
		return gcGoal() >= r.now().live+headroom/2
	})
	held := make([][]byte, 0, 2000)
	for range cap(held) {
		held = append(held, make([]byte, 100<<10))
	}
	within(t, time.Minute, "that a large heap may not double", func() bool {
		runtime.GC()
		return gcGoal() < 2*r.now().live
	})
	runtime.KeepAlive(held)
}

func TestGOGCStaysInForce(t *testing.T) {
	t.Setenv("GOGC", "50") // as the runtime has read it at the start
	before := debug.SetGCPercent(50)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		Run(ctx, none)
	}()
	for range 10 {
		runtime.GC()
		time.Sleep(time.Millisecond)
	}
	cancel()
	<-done
	if percent := debug.SetGCPercent(before); percent != 50 {
		t.Errorf("it is %d then", percent)
	}
}

// A check costs nothing, once a second or after each collection.
func TestCheckingAllocatesNothing(t *testing.T) {
	r := newReader(none)
	k := keeper{last: r.now()}
	if n := testing.AllocsPerRun(100, func() { k.due(r.now()) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// gcGoal is what the heap may grow to until the next collection.
func gcGoal() uint64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.NextGC
}

func BenchmarkCheck(b *testing.B) {
	r := newReader(none)
	k := keeper{last: r.now()}
	b.ReportAllocs()
	for b.Loop() {
		k.due(r.now())
	}
}
