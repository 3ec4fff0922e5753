package proxy

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// UpstreamConfig names one mail server.
type UpstreamConfig struct {
	// Name is its URL, as label and in logs.
	Name string
	// Addr is its host:port.
	Addr string
}

// upstream is one mail server: the least busy of those that answer is taken.
type upstream struct {
	UpstreamConfig
	open atomic.Int64
	// down says that the last attempt failed; the prober, woken by it, brings
	// the upstream back.
	down atomic.Bool
	wake chan struct{}
}

// upstreamConn is a connection to an upstream, until its end.
type upstreamConn struct {
	tcpConn
	up    *upstream
	lines *lineReader // until login
	p     poller      // from then on
	once  sync.Once
}

// Close may be called more than once.
func (c *upstreamConn) Close() error {
	c.once.Do(func() { c.up.open.Add(-1) })
	return c.tcpConn.Close()
}

func (c *upstreamConn) startPolling() error {
	c.lines = nil
	return c.p.start(c.tcpConn, nil)
}

func (c *upstreamConn) poll() *poller { return &c.p }

// greeting is an upstream's first line, as it came and as a client may see it.
type greeting struct{ line, shown []byte }

// upstreamError is a failed attempt, with its name.
type upstreamError struct {
	reason UpstreamFailure
	err    error
}

func (e *upstreamError) Error() string { return e.err.Error() }
func (e *upstreamError) Unwrap() error { return e.err }

// connect finds an upstream that greets; the others are tried in turn. Where
// all fail it returns the last error, and the greeting of one that said
// goodbye, if that was the last.
func (s *session) connect() (g greeting, err error) {
	begun := time.Now()
	for _, up := range s.srv.candidates(s.Listener.Protocol()) {
		var c *upstreamConn
		if c, g, err = s.srv.dial(up, s.dialect); err == nil {
			s.upstream = c
			s.srv.cfg.Meter.UpstreamConnected(s.Listener, time.Since(begun))
			return g, nil
		}
		if s.srv.isDraining() {
			return greeting{}, errDraining
		}
		s.srv.upstreamFailed(up, err)
	}
	return g, err
}

// candidates lists the upstreams of a protocol: those that answer first, and
// of these the least busy one.
func (srv *Server) candidates(p Protocol) []*upstream {
	list := slices.Clone(srv.upstreams[p])
	slices.SortStableFunc(list, func(a, b *upstream) int {
		if ad, bd := a.down.Load(), b.down.Load(); ad != bd {
			if ad {
				return 1
			}
			return -1
		}
		return int(a.open.Load() - b.open.Load())
	})
	return list
}

// dial connects to an upstream and reads its greeting, within UPSTREAM_TIMEOUT
// for both.
func (srv *Server) dial(up *upstream, d dialect) (*upstreamConn, greeting, error) {
	deadline := time.Now().Add(srv.cfg.UpstreamTimeout)
	dialer := net.Dialer{Deadline: deadline}
	nc, err := dialer.DialContext(srv.ctx, "tcp", up.Addr)
	if err != nil {
		return nil, greeting{}, &upstreamError{dialFailure(err, UpstreamDial), fmt.Errorf("dialing upstream: %w", err)}
	}
	c := &upstreamConn{tcpConn: nc.(*net.TCPConn), up: up}
	up.open.Add(1)
	stop := context.AfterFunc(srv.ctx, func() { c.SetDeadline(past) })
	defer stop()
	c.SetDeadline(deadline)
	c.lines = &lineReader{src: c.tcpConn}
	line, err := c.lines.line()
	if err != nil {
		c.Close()
		return nil, greeting{}, &upstreamError{dialFailure(err, UpstreamClosed), fmt.Errorf("reading the upstream's greeting: %w", err)}
	}
	g := greeting{line: slices.Clone(line)}
	shown, failure := d.greeting(g.line)
	if g.shown = shown; failure != "" {
		c.Close()
		return nil, g, &upstreamError{failure, fmt.Errorf("upstream greets with %.80q", g.line)}
	}
	c.SetDeadline(time.Time{})
	srv.upstreamUp(up, true)
	return c, g, nil
}

func dialFailure(err error, otherwise UpstreamFailure) UpstreamFailure {
	var nerr net.Error
	switch {
	case errors.As(err, &nerr) && nerr.Timeout():
		return UpstreamTimeout
	case err == errLineTooLong:
		return UpstreamGreeting
	}
	return otherwise
}

// upstreamFailed counts a failed attempt and takes the upstream out.
func (srv *Server) upstreamFailed(up *upstream, err error) {
	reason := UpstreamDial
	var uerr *upstreamError
	if errors.As(err, &uerr) {
		reason = uerr.reason
	}
	srv.cfg.Meter.UpstreamFailed(up.Name, reason)
	if !up.down.Load() {
		srv.cfg.Log.Warn("upstream failed", "upstream", up.Name, "reason", string(reason), "error", err.Error())
	}
	srv.upstreamUp(up, false)
}

// upstreamFailed counts a failure of the upstream that serves the session.
func (s *session) upstreamFailed(reason UpstreamFailure, err error) {
	s.srv.cfg.Meter.UpstreamFailed(s.upstream.up.Name, reason)
	s.srv.cfg.Log.Info("upstream failed before login", "upstream", s.upstream.up.Name,
		"reason", string(reason), "error", err.Error(), "conn_id", s.ID)
}

// upstreamUp notes whether an upstream answers.
func (srv *Server) upstreamUp(up *upstream, answers bool) {
	wasDown := up.down.Swap(!answers)
	if answers {
		if wasDown {
			srv.cfg.Log.Info("upstream answers", "upstream", up.Name)
		}
	} else {
		select {
		case up.wake <- struct{}{}:
		default:
		}
	}
	srv.cfg.Meter.UpstreamUp(up.Name, answers)
}

const (
	probeFirst = 200 * time.Millisecond
	probeLast  = 15 * time.Second
)

// probe asks an upstream for its greeting, at the start and whenever it has
// failed, until it answers.
func (srv *Server) probe(up *upstream, d dialect) {
	for {
		for wait := probeFirst; ; wait = min(2*wait, probeLast) {
			c, _, err := srv.dial(up, d)
			if err == nil {
				c.Close()
				break
			}
			if srv.ctx.Err() != nil {
				return
			}
			srv.upstreamFailed(up, err)
			select {
			case <-time.After(wait):
			case <-srv.ctx.Done():
				return
			}
		}
		for again := true; again; again = !up.down.Load() {
			select {
			case <-up.wake:
			case <-srv.ctx.Done():
				return
			}
		}
	}
}
