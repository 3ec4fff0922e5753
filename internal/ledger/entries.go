package ledger

import (
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
	// maxPending is how many distinct clients may wait to be written.
	maxPending = 100_000
	// maxIdle is how many that were written are kept, so that the next sighting
	// of theirs takes no memory and is written as a small change; keptFor is for
	// how many minutes.
	maxIdle = 60_000
	keptFor = 10 * time.Minute
	// maxWays is how many rows one address may bring in a day, and
	// maxWaysOfNetwork an IPv6 /64. What comes beyond that is added up without
	// server name and fingerprint, and for the /64 as a whole: random names fill
	// no database.
	maxWays          = 64
	maxWaysOfNetwork = 1024
	// maxNetworks is how many addresses are watched for that at once.
	maxNetworks = 100_000
)

const secondsADay = 24 * 60 * 60

// shards keep goroutines from waiting for each other.
const shards = 16

// shard holds the clients of some networks.
type shard struct {
	mu      sync.Mutex
	entries map[entryKey]*entry
	today   map[int64]*ways // by network
}

// ways are the different rows that an address, or an IPv6 /64, has brought on
// one day, as hashes: the lower part is that of the fingerprint alone.
type ways struct {
	day    int32
	hashes []uint64
}

// entryKey is what sightings are added up by.
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

// collapse leaves out what a client can choose freely.
func (k *entryKey) collapse() {
	c := collapsed(k.client)
	k.client, k.ja4, k.name = c.client, c.ja4, ""
}

// collapsed is the key of those that come in too many ways.
func collapsed(client netip.Addr) clientKey {
	return clientKey{client: policy.ClientPrefix(client).Addr()}
}

// entry is what has been seen and not been written.
type entry struct {
	counts      Counts
	first, last int64 // seconds since 1970
	id          int64 // of its row
	// written: the row was there when it was written last.
	written bool
}

// Counts are handshakes by outcome.
type Counts struct {
	Observed, Explained, Rejected, Failed int64
}

func (c *Counts) add(o Counts) {
	c.Observed += o.Observed
	c.Explained += o.Explained
	c.Rejected += o.Rejected
	c.Failed += o.Failed
}

func (c *Counts) of(o proxy.Outcome) *int64 {
	switch o {
	case proxy.Observed:
		return &c.Observed
	case proxy.Explained:
		return &c.Explained
	case proxy.Rejected:
		return &c.Rejected
	}
	return &c.Failed
}

var seed = maphash.MakeSeed()

// shard is the one of an address: a /64 has one, so that it can be watched.
func (r *Recorder) shard(client netip.Addr) *shard {
	return &r.shards[spread(client)>>60%shards]
}

// spread is a number of a network that is far from that of its neighbour. Its
// first bits choose the shard, and begin the id of each row: the rows of a shard
// lie side by side in their table.
func spread(client netip.Addr) uint64 {
	const odd = 0x9e3779b97f4a7c15
	return uint64(networkNumber(client)) * odd
}

func (s *shard) init() {
	s.entries = make(map[entryKey]*entry)
	s.today = make(map[int64]*ways)
}

// admit reports whether a client may bring the new row; s.mu is held.
func (s *shard) admit(k *entryKey) bool {
	n := networkNumber(k.client)
	w := s.today[n]
	if w == nil {
		if len(s.today) >= maxNetworks/shards {
			clear(s.today)
		}
		w = &ways{day: k.day}
		s.today[n] = w
	}
	if w.day != k.day {
		w.day, w.hashes = k.day, w.hashes[:0]
	}
	same := *k
	same.day = 0
	hash := maphash.Comparable(seed, same)<<ja4Bits | ja4Hash(k.ja4)
	if slices.Contains(w.hashes, hash) {
		return true
	}
	if w.full(k.client) {
		return false
	}
	w.hashes = append(w.hashes, hash)
	return true
}

// ja4Bits is how much of a hash is the fingerprint's.
const ja4Bits = 24

func ja4Hash(j policy.JA4) uint64 { return maphash.Comparable(seed, j) & (1<<ja4Bits - 1) }

func (w *ways) full(client netip.Addr) bool {
	if client.Is6() {
		return len(w.hashes) >= maxWaysOfNetwork
	}
	return len(w.hashes) >= maxWays
}

// key is what logins of a client are kept by: as its handshakes are.
func (r *Recorder) key(client netip.Addr, ja4 policy.JA4) clientKey {
	client = client.WithZone("")
	s := r.shard(client)
	s.mu.Lock()
	defer s.mu.Unlock()
	w := s.today[networkNumber(client)]
	if w == nil || !w.full(client) {
		return clientKey{client, ja4}
	}
	for _, hash := range w.hashes {
		if hash&(1<<ja4Bits-1) == ja4Hash(ja4) {
			return clientKey{client, ja4}
		}
	}
	return collapsed(client)
}

// open makes an entry; s.mu is held.
func (s *shard) open(k entryKey) *entry {
	k.name = strings.Clone(k.name) // it may be a part of something larger
	e := &entry{id: k.row()}
	s.entries[k] = e
	return e
}

// gather copies the entries that hold something, and says who may be a scanner.
func (s *shard) gather(b *batch) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for k, e := range s.entries {
		if e.counts == (Counts{}) {
			continue
		}
		b.sightings = append(b.sightings, sighting{k, *e})
		if e.written {
			continue
		}
		if w := s.today[networkNumber(k.client)]; w != nil && len(w.hashes) >= burstHellos {
			b.suspects = append(b.suspects, k.client)
		}
	}
}

// settle takes off what has been written, and reports whether that was all.
func (s *shard) settle(w *sighting) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.entries[w.entryKey]
	if e == nil {
		return false
	}
	e.written = true
	e.counts.add(Counts{-w.counts.Observed, -w.counts.Explained, -w.counts.Rejected, -w.counts.Failed})
	e.first = w.last
	return e.counts == Counts{}
}

func (s *shard) forgetIdle(old int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	idle := 0
	for k, e := range s.entries {
		if e.counts != (Counts{}) {
			continue
		}
		if idle++; e.last < old || idle > maxIdle/shards {
			delete(s.entries, k)
		}
	}
}

// forget drops all of an address, and returns how many entries held something.
func (s *shard) forget(client netip.Addr) (held int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for k, e := range s.entries {
		if k.client != client {
			continue
		}
		if e.counts != (Counts{}) {
			held++
		}
		delete(s.entries, k)
	}
	return held
}

// sighting is an entry as it is written.
type sighting struct {
	entryKey
	entry
}

// batch is what is written in one transaction.
type batch struct {
	writer, number int64
	sightings      []sighting
	hellos         map[policy.JA4]policy.Hello
	logins         []loginDelta
	accounts       []accountSeen
	suspects       []netip.Addr // may be scanners
}

func (b *batch) empty() bool {
	return len(b.sightings)+len(b.hellos)+len(b.logins)+len(b.accounts) == 0
}

// maxName is the longest host name (RFC 1035, Section 2.3.4), in bytes.
const maxName = 253

// cleanName is a host name in lower case; what is none is as good as no name.
func cleanName(s string) string {
	if plainName(s) {
		return s
	}
	if len(s) <= maxName {
		if s = strings.ToLower(s); plainName(s) {
			return s
		}
	}
	return ""
}

// plainName reports whether a server name is a host name in lower case.
func plainName(s string) bool {
	if len(s) > maxName {
		return false
	}
	for i := range len(s) {
		switch c := s[i]; {
		case c >= 'a' && c <= 'z', c >= '0' && c <= '9', c == '-', c == '.', c == '_':
		default:
			return false
		}
	}
	return true
}
