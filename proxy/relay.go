package proxy

import (
	"errors"
	"io"
	"os"
	"sync/atomic"
	"time"
)

// A relay is a session between TLS and login. It is in lockstep: the commands
// side (the connection's own goroutine) sends one whole command upstream and
// reads no further until the replies side (a second goroutine) has seen its
// answer. The replies side always flows; it is the only one to parse what the
// upstream says, and the only one to know that a login succeeded, which it
// tells through a channel. So what a client pipelines behind its login waits in
// the one reader, in order, and both sides turn into plain copies at exactly
// the same point of the dialogue.
type relay struct {
	s                *session
	client, upstream *lineReader

	// expect carries what the next answer will mean, before the command that
	// asks for it is sent; answers carries what it was.
	expect  chan expectation
	answers chan answer
	// over is closed when the replies side has ended; then err says why, and
	// is nil after a login.
	over chan struct{}
	// gone is closed when the replies side does nothing more.
	gone chan struct{}
	err  error
	// quit is closed when the commands side has ended without a login.
	quit chan struct{}

	// told: the loss of the upstream has been counted.
	told bool
	// busy: the upstream has to do with a command.
	busy bool
	// spent: it knows something of the client that another one would not: a
	// login, good or bad, half of one, an ID, or a goodbye.
	spent bool

	// who is what the client says of itself; nil where nobody is to know.
	who *introduction

	// literalPlus: the upstream takes literals without synchronization.
	literalPlus atomic.Bool
	// saidBye: the upstream has said goodbye itself.
	saidBye atomic.Bool
}

// expectation is what the commands side tells of a command.
type expectation struct {
	tag string // IMAP
	// login: a positive answer means that the client is logged in.
	login bool
	// listing: a positive answer has several lines (POP3).
	listing bool
}

// answer is what the replies side tells of what came back.
type answer struct {
	// more: not the answer yet, but a request for another line or literal.
	more bool
	// ok and bad: OK or +OK; BAD. Neither: NO or -ERR.
	ok, bad bool
}

var (
	errUpstreamSilent = errors.New("upstream does not answer")
	errUpstreamLost   = errors.New("upstream closed before login")
	errDraining       = errors.New("shutting down")
	errClientLost     = errors.New("client went away")
	errOutOfStep      = errors.New("upstream answers what was not asked")
	errProtocol       = errors.New("command cannot be relayed")
)

// replyPatience is how many times UPSTREAM_TIMEOUT an upstream may think about
// one command before login: servers slow down failed logins on purpose.
const replyPatience = 3

func newRelay(s *session, client *lineReader, g greeting) *relay {
	r := &relay{
		s:        s,
		client:   client,
		upstream: s.upstream.lines,
		expect:   make(chan expectation, 1),
		answers:  make(chan answer, 1),
		over:     make(chan struct{}),
		gone:     make(chan struct{}),
		quit:     make(chan struct{}),
	}
	if s.identified() {
		r.who = new(introduction)
	}
	s.dialect.noteGreeting(r, g.line)
	return r
}

// login is the one that the upstream has accepted.
func (r *relay) login() *Login {
	l := &Login{Conn: &r.s.Conn}
	if r.who != nil {
		l.Account, l.Software = r.who.account, r.who.software
	}
	return l
}

// replaceable reports whether the commands side was ended by the loss of the
// upstream alone, between two commands, and before the upstream knew anything
// of the client that another one would not.
func (r *relay) replaceable(err error) bool {
	select {
	case <-r.over:
	default:
		return false
	}
	return !r.busy && !r.spent && endingOf(err) == endTimeout && r.err != errClientLost && !r.saidBye.Load() && !r.s.srv.isDraining()
}

// send passes bytes of the client's on.
func (r *relay) send(p []byte) error {
	n, err := r.s.upstream.Write(p)
	r.s.relayed(ToUpstream, n)
	if err != nil {
		return errUpstreamLost
	}
	return nil
}

// deliver passes bytes of the upstream's on, in whole responses: so that what
// the gate itself says stands between them.
func (r *relay) deliver(p []byte) error {
	n, err := r.s.tls.Write(p)
	r.s.relayed(ToClient, n)
	if err != nil {
		return errClientLost
	}
	return nil
}

// reply answers a command that is not for the upstream. The session goes on, and
// with it the deadline for all that comes before login.
func (r *relay) reply(p []byte) error {
	_, err := r.s.tls.Write(p)
	return err
}

// lastWord is Postern's own and the last to the client. The deadline for all that
// comes before login may have passed, so it has one of its own; nothing may be
// written after it.
func (r *relay) lastWord(p []byte) {
	r.s.raw.SetWriteDeadline(time.Now().Add(lingerTime))
	r.s.tls.Write(p)
}

