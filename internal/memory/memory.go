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
		p := &pacer{read: newReader(sessions), percent: defaultPercent, done: ctx.Done()}
		p.collected()
	}
	read := newReader(sessions)
	tick := time.NewTicker(every)
	defer tick.Stop()
	k := keeper{last: read.now()}
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if r := read.now(); k.due(r) {
			handBack()
			k.handed(read.now(), time.Since(r.at))
		}
	}
}

// handBack collects twice, since a sync.Pool outlives one collection.
func handBack() {
	runtime.GC()
	debug.FreeOSMemory()
}

// defaultPercent is the runtime's without GOGC.
const defaultPercent = 100

// pacer sets the percentage after each collection.
type pacer struct {
	read    *reader
	percent int
	done    <-chan struct{}
}

// collected runs after each collection: the runtime calls it once nothing refers
// to the last sentinel.
func (p *pacer) collected() {
	select {
	case <-p.done:
		return
	default:
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
