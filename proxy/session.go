package proxy

import (
	"crypto/tls"
	"errors"
	"io"
	"net/netip"
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
	greeted    greeting // of the upstream that replaced another one
	reconnects int
	loggingOut bool
	// failedLogins is how many logins upstreams have refused.
	failedLogins int

	// destination is what the client connected to: Local, or what a PROXY
	// header says.
	destination netip.AddrPort
	// dice are thrown once, for rules that take a share of connections.
	dice uint64
	// looked: its first bytes were looked at on the threshold.
	looked bool
	// over says that there were too many connections when it came; counted
	// that it is among those of its client.
	over, counted bool

	// loggedIn is set once the upstream has accepted a login.
	loggedIn atomic.Bool
	// active is when bytes last went through, in nanoseconds since Accepted;
	// writing counts copies that are held up by a receiver. Both tell an idle
	// session from a busy one.
	active  atomic.Int64
	writing atomic.Int32
	// asked: the last bytes went upstream, so that an answer is due.
	asked atomic.Bool
	// half: one side has ended, the other has halfCloseTime left in silence.
	half atomic.Bool
	// closing: the server has chosen it to be closed at shutdown.
	closing atomic.Bool
	endMu   sync.Mutex // guards endWhy, ended and idle
	endWhy  CloseReason
	ended   bool
	idle    *time.Timer  // ends a silent session, once it has parked
	ends    atomic.Int32 // directions that have ended

	toClient, toUpstream atomic.Int64

	// passed: the other end of the client's TLS is not here, but at the server
	// that it was passed through to; answer is what that has said already.
	passed bool
	answer []byte

	// overhears reads along behind the login; nil for nearly all sessions.
	overhears *overhearing
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
	// frontGreeting and frontCommand are the dialogue before TLS.
	frontGreeting() []byte
	frontCommand(f *front, line []byte) (begin []byte, err error)
	// greeting judges an upstream's greeting, and returns it as it is true
	// inside TLS.
	greeting(line []byte) ([]byte, UpstreamFailure)
	noteGreeting(r *relay, line []byte)
	// identify tells the upstream where the client is, as far as the protocol
	// has a way.
	identify(s *session) error
	// requestTLS asks an upstream for STARTTLS or STLS; nil is its OK.
	requestTLS(in *lineReader, out io.Writer) error
	// greetAgain makes a greeting of what the upstream says inside TLS, after
	// STARTTLS, where it does not greet.
	greetAgain(c *upstreamConn) (greeting, error)
	// commands and replies are the two sides of the relay before login. What
	// commands returns is the login that has succeeded, or why there is none.
	commands(r *relay) (*Login, error)
	replies(r *relay) error
}

func dialectOf(p Protocol) dialect {
	if p == ProtocolIMAP {
		return imapDialect{}
	}
	return pop3Dialect{}
}

// serve is the life of a connection up to login, and then of its direction to the
// upstream. Where it returns that the session is not over, that goes on, or ends,
// elsewhere.
func (s *session) serve() (why CloseReason, over bool) {
	if s.proxyHeaderDue() {
		if err := s.readProxyHeader(); err != nil {
			return s.proxyHeaderFailed(err), true
		}
	}
	if limit := s.overLimit(); limit != "" {
		return s.refuse(limit), true
	}
	if !s.Listener.ImplicitTLS() {
		if err := s.startTLS(); err != nil {
			return s.frontEnded(err), true
		}
	}
	switch s.shakeHands(!s.Listener.ImplicitTLS()) {
	case Accepted, Observed:
		return s.mail()
	case passed:
		s.passOn()
		return "", false
	case Explained:
		s.tlsFarewell(s.dialect.goodbye(noticeExplain, s.srv.explanation(s.verdict)))
		return ReasonExplained, true
	}
	return ReasonHandshake, true
}

