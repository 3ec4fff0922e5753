package proxy

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"time"
)

// The dialogue before TLS, on the listeners imap and pop3. It is the gate's
// own from the greeting to the command that begins TLS, and nothing of it
// survives that: the reader is thrown away, what it held ends the connection.

var (
	// errTLSTooSoon is a client that begins TLS without asking for it.
	errTLSTooSoon = errors.New("TLS before STARTTLS")
	// errInjection is data that stands behind STARTTLS or STLS.
	errInjection = errors.New("data behind STARTTLS")
	// errLeft is a client that has said goodbye.
	errLeft = errors.New("client logged out")
	// errHandshakeLimit is a client that begins TLS too often.
	errHandshakeLimit = errors.New("too many handshakes")
	// errBabble is a client that says nothing sensible.
	errBabble = errors.New("too many bad commands")
)

// maxBadCommands is how many commands a client may get wrong before TLS.
const maxBadCommands = 20

// front is that dialogue.
type front struct {
	s   *session
	in  *lineReader
	bad int
}

// startTLS has the dialogue until the OK to STARTTLS or STLS is sent; an error
// ends the connection.
func (s *session) startTLS() error {
	f := &front{s: s, in: &lineReader{src: s.raw}}
	s.setDeadline(s.Accepted.Add(s.srv.cfg.TimeoutLogin))
	if err := f.say(s.dialect.frontGreeting()); err != nil {
		return err
	}
	for {
		line, err := f.line()
		if err != nil {
			return err
		}
		begin, err := s.dialect.frontCommand(f, line)
		if err != nil {
			return err
		}
		if begin != nil {
			if len(f.in.buffered()) > 0 || s.raw.pending() {
				return errInjection
			}
			if !s.srv.clients.handshake(s.Client.Addr(), time.Now()) {
				return errHandshakeLimit
			}
			return f.say(begin)
		}
		if f.bad > maxBadCommands {
			return errBabble
		}
	}
}

// line reads a line, but first looks whether it is one: a client that takes
// the port for one of TLS begins with a record, or with a hello in SSL 2.0
// format. A lone LF is good enough here, where nobody else reads it.
func (f *front) line() ([]byte, error) {
	if ahead := f.in.buffered(); len(ahead) > 0 {
		if ahead[0] == recordHandshake || ahead[0] == recordAlert {
			return nil, errTLSTooSoon
		}
	} else {
		first, err := f.s.raw.peek(1)
		if err != nil {
			return nil, err
		}
		if c := first[0]; c == recordHandshake || c == recordAlert || c&0x80 != 0 && f.s.raw.ssl2Hello() {
			return nil, errTLSTooSoon
		}
	}
	return f.in.line()
}

func (f *front) say(p []byte) error {
	_, err := f.s.raw.Write(p)
	return err
}

func (f *front) sayf(format string, args ...any) error {
	return f.say(fmt.Appendf(nil, format, args...))
}

// cleartextLogin counts a login that is refused.
func (f *front) cleartextLogin() { f.s.srv.cfg.Metrics.CleartextLogin(f.s.Listener) }

func (imapDialect) frontGreeting() []byte {
	return []byte("* OK [CAPABILITY " + frontCapabilities + "] Postern ready, STARTTLS first.\r\n")
}

const frontCapabilities = "IMAP4rev1 ID STARTTLS LOGINDISABLED"

