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
	"postern/internal/text"
)

// upstreamRoots verify upstreams: nil is the system's. Where the file with them
// cannot be used, TLS to upstreams is not tried.
type upstreamRoots struct {
	pool     *x509.CertPool
	unusable bool
}

// PROXY headers of a connection that stands for nobody but the gate: LOCAL in
// version 2, UNKNOWN in version 1.
var proxyHeaders = map[string]string{
	"v1": "PROXY UNKNOWN\r\n",
	"v2": "\r\n\r\n\x00\r\nQUIT\n\x20\x00\x00\x00",
}

// target is one upstream and how to talk to it.
type target struct {
	config.Upstream
	timeout    time.Duration
	serverName string
	roots      upstreamRoots
	header     string
	proxyV2    bool
}

// finding is what an upstream has said: a failure, or what to warn of.
type finding struct {
	err      error
	warnings []string
	greeting string
}

// upstreams asks all of them at once, and reports in their order.
func (r *Report) upstreams(ctx context.Context, cfg *config.Config, roots upstreamRoots) {
	var targets []target
	for _, u := range slices.Concat(cfg.UpstreamIMAP, cfg.UpstreamPOP3) {
		targets = append(targets, target{
			Upstream: u, serverName: cfg.ServerName(u), roots: roots,
			timeout: timeout(cfg),
			header:  proxyHeaders[cfg.UpstreamProxyProtocol], proxyV2: cfg.UpstreamProxyProtocol == "v2",
		})
	}
	findings := make([]finding, len(targets))
	var wg sync.WaitGroup
	for i, t := range targets {
		wg.Go(func() { findings[i] = t.ask(ctx) })
	}
	wg.Wait()
	for i, f := range findings {
		name := targets[i].String()
		if f.err != nil {
			r.Unanswered = append(r.Unanswered, name+": "+f.err.Error())
			continue
		}
		for _, w := range f.warnings {
			r.Warnings = append(r.Warnings, name+": "+w)
		}
		r.Fine = append(r.Fine, name+": "+f.greeting)
	}
}

// timeout is UPSTREAM_TIMEOUT, or its default where it did not parse.
func timeout(cfg *config.Config) time.Duration { return cmp.Or(cfg.UpstreamTimeout, 10*time.Second) }

var errRoots = errors.New("not asked, since " + config.Prefix + "UPSTREAM_CA_FILE cannot be used")

// ask has one conversation with the upstream, and logs in nowhere.
func (t target) ask(ctx context.Context) finding {
	if t.Scheme.TLS != config.TLSNone && t.roots.unusable {
		return finding{err: errRoots}
	}
	ctx, cancel := context.WithTimeout(ctx, t.timeout)
	defer cancel()
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "tcp", t.Addr())
	if err != nil {
		return finding{err: fmt.Errorf("dialing: %w", err)}
	}
	defer conn.Close()
	// Closing is what ends it: who speaks over the connection sets deadlines.
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	f := t.converse(ctx, conn)
	if f.err != nil && ctx.Err() != nil {
		f.err = fmt.Errorf("no answer in %v: %w", t.timeout, ctx.Err())
	}
	return f
}

func (t target) converse(ctx context.Context, conn net.Conn) finding {
	if _, err := io.WriteString(conn, t.header); err != nil {
		return finding{err: fmt.Errorf("sending the PROXY header: %w", err)}
	}
	if t.Scheme.TLS == config.TLSImplicit {
		c := tls.Client(conn, t.tlsConfig())
		if err := c.HandshakeContext(ctx); err != nil {
			return finding{err: fmt.Errorf("beginning TLS: %w", err)}
		}
		conn = c
	}
	if t.Scheme.Protocol == "imap" {
		return t.imap(conn)
	}
	return t.pop3(ctx, conn)
}

// tlsConfig verifies as the gate itself does.
func (t target) tlsConfig() *tls.Config {
	return &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: t.roots.pool, ServerName: t.serverName}
}

// judge finds what mechanisms mean for clients of the gate.
func (t target) judge(mechanisms []string, loginRefused bool) (warnings []string) {
	var bound []string
	for _, m := range mechanisms {
		if strings.HasSuffix(strings.ToUpper(m), "-PLUS") {
			bound = append(bound, m)
		}
	}
	if len(bound) > 0 {
		warnings = append(warnings, strings.Join(bound, ", ")+" will not be offered to clients: channel binding cannot pass a gate that ends TLS")
	}
	if loginRefused && t.Scheme.TLS == config.TLSNone && !t.proxyV2 {
		warnings = append(warnings, "it refuses logins on a plain line, and does not know that clients are encrypted: set "+
			variable("UPSTREAM_PROXY_PROTOCOL")+"=v2 (Dovecot: haproxy = yes on its listener, and the gate in haproxy_trusted_networks), "+
			"or use "+t.Scheme.Protocol+"s:// or "+t.Scheme.Protocol+"+starttls://, or allow plain logins from the gate")
	}
	return warnings
}

// quoted keeps what an upstream says harmless on a terminal, and short.
func quoted(s string) string {
	const most = 120
	return text.Quote(strings.TrimRight(s, "\r\n"), most)
}
