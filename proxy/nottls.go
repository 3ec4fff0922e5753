package proxy

import (
	"bytes"
	"regexp"
	"slices"
	"time"

	"postern/internal/legacyhello"
	"postern/internal/netpoll"
	"postern/policy"
)

// What clients begin with that crypto/tls cannot read.

// sslv2 reports whether what comes first is an SSLv2-compatible ClientHello.
func (c *clientConn) sslv2() bool {
	b, err := c.peek(3)
	return err == nil && legacyhello.IsSSLv2(b)
}

// sslv2Hello passes an SSLv2-compatible ClientHello through, or refuses it.
func (s *session) sslv2Hello() (Outcome, *tunnel) {
	hs := s.hs
	size := legacyhello.SSLv2Len(s.raw.unread) // which sslv2 has looked at
	whole, err := s.raw.peek(size)
	if err != nil {
		return s.failed(s.failure(err)), nil
	}
	s.raw.unread = whole[size:]
	hello, ok := legacyhello.ParseSSLv2(whole[:size])
	if !ok {
		s.raw.Write(alertRecord(alertDecodeError, policy.NoVersion))
		return s.failed(FailMalformed), nil
	}
	s.judge(hello)
	if hs.verdict.PassThrough && s.hasOldServer() {
		if outcome, t := s.passThrough(whole); outcome != "" {
			s.raw.unread = nil
			return outcome, t
		}
	}
	s.raw.Write(alertRecord(alertProtocolVersion, hs.verdict.Version))
	if !hs.verdict.Legacy() {
		return s.failed(FailOther), nil
	}
	return s.ended(Rejected, NoFailure), nil
}

const (
	// maxPlaintext, in bytes, and plaintextTimeout bound what is read before text on
	// a TLS port is answered: enough to recognise an HTTP request.
	maxPlaintext     = 512
	plaintextTimeout = time.Second
)

// notTLS answers text with text, and closes on the rest.
func (s *session) notTLS(deadline time.Time) Outcome {
	if sooner := time.Now().Add(plaintextTimeout); sooner.Before(deadline) {
		s.raw.SetReadDeadline(sooner)
	}
	for n := 1; n <= maxPlaintext && !bytes.ContainsRune(s.raw.unread, '\n'); n = len(s.raw.unread) + 1 {
		if _, err := s.raw.peek(n); err != nil {
			if endingOf(err) == endReset {
				return s.failed(FailIO)
			}
			break
		}
	}
	s.unaskedHeader()
	text := s.raw.unread
	if slices.ContainsFunc(text, notText) {
		return s.failed(FailMalformed)
	}
	f := FailPlaintext
	if httpRequest.Match(text) {
		f = FailHTTP
	}
	s.report(Failed, f)
	s.farewell(noticeNotTLS)
	return Failed
}

func notText(c byte) bool { return (c < ' ' || c >= 0x7f) && c != '\r' && c != '\n' && c != '\t' }

var httpRequest = regexp.MustCompile(`^(GET|HEAD|POST|PUT|DELETE|OPTIONS|CONNECT|TRACE|PATCH|PRI) `)

// tlsTooSoon reports TLS that came before STARTTLS or STLS.
func (s *session) tlsTooSoon() {
	s.hs = &handshake{begun: time.Now()}
	s.report(Failed, FailTLSOnStartTLS)
	s.hs = nil
}

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
	s.raw.WriteLast(alertRecord(alertProtocolVersion, legacyhello.Version(first)))
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
