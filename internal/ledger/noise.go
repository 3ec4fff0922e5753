package ledger

import "slices"

const (
	// A scanner sends this many hellos that are new from its address within
	// this many seconds. An office behind one address has many programs too,
	// but they do not all appear within one minute. An address with a login is
	// never a scanner.
	burstHellos = 8
	burstTime   = 60
)

// burst reports whether so many hellos were first seen within so little time.
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
// A client that uses the same hello for three days (in seconds) is not part of
// a burst: it may be an office that was connected all at once.
const noise = `(s.reason = 'fallback' OR s.observed + s.explained + s.rejected = 0
	OR (s.login_ok = 0 AND (s.scanner = 1 AND s.last_seen - s.first_seen < 259200 OR s.login_failed > 0)))`
