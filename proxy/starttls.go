package proxy

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
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

// stage is a dialogue of the proxy's own: before TLS, and inside it with a client that
// is explained.
type stage struct {
	s   *session
	in  *mailproto.LineReader
	out io.Writer
	bad int // commands
}

// startTLS is the stage, until the OK to STARTTLS or STLS is sent; an error ends
// the connection. It returns what the client has said, if that was short and held no
// login: a Speech begins with it.
func (s *session) startTLS() (said []byte, err error) {
	st := &stage{s: s, in: mailproto.NewLineReader(s.raw), out: s.raw}
	st.in.Keep = true
	s.setDeadline(s.loginDeadline())
	if _, err := s.raw.Write(s.dialect.greetBeforeTLS()); err != nil {
		return nil, err
	}
	for {
		line, err := st.readLine()
		if err != nil {
			return nil, err
		}
		begin, err := s.dialect.commandBeforeTLS(st, line)
		switch {
		case err != nil:
			return nil, err
		case begin == nil && st.bad > maxBadCommands:
			return nil, errBadCommands
		case begin == nil:
			continue
		case len(st.in.Buffered()) > 0 || s.raw.hasInput():
			return nil, errInjection
		case !s.srv.clients.allowHandshake(s.Client.Addr(), time.Now()):
			return nil, errHandshakeLimit
		}
		_, err = s.raw.Write(begin)
		return st.in.HandedOut(), err
	}
}

// readLine reads a line, unless TLS begins instead: a client that takes the port for a
// TLS port begins with a record, or with an SSLv2-compatible ClientHello. A lone
// LF may end a line here, where no other server reads it.
func (st *stage) readLine() ([]byte, error) {
	if ahead := st.in.Buffered(); len(ahead) > 0 {
		if ahead[0] == recordHandshake || ahead[0] == recordAlert {
			return nil, errTLSTooSoon
		}
	} else {
		first, err := st.s.raw.peek(1)
		if err != nil {
			return nil, err
		}
		st.s.unaskedHeader()
		if c := first[0]; c == recordHandshake || c == recordAlert || c&0x80 != 0 && st.s.raw.sslv2() {
			return nil, errTLSTooSoon
		}
	}
	return st.in.Line()
}

func (st *stage) reply(format string, args ...any) error {
	_, err := fmt.Fprintf(st.out, format, args...)
	return err
}

// cleartextLogin reports a login that is refused.
func (st *stage) cleartextLogin(command mailproto.Keyword, args []byte) {
	st.in.Keep = false
	st.s.srv.cfg.Metrics.CleartextLogin(st.s.Listener)
	st.s.srv.cfg.Observer.LoginFailed(&LoginFailed{Conn: &st.s.Conn, BeforeTLS: true, Mechanism: mailproto.Mechanism(command, args)})
}

const capabilitiesBeforeTLS = "IMAP4rev1 ID STARTTLS LOGINDISABLED"

func (imapDialect) greetBeforeTLS() []byte {
	return []byte("* OK [CAPABILITY " + capabilitiesBeforeTLS + "] Postern ready, STARTTLS first.\r\n")
}

