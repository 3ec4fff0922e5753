package check

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"postern/internal/config"
	"postern/internal/hello"
)

// passthrough asks the servers that old clients are passed through to.
func (r *Report) passthrough(ctx context.Context, cfg *config.Config) {
	old := cfg.Passthrough()
	failures := make([]error, len(old))
	var wg sync.WaitGroup
	for i, p := range old {
		wg.Go(func() { failures[i] = answersTLS(ctx, p.Addr, proxyHeaders[cfg.UpstreamProxyProtocol], timeout(cfg)) })
	}
	wg.Wait()
	for i, p := range old {
		name := p.Variable + ": " + p.Addr
		if err := failures[i]; err != nil {
			r.Unanswered = append(r.Unanswered, name+": "+err.Error())
		} else {
			r.Fine = append(r.Fine, name+": answers in TLS")
		}
	}
}

// answersTLS sends a hello, and takes any answer in TLS for one: an alert, too,
// since no hello suits every old server.
func answersTLS(ctx context.Context, addr, header string, within time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "tcp", addr)
	if err != nil {
		return fmt.Errorf("dialing: %w", err)
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	if _, err := io.WriteString(conn, header+string(hello.ClientHello(hello.Typical(tls.VersionTLS12)))); err != nil {
		return fmt.Errorf("sending a hello: %w", err)
	}
	answer, err := hello.ReadAnswer(conn)
	switch {
	case err != nil && ctx.Err() != nil:
		return fmt.Errorf("no answer in %v: %w", within, ctx.Err())
	case err != nil:
		return err
	case answer.Kind == hello.Closed:
		return fmt.Errorf("it hangs up on a hello")
	case answer.Kind == hello.Text:
		return fmt.Errorf("not a port for TLS: it says %s", quoted(answer.Text))
	}
	return nil
}
