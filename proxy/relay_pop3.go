package proxy

import (
	"bytes"
	"net/netip"
	"regexp"

	"postern/internal/mailproto"
)

// pop3Dialect is what is POP3 about a session (RFC 1939, RFC 2449, RFC 5034).
type pop3Dialect struct{}

func (pop3Dialect) judgeGreeting(line []byte) ([]byte, UpstreamFailure) {
	switch {
	case mailproto.IsPOP3Status(line, "+OK"):
		return mailproto.FilterPOP3Greeting(line), ""
	case mailproto.IsPOP3Status(line, "-ERR"):
		return line, UpstreamRefused
	}
	return nil, UpstreamGreeting
}

// greetAgain greets in words of its own: a timestamp for APOP that came before
// TLS would be worth nothing.
func (pop3Dialect) greetAgain(*upstreamConn) (greeting, error) {
	line := []byte("+OK Postern ready.\r\n")
	return greeting{line: line, shown: line}, nil
}

func (pop3Dialect) identify(*upstreamConn, netip.AddrPort, netip.AddrPort) (string, error) {
	return "", nil
}

func (pop3Dialect) relayCommand(c *commandSide, line []byte) (loggedIn bool, err error) {
	cmd, ok := mailproto.ParsePOP3Command(line)
	switch {
	case pop3ForProxies.Match(line):
		return false, c.reply("-ERR %s is not available here.\r\n", bytes.ToUpper(cmd.Name))
	case !ok:
		return false, c.refuseMalformed("-ERR Malformed command.\r\n")
	case cmd.Name.Is("APOP") && c.s.reconnects > 0:
		// The digest is of another upstream's timestamp.
		return false, c.reply("-ERR [SYS/TEMP] Please connect again.\r\n")
	}
	c.identity.POP3Command(cmd)
	c.s.loggingOut = cmd.Name.Is("QUIT")
	f := forwarding{commandSide: c, expectation: expectation{
		login: cmd.IsLogin(), mechanism: mailproto.Mechanism(cmd.Name, cmd.Args), sasl: cmd.Name.Is("AUTH"), listing: cmd.MayList(),
		speechless: cmd.IsLogin() && cmd.Name.Is("AUTH") && !bytes.ContainsRune(cmd.Args, ' '),
	}}
	user := cmd.Name.Is("USER")
	c.says(line, f.login || user || cmd.Name.Is("CAPA", "NOOP"))
	c.upstreamKnowsClient = c.upstreamKnowsClient || f.login || user || c.s.loggingOut
	if err := f.send(line); err != nil {
		return false, err
	}
	a, err := f.answer()
	if err != nil {
		return false, err
	}
	if user && !a.ok {
		c.identity.RefuseUser()
	}
	return f.loggedIn(a), nil
}

// pop3ForProxies are commands that are not for the upstream.
var pop3ForProxies = regexp.MustCompile(`(?i)^(STLS|XCLIENT)[ \r]`)

// readReply: POP3 has no tags, and a reply that answers no command is a goodbye,
// as when the upstream has waited for too long.
func (pop3Dialect) readReply(r *replySide) ([]byte, *answer, error) {
	line, err := r.upstream.Line()
	if err != nil {
		return nil, nil, err
	}
	want := r.expecting()
	ok, refused := mailproto.IsPOP3Status(line, "+OK"), mailproto.IsPOP3Status(line, "-ERR")
	switch {
	case r.saidBye || want == nil && !refused:
		return nil, nil, mailproto.ErrOutOfStep
	case want == nil:
		r.saidBye = true
		return line, nil, nil
	}
	a := &answer{ok: ok}
	switch {
	case ok && want.speechless, !ok && !refused && line[0] == '+':
		want.speechless = false
		a = &answer{continuation: true}
	case ok && want.listing:
		// Some servers answer CAPA or AUTH with +OK alone, and some answer commands
		// with lines that nobody has described.
		if line = bytes.Clone(line); !r.quiet() {
			line, err = r.upstream.POP3Listing(line)
		}
	case !ok && !refused:
		err = mailproto.ErrOutOfStep
	}
	return line, a, err
}
