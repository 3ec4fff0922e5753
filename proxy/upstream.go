package proxy

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// LineSecurity is how the line to an upstream is secured.
type LineSecurity uint8

const (
	LinePlain    LineSecurity = iota // for loopback or the same pod
	LineTLS                          // implicit TLS (RFC 8314, Section 3)
	LineStartTLS                     // STARTTLS or STLS
)

// UpstreamConfig names one mail server.
type UpstreamConfig struct {
	// Name is its URL, as label and in logs.
	Name string
	// Addr is its host:port; names are resolved at each connection.
	Addr string
	TLS  LineSecurity
	// ServerName is sent as SNI and verified, where there is TLS.
	ServerName string
}

// upstream is one mail server: the least busy of those that answer is taken.
type upstream struct {
	UpstreamConfig
	open atomic.Int64
	// down says that the last attempt failed; the prober, woken by it, brings
	// the upstream back.
	down atomic.Bool
	wake chan struct{}
	// answered is kept for one that clients are passed through to: it has
	// answered one of them.
	answered atomic.Bool
	// told is the fault that the log has told of last.
	told atomic.Pointer[string]
}

// pollConn is a TCP connection whose Read asks the poller once that is on: it
// is what crypto/tls is given on the upstream's side.
type pollConn struct {
	tcpConn
	poll poller
}

func (c *pollConn) Read(p []byte) (int, error) {
	if c.poll.active {
		return c.poll.readNow(p)
	}
	return c.tcpConn.Read(p)
}

func (c *pollConn) Write(p []byte) (int, error) {
	if c.poll.active {
		return c.poll.write(p)
	}
	return c.tcpConn.Write(p)
}

// Close closes; a direction that is parked goes on, to find that.
func (c *pollConn) Close() error {
	err := c.tcpConn.Close()
	c.poll.stay()
	return err
}

// upstreamConn is a connection to an upstream, until its end.
type upstreamConn struct {
	raw *pollConn
	// tls is nil where the line is plain.
	tls   *tls.Conn
	up    *upstream
	lines *lineReader // until login
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
		c.up.open.Add(-1)
		if c.tls != nil {
			c.raw.poll.hurry(lingerTime)
			c.raw.SetWriteDeadline(time.Now().Add(lingerTime))
			c.tls.CloseWrite()
		}
	})
	return c.raw.Close()
}

