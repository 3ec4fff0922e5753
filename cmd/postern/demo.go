package main

import (
	"context"
	"errors"
	"flag"
	"strings"

	"postern/internal/config"
	"postern/internal/demo"
	"postern/internal/policyfile"
)

func runDemo(ctx context.Context, sys system) error {
	o := demo.Options{Build: buildInfo()}
	fs := flag.NewFlagSet("demo", flag.ContinueOnError)
	fs.BoolVar(&o.Once, "once", false, "leave after the table")
	fs.StringVar(&o.Mode, "mode", "", "what meets old clients everywhere: enforce, explain or observe; otherwise imaps and pop3s enforce, imap and pop3 observe")
	fs.StringVar(&o.Floor, "floor", "tls1.2", "the floor: tls1.2-compat, tls1.2, tls1.2-aead or tls1.3")
	if err := sys.parse(fs, demoHelp); err != nil {
		return err
	}
	right, err := demo.Run(ctx, o, sys.stdout, sys.stop)
	switch {
	case errors.As(err, new(config.Problems)), errors.As(err, new(policyfile.Problems)):
		// Nothing but the flags can be wrong.
		return flagError{reason: strings.NewReplacer(config.Prefix+"POLICY_MODE", "-mode", config.Prefix+"POLICY_FLOOR", "-floor").Replace(err.Error())}
	case err == nil && !right:
		return exitError{code: exitNo}
	}
	return err
}

const demoHelp = `postern demo shows the whole thing on loopback, with nothing to set up: an
embedded IMAP and POP3 server with a few messages, a throw-away certificate, a
policy, and one client of every TLS generation on every listener. It prints
what each of them met, and what log and counter said of it, and ends with the
report on who is left. It stays up until Ctrl-C. The exit code is 0 only where every row is what the policy says.

`
