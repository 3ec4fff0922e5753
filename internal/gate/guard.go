package gate

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"postern/policy"
)

// guardEvery is how often refusals are written and guards read, where the policy has any:
// all gates of one ledger follow a guard within a few seconds.
const guardEvery = time.Second

// guardsAtStart bounds the wait for them at the start.
const guardsAtStart = 5 * time.Second

// guarded is a policy with its guards in some states.
func (g *Runtime) guarded(file *policy.Policy, read time.Time, guards []policy.GuardState) *running {
	g.ledger.recorder.Watch(file)
	return &running{file.Guarded(guards, g.ledger.recorder.Graced), file, read}
}

// followGuards has the policy follow its guards.
func (g *Runtime) followGuards(ctx context.Context) {
	for pause(ctx, guardEvery) {
		g.checkGuards(ctx)
	}
}

// checkGuards puts the policy in force as its guards have it. Where the ledger is away,
// or the policy is replaced meanwhile, all stays as it is.
func (g *Runtime) checkGuards(ctx context.Context) {
	g.guardLock.Lock()
	defer g.guardLock.Unlock()
	asked := g.policy.Load().file
	guards, err := g.ledger.recorder.Exchange(ctx)
	g.policyLock.Lock()
	defer g.policyLock.Unlock()
	was := g.policy.Load()
	if err != nil || was.file != asked {
		return
	}
	if slices.Equal(guards, was.Guards()) {
		return
	}
	now := g.guarded(was.file, was.read, guards)
	g.policy.Store(now)
	changed := false
	for i, s := range now.Guards() {
		switch before := was.Guards()[i].Tripped; {
		case s.Tripped.Equal(before):
			continue
		case s.Tripped.IsZero():
			g.log.Info("guard released", "rule", s.Rule)
		default:
			g.log.Warn("guard tripped", "rule", s.Rule, "clients", s.Seen, "within", s.Within, "then", s.Then, "since", s.Tripped)
		}
		changed = true
	}
	if changed {
		g.metrics.SetGuards(now.Policy)
		g.server.SetPolicy(now.Policy)
	}
}

// release lets a guard go. It counts nothing before a time, which is zero for now.
func (g *Runtime) release(ctx context.Context, rule string, until time.Time) error {
	var known []string
	for _, s := range g.policy.Load().Guards() {
		known = append(known, s.Rule)
	}
	now := g.now()
	switch {
	case !slices.Contains(known, rule):
		return fmt.Errorf("no guard %q: the policy has %s", rule, cmp.Or(strings.Join(known, ", "), "none"))
	case until.IsZero():
		until = now
	case until.Before(now):
		return fmt.Errorf("until %s: that is over", until.Format(time.RFC3339))
	}
	if err := g.ledger.store.Release(ctx, rule, until); err != nil {
		return err
	}
	g.log.Info("guard let go", "rule", rule, "until", until)
	g.checkGuards(ctx)
	return nil
}
