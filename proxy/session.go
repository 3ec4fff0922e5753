package proxy

import (
	"crypto/tls"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"postern/policy"
)

// session is one connection, from accept to close.
type session struct {
	Conn
	srv     *Server
	dialect dialect
	raw     *clientConn
	tls     *tls.Conn
	hs      *handshake
	verdict policy.Verdict

	upstream   *upstreamConn
	loggingOut bool

	// loggedIn is set once the upstream has accepted a login.
	loggedIn atomic.Bool
	// active is when bytes last went through, in nanoseconds since Accepted;
	// writing counts copies that are held up by a receiver. Both tell an idle
	// session from a busy one.
	active  atomic.Int64
	writing atomic.Int32
	// half: one side has ended, the other has halfCloseTime left in silence.
	half atomic.Bool
	// closing: the server has chosen it to be closed at shutdown.
	closing atomic.Bool
	endMu   sync.Mutex
	endWhy  Why

	toClient, toUpstream atomic.Int64
}

// notice is the kind of a last word, which decides its response code.
type notice uint8

const (
	noticeUnavailable notice = iota
	noticeLimit
	noticeExplain
	noticeShutdown
	noticeTimeout
	noticeProtocol
)

// dialect is what differs between IMAP and POP3.
type dialect interface {
	// goodbye is a last word in the protocol's form.
	goodbye(n notice, text string) []byte
	// leave is the command that ends a connection to an upstream in order.
	leave() []byte
	// frontGreeting and frontCommand are the dialogue before TLS.
	frontGreeting() []byte
	frontCommand(f *front, line []byte) (begin []byte, err error)
	// greeting judges an upstream's greeting, and returns it as it is true
	// inside TLS.
	greeting(line []byte) ([]byte, UpstreamFailure)
	noteGreeting(r *relay, line []byte)
	// commands and replies are the two sides of the relay before login.
	commands(r *relay) (loggedIn bool, err error)
	replies(r *relay) error
}

func dialectOf(p Protocol) dialect {
	if p == ProtocolIMAP {
		return imapDialect{}
	}
	return pop3Dialect{}
}

// serve is the life of a connection up to login. After that it goes on in two
// goroutines of its own, with small stacks, and is not over.
func (s *session) serve() (why Why, over bool) {
	if !s.Listener.ImplicitTLS() {
		if err := s.startTLS(); err != nil {
			return s.frontEnded(err), true
		}
	}
	switch s.shakeHands(!s.Listener.ImplicitTLS()) {
	case Accepted, Observed:
		return s.mail()
	case Explained:
		s.tlsFarewell(s.dialect.goodbye(noticeExplain, s.srv.explanation(s.verdict)))
		return WhyExplained, true
	}
	return WhyHandshake, true
}

// mail connects the client to the upstream and relays until login.
func (s *session) mail() (why Why, over bool) {
	s.setDeadline(s.Accepted.Add(s.srv.cfg.TimeoutLogin))
	greeting, err := s.connect()
	if err != nil {
		return s.noUpstream(greeting, err), true
	}
	r := newRelay(s, s.upstream)
	s.dialect.noteGreeting(r, greeting.line)
	if s.Listener.ImplicitTLS() {
		if err := r.deliver(greeting.shown); err != nil {
			s.upstream.Close()
			return WhyClient, true
		}
	}
	go func() { r.upstreamOver(s.dialect.replies(r)) }()
	loggedIn, err := s.dialect.commands(r)
	if loggedIn {
		<-r.over
		s.srv.cfg.Observer.Login(&Login{Conn: &s.Conn})
		s.copyBoth(r.client.buffered(), r.upstream.buffered())
		return "", false
	}
	why = r.ended(err)
	s.upstream.Close()
	<-r.gone
	s.closeTLS()
	return why, true
}

// noUpstream ends a session that no upstream will serve. One that was greeted
// with a goodbye is told that.
func (s *session) noUpstream(g greeting, err error) Why {
	if errors.Is(err, errDraining) {
		s.tlsFarewell(s.dialect.goodbye(noticeShutdown, "Shutting down, please come back in a moment."))
		return WhyShutdown
	}
	text := g.shown
	if text == nil {
		text = s.dialect.goodbye(noticeUnavailable, "The mail server cannot be reached, please try again later.")
	}
	s.tlsFarewell(text)
	return WhyNoUpstream
}

// tlsFarewell is the last word to a client inside TLS: text, close_notify, FIN,
// and what still comes is thrown away for a while, so that no reset overtakes
// the text.
func (s *session) tlsFarewell(text []byte) {
	s.raw.SetWriteDeadline(time.Now().Add(lingerTime))
	s.tls.Write(text)
	s.closeTLS()
}

// closeTLS closes in order (RFC 8446, Section 6.1).
func (s *session) closeTLS() {
	s.raw.SetWriteDeadline(time.Now().Add(lingerTime))
	s.tls.CloseWrite()
	s.raw.linger()
}

// setDeadline bounds what is to come before login. At shutdown reads end at
// once, also for a session that sets its deadline just then.
func (s *session) setDeadline(t time.Time) {
	s.raw.SetReadDeadline(t)
	s.raw.SetWriteDeadline(t.Add(lingerTime))
	if s.srv.isDraining() {
		s.raw.SetReadDeadline(past)
	}
}

// relayed counts n bytes that went through.
func (s *session) relayed(d Direction, n int) {
	if n == 0 {
		return
	}
	if d == ToClient {
		s.toClient.Add(int64(n))
	} else {
		s.toUpstream.Add(int64(n))
	}
	s.srv.cfg.Meter.Relayed(s.Listener, d, n)
}
