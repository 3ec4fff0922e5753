package proxy

import (
	"errors"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"postern/internal/mailproto"
	"postern/internal/netpoll"
)

// A tunnel is a connection after its login: two copies, in which bytes are bytes, and
// which hold no goroutine and no buffer while both sides are silent (see package
// netpoll). A connection that is passed through to the old server is a tunnel from the
// first record of the answer on, since nobody here sees when it logs in.
type tunnel struct {
	s *session
	// client is the client's side inside TLS, or its socket where TLS ends at the old
	// server. upstream is where to write to: the upstream, or a sniffer in front of it.
	client   io.ReadWriter
	upstream io.Writer
	// fromClient and fromUpstream were read before the tunnel began.
	fromClient, fromUpstream []byte

	// lastByte is when bytes last went through, in nanoseconds since Accepted;
	// writing counts copies that are held up by a receiver. Both tell an idle
	// tunnel from a busy one.
	lastByte atomic.Int64
	writing  atomic.Int32
	// awaitingReply: the last bytes went upstream.
	awaitingReply atomic.Bool
	state         atomic.Int32 // a tunnelState, which only grows

	mu     sync.Mutex
	reason CloseReason // of the direction that ended first
	ended  int         // directions
	idle   *time.Timer // ends a tunnel that has been silent for too long
}

type tunnelState = int32

const (
	tunnelOpen       tunnelState = iota
	tunnelHalfClosed             // one side has ended, the other has halfCloseTime left in silence
	tunnelClosing                // the server has chosen it to be closed at shutdown
)

const (
	// halfCloseTime is how long a tunnel may be silent once one side has closed:
	// the other may still have much to say, or may have gone without a word.
	halfCloseTime = 30 * time.Second
	// closeNotifyTime is how long sending close_notify may take.
	closeNotifyTime = 5 * time.Second
	// parkAfter is how long a tunnel is silent, at least, before its goroutines end.
	// They end at whole multiples of parkTogether, since waking many of them at once
	// is cheaper. A byte does not renew the deadline: it may take twice as long.
	parkAfter    = time.Second
	parkTogether = 250 * time.Millisecond
)

// newTunnel makes the tunnel of a session that has logged in, or, where TLS does not
// end here, that is passed through; login is nil then.
func newTunnel(s *session, login *Login, fromClient, fromUpstream []byte) *tunnel {
	t := &tunnel{s: s, client: s.tls, upstream: s.upstream, fromClient: fromClient, fromUpstream: fromUpstream}
	if t.passedThrough() {
		t.client = s.raw
	} else if s.identified() && s.Listener.Protocol() == ProtocolIMAP && login.Software == "" {
		t.upstream = &sniffingWriter{to: s.upstream, sniffer: mailproto.NewSniffer(), observer: s.srv.cfg.Observer, login: login}
	}
	return t
}

// passedThrough reports whether the client's TLS ends at the old server.
func (t *tunnel) passedThrough() bool { return t.s.tls == nil }

// start copies in both directions, first what was read ahead. It returns when the
// client's direction has ended or is parked.
func (t *tunnel) start() {
	fromClient, fromUpstream := t.fromClient, t.fromUpstream
	t.fromClient, t.fromUpstream = nil, nil
	t.startPolling()
	t.touch()
	t.mu.Lock()
	t.idle = time.AfterFunc(t.s.srv.cfg.TimeoutIdle, t.checkIdle)
	t.mu.Unlock()
	t.s.tunnel.Store(t)
	go t.run(ToClient, fromUpstream)
	t.run(ToUpstream, fromClient)
}

func (t *tunnel) startPolling() {
	s, up := t.s, t.s.upstream
	s.raw.SetDeadline(time.Time{})
	up.raw.SetDeadline(time.Time{})
	netpoll.KeepAlive(up.raw.Socket, netpoll.AddrPort(up.raw.RemoteAddr()).Addr())
	up.lines = nil
	s.raw.recordwise = !t.passedThrough()
	timeout := s.srv.cfg.TimeoutIdle
	up.raw.Start(up.Read, timeout, func() { go t.run(ToClient, nil) })
	s.raw.Start(t.client.Read, timeout, func() { go t.run(ToUpstream, nil) })
}

// run copies in one direction, until that has ended or parks. The one that ends
// last ends the session, for the reason of the first.
func (t *tunnel) run(d Direction, ahead []byte) {
	err := t.copy(d, ahead)
	switch {
	case err == errParked:
		return
	case d == ToClient:
		t.upstreamEnded(err)
	default:
		t.clientEnded(err)
	}
	t.mu.Lock()
	t.ended++
	last := t.ended == 2
	if last {
		t.idle.Stop()
	}
	t.mu.Unlock()
	if last {
		t.s.upstream.Close()
		t.s.end(t.reason)
	}
}

// endsFor notes why the tunnel ends, unless a reason is known already.
func (t *tunnel) endsFor(reason CloseReason) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.reason == "" {
		t.reason = reason
	}
}

// clientEnded ends the client's direction. When the client closes its side, the upstream
// is told, and may go on sending.
func (t *tunnel) clientEnded(err error) {
	upstream := t.s.upstream
	switch {
	case err == errWrite:
		t.endsFor(ReasonUpstream) // what it sent before it went is still delivered
	case endingOf(err) == endReset:
		t.endsFor(ReasonClient)
		t.abort()
		return
	default:
		t.endsFor(ReasonClient) // before the upstream answers by closing, too
		upstream.raw.ShortenDeadline(closeNotifyTime)
		upstream.CloseWrite()
	}
	t.halfClosed()
}

