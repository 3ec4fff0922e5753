package main

import (
	"context"
	"flag"
	"fmt"
	"slices"
	"time"

	"postern/internal/config"
	"postern/internal/gate"
	"postern/internal/ledger"
	"postern/internal/policyfile"
	"postern/internal/report"
	"postern/policy"
)

// replayFlags are the values of the flags.
type replayFlags struct {
	report.Trial
	since  time.Duration
	format report.Format
	from   string
}

// replayPolicy prints which known clients another policy refuses.
func replayPolicy(ctx context.Context, sys system) error {
	var f replayFlags
	var src source
	fs := flag.NewFlagSet("replay", flag.ContinueOnError)
	define(fs, "policy", "", "the policy in this `file`; needed", into(&f.PolicyFile, readText))
	define(fs, "at", "", "what it does at this `time` (default after its last dated change, or now)", into(&f.At, readTime))
	define(fs, "since", "30d", "clients that were seen in this `time`, such as 36h or 30d, or since a date", into(&f.since, sys.readSince))
	define(fs, "by", "", "put together by `account`, domain, network, program or software (default account where\n"+
		"there are any, else network: an address, or an IPv6 /64)", into(&f.By, report.ParseBy))
	define(fs, "format", "text", "`text`, json or csv", into(&f.format, report.ParseFormat))
	fs.BoolVar(&f.Noise, "noise", false, "ask about noise too")
	define(fs, "from", "", "ask the instance with its admin port at this `URL`", into(&f.from, readText))
	src.envFlag(fs)
	if err := sys.configure(fs, &src); err != nil {
		return err
	}
	sys.warnOfEnv()
	return f.run(ctx, sys)
}

func (f *replayFlags) run(ctx context.Context, sys system) error {
	switch {
	case f.PolicyFile == "":
		return flagError{"policy", "the name of the file is missing: write -policy FILE"}
	case !slices.Contains([]report.Format{report.Text, report.JSON, report.CSV}, f.format):
		return flagError{"format", fmt.Sprintf("%q: use text, json or csv", f.format)}
	}
	now := sys.clock()
	f.Now, f.Since = now, now.Add(-f.since).Truncate(time.Second)
	cfg, running, err := sys.instance(f.from)
	if err != nil {
		return err
	}
	if f.Policy, err = policyfile.Load(f.PolicyFile); err != nil {
		return exitError{err, exitUsage}
	}
	if f.At.IsZero() {
		f.At = report.LastDate(f.Policy, now)
	}
	p := sys.progress()
	store, err := f.remember(ctx, cfg, running, p)
	if store != nil {
		defer store.Close()
	}
	if err != nil {
		return err
	}
	if now.Sub(f.Since) > cfg.LedgerRetention+time.Second {
		f.Notes = []string{report.Forgets(cfg.LedgerRetention)}
	}
	err = report.Judge(ctx, &behind{sys.stdout, p.clear}, f.Trial, f.format)
	p.clear()
	return err
}

// remember asks the running proxy or, if none runs, its store, which is to be
// closed.
func (f *replayFlags) remember(ctx context.Context, cfg *config.Config, running *instance, p *progress) (*ledger.Store, error) {
	clients, err := running.clients(ctx, f.Since, "", f.Noise, p)
	var now struct {
		Floor      policy.Floor
		Candidates []policy.Candidate
	}
	if err == nil && running.get(ctx, "/api/v1/policy", nil, &now) == nil && f.Above(now.Floor, now.Candidates) != nil {
		var above []ledger.Client
		above, err = running.clients(ctx, f.Since, f.Above(now.Floor, now.Candidates).Name, f.Noise, p)
		clients = append(clients, above...)
	}
	if err == nil {
		f.Hellos, err = running.Hellos(ctx)
	}
	if f.Source, f.Unwritten = report.SourceOf(clients), running.unwritten; err == nil || f.from != "" || !notRunning(err) {
		return nil, err
	}
	store, err := openForReading(ctx, cfg)
	if err != nil {
		return nil, err
	}
	f.Source, f.Dir, f.Progress = store.Scan, gate.ScratchDir(cfg), p.share
	if now, err := policyfile.Of(cfg); err == nil {
		if c := f.Above(now.Floor(), now.Candidates()); c != nil {
			f.Source = func(ctx context.Context, scope ledger.Scope, each func([]ledger.Client) error) error {
				scope.With = store.Candidate(c.Floor)
				return store.Scan(ctx, scope, each)
			}
		}
	}
	f.Hellos, err = store.Hellos(ctx)
	return store, err
}
