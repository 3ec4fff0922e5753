package proxy

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"time"

	"postern/internal/mailproto"
	"postern/internal/netpoll"
)

// upstreamConn is a connection to an upstream, until its end.
type upstreamConn struct {
	raw *netpoll.Conn
	// tls is nil where the line is plain.
	tls   *tls.Conn
	up    *upstream
	lines *mailproto.LineReader // until login
	once  sync.Once
}

// Read reads from inside TLS, where there is any.
func (c *upstreamConn) Read(p []byte) (int, error) {
	if c.tls != nil {
		return c.tls.Read(p)
	}
	return c.raw.Read(p)
}

func (c *upstreamConn) Write(p []byte) (int, error) {
	if c.tls != nil {
		return c.tls.Write(p)
	}
	return c.raw.Write(p)
}

// CloseWrite tells the upstream that nothing more comes.
func (c *upstreamConn) CloseWrite() error {
	if c.tls != nil {
		c.tls.CloseWrite()
	}
	return c.raw.CloseWrite()
}

// Close may be called more than once.
func (c *upstreamConn) Close() error {
	c.once.Do(func() {
		c.up.connections.Add(-1)
		if c.tls != nil {
			c.raw.ShortenDeadline(lingerTime)
			c.tls.CloseWrite()
		}
	})
	return c.raw.Close()
}

func (c *upstreamConn) startPolling(writeTimeout time.Duration, resume func()) error {
	c.lines = nil
	netpoll.KeepAlive(c.raw.Socket, netpoll.AddrPort(c.raw.RemoteAddr()).Addr())
	var read func([]byte) (int, error)
	if c.tls != nil {
		read = c.tls.Read
	}
	return c.raw.Start(read, writeTimeout, resume)
}

// greeting is an upstream's first line, as it came and as a client may see it.
type greeting struct{ line, shown []byte }

// upstreamError is a failed attempt, with its name.
type upstreamError struct {
	reason UpstreamFailure
	err    error
}

func (e *upstreamError) Error() string { return e.err.Error() }
func (e *upstreamError) Unwrap() error { return e.err }

// dial connects to an upstream, secures the line as configured and reads its
// greeting; two durations bound the connection and all of it. The header, if
// any, goes first.
func (srv *Server) dial(up *upstream, d dialect, header []byte, dialWithin, within time.Duration) (*upstreamConn, greeting, error) {
	c, stop, err := srv.reach(up, dialWithin, within)
	if err != nil {
		return nil, greeting{}, err
	}
	defer stop()
	c.lines = mailproto.NewLineReader(c.raw)
	g, err := srv.converse(c, d, header)
	if err != nil {
		c.Close()
		return nil, g, err
	}
	c.raw.SetDeadline(time.Time{})
	srv.upstreamUp(up, true)
	return c, g, nil
}

// reach opens a connection to an upstream. The deadline of c is within from
// now, or the end of the server, until stop is called.
func (srv *Server) reach(up *upstream, dialWithin, within time.Duration) (c *upstreamConn, stop func() bool, err error) {
	begun := time.Now()
	dialer := net.Dialer{Deadline: begun.Add(dialWithin), KeepAlive: -1}
	nc, err := dialer.DialContext(srv.ctx, "tcp", up.Addr)
	if err != nil {
		return nil, nil, &upstreamError{dialFailure(err, UpstreamDial), fmt.Errorf("dialing upstream: %w", err)}
	}
	up.connections.Add(1)
	c = &upstreamConn{raw: &netpoll.Conn{Socket: nc.(*net.TCPConn), IdleSet: srv.idleSet}, up: up}
	c.raw.SetDeadline(begun.Add(within))
	return c, context.AfterFunc(srv.ctx, func() { c.raw.SetDeadline(past) }), nil
}

// converse is the dialogue with an upstream from the first byte to a greeting.
func (srv *Server) converse(c *upstreamConn, d dialect, header []byte) (g greeting, err error) {
	if len(header) > 0 {
		if _, err := c.raw.Write(header); err != nil {
			return g, &upstreamError{dialFailure(err, UpstreamClosed), fmt.Errorf("sending the PROXY header: %w", err)}
		}
	}
	if c.up.TLS == LineTLS {
		if err := srv.secure(c); err != nil {
			return g, err
		}
	}
	if g, err = readGreeting(c, d); err != nil || c.up.TLS != LineStartTLS {
		return g, err
	}
	// What was said so far was said to anybody, and counts for nothing.
	if err := d.requestTLS(c.lines, c.raw); err != nil {
		return greeting{}, &upstreamError{dialFailure(err, UpstreamStartTLS), fmt.Errorf("asking the upstream for TLS: %w", err)}
	}
	if len(c.lines.Buffered()) > 0 || c.raw.Pending() {
		return greeting{}, &upstreamError{UpstreamStartTLS, errInjectedReply}
	}
	if err := srv.secure(c); err != nil {
		return greeting{}, err
	}
	if g, err = d.greetAgain(c); err != nil {
		return greeting{}, &upstreamError{dialFailure(err, UpstreamGreeting), fmt.Errorf("asking the upstream inside TLS: %w", err)}
	}
	return g, nil
}

var (
	errNoStartTLS    = errors.New("it refuses, or does not know the command")
	errInjectedReply = errors.New("the upstream sent data behind its OK to STARTTLS")
)

// secure does TLS with an upstream; its certificate is always verified.
func (srv *Server) secure(c *upstreamConn) error {
	tc := tls.Client(c.raw, srv.upstreamConfig(c.up))
	if err := tc.Handshake(); err != nil {
		return &upstreamError{dialFailure(err, UpstreamTLS), fmt.Errorf("TLS with the upstream: %w", err)}
	}
	c.tls = tc
	c.lines = mailproto.NewLineReader(tc)
	return nil
}

func readGreeting(c *upstreamConn, d dialect) (greeting, error) {
	line, err := c.lines.Line()
	if err != nil {
		return greeting{}, &upstreamError{dialFailure(err, UpstreamClosed), fmt.Errorf("reading the upstream's greeting: %w", err)}
	}
	g := greeting{line: slices.Clone(line)}
	shown, failure := d.judgeGreeting(g.line)
	if g.shown = shown; failure != "" {
		if c.up.TLS == LineStartTLS {
			g.shown = nil // before TLS anybody may have said it
		}
		return g, &upstreamError{failure, fmt.Errorf("upstream greets with %.80q", g.line)}
	}
	return g, nil
}

func dialFailure(err error, otherwise UpstreamFailure) UpstreamFailure {
	var nerr net.Error
	switch {
	case errors.As(err, &nerr) && nerr.Timeout():
		return UpstreamTimeout
	case err == mailproto.ErrLineTooLong:
		return UpstreamGreeting
	}
	return otherwise
}

// reasonOf names a failed attempt.
func reasonOf(err error) UpstreamFailure {
	var uerr *upstreamError
	if errors.As(err, &uerr) {
		return uerr.reason
	}
	return UpstreamDial
}
