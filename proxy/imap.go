package proxy

import (
	"bytes"
	"fmt"
	"io"
	"time"
)

// imapDialect is what is IMAP4 about a session (RFC 9051, RFC 3501).
type imapDialect struct{}

func (imapDialect) goodbye(n notice, text string) []byte {
	code := ""
	switch n {
	case noticeUnavailable:
		code = "[UNAVAILABLE] " // RFC 5530, Section 3
	case noticeLimit:
		code = "[LIMIT] "
	case noticeExplain:
		code = "[ALERT] " // RFC 9051, Section 7.1
	}
	return fmt.Appendf(nil, "* BYE %s%s\r\n", code, text)
}

// greeting judges the upstream's first line (RFC 9051, Section 7.1).
func (imapDialect) greeting(line []byte) ([]byte, UpstreamFailure) {
	status, ok := bytes.CutPrefix(line, []byte("* "))
	switch word, _, _ := bytes.Cut(status, []byte(" ")); {
	case !ok:
		return nil, UpstreamGreeting
	case equalFold(bytes.TrimRight(word, "\r\n"), "OK"):
		return trueIMAP(line), ""
	case equalFold(bytes.TrimRight(word, "\r\n"), "BYE"):
		return trueIMAP(line), UpstreamRefused
	case equalFold(bytes.TrimRight(word, "\r\n"), "PREAUTH"):
		return nil, UpstreamPreauth
	}
	return nil, UpstreamGreeting
}

func (imapDialect) noteGreeting(r *relay, line []byte) { r.noteIMAPCapabilities(line) }

// ownTag is the tag of what the gate itself says to an upstream.
const ownTag = "postern"

// ask sends a command of the gate's own and reads up to its tagged reply;
// untagged responses are handed to each.
func askIMAP(in *lineReader, out io.Writer, command string, each func(line []byte)) (ok bool, reply string, err error) {
	if _, err := fmt.Fprintf(out, "%s %s\r\n", ownTag, command); err != nil {
		return false, "", err
	}
	for range maxOwnReplies {
		line, err := in.line()
		if err != nil {
			return false, "", err
		}
		if lit, more := literalAtEnd(line); more {
			if _, err := in.octets(nil, min(lit.size, maxLiterals)); err != nil {
				return false, "", err
			}
			continue
		}
		if reply, tagged := bytes.CutPrefix(line, []byte(ownTag+" ")); tagged {
			return hasPrefixFold(reply, "OK"), string(reply), nil
		}
		each(line)
	}
	return false, "", errOutOfStep
}

// identify sends the client's address in an ID, as Dovecot takes it from a
// trusted network. An upstream that wants none of it is served all the same.
func (imapDialect) identify(s *session) error {
	s.upstream.raw.SetDeadline(time.Now().Add(s.srv.cfg.UpstreamTimeout))
	defer s.upstream.raw.SetDeadline(time.Time{})
	id := fmt.Sprintf(`ID ("x-originating-ip" "%s" "x-originating-port" "%d" "x-connected-ip" "%s" "x-connected-port" "%d")`,
		s.Client.Addr().WithZone(""), s.Client.Port(), s.destination.Addr().WithZone(""), s.destination.Port())
	ok, reply, err := askIMAP(s.upstream.lines, s.upstream, id, func([]byte) {})
	if err != nil {
		return &upstreamError{dialFailure(err, UpstreamClosed), fmt.Errorf("telling the upstream of the client: %w", err)}
	}
	if !ok {
		s.srv.cfg.Log.Debug("upstream refuses ID", "upstream", s.upstream.up.Name, "reply", cutString(reply, 80), "conn_id", s.ID)
	}
	return nil
}

// maxOwnReplies bounds what an upstream may say before its tagged reply.
const maxOwnReplies = 100

