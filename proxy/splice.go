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

const (
	// halfCloseTime is how long a session may be silent once one side has closed:
	// the other may still have much to say, or may have gone without a word.
	halfCloseTime = 30 * time.Second
	// closeNotifyTime is how long it may take to say so inside TLS.
	closeNotifyTime = 5 * time.Second
	// parkAfter is how long a session is silent before its goroutines go, or
	// somewhat longer: they go at whole multiples of parkTogether, since to wake
	// up for one alone costs more than what it does then.
	parkAfter    = time.Second
	parkTogether = 250 * time.Millisecond
)

// copyBoth copies in both directions, first what was read ahead, until both
// have ended; the session's end is named by the first of them. It returns when
// the client's direction has ended or is parked.
func (s *session) copyBoth(early, late []byte) {
	if err := s.startCopies(); err != nil {
		s.abort()
		s.end(ReasonClient)
		return
	}
	s.touch()
	s.loggedIn.Store(true)
	s.srv.crew.do(func() { s.run(ToClient, late) })
	s.run(ToUpstream, early)
}

// run copies in one direction, until that has ended or parks; the last one to
// end ends the session.
func (s *session) run(d Direction, ahead []byte) {
	run := s.copyToClient
	if d == ToUpstream {
		run = s.copyToUpstream
	}
	why, over := run(ahead)
	if !over {
		return
	}
	s.nameEnd(why)
	if s.ends.Add(1) == 2 {
		s.upstream.Close()
		s.end(s.endWhy)
	}
}

// nameEnd says why the session ends, unless that has a name already.
func (s *session) nameEnd(why CloseReason) {
	s.endMu.Lock()
	defer s.endMu.Unlock()
	if s.endWhy == "" {
		s.endWhy = why
	}
}

