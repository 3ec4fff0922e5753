package proxy

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"math"
	"net"
	"slices"
	"sync/atomic"
	"time"

	"postern/internal/text"
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

// upstream is one mail server. Of those that answer, the one with the least
// connections is taken.
type upstream struct {
	UpstreamConfig
	config      atomic.Pointer[tls.Config] // of the line, where there is TLS
	connections atomic.Int64
	// down says that the last attempt failed. Setting it wakes the prober, which brings
	// the upstream back.
	down atomic.Bool
	wake chan struct{}
	// served is when it was last seen to serve, since the start of the server; 0 before.
	served atomic.Int64
	// passedFrom is the listener whose clients are passed through, of an old server.
	passedFrom Listener
	// answered is kept for an old server: it has answered a client that was passed
	// through to it.
	answered atomic.Bool
	// logged is the fault that was last written to the log.
	logged atomic.Pointer[string]
}

// dialTimeoutWithOthers is how long a TCP connection may take while there is another
// upstream to try: a host that drops packets must not hold up a login.
const dialTimeoutWithOthers = 2 * time.Second

// connect tries the upstreams in turn, but for the one that was just lost, until one
// greets. Where all fail it returns the last error, and the greeting with which the
// last one refused, if it did.
func (s *session) connect(lost *upstream) (g greeting, err error) {
	begun := time.Now()
	header, err := s.outgoingHeader()
	if err != nil {
		return greeting{}, err
	}
	list := slices.DeleteFunc(s.srv.candidates(s.Listener.Protocol()), func(up *upstream) bool { return up == lost })
	for i, up := range list {
		within := min(s.srv.cfg.UpstreamTimeout, time.Until(s.loginDeadline()))
		dialWithin := within
		if i+1 < len(list) && !list[i+1].down.Load() {
			dialWithin = min(within, dialTimeoutWithOthers)
		}
		if g, err = s.connectTo(up, header, dialWithin, within); err == nil {
			s.srv.cfg.Metrics.UpstreamConnected(s.Listener, time.Since(begun))
			return g, nil
		}
		if s.srv.isDraining() {
			return greeting{}, errDraining
		}
		if op, ok := errors.AsType[*net.OpError](err); (header != nil || s.srv.cfg.UpstreamClientID) && !(ok && op.Op == "dial") {
			s.srv.refusedClient(up, err, s.ID)
			continue
		}
		s.srv.upstreamFailed(up, err)
	}
	return g, err
}

// connectTo connects to one upstream, secures the line as configured, reads its greeting and
// tells it of the client; two durations bound the connection and all of it. The header,
// if any, goes first. An upstream that refuses to be told is used all the same.
func (s *session) connectTo(up *upstream, header []byte, dialWithin, within time.Duration) (greeting, error) {
	c, stop, err := s.srv.reach(up, dialWithin, within)
	if err != nil {
		return greeting{}, err
	}
	defer stop()
	g, err := s.srv.converse(c, s.dialect, header)
	if err == nil && s.srv.cfg.UpstreamClientID {
		var reply string
		if reply, err = s.dialect.identify(c, s.Client, s.destination); err == nil {
			s.srv.cfg.Log.Debug("upstream answers an ID", "upstream", up.Name, "reply", text.Cut(reply, 80), "conn_id", s.ID)
		} else {
			g = greeting{} // nothing was refused
		}
	}
	if err != nil {
		c.Close()
		return g, up.advise(err, len(header) > 0)
	}
	c.raw.SetDeadline(time.Time{})
	s.upstream = c
	return g, nil
}

// candidates lists the upstreams of a protocol: those that answer first, and among
// these the one with the least connections.
func (srv *Server) candidates(p Protocol) []*upstream {
	list := slices.Clone(srv.upstreams[p])
	load := func(up *upstream) int64 {
		if up.down.Load() {
			return math.MaxInt64/2 + up.connections.Load()
		}
		return up.connections.Load()
	}
	slices.SortStableFunc(list, func(a, b *upstream) int { return cmp.Compare(load(a), load(b)) })
	return list
}

