package proxy

import (
	"errors"
	"fmt"
	"io"
	"net/netip"
	"regexp"
	"strings"
	"time"

	"postern/internal/mailproto"
	"postern/policy"
)

// dialect is what differs between IMAP and POP3.
type dialect interface {
	// greetBeforeTLS and commandBeforeTLS are the STARTTLS stage. The latter
	// answers one command; it returns the line that begins TLS where the client
	// has asked for that.
	greetBeforeTLS() []byte
	commandBeforeTLS(st *stage, line []byte) (begin []byte, err error)
	// explain tells a client why it is not served; what it returns is the last word.
	explain(st *stage, n notice) []byte
	// judgeGreeting judges an upstream's greeting, and returns it as it holds
	// inside TLS.
	judgeGreeting(line []byte) ([]byte, UpstreamFailure)
	// identify tells the upstream where a client is, as far as the protocol has a
	// way, and returns the reply.
	identify(c *upstreamConn, client, destination netip.AddrPort) (reply string, err error)
	// capabilities asks for what clients ask for first, and accepts nothing but an
	// answer to that.
	capabilities(c *upstreamConn, header bool) ([]string, error)
	// greetAgain makes a greeting of what the upstream says inside TLS, after
	// STARTTLS, where it does not greet.
	greetAgain(c *upstreamConn) (greeting, error)
	// relayCommand relays one command, whose first line is given, and its
	// answer.
	relayCommand(c *commandSide, line []byte) (loggedIn bool, err error)
	// readReply reads what the upstream sends next: whole, as the client may see
	// it, and what it answers to the command under way, or nil.
	readReply(r *replySide) ([]byte, *answer, error)
}

func dialectOf(p Protocol) dialect {
	if p == ProtocolIMAP {
		return imapDialect{}
	}
	return pop3Dialect{}
}

// notice is what a client is told when its connection ends, and the reason for that: a
// response code of IMAP (RFC 9051, Section 7.1; RFC 5530, Section 3) and one of POP3
// (RFC 3206, Section 4), and a text.
type notice struct {
	reason                   CloseReason
	imapCode, pop3Code, text string
}

var (
	noticeShutdown       = notice{ReasonShutdown, "", "[SYS/TEMP] ", "Shutting down, please come back in a moment."}
	noticeConnections    = notice{ReasonLimit, "[LIMIT] ", "[SYS/TEMP] ", "Too many connections, please try again later."}
	noticeTooSlow        = notice{ReasonTimeout, "", "[SYS/TEMP] ", "Too slow to log in."}
	noticeNotTLS         = notice{ReasonHandshake, "", "", "This is a port for TLS: choose SSL/TLS in your mail program."}
	noticeInjection      = notice{ReasonInjection, "", "", "Data behind the command that begins TLS."}
	noticeTooMuch        = notice{ReasonProtocol, "", "", "Too much before TLS."}
	noticeNoUpstream     = notice{ReasonNoUpstream, "[UNAVAILABLE] ", "[SYS/TEMP] ", "The mail server cannot be reached, please try again later."}
	noticeUpstreamSilent = notice{ReasonUpstream, "[UNAVAILABLE] ", "[SYS/TEMP] ", "The mail server does not answer, please try again later."}
	noticeUpstreamLost   = notice{ReasonUpstream, "[UNAVAILABLE] ", "[SYS/TEMP] ", "The mail server went away, please try again later."}
)

// protocolFaults are for what cannot be relayed.
var protocolFaults = map[error]string{
	mailproto.ErrLineTooLong: "Line too long before login.",
	mailproto.ErrLiterals:    "Literals too long before login.",
	mailproto.ErrLineEnd:     "Lines end in CRLF, and hold no CR, LF or NUL elsewhere.",
	mailproto.ErrID:          "Malformed command before login.",
	errProtocol:              "Malformed command before login.",
}

// DefaultExplainText is what a client is told whose version is too old.
const DefaultExplainText = "TLS {version} is no longer accepted here; update your mail program to one that supports TLS {floor} or later."

// explainCipher is what a client is told whose version would do.
const explainCipher = "The encryption that your mail program offers is no longer accepted here; please update it."

