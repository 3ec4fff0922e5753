package gate

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"postern/internal/ledger"
	"postern/metrics"
)

// ledgerRunner holds the ledger and writes it.
type ledgerRunner struct {
	store    *ledger.Store
	recorder *ledger.Recorder
	// key is for hashed accounts.
	key atomic.Pointer[[]byte]
	// due starts a count of the distinct clients.
	due  chan struct{}
	done chan struct{}
	// last is the last count; nil before the first.
	last atomic.Pointer[counted]
}

// counted holds the numbers of distinct clients at a time.
type counted struct {
	list []ledger.Distinct
	at   time.Time
}

// counts returns the last count.
func (b *ledgerRunner) counts() ([]ledger.Distinct, time.Time) {
	if c := b.last.Load(); c != nil {
		return c.list, c.at
	}
	return nil, time.Time{}
}

// openLedger opens what LEDGER_URL names.
func (g *Runtime) openLedger(ctx context.Context) error {
	store, err := ledger.Open(ctx, g.cfg.LedgerURL)
	if errors.Is(err, ledger.ErrAway) {
		// Mail does not wait for the database; the recorder keeps everything.
		g.log.Error("the ledger cannot be written yet, trying again", "error", err.Error())
	} else if err != nil {
		return err
	}
	b := &ledgerRunner{store: store, due: make(chan struct{}, 1), done: make(chan struct{})}
	b.setKey(g.material.identityKey)
	g.ledger = b
	b.recorder = ledger.NewRecorder(ledger.Options{
		Store: store, Log: g.log, Now: g.now, Identity: g.identity(), Flushed: b.wake,
	})
	return nil
}

func (b *ledgerRunner) wake() {
	select {
	case b.due <- struct{}{}:
	default:
	}
}

// identity returns the stored form of an account's name.
func (g *Runtime) identity() func(string) string {
	switch g.cfg.LedgerIdentity {
	case "plain":
		return func(account string) string { return account }
	case "hashed":
		return func(account string) string { return ledger.HashAccount(*g.ledger.key.Load(), account) }
	}
	return nil
}

const (
	// countEvery is how often idle instances count distinct clients, since the
	// windows move. The pause between counts is at least countRest times as
	// long as the last count took.
	countEvery = time.Minute
	countRest  = 20
	pruneEvery = time.Hour
	// databaseTime bounds one of these if the database hangs.
	databaseTime = time.Minute
)

// run writes, counts and prunes until the context ends.
func (b *ledgerRunner) run(ctx context.Context, g *Runtime) {
	defer close(b.done)
	flushing := make(chan struct{})
	go func() {
		defer close(flushing)
		b.recorder.Run(ctx)
	}()
	count, prune := time.NewTimer(0), time.NewTimer(0)
	defer count.Stop()
	defer prune.Stop()
	var rest time.Time
	for {
		select {
		case <-ctx.Done():
			<-flushing
			return
		case <-b.due:
			count.Reset(time.Until(rest))
		case <-count.C:
			begun := time.Now()
			bounded(ctx, g.countClients)
			rest = time.Now().Add(countRest * time.Since(begun))
			count.Reset(countEvery)
		case <-prune.C:
			bounded(ctx, g.prune)
			prune.Reset(pruneEvery)
		}
	}
}

// bounded does something with the database within databaseTime.
func bounded(ctx context.Context, f func(context.Context)) {
	ctx, cancel := context.WithTimeout(ctx, databaseTime)
	defer cancel()
	f(ctx)
}

// prune deletes clients that were not seen for LEDGER_RETENTION.
func (g *Runtime) prune(ctx context.Context) {
	err := g.ledger.store.Prune(ctx, g.now().Add(-g.cfg.LedgerRetention))
	if err != nil && !errors.Is(ctx.Err(), context.Canceled) {
		g.log.Error("pruning the ledger failed", "error", err.Error())
	}
}

// countClients sets the gauges of distinct clients.
func (g *Runtime) countClients(ctx context.Context) {
	now := g.now()
	counts, err := g.ledger.store.Distinct(ctx, now)
	if err != nil {
		if !errors.Is(ctx.Err(), context.Canceled) {
			g.log.Error("counting legacy clients failed", "error", err.Error())
		}
		return
	}
	var list []metrics.LegacyClients
	for _, d := range counts {
		for i, w := range ledger.Windows {
			list = append(list, metrics.LegacyClients{Listener: d.Listener, Version: d.Version, Window: w.Label, Clients: d.ByWindow[i]})
		}
	}
	g.metrics.SetLegacyClients(list)
	g.ledger.last.Store(&counted{counts, now})
}

// close writes the rest.
func (b *ledgerRunner) close(ctx context.Context) error {
	select {
	case <-b.done:
	case <-ctx.Done():
	}
	defer b.store.Close()
	return b.recorder.Close(ctx)
}

// setKey sets the key of hashed accounts.
func (b *ledgerRunner) setKey(key []byte) { b.key.Store(&key) }
