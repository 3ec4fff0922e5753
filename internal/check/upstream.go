package check

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"postern/internal/config"
	"postern/internal/hello"
	"postern/internal/text"
)

// upstreamRoots verify upstreams: nil is the system's. If their file cannot be
// used, TLS to upstreams is not tried.
type upstreamRoots struct {
	pool     *x509.CertPool
	unusable bool
}

// PROXY headers of a connection of our own: LOCAL in version 2, UNKNOWN in
// version 1.
var proxyHeaders = map[string]string{
	"v1": "PROXY UNKNOWN\r\n",
	"v2": "\r\n\r\n\x00\r\nQUIT\n\x20\x00\x00\x00",
}

// server is an upstream or an old server to check.
type server struct {
	name, addr string
	// converse has one conversation with it after the PROXY header, without a
	// login.
	converse func(ctx context.Context, conn net.Conn) finding
	// problem is the reason not to check it.
	problem error
}

// finding is the result for a server: a failure, or a greeting and warnings.
type finding struct {
	err      error
	greeting string
	warnings []string
}

var errRoots = errors.New("not asked, since " + config.Prefix + "UPSTREAM_CA_FILE cannot be used")

// servers checks all upstreams and old servers at once, and reports in their
// order.
func (r *Report) servers(ctx context.Context, cfg *config.Config, roots upstreamRoots) {
	var list []server
	for _, u := range slices.Concat(cfg.UpstreamIMAP, cfg.UpstreamPOP3) {
		t := target{u, &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: roots.pool, ServerName: cfg.ServerName(u)}, cfg.UpstreamProxyProtocol == "v2"}
		s := server{name: u.String(), addr: u.Addr(), converse: t.converse}
		if u.Scheme.TLS != config.TLSNone && roots.unusable {
			s.problem = errRoots
		}
		list = append(list, s)
	}
	for _, p := range cfg.Passthrough() {
		list = append(list, server{name: p.Variable + ": " + p.Addr, addr: p.Addr, converse: answersTLS})
	}
	findings := make([]finding, len(list))
	var wg sync.WaitGroup
	for i, s := range list {
		// If UPSTREAM_TIMEOUT did not parse, its default counts.
		wg.Go(func() {
			findings[i] = s.ask(ctx, cmp.Or(cfg.UpstreamTimeout, 10*time.Second), proxyHeaders[cfg.UpstreamProxyProtocol])
		})
	}
	wg.Wait()
	for i, f := range findings {
		name := list[i].name + ": "
		if f.err != nil {
			r.Unanswered = append(r.Unanswered, name+f.err.Error())
			continue
		}
		for _, w := range f.warnings {
			r.Warnings = append(r.Warnings, name+w)
		}
		r.Fine = append(r.Fine, name+f.greeting)
	}
}

func (s server) ask(ctx context.Context, timeout time.Duration, header string) finding {
	if s.problem != nil {
		return finding{err: s.problem}
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "tcp", s.addr)
	if err != nil {
		return finding{err: fmt.Errorf("dialing: %w", err)}
	}
	defer conn.Close()
	// A conversation sets no deadlines: closing ends it.
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	if _, err := io.WriteString(conn, header); err != nil {
		return finding{err: fmt.Errorf("sending the PROXY header: %w", err)}
	}
	f := s.converse(ctx, conn)
	if f.err != nil && ctx.Err() != nil {
		f.err = fmt.Errorf("no answer in %v: %w", timeout, ctx.Err())
	}
	return f
}

// answersTLS sends a hello, and accepts any answer in TLS, even an alert: no
// hello suits every old server.
func answersTLS(_ context.Context, conn net.Conn) finding {
	if _, err := conn.Write(hello.ClientHello(hello.Typical(tls.VersionTLS12))); err != nil {
		return finding{err: fmt.Errorf("sending a hello: %w", err)}
	}
	switch answer, err := hello.ReadAnswer(conn); {
	case err != nil:
		return finding{err: err}
	case answer.Kind == hello.Closed:
		return finding{err: errors.New("it hangs up on a hello")}
	case answer.Kind == hello.Text:
		return finding{err: fmt.Errorf("not a port for TLS: it says %s", quoted(answer.Text))}
	}
	return finding{greeting: "answers in TLS"}
}

// target is one upstream and how to talk to it.
type target struct {
	config.Upstream
	tls     *tls.Config // verifies as the proxy itself does
	proxyV2 bool
}

func (t target) converse(ctx context.Context, conn net.Conn) finding {
	if t.Scheme.TLS == config.TLSImplicit {
		c := tls.Client(conn, t.tls)
		if err := c.HandshakeContext(ctx); err != nil {
			return finding{err: fmt.Errorf("beginning TLS: %w", err)}
		}
		conn = c
	}
	if t.Scheme.Protocol == "imap" {
		return t.imap(ctx, conn)
	}
	return t.pop3(ctx, conn)
}

// judge returns what to warn of, given the mechanisms to log in by.
func (t target) judge(mechanisms []string, loginRefused bool) (warnings []string) {
	var bound []string
	for _, m := range mechanisms {
		if strings.HasSuffix(strings.ToUpper(m), "-PLUS") {
			bound = append(bound, m)
		}
	}
	if len(bound) > 0 {
		warnings = append(warnings, strings.Join(bound, ", ")+" will not be offered to clients: channel binding cannot pass a proxy that terminates TLS")
	}
	if loginRefused && t.Scheme.TLS == config.TLSNone && !t.proxyV2 {
		warnings = append(warnings, "it refuses logins on a plain line, and does not know that clients are encrypted: set "+
			variable("UPSTREAM_PROXY_PROTOCOL")+"=v2 (Dovecot: haproxy = yes on its listener, and Postern in haproxy_trusted_networks), "+
			"or use "+t.Scheme.Protocol+"s:// or "+t.Scheme.Protocol+"+starttls://, or allow plain logins from Postern")
	}
	return warnings
}

// quoted makes an upstream's text short and harmless on a terminal.
func quoted(s string) string {
	const most = 120
	return text.Quote(strings.TrimRight(s, "\r\n"), most)
}
