// Package memory paces the garbage collection of a proxy and hands memory back.
//
// A proxy keeps a few megabytes, while each handshake leaves some tens of
// kilobytes of garbage. Go collects whenever the heap has doubled, which would
// be many times a second under load. And the memory of many sessions stays with
// the process long after they have ended. So:
//
//   - After each collection the percentage that is otherwise GOGC's is set from
//     what is live: a small heap may grow by a fixed amount before the next
//     collection, a large one by a part of itself. The runtime itself says when a
//     collection has ended, so nothing is late however fast sessions come.
//   - Once a second it checks whether much could be handed back: garbage, free
//     pages, and what belonged to sessions and goroutines that are gone. When a
//     burst is over, that is collected and handed back. The next time comes only
//     after twenty times as long as it took, and never under a steady load, which
//     would need the memory again at once.
//
// An operator's GOGC stays in force. The runtime obeys GOMEMLIMIT and then
// collects earlier than the percentage says.
package memory

import (
	"context"
	"os"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

// checkEvery is how often Run checks whether memory can be handed back.
const checkEvery = time.Second

// Run keeps the process small until the context ends; sessions returns the
// number of open ones. Only one Run may be active, as its settings belong to the
// whole process.
func Run(ctx context.Context, sessions func() int) {
	run(ctx, sessions, checkEvery, os.Getenv("GOGC") == "")
}

func run(ctx context.Context, sessions func() int, every time.Duration, pace bool) {
	if pace {
		p := &pacer{read: newReader(sessions), percent: defaultPercent, ended: ctx.Err}
		p.collected()
	}
	read := newReader(sessions)
	tick := time.Tick(every)
	k := keeper{last: read.now()}
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick:
		}
		if r := read.now(); k.due(r) {
			runtime.GC() // and once more, since a sync.Pool outlives one collection
			debug.FreeOSMemory()
			k.handed(read.now(), time.Since(r.at))
		}
	}
}

// defaultPercent is the runtime's without GOGC.
const defaultPercent = 100

// pacer sets the percentage after each collection.
type pacer struct {
	read    *reader
	percent int
	ended   func() error // of the context
}

// collected runs after each collection: the runtime calls it once nothing refers
// to the last sentinel.
func (p *pacer) collected() {
	if p.ended() != nil {
		return
	}
	// Setting it stops the world for some microseconds.
	if percent := percentFor(p.read.now()); percent > p.percent+p.percent/8 || percent < p.percent-p.percent/8 {
		p.percent = percent
		debug.SetGCPercent(percent)
	}
	runtime.AddCleanup(new(sentinel), (*pacer).collected, p)
}

// sentinel has a pointer, since an object without one may share its memory with
// others and live as long as they do.
type sentinel struct{ _ *byte }

const (
	mb = 1 << 20

	// headroom is the growth of a small heap until the next collection: the
	// garbage of some hundred handshakes.
	headroom = 8 * mb
	// leastPercent is the growth of a large heap, in percent. With a hundred
	// megabytes of sessions, a collection takes 50 ms of a core.
	leastPercent = 75
	// mostPercent also bounds the heap before the first collection: the runtime
	// allows 4 MB for each 100.
	mostPercent = 200
)

// percentFor returns the percentage after a collection.
func percentFor(r reading) int {
	return int(min(max(headroom*100/max(r.live+r.roots, 1), leastPercent), mostPercent))
}

const (
	// worthAtLeast and worthPart are the least to hand back, the latter as a
	// divisor of the process's memory.
	worthAtLeast = 4 * mb
	worthPart    = 8
	// A second is quiet if less is allocated in it than quietRate, or than the
	// quietPart-th of the busiest second since the last time.
	quietRate = 256 << 10
	quietPart = 8
	// restAtLeast and restFactor are the least pause after handing back, the
	// latter as a multiple of the time that took.
	restAtLeast = 5 * time.Second
	restFactor  = 20
)