func (imapDialect) requestTLS(in *lineReader, out io.Writer) error {
	ok, reply, err := askIMAP(in, out, "STARTTLS", func([]byte) {})
	if err == nil && !ok {
		err = fmt.Errorf("%w: %.80q", errNoStartTLS, reply)
	}
	return err
}

// greetAgain asks for the capabilities, which are new inside TLS (RFC 9051,
// Section 6.2.1), and greets with them.
func (d imapDialect) greetAgain(c *upstreamConn) (greeting, error) {
	var list []byte
	ok, _, err := askIMAP(c.lines, c, "CAPABILITY", func(line []byte) {
		if rest, found := bytes.CutPrefix(line, []byte("* ")); found && hasPrefixFold(rest, "CAPABILITY ") {
			list = bytes.TrimRight(bytes.Clone(rest), "\r\n")
		}
	})
	if err == nil && (!ok || list == nil) {
		err = errOutOfStep
	}
	line := fmt.Appendf(nil, "* OK [%s] Postern ready.\r\n", list)
	return greeting{line: line, shown: trueIMAP(line)}, err
}

// noteIMAPCapabilities remembers whether the upstream takes non-synchronizing
// literals (RFC 7888; IMAP4rev2 implies the short ones).
func (r *relay) noteIMAPCapabilities(line []byte) {
	start, end := capabilityList(line)
	if start < 0 {
		return
	}
	for _, c := range bytes.Fields(line[start:end]) {
		if equalFold(c, "LITERAL+") || equalFold(c, "LITERAL-") || equalFold(c, "IMAP4rev2") {
			r.literalPlus.Store(true)
		}
	}
}

// replies passes on what the upstream says, one whole response at a time,
// until a login has succeeded or the upstream has gone.
func (imapDialect) replies(r *relay) error {
	var want *expectation
	for {
		resp, err := r.imapResponse()
		if err != nil {
			return err
		}
		r.noteIMAPCapabilities(resp)
		if hasPrefixFold(resp, "* BYE") {
			r.saidBye.Store(true)
		}
		resp = trueIMAP(resp)
		want = r.expecting(want)
		switch resp[0] {
		case '*':
			err = r.deliver(resp)
		case '+':
			if err = r.deliver(resp); err == nil && want != nil {
				err = r.tell(answer{more: true})
			}
		default:
			tag, status, _ := bytes.Cut(resp, []byte(" "))
			if want == nil || string(tag) != want.tag {
				return errOutOfStep
			}
			ok := hasPrefixFold(status, "OK")
			if ok && want.login {
				if err = r.tell(answer{ok: true}); err == nil {
					err = r.deliver(resp)
				}
				return err
			}
			if err = r.deliver(resp); err != nil {
				return err
			}
			err = r.tell(answer{ok: ok, bad: hasPrefixFold(status, "BAD")})
			want = nil
		}
		if err != nil {
			return err
		}
	}
}

// imapResponse reads one response with its literals.
func (r *relay) imapResponse() ([]byte, error) {
	line, err := r.upstream.line()
	if err != nil {
		return nil, err
	}
	lit, more := literalAtEnd(line)
	if !more || line[0] == '+' || statusText(line) {
		return line, nil
	}
	whole := bytes.Clone(line)
	for literals := 0; more; lit, more = literalAtEnd(line) {
		if literals += lit.size; literals > maxLiterals {
			return nil, errLiterals
		}
		if whole, err = r.upstream.octets(whole, lit.size); err != nil {
			return nil, err
		}
		if line, err = r.upstream.line(); err != nil {
			return nil, err
		}
		if whole = append(whole, line...); len(whole)-literals > maxLine {
			return nil, errLineTooLong
		}
	}
	return whole, nil
}

