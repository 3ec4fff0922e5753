package proxy

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
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
	// complaints has an entry where the upstream has said BAD or NO without a tag, since
	// it may say nothing more.
	complaints chan struct{}
	// over is closed when the reply side has ended. Then err says why, which is
	// nil after a login, and saidBye whether the upstream has said goodbye.
	over    chan struct{}
	err     error
	saidBye bool
	// gone is closed when the reply side does nothing more.
	gone chan struct{}
	// quit is closed when the command side has ended without a login.
	quit chan struct{}
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
	// asked is the number of the last command that went upstream, and abandoned the tag of
	// the last one whose answer is not waited for any more.
	asked     int
	abandoned string
	// malformed counts commands that were refused for their syntax.
	malformed int
	// provoked: the client has said something for which a server may well hang up, or say
	// nothing. answered: the upstream has answered a command. lastAnswer is when it did, or
	// when it greeted.
	provoked, answered bool
	lastAnswer         time.Time
	// nonSyncLiterals: the upstream accepts literals without synchronization.
	nonSyncLiterals bool
}

// replySide belongs to a goroutine of its own.
type replySide struct {
	*relay
	upstream *mailproto.LineReader
	// want is of the command under way; nil where there is none. late is of one that was
	// abandoned.
	want, late *expectation
	// nonSyncLiterals: the upstream has said that it accepts them.
	nonSyncLiterals bool
}

// expectation is what the command side tells of a command.
type expectation struct {
	number int
	tag    string // IMAP
	// login: a positive answer means that the client is logged in.
	login bool
	// listing: a positive answer may have several lines (POP3).
	listing bool
	// complained: the upstream has said BAD or NO without a tag (IMAP).
	complained bool
	// speechless: the client has said nothing yet that could have logged it in (POP3: AUTH
	// without an initial response), so that +OK can only ask for it.
	speechless bool
}

