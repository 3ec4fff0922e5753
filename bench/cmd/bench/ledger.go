package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"postern/bench/internal/certs"
	"postern/bench/internal/ledger"
	"postern/bench/internal/report"
	"postern/bench/internal/subject"
)

// ledgerOptions are what the command line of "bench ledger" says.
type ledgerOptions struct {
	ledger.Options
	ledgers           []ledger.Ledger
	old               string
	source, oldSource string
	json, md          string
	docs, findings    string
}

func parseLedger(args []string) (o ledgerOptions, err error) {
	fs := flag.NewFlagSet("bench ledger", flag.ExitOnError)
	fs.StringVar(&o.old, "old", "", "the older Postern `binary`, which everything is compared with")
	sqlite := fs.String("sqlite", "1000000", "clients of the ledgers in SQLite, comma-separated; empty: none")
	postgres := fs.String("postgres", "1000000,5000000", "clients of those in PostgreSQL, likewise")
	instances := fs.Int("instances", 3, "instances that share a ledger in PostgreSQL")
	fs.IntVar(&o.Rounds, "repeat", 3, "rounds")
	fs.DurationVar(&o.Idle, "idle", 3*time.Minute, "how long idle instances are watched")
	fs.DurationVar(&o.Span, "span", 30*time.Second, "how long logins come without reports, and with them")
	fs.StringVar(&o.Dir, "dir", "", "scratch directory, with room for three ledgers at 1 KB a client (default: a temporary one)")
	fs.StringVar(&o.Profile, "profile", "", "directory for CPU profiles of the newer binary, one for each question")
	fs.StringVar(&o.source, "source", "", "source of the newer binary, whose benchmarks of recording and writing are run")
	fs.StringVar(&o.oldSource, "old-source", "", "source of the older binary, likewise")
	fs.StringVar(&o.json, "json", "", "where the raw figures go, besides")
	fs.StringVar(&o.md, "md", "", "where the tables go (default: stdout)")
	fs.StringVar(&o.docs, "docs", "", "where performance-ledger.json goes, and performance.md, which has its tables, is made again")
	fs.StringVar(&o.findings, "findings", "findings.md", "prose that stands in performance.md word for word")
	fs.Parse(args)
	if o.docs != "" && o.Profile != "" {
		return o, errors.New("-docs without -profile: profiles cost time")
	}
	if fs.NArg() > 0 {
		return o, fmt.Errorf("unknown: %s", strings.Join(fs.Args(), " "))
	}
	if o.Rounds < 1 || *instances < 1 {
		return o, errors.New("-repeat and -instances begin at 1")
	}
	for _, kind := range []struct {
		list     string
		postgres bool
		each     int
	}{{*sqlite, false, 1}, {*postgres, true, *instances}} {
		for f := range strings.FieldsFuncSeq(kind.list, func(r rune) bool { return r == ',' }) {
			n, err := strconv.Atoi(f)
			if err != nil || n < 100 || n > 100_000_000 {
				return o, fmt.Errorf("%q is no number of clients from 100 to 100,000,000", f)
			}
			o.ledgers = append(o.ledgers, ledger.Ledger{Postgres: kind.postgres, Rows: n, Instances: kind.each})
		}
	}
	if o.old == "" {
		return o, errors.New("-old is missing: the older binary of Postern to compare with")
	}
	if o.old, err = filepath.Abs(o.old); err != nil {
		return o, err
	}
	o.New, o.Old = subject.Postern, subject.OldPostern(o.old)
	for _, s := range []*subject.Subject{o.New, o.Old} {
		if why := s.Missing(); why != "" {
			return o, fmt.Errorf("%s: %s: %s", s.Name, s.Bin(), why)
		}
	}
	return o, nil
}

// benchLedger measures with large ledgers and writes what came out, also where it
// ended early.
func benchLedger(ctx context.Context, args []string) error {
	o, err := parseLedger(args)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp(o.Dir, "postern-bench-ledger-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	// PostgreSQL is not root.
	if err := os.Chmod(dir, 0o755); err != nil {
		return err
	}
	o.Dir = dir
	if o.Cert, _, err = certs.Make(dir); err != nil {
		return err
	}
	ports, stop, err := startStub()
	if err != nil {
		return err
	}
	defer stop()
	o.Stub = ports
	begun := time.Now()
	o.Log = func(format string, args ...any) {
		fmt.Fprintf(os.Stderr, "[%v] %s\n", time.Since(begun).Round(time.Second), fmt.Sprintf(format, args...))
	}
	run := &report.Run{Started: begun.UTC().Format("2006-01-02 15:04 MST"), Rounds: o.Rounds, Machine: machine()}
	for _, s := range []*subject.Subject{o.New, o.Old} {
		run.Subjects = append(run.Subjects, report.Subject{Name: s.Name, Version: s.Version(), Size: s.Size()})
	}
	err = o.measure(ctx, run)
	run.Took = time.Since(begun).Round(time.Second).String()
	run.Machine = append(run.Machine, report.Fact{Name: "load after", Value: load()})
	return errors.Join(err, o.write(run, err == nil))
}

// measure goes through the ledgers. One that fails does not keep the others from
// being measured.
func (o *ledgerOptions) measure(ctx context.Context, run *report.Run) error {
	var errs []error
	if o.source != "" {
		records, err := ledger.Costs(ctx, &o.Options, o.source, o.oldSource)
		run.Records = append(run.Records, records...)
		errs = append(errs, err)
	}
	for _, l := range o.ledgers {
		if ctx.Err() != nil {
			break
		}
		records, err := ledger.Measure(ctx, &o.Options, l)
		run.Records = append(run.Records, records...)
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", l.Name(), err))
		}
	}
	return errors.Join(append(errs, ctx.Err())...)
}

func (o *ledgerOptions) write(run *report.Run, complete bool) error {
	var errs []error
	if o.docs != "" && complete {
		errs = append(errs, run.WriteFile(filepath.Join(o.docs, ledgerFile)), render(options{docs: o.docs, findings: o.findings}))
	}
	if o.json != "" {
		errs = append(errs, run.WriteFile(o.json))
	}
	if o.md == "" {
		fmt.Print(run.Ledger())
	} else {
		errs = append(errs, os.WriteFile(o.md, []byte(run.Ledger()), 0o644))
	}
	return errors.Join(errs...)
}
