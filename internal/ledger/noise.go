package ledger

import "slices"

const (
	// A scanner shows so many hellos that its address has not shown before,
	// within so many seconds. An office behind one address has many programs
	// too, but they do not all come for the first time in one minute; and where
	// somebody has logged in is no scanner.
	burstHellos = 8
	burstTime   = 60
)

// burst reports whether there was one, by when each hello was first seen.
func burst(first []int64) bool {
	slices.Sort(first)
	for i := burstHellos - 1; i < len(first); i++ {
		if first[i]-first[i-burstHellos+1] < burstTime {
			return true
		}
	}
	return false
}

// noise is the condition on sightings s, as the package's documentation has it.
// What comes again for three days (in seconds) with the same hello is no burst:
// an office that appeared at once is not to be lost.
const noise = `(s.reason = 'fallback' OR s.observed + s.explained + s.rejected = 0
	OR (s.login_ok = 0 AND (s.scanner = 1 AND s.last_seen - s.first_seen < 259200 OR s.login_failed > 0)))`
