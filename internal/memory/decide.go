package memory

import "time"

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
	if r.objects > r.live {
		back += r.objects - r.live
	}
	return back >= worthAtLeast && back >= r.mapped/worthPart
}

// gone returns the share of bytes that belonged to the ones that are gone.
func gone(bytes, then, now uint64) uint64 {
	if now >= then {
		return 0
	}
	return uint64(float64(bytes) * float64(then-now) / float64(then))
}
