package proxy

import (
	"errors"
	"fmt"
	"io"
	"os"
	"sync/atomic"
	"time"

	"postern/internal/mailproto"
)

// A relay is a session between TLS and login. It is in lockstep: the command
// side sends one whole command upstream and reads no further until the reply
// side has seen its answer. The reply side always flows; it is the only one to
// parse what the upstream sends, and the only one to know that a login
// succeeded, which it tells through a channel. So what a client pipelines behind
// its login waits in the one reader, in order, and both sides become plain copies
// at exactly the same point of the dialogue.
//
// The relay itself is what both sides share. Each of the two has its own state,
// which the other never sees.
type relay struct {
	s *session
	// expect carries what the next answer will mean, before the command that
	// it belongs to is sent; answers carries what it was.
	expect  chan expectation
	answers chan answer
	// over is closed when the reply side has ended. Then err says why, which is
	// nil after a login, and saidBye whether the upstream has said goodbye.
	over    chan struct{}
	err     error
	saidBye bool
	// gone is closed when the reply side does nothing more.
	gone chan struct{}
	// quit is closed when the command side has ended without a login.
	quit chan struct{}
	// nonSyncLiterals: the upstream has said that it accepts literals without
	// synchronization.
	nonSyncLiterals atomic.Bool
}

// commandSide belongs to the connection's own goroutine.
type commandSide struct {
	*relay
	client   *mailproto.LineReader
	identity mailproto.Identity // of the client
	// busy: a command is under way.
	busy bool
	// upstreamKnowsClient: the upstream knows something of the client that another
	// one would not: a login, good or bad, half of one, an ID, or a goodbye.
	upstreamKnowsClient bool
	// lossReported: the loss of the upstream has been counted.
	lossReported bool
	// said counts commands, malformed those that were refused for their syntax.
	said, malformed int
	// provoked: the client has said something for which a server may well hang up, or say
	// nothing. answered: the upstream has answered a command. lastAnswer is when it did, or
	// when it greeted.
	provoked, answered bool
	lastAnswer         time.Time
}

// replySide belongs to a goroutine of its own.
type replySide struct {
	*relay
	upstream *mailproto.LineReader
	// want is of the command under way; nil where there is none. late is of one that was
	// complained about, and may still be answered.
	want, late *expectation
}

// expectation is what the command side tells of a command.
type expectation struct {
	tag string // IMAP
	// login: a positive answer means that the client is logged in.
	login bool
	// listing: a positive answer may have several lines (POP3).
	listing bool
	// mechanism of the login; sasl: by AUTHENTICATE or AUTH.
	mechanism string
	sasl      bool
	// complained: the upstream has said BAD or NO without a tag (IMAP).
	complained bool
	// speechless: the client has said nothing yet that could have logged it in (POP3: AUTH
	// without an initial response), so that +OK can only ask for it.
	speechless bool
}

// answer is what the reply side tells of what came back.
type answer struct {
	// continuation: not the answer yet, but a request for another line or literal.
	continuation bool
	// ok and bad: OK or +OK; BAD. Neither: NO or -ERR.
	ok, bad bool
	// complaint: there was none but BAD or NO without a tag.
	complaint bool
	// code is the response code of a refusal, if it has one.
	code string
}

var (
	errUpstreamSilent = errors.New("upstream does not answer")
	errUpstreamLost   = errors.New("upstream closed before login")
	errUnaskedBye     = errors.New("upstream said goodbye before it had answered anything")
	errDraining       = errors.New("shutting down")
	errClientLost     = errors.New("client went away")
	errProtocol       = errors.New("command cannot be relayed")
)

// replyTimeouts is how many times UPSTREAM_TIMEOUT an upstream may take to answer
// one command before login: servers slow down failed logins on purpose.
const replyTimeouts = 3

