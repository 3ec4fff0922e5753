package main

import (
	"context"
	"flag"
	"fmt"
	"log/slog"
	"slices"

	"postern/internal/check"
	"postern/internal/config"
	"postern/internal/text"
)

// checkConfig checks the configuration of serve and reports all problems.
func checkConfig(ctx context.Context, sys system) error {
	fs := flag.NewFlagSet("check", flag.ContinueOnError)
	var src source
	src.flags(fs)
	offline := fs.Bool("offline", false, "dial nothing")
	reload := fs.Bool("reload", false, "check the files that a reload reads, and nothing else")
	asJSON := fs.Bool("json", false, "write JSON")
	bare := !sys.has("")
	mainPID := sys.getenv("MAINPID") // systemd tells commands of a unit its main process
	if err := sys.configure(fs, &src); err != nil {
		return err
	}
	var r *check.Report
	if *reload {
		r = check.Reload(sys.environ, mainPID)
	} else {
		r = check.Run(ctx, sys.environ, *offline, runningReport)
		r.Errors = slices.Concat(r.Errors, r.Invalid)
	}
	r.Warnings = slices.Concat(sys.envFile.Warnings, r.Warnings)
	if bare && src.env == "" {
		r.Errors = append(r.Errors, noVariable+"; postern plan -policy FILE reads a policy alone")
	}
	if err := sys.writeFindings(r, *asJSON); err != nil {
		return fmt.Errorf("writing: %w", err)
	}
	switch {
	case len(r.Errors) > 0:
		return exitError{code: exitUsage}
	case len(r.Unanswered) > 0:
		return exitError{code: exitNo}
	}
	return nil
}

// runningReport returns what /readyz says on the admin port, if a Postern answers there.
func runningReport(ctx context.Context, cfg *config.Config) string {
	_, report, _ := askReadiness(ctx, cfg) // whatever else answers is no Postern
	return report
}

// writeFindings prints problems to stderr and the rest to stdout; JSON goes to
// stdout as a whole.
func (sys system) writeFindings(r *check.Report, asJSON bool) error {
	for _, list := range []*[]string{&r.Errors, &r.Unanswered, &r.Warnings, &r.Fine, &r.Notes} {
		*list = text.Each(*list, sys.envFile.Place) // never null
	}
	if asJSON {
		return text.WriteJSON(sys.stdout, r)
	}
	for _, line := range slices.Concat(r.Errors, r.Unanswered) {
		sys.errorf("error: %s", line)
	}
	for _, line := range r.Warnings {
		printLine(sys.stdout, slog.LevelWarn, "warning: "+line)
	}
	for _, line := range r.Fine {
		printLine(sys.stdout, slog.LevelInfo, "ok: "+line)
	}
	for _, line := range r.Notes {
		printLine(sys.stdout, slog.LevelInfo, "note: "+line)
	}
	return nil
}
