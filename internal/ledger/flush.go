package ledger

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"postern/policy"
)

const (
	// FlushEvery is the time between two writes. A process that is killed loses
	// no more than that and the time of a write.
	FlushEvery = 3 * time.Second
	// loadEvery is how often names are read that other replicas have added or
	// erased.
	loadEvery = time.Minute
	// flushTimeout bounds one attempt to write.
	flushTimeout = 30 * time.Second
	// batchRows is about how many rows are written in one transaction. It bounds
	// how long readers wait, and the memory for copies.
	batchRows = 5000
	// closePause is the time between two attempts at the end.
	closePause = 200 * time.Millisecond
)

// batch holds the rows of one transaction.
type batch struct {
	writer, number int64
	named          bool // accounts are kept
	sightings      []sighting
	hellos         map[policy.JA4]string
	logins         map[clientKey]loginCount
	accounts       map[accountKey]span
	refusals       map[refusal]refused
	suspects       []netip.Addr // may be scanners
	dropped        int64        // handshakes, since a candidate's ledger is full
	negotiated     map[negotiatedKey]int64
}

func (b *batch) empty() bool {
	return len(b.sightings)+len(b.hellos)+len(b.logins)+len(b.accounts)+len(b.refusals)+len(b.negotiated) == 0
}

// Run writes every few seconds until the context ends; Close writes the rest.
func (r *Recorder) Run(ctx context.Context) {
	tick := time.NewTicker(FlushEvery)
	defer tick.Stop()
	for {
		for _, o := range append([]*Recorder{r}, r.remembered...) {
			o.refresh(ctx)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			r.Flush(ctx)
		}
	}
}

// Close writes the rest, and tries again until it succeeds or the context ends.
// Nothing may be recorded after it. The store stays open.
func (r *Recorder) Close(ctx context.Context) error {
	r.negotiated.due.Store(0)
	for err := r.Flush(ctx); err != nil; err = r.Flush(ctx) {
		select {
		case <-ctx.Done():
			return err
		case <-time.After(closePause):
		}
	}
	return nil
}

// Flush writes everything since the last time. If that fails, it is kept for
// the next one. Without anything to write, the store is not used.
func (r *Recorder) Flush(ctx context.Context) error {
	r.store.writing.Lock()
	within, cancel := context.WithTimeout(ctx, flushTimeout)
	defer cancel()
	wrote, err := r.write(within)
	r.note(wrote, err)
	r.store.writing.Unlock()
	if wrote && r.flushed != nil {
		r.flushed()
	}
	for _, o := range r.remembered {
		err = errors.Join(err, o.Flush(ctx))
	}
	return err
}

// note notes how an attempt to write has ended.
func (r *Recorder) note(wrote bool, err error) {
	switch was := r.failing.Swap(err != nil); {
	case err != nil && !was:
		r.log.Error("writing the ledger failed, trying again", "ledger", r.store.name, "error", oneLine{err}, "clients", r.pending.Load())
	case err == nil && was:
		r.log.Info("the ledger is written again", "ledger", r.store.name, "dropped", r.dropped.Load()-r.whole)
	}
	switch dropped := r.dropped.Load(); {
	case err == nil:
		r.whole, r.full = dropped, false
	case dropped > r.whole && !r.full:
		r.full = true
		r.log.Error("too many clients wait for the ledger, leaving out further ones", "ledger", r.store.name, "clients", r.pending.Load())
	}
	now := r.now().Unix()
	if err == nil {
		r.lastGood.Store(now)
	}
	if wrote {
		r.lastWrite.Store(now)
	}
}

func (r *Recorder) write(ctx context.Context) (wrote bool, err error) {
	if b := r.inDoubt; b != nil {
		arrived, err := r.store.arrived(ctx, r.writer, b.number)
		if err != nil {
			return false, err
		}
		if r.inDoubt = nil; arrived {
			r.acknowledge(b)
		}
	}
	// Logins come before sightings: the login of a handshake that arrives
	// meanwhile would find no row.
	last := &batch{}
	r.queue.gather(last)
	r.negotiated.gather(last, r.now())
	for i := 0; i < shardCount; {
		b := &batch{}
		for ; i < shardCount && len(b.sightings) < batchRows; i++ {
			r.shards[i].gather(b)
		}
		if i == shardCount {
			b.logins, b.accounts, b.hellos, b.refusals, b.negotiated = last.logins, last.accounts, last.hellos, last.refusals, last.negotiated
		}
		if b.empty() {
			continue
		}
		if err := r.commit(ctx, b); err != nil {
			return wrote, err
		}
		wrote = true
	}
	for i := range r.shards {
		r.shards[i].dropIdle(r.now().Add(-idleTime).Unix())
	}
	return wrote, nil
}

