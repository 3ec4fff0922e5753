package main

import (
	"context"
	"flag"
	"strings"
	"time"

	"postern/internal/config"
	"postern/internal/gate"
)

func serve(ctx context.Context, sys system) error {
	fs := flag.NewFlagSet("serve", flag.ContinueOnError)
	if err := sys.parse(fs, serveHelp()); err != nil {
		return err
	}
	cfg, err := config.Load(sys.environ)
	if err != nil {
		return namedError{err}
	}
	g, err := gate.New(cfg, buildInfo(), sys.stderr, time.Now)
	if err != nil {
		return namedError{err}
	}
	if g.Run(ctx, sys.stop, sys.reload) != nil {
		return exitError{code: exitBroken} // the log has said why
	}
	return nil
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