// answer is what the reply side tells of what came back.
type answer struct {
	number int // of the command
	// continuation: not the answer yet, but a request for another line or literal.
	continuation bool
	// ok and bad: OK or +OK; BAD. Neither: NO or -ERR. loggedIn: OK to a login.
	ok, bad, loggedIn bool
	// abandoned: it did not come.
	abandoned bool
	// nonSyncLiterals: the upstream has said that it accepts them.
	nonSyncLiterals bool
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

// complaintTime is how long an upstream may be silent that has said BAD or NO without a
// tag to a command: that may be all that it says.
const complaintTime = time.Second

func newCommandSide(s *session, client *mailproto.LineReader, g greeting) *commandSide {
	return &commandSide{
		relay: &relay{
			s:          s,
			expect:     make(chan expectation, 1),
			answers:    make(chan answer, 1),
			complaints: make(chan struct{}, 1),
			over:       make(chan struct{}),
			gone:       make(chan struct{}),
			quit:       make(chan struct{}),
		},
		client:          client,
		identity:        mailproto.Identity{Wanted: s.identified()},
		nonSyncLiterals: mailproto.AcceptsNonSyncLiterals(g.line),
		lastAnswer:      time.Now(),
	}
}

// identified reports whether the observer is to know who the client is.
func (s *session) identified() bool { return s.srv.cfg.Identity && s.Legacy }

// relayUntilLogin relays until the upstream has accepted a login, and returns that; or what
// ended the command side.
func (c *commandSide) relayUntilLogin() (*Login, error) {
	r := &replySide{relay: c.relay, upstream: c.s.upstream.lines, nonSyncLiterals: c.nonSyncLiterals}
	go r.run()
	for {
		c.busy = false
		line, err := c.client.StrictLine()
		loggedIn := c.loggedInLate()
		switch {
		case loggedIn:
			c.client.Unread(line)
		case err == nil:
			c.busy = true
			loggedIn, err = c.s.dialect.relayCommand(c, line)
		}
		if err != nil && !loggedIn {
			return nil, err
		}
		if loggedIn {
			<-c.over
			return &Login{Conn: &c.s.Conn, Account: c.identity.Account, Software: c.identity.Software}, nil
		}
	}
}

// loggedInLate reports whether a login that was abandoned has succeeded after all.
func (c *commandSide) loggedInLate() bool {
	if c.abandoned == "" {
		return false
	}
	select {
	case a := <-c.answers:
		return a.loggedIn
	default:
		return false
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
	select {
	case <-c.over:
	default:
		return false
	}
	return !c.busy && !c.upstreamKnowsClient && endingOf(err) == endTimeout && c.err != errClientLost && !c.saidBye && !c.s.srv.isDraining()
}

// send passes bytes of the client on.
func (c *commandSide) send(p []byte) error {
	n, err := c.s.upstream.Write(p)
	c.s.relayed(ToUpstream, n)
	if err != nil {
		return errUpstreamLost
	}
	return nil
}

// reply answers a command that is not for the upstream. The session goes on, and
// with it the deadline for all that comes before login.
func (c *commandSide) reply(format string, args ...any) error {
	_, err := fmt.Fprintf(c.s.tls, format, args...)
	return err
}

// await waits for the answer to what was sent. Where the upstream has complained without
// a tag and says nothing more, the command is abandoned: to the client that is its answer.
func (c *commandSide) await() (answer, error) {
	timeout, err := replyTimeouts*c.s.srv.cfg.UpstreamTimeout, errUpstreamSilent
	if left := time.Until(c.s.loginDeadline()); left < timeout {
		timeout, err = left, os.ErrDeadlineExceeded
	}
	timer, deadline := time.NewTimer(timeout), time.Now().Add(timeout)
	defer timer.Stop()
	for complained := false; ; {
		var a answer
		select {
		case a = <-c.answers:
		case <-c.complaints:
			complained = true
			timer.Reset(min(complaintTime, c.s.srv.cfg.UpstreamTimeout, time.Until(deadline)))
			continue
		case <-timer.C:
			if complained && err == errUpstreamSilent {
				return answer{number: c.asked, bad: true, abandoned: true}, nil
			}
		case <-c.over:
			err = errUpstreamLost
		case <-c.s.srv.draining:
			err = errDraining
		}
		if a.number == 0 {
			select {
			case a = <-c.answers: // it came at the same time
			default:
				return a, err
			}
		}
		c.nonSyncLiterals = c.nonSyncLiterals || a.nonSyncLiterals
		if a.number == c.asked || a.loggedIn {
			c.answered, c.lastAnswer = true, time.Now()
			return a, nil
		}
	}
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
		line, err := f.response()
		if err != nil {
			return answer{}, err
		}
		f.cancelled = string(line) == "*\r\n"
		f.provoked = true
		f.identity.Response(line)
		if err := f.send(line); err != nil {
			return answer{}, err
		}
	}
}

// response reads what the client answers to a request for more. Where that was a bare +OK,
// the client may take itself for logged in, and say what is not for the upstream.
func (f *forwarding) response() ([]byte, error) {
	for {
		line, err := f.client.StrictLine()
		cmd, _ := mailproto.ParsePOP3Command(line)
		if err != nil || !f.speechless || !cmd.Name.Is("STLS", "XCLIENT") {
			return line, err
		}
		if err := f.refusePOP3(cmd); err != nil {
			return nil, err
		}
	}
}

// loggedIn reports whether the command was a login that has succeeded; it counts
// one that the upstream has refused.
func (f *forwarding) loggedIn(a answer) bool {
	if f.login && !a.ok && !f.cancelled {
		f.s.failedLogins++
	}
	if a.abandoned {
		f.abandoned, f.provoked = f.tag, true
		if f.login { // whose account would it be, if it succeeds after another command?
			f.identity = mailproto.Identity{Software: f.identity.Software}
		}
	}
	return a.loggedIn
}

// send passes a part of the command on.
func (f *forwarding) send(p []byte) error {
	if !f.sent {
		f.sent = true
		f.asked++
		f.number = f.asked
		select {
		case <-f.complaints: // about an earlier one
		default:
		}
		f.expect <- f.expectation
	}
	return f.commandSide.send(p)
}

// run is the goroutine of the reply side. Unless a login has succeeded, it wakes
// the command side, which may be waiting for the client.
func (r *replySide) run() {
	if r.err = r.relayReplies(); r.err == nil {
		r.s.raw.SetReadDeadline(past) // the login may be one that was abandoned
	}
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
		case a.loggedIn:
			// The command side has to know before the client does: what the client sends
			// next is for the tunnel.
			if err = r.acknowledge(*a); err == nil {
				err = r.deliver(text)
			}
			return err
		default:
			if !a.continuation {
				r.want = nil
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

// expecting returns the expectation of the command that is under way, if any. Where a
// new one comes before the answer to the last, that was abandoned.
func (r *replySide) expecting() *expectation {
	select {
	case e := <-r.expect:
		if r.want != nil {
			r.late = r.want
		}
		r.want = &e
	default:
	}
	return r.want
}

// complain tells the command side that the upstream may have said all that it will.
func (r *replySide) complain() {
	select {
	case r.complaints <- struct{}{}:
	default:
	}
}

// deliver passes bytes of the upstream on, in whole responses: so that what
// Postern itself says stands between them.
func (r *relay) deliver(p []byte) error {
	n, err := r.s.tls.Write(p)
	r.s.relayed(ToClient, n)
	if err != nil {
		return errClientLost
	}
	return nil
}

// acknowledge hands an answer to the command side.
func (r *replySide) acknowledge(a answer) error {
	select {
	case r.answers <- a:
		return nil
	case <-r.quit:
		return io.EOF
	}
}

// afterEOF is how long an upstream may still answer a client that has closed
// its side before login.
const afterEOF = 5 * time.Second

// closeReason says goodbye where that makes sense, and names the close reason; err is
// what closeReason the command side.
func (c *commandSide) closeReason(err error) CloseReason {
	defer close(c.quit)
	select {
	case <-c.over:
		if endingOf(err) == endTimeout {
			err = errUpstreamLost
		}
	default:
	}
	fault, isFault := protocolNotice(err)
	switch {
	case c.s.srv.isDraining() && (err == errDraining || endingOf(err) == endTimeout):
		c.s.lastWord(c.s.goodbye(noticeShutdown))
		return ReasonShutdown
	case err == errUpstreamLost:
		return c.upstreamLost()
	case err == errUpstreamSilent:
		c.upstreamFailed(UpstreamTimeout, err)
		c.s.lastWord(c.s.goodbye(noticeUpstreamSilent))
		return ReasonUpstream
	case isFault:
		c.s.lastWord(c.s.goodbye(fault))
		return ReasonProtocol
	case endingOf(err) == endTimeout:
		c.s.lastWord(c.s.goodbye(noticeTooSlow))
		return ReasonTimeout
	case errors.Is(err, io.EOF):
		c.finishReplies()
	}
	return ReasonClient
}

// finishReplies lets the upstream answer a client that has closed its side, until
// it closes as well.
func (c *commandSide) finishReplies() {
	c.s.upstream.CloseWrite()
	for end := time.After(afterEOF); ; {
		select {
		case <-c.answers: // the reply side always flows
		case <-c.over:
			return
		case <-end:
			return
		}
	}
}

// upstreamLost ends a session whose upstream went away before login.
func (c *commandSide) upstreamLost() CloseReason {
	<-c.over
	if c.err == errClientLost {
		return ReasonClient
	}
	if !c.s.loggingOut {
		c.s.upstream.up.probeSoon() // it may be the client's fault, or everybody's trouble
	}
	switch {
	case c.lossReported:
	case c.s.loggingOut && (c.saidBye || c.err == io.EOF):
		return ReasonUpstream
	case c.saidBye:
		if !c.answered {
			c.upstreamFailed(UpstreamClosed, errUnaskedBye)
		}
		return ReasonUpstream
	case c.err == mailproto.ErrLineTooLong, c.err == mailproto.ErrLiterals, c.err == mailproto.ErrOutOfStep:
		c.upstreamFailed(UpstreamClosed, c.err)
	default:
		c.upstreamFailed(UpstreamClosed, errUpstreamLost)
	}
	c.s.lastWord(c.s.goodbye(noticeUpstreamLost))
	return ReasonUpstream
}

// upstreamFailed counts a failure of the upstream, unless the client may have brought it
// about by what it has said, or by saying nothing for long.
func (c *commandSide) upstreamFailed(reason UpstreamFailure, err error) {
	if c.provoked || !c.busy && time.Since(c.lastAnswer) > c.s.srv.cfg.UpstreamTimeout {
		c.s.srv.cfg.Log.Debug("upstream ended a session before login", "upstream", c.s.upstream.up.Name,
			"error", err.Error(), "conn_id", c.s.ID)
		return
	}
	c.s.countUpstreamFailure(reason, err)
}

// Bounds on what a client may say without a server having reason to hang up.
const (
	plainCommands = 10  // commands
	plainLength   = 512 // bytes of each
)

// says notes a command of the client. It provokes, unless it is one of the few that every
// server answers, short, printable, and no login that follows a refused one.
func (c *commandSide) says(line []byte, ordinary bool) {
	odd := func(b byte) bool { return b < ' ' || b > '~' || b == '{' }
	if !ordinary || c.asked >= plainCommands || c.s.failedLogins > 0 || len(line) > plainLength ||
		slices.ContainsFunc(mailproto.TrimLineEnd(line), odd) {
		c.provoked = true
	}
}
