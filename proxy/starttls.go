package proxy

import (
	"bytes"
	"errors"
	"fmt"
	"time"

	"postern/internal/mailproto"
)

// The STARTTLS stage is the dialogue before TLS, on the listeners imap and pop3.
// It is the proxy's own from the greeting to the command that begins TLS, and
// nothing of it survives that: the reader is dropped, and what it still holds
// ends the connection.

var (
	// errTLSTooSoon is a client that begins TLS without asking for it.
	errTLSTooSoon = errors.New("TLS before STARTTLS")
	// errInjection is data that follows STARTTLS or STLS.
	errInjection = errors.New("data behind STARTTLS")
	// errLoggedOut is a client that has said goodbye.
	errLoggedOut = errors.New("client logged out")
	// errHandshakeLimit is a client that begins TLS too often.
	errHandshakeLimit = errors.New("too many handshakes")
	errBadCommands    = errors.New("too many bad commands")
)

// maxBadCommands is how many commands a client may get wrong before TLS.
const maxBadCommands = 20

type startTLSStage struct {
	s   *session
	in  *mailproto.LineReader
	bad int // commands
}

// startTLS is the stage, until the OK to STARTTLS or STLS is sent; an error ends
// the connection.
func (s *session) startTLS() error {
	st := &startTLSStage{s: s, in: mailproto.NewLineReader(s.raw)}
	s.setDeadline(s.loginDeadline())
	if _, err := s.raw.Write(s.dialect.greetBeforeTLS()); err != nil {
		return err
	}
	for {
		line, err := st.readLine()
		if err != nil {
			return err
		}
		begin, err := s.dialect.commandBeforeTLS(st, line)
		switch {
		case err != nil:
			return err
		case begin == nil && st.bad > maxBadCommands:
			return errBadCommands
		case begin == nil:
			continue
		case len(st.in.Buffered()) > 0 || s.raw.hasInput():
			return errInjection
		case !s.srv.clients.allowHandshake(s.Client.Addr(), time.Now()):
			return errHandshakeLimit
		}
		_, err = s.raw.Write(begin)
		return err
	}
}

// readLine reads a line, unless TLS begins instead: a client that takes the port for a
// TLS port begins with a record, or with an SSLv2-compatible ClientHello. A lone
// LF may end a line here, where no other server reads it.
func (st *startTLSStage) readLine() ([]byte, error) {
	if ahead := st.in.Buffered(); len(ahead) > 0 {
		if ahead[0] == recordHandshake || ahead[0] == recordAlert {
			return nil, errTLSTooSoon
		}
	} else {
		first, err := st.s.raw.peek(1)
		if err != nil {
			return nil, err
		}
		if c := first[0]; c == recordHandshake || c == recordAlert || c&0x80 != 0 && st.s.raw.sslv2() {
			return nil, errTLSTooSoon
		}
	}
	return st.in.Line()
}

func (st *startTLSStage) reply(format string, args ...any) error {
	_, err := fmt.Fprintf(st.s.raw, format, args...)
	return err
}

// cleartextLogin counts a login that is refused.
func (st *startTLSStage) cleartextLogin() { st.s.srv.cfg.Metrics.CleartextLogin(st.s.Listener) }

const capabilitiesBeforeTLS = "IMAP4rev1 ID STARTTLS LOGINDISABLED"

func (imapDialect) greetBeforeTLS() []byte {
	return []byte("* OK [CAPABILITY " + capabilitiesBeforeTLS + "] Postern ready, STARTTLS first.\r\n")
}

