package memory

import (
	"runtime/metrics"
	"time"
)

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

var names = []string{
	"/gc/heap/live:bytes",
	"/gc/scan/stack:bytes",
	"/gc/scan/globals:bytes",
	"/memory/classes/heap/objects:bytes",
	"/memory/classes/heap/free:bytes",
	"/memory/classes/heap/stacks:bytes",
	"/memory/classes/heap/released:bytes",
	"/memory/classes/total:bytes",
	"/gc/heap/allocs:bytes",
	"/gc/cycles/total:gc-cycles",
	"/sched/goroutines:goroutines",
}

func newReader(sessions func() int) *reader {
	r := &reader{make([]metrics.Sample, len(names)), sessions}
	for i, name := range names {
		r.samples[i].Name = name
	}
	return r
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
