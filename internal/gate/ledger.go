package gate

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"postern/internal/ledger"
)

// ledgerRunner holds the ledger and writes it.
type ledgerRunner struct {
	store    *ledger.Store
	recorder *ledger.Recorder
	// due starts a count of the distinct clients.
	due  chan struct{}
	done chan struct{}
	// counts are those of the last count; nil before the first.
	counts atomic.Pointer[[]ledger.Distinct]
	// candidates has those of remembered candidates, by name, as ledger.Windows.
	candidates atomic.Pointer[map[string][4]int]
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
	store.SetPrograms(g.material.Programs.Load())
	b := &ledgerRunner{store: store, due: make(chan struct{}, 1), done: make(chan struct{})}
	b.candidates.Store(new(map[string][4]int))
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
		return func(account string) string { return ledger.HashAccount(g.material.IdentityKey.Load(), account) }
	}
	return nil
}

const (
	// countEvery is how often idle instances count distinct clients, since the
	// windows move. The pause between counts is at least ledger.CountRest times as
	// long as the last count took.
	countEvery = time.Minute
	pruneEvery = time.Hour
	// countTime bounds a count if the database hangs.
	countTime = time.Minute
)

// run counts, prunes and follows guards until a handover, since the policy is not read again
// after it, and writes until the context ends.
func (b *ledgerRunner) run(ctx context.Context, g *Runtime) {
	defer close(b.done)
	var others sync.WaitGroup
	others.Go(func() { b.recorder.Run(ctx) })
	graces := func(ctx context.Context) { b.recorder.Graces(ctx, g.policy.Load().file) }
	for _, follow := range []func(context.Context){g.checkGuards, graces} {
		others.Go(func() {
			for pause(g.serving, guardEvery) {
				follow(g.serving)
			}
		})
	}
	others.Go(func() {
		g.upgrade(g.serving)
		g.prune(g.serving)
	})
	count := time.NewTimer(0)
	defer count.Stop()
	var rest time.Time
	for {
		select {
		case <-g.serving.Done():
			others.Wait()
			return
		case <-b.due:
			count.Reset(time.Until(rest))
		case <-count.C:
			begun := time.Now()
			g.countClients(g.serving)
			rest = time.Now().Add(ledger.CountRest * time.Since(begun))
			count.Reset(countEvery)
		}
	}
}

const (
	// upgradeRetry is the time between two attempts to go on with an upgrade, and
	// upgradeSaid that between two lines in the log.
	upgradeRetry = 5 * time.Second
	upgradeSaid  = 10 * time.Second
)

// upgrade brings a ledger of an earlier version up to date, while clients are
// recorded.
func (g *Runtime) upgrade(ctx context.Context) {
	begun := time.Now()
	said, upgraded := begun, false
	for on := ctx.Err() == nil; on; on = pause(ctx, upgradeRetry) {
		err := g.ledger.store.Upgrade(ctx, func(done float64) {
			if !upgraded || time.Since(said) > upgradeSaid {
				g.log.Info("bringing the ledger up to this version", "done", fmt.Sprintf("%.0f %%", 100*done))
				said, upgraded = time.Now(), true
			}
		})
		switch {
		case err == nil && upgraded:
			g.log.Info("the ledger is up to this version", "seconds", int(time.Since(begun).Seconds()))
			fallthrough
		case err == nil:
			g.ledger.wake()
			return
		case ctx.Err() == nil && !errors.Is(err, ledger.ErrAway):
			g.log.Error("bringing the ledger up to this version failed, trying again", "error", err.Error())
		}
	}
}

// prune deletes clients that were not seen for LEDGER_RETENTION, every hour.
func (g *Runtime) prune(ctx context.Context) {
	for on := ctx.Err() == nil; on; on = pause(ctx, pruneEvery) {
		err := g.ledger.store.Prune(ctx, g.now().Add(-g.cfg.LedgerRetention))
		if err != nil && ctx.Err() == nil {
			g.log.Error("pruning the ledger failed", "error", err.Error())
		}
	}
}

// pause waits, and reports whether to go on after that.
func pause(ctx context.Context, d time.Duration) (on bool) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
	return ctx.Err() == nil
}

// countClients sets the gauges of distinct clients.
func (g *Runtime) countClients(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, countTime)
	defer cancel()
	now := g.now()
	counts, at, err := g.ledger.store.Distinct(ctx, now)
	if err != nil {
		if !errors.Is(ctx.Err(), context.Canceled) && !errors.Is(err, ledger.ErrUpgrading) {
			g.log.Error("counting legacy clients failed", "error", err.Error())
		}
		return
	}
	g.metrics.SetLegacyClients(counts)
	if !at.IsZero() { // another replica has counted
		g.ledger.counts.Store(&counts)
	}
	candidates := make(map[string][4]int)
	for _, c := range g.policy.Load().Remembered() {
		counts, _, err := g.ledger.store.Candidate(c.Floor).Distinct(ctx, now)
		if err != nil {
			if !errors.Is(ctx.Err(), context.Canceled) {
				g.log.Error("counting clients of a candidate failed", "candidate", c.Name, "error", err.Error())
			}
			return
		}
		for _, d := range counts {
			if d.Listener == ledger.Any && d.Version == ledger.Any {
				candidates[c.Name] = d.ByWindow
			}
		}
	}
	g.metrics.SetCandidateClients(candidates)
	g.ledger.candidates.Store(&candidates)
}

// close writes the rest. A count, which goes by the time that others leave, may end later.
func (b *ledgerRunner) close(ctx context.Context) error {
	defer b.store.Close()
	err := b.recorder.Close(ctx)
	select {
	case <-b.done:
	case <-ctx.Done():
	}
	return err
}
