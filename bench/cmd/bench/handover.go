package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"postern/bench/internal/handover"
	"postern/bench/internal/subject"
)

// benchHandover replaces Postern under load. It fails where a client has met anything
// but what it came for.
func benchHandover(ctx context.Context, args []string) error {
	var o handover.Options
	fs := flag.NewFlagSet("bench handover", flag.ExitOnError)
	next := fs.String("next", "", "a `binary` of another version, which takes turns with $POSTERN_BIN")
	ways := fs.String("ways", "hand", "how Postern runs, comma-separated: hand, systemd (the service), sockets (with the socket units), restart (SIGTERM and a start in the place of each handover: for comparison, fails nothing)")
	fs.StringVar(&o.Repo, "repo", "..", "checkout whose deploy/systemd is run")
	fs.IntVar(&o.Sessions, "sessions", 2000, "sessions that stay, on all listeners")
	fs.IntVar(&o.PerSecond, "logins", 50, "logins a second, on all listeners")
	fs.IntVar(&o.Replacements, "replacements", 20, "how often the binary is replaced")
	fs.DurationVar(&o.Rest, "rest", 2*time.Second, "how long the old process keeps its sessions, until their clients leave")
	figures := fs.String("json", "", "where the raw figures go, besides")
	fs.Parse(args)
	if fs.NArg() > 0 {
		return fmt.Errorf("unknown: %s", strings.Join(fs.Args(), " "))
	}
	if _, err := raiseFiles(200000); err != nil {
		return err
	}
	o.Binaries = [2]string{subject.Postern.Bin(), *next}
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
	var results []*handover.Result
	var errs []error
	for way := range strings.SplitSeq(*ways, ",") {
		r, err := oneWay(ctx, o, way)
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", way, err))
			continue
		}
		results = append(results, r)
		if way != handover.Restart && len(r.Problems) > 0 {
			errs = append(errs, fmt.Errorf("%s:\n%s", way, strings.Join(r.Problems, "\n")))
		}
	}
	fmt.Print(handover.Table(results))
	if *figures != "" {
		b, err := json.MarshalIndent(results, "", "\t")
		errs = append(errs, err, os.WriteFile(*figures, append(b, '\n'), 0o644))
	}
	return errors.Join(errs...)
}

func oneWay(ctx context.Context, o handover.Options, way string) (*handover.Result, error) {
	if !slices.Contains(handover.Ways, way) {
		return nil, fmt.Errorf("none of %s", strings.Join(handover.Ways, ", "))
	}
	var err error
	if o.Dir, err = os.MkdirTemp("", "postern-bench-handover-"); err != nil {
		return nil, err
	}
	defer os.RemoveAll(o.Dir)
	o.Way = way
	return handover.Run(ctx, o)
}