// upstreamFailed counts a failed attempt and takes the upstream out.
func (srv *Server) upstreamFailed(up *upstream, err error) {
	srv.reportFailure(up, err)
	if !up.down.Swap(true) {
		up.probeSoon()
	}
	srv.cfg.Metrics.UpstreamUp(up.Name, err)
}

// reportFailure counts a failed attempt. The log has a line when a failure begins, and
// when it becomes another one.
func (srv *Server) reportFailure(up *upstream, err error) {
	reason := reasonOf(err)
	srv.cfg.Metrics.UpstreamFailed(up.Name, reason)
	fault := string(reason)
	if reason == UpstreamStartTLS {
		fault = err.Error()
	}
	if last := up.logged.Swap(&fault); !up.down.Load() || last == nil || *last != fault {
		srv.cfg.Log.Warn("upstream failed", "upstream", up.Name, "reason", string(reason), "error", err.Error())
	}
}

// refusedClient counts an upstream's failure to greet a client whose address it knows, or
// to answer its hello: that may be meant for this client alone, which may be banned, or
// have a name that takes long to look up. The prober finds out.
func (srv *Server) refusedClient(up *upstream, err error, conn uint64) {
	srv.cfg.Metrics.UpstreamFailed(up.Name, reasonOf(err))
	srv.cfg.Log.Debug("upstream refuses a client", "upstream", up.Name, "reason", string(reasonOf(err)), "error", err.Error(), "conn_id", conn)
	up.probeSoon()
}

// probeSoon wakes the prober.
func (up *upstream) probeSoon() {
	select {
	case up.wake <- struct{}{}:
	default:
	}
}

// upstreamServes notes that an upstream has answered the prober, or accepted a login. A
// greeting alone says little.
func (srv *Server) upstreamServes(up *upstream) {
	up.served.Store(int64(time.Since(srv.started)))
	if up.down.Swap(false) {
		srv.cfg.Log.Info("upstream answers", "upstream", up.Name)
	}
	srv.cfg.Metrics.UpstreamUp(up.Name, nil)
}

const (
	probeFirst = 200 * time.Millisecond
	probeLast  = 15 * time.Second
	// probePause follows an answer, however often the prober is woken.
	probePause = time.Second
	// probeEvery is how long an upstream is believed to serve that nobody logs in to.
	probeEvery = 30 * time.Second
)

// probe asks an upstream at the start, whenever there is a doubt about it, and every so
// often where no login shows that it serves; until it answers at growing intervals.
func (srv *Server) probe(up *upstream, d dialect, every time.Duration) {
	for wait := probeFirst; ; {
		select {
		case <-up.wake: // for the doubts so far
		default:
		}
		_, err := srv.ask(up, d, false, func() { srv.cfg.Metrics.UpstreamGreeted(up.Name) })
		if srv.ctx.Err() != nil {
			return
		}
		pause := probePause
		if err != nil {
			srv.upstreamFailed(up, err)
			pause, wait = wait, min(2*wait, probeLast)
		} else {
			srv.upstreamServes(up)
			wait = probeFirst
		}
		if !sleep(srv.ctx, pause) || err == nil && !srv.untilDoubt(up, every) {
			return
		}
	}
}

// untilDoubt waits until an upstream is to be asked again; it returns false where the
// server has ended first.
func (srv *Server) untilDoubt(up *upstream, every time.Duration) bool {
	for {
		left := time.Duration(up.served.Load()) + every - time.Since(srv.started)
		if left <= 0 {
			return true
		}
		select {
		case <-up.wake:
			return true
		case <-time.After(left):
		case <-srv.ctx.Done():
			return false
		}
	}
}

// sleep waits for d; it returns false where ctx has ended first.
func sleep(ctx context.Context, d time.Duration) bool {
	select {
	case <-time.After(d):
		return true
	case <-ctx.Done():
		return false
	}
}