// commands passes the client's commands on, one at a time, until a login has
// succeeded; otherwise it returns what ended the session.
func (imapDialect) commands(r *relay) (*Login, error) {
	for {
		r.busy = false
		line, err := r.client.strictLine()
		if err != nil {
			return nil, err
		}
		r.busy = true
		if len(line) == len(crlf) {
			// No command: it will have no answer.
			if err := r.send(line); err != nil {
				return nil, err
			}
			continue
		}
		cmd, ok := parseIMAPCommand(line)
		if !ok {
			return nil, errProtocol
		}
		loggedIn, err := r.imapCommand(cmd, line)
		if err != nil {
			return nil, err
		}
		if loggedIn {
			return r.login(), nil
		}
	}
}

// imapCommand passes one command on and waits for its answer.
func (r *relay) imapCommand(cmd imapCommand, line []byte) (loggedIn bool, err error) {
	is := func(name string) bool { return equalFold(cmd.name, name) }
	r.who.imapCommand(cmd)
	switch {
	case is("STARTTLS"), is("XCLIENT"), is("COMPRESS"):
		return false, r.refuseIMAP(cmd, line)
	case is("ID"):
		return false, r.imapID(cmd)
	}
	login := is("LOGIN") || is("AUTHENTICATE")
	r.s.loggingOut = is("LOGOUT")
	r.spent = r.spent || login || r.s.loggingOut
	r.expect <- expectation{tag: string(cmd.tag), login: login}
	f := forwarding{r: r, nonSyncOK: login}
	a, err := f.command(line)
	if err != nil {
		return false, err
	}
	if login {
		f.countRefused(a)
	}
	if f.nonSync && a.bad && !r.literalPlus.Load() {
		// The upstream may have taken the literals for commands.
		return false, errProtocol
	}
	return a.ok && login, nil
}

// refuseIMAP answers a command that is not for the upstream: STARTTLS has no
// meaning inside TLS (RFC 9051, Section 6.2.1), XCLIENT is a proxy's to say, and
// a stream that is compressed before login could not be followed.
func (r *relay) refuseIMAP(cmd imapCommand, line []byte) error {
	if lit, ok := literalAtEnd(line); ok && !lit.sync {
		return errProtocol
	}
	return r.reply(fmt.Appendf(nil, "%s BAD %s is not available here.\r\n", cmd.tag, bytes.ToUpper(cmd.name)))
}

// forwarding is one command on its way upstream, with its literals and the
// lines that the upstream asks for.
type forwarding struct {
	r *relay
	// nonSyncOK: the command may have literals without synchronization.
	// Before login only a few have use for one, and an upstream that takes
	// none in another would read it as the next command.
	nonSyncOK bool
	// nonSync: it had one.
	nonSync  bool
	literals int
	// cancelled: the client has thought better of it (RFC 9051, Section 6.2.2,
	// RFC 5034, Section 4).
	cancelled bool
}

// command sends the line that begins a command and all that belongs to it, and
// returns the answer.
func (f *forwarding) command(line []byte) (answer, error) {
	r := f.r
	for {
		lit, more := literalAtEnd(line)
		if more {
			if err := f.announced(line, lit); err != nil {
				return answer{}, err
			}
		}
		if err := r.send(line); err != nil {
			return answer{}, err
		}
		if !more {
			return f.answer()
		}
		if lit.sync {
			if a, err := r.await(); err != nil || !a.more {
				return a, err
			}
		}
		octets, err := f.literal(nil, lit)
		if err != nil {
			return answer{}, err
		}
		if lit.sync {
			if err := r.send(octets); err != nil {
				return answer{}, err
			}
			octets = nil
		}
		if line, err = f.continuation(octets); err != nil {
			return answer{}, err
		}
		if err := r.send(octets); err != nil {
			return answer{}, err
		}
	}
}

// continuation reads the line behind a literal; octets are those of one without
// synchronization.
func (f *forwarding) continuation(octets []byte) (line []byte, err error) {
	if line, err = f.r.client.strictLine(); err != nil {
		return nil, err
	}
	if f.smuggles(octets, line) {
		return nil, errProtocol
	}
	f.r.who.text(line)
	return line, nil
}

