package ledger

import (
	"hash/maphash"
	"net/netip"
	"slices"
	"time"
)

const (
	// A scanner shows so many hellos that its address has not shown before,
	// within so much time. An office behind one address has many programs too,
	// but they do not all come for the first time in one minute; and what has
	// logged in is no noise.
	burstHellos = 8
	burstTime   = int64(time.Minute / time.Second)
	// burstsKept bounds the addresses that are watched at once.
	burstsKept = 50_000
)

// bursts notices scanners, by what is about to be written. It belongs to the
// flushing goroutine.
type bursts struct {
	seed maphash.Seed
	seen map[netip.Addr]*burst
}

// burst is the last hellos of an address that were new for it.
type burst struct {
	hellos  [burstHellos]uint32 // hashes
	first   [burstHellos]int64  // when, in seconds since 1970
	n       int
	scanner bool
}

// scanners are the addresses among the sightings that turn out to be scanners,
// or did before: there are new rows of theirs.
func (b *bursts) scanners(list []sighting) []netip.Addr {
	if b.seen == nil {
		b.seed = maphash.MakeSeed()
	}
	if b.seen == nil || len(b.seen) > burstsKept {
		b.seen = make(map[netip.Addr]*burst)
	}
	found := make(map[netip.Addr]bool)
	for i := range list {
		s := &list[i]
		known := b.seen[s.client]
		if known == nil {
			known = new(burst)
			b.seen[s.client] = known
		}
		hello := maphash.Comparable(b.seed, struct {
			ja4     [36]byte
			version uint16
		}{s.ja4, uint16(s.version)})
		if known.add(uint32(hello), s.first); known.scanner {
			found[s.client] = true
		}
	}
	all := make([]netip.Addr, 0, len(found))
	for a := range found {
		all = append(all, a)
	}
	return all
}

func (b *burst) add(hello uint32, first int64) {
	if slices.Contains(b.hellos[:min(b.n, burstHellos)], hello) {
		return
	}
	b.hellos[b.n%burstHellos], b.first[b.n%burstHellos] = hello, first
	if b.n++; b.n >= burstHellos {
		b.scanner = b.scanner || slices.Max(b.first[:])-slices.Min(b.first[:]) < burstTime
	}
}
