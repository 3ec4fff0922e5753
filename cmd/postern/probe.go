package main

import (
	"context"
	"flag"
	"fmt"
	"slices"
	"strings"
	"time"

	"postern/internal/probe"
	"postern/internal/text"
	"postern/policy"
)

// maxTargets is the most that is read of a file, in bytes.
const maxTargets = 1 << 20

// probeServers finds out what TLS servers take.
func probeServers(ctx context.Context, sys system) error {
	var o probe.Options
	fs := flag.NewFlagSet("probe", flag.ContinueOnError)
	define(fs, "floor", "tls1.2", "exit code 1 says that something below this `floor` is taken: tls1.2-compat, tls1.2, tls1.2-aead, tls1.3 or tls1.3-pq", into(&o.Floor, policy.ParseFloor))
	fs.StringVar(&o.StartTLS, "starttls", "", "how TLS begins on ports other than 993, 995, 143 and 110: behind `imap` STARTTLS or pop3 STLS (default at once)")
	var more []string
	define(fs, "targets", "", "more targets in this `file`, one a line", into(&more, targetsIn))
	define(fs, "timeout", "20s", "a `duration` for one listener; each connection may take a quarter of it, 10s at most", into(&o.Timeout, readDuration))
	fs.BoolVar(&o.Injection, "injection", false, "also send a NOOP in one piece with STARTTLS or STLS, and see whether it is obeyed inside TLS; for servers of your own")
	asJSON := fs.Bool("json", false, "write JSON")
	var targets []string
	err := sys.parse(fs)
	for ; err == nil && fs.NArg() > 0; err = sys.parse(fs) { // flags may come after a target
		targets = append(targets, fs.Arg(0))
		sys.args = fs.Args()[1:]
	}
	if err != nil {
		return err
	}
	targets = append(targets, more...)
	switch {
	case len(targets) == 0:
		return flagError{reason: "whom? Write postern probe HOST or HOST:PORT"}
	case !slices.Contains([]string{"", "imap", "pop3"}, o.StartTLS):
		return flagError{"starttls", fmt.Sprintf("%q: use imap or pop3", o.StartTLS)}
	case o.Timeout < time.Second:
		return flagError{"timeout", "use a second at least, as in 20s"}
	}
	all, err := probe.Listeners(ctx, targets, o)
	if err != nil {
		return flagError{reason: err.Error()}
	}
	progress := sys.progress()
	tell := func(done int) {
		if len(all) > 1 {
			progress.say("%d of %d listeners", done, len(all))
		}
	}
	tell(0)
	probe.Run(ctx, all, o, tell)
	progress.clear()
	return sys.concludeProbe(all, o.Floor, *asJSON)
}

// targetsIn reads a file of targets; a comment begins with #.
func targetsIn(file string) (targets []string, err error) {
	b, err := text.ReadFile(file, maxTargets)
	switch {
	case err != nil:
		return nil, text.FileError(file, err)
	case len(b) > maxTargets:
		return nil, fmt.Errorf("%s: longer than 1 MB: split it", file)
	}
	for i, line := range strings.Split(string(b), "\n") {
		line, _, _ = strings.Cut(line, "#")
		for _, target := range strings.Fields(line) {
			if _, _, err := probe.ParseTarget(target); err != nil {
				return nil, fmt.Errorf("%s:%d: %w", file, i+1, err)
			}
			targets = append(targets, target)
		}
	}
	return targets, nil
}

// concludeProbe prints what was found; the error is the exit code.
func (sys system) concludeProbe(all []*probe.Listener, floor policy.Floor, asJSON bool) (err error) {
	if asJSON {
		err = text.WriteJSON(sys.stdout, map[string]any{"floor": floor, "listeners": all})
	} else {
		err = probe.Write(sys.stdout, text.ColorOK(sys.stdout), all, floor)
	}
	switch {
	case err != nil:
		return fmt.Errorf("writing: %w", err)
	case slices.ContainsFunc(all, func(l *probe.Listener) bool { return l.Below(floor) }):
		return exitError{code: exitNo}
	case !slices.ContainsFunc(all, func(l *probe.Listener) bool { return l.Error == "" }),
		slices.ContainsFunc(all, func(l *probe.Listener) bool { return l.Incomplete }):
		return exitError{code: exitBroken}
	}
	return nil
}
