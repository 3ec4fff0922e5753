package gate

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"postern/internal/admin"
	"postern/internal/config"
	"postern/internal/policyfile"
	"postern/internal/text"
	"postern/policy"
)

// policyEvery is how often the policy file is checked. A change takes effect
// once two checks have seen the same, within two seconds.
const policyEvery = 500 * time.Millisecond

// running is the policy in force, what it is before any guard has tripped, and when that
// was read.
type running struct {
	*policy.Policy
	file *policy.Policy
	read time.Time
}

// reloadPolicy puts a changed file in force, or keeps the running policy and
// logs why.
func (g *Runtime) reloadPolicy() error {
	p, err := policyfile.Of(g.cfg)
	if err != nil {
		lines := strings.Split(err.Error(), "\n")
		g.metrics.PolicyReloadFailed()
		g.policyErrors.Store(&lines)
		g.log.Error("reloading the policy failed, the old one stays in force", "file", g.cfg.PolicyFile, "errors", lines)
		return err
	}
	g.policyErrors.Store(nil)
	guards := g.guardsOf(p)
	g.policyLock.Lock()
	now := g.guarded(p, g.now(), guards)
	g.metrics.SetPolicy(now.Policy)
	g.server.SetPolicy(now.Policy)
	g.policy.Store(now)
	g.policyLock.Unlock()
	g.ledger.recorder.Remember(p)
	g.ledger.wake() // to count the clients of candidates
	g.log.Info("policy reloaded", "file", g.cfg.PolicyFile, "floor", p.Floor().String(), "mode", p.Mode().String(), "rules", len(p.Rules()))
	g.warnOfPolicy()
	return nil
}

// warnOfPolicy logs the warnings of the policy, and of what goes with it.
func (g *Runtime) warnOfPolicy() {
	for _, s := range g.policy.Load().Guards() {
		if !s.Tripped.IsZero() {
			g.log.Warn("guard is still tripped", "rule", s.Rule, "then", s.Then, "since", s.Tripped, "release", fmt.Sprintf("postern guard -release %q", s.Rule))
		}
	}
	for _, w := range policyfile.Warnings(g.cfg, g.policy.Load().Policy, g.material.Certificates.Load(), g.now()) {
		g.log.Warn("configuration warning", "warning", w+afterRestart)
	}
	for _, w := range g.policy.Load().Warnings(g.now(), policyfile.Site(g.cfg, g.material.Certificates.Load())) {
		g.log.Warn("policy warning", "file", g.cfg.PolicyFile, "line", w.Line, "rule", w.Rule, "warning", w.Text)
	}
}

// clockEvery is how often followClock looks for rules that have begun or ended.
// It is for the log alone: handshakes follow the clock themselves.
const clockEvery = time.Second

// followClock logs the rules that begin and end by their dates.
func (g *Runtime) followClock(ctx context.Context) {
	followed := g.policy.Load()
	last := followed.At(g.now())
	for pause(ctx, clockEvery) {
		p, now := g.policy.Load(), g.now()
		if p == followed && last.Valid(now) {
			continue
		}
		snapshot := p.At(now)
		if p.file == followed.file {
			g.logChange(&last, &snapshot)
		}
		followed, last = p, snapshot
	}
}

// logChange logs which rules have begun and ended between two moments.
func (g *Runtime) logChange(before, after *policy.Snapshot) {
	begun, ended := after.Since(before)
	if len(begun)+len(ended) == 0 {
		return
	}
	modes := text.Each(g.cfg.Listeners(), func(l config.Listener) any { return slog.String(l.Name, after.ModeFor(l.Name).String()) })
	g.log.Info("rules change by their dates", "begun", begun, "ended", ended, slog.Group("modes", modes...))
}

// guardEvery is how often guards are read, where the policy has any: all gates of one ledger
// follow one within a second of the write of a refusal, which is due every three.
const guardEvery = time.Second

// guardsAtStart bounds the wait for them at the start, and guardsBefore that before
// another policy is put in force.
const (
	guardsAtStart = 5 * time.Second
	guardsBefore  = time.Second
)

// guarded is the policy of a file with its guards in some states.
func (g *Runtime) guarded(file *policy.Policy, read time.Time, guards []policy.GuardState) *running {
	return &running{file.Guarded(guards, g.ledger.recorder.Graced), file, read}
}

// guardsOf returns the guards of a policy that is to be put in force, and has it known whom
// its graces are for. Where the ledger takes long, or is asked just now, the guards are as
// they were last.
func (g *Runtime) guardsOf(file *policy.Policy) []policy.GuardState {
	if g.guardLock.TryLock() {
		defer g.guardLock.Unlock()
		ctx, cancel := context.WithTimeout(context.Background(), guardsBefore)
		defer cancel()
		guards, err := g.ledger.recorder.Guards(ctx, file)
		g.ledger.recorder.Graces(ctx, file)
		if err == nil {
			return guards
		}
	}
	return g.policy.Load().Guards()
}

// checkGuards puts the policy in force as its guards have it. Where the ledger is away,
// all stays as it is.
func (g *Runtime) checkGuards(ctx context.Context) {
	g.guardLock.Lock()
	defer g.guardLock.Unlock()
	guards, err := g.ledger.recorder.Guards(ctx, g.policy.Load().file)
	g.policyLock.Lock()
	defer g.policyLock.Unlock()
	was := g.policy.Load()
	now := g.guarded(was.file, was.read, guards)
	if err != nil || slices.Equal(now.Guards(), was.Guards()) {
		return
	}
	g.server.SetPolicy(now.Policy) // before anything says so
	g.policy.Store(now)
	for i, s := range now.Guards() {
		switch before := was.Guards()[i]; {
		case s.Tripped.IsZero() == before.Tripped.IsZero():
		case s.Tripped.IsZero():
			g.log.Info("guard released", "rule", s.Rule)
		default:
			g.log.Warn("guard tripped", "rule", s.Rule, "clients", s.Seen, "within", s.Within, "then", s.Then, "since", s.Tripped)
		}
	}
	g.metrics.SetGuards(now.Policy)
}

// release lets a guard go. It counts nothing before a time, which is now where that is
// left out.
func (g *Runtime) release(ctx context.Context, rule, until string) (r admin.Released, err error) {
	now, running := g.now().Truncate(time.Second), g.policy.Load()
	at, _, err := text.ParseTime(cmp.Or(until, now.Format(time.RFC3339)))
	if err != nil || at.Before(now) {
		return r, fmt.Errorf("until %q: that is over, or no time: write one such as 2026-07-01T10:30:00Z", until)
	}
	i := slices.IndexFunc(running.Guards(), func(s policy.GuardState) bool { return s.Rule == rule })
	if i < 0 {
		return r, fmt.Errorf("the policy has no guard of %q: postern guard lists them", rule)
	}
	if r = (admin.Released{GuardState: running.Guards()[i], Share: 1}); r.Tripped.IsZero() && until == "" {
		return r, fmt.Errorf("the guard of %q: %w", rule, admin.ErrNotTripped)
	}
	if err = g.ledger.store.Release(ctx, rule, at); err == nil {
		g.log.Info("guard let go", "rule", rule, "until", at)
		g.checkGuards(ctx)
	}
	if of := running.file.Rule(rule); of != nil {
		r.Share = of.ShareAt(now)
	}
	r.Seen, r.Tripped, r.Released = 0, time.Time{}, at
	return r, err
}