func (r *Recorder) commit(ctx context.Context, b *batch) error {
	r.number++
	b.writer, b.number, b.named = r.writer, r.number, r.identity != nil
	err := r.store.add(ctx, b)
	if err == nil {
		r.acknowledge(b)
	} else if errors.Is(err, errInDoubt) {
		r.inDoubt = b
	}
	return err
}

// acknowledge removes what was written.
func (r *Recorder) acknowledge(b *batch) {
	for i := range b.sightings {
		if w := &b.sightings[i]; r.shardOf(w.client).acknowledge(w) {
			r.pending.Add(-1)
		}
	}
	r.queue.acknowledge(b)
	r.negotiated.acknowledge(b, r.now())
	if r.dropped.Add(uint64(b.dropped)); b.dropped > 0 && !r.store.full {
		r.store.full = true
		r.log.Error("the ledger of a candidate is full, leaving out further clients", "ledger", r.store.name, "sightings", r.store.most)
	}
}

// accountsState is how much of the store a recorder has read.
type accountsState struct {
	at     time.Time // when names were read
	failed bool      // the last attempt to read them failed
	stamp  string    // of the names that were read
	erased uint64    // how often something had been erased by then
}

// refresh reads accounts from the store: at the start, after something was
// erased, and from time to time if others write too.
func (r *Recorder) refresh(ctx context.Context) {
	now, erased := r.now(), r.store.erased.Load()+1 // which is 0 for nothing read so far
	due := r.store.shared && now.Sub(r.loaded.at) >= loadEvery || r.wanted.Load() && !r.store.migrated.Load()
	if !due && erased == r.loaded.erased {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, flushTimeout)
	defer cancel()
	if erased != r.loaded.erased {
		r.queue.forgetHellos()
	}
	err := r.load(ctx, now)
	if err == nil {
		r.loaded.erased = erased
	} else if ctx.Err() == nil && !r.loaded.failed {
		r.log.Warn("reading the ledger failed, trying again", "error", oneLine{err})
	}
	r.loaded.at, r.loaded.failed = now, err != nil
}

// load reads the names.
func (r *Recorder) load(ctx context.Context, now time.Time) error {
	if r.wanted.Load() { // its tables could not be made before, if the database was away
		if err := r.store.migrate(ctx); err != nil {
			return err
		}
	}
	if r.store.there(ctx) != nil { // as far as is known
		return nil
	}
	stamp, err := r.store.stamp(ctx, "accounts", "last_seen")
	if err != nil || stamp == r.loaded.stamp {
		return err
	}
	list, err := query(ctx, r.store, "reading accounts", `SELECT client, ja4, account, software, first_seen, last_seen FROM accounts
		WHERE last_seen >= $1 ORDER BY last_seen DESC LIMIT $2`, []any{now.Unix() - knownFor, maxKnown + maxStrange}, accountOf)
	if err != nil {
		return err
	}
	r.queue.loadAccounts(slices.DeleteFunc(list, func(a account) bool { return r.identity == nil && a.account != "" })) // once it is off
	r.loaded.stamp = stamp
	return nil
}

// account is a row of accounts.
type account struct {
	accountKey
	span
}

func accountOf(r row) (a account) {
	a.client, _ = netip.ParseAddr(string(r.text(0)))
	copy(a.ja4[:], r.text(1))
	a.account, a.software, a.first, a.last = string(r.text(2)), string(r.text(3)), r.int(4), r.int(5)
	return a
}

// stamp is a text that changes whenever a table does.
func (s *Store) stamp(ctx context.Context, table, sum string) (text string, err error) {
	statement := fmt.Sprintf(`SELECT count(*) || '.' || COALESCE(sum(%s), 0) FROM %s`, sum, table)
	err = read(ctx, s, "reading "+table, statement, nil, func(r row) error {
		text = string(r.text(0))
		return nil
	})
	return text, err
}

// State is a text that changes with every batch of a recorder, here or elsewhere,
// and whenever something is erased.
func (s *Store) State(ctx context.Context) (string, error) { return s.stamp(ctx, "batches", "number") }