// mail connects the client to the upstream and relays until login.
func (s *session) mail() (why CloseReason, over bool) {
	s.setDeadline(s.Accepted.Add(s.srv.cfg.TimeoutLogin))
	greeting, err := s.connect(nil)
	if err != nil {
		return s.noUpstream(greeting, err), true
	}
	client := &lineReader{src: s.tls}
	r := newRelay(s, client, greeting)
	if s.Listener.ImplicitTLS() {
		if err := r.deliver(greeting.shown); err != nil {
			s.upstream.Close()
			return ReasonClient, true
		}
	}
	for {
		s.srv.crew.do(func() { r.upstreamOver(s.dialect.replies(r)) })
		login, err := s.dialect.commands(r)
		if login != nil {
			<-r.over
			s.srv.cfg.Observer.Login(login)
			s.overhear(login)
			s.copyBoth(client.buffered(), r.upstream.buffered())
			return "", false
		}
		if !r.replaceable(err) || !s.reconnect(r) {
			why = r.ended(err)
			s.upstream.Close()
			<-r.gone
			s.closeTLS()
			return why, true
		}
		r = newRelay(s, client, s.greeted)
	}
}

// maxReconnects bounds the upstreams that one client may use up.
const maxReconnects = 3

// reconnect finds another upstream for a client that has not begun to log in;
// it has been greeted already and notices nothing.
func (s *session) reconnect(r *relay) bool {
	lost := s.upstream.up
	if s.reconnects++; s.reconnects > maxReconnects || len(s.srv.upstreams[s.Listener.Protocol()]) == 1 {
		return false
	}
	s.upstreamFailed(UpstreamClosed, errUpstreamLost)
	lost.ask() // it may have to be taken out
	r.told = true
	s.upstream.Close()
	<-r.gone
	s.setDeadline(s.Accepted.Add(s.srv.cfg.TimeoutLogin))
	greeting, err := s.connect(lost)
	s.greeted = greeting
	return err == nil
}

// noUpstream ends a session that no upstream will serve. One that was greeted
// with a goodbye is told that.
func (s *session) noUpstream(g greeting, err error) CloseReason {
	if errors.Is(err, errDraining) {
		s.tlsFarewell(s.dialect.goodbye(noticeShutdown, "Shutting down, please come back in a moment."))
		return ReasonShutdown
	}
	text := g.shown
	if text == nil {
		text = s.dialect.goodbye(noticeUnavailable, "The mail server cannot be reached, please try again later.")
	}
	s.tlsFarewell(text)
	return ReasonNoUpstream
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

// relayed counts n bytes that went through. Those of a client that was passed
// through are TLS: only its own end tells of them.
func (s *session) relayed(d Direction, n int) {
	if n == 0 {
		return
	}
	if d == ToClient {
		s.toClient.Add(int64(n))
	} else {
		s.toUpstream.Add(int64(n))
	}
	if !s.passed {
		s.srv.cfg.Metrics.Relayed(s.Listener, d, n)
	}
}

// overLimit names the limit that the connection exceeds, if any.
func (s *session) overLimit() Limit {
	clients := s.srv.clients
	switch {
	case s.over:
		return LimitConnections
	case !clients.enter(s.Client.Addr()):
		return LimitConnectionsPerClient
	}
	s.counted = true
	if s.Listener.ImplicitTLS() && !clients.handshake(s.Client.Addr(), time.Now()) {
		return LimitHandshakesPerClient
	}
	return ""
}

// refuse turns a connection away for a limit: in words where TLS was not asked
// for yet, else by closing.
func (s *session) refuse(l Limit) CloseReason {
	s.srv.cfg.Metrics.LimitRefused(s.Listener, l)
	if s.Listener.ImplicitTLS() {
		s.hs = &handshake{begun: time.Now()}
		s.failed(FailLimit)
		return ReasonLimit
	}
	s.farewell(s.dialect.goodbye(noticeLimit, "Too many connections, please try again later."))
	return ReasonLimit
}
