package proxy

import (
	"errors"
	"io"
	"net/netip"
	"strings"
	"sync/atomic"
	"time"

	"postern/internal/mailproto"
	"postern/policy"
)

// session is one connection, from accept to close. Up to the relay it belongs to one
// goroutine, from then on to two: the relay says which of its fields are whose, and a
// tunnel has its own. Whatever writes to tls shares the lock of tls.Conn.
type session struct {
	Conn
	srv     *Server
	dialect dialect
	// destination is what the client connected to: Local, or what a PROXY header
	// says.
	destination netip.AddrPort
	// random is drawn once, for rules that take a share of connections.
	random    uint64
	admission admission

	raw     *clientConn    // the client's socket, below TLS
	hs      *handshake     // nil but during the handshake
	tls     *tlsConn       // on top of raw; nil for a client that is passed through
	verdict policy.Verdict // what the policy has said of the hello

	upstream     *upstreamConn
	reconnects   int  // upstreams that were replaced by another one
	loggingOut   bool // the last command was LOGOUT or QUIT
	failedLogins int  // logins that upstreams have refused
	// speech is how a client that is legacy or Remembered speaks, until its login; nil for others.
	speech *mailproto.Speech

	toClient, toUpstream atomic.Int64           // bytes that went through
	tunnel               atomic.Pointer[tunnel] // from login on, or once a client is passed through
}

// admission says which limits a connection counts towards.
type admission uint8

const (
	overLimit        admission = iota // none: it came when LIMIT_CONNECTIONS was reached
	countedInTotal                    // LIMIT_CONNECTIONS
	countedPerClient                  // and LIMIT_CONNECTIONS_PER_CLIENT
)

// run is the goroutine of a connection that rejectEarly, in the accept loop, has let
// through. It ends with the connection, or when the client's side of the tunnel parks.
func (s *session) run() {
	growStack(s.ID)
	if t, reason := s.serve(); t != nil {
		t.start()
	} else {
		s.end(reason)
	}
}

// growStack makes room for a handshake on a new goroutine. crypto/tls needs some 16 KB
// of stack, and growing to it step by step copies the stack three times.
//
//go:noinline
func growStack(i uint64) byte {
	var room [12 << 10]byte
	room[i%2] = 1
	return room[(i+1)%2]
}

// serve carries a connection up to its login. It returns the tunnel that it has
// become, or nil and the reason for which it ends.
func (s *session) serve() (*tunnel, CloseReason) {
	if s.proxyHeaderDue() {
		if err := s.readProxyHeader(); err != nil {
			return nil, s.proxyHeaderFailed(err)
		}
	}
	if limit := s.admit(); limit != "" {
		return nil, s.rejectOverLimit(limit)
	}
	var said []byte
	if !s.Listener.ImplicitTLS() {
		var err error
		if said, err = s.startTLS(); err != nil {
			return nil, s.startTLSFailed(err)
		}
	}
	outcome, passedThrough := s.handshake(said)
	if passedThrough != nil {
		return passedThrough, ""
	}
	switch outcome {
	case Accepted, Observed:
		return s.login()
	case Explained:
		s.explain()
		return nil, ReasonExplained
	default:
		return nil, ReasonHandshake
	}
}

// login connects the client to an upstream and relays commands and replies until
// the upstream has accepted a login.
func (s *session) login() (*tunnel, CloseReason) {
	s.setDeadline(s.loginDeadline())
	greeting, err := s.connect(nil)
	if err != nil {
		return nil, s.noUpstream(greeting, err)
	}
	client := mailproto.NewLineReader(s.tls)
	commands := newCommandSide(s, client, greeting)
	if s.Listener.ImplicitTLS() { // else the client was greeted before STARTTLS
		if err := commands.deliver(greeting.shown); err != nil {
			s.upstream.Close()
			return nil, ReasonClient
		}
	}
	for {
		login, err := commands.relayUntilLogin()
		if login != nil {
			s.srv.upstreamServes(s.upstream.up)
			s.srv.cfg.Observer.Login(login)
			s.speech = nil
			return newTunnel(s, login, client.Buffered(), s.upstream.lines.Buffered()), ""
		}
		if commands.replaceable(err) {
			if greeting, ok := s.reconnect(commands); ok {
				commands = newCommandSide(s, client, greeting)
				continue
			}
		}
		reason := commands.closeReason(err)
		s.upstream.Close()
		<-commands.gone
		s.closeTLS()
		return nil, reason
	}
}