// smuggles reports whether the octets of a literal without synchronization,
// with the line behind them, are a command that would not be passed on as it
// is: an upstream that knows no such literals would carry it out.
func (f *forwarding) smuggles(octets, line []byte) bool {
	if len(octets) == 0 || f.r.literalPlus.Load() {
		return false
	}
	words := bytes.Fields(append(octets[:len(octets):len(octets)], line...))
	if len(words) < 2 {
		return false
	}
	for _, name := range []string{"ID", "XCLIENT", "STARTTLS", "COMPRESS", "LOGIN", "AUTHENTICATE"} {
		if equalFold(words[1], name) {
			return true
		}
	}
	return false
}

// announced judges the header of a literal before the upstream sees it.
func (f *forwarding) announced(line []byte, lit literal) error {
	if !literalPlaced(line, lit) {
		return errProtocol
	}
	if !lit.sync {
		f.nonSync = true
		if !f.nonSyncOK {
			return errProtocol
		}
	}
	if f.literals += lit.size; f.literals > maxLiterals {
		return errLiterals
	}
	return nil
}

// literal reads the octets of a literal from the client.
func (f *forwarding) literal(dst []byte, lit literal) ([]byte, error) {
	had := len(dst)
	dst, err := f.r.client.octets(dst, lit.size)
	if err == nil && !lit.sync && bytes.ContainsAny(dst[had:], "\r\n\x00") {
		err = errProtocol
	}
	if err == nil {
		f.r.who.octets(dst[had:])
	}
	return dst, err
}

// answer waits for the tagged reply; in between the upstream may ask for
// lines, as SASL does (RFC 9051, Section 6.2.2).
func (f *forwarding) answer() (answer, error) {
	for {
		a, err := f.r.await()
		if err != nil || !a.more {
			return a, err
		}
		line, err := f.r.client.strictLine()
		if err != nil {
			return answer{}, err
		}
		f.cancelled = len(line) == len("*\r\n") && line[0] == '*'
		f.r.who.response(line)
		if err := f.r.send(line); err != nil {
			return answer{}, err
		}
	}
}

// countRefused counts a login that the upstream has refused.
func (f *forwarding) countRefused(a answer) {
	if !a.ok && !f.cancelled {
		f.r.s.failedLogins++
	}
}

// imapID passes an ID on without the fields that only a proxy may send.
func (r *relay) imapID(cmd imapCommand) error {
	r.spent = true
	var filter idFilter
	f := forwarding{r: r, nonSyncOK: true}
	r.expect <- expectation{tag: string(cmd.tag)}
	head := append(append(bytes.Clone(cmd.tag), ' '), cmd.name...)
	piece := bytes.Clone(cmd.args)
	for line := cmd.args; ; {
		lit, more := literalAtEnd(line)
		if more {
			if err := f.announced(line, lit); err != nil {
				return err
			}
		}
		if !more || lit.sync {
			if more {
				piece = bytes.TrimSuffix(piece, crlf)
			}
			out, err := filter.text(piece, more)
			if err != nil {
				return err
			}
			if more {
				out = append(out, crlf...)
			}
			if err := r.send(append(head, out...)); err != nil {
				return err
			}
			head, piece = nil, nil
		}
		if !more {
			a, err := f.answer()
			if err == nil && f.nonSync && a.bad && !r.literalPlus.Load() {
				err = errProtocol
			}
			return err
		}
		if lit.sync {
			if a, err := r.await(); err != nil || !a.more {
				return err
			}
		}
		octets, err := f.literal(piece, lit)
		if err != nil {
			return err
		}
		value := octets[len(piece):]
		if piece = octets; lit.sync {
			filter.literal(piece)
			if err := r.send(piece); err != nil {
				return err
			}
			piece, value = nil, nil
		}
		if line, err = f.continuation(value); err != nil {
			return err
		}
		piece = append(piece, line...)
	}
}
