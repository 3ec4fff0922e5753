package ledger

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"postern/proxy"
)

const (
	// FlushEvery is how often what was seen is written. A process that is killed
	// loses no more than that, and the time that writing takes.
	FlushEvery = 3 * time.Second
	// refreshEvery is how often names are read that other gates have learned, or
	// that were erased.
	refreshEvery = time.Minute
	// flushTimeout bounds one attempt to write.
	flushTimeout = 30 * time.Second
	// batchRows is how many rows are written in one transaction, or somewhat
	// more: who reads waits no longer than that takes, and only so many are
	// copied at a time.
	batchRows = 5000
	// closePause is the time between two attempts at the end.
	closePause = 200 * time.Millisecond
)

// Recorder gathers what the proxy tells and writes it to a Store. It implements
// [proxy.Observer]. Safe for concurrent use.
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
	// identity is what is kept of an account's name; nil keeps none.
	identity func(account string) string
	// flushed is told after each write.
	flushed func()

	// writing is held from the moment when what is to be written is copied
	// until it is written or not, and while something is erased: what was
	// erased does not come back with a batch that was under way.
	writing sync.Mutex
	// failing: the last attempt to write failed.
	failing bool
	// writer and number name a batch in the store. doubted is the one whose end
	// is not known, because the connection broke while it was committed.
	writer, number int64
	doubted        *batch

	refreshed time.Time // when names were read
	unread    bool      // the last attempt to do so failed
	stamp     stamp     // of the names that were read
	erased    uint64    // how often something had been erased by then
}

// Options are what a Recorder is made with.
type Options struct {
	Store *Store
	Log   *slog.Logger
	Now   func() time.Time // nil means the clock
	// Identity is what is kept of an account's name, which comes in lower case;
	// nil keeps no names.
	Identity func(account string) string
	// Flushed is called after each write, on Run's goroutine; nil is not called.
	Flushed func()
}

// NewRecorder makes a recorder; Run lets it write, and Close ends it.
func NewRecorder(o Options) *Recorder {
	r := &Recorder{store: o.Store, log: o.Log, now: o.Now, identity: o.Identity, flushed: o.Flushed, writer: rand.Int64()}
	if r.now == nil {
		r.now = time.Now
	}
	for i := range r.shards {
		r.shards[i].init()
	}
	r.hellos.init()
	r.names.init()
	r.logins.deltas = make(map[clientKey]*loginDelta)
	r.store.attach(r)
	return r
}

// Dropped is how many sightings, logins and names were left out because there
// were too many clients at once.
func (r *Recorder) Dropped() uint64 { return r.dropped.Load() }

// Handshake remembers a legacy handshake. In the steady state it allocates
// nothing.
func (r *Recorder) Handshake(h *proxy.Handshake) {
	if !h.Verdict.Legacy() || h.Hello == nil {
		return
	}
	now := r.now().Unix()
	client := h.Client.Addr().WithZone("")
	k := entryKey{
		client: client, listener: h.Listener, ja4: h.JA4, day: int32(now / secondsADay),
		version: h.Verdict.Version, port: h.Local.Port(), reason: h.Verdict.Reason, name: cleanName(h.Hello.ServerName),
	}
	s := r.shard(client)
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.entries[k]
	if e == nil {
		if !s.admit(&k) {
			k.collapse()
			e = s.entries[k]
		} else {
			r.hellos.note(h.JA4, h.Hello)
		}
	}
	switch {
	case e == nil && r.pending.Load() >= maxPending:
		r.dropped.Add(1)
		return
	case e == nil:
		e = s.open(k)
		fallthrough
	case e.counts == Counts{}:
		e.first = now
		r.pending.Add(1)
	}
	e.last = now
	*e.counts.of(h.Outcome)++
}

// Run writes every few seconds until the context ends; Close writes the rest.
func (r *Recorder) Run(ctx context.Context) {
	tick := time.NewTicker(FlushEvery)
	defer tick.Stop()
	for {
		r.refresh(ctx)
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			r.Flush(ctx)
		}
	}
}

