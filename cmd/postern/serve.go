package main

import (
	"context"
	"flag"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"

	"postern/internal/check"
	"postern/internal/config"
	"postern/internal/demo"
	"postern/internal/gate"
	"postern/internal/handover"
	"postern/policy"
)

func serve(ctx context.Context, sys system) error {
	fs := flag.NewFlagSet("serve", flag.ContinueOnError)
	if err := sys.parse(fs); err != nil {
		return err
	}
	given, err := handover.Take()
	var cfg *config.Config
	if err == nil {
		sys.environ = given.Environ(sys.environ)
		cfg, err = config.Load(sys.environ)
	}
	var g *gate.Runtime
	if err == nil {
		g, err = gate.New(cfg, buildInfo(), given, sys.stderr, time.Now)
	}
	if err != nil {
		return sys.whole(ctx, err)
	}
	g.Reporter = "/proc/self/exe" // this program, also when its file is another by now
	if runtime.GOOS != "linux" {
		g.Reporter, _ = os.Executable()
	}
	if g.Run(ctx, sys.stop, sys.reload, sys.upgrade) != nil {
		return exitError{code: exitBroken} // the log has said why
	}
	return nil
}

// whole adds to what a start found first all the rest that check finds without a
// network.
func (sys system) whole(ctx context.Context, err error) error {
	lines := check.Run(ctx, sys.environ, true, nil).Errors
	about := func(line string) string {
		subject, _, _ := strings.Cut(line, ": ")
		return subject
	}
	known := len(lines)
	for line := range strings.SplitSeq(err.Error(), "\n") {
		if !slices.ContainsFunc(lines[:known], func(l string) bool { return about(l) == about(line) }) {
			lines = append(lines, line)
		}
	}
	if !sys.has("") {
		lines = append(lines, "no "+config.Prefix+" variable is set: postern demo shows Postern without any, "+
			"postern serve -h lists them, and postern check -env FILE tries a file of them; a shell hands on what it exports (set -a)")
	}
	return config.Problems(lines)
}

func runDemo(ctx context.Context, sys system) error {
	o := demo.Options{Build: buildInfo()}
	fs := flag.NewFlagSet("demo", flag.ContinueOnError)
	fs.BoolVar(&o.Once, "once", false, "leave after the table")
	var mode policy.Mode
	define(fs, "mode", "", "what meets old clients everywhere: `enforce`, explain or observe; otherwise imaps and pop3s enforce, imap and pop3 observe", into(&mode, policy.ParseMode))
	define(fs, "floor", "tls1.2", "the `floor`: tls1.2-compat, tls1.2, tls1.2-aead, tls1.3 or tls1.3-pq", into(&o.Floor, policy.ParseFloor))
	if err := sys.parse(fs); err != nil {
		return err
	}
	if slices.Contains(given(fs), "mode") {
		o.Mode = mode.String()
	}
	right, err := demo.Run(ctx, o, sys.stdout, sys.stop)
	if err == nil && !right {
		return exitError{code: exitNo}
	}
	return err
}
