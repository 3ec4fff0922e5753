package gate

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"time"

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