func (s *session) startCopies() error {
	s.raw.SetDeadline(time.Time{})
	s.upstream.raw.SetDeadline(time.Time{})
	crew := s.srv.crew
	toClient, toUpstream := func() { s.run(ToClient, nil) }, func() { s.run(ToUpstream, nil) }
	patience := s.srv.cfg.TimeoutIdle
	if err := s.upstream.startPolling(patience, func() { crew.do(toClient) }); err != nil {
		return err
	}
	return s.raw.poll.start(s.raw.tcpConn, s.client().Read, patience, func() { crew.do(toUpstream) })
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
func (s *session) copyToUpstream(early []byte) (why CloseReason, over bool) {
	var to io.Writer = s.upstream
	if s.overhears != nil {
		to = s.overhears
	}
	err := s.copy(&s.raw.poll, s.raw.tcpConn, to, early, ToUpstream)
	switch {
	case err == errParked:
		return "", false
	case err == errIdle:
		s.nameEnd(ReasonTimeout) // before the other direction notices
		s.abort()
		return ReasonTimeout, true
	case err == errWrite:
		// What the upstream sent before it went is still delivered.
	case endingOf(err) == endReset:
		s.abort()
		return ReasonClient, true
	default:
		s.nameEnd(ReasonClient) // before the upstream answers by closing, too
		s.upstream.raw.poll.hurry(closeNotifyTime)
		s.upstream.CloseWrite()
	}
	s.halfClosed(s.upstream.raw, &s.upstream.raw.poll)
	if err == errWrite {
		return ReasonUpstream, true
	}
	return ReasonClient, true
}

// copyToClient is the upstream's direction. Its end is passed on as
// close_notify and FIN, and never as a word: it may have come in the middle of
// a literal.
func (s *session) copyToClient(late []byte) (why CloseReason, over bool) {
	err := s.copy(&s.upstream.raw.poll, s.upstream.raw.tcpConn, s.client(), late, ToClient)
	switch err {
	case errParked:
		return "", false
	case errIdle:
		s.nameEnd(ReasonTimeout)
		s.closeInOrder()
		return ReasonTimeout, true
	case errWrite:
		s.abort()
		return ReasonClient, true
	}
	s.nameEnd(ReasonUpstream) // before the client answers by closing, too
	s.raw.poll.hurry(closeNotifyTime)
	s.closeNotify()
	s.raw.CloseWrite()
	s.halfClosed(s.raw, &s.raw.poll)
	return ReasonUpstream, true
}

// halfClosed leaves the other direction a while, and the goroutine that counts
// it.
func (s *session) halfClosed(other net.Conn, p *poller) {
	s.half.Store(true)
	other.SetReadDeadline(s.touch().Add(halfCloseTime))
	p.stay()
}

// abort ends both directions at once.
func (s *session) abort() {
	s.raw.Close()
	s.upstream.Close()
}

// closeInOrder ends both directions, the client's with close_notify where its TLS
// ends here.
func (s *session) closeInOrder() {
	s.raw.poll.hurry(lingerTime)
	s.closeNotify()
	s.abort()
}

type copyError string

func (e copyError) Error() string { return string(e) }

const (
	errIdle   copyError = "idle for too long"
	errWrite  copyError = "write failed"
	errParked copyError = "parked"
)

// copy passes on what was read ahead, then all that comes from p, until the
// end of it, an error, or the idle time; or until it parks, after which the
// session is another goroutine's.
func (s *session) copy(p *poller, from net.Conn, to io.Writer, ahead []byte, d Direction) error {
	write := func(b []byte) error {
		s.asked.Store(d == ToUpstream)
		s.writing.Add(1)
		n, err := to.Write(b)
		s.touch()
		s.writing.Add(-1)
		s.relayed(d, n)
		if err != nil {
			return errWrite
		}
		return nil
	}
	if len(ahead) > 0 {
		if err := write(ahead); err != nil {
			return err
		}
	}
	s.setSilence(from, s.srv.cfg.TimeoutIdle)
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
			if err = s.silence(p, from); err == nil {
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

// silence is called when a read has waited for its deadline. It sets the next
// one, or parks the direction. The session is idle only if the other direction
// was silent for as long (RFC 9051, Section 5.4).
func (s *session) silence(p *poller, from net.Conn) error {
	half := s.half.Load()
	limit := s.srv.cfg.TimeoutIdle
	if half {
		limit = min(limit, halfCloseTime)
	}
	now := time.Now()
	silent := s.silent(now)
	left := limit - silent
	if s.writing.Load() > 0 {
		left = limit
	}
	if left <= 0 {
		return errIdle
	}
	if !half && silent >= parkAfter && p.drained() {
		from.SetReadDeadline(time.Time{}) // nobody would notice that it has passed
		s.watchIdle(left)
		if p.park() {
			return errParked
		}
	}
	if half {
		from.SetReadDeadline(now.Add(left))
	} else {
		s.setSilence(from, left)
	}
	return nil
}

// setSilence sets the deadline after which silence is called: when it is time
// to park, or the time left is over; or that of halfClosed, which may be setting
// it just now.
func (s *session) setSilence(from net.Conn, left time.Duration) {
	now := time.Now()
	if left > parkAfter+parkTogether {
		left = parkAfter + parkTogether - now.Add(parkAfter).Sub(s.srv.started)%parkTogether
	}
	from.SetReadDeadline(now.Add(left))
	if s.half.Load() {
		from.SetReadDeadline(now.Add(halfCloseTime))
	}
}

// watchIdle has somebody look after that time whether the session is idle,
// since a direction that is parked does not.
func (s *session) watchIdle(after time.Duration) {
	s.endMu.Lock()
	defer s.endMu.Unlock()
	if s.idle == nil && !s.ended {
		s.idle = time.AfterFunc(after, s.checkIdle)
	}
}

func (s *session) checkIdle() {
	left := s.srv.cfg.TimeoutIdle - s.silent(time.Now())
	if s.writing.Load() > 0 {
		left = s.srv.cfg.TimeoutIdle
	}
	if left <= 0 {
		s.nameEnd(ReasonTimeout)
		s.closeInOrder()
		return
	}
	s.endMu.Lock()
	defer s.endMu.Unlock()
	if !s.ended {
		s.idle.Reset(left)
	}
}

// stopWatching ends what watchIdle has begun.
func (s *session) stopWatching() {
	s.endMu.Lock()
	defer s.endMu.Unlock()
	s.ended = true
	if s.idle != nil {
		s.idle.Stop()
	}
}