func (imapDialect) commandBeforeTLS(st *stage, line []byte) (begin []byte, err error) {
	line = append(bytes.Clone(mailproto.TrimLineEnd(line)), "\r\n"...)
	cmd, ok := mailproto.ParseIMAPCommand(line)
	tag := mailproto.IMAPTag(line)
	ok = ok && tag != nil
	if ok && cmd.Name.Is("STARTTLS") {
		return fmt.Appendf(nil, "%s OK Begin TLS now.\r\n", cmd.Tag), nil
	}
	// A login is refused before a synchronizing literal is asked for; what comes
	// without being asked for is thrown away unread.
	login := ok && cmd.Name.Is("LOGIN", "AUTHENTICATE")
	if login {
		st.cleartextLogin(cmd.Name, cmd.Args)
	}
	if err := st.skipLiterals(line, ok && !login); err != nil {
		return nil, err
	}
	switch {
	case !ok:
		st.bad++
		return nil, st.reply("%s BAD Malformed command.\r\n", cmp.Or(string(tag), "*"))
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
func (st *stage) skipLiterals(line []byte, request bool) error {
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

func (pop3Dialect) commandBeforeTLS(st *stage, line []byte) (begin []byte, err error) {
	cmd, _ := mailproto.ParsePOP3Command(line)
	if answered, err := st.answerPOP3(cmd, "STLS"); answered {
		return nil, err
	}
	switch {
	case cmd.Name.Is("STLS"):
		return []byte("+OK Begin TLS now.\r\n"), nil
	case cmd.Name.Is("USER", "APOP", "AUTH", "PASS"):
		// One count for an attempt: a PASS follows its USER, and an AUTH that
		// names no mechanism only asks which there are.
		st.in.Keep = st.in.Keep && len(cmd.Args) == 0
		if !cmd.Name.Is("PASS") && len(cmd.Args) > 0 {
			st.cleartextLogin(cmd.Name, cmd.Args)
		}
		return nil, st.reply("-ERR [AUTH] Log in over TLS only: say STLS first.\r\n")
	}
	st.bad++
	return nil, st.reply("-ERR Say STLS first.\r\n")
}

// answerPOP3 answers what may be asked in every stage; one capability is of this stage.
func (st *stage) answerPOP3(cmd mailproto.POP3Command, capability string) (answered bool, err error) {
	switch {
	case cmd.Name.Is("CAPA"):
		return true, st.reply("+OK Capabilities follow.\r\n%s\r\nRESP-CODES\r\nAUTH-RESP-CODE\r\n.\r\n", capability)
	case cmd.Name.Is("NOOP"):
		return true, st.reply("+OK\r\n")
	case cmd.Name.Is("QUIT"):
		st.reply("+OK Goodbye.\r\n")
		return true, errLoggedOut
	}
	return false, nil
}

// explain tells a client why it is not served, before it has sent a password: most
// programs show what answers a command, and few what comes unasked after STARTTLS. The
// deadline is that of the handshake. An upstream is not dialled.
func (s *session) explain() {
	st := &stage{s: s, in: mailproto.NewLineReader(s.tls), out: s.tls}
	s.tlsFarewell(s.dialect.explain(st, s.srv.explanation(s.verdict)))
}

// explain on imaps is the greeting. On imap it answers the first command, whatever that
// is, and throws away unread what belongs to it; a client that says nothing, or
// something without a tag, gets no tagged answer.
func (imapDialect) explain(st *stage, n notice) []byte {
	bye := st.s.goodbye(n)
	if st.s.Listener.ImplicitTLS() {
		return bye
	}
	tag := st.firstTag()
	text := fmt.Appendf(nil, "* OK %s%s\r\n%s", n.imapCode, n.text, bye)
	if tag != "" {
		text = fmt.Appendf(text, "%s NO %s%s\r\n", tag, n.imapCode, n.text)
	}
	return text
}

// firstTag reads a command with its literals, and returns its tag, or nothing. A
// synchronizing literal is not asked for. An empty line is no command.
func (st *stage) firstTag() string {
	for range maxBadCommands {
		line, err := st.in.Line()
		if err == mailproto.ErrLineTooLong {
			return string(mailproto.IMAPTag(st.in.Buffered()))
		} else if err != nil {
			return ""
		}
		if len(mailproto.TrimLineEnd(line)) > 0 {
			tag := string(mailproto.IMAPTag(line))
			st.skipLiterals(line, false) // whatever becomes of them, the client is told
			return tag
		}
	}
	return ""
}

// explainTime is how long a POP3 client may go on once it has been told: it may have
// more to ask before it shows what it was told.
const explainTime = time.Second

// explain answers CAPA, NOOP and QUIT, and tells the client in answer to all else. Of the
// capabilities USER stays, or many programs would not get that far (RFC 2449, Section
// 6.3: it need not be available to all users).
func (pop3Dialect) explain(st *stage, n notice) []byte {
	refusal := st.s.goodbye(n)
	if st.s.Listener.ImplicitTLS() {
		st.reply("+OK Postern ready.\r\n")
	}
	for told := false; ; {
		line, err := st.in.Line()
		if err != nil {
			if told {
				return nil
			}
			return refusal
		}
		cmd, _ := mailproto.ParsePOP3Command(line)
		answered, err := st.answerPOP3(cmd, "USER")
		if err == nil && !answered {
			_, err = st.out.Write(refusal)
			if !told {
				st.s.setDeadline(time.Now().Add(explainTime))
			}
			told = true
		}
		if err != nil {
			return nil
		}
	}
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
		return s.farewell(noticeInjection)
	case err == errHandshakeLimit:
		s.limitRefused(LimitHandshakesPerClient)
		s.raw.finish()
		return ReasonLimit
	case err == mailproto.ErrLineTooLong, err == mailproto.ErrLiterals, err == errBadCommands:
		return s.farewell(noticeTooMuch)
	case endingOf(err) == endTimeout && s.srv.isDraining():
		return s.farewell(noticeShutdown)
	case endingOf(err) == endTimeout:
		return s.farewell(noticeTooSlow)
	case err == errLoggedOut:
		s.raw.linger()
	}
	return ReasonClient
}