// frontCommand answers one command; it returns the line that begins TLS where
// that is due.
func (imapDialect) frontCommand(f *front, line []byte) (begin []byte, err error) {
	line = append(line[:len(line)-len(lineEnd(line)):len(line)-len(lineEnd(line))], crlf...)
	cmd, ok := parseIMAPCommand(line)
	if !ok || len(cmd.tag) > 64 {
		// The tag may be anything, it is not echoed.
		f.bad++
		return nil, f.sayf("* BAD Malformed command.\r\n")
	}
	tag, name := string(cmd.tag), strings.ToUpper(string(cmd.name))
	switch name {
	case "STARTTLS":
		return fmt.Appendf(nil, "%s OK Begin TLS now.\r\n", tag), nil
	case "LOGIN", "AUTHENTICATE":
		// Refused before a synchronizing literal is asked for; what comes
		// without being asked for is thrown away unread.
		f.cleartextLogin()
		if err := f.skipLiterals(line, false); err != nil {
			return nil, err
		}
		return nil, f.sayf("%s NO [PRIVACYREQUIRED] Log in over TLS only: say STARTTLS first.\r\n", tag)
	}
	if err := f.skipLiterals(line, true); err != nil {
		return nil, err
	}
	switch name {
	case "CAPABILITY":
		return nil, f.sayf("* CAPABILITY %s\r\n%s OK Done.\r\n", frontCapabilities, tag)
	case "ID":
		return nil, f.sayf("* ID (\"name\" \"Postern\")\r\n%s OK Done.\r\n", tag)
	case "NOOP":
		return nil, f.sayf("%s OK Done.\r\n", tag)
	case "LOGOUT":
		f.sayf("* BYE Goodbye.\r\n%s OK Done.\r\n", tag)
		return nil, errLeft
	}
	f.bad++
	return nil, f.sayf("%s BAD Say STARTTLS first.\r\n", tag)
}

// skipLiterals throws away the literals of a command and what follows them;
// ask says whether to ask for those that wait to be asked for.
func (f *front) skipLiterals(line []byte, ask bool) error {
	for total := 0; ; {
		lit, ok := literalAtEnd(line)
		if !ok || lit.sync && !ask {
			return nil
		}
		if total += lit.size; total > maxLiterals {
			return errLiterals
		}
		if lit.sync {
			if err := f.sayf("+ Go ahead.\r\n"); err != nil {
				return err
			}
		}
		if _, err := f.in.octets(nil, lit.size); err != nil {
			return err
		}
		var err error
		if line, err = f.in.line(); err != nil {
			return err
		}
	}
}

func (pop3Dialect) frontGreeting() []byte { return []byte("+OK Postern ready, STLS first.\r\n") }

func (pop3Dialect) frontCommand(f *front, line []byte) (begin []byte, err error) {
	name, args := pop3Command(line)
	switch string(bytes.ToUpper(name)) {
	case "STLS":
		return []byte("+OK Begin TLS now.\r\n"), nil
	case "CAPA":
		return nil, f.sayf("+OK Capabilities follow.\r\nSTLS\r\nRESP-CODES\r\nAUTH-RESP-CODE\r\n.\r\n")
	case "USER", "APOP", "AUTH", "PASS":
		// One count for an attempt: a PASS follows its USER, and an AUTH that
		// names no mechanism only asks which there are.
		if !equalFold(name, "PASS") && len(args) > 0 {
			f.cleartextLogin()
		}
		return nil, f.sayf("-ERR [AUTH] Log in over TLS only: say STLS first.\r\n")
	case "NOOP":
		return nil, f.sayf("+OK\r\n")
	case "QUIT":
		f.sayf("+OK Goodbye.\r\n")
		return nil, errLeft
	}
	f.bad++
	return nil, f.sayf("-ERR Say STLS first.\r\n")
}

// frontEnded ends a connection that did not come to TLS.
func (s *session) frontEnded(err error) CloseReason {
	d := s.dialect
	switch {
	case err == errTLSTooSoon:
		s.tlsTooSoon()
		s.raw.linger()
		return ReasonHandshake
	case err == errInjection:
		s.srv.cfg.Metrics.Injection(s.Listener)
		s.farewell(d.goodbye(noticeProtocol, "Data behind the command that begins TLS."))
		return ReasonInjection
	case err == errHandshakeLimit:
		s.srv.cfg.Metrics.LimitRefused(s.Listener, LimitHandshakesPerClient)
		s.raw.finish()
		return ReasonLimit
	case err == errLineTooLong, err == errLiterals, err == errBabble:
		s.farewell(d.goodbye(noticeProtocol, "Too much before TLS."))
		return ReasonProtocol
	case s.srv.isDraining() && endingOf(err) == endTimeout:
		s.farewell(d.goodbye(noticeShutdown, "Shutting down, please come back in a moment."))
		return ReasonShutdown
	case endingOf(err) == endTimeout:
		s.farewell(d.goodbye(noticeTimeout, "Too slow to log in."))
		return ReasonTimeout
	case err == errLeft:
		s.raw.linger()
	}
	return ReasonClient
}
