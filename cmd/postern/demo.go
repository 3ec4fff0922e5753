package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"

	"postern/internal/config"
	"postern/internal/demo"
	"postern/internal/policyfile"
)

func runDemo(ctx context.Context, sys system) int {
	o := demo.Options{Build: buildInfo()}
	fs := flag.NewFlagSet("demo", flag.ContinueOnError)
	fs.BoolVar(&o.Once, "once", false, "leave after the table")
	fs.StringVar(&o.Mode, "mode", "", "what meets old clients everywhere: enforce, explain or observe; otherwise imaps and pop3s enforce, imap and pop3 observe")
	fs.StringVar(&o.Floor, "floor", "tls1.2", "the floor: tls1.2-compat, tls1.2, tls1.2-aead or tls1.3")
	if code, done := sys.parse(fs, demoHelp); done {
		return code
	}
	right, err := demo.Run(ctx, o, sys.stdout, sys.stop)
	switch {
	case errors.As(err, new(config.Problems)), errors.As(err, new(policyfile.Problems)):
		sys.errorf("postern demo: %v", err)
		return exitUsage
	case err != nil:
		sys.errorf("postern demo: %v", err)
		return exitBroken
	case !right:
		return exitNo
	}
	return exitOK
}

func demoHelp(w io.Writer) {
	fmt.Fprint(w, `postern demo shows the whole thing on loopback, with nothing to set up: an
embedded IMAP and POP3 server with a few messages, a throw-away certificate, a
policy, and one client of every TLS generation on every listener. It prints
what each of them met, and what log and counter said of it, and ends with the
report on who is left. It stays up until Ctrl-C. The exit code is 0 only where every row is what the policy says.

`)
}
