package proxy

import (
	"bytes"

	"postern/internal/legacyhello"
	"postern/internal/netpoll"
	"postern/policy"
)

// rejectEarly rejects a client at a fraction of what crypto/tls costs, if all that
// it has sent is one whole legacy hello that the policy enforces against. It never
// accepts, and never waits: it runs in the accept loop, since half the cost of such a
// client would be a goroutine. Whatever it has read stays unread. It leaves to
// crypto/tls, which says the same, every hello that it does not understand, that
// the policy may let in, that is late, or that other checks have to come before.
func (s *session) rejectEarly() bool {
	limits := &s.srv.cfg.Limits
	if !s.Listener.ImplicitTLS() || s.proxyHeaderDue() || s.admission == overLimit ||
		limits.ConnectionsPerClient > 0 || limits.HandshakesPerClient > 0 {
		return false
	}
	hello, ok := legacyhello.Parse(s.raw.peekAvailable())
	if !ok || s.raw.Pending() {
		return false
	}
	s.hs = &handshake{begun: s.Accepted}
	if s.judge(hello); !s.hs.verdict.Legacy() || s.hs.verdict.Mode != policy.Enforce {
		s.hs = nil
		return false
	}
	record := alertRecord(alertProtocolVersion, legacyhello.Version(s.raw.unread))
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
