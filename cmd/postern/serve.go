package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"time"

	"postern/internal/config"
	"postern/internal/policyfile"
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
	g, err := newGate(cfg, sys.stderr, time.Now)
	if err != nil {
		sys.errorf("%v", err)
		return exitUsage
	}
	for _, w := range cfg.Warnings() {
		g.log.Warn("configuration warning", "warning", w)
	}
	if w := policyfile.MemoryWarning(cfg, g.policy.Load().Policy, g.now()); w != "" {
		g.log.Warn("configuration warning", "warning", w)
	}
	g.warnOfPolicy()
	g.start()
	return g.wait(ctx, sys)
}

// wait serves until a signal or until the admin port breaks; a second signal
// ends the drain at once.
func (g *gate) wait(ctx context.Context, sys system) int {
	code := exitOK
	for serving := true; serving; {
		select {
		case <-sys.reload:
			g.log.Info("reading files again")
			g.files.Trigger()
			g.policyFiles.Trigger()
			continue
		case sig := <-sys.stop:
			g.log.Info("stopping", "signal", sig.String(), "timeout", g.cfg.TimeoutDrain.String())
		case <-ctx.Done():
		case err := <-g.adminDone:
			g.log.Error("admin port failed", "error", err)
			code = exitBroken
		}
		serving = false
	}
	insist, cancel := context.WithCancel(context.Background())
	defer cancel()
	stopped := make(chan struct{})
	go func() {
		select {
		case <-sys.stop:
			cancel()
		case <-stopped:
		}
	}()
	g.stop(insist)
	close(stopped)
	return code
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