func newCommandSide(s *session, client *mailproto.LineReader, g greeting) *commandSide {
	c := &commandSide{
		relay: &relay{
			s:       s,
			expect:  make(chan expectation, 1),
			answers: make(chan answer, 1),
			over:    make(chan struct{}),
			gone:    make(chan struct{}),
			quit:    make(chan struct{}),
		},
		client:     client,
		identity:   mailproto.Identity{Wanted: s.srv.cfg.Identity},
		lastAnswer: time.Now(),
	}
	c.nonSyncLiterals.Store(mailproto.AcceptsNonSyncLiterals(g.line))
	return c
}

// identified reports whether the observer is to know who has logged in.
func (s *session) identified() bool { return s.srv.cfg.Identity && (s.Legacy || s.Remembered != 0) }

// relayUntilLogin relays until the upstream has accepted a login, and returns that; or what
// ended the command side.
func (c *commandSide) relayUntilLogin() (*Login, error) {
	r := &replySide{relay: c.relay, upstream: c.s.upstream.lines.LineReader}
	go r.run()
	for {
		c.busy = false
		line, err := c.client.StrictLine()
		if err != nil {
			return nil, err
		}
		c.busy = true
		c.s.speech.Line(line)
		loggedIn, err := c.s.dialect.relayCommand(c, line)
		if err != nil {
			return nil, err
		}
		if loggedIn {
			<-c.over
			l := &Login{Conn: &c.s.Conn, Pattern: c.s.speech.Pattern()}
			if c.s.identified() {
				l.Account, l.Software = c.identity.Account, c.identity.Software
			}
			return l, nil
		}
	}
}

// refuseMalformed answers a line that is no command; the session goes on. What announces
// a literal cannot be answered: nobody knows whether that will come.
func (c *commandSide) refuseMalformed(format string, args ...any) error {
	if c.malformed++; c.malformed > maxBadCommands {
		return errProtocol
	}
	return c.reply(format, args...)
}

// replaceable reports whether the command side was ended by the loss of the
// upstream alone, between two commands, and before the upstream knew anything
// of the client that another one would not.
func (c *commandSide) replaceable(err error) bool {
	return isClosed(c.over) && c.err != errClientLost && !c.saidBye &&
		!c.busy && !c.upstreamKnowsClient && endingOf(err) == endTimeout && !c.s.srv.isDraining()
}

// send passes bytes of the client on.
func (c *commandSide) send(p []byte) error {
	return c.s.relay(c.s.upstream, p, ToUpstream, errUpstreamLost)
}

// reply answers a command that is not for the upstream. The session goes on, and
// with it the deadline for all that comes before login.
func (c *commandSide) reply(format string, args ...any) error {
	_, err := fmt.Fprintf(c.s.tls, format, args...)
	return err
}

// await waits for the answer to what was sent.
func (c *commandSide) await() (answer, error) {
	timeout, err := replyTimeouts*c.s.srv.cfg.UpstreamTimeout, errUpstreamSilent
	if left := time.Until(c.s.loginDeadline()); left < timeout {
		timeout, err = left, os.ErrDeadlineExceeded
	}
	var a answer
	select {
	case a = <-c.answers:
		err = nil
	case <-time.After(timeout):
	case <-c.over:
		err = errUpstreamLost
	case <-c.s.srv.ctx.Done():
		err = errDraining
	}
	if err != nil {
		select {
		case a = <-c.answers: // it came at the same time
			err = nil
		default:
		}
	}
	c.provoked = c.provoked || a.complaint
	if err == nil {
		c.answered, c.lastAnswer = true, time.Now()
	}
	return a, err
}

// forwarding is one command on its way upstream, with its literals and the
// lines that the upstream asks for.
type forwarding struct {
	*commandSide
	// expectation is sent with the first byte; then sent is set.
	expectation
	sent bool
	// id filters the arguments of an ID; nil for any other command.
	id *mailproto.IDFilter
	// nonSync: it has a literal without synchronization.
	nonSync  bool
	literals int // octets in them
	// responses of the client, in SASL.
	responses int
	// cancelled: the client has ended the exchange (RFC 9051, Section 6.2.2;
	// RFC 5034, Section 4).
	cancelled bool
}