// upstreamEnded ends the upstream's direction. Its end is passed on as close_notify and
// FIN, and never as a word: it may have come in the middle of a literal.
func (t *tunnel) upstreamEnded(err error) {
	socket := t.s.raw
	if err == errWrite {
		t.endsFor(ReasonClient)
		t.abort()
		return
	}
	t.endsFor(ReasonUpstream) // before the client answers by closing, too
	socket.ShortenDeadline(closeNotifyTime)
	t.closeNotify()
	socket.CloseWrite()
	t.halfClosed()
}

// halfClosed leaves the other direction halfCloseTime.
func (t *tunnel) halfClosed() {
	t.state.CompareAndSwap(tunnelOpen, tunnelHalfClosed)
	t.touch()
	t.checkIdle()
}

// abort ends both directions at once.
func (t *tunnel) abort() {
	t.s.raw.Close()
	t.s.upstream.Close()
}

// closeInOrder ends both directions, the client's with close_notify where its TLS
// ends here.
func (t *tunnel) closeInOrder() {
	t.s.raw.ShortenDeadline(lingerTime)
	t.closeNotify()
	t.abort()
}

// closeNotify says to the client, inside TLS, that nothing more comes.
func (t *tunnel) closeNotify() {
	if !t.passedThrough() {
		t.s.tls.CloseWrite()
	}
}

var (
	errWrite  = errors.New("write failed")
	errParked = errors.New("parked")
)

// copy passes on what was read ahead, then all that comes, until the end of it or an
// error; or until it parks, after which the direction belongs to another goroutine. from is a socket, but Next reads from it by way of TLS where
// startPolling has said so.
func (t *tunnel) copy(d Direction, ahead []byte) error {
	from, to := &t.s.raw.Conn, t.upstream
	if d == ToClient {
		from, to = t.s.upstream.raw, t.client
	}
	if len(ahead) > 0 {
		if err := t.write(to, ahead, d); err != nil {
			return err
		}
	}
	t.setParkDeadline(from)
	for {
		buf, n, err := from.Next()
		if n > 0 {
			werr := t.write(to, buf[:n], d)
			buf.Put()
			if werr != nil {
				return werr
			}
		}
		switch {
		case err == nil:
		case endingOf(err) != endTimeout:
			return err
		case t.park(from):
			return errParked
		default:
			t.setParkDeadline(from)
		}
	}
}

func (t *tunnel) write(to io.Writer, b []byte, d Direction) error {
	t.awaitingReply.Store(d == ToUpstream)
	t.writing.Add(1)
	defer t.writing.Add(-1)
	defer t.touch()
	return t.s.relay(to, b, d, errWrite)
}

// touch notes that the tunnel is not idle.
func (t *tunnel) touch() { t.lastByte.Store(int64(time.Since(t.s.Accepted))) }

// silence is how long no byte has gone through.
func (t *tunnel) silence(now time.Time) time.Duration {
	return now.Sub(t.s.Accepted) - time.Duration(t.lastByte.Load())
}

// idleTimeLeft is what is left of the idle timeout, or of halfCloseTime. A tunnel is
// idle only if both directions are (RFC 9051, Section 5.4).
func (t *tunnel) idleTimeLeft(now time.Time) time.Duration {
	limit := t.s.srv.cfg.TimeoutIdle
	if t.state.Load() != tunnelOpen {
		limit = min(limit, halfCloseTime)
	}
	if t.writing.Load() > 0 {
		return limit
	}
	return limit - t.silence(now)
}

// park parks a direction in which nothing is under way.
func (t *tunnel) park(from *netpoll.Conn) bool {
	if t.silence(time.Now()) < parkAfter || !from.Drained() {
		return false
	}
	from.SetReadDeadline(time.Time{}) // while it is parked nobody would see it pass
	return from.Park()
}

// setParkDeadline sets the read deadline of a direction: when it is time to park.
func (t *tunnel) setParkDeadline(from *netpoll.Conn) {
	now := time.Now()
	from.SetReadDeadline(now.Add(parkAfter + parkTogether - now.Add(parkAfter).Sub(t.s.srv.started)%parkTogether))
}

// checkIdle ends the tunnel when it has been idle for too long, and else comes back when
// it may have been.
func (t *tunnel) checkIdle() {
	left := t.idleTimeLeft(time.Now())
	if left <= 0 {
		t.endsFor(ReasonTimeout)
		t.closeInOrder()
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.ended < 2 {
		t.idle.Reset(left)
	}
}

// sniffingWriter writes to the upstream after a login. A sniffer gets what has been
// written, so that nothing is delayed or changed.
type sniffingWriter struct {
	to       io.Writer
	sniffer  *mailproto.Sniffer // nil once that has ended
	observer Observer
	login    *Login
}

func (w *sniffingWriter) Write(p []byte) (int, error) {
	n, err := w.to.Write(p)
	if w.sniffer == nil {
		return n, err
	}
	software, more := w.sniffer.Sniff(p[:n])
	if software != "" {
		w.observer.Software(&Software{Conn: w.login.Conn, Account: w.login.Account, Software: software})
	}
	if !more {
		*w = sniffingWriter{to: w.to}
	}
	return n, err
}
