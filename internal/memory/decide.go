package memory

import "time"

const (
	mb = 1 << 20

	// headroom is what a small heap may grow by until the next collection:
	// garbage of some hundred handshakes.
	headroom = 8 * mb
	// leastPercent is what a large heap may grow by, in percent. Where sessions
	// hold a hundred megabytes, a collection takes 50 ms of a core.
	leastPercent = 75
	// mostPercent also bounds the heap before the first collection, which the
	// runtime puts at 4 MB for each 100.
	mostPercent = 200
)

// percentFor is the percentage for what the last collection has found.
func percentFor(r reading) int {
	return int(min(max(headroom*100/max(r.live+r.roots, 1), leastPercent), mostPercent))
}

const (
	// worthAtLeast and worthPart are how much there must be to hand back, the
	// latter as a divisor of what the process has.
	worthAtLeast = 4 * mb
	worthPart    = 8
	// A second is quiet when less is allocated in it than quietRate, or than
	// the quietPart-th of what was allocated in the busiest since the last time.
	quietRate = 256 << 10
	quietPart = 8
	// restAtLeast and restFactor are how long it is waited after handing back,
	// the latter times as long as that took.
	restAtLeast = 5 * time.Second
	restFactor  = 20
)

// keeper decides when memory is handed back.
type keeper struct {
	last reading
	// peak is the most that was allocated in a second, since the last time.
	peak float64
	// goroutines and sessions are how many there were when the last collection
	// ended, or somewhat more: what is live now may be theirs.
	goroutines, sessions uint64
	// until is the end of the rest.
	until time.Time
}

// due decides by a reading, to be called about once a second.
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

// handed notes what was left, and how long handing back took.
func (k *keeper) handed(r reading, took time.Duration) {
	*k = keeper{last: r, goroutines: r.goroutines, sessions: r.sessions, until: r.at.Add(max(restAtLeast, restFactor*took))}
}

// worth reports whether there is much to be had: free pages, what was allocated
// since the last collection and may be garbage, and of what was live then, the
// share of those sessions and stacks that are gone.
func (k *keeper) worth(r reading) bool {
	back := r.free + gone(r.live, k.sessions, r.sessions) + gone(r.stacks, k.goroutines, r.goroutines)
	if r.objects > r.live {
		back += r.objects - r.live
	}
	return back >= worthAtLeast && back >= r.mapped/worthPart
}

// gone is the share of bytes that belonged to those who are not there now.
func gone(bytes, then, now uint64) uint64 {
	if now >= then {
		return 0
	}
	return uint64(float64(bytes) * float64(then-now) / float64(then))
}
