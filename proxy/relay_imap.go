package proxy

import (
	"bytes"
	"cmp"
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strings"

	"postern/internal/mailproto"
)

// imapDialect is what is IMAP4 about a session (RFC 9051, RFC 3501).
type imapDialect struct{}

func (imapDialect) judgeGreeting(line []byte) ([]byte, UpstreamFailure) {
	switch tag, status := mailproto.IMAPStatus(line); {
	case string(tag) != "*":
		return nil, UpstreamGreeting
	case status.Is("OK"):
		return mailproto.FilterIMAPCapabilities(line), ""
	case status.Is("BYE"):
		return mailproto.FilterIMAPCapabilities(line), UpstreamRefused
	case status.Is("PREAUTH"):
		return nil, UpstreamPreauth
	}
	return nil, UpstreamGreeting
}

// identify sends the addresses in an ID, as Dovecot accepts it from a trusted network.
func (imapDialect) identify(c *upstreamConn, client, destination netip.AddrPort) (string, error) {
	id := fmt.Sprintf(`ID ("x-originating-ip" "%s" "x-originating-port" "%d" "x-connected-ip" "%s" "x-connected-port" "%d")`,
		client.Addr().WithZone(""), client.Port(), destination.Addr().WithZone(""), destination.Port())
	reply, _, err := c.lines.Say(id)
	if err != nil {
		return "", &upstreamError{dialFailure(err, UpstreamClosed), fmt.Errorf("telling the upstream of the client: %w", err)}
	}
	return reply, nil
}

// greetAgain asks for the capabilities, which are new inside TLS (RFC 9051,
// Section 6.2.1), and greets with them.
func (imapDialect) greetAgain(c *upstreamConn) (greeting, error) {
	reply, lines, err := c.lines.Say("CAPABILITY")
	list := mailproto.IMAPCapabilities(lines...)
	if err == nil && (!mailproto.Positive(reply) || list == nil) {
		err = mailproto.ErrOutOfStep
	}
	line := fmt.Appendf(nil, "* OK [CAPABILITY %s] Postern ready.\r\n", strings.Join(list, " "))
	return greeting{line: line, shown: mailproto.FilterIMAPCapabilities(line)}, err
}

func (imapDialect) readReply(r *replySide) ([]byte, *answer, error) {
	response, err := r.upstream.IMAPResponse()
	if err != nil {
		return nil, nil, err
	}
	if mailproto.AcceptsNonSyncLiterals(response) {
		r.nonSyncLiterals.Store(true)
	}
	r.saidBye = r.saidBye || mailproto.HasPrefixFold(response, "* BYE")
	want := r.expecting()
	tag, status := mailproto.IMAPStatus(response)
	untagged := response[0] == '*' || response[0] == '+' || mailproto.Keyword(tag).Is("BAD", "NO")
	a := &answer{}
	switch late := r.late; {
	case want != nil && late != nil && want.tag == late.tag:
		return nil, nil, mailproto.ErrOutOfStep // which of the two would be answered?
	case want != nil && string(tag) == want.tag:
		a.ok, a.bad = status.Is("OK"), status.Is("BAD")
	case response[0] == '+' && want != nil:
		a.continuation = true
	case untagged:
		a = nil
	case late == nil || string(tag) != late.tag || late.login && status.Is("OK"):
		return nil, nil, mailproto.ErrOutOfStep
	default:
		a, r.late = nil, nil
	}
	shown := mailproto.FilterIMAPCapabilities(response)
	if a != nil || want == nil || !untagged || r.saidBye {
		return shown, a, nil
	}
	want.complained = want.complained || response[0] != '*' || status.Is("BAD", "NO")
	if !want.complained {
		return shown, nil, nil
	}
	if err := r.deliver(shown); err != nil || !r.quiet() {
		return nil, nil, err
	}
	r.late = want
	return nil, &answer{bad: true, complaint: true}, nil
}

