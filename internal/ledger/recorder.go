package ledger

import (
	"context"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"postern/policy"
	"postern/proxy"
)

const (
	// FlushEvery is how often what was seen is written. A process that is killed
	// loses no more than that, and the time that writing takes.
	FlushEvery = 3 * time.Second
	// maxPending is how many distinct clients may wait to be written.
	maxPending = 100_000
	// maxIdle is how many that were written are kept, so that the next sighting
	// of theirs takes no memory, and keptFor is how long.
	maxIdle = 20_000
	keptFor = 10 * time.Minute
	// flushTimeout bounds one attempt to write.
	flushTimeout = 30 * time.Second
)

// Recorder gathers what the proxy tells and writes it to a Store. It implements
// [proxy.Observer], and adds to a handshake what is known of its client; so it
// comes before those who tell of it. Safe for concurrent use.
type Recorder struct {
	store *Store
	log   *slog.Logger
	now   func() time.Time

	shards  [shards]shard
	pending atomic.Int64 // entries that hold something to be written
	dropped atomic.Uint64
	hellos  hellos
	names   names
	logins  logins
	bursts  bursts
	failing bool // the last attempt to write failed; of the flushing goroutine
	// identity is what is kept of an account's name; nil keeps none.
	identity func(account string) string
	// flushed is told after each write.
	flushed func()
}

// shards keeps goroutines from waiting for each other.
const shards = 16