// keeper decides when to hand memory back.
type keeper struct {
	last reading
	// peak is the most allocated in a second since the last time.
	peak float64
	// goroutines and sessions are at least their numbers at the end of the last
	// collection: they may own live memory.
	goroutines, sessions uint64
	// until is the end of the pause.
	until time.Time
}

// due decides by a reading. It is called about once a second.
func (k *keeper) due(r reading) bool {
	seconds := r.at.Sub(k.last.at).Seconds()
	if seconds <= 0 {
		return false
	}
	rate := float64(r.allocated-k.last.allocated) / seconds
	k.peak = max(k.peak, rate)
	if r.cycles != k.last.cycles {
		k.goroutines, k.sessions = max(k.last.goroutines, r.goroutines), max(k.last.sessions, r.sessions)
	}
	k.last = r
	quiet := rate <= max(quietRate, k.peak/quietPart)
	return quiet && !r.at.Before(k.until) && k.worth(r)
}

// handed notes the reading after handing back, and how long that took.
func (k *keeper) handed(r reading, took time.Duration) {
	*k = keeper{last: r, goroutines: r.goroutines, sessions: r.sessions, until: r.at.Add(max(restAtLeast, restFactor*took))}
}

// worth reports whether there is much to hand back: free pages, allocations since
// the last collection, which may be garbage, and the closed sessions' and ended
// goroutines' share of the memory that was live then.
func (k *keeper) worth(r reading) bool {
	back := r.free + gone(r.live, k.sessions, r.sessions) + gone(r.stacks, k.goroutines, r.goroutines)
	back += max(r.objects, r.live) - r.live
	return back >= worthAtLeast && back >= r.mapped/worthPart
}

// gone returns the share of bytes that belonged to the ones that are gone.
func gone(bytes, then, now uint64) uint64 {
	if now >= then {
		return 0
	}
	return uint64(float64(bytes) * float64(then-now) / float64(then))
}

// reading holds the runtime's memory figures, in bytes unless noted otherwise.
type reading struct {
	at time.Time
	// live and roots are of the last collection: the heap that it left, and the
	// stacks and variables that it scanned.
	live, roots uint64
	// objects are those of the heap, live or not yet collected; free are the
	// process's pages without any; stacks are those of goroutines; mapped is all
	// memory of the process.
	objects, free, stacks, mapped uint64
	// allocated is everything since the start.
	allocated uint64
	// cycles is the number of collections so far, goroutines and sessions are
	// the current numbers.
	cycles, goroutines, sessions uint64
}

// reader reads without allocating.
type reader struct {
	samples  []metrics.Sample
	sessions func() int
}

func newReader(sessions func() int) *reader {
	return &reader{[]metrics.Sample{
		{Name: "/gc/heap/live:bytes"},
		{Name: "/gc/scan/stack:bytes"},
		{Name: "/gc/scan/globals:bytes"},
		{Name: "/memory/classes/heap/objects:bytes"},
		{Name: "/memory/classes/heap/free:bytes"},
		{Name: "/memory/classes/heap/stacks:bytes"},
		{Name: "/memory/classes/heap/released:bytes"},
		{Name: "/memory/classes/total:bytes"},
		{Name: "/gc/heap/allocs:bytes"},
		{Name: "/gc/cycles/total:gc-cycles"},
		{Name: "/sched/goroutines:goroutines"},
	}, sessions}
}

// now reads. Only one goroutine may call it at a time.
func (r *reader) now() reading {
	metrics.Read(r.samples)
	v := func(i int) uint64 { return r.samples[i].Value.Uint64() }
	return reading{
		at: time.Now(), live: v(0), roots: v(1) + v(2),
		objects: v(3), free: v(4), stacks: v(5), mapped: v(7) - v(6),
		allocated: v(8), cycles: v(9), goroutines: v(10), sessions: uint64(max(r.sessions(), 0)),
	}
}
