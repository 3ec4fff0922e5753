package proxy

import (
	"io"
	"net"
	"time"
)

// After login the two sides are copies: bytes are bytes, and nothing is held
// for a session that is silent (see poll.go). So they are from the beginning for
// a client that was passed through, which is then as good as logged in: nobody
// here sees when it is.

// halfCloseTime is how long a session may be silent once one side has closed:
// the other may still have much to say, or may have gone without a word.
const halfCloseTime = 30 * time.Second

// copyBoth copies in both directions, first what was read ahead, until both
// have ended; the session's end is named by the first of them.
func (s *session) copyBoth(early, late []byte) {
	if err := s.startCopies(); err != nil {
		s.abort()
		s.end(WhyClient)
		return
	}
	s.touch()
	s.loggedIn.Store(true)
	go s.ended(s.copyToClient, late)
	go s.ended(s.copyToUpstream, early)
}

// ended runs one direction; the last one to end ends the session.
func (s *session) ended(run func([]byte) Why, ahead []byte) {
	s.nameEnd(run(ahead))
	if s.ends.Add(1) == 2 {
		s.upstream.Close()
		s.end(s.endWhy)
	}
}

// nameEnd says why the session ends, unless that has a name already.
func (s *session) nameEnd(why Why) {
	s.endMu.Lock()
	defer s.endMu.Unlock()
	if s.endWhy == "" {
		s.endWhy = why
	}
}

func (s *session) startCopies() error {
	s.raw.SetDeadline(time.Time{})
	s.upstream.raw.SetDeadline(time.Time{})
	idle := time.Now().Add(s.srv.cfg.TimeoutIdle)
	s.raw.SetReadDeadline(idle)
	s.upstream.raw.SetReadDeadline(idle)
	if err := s.upstream.startPolling(); err != nil {
		return err
	}
	return s.raw.poll.start(s.raw.tcpConn, s.client().Read)
}

// client is the client's side as the copies see it: inside TLS, or below it
// where TLS ends elsewhere.
func (s *session) client() io.ReadWriter {
	if s.passed {
		return s.raw
	}
	return s.tls
}

// closeNotify says to the client, inside TLS, that nothing more comes.
func (s *session) closeNotify() {
	if !s.passed {
		s.tls.CloseWrite()
	}
}

// copyToUpstream is the client's direction. When the client closes its side,
// the upstream is told, and may go on sending.
func (s *session) copyToUpstream(early []byte) Why {
	var to io.Writer = s.upstream
	if s.overhears != nil {
		to = s.overhears
	}
	err := s.copy(&s.raw.poll, s.raw.tcpConn, to, early, ToUpstream)
	switch {
	case err == errIdle:
		s.nameEnd(WhyTimeout) // before the other direction notices
		s.abort()
		return WhyTimeout
	case err == errWrite:
		// What the upstream sent before it went is still delivered.
	case endingOf(err) == endReset:
		s.abort()
		return WhyClient
	default:
		s.upstream.CloseWrite()
	}
	s.halfClosed(s.upstream.raw)
	if err == errWrite {
		return WhyUpstream
	}
	return WhyClient
}

// copyToClient is the upstream's direction. Its end is passed on as
// close_notify and FIN, and never as a word: it may have come in the middle of
// a literal.
func (s *session) copyToClient(late []byte) Why {
	err := s.copy(&s.upstream.raw.poll, s.upstream.raw.tcpConn, s.client(), late, ToClient)
	switch err {
	case errIdle:
		s.nameEnd(WhyTimeout)
		s.closeInOrder()
		return WhyTimeout
	case errWrite:
		s.abort()
		return WhyClient
	}
	s.raw.SetWriteDeadline(time.Now().Add(halfCloseTime))
	s.closeNotify()
	s.raw.CloseWrite()
	s.halfClosed(s.raw)
	return WhyUpstream
}

// halfClosed leaves the other direction a while.
func (s *session) halfClosed(other net.Conn) {
	s.half.Store(true)
	other.SetReadDeadline(time.Now().Add(halfCloseTime))
}

// abort ends both directions at once.
func (s *session) abort() {
	s.raw.Close()
	s.upstream.Close()
}

// closeInOrder ends both directions, the client's with close_notify where its TLS
// ends here.
func (s *session) closeInOrder() {
	s.raw.SetWriteDeadline(time.Now().Add(lingerTime))
	s.closeNotify()
	s.abort()
}

type copyError string

func (e copyError) Error() string { return string(e) }

const (
	errIdle  copyError = "idle for too long"
	errWrite copyError = "write failed"
)

// copy passes on what was read ahead, then all that comes from p, until the
// end of it, an error, or the idle time.
func (s *session) copy(p *poller, from net.Conn, to io.Writer, ahead []byte, d Direction) error {
	deadliner := s.raw.tcpConn
	if d == ToUpstream {
		deadliner = s.upstream.raw.tcpConn
	}
	var armed time.Time
	write := func(b []byte) error {
		now := s.touch()
		if timeout := s.srv.cfg.TimeoutIdle; armed.Sub(now) < timeout/2 {
			armed = now.Add(timeout)
			deadliner.SetWriteDeadline(armed)
		}
		s.asked.Store(d == ToUpstream)
		s.writing.Add(1)
		n, err := to.Write(b)
		s.writing.Add(-1)
		s.relayed(d, n)
		if err != nil {
			return errWrite
		}
		s.touch()
		return nil
	}
	if len(ahead) > 0 {
		if err := write(ahead); err != nil {
			return err
		}
	}
	for {
		buf, n, err := p.next()
		if n > 0 {
			werr := write(buf[:n])
			buf.put()
			if werr != nil {
				return werr
			}
		}
		if err != nil && endingOf(err) == endTimeout {
			if err = s.rearm(from); err == nil {
				continue
			}
		}
		if err != nil {
			return err
		}
	}
}

// touch notes that the session is not idle.
func (s *session) touch() time.Time {
	now := time.Now()
	s.active.Store(int64(now.Sub(s.Accepted)))
	return now
}

// silent is how long no byte has gone through.
func (s *session) silent(now time.Time) time.Duration {
	return now.Sub(s.Accepted) - time.Duration(s.active.Load())
}

// rearm is called when a read has waited for its deadline: the session is idle
// only if the other direction was silent for as long (RFC 9051, Section 5.4).
func (s *session) rearm(from net.Conn) error {
	limit := s.srv.cfg.TimeoutIdle
	if s.half.Load() {
		limit = min(limit, halfCloseTime)
	}
	now := time.Now()
	left := limit - s.silent(now)
	if s.writing.Load() > 0 {
		left = limit
	}
	if left <= 0 {
		return errIdle
	}
	from.SetReadDeadline(now.Add(left))
	if s.half.Load() && limit > halfCloseTime {
		from.SetReadDeadline(now.Add(halfCloseTime)) // half-closed just now
	}
	return nil
}
