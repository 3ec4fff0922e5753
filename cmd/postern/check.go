package main

import (
	"context"
	"flag"
	"fmt"
	"slices"

	"postern/internal/check"
)

// checkConfig checks the configuration of serve and reports all problems.
func checkConfig(ctx context.Context, sys system) error {
	fs := flag.NewFlagSet("check", flag.ContinueOnError)
	offline := fs.Bool("offline", false, "dial nothing")
	if err := sys.parse(fs, checkHelp); err != nil {
		return err
	}
	r := check.Run(ctx, sys.environ, *offline)
	for _, line := range slices.Concat(r.Errors, r.Unanswered) {
		sys.errorf("error: %s", line)
	}
	for _, line := range r.Warnings {
		fmt.Fprintf(sys.stdout, "warning: %s\n", line)
	}
	for _, line := range r.Fine {
		fmt.Fprintf(sys.stdout, "ok: %s\n", line)
	}
	switch {
	case len(r.Errors) > 0:
		return exitError{code: exitUsage}
	case len(r.Unanswered) > 0:
		return exitError{code: exitNo}
	}
	return nil
}

const checkHelp = `postern check reads the same environment as postern serve, and reports every
problem and warning at once: variables, certificates and keys, ports, and what
the upstreams answer. Problems go to stderr, the rest to stdout. Exit code 0:
nothing, or warnings alone; 1: an upstream does not answer; 2: the configuration
is wrong.

`