// maxReconnects bounds the upstreams that one client may use up.
const maxReconnects = 3

// reconnect finds another upstream for a client that has not begun to log in;
// it has been greeted already and notices nothing.
func (s *session) reconnect(r *commandSide) (greeting, bool) {
	lost := s.upstream.up
	if s.reconnects++; s.reconnects > maxReconnects || len(s.srv.upstreams[s.Listener.Protocol()]) == 1 {
		return greeting{}, false
	}
	r.upstreamFailed(UpstreamClosed, errUpstreamLost)
	lost.probeSoon() // it may have to be taken out
	r.lossReported = true
	s.upstream.Close()
	<-r.gone
	s.setDeadline(s.loginDeadline())
	g, err := s.connect(lost)
	return g, err == nil
}

// noUpstream ends a session that no upstream will serve. If an upstream greeted with
// BYE or -ERR, the client gets that line.
func (s *session) noUpstream(g greeting, err error) CloseReason {
	n := noticeNoUpstream
	if errors.Is(err, errDraining) {
		n = noticeShutdown
	}
	text := g.shown
	if text == nil {
		text = s.goodbye(n)
	}
	s.tlsFarewell(text)
	return n.reason
}

// admit counts the connection towards the limits per client, and names the limit that
// it exceeds, if any.
func (s *session) admit() Limit {
	clients := s.srv.clients
	switch {
	case s.admission == overLimit:
		return LimitConnections
	case !clients.enter(s.Client.Addr()):
		return LimitConnectionsPerClient
	}
	s.admission = countedPerClient
	if s.Listener.ImplicitTLS() && !clients.allowHandshake(s.Client.Addr(), time.Now()) {
		return LimitHandshakesPerClient
	}
	return ""
}

// rejectOverLimit ends a connection for a limit: in words where TLS has not been
// asked for yet, else by closing.
func (s *session) rejectOverLimit(l Limit) CloseReason {
	s.limitRefused(l)
	if s.Listener.ImplicitTLS() {
		s.hs = &handshake{begun: time.Now()}
		s.failed(FailLimit)
		return ReasonLimit
	}
	return s.farewell(noticeConnections)
}

func (s *session) limitRefused(l Limit) {
	s.srv.cfg.Metrics.LimitRefused(s.Listener, l)
	s.srv.warn(string(l), "limit reached, a client is turned away",
		"variable", "POSTERN_LIMIT_"+strings.ToUpper(string(l)), "listener", string(s.Listener), "client", s.Client.Addr())
}

// end is the last thing that happens to a connection.
func (s *session) end(reason CloseReason) {
	s.raw.Close()
	if s.admission == countedPerClient {
		s.srv.clients.leave(s.Client.Addr())
	}
	s.srv.remove(s)
	s.srv.cfg.Observer.Closed(&Closed{
		Conn: &s.Conn, Reason: reason, Duration: time.Since(s.Accepted),
		ToClient: s.toClient.Load(), ToUpstream: s.toUpstream.Load(), FailedLogins: s.failedLogins,
		Pattern: s.speech.Pattern(),
	})
	s.srv.sessions.Done()
}

// loginDeadline is when the client must have logged in.
func (s *session) loginDeadline() time.Time { return s.Accepted.Add(s.srv.cfg.TimeoutLogin) }

// past is a deadline that has expired.
var past = time.Unix(1, 0)

// setDeadline bounds what is to come before login. At shutdown reads end at
// once, also for a session that sets its deadline just then.
func (s *session) setDeadline(t time.Time) {
	s.raw.SetReadDeadline(t)
	s.raw.SetWriteDeadline(t.Add(lingerTime))
	if s.srv.isDraining() {
		s.raw.SetReadDeadline(past)
	}
}

// relay writes p, and counts what went through; lost is the error of a write that fails.
func (s *session) relay(to io.Writer, p []byte, d Direction, lost error) error {
	n, err := to.Write(p)
	s.count(d, n)
	if err != nil {
		return lost
	}
	return nil
}

// count counts n bytes that went through. Of a client that is passed through only Closed
// tells of them: they are no application bytes.
func (s *session) count(d Direction, n int) {
	if d == ToClient {
		s.toClient.Add(int64(n))
	} else {
		s.toUpstream.Add(int64(n))
	}
	if n > 0 && s.tls != nil {
		s.srv.cfg.Metrics.Relayed(s.Listener, d, n)
	}
}
