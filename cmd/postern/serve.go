package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"time"

	"postern/internal/config"
	"postern/internal/gate"
)

func serve(ctx context.Context, sys system) int {
	fs := flag.NewFlagSet("serve", flag.ContinueOnError)
	if code, done := sys.parse(fs, serveHelp); done {
		return code
	}
	cfg, err := config.Load(sys.environ)
	if err != nil {
		sys.errorf("%v", err)
		return exitUsage
	}
	g, err := gate.New(cfg, buildInfo(), sys.stderr, time.Now)
	if err != nil {
		sys.errorf("%v", err)
		return exitUsage
	}
	if g.Run(ctx, sys.stop, sys.reload) != nil {
		return exitBroken // the log has said why
	}
	return exitOK
}

func serveHelp(w io.Writer) {
	fmt.Fprint(w, "postern serve runs the gate until SIGTERM or SIGINT; SIGHUP has it\n"+
		"read its files again, which it also does when they change. It takes no flags;\n"+
		"its environment:\n\n")
	config.Table(w)
	fmt.Fprint(w, "\nIn front of a Dovecot on the same host:\n\n"+
		"  POSTERN_UPSTREAM_IMAP=imap://127.0.0.1:10143 POSTERN_UPSTREAM_POP3=pop3://127.0.0.1:10110 \\\n"+
		"  POSTERN_TLS_CERT_FILE=/etc/ssl/mail.pem POSTERN_TLS_KEY_FILE=/etc/ssl/mail.key postern serve\n")
}
