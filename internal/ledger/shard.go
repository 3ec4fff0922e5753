package ledger

import (
	"cmp"
	"hash/maphash"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"postern/policy"
	"postern/proxy"
)

const (
	// maxPending bounds the distinct clients that wait to be written.
	maxPending = 100_000
	// maxIdle bounds the entries that are kept after they were written, and
	// idleTime their age. The next sighting of such a client does not allocate,
	// and is written as a small update.
	maxIdle  = 60_000
	idleTime = 10 * time.Minute
	// maxVariants bounds the rows of one address in a day, and
	// maxVariantsOfNetwork those of an IPv6 /64. Further handshakes are
	// aggregated without server name and fingerprint, and for the whole /64, so
	// that random names do not fill the database.
	maxVariants          = 64
	maxVariantsOfNetwork = 1024
	// maxNetworks bounds the networks that are counted for that.
	maxNetworks = 100_000
)

const secondsADay = 24 * 60 * 60

// shardCount is large enough that goroutines rarely wait for each other.
const shardCount = 16

// shard holds the clients of some networks.
type shard struct {
	mu      sync.Mutex
	entries map[entryKey]*entry
	today   map[int64]*variants // by network
}

// entryKey identifies the sightings that are added up.
type entryKey struct {
	client   netip.Addr
	name     string // server name, in lower case
	listener proxy.Listener
	ja4      policy.JA4
	day      int32 // since 1970, in UTC
	version  policy.Version
	port     uint16
	reason   policy.Reason
}

// entry holds sightings that have not been written.
type entry struct {
	counts      Counts
	first, last int64 // seconds since 1970
	id          int64 // of its row
	marks       int64
	beat        beat
	// written: the row existed when it was written last.
	written bool
}

// sighting is an entry in a batch.
type sighting struct {
	entryKey
	entry
}

var seed = maphash.MakeSeed()

// shardOf returns the shard of an address. A whole /64 is in one shard, which
// counts its variants.
func (r *Recorder) shardOf(client netip.Addr) *shard {
	return &r.shards[shardNumber(networkNumber(client))>>60%shardCount]
}

// shardNumber hashes a network. Its first bits choose the shard, and begin the
// id of each row: the rows of a shard lie side by side in their table.
func shardNumber(network int64) uint64 {
	const odd = 0x9e3779b97f4a7c15
	return uint64(network) * odd
}

// variants are the different rows that a network has brought on one day, as
// hashes whose lower bits are a hash of the fingerprint alone.
type variants struct {
	day    int32
	hashes []uint64
}

// ja4Bits is how many bits of a hash are the fingerprint's.
const ja4Bits = 24

func ja4Hash(j policy.JA4) uint64 { return maphash.Comparable(seed, j) & (1<<ja4Bits - 1) }

func (v *variants) full(client netip.Addr) bool {
	if client.Is6() {
		return len(v.hashes) >= maxVariantsOfNetwork
	}
	return len(v.hashes) >= maxVariants
}

// admit reports whether a client may add the new row; s.mu is held.
func (s *shard) admit(k *entryKey) bool {
	n := networkNumber(k.client)
	v := s.today[n]
	if v == nil {
		if len(s.today) >= maxNetworks/shardCount {
			clear(s.today)
		}
		v = &variants{day: k.day}
		s.today[n] = v
	}
	if v.day != k.day {
		v.day, v.hashes = k.day, v.hashes[:0]
	}
	same := *k
	same.day = 0
	hash := maphash.Comparable(seed, same)<<ja4Bits | ja4Hash(k.ja4)
	if slices.Contains(v.hashes, hash) {
		return true
	}
	if v.full(k.client) {
		return false
	}
	v.hashes = append(v.hashes, hash)
	return true
}

// clientKey returns the key of a client's logins, aggregated like its
// handshakes.
func (r *Recorder) clientKey(client netip.Addr, ja4 policy.JA4) clientKey {
	client = client.WithZone("")
	s := r.shardOf(client)
	s.mu.Lock()
	defer s.mu.Unlock()
	v := s.today[networkNumber(client)]
	if v == nil || !v.full(client) || slices.ContainsFunc(v.hashes, func(hash uint64) bool { return hash&(1<<ja4Bits-1) == ja4Hash(ja4) }) {
		return clientKey{client, ja4}
	}
	return clientKey{client: policy.ClientPrefix(client).Addr()}
}

// gather copies the entries with counts, and notes suspected scanners.
func (s *shard) gather(b *batch) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for k, e := range s.entries {
		if e.counts == (Counts{}) {
			continue
		}
		b.sightings = append(b.sightings, sighting{k, *e})
		if v := s.today[networkNumber(k.client)]; !e.written && v != nil && len(v.hashes) >= burstHellos {
			b.suspects = append(b.suspects, k.client)
		}
	}
}

// acknowledge removes what was written, and reports whether that was all.
func (s *shard) acknowledge(w *sighting) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.entries[w.entryKey]
	if e == nil {
		return false
	}
	e.written = true
	e.counts.Add(Counts{-w.counts.Observed, -w.counts.Explained, -w.counts.Rejected, -w.counts.Failed})
	e.first = w.last
	return e.counts == Counts{}
}

// dropIdle frees empty entries that were not seen since a time, or are too many.
func (s *shard) dropIdle(since int64) {
	idle := 0
	s.drop(func(_ entryKey, e *entry) bool {
		if e.counts != (Counts{}) {
			return false
		}
		idle++
		return e.last < since || idle > maxIdle/shardCount
	})
}

// drop deletes entries, and returns how many of them held something.
func (s *shard) drop(gone func(entryKey, *entry) bool) (held int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for k, e := range s.entries {
		if gone(k, e) {
			if e.counts != (Counts{}) {
				held++
			}
			delete(s.entries, k)
		}
	}
	return held
}

// maxName is the longest host name (RFC 1035, Section 2.3.4), in bytes.
const maxName = 253

// hostName returns a server name in lower case; empty if it is no host name.
func hostName(s string) string {
	if len(s) > maxName {
		return ""
	}
	s = strings.ToLower(s)
	if strings.ContainsFunc(s, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < '0' || r > '9') && r != '-' && r != '.' && r != '_'
	}) {
		return ""
	}
	return s
}

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
		burst, _ := slices.BinarySearchFunc(first, first[0].at+burstTime, func(h firstHello, end int64) int { return cmp.Compare(h.at, end) })
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
	passed, ssl := h.PassedThrough(), h.Verdict.Version < policy.TLS10
	if passed {
		e.marks |= markPassed
	}
	e.beat.next(at)
	enough := uint8(probeBeats)
	if ssl {
		enough = probeBeatsSSL
	}
	// What one does that is passed through is not seen: a mail program may well ask
	// at a steady beat there, unless it is SSL's.
	if passed && !ssl {
		return
	}
	seen := (h.Outcome == proxy.Observed || h.Outcome == proxy.Accepted) && !passed
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