func (c *upstreamConn) startPolling(patience time.Duration, resume func()) error {
	c.lines = nil
	keepAlive(c.raw.tcpConn, addrPort(c.raw.RemoteAddr()).Addr())
	var read func([]byte) (int, error)
	if c.tls != nil {
		read = c.tls.Read
	}
	return c.raw.poll.start(c.raw.tcpConn, read, patience, resume)
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

// impatience is how long a TCP connection may take while there is another
// upstream to try: a host that drops packets must not hold up a login.
const impatience = 2 * time.Second

// connect finds an upstream that greets, and is not the one that was just lost;
// the others are tried in turn. Where all fail it returns the last error, and
// the greeting of one that said goodbye, if that was the last.
func (s *session) connect(lost *upstream) (g greeting, err error) {
	begun := time.Now()
	header, err := s.outgoingHeader()
	if err != nil {
		return greeting{}, err
	}
	list := slices.DeleteFunc(s.srv.candidates(s.Listener.Protocol()), func(up *upstream) bool { return up == lost })
	for i, up := range list {
		within := min(s.srv.cfg.UpstreamTimeout, time.Until(s.Accepted.Add(s.srv.cfg.TimeoutLogin)))
		dialWithin := within
		if i+1 < len(list) && !list[i+1].down.Load() {
			dialWithin = min(within, impatience)
		}
		if g, err = s.connectTo(up, header, dialWithin, within); err == nil {
			s.srv.cfg.Metrics.UpstreamConnected(s.Listener, time.Since(begun))
			return g, nil
		}
		if s.srv.isDraining() {
			return greeting{}, errDraining
		}
		if header != nil || s.srv.cfg.UpstreamClientID {
			if reasonOf(err) == UpstreamRefused {
				s.srv.refusedClient(up, s.ID)
				continue
			}
		}
		s.srv.upstreamFailed(up, err)
	}
	return g, err
}

// connectTo connects to one upstream and tells it of the client.
func (s *session) connectTo(up *upstream, header []byte, dialWithin, within time.Duration) (greeting, error) {
	c, g, err := s.srv.dial(up, s.dialect, header, dialWithin, within)
	if err != nil {
		return g, err
	}
	s.upstream = c
	if s.srv.cfg.UpstreamClientID {
		if err := s.dialect.identify(s); err != nil {
			c.Close()
			return greeting{}, err
		}
	}
	return g, nil
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

// dial connects to an upstream, secures the line as configured and reads its
// greeting; two durations bound the connection and all of it. The header, if
// any, goes first.
func (srv *Server) dial(up *upstream, d dialect, header []byte, dialWithin, within time.Duration) (*upstreamConn, greeting, error) {
	c, stop, err := srv.reach(up, dialWithin, within)
	if err != nil {
		return nil, greeting{}, err
	}
	defer stop()
	c.lines = &lineReader{src: c.raw}
	g, err := srv.converse(c, d, header)
	if err != nil {
		c.Close()
		return nil, g, err
	}
	c.raw.SetDeadline(time.Time{})
	srv.upstreamUp(up, true)
	return c, g, nil
}

// reach opens a connection to an upstream. Its deadline is within, or the end of
// the server, until stop is called.
func (srv *Server) reach(up *upstream, dialWithin, within time.Duration) (c *upstreamConn, stop func() bool, err error) {
	begun := time.Now()
	dialer := net.Dialer{Deadline: begun.Add(dialWithin), KeepAlive: -1}
	nc, err := dialer.DialContext(srv.ctx, "tcp", up.Addr)
	if err != nil {
		return nil, nil, &upstreamError{dialFailure(err, UpstreamDial), fmt.Errorf("dialing upstream: %w", err)}
	}
	up.open.Add(1)
	c = &upstreamConn{raw: &pollConn{tcpConn: nc.(*net.TCPConn), poll: poller{lot: srv.lot}}, up: up}
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
	if len(c.lines.buffered()) > 0 || pendingBytes(c.raw.tcpConn) {
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
	c.lines = &lineReader{src: tc}
	return nil
}

func readGreeting(c *upstreamConn, d dialect) (greeting, error) {
	line, err := c.lines.line()
	if err != nil {
		return greeting{}, &upstreamError{dialFailure(err, UpstreamClosed), fmt.Errorf("reading the upstream's greeting: %w", err)}
	}
	g := greeting{line: slices.Clone(line)}
	shown, failure := d.greeting(g.line)
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
	case err == errLineTooLong:
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

// upstreamFailed counts a failed attempt and takes the upstream out.
func (srv *Server) upstreamFailed(up *upstream, err error) {
	srv.tellFailure(up, err)
	srv.upstreamUp(up, false)
}

// tellFailure counts a failed attempt. The log tells a failure when it begins,
// and when it becomes another one.
func (srv *Server) tellFailure(up *upstream, err error) {
	reason := reasonOf(err)
	srv.cfg.Metrics.UpstreamFailed(up.Name, reason)
	fault := string(reason)
	if reason == UpstreamStartTLS {
		fault = err.Error()
	}
	if told := up.told.Swap(&fault); !up.down.Load() || told == nil || *told != fault {
		srv.cfg.Log.Warn("upstream failed", "upstream", up.Name, "reason", string(reason), "error", err.Error())
	}
}

// refusedClient counts an upstream's goodbye to a client that it knows by
// address: that may be meant for this one alone. The prober finds out.
func (srv *Server) refusedClient(up *upstream, conn uint64) {
	srv.cfg.Metrics.UpstreamFailed(up.Name, UpstreamRefused)
	srv.cfg.Log.Debug("upstream refuses a client", "upstream", up.Name, "conn_id", conn)
	up.probeSoon()
}

// probeSoon wakes the prober.
func (up *upstream) probeSoon() {
	select {
	case up.wake <- struct{}{}:
	default:
	}
}

// upstreamFailed counts a failure of the upstream that serves the session.
func (s *session) upstreamFailed(reason UpstreamFailure, err error) {
	s.srv.cfg.Metrics.UpstreamFailed(s.upstream.up.Name, reason)
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
		up.probeSoon()
	}
	srv.cfg.Metrics.UpstreamUp(up.Name, answers)
}

const (
	probeFirst = 200 * time.Millisecond
	probeLast  = 15 * time.Second
	// probePause follows an answer, however often the prober is woken.
	probePause = time.Second
)

// probe asks an upstream for its greeting, at the start and whenever there is
// a doubt about it, until it answers.
func (srv *Server) probe(up *upstream, d dialect) {
	header, err := localHeader(srv.cfg.UpstreamProxyProtocol)
	if err != nil {
		srv.cfg.Log.Error("making the PROXY header failed", "error", err.Error())
	}
	for {
		for wait := probeFirst; ; wait = min(2*wait, probeLast) {
			c, _, err := srv.dial(up, d, header, srv.cfg.UpstreamTimeout, srv.cfg.UpstreamTimeout)
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
		select {
		case <-up.wake: // for the failures just now
		default:
		}
		select {
		case <-time.After(probePause):
		case <-srv.ctx.Done():
			return
		}
		select {
		case <-up.wake:
		case <-srv.ctx.Done():
			return
		}
	}
}
