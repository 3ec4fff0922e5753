package main

import (
	"context"
	"errors"
	"flag"
	"strings"

	"postern/internal/config"
	"postern/internal/demo"
	"postern/policy"
)

func runDemo(ctx context.Context, sys system) error {
	o := demo.Options{Build: buildInfo()}
	fs := flag.NewFlagSet("demo", flag.ContinueOnError)
	fs.BoolVar(&o.Once, "once", false, "leave after the table")
	fs.StringVar(&o.Mode, "mode", "", "what meets old clients everywhere: enforce, explain or observe; otherwise imaps and pop3s enforce, imap and pop3 observe")
	fs.StringVar(&o.Floor, "floor", "tls1.2", "the floor: tls1.2-compat, tls1.2, tls1.2-aead, tls1.3 or tls1.3-pq")
	if err := sys.parse(fs); err != nil {
		return err
	}
	if _, err := policy.ParseFloor(o.Floor); err != nil {
		return flagError{"floor", err.Error()}
	}
	right, err := demo.Run(ctx, o, sys.stdout, sys.stop)
	switch {
	case errors.As(err, new(config.Problems)):
		// Nothing but the flags can be wrong.
		return flagError{reason: strings.NewReplacer(config.Prefix+"POLICY_MODE", "-mode", config.Prefix+"POLICY_FLOOR", "-floor").Replace(err.Error())}
	case err == nil && !right:
		return exitError{code: exitNo}
	}
	return err
}