type shard struct {
	mu      sync.Mutex
	entries map[entryKey]*entry
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

// entry is what has been seen and not been written.
type entry struct {
	counts      Counts
	first, last int64 // seconds since 1970
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

// Options are what a Recorder is made with.
type Options struct {
	Store *Store
	Log   *slog.Logger
	Now   func() time.Time // nil means the clock
	// Identity is what is kept of an account's name; nil keeps no names.
	Identity func(account string) string
	// Flushed is called after each write, on Run's goroutine; nil is not called.
	Flushed func()
}

// NewRecorder makes a recorder; Run lets it write.
func NewRecorder(o Options) *Recorder {
	r := &Recorder{store: o.Store, log: o.Log, now: o.Now, identity: o.Identity, flushed: o.Flushed}
	if r.now == nil {
		r.now = time.Now
	}
	for i := range r.shards {
		r.shards[i].entries = make(map[entryKey]*entry)
	}
	r.hellos.known = make(map[policy.JA4]bool)
	r.names.init()
	r.logins.deltas = make(map[clientKey]*loginDelta)
	return r
}

// Dropped is how many sightings were left out because there were too many
// clients at once.
func (r *Recorder) Dropped() uint64 { return r.dropped.Load() }

const secondsADay = 24 * 60 * 60

// Handshake remembers a legacy handshake, and adds the account and the software
// to it where the client is known. In the steady state it takes no memory.
func (r *Recorder) Handshake(h *proxy.Handshake) {
	if !h.Verdict.Legacy() || h.Hello == nil {
		return
	}
	now := r.now().Unix()
	client := h.Client.Addr().WithZone("")
	k := entryKey{
		client: client, listener: h.Listener, ja4: h.JA4, day: int32(now / secondsADay),
		version: h.Verdict.Version, port: h.Local.Port(), reason: h.Verdict.Reason, name: h.Hello.ServerName,
	}
	if !plainName(k.name) {
		k.name = cleanName(k.name)
	}
	r.names.enrich(h, client)
	s := &r.shards[client.As16()[15]%shards]
	s.mu.Lock()
	e := s.entries[k]
	switch {
	case e == nil && r.pending.Load() >= maxPending:
		s.mu.Unlock()
		r.dropped.Add(1)
		return
	case e == nil:
		k.name = strings.Clone(k.name) // it may be a part of something larger
		e = &entry{first: now}
		s.entries[k] = e
		r.hellos.note(h.JA4, h.Hello)
		r.pending.Add(1)
	case e.counts == Counts{}:
		e.first = now
		r.pending.Add(1)
	}
	e.last = now
	*e.counts.of(h.Outcome)++
	s.mu.Unlock()
}

// maxName is the longest host name (RFC 1035, Section 2.3.4), in bytes.
const maxName = 253

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

// cleanName is a host name in lower case; what is none is as good as no name.
func cleanName(s string) string {
	if s = strings.ToLower(s); plainName(s) {
		return s
	}
	return ""
}

// Run writes every few seconds until the context ends; Close writes the rest.
func (r *Recorder) Run(ctx context.Context) {
	tick := time.NewTicker(FlushEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			r.Flush(ctx)
		}
	}
}

// Flush writes what has been seen since the last time. What cannot be written is
// kept for the next one. It is not to be called concurrently.
func (r *Recorder) Flush(ctx context.Context) error {
	b := r.gather()
	if b.empty() {
		r.forgetIdle()
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, flushTimeout)
	defer cancel()
	if err := r.store.add(ctx, b); err != nil {
		if !r.failing {
			r.log.Error("writing the ledger failed, trying again", "error", err.Error())
		}
		r.failing = true
		return err
	}
	if r.failing {
		r.log.Info("the ledger is written again")
		r.failing = false
	}
	r.settle(b)
	r.forgetIdle()
	if r.flushed != nil {
		r.flushed()
	}
	return nil
}

// gather copies what is to be written.
func (r *Recorder) gather() *batch {
	b := &batch{hellos: r.hellos.waiting(), logins: r.logins.gather(), accounts: r.names.waiting()}
	for i := range r.shards {
		s := &r.shards[i]
		s.mu.Lock()
		for k, e := range s.entries {
			if e.counts != (Counts{}) {
				b.sightings = append(b.sightings, sighting{k, *e})
			}
		}
		s.mu.Unlock()
	}
	b.scanners = r.bursts.scanners(b.sightings)
	return b
}

// settle takes off what has been written.
func (r *Recorder) settle(b *batch) {
	for _, w := range b.sightings {
		s := &r.shards[w.client.As16()[15]%shards]
		s.mu.Lock()
		e := s.entries[w.entryKey]
		e.counts.add(Counts{-w.counts.Observed, -w.counts.Explained, -w.counts.Rejected, -w.counts.Failed})
		if e.counts == (Counts{}) {
			r.pending.Add(-1)
		} else {
			e.first = w.last
		}
		s.mu.Unlock()
	}
	r.hellos.settle(b.hellos)
	r.logins.settle(b.logins)
	r.names.settle(b.accounts)
}

// forgetIdle frees entries that hold nothing and have not been seen for long,
// or are too many.
func (r *Recorder) forgetIdle() {
	old := r.now().Add(-keptFor).Unix()
	for i := range r.shards {
		s := &r.shards[i]
		s.mu.Lock()
		idle := 0
		for k, e := range s.entries {
			if e.counts != (Counts{}) {
				continue
			}
			if idle++; e.last < old || idle > maxIdle/shards {
				delete(s.entries, k)
			}
		}
		s.mu.Unlock()
	}
}

// sighting is an entry as it is written.
type sighting struct {
	entryKey
	entry
}

// batch is what is written in one transaction.
type batch struct {
	sightings []sighting
	hellos    map[policy.JA4]policy.Hello
	logins    []loginDelta
	accounts  []accountSeen
	scanners  []netip.Addr
}

func (b *batch) empty() bool {
	return len(b.sightings)+len(b.hellos)+len(b.logins)+len(b.accounts)+len(b.scanners) == 0
}

// hellos keeps one hello for each fingerprint, to judge it again later.
type hellos struct {
	mu    sync.Mutex
	known map[policy.JA4]bool
	fresh map[policy.JA4]policy.Hello
}

// maxHellos is how many are kept.
const maxHellos = 10_000

func (h *hellos) note(ja4 policy.JA4, hello *policy.Hello) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.known[ja4] || len(h.known) >= maxHellos {
		return
	}
	if h.fresh == nil {
		h.fresh = make(map[policy.JA4]policy.Hello)
	}
	h.known[ja4] = true
	h.fresh[ja4] = policy.Hello{
		SSL2Format: hello.SSL2Format, Versions: slices.Clone(hello.Versions), CipherSuites: slices.Clone(hello.CipherSuites),
		SSL2Ciphers: slices.Clone(hello.SSL2Ciphers), Groups: slices.Clone(hello.Groups), Points: slices.Clone(hello.Points),
		SignatureSchemes: slices.Clone(hello.SignatureSchemes),
	}
}

func (h *hellos) waiting() map[policy.JA4]policy.Hello {
	h.mu.Lock()
	defer h.mu.Unlock()
	waiting := make(map[policy.JA4]policy.Hello, len(h.fresh))
	for k, v := range h.fresh {
		waiting[k] = v
	}
	return waiting
}

func (h *hellos) settle(written map[policy.JA4]policy.Hello) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for k := range written {
		delete(h.fresh, k)
	}
}