// await waits for the answer to what was sent.
func (r *relay) await() (answer, error) {
	select {
	case a := <-r.answers:
		return a, nil
	default:
	}
	patience := replyPatience * r.s.srv.cfg.UpstreamTimeout
	left := time.Until(r.s.Accepted.Add(r.s.srv.cfg.TimeoutLogin))
	timer := time.NewTimer(min(patience, left))
	defer timer.Stop()
	select {
	case a := <-r.answers:
		return a, nil
	case <-r.over:
		select {
		case a := <-r.answers:
			return a, nil
		default:
		}
		return answer{}, errUpstreamLost
	case <-timer.C:
		if left < patience {
			return answer{}, os.ErrDeadlineExceeded
		}
		return answer{}, errUpstreamSilent
	case <-r.s.srv.draining:
		select {
		case a := <-r.answers:
			return a, nil
		default:
		}
		return answer{}, errDraining
	}
}

// expecting takes the expectation of the command that is under way, if any.
func (r *relay) expecting(e *expectation) *expectation {
	if e != nil {
		return e
	}
	select {
	case e := <-r.expect:
		return &e
	default:
		return nil
	}
}

// tell hands an answer to the commands side.
func (r *relay) tell(a answer) error {
	select {
	case r.answers <- a:
		return nil
	case <-r.quit:
		return io.EOF
	}
}

// upstreamOver ends the replies side. Unless a login has succeeded, it wakes
// the commands side, which may be waiting for the client.
func (r *relay) upstreamOver(err error) {
	r.err = err
	close(r.over)
	if err != nil {
		r.s.raw.SetReadDeadline(past)
	}
	close(r.gone)
}

// past is a deadline that has expired.
var past = time.Unix(1, 0)

// afterEOF is how long an upstream may still answer a client that has closed
// its side before login.
const afterEOF = 5 * time.Second

// ended says goodbye in the protocol's words where that makes sense, and names
// the reason; err is what ended the commands side.
func (r *relay) ended(err error) CloseReason {
	defer close(r.quit)
	select {
	case <-r.over:
		if endingOf(err) == endTimeout {
			err = errUpstreamLost
		}
	default:
	}
	d := r.s.dialect
	switch {
	case r.s.srv.isDraining() && (err == errDraining || endingOf(err) == endTimeout):
		r.lastWord(d.goodbye(noticeShutdown, "Shutting down, please come back in a moment."))
		return ReasonShutdown
	case err == errUpstreamLost:
		return r.lostUpstream()
	case err == errUpstreamSilent:
		r.s.upstreamFailed(UpstreamTimeout, err)
		r.lastWord(d.goodbye(noticeUnavailable, "The mail server does not answer, please try again later."))
		return ReasonUpstream
	case err == errLineTooLong, err == errLiterals, err == errLineEnd, err == errID, err == errProtocol:
		r.lastWord(d.goodbye(noticeProtocol, protocolFault(err)))
		return ReasonProtocol
	case endingOf(err) == endTimeout:
		r.lastWord(d.goodbye(noticeTimeout, "Too slow to log in."))
		return ReasonTimeout
	}
	if errors.Is(err, io.EOF) {
		// The client has said all that it will; what it asked is answered.
		r.s.upstream.CloseWrite()
		for end := time.After(afterEOF); ; {
			select {
			case <-r.answers: // the replies side always flows
				continue
			case <-r.over:
			case <-end:
			}
			break
		}
	}
	return ReasonClient
}

// lostUpstream ends a session whose upstream went away before login.
func (r *relay) lostUpstream() CloseReason {
	<-r.over
	switch {
	case r.err == errClientLost:
		return ReasonClient
	case r.told:
	case r.saidBye.Load() || r.err == io.EOF && r.s.loggingOut:
		return ReasonUpstream
	case r.err == errLineTooLong, r.err == errLiterals, r.err == errOutOfStep:
		r.s.upstreamFailed(UpstreamClosed, r.err)
	default:
		r.s.upstreamFailed(UpstreamClosed, errUpstreamLost)
	}
	r.lastWord(r.s.dialect.goodbye(noticeUnavailable, "The mail server went away, please try again later."))
	return ReasonUpstream
}

func protocolFault(err error) string {
	switch err {
	case errLineTooLong:
		return "Line too long before login."
	case errLiterals:
		return "Literals too long before login."
	case errLineEnd:
		return "Lines end in CRLF, and hold no CR, LF or NUL elsewhere."
	}
	return "Malformed command before login."
}
