package proxy

import (
	"bytes"

	"postern/internal/legacyhello"
	"postern/internal/netpoll"
	"postern/policy"
)

// rejectEarly rejects a client at a fraction of what crypto/tls costs, if all that
// it has sent is one whole hello, too old for any floor, that the policy enforces against:
// that has one answer, whatever else is wrong with it. It never
// accepts, and never waits: it runs in the accept loop, since half the cost of such a
// client would be a goroutine. Whatever it has read stays unread. It leaves to
// crypto/tls, which says the same, every hello that may be newer, that
// the policy may let in, that is late, or that other checks have to come before.
func (s *session) rejectEarly() bool {
	limits := &s.srv.cfg.Limits
	if !s.Listener.ImplicitTLS() || s.proxyHeaderDue() || s.admission == overLimit ||
		limits.ConnectionsPerClient > 0 || limits.HandshakesPerClient > 0 {
		return false
	}
	first := s.raw.peekAvailable()
	if !legacyhello.SoleOld(first) || s.raw.Pending() {
		return false
	}
	hello, ok := legacyhello.Parse(first)
	if !ok {
		return false
	}
	s.hs = &handshake{begun: s.Accepted}
	s.judge(hello)
	if v := &s.hs.verdict; v.Mode != policy.Enforce || v.Reason != policy.ReasonVersion && v.Reason != policy.ReasonFallback {
		s.hs = nil
		return false
	}
	record := alertRecord(alertProtocolVersion, legacyhello.Version(first))
	s.raw.WriteLast(record[:])
	s.report(Rejected, NoFailure)
	s.end(ReasonHandshake)
	return true
}

// maxEarlyHello is how long an old hello may be to be rejected early, in bytes. Most are
// a few hundred bytes long, and 517 with the padding of RFC 7685.
const maxEarlyHello = 2048

// peekAvailable returns what has come already, without waiting and without taking
// it.
func (c *clientConn) peekAvailable() []byte {
	buf := netpoll.GetBuffer()
	defer buf.Put()
	n, err := c.ReadAvailable(buf[:maxEarlyHello])
	if err != nil && err != netpoll.ErrWouldBlock {
		c.readErr = err
	}
	c.unread = bytes.Clone(buf[:n])
	return c.unread
}
