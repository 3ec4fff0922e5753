package main

import (
	"context"
	"errors"
	"flag"
	"slices"
	"strings"
	"time"

	"postern/internal/check"
	"postern/internal/config"
	"postern/internal/gate"
)

func serve(ctx context.Context, sys system) error {
	fs := flag.NewFlagSet("serve", flag.ContinueOnError)
	if err := sys.parse(fs, serveHelp()); err != nil {
		return err
	}
	cfg, err := config.Load(sys.environ)
	var g *gate.Runtime
	if err == nil {
		g, err = gate.New(cfg, buildInfo(), sys.stderr, time.Now)
	}
	if err != nil {
		return sys.whole(ctx, err)
	}
	if g.Run(ctx, sys.stop, sys.reload) != nil {
		return exitError{code: exitBroken} // the log has said why
	}
	return nil
}

// whole adds to what a start found first all the rest that check finds without a
// network.
func (sys system) whole(ctx context.Context, err error) error {
	lines := check.Run(ctx, sys.environ, true).Errors
	about := func(line string) string {
		subject, _, _ := strings.Cut(line, ": ")
		return subject
	}
	known := len(lines)
	for _, line := range strings.Split(err.Error(), "\n") {
		if !slices.ContainsFunc(lines[:known], func(l string) bool { return about(l) == about(line) }) {
			lines = append(lines, line)
		}
	}
	if !sys.has("") {
		lines = append(lines, "no "+config.Prefix+" variable is set: postern demo shows Postern without any, "+
			"postern serve -h lists them, and postern check -env FILE tries a file of them")
	}
	return namedError{errors.New(strings.Join(lines, "\n"))}
}

func serveHelp() string {
	var b strings.Builder
	b.WriteString(`postern serve runs the proxy until SIGTERM or SIGINT; SIGHUP has it
read its files again, which it also does when they change. It takes no flags;
its environment:

`)
	config.Table(&b)
	b.WriteString(`
In front of a Dovecot on the same host:

  POSTERN_UPSTREAM_IMAP=imap://127.0.0.1:10143 POSTERN_UPSTREAM_POP3=pop3://127.0.0.1:10110 \
  POSTERN_TLS_CERT_FILE=/etc/ssl/mail.pem POSTERN_TLS_KEY_FILE=/etc/ssl/mail.key postern serve
`)
	return b.String()
}
