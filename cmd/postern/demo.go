package main

import (
	"context"
	"flag"
	"slices"

	"postern/internal/demo"
	"postern/policy"
)

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
