package proxy

import (
	"bytes"
	"fmt"
	"io"
)

// pop3Dialect is what is POP3 about a session (RFC 1939, RFC 2449, RFC 5034).
type pop3Dialect struct{}

func (pop3Dialect) goodbye(n notice, text string) []byte {
	code := ""
	switch n {
	case noticeUnavailable, noticeLimit, noticeShutdown, noticeTimeout:
		code = "[SYS/TEMP] " // RFC 3206, Section 4
	case noticeExplain:
		code = "[SYS/PERM] "
	}
	return fmt.Appendf(nil, "-ERR %s%s\r\n", code, text)
}

// greeting judges the upstream's first line (RFC 1939, Section 4).
func (pop3Dialect) greeting(line []byte) ([]byte, UpstreamFailure) {
	switch {
	case isPOP3Status(line, "+OK"):
		return line, ""
	case isPOP3Status(line, "-ERR"):
		return line, UpstreamRefused
	}
	return nil, UpstreamGreeting
}

func (pop3Dialect) noteGreeting(*relay, []byte) {}

func (pop3Dialect) requestTLS(in *lineReader, out io.Writer) error {
	if _, err := io.WriteString(out, "STLS\r\n"); err != nil {
		return err
	}
	line, err := in.line()
	if err == nil && !isPOP3Status(line, "+OK") {
		err = fmt.Errorf("%w: %.80q", errNoStartTLS, line)
	}
	return err
}

// greetAgain greets in the gate's own words: a timestamp for APOP that came
// before TLS would not be worth its name.
func (pop3Dialect) greetAgain(*upstreamConn) (greeting, error) {
	line := []byte("+OK Postern ready.\r\n")
	return greeting{line: line, shown: line}, nil
}

func (pop3Dialect) identify(*session) error { return nil }

// isPOP3Status reports whether a reply begins with that status indicator.
func isPOP3Status(line []byte, status string) bool {
	if !hasPrefixFold(line, status) {
		return false
	}
	rest := line[len(status):]
	return len(rest) == 0 || rest[0] == ' ' || rest[0] == '\r' || rest[0] == '\n'
}

// replies passes on what the upstream says until a login has succeeded or the
// upstream has gone. POP3 has no tags and no unasked replies: each answers the
// command under way.
func (pop3Dialect) replies(r *relay) error {
	var want *expectation
	for {
		line, err := r.upstream.line()
		if err != nil {
			return err
		}
		if want = r.expecting(want); want == nil {
			return r.unasked(line)
		}
		switch {
		case isPOP3Status(line, "+OK"):
			if want.listing {
				if line, err = r.listing(line); err != nil {
					return err
				}
			}
			if want.login {
				if err = r.tell(answer{ok: true}); err == nil {
					err = r.deliver(line)
				}
				return err
			}
			if err = r.deliver(line); err == nil {
				err = r.tell(answer{ok: true})
			}
			want = nil
		case isPOP3Status(line, "-ERR"):
			if err = r.deliver(line); err == nil {
				err = r.tell(answer{})
			}
			want = nil
		case line[0] == '+':
			if err = r.deliver(line); err == nil {
				err = r.tell(answer{more: true})
			}
		default:
			return errOutOfStep
		}
		if err != nil {
			return err
		}
	}
}

// unasked is a line that answers no command: an -ERR is a goodbye, as when the
// upstream has waited for too long.
func (r *relay) unasked(line []byte) error {
	if !isPOP3Status(line, "-ERR") {
		return errOutOfStep
	}
	r.saidBye.Store(true)
	if err := r.deliver(line); err != nil {
		return err
	}
	_, err := r.upstream.line()
	if err == nil {
		err = errOutOfStep
	}
	return err
}

// listing reads the rest of a multi-line reply to CAPA, AUTH or LANG (RFC 1939,
// Section 3), without what is untrue inside TLS.
func (r *relay) listing(first []byte) ([]byte, error) {
	whole := bytes.Clone(first)
	for {
		line, err := r.upstream.line()
		if err != nil {
			return nil, err
		}
		whole = append(whole, trueCAPA(line)...)
		if len(whole) > maxLiterals {
			return nil, errLiterals
		}
		if body := line[:len(line)-len(lineEnd(line))]; len(body) == 1 && body[0] == '.' {
			return whole, nil
		}
	}
}

// commands passes the client's commands on, one at a time, until a login has
// succeeded; otherwise it returns what ended the session.
func (pop3Dialect) commands(r *relay) (*Login, error) {
	for {
		line, err := r.client.strictLine()
		if err != nil {
			return nil, err
		}
		name, args := pop3Command(line)
		is := func(s string) bool { return equalFold(name, s) }
		if is("STLS") || is("XCLIENT") {
			err := r.reply(fmt.Appendf(nil, "-ERR %s is not available here.\r\n", bytes.ToUpper(name)))
			if err != nil {
				return nil, err
			}
			continue
		}
		if len(name) == 0 || !all(name, isAtomChar) {
			return nil, errProtocol
		}
		if is("APOP") && r.s.reconnects > 0 {
			// The digest is of another upstream's timestamp.
			if err := r.reply([]byte("-ERR [SYS/TEMP] Please connect again.\r\n")); err != nil {
				return nil, err
			}
			continue
		}
		r.who.pop3Command(name, args)
		r.s.loggingOut = is("QUIT")
		login := is("PASS") || is("APOP") || is("AUTH") && len(args) > 0
		r.spent = r.spent || login || is("USER") || r.s.loggingOut
		r.expect <- expectation{
			login:   login,
			listing: is("CAPA") || (is("AUTH") || is("LANG")) && len(args) == 0,
		}
		if err := r.send(line); err != nil {
			return nil, err
		}
		r.busy = true
		f := forwarding{r: r}
		a, err := f.answer()
		r.busy = false
		switch {
		case err != nil:
			return nil, err
		case login && a.ok:
			return r.login(), nil
		case login:
			f.countRefused(a)
		}
		r.who.pop3Answer(name, a)
	}
}

// pop3Command splits a line into its keyword and its arguments.
func pop3Command(line []byte) (name, args []byte) {
	name, args, _ = bytes.Cut(line[:len(line)-len(lineEnd(line))], []byte(" "))
	return name, bytes.TrimSpace(args)
}