// Close writes what is left, and tries again until it is written or the context
// ends. Nothing is to be recorded after it; the store stays open.
func (r *Recorder) Close(ctx context.Context) error {
	defer r.store.detach(r)
	for {
		err := r.Flush(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(closePause):
		}
	}
}

// Flush writes what has been seen since the last time. What cannot be written is
// kept for the next one. Where there is nothing, the store is not asked.
func (r *Recorder) Flush(ctx context.Context) error {
	wrote, err := r.flush(ctx)
	if wrote && r.flushed != nil {
		r.flushed()
	}
	return err
}

func (r *Recorder) flush(ctx context.Context) (wrote bool, err error) {
	r.writing.Lock()
	defer r.writing.Unlock()
	ctx, cancel := context.WithTimeout(ctx, flushTimeout)
	defer cancel()
	wrote, err = r.write(ctx)
	switch {
	case err != nil && !r.failing:
		r.log.Error("writing the ledger failed, trying again", "error", err.Error())
	case err == nil && r.failing:
		r.log.Info("the ledger is written again")
	}
	r.failing = err != nil
	return wrote, err
}

func (r *Recorder) write(ctx context.Context) (wrote bool, err error) {
	if b := r.doubted; b != nil {
		arrived, err := r.store.arrived(ctx, r.writer, b.number)
		if err != nil {
			return false, err
		}
		if r.doubted = nil; arrived {
			r.settle(b)
		}
	}
	// Logins before sightings: that of a handshake that comes meanwhile would
	// find no row to be added to.
	last := &batch{logins: r.logins.gather(), accounts: r.names.waiting(), hellos: r.hellos.waiting()}
	for i := 0; i < shards; {
		b := &batch{}
		for ; i < shards && len(b.sightings) < batchRows; i++ {
			r.shards[i].gather(b)
		}
		if i == shards {
			b.logins, b.accounts, b.hellos = last.logins, last.accounts, last.hellos
		}
		if b.empty() {
			continue
		}
		if err := r.commit(ctx, b); err != nil {
			return wrote, err
		}
		wrote = true
	}
	r.forgetIdle()
	return wrote, nil
}

func (r *Recorder) commit(ctx context.Context, b *batch) error {
	r.number++
	b.writer, b.number = r.writer, r.number
	err := r.store.add(ctx, b)
	if err == nil {
		r.settle(b)
	} else if errors.Is(err, errInDoubt) {
		r.doubted = b
	}
	return err
}

// settle takes off what has been written.
func (r *Recorder) settle(b *batch) {
	for i := range b.sightings {
		if w := &b.sightings[i]; r.shard(w.client).settle(w) {
			r.pending.Add(-1)
		}
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
		r.shards[i].forgetIdle(old)
	}
}

// refresh reads what is known of clients from the store: at the start, when
// something has been erased, and from time to time where others write too.
func (r *Recorder) refresh(ctx context.Context) {
	now, erased := r.now(), r.store.erasures()
	first, due := r.refreshed.IsZero(), r.store.others && now.Sub(r.refreshed) >= refreshEvery
	if !first && !due && erased == r.erased {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, flushTimeout)
	defer cancel()
	if err := r.load(ctx, now, first || erased != r.erased); err != nil {
		if ctx.Err() == nil && !r.unread {
			r.log.Warn("reading the ledger failed, trying again", "error", err.Error())
		}
		r.unread = true
		if !first {
			r.refreshed = now
		}
		return
	}
	r.refreshed, r.erased, r.unread = now, erased, false
}

// load reads the names, and with all the fingerprints too.
func (r *Recorder) load(ctx context.Context, now time.Time, all bool) error {
	if all {
		known, err := r.store.fingerprints(ctx)
		if err != nil {
			return err
		}
		r.hellos.replace(known)
	}
	if r.identity == nil {
		return nil
	}
	since := now.Unix() - knownFor
	stamp, err := r.store.accountsStamp(ctx)
	if err != nil || stamp == r.stamp {
		return err
	}
	list, err := r.store.accountsSince(ctx, since)
	if err != nil {
		return err
	}
	r.names.replace(list)
	r.stamp = stamp
	return nil
}
