package ledger

import (
	"cmp"
	"slices"
	"strings"

	"postern/policy"
	"postern/proxy"
)

// marks are what the column scanner of a sighting says of its client, as bits.
// The column keeps its name, since ledgers have it.
const (
	markBurst  = 1 << iota // many hellos, new within a minute
	markScan               // and of many versions
	markProbe              // one hello at a steady beat
	markPassed             // passed through: an old server has its sessions

	// marksOfAddress are those of all sightings of an address.
	marksOfAddress = markBurst | markScan
)

const (
	// A scanner sends this many hellos that are new from its address within
	// this many seconds. An office behind one address has many programs too.
	// They log in: an address with a login is never a scanner, and a burst says
	// nothing of clients that were not let in, since they could not.
	burstHellos = 8
	burstTime   = 60
	// A scanner tries versions one after the other, down to those of SSL, which
	// no mail program offers as its highest any more. So a burst of this many
	// versions, one of SSL among them, is a scanner's even where nobody is let in.
	scanVersions = 3
)

// firstHello is when an address first sent a hello.
type firstHello struct {
	at      int64
	version policy.Version
}

// scanMarks returns the marks of an address by its hellos.
func scanMarks(first []firstHello) (marks int64) {
	slices.SortFunc(first, func(a, b firstHello) int { return cmp.Compare(a.at, b.at) })
	for ; len(first) >= burstHellos; first = first[1:] {
		burst := slices.IndexFunc(first, func(h firstHello) bool { return h.at-first[0].at >= burstTime })
		if burst < 0 {
			burst = len(first)
		}
		if burst < burstHellos {
			continue
		}
		marks |= markBurst
		versions := make(map[policy.Version]bool)
		for _, h := range first[:burst] {
			versions[h.version] = true
		}
		if len(versions) >= scanVersions && (versions[policy.SSL2] || versions[policy.SSL3]) {
			marks |= markScan
		}
	}
	return marks
}

// A probe, as of a load balancer or of a monitoring system, sends the same hello
// at a steady beat and never goes on. So do some mail programs that are refused,
// but not more than once a minute; those that are let in log in, and are no
// probe then, whatever their beat.
const (
	// probeBeats intervals in a row are steady; probeBeatsSSL are enough for
	// SSL, which mail programs do not offer.
	probeBeats    = 12
	probeBeatsSSL = 6
	// The shortest interval, and the longest for clients that are not let in, in
	// milliseconds. Faster ones are no probes: a loop, or an attack.
	shortestBeat = 900
	longestBeat  = 59_000
)

// beat is how regularly a client comes.
type beat struct {
	last, interval int64 // in milliseconds
	n              uint8 // steady intervals in a row
}

// next adds a handshake.
func (b *beat) next(at int64) {
	gap := at - b.last
	b.last = at
	if off := gap - b.interval; off < -b.interval/4-100 || off > b.interval/4+100 {
		b.n = 0
	}
	if b.n == 0 {
		b.interval = gap
	}
	b.n = min(b.n+1, probeBeats)
}

// mark updates what the handshake says of the client.
func (e *entry) mark(h *proxy.Handshake, at int64) {
	if h.PassedThrough() {
		e.marks |= markPassed
	}
	e.beat.next(at)
	enough := uint8(probeBeats)
	if h.Verdict.Version < policy.TLS10 {
		enough = probeBeatsSSL
	}
	// What one does that is passed through is not seen: a mail program may well ask
	// at a steady beat there, unless it is SSL's.
	passed := h.PassedThrough()
	if passed && h.Verdict.Version >= policy.TLS10 {
		return
	}
	seen := h.Outcome == proxy.Observed && !passed
	if e.beat.n >= enough && e.beat.interval >= shortestBeat && (seen || e.beat.interval <= longestBeat) {
		e.marks |= markProbe
	}
}

// noiseOf returns the condition on a row of sightings that it is noise, as the
// package's documentation has it. A client that uses the same hello for three days
// (in seconds) is not part of a burst: it may be an office that was connected all
// at once. The numbers are the marks: 6 a scan of versions or a probe, 8 passed
// through, 1 a burst.
func noiseOf(row string) string {
	return strings.ReplaceAll(`(#reason = 'fallback' OR #observed + #explained + #rejected = 0 OR (#login_ok = 0 AND (
	(#scanner & 4) <> 0 OR ((#scanner & 2) <> 0 AND #last_seen - #first_seen < 259200)
	OR ((#scanner & 8) = 0 AND (#login_failed > 0
		OR ((#scanner & 1) <> 0 AND #observed > 0 AND #last_seen - #first_seen < 259200))))))`, "#", row)
}