func (imapDialect) relayCommand(c *commandSide, line []byte) (loggedIn bool, err error) {
	if len(line) == len("\r\n") {
		c.says(line, false)
		return false, c.send(line) // no command: it has no answer
	}
	cmd, ok := mailproto.ParseIMAPCommand(line)
	_, literal := mailproto.LiteralAtEnd(line)
	switch {
	case !ok && literal:
		return false, errProtocol
	case !ok:
		return false, c.refuseMalformed("%s BAD Malformed command.\r\n", cmp.Or(string(mailproto.IMAPTag(line)), "*"))
	}
	c.identity.IMAPCommand(cmd)
	if cmd.Name.Is("STARTTLS", "XCLIENT", "COMPRESS") {
		return false, c.refuseIMAP(cmd, line)
	}
	f := forwarding{commandSide: c, expectation: expectation{tag: string(cmd.Tag), login: cmd.Name.Is("LOGIN", "AUTHENTICATE")}}
	f.mechanism, f.sasl = mailproto.Mechanism(cmd.Name, cmd.Args), cmd.Name.Is("AUTHENTICATE")
	c.says(line, f.login || cmd.Name.Is("CAPABILITY", "NOOP", "ID"))
	if cmd.Name.Is("ID") {
		f.id, line = mailproto.NewIDFilter(cmd), cmd.Args
	}
	c.s.loggingOut = cmd.Name.Is("LOGOUT")
	c.upstreamKnowsClient = c.upstreamKnowsClient || f.login || f.id != nil || c.s.loggingOut
	a, err := f.forward(line)
	if err == mailproto.ErrID && !literal {
		return false, c.refuseMalformed("%s BAD Malformed ID.\r\n", f.tag)
	} else if err != nil {
		return false, err
	}
	loggedIn = f.loggedIn(a)
	if f.nonSync && a.bad && !c.nonSyncLiterals.Load() {
		// The upstream may have taken the literals for commands.
		return false, errProtocol
	}
	return loggedIn, nil
}

// refuseIMAP answers a command that is not for the upstream: STARTTLS has no
// meaning inside TLS (RFC 9051, Section 6.2.1), XCLIENT is for proxies, and a
// stream that is compressed before login could not be followed.
func (c *commandSide) refuseIMAP(cmd mailproto.IMAPCommand, line []byte) error {
	if lit, ok := mailproto.LiteralAtEnd(line); ok && !lit.Sync {
		return errProtocol
	}
	return c.reply("%s BAD %s is not available here.\r\n", cmd.Tag, bytes.ToUpper(cmd.Name))
}

// forward sends the first line of a command and all that belongs to it, and
// returns the answer.
func (f *forwarding) forward(line []byte) (answer, error) {
	for {
		lit, more := mailproto.LiteralAtEnd(line)
		if more {
			if err := f.checkLiteral(line, lit); err != nil {
				return answer{}, err
			}
		}
		if err := f.pass(line, !more || lit.Sync); err != nil {
			return answer{}, err
		}
		if !more {
			f.identity.SetSoftware(f.id)
			return f.answer()
		}
		if lit.Sync {
			if a, err := f.await(); err != nil || !a.continuation {
				return a, err
			}
		}
		next, err := f.forwardLiteral(lit)
		if err != nil {
			return answer{}, err
		}
		line = next
	}
}

// checkLiteral judges the header of a literal before the upstream sees it.
// Before login only a few commands have use for one without synchronization, and
// an upstream that accepts none would read it as the next command.
func (f *forwarding) checkLiteral(line []byte, lit mailproto.Literal) error {
	f.nonSync = f.nonSync || !lit.Sync
	if !lit.PlacedIn(line) || !lit.Sync && !f.login && f.id == nil {
		return errProtocol
	}
	if f.literals += lit.Size; f.literals > mailproto.MaxLiterals {
		return mailproto.ErrLiterals
	}
	return nil
}

// forwardLiteral passes the octets of a literal on, once the line behind them has come,
// and returns that.
func (f *forwarding) forwardLiteral(lit mailproto.Literal) (line []byte, err error) {
	octets, err := f.client.Octets(nil, lit.Size)
	if err != nil {
		return nil, err
	}
	f.identity.Literal(octets)
	if !lit.Sync && (bytes.ContainsRune(octets, 0) || !f.nonSyncLiterals.Load() && bytes.ContainsAny(octets, "\r\n")) {
		return nil, errProtocol // RFC 9051, Section 4.3 allows all but NUL
	}
	if line, err = f.client.StrictLine(); err != nil {
		return nil, err
	}
	if !lit.Sync && smuggled.Match(slices.Concat(octets, line)) {
		return nil, errProtocol
	}
	f.identity.Line(line)
	return line, f.pass(octets, false)
}

// smuggled finds, in the octets of a literal without synchronization and the line behind
// them, a command that would not be passed on as it is: an upstream that does not take
// the literal would execute it.
var smuggled = regexp.MustCompile(`(?i)(?:^|[\r\n])[ \t]*[^ \t\r\n]+[ \t]+(?:(?:XCLIENT|STARTTLS|COMPRESS)(?:[ \t\r\n]|$)|ID[ \t]*\(|(?:LOGIN|AUTHENTICATE)[ \t]+\S)`)

// pass sends a part of the command, a line or the octets of a literal. Of an ID
// the filter takes it, and is flushed wherever the upstream has to answer.
func (f *forwarding) pass(p []byte, flush bool) (err error) {
	if f.id != nil {
		f.id.Add(p)
		if p = nil; flush {
			p, err = f.id.Flush()
		}
	}
	if err != nil || len(p) == 0 {
		return err
	}
	return f.send(p)
}