// answer waits for the final reply; before that the upstream may ask for lines,
// as SASL does (RFC 9051, Section 6.2.2; RFC 5034, Section 4).
func (f *forwarding) answer() (answer, error) {
	for {
		a, err := f.await()
		if err != nil || !a.continuation {
			return a, err
		}
		line, err := f.client.StrictLine()
		for err == nil && f.speechless && pop3ForProxies.Match(line) {
			// After a bare +OK the client may take itself for logged in.
			if err = f.reply("-ERR Not available here.\r\n"); err == nil {
				line, err = f.client.StrictLine()
			}
		}
		if err != nil {
			return answer{}, err
		}
		f.cancelled = string(line) == "*\r\n"
		f.provoked = true
		f.responses++
		f.identity.Response(line)
		if err := f.send(line); err != nil {
			return answer{}, err
		}
	}
}

// loggedIn reports whether the command was a login that has succeeded; it reports one that
// the upstream has refused.
func (f *forwarding) loggedIn(a answer) bool {
	if f.login && !a.ok && !f.cancelled {
		f.s.failedLogins++
		f.s.srv.cfg.Observer.LoginFailed(&LoginFailed{Conn: &f.s.Conn, Mechanism: f.mechanism, Code: a.code, Account: f.claimed()})
	}
	return f.login && a.ok
}

// claimed is the account of a login that was refused. Of SASL LOGIN it is not certain before
// the second message: a client that is out of step begins with the password.
func (f *forwarding) claimed() string {
	if f.sasl && f.mechanism == "LOGIN" && f.responses < 2 {
		return ""
	}
	return f.identity.Account
}

// send passes a part of the command on.
func (f *forwarding) send(p []byte) error {
	if !f.sent {
		f.sent = true
		f.expect <- f.expectation
	}
	return f.commandSide.send(p)
}

// run is the goroutine of the reply side. Unless a login has succeeded, it wakes
// the command side, which may be waiting for the client.
func (r *replySide) run() {
	r.err = r.relayReplies()
	close(r.over)
	if r.err != nil {
		r.s.raw.SetReadDeadline(past)
	}
	close(r.gone)
}

// relayReplies passes on what the upstream sends, one whole response at a time,
// until a login has succeeded or the upstream has gone.
func (r *replySide) relayReplies() error {
	for {
		text, a, err := r.s.dialect.readReply(r)
		if err != nil {
			return err
		}
		switch {
		case a == nil:
			err = r.deliver(text)
		case a.ok && r.want.login:
			// The command side has to know before the client does: what the client sends
			// next is for the tunnel.
			if err = r.acknowledge(*a); err == nil {
				err = r.deliver(text)
			}
			return err
		default:
			if !a.continuation {
				r.want, a.code = nil, mailproto.RefusalCode(text)
			}
			if err = r.deliver(text); err == nil {
				err = r.acknowledge(*a)
			}
		}
		if err != nil {
			return err
		}
	}
}

// expecting returns the expectation of the command that is under way, if any.
func (r *replySide) expecting() *expectation {
	if r.want == nil {
		select {
		case e := <-r.expect:
			r.want = &e
		default:
		}
	}
	return r.want
}

// quiet reports whether the upstream says nothing more for a while, where it may have said
// all that it will: a second, or as long as a login may take.
func (r *replySide) quiet() bool {
	socket, timeout := r.s.upstream.raw, r.s.srv.cfg.UpstreamTimeout
	if !r.want.login {
		timeout = min(timeout, time.Second)
	}
	socket.SetReadDeadline(time.Now().Add(timeout))
	err := r.upstream.Wait()
	socket.SetReadDeadline(time.Time{})
	return err != nil // the next read says why, if there is more to say
}

// deliver passes bytes of the upstream on, in whole responses: so that what
// Postern itself says stands between them.
func (r *relay) deliver(p []byte) error { return r.s.relay(r.s.tls, p, ToClient, errClientLost) }

// acknowledge hands an answer to the command side.
func (r *replySide) acknowledge(a answer) error {
	select {
	case r.answers <- a:
		return nil
	case <-r.quit:
		return io.EOF
	}
}