func (imapDialect) commandBeforeTLS(st *startTLSStage, line []byte) (begin []byte, err error) {
	line = append(bytes.Clone(mailproto.TrimLineEnd(line)), "\r\n"...)
	cmd, ok := mailproto.ParseIMAPCommand(line)
	if !ok || len(cmd.Tag) > 64 {
		// The tag may be anything, it is not echoed.
		st.bad++
		return nil, st.reply("* BAD Malformed command.\r\n")
	}
	if cmd.Name.Is("STARTTLS") {
		return fmt.Appendf(nil, "%s OK Begin TLS now.\r\n", cmd.Tag), nil
	}
	// A login is refused before a synchronizing literal is asked for; what comes
	// without being asked for is thrown away unread.
	login := cmd.Name.Is("LOGIN", "AUTHENTICATE")
	if login {
		st.cleartextLogin()
	}
	if err := st.skipLiterals(line, !login); err != nil {
		return nil, err
	}
	switch {
	case login:
		return nil, st.reply("%s NO [PRIVACYREQUIRED] Log in over TLS only: say STARTTLS first.\r\n", cmd.Tag)
	case cmd.Name.Is("CAPABILITY"):
		return nil, st.reply("* CAPABILITY %s\r\n%s OK Done.\r\n", capabilitiesBeforeTLS, cmd.Tag)
	case cmd.Name.Is("ID"):
		return nil, st.reply("* ID (\"name\" \"Postern\")\r\n%s OK Done.\r\n", cmd.Tag)
	case cmd.Name.Is("NOOP"):
		return nil, st.reply("%s OK Done.\r\n", cmd.Tag)
	case cmd.Name.Is("LOGOUT"):
		st.reply("* BYE Goodbye.\r\n%s OK Done.\r\n", cmd.Tag)
		return nil, errLoggedOut
	}
	st.bad++
	return nil, st.reply("%s BAD Say STARTTLS first.\r\n", cmd.Tag)
}

// skipLiterals throws away the literals of a command and what follows them.
// Synchronizing ones are asked for where request says so, and else never come.
func (st *startTLSStage) skipLiterals(line []byte, request bool) error {
	for total := 0; ; {
		lit, ok := mailproto.LiteralAtEnd(line)
		if !ok || lit.Sync && !request {
			return nil
		}
		if total += lit.Size; total > mailproto.MaxLiterals {
			return mailproto.ErrLiterals
		}
		if lit.Sync {
			if err := st.reply("+ Go ahead.\r\n"); err != nil {
				return err
			}
		}
		if _, err := st.in.Octets(nil, lit.Size); err != nil {
			return err
		}
		var err error
		if line, err = st.in.Line(); err != nil {
			return err
		}
	}
}

func (pop3Dialect) greetBeforeTLS() []byte { return []byte("+OK Postern ready, STLS first.\r\n") }

func (pop3Dialect) commandBeforeTLS(st *startTLSStage, line []byte) (begin []byte, err error) {
	cmd, _ := mailproto.ParsePOP3Command(line)
	switch {
	case cmd.Name.Is("STLS"):
		return []byte("+OK Begin TLS now.\r\n"), nil
	case cmd.Name.Is("CAPA"):
		return nil, st.reply("+OK Capabilities follow.\r\nSTLS\r\nRESP-CODES\r\nAUTH-RESP-CODE\r\n.\r\n")
	case cmd.Name.Is("USER", "APOP", "AUTH", "PASS"):
		// One count for an attempt: a PASS follows its USER, and an AUTH that
		// names no mechanism only asks which there are.
		if !cmd.Name.Is("PASS") && len(cmd.Args) > 0 {
			st.cleartextLogin()
		}
		return nil, st.reply("-ERR [AUTH] Log in over TLS only: say STLS first.\r\n")
	case cmd.Name.Is("NOOP"):
		return nil, st.reply("+OK\r\n")
	case cmd.Name.Is("QUIT"):
		st.reply("+OK Goodbye.\r\n")
		return nil, errLoggedOut
	}
	st.bad++
	return nil, st.reply("-ERR Say STLS first.\r\n")
}

// startTLSFailed ends a connection that did not come to TLS.
func (s *session) startTLSFailed(err error) CloseReason {
	switch {
	case err == errTLSTooSoon:
		s.tlsTooSoon()
		s.raw.linger()
		return ReasonHandshake
	case err == errInjection:
		s.srv.cfg.Metrics.Injection(s.Listener)
		s.farewell(noticeInjection)
		return ReasonInjection
	case err == errHandshakeLimit:
		s.srv.cfg.Metrics.LimitRefused(s.Listener, LimitHandshakesPerClient)
		s.raw.finish()
		return ReasonLimit
	case err == mailproto.ErrLineTooLong, err == mailproto.ErrLiterals, err == errBadCommands:
		s.farewell(noticeTooMuch)
		return ReasonProtocol
	case endingOf(err) == endTimeout && s.srv.isDraining():
		s.farewell(noticeShutdown)
		return ReasonShutdown
	case endingOf(err) == endTimeout:
		s.farewell(noticeTooSlow)
		return ReasonTimeout
	case err == errLoggedOut:
		s.raw.linger()
	}
	return ReasonClient
}