// explanation is what a legacy client is told.
func (srv *Server) explanation(v policy.Verdict) notice {
	text := explainCipher
	if v.Reason != policy.ReasonCipher {
		text = strings.NewReplacer(
			"{version}", v.Version.Number(),
			"{floor}", v.Floor.MinVersion().Number(),
		).Replace(srv.tls.snapshot.Load().explainText)
	}
	return notice{ReasonExplained, "[ALERT] ", "[SYS/PERM] ", text}
}

// goodbye is a notice in the words of the client's protocol.
func (s *session) goodbye(n notice) []byte {
	if s.Listener.Protocol() == ProtocolIMAP {
		return fmt.Appendf(nil, "* BYE %s%s\r\n", n.imapCode, n.text)
	}
	return fmt.Appendf(nil, "-ERR %s%s\r\n", n.pop3Code, n.text)
}

// farewell ends the connection of a client below TLS with a notice.
func (s *session) farewell(n notice) CloseReason {
	s.raw.SetWriteDeadline(time.Now().Add(lingerTime))
	s.raw.Write(s.goodbye(n))
	s.raw.linger()
	return n.reason
}

// lastWord is the last to a client inside TLS. The deadline for all that comes
// before login may have passed, so it has one of its own; nothing may be written
// after it.
func (s *session) lastWord(p []byte) {
	s.raw.SetWriteDeadline(time.Now().Add(lingerTime))
	s.tls.Write(p)
}

// notify has a notice for the last word.
func (s *session) notify(n notice) CloseReason {
	s.lastWord(s.goodbye(n))
	return n.reason
}

// tlsFarewell is the last word, close_notify, FIN, and what still comes is thrown
// away for a while, so that no reset overtakes the text.
func (s *session) tlsFarewell(text []byte) {
	s.lastWord(text)
	s.closeTLS()
}

// closeTLS closes in order (RFC 8446, Section 6.1).
func (s *session) closeTLS() {
	s.raw.SetWriteDeadline(time.Now().Add(lingerTime))
	s.tls.CloseWrite()
	s.raw.linger()
}

// afterEOF is how long an upstream may still answer a client that has closed
// its side before login.
const afterEOF = 5 * time.Second

// closeReason says goodbye where that makes sense, and names the close reason; err is
// what closeReason the command side.
func (c *commandSide) closeReason(err error) CloseReason {
	defer close(c.quit)
	if isClosed(c.over) && endingOf(err) == endTimeout {
		err = errUpstreamLost
	}
	fault, isFault := protocolFaults[err]
	switch {
	case c.s.srv.isDraining() && (err == errDraining || endingOf(err) == endTimeout):
		return c.s.notify(noticeShutdown)
	case err == errUpstreamLost:
		return c.upstreamLost()
	case err == errUpstreamSilent:
		c.upstreamFailed(UpstreamTimeout, err)
		return c.s.notify(noticeUpstreamSilent)
	case isFault:
		return c.s.notify(notice{reason: ReasonProtocol, text: fault})
	case endingOf(err) == endTimeout:
		return c.s.notify(noticeTooSlow)
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
	return c.s.notify(noticeUpstreamLost)
}

// upstreamFailed counts a failure of the upstream, unless the client may have brought it
// about by what it has said, or by saying nothing for long.
func (c *commandSide) upstreamFailed(reason UpstreamFailure, err error) {
	if !c.provoked && (c.busy || time.Since(c.lastAnswer) < c.s.srv.cfg.UpstreamTimeout) {
		up := c.s.upstream.up.Name
		c.s.srv.cfg.Metrics.UpstreamFailed(up, reason)
		c.s.srv.cfg.Log.Info("upstream failed before login", "upstream", up, "reason", string(reason), "error", err.Error(), "conn_id", c.s.ID)
	}
}

// plain is a line that has no literal, and is printable.
var plain = regexp.MustCompile(`^[ -z|}~]*\r\n$`)

// maxPlain is the longest line, in bytes, that no server has reason to dislike.
const maxPlain = 502

// says notes a command of the client. It provokes, unless it is one of the few that every
// server answers, in a plain line, and no login that follows a refused one.
func (c *commandSide) says(line []byte, ordinary bool) {
	c.said++
	c.provoked = c.provoked || !ordinary || c.said > 10 || c.s.failedLogins > 0 || len(line) > maxPlain || !plain.Match(line)
}
