package main

import (
	"context"
	"flag"
	"fmt"
	"time"

	"postern/internal/config"
	"postern/internal/gate"
	"postern/internal/ledger"
	"postern/internal/policyfile"
	"postern/internal/report"
)

// replayFlags are the values of the flags, as they were written.
type replayFlags struct {
	policy, at, since, by, format, from string
	noise                               bool
}

// replayPolicy prints which known clients another policy refuses.
func replayPolicy(ctx context.Context, sys system) error {
	var f replayFlags
	var src source
	fs := flag.NewFlagSet("replay", flag.ContinueOnError)
	fs.StringVar(&f.policy, "policy", "", "the policy in this `file`; needed")
	fs.StringVar(&f.at, "at", "", "what it does at this `time` (default after its last dated change, or now)")
	fs.StringVar(&f.since, "since", "30d", "clients that were seen in this `time`, such as 36h or 30d, or since a date")
	fs.StringVar(&f.by, "by", "", "put together by `account`, domain, network, program or software (default account where\n"+
		"there are any, else network: an address, or an IPv6 /64)")
	fs.StringVar(&f.format, "format", "text", "text, json or csv")
	fs.BoolVar(&f.noise, "noise", false, "ask about noise too")
	fs.StringVar(&f.from, "from", "", "ask the instance with its admin port at this `URL`")
	src.envFlag(fs)
	if err := sys.configure(fs, &src); err != nil {
		return err
	}
	sys.warnOfEnv()
	return f.run(ctx, sys)
}

func (f *replayFlags) run(ctx context.Context, sys system) error {
	now := sys.clock()
	t, err := f.trial(now)
	if err != nil {
		return err
	}
	cfg, err := config.LoadLedger(sys.environ)
	if err != nil {
		return err
	}
	if t.Policy, err = policyfile.Load(f.policy); err != nil {
		return exitError{err, exitUsage}
	}
	if f.at == "" {
		t.At = report.LastDate(t.Policy, now)
	}
	p := sys.progress()
	store, err := f.remember(ctx, cfg, t, p)
	if store != nil {
		defer store.Close()
	}
	if err != nil {
		return err
	}
	if now.Sub(t.Since) > cfg.LedgerRetention+time.Second {
		t.Notes = []string{report.Forgets(cfg.LedgerRetention)}
	}
	err = report.Judge(ctx, &behind{sys.stdout, p.clear}, *t, report.Format(f.format))
	p.clear()
	return err
}

// trial reads the flags.
func (f *replayFlags) trial(now time.Time) (*report.Trial, error) {
	t := &report.Trial{PolicyFile: f.policy, Noise: f.noise}
	if f.policy == "" {
		return nil, flagError{"policy", "the name of the file is missing: write -policy FILE"}
	}
	since, err := report.ParseSince(f.since, now)
	if err != nil {
		return nil, flagError{"since", err.Error()}
	}
	t.Since = now.Add(-since).Truncate(time.Second)
	if t.By, err = report.ParseBy(f.by); err != nil {
		return nil, flagError{"by", err.Error()}
	}
	if f.format != "text" && f.format != "json" && f.format != "csv" {
		return nil, flagError{"format", fmt.Sprintf("%q: use text, json or csv", f.format)}
	}
	if f.at != "" {
		if t.At, err = flagTime("at", f.at); err != nil {
			return nil, err
		}
	}
	return t, nil
}

// remember asks the running proxy or, if none runs, its store, which is to be
// closed.
func (f *replayFlags) remember(ctx context.Context, cfg *config.Config, t *report.Trial, p *progress) (*ledger.Store, error) {
	running, err := findInstance(cfg, f.from)
	if err != nil {
		return nil, err
	}
	clients, err := running.clients(ctx, t.Since, f.noise, p)
	if err == nil {
		t.Hellos, err = running.Hellos(ctx)
	}
	if t.Source, t.Unwritten = report.SourceOf(clients), running.unwritten; err == nil || f.from != "" || !notRunning(err) {
		return nil, err
	}
	store, err := openForReading(ctx, cfg)
	if err != nil {
		return nil, err
	}
	t.Source, t.Dir, t.Progress = store.Scan, gate.ScratchDir(cfg), p.share
	t.Hellos, err = store.Hellos(ctx)
	return store, err
}
