package check

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"

	"postern/internal/config"
	"postern/internal/mailproto"
	"postern/internal/text"
)

var (
	errPreauth        = errors.New("it greets with PREAUTH: everybody would be logged in as somebody; let it ask for a login")
	errInjection      = errors.New("bytes come before TLS that must not be trusted")
	errNoCapabilities = errors.New("it does not tell its capabilities")
	errEndless        = errors.New("there is no end of them")
)

// refusedError is a reply that is not OK.
type refusedError struct{ line string }

func (e *refusedError) Error() string { return e.line }

// dialogue is a conversation with an IMAP or POP3 server.
type dialogue struct {
	conn net.Conn
	*mailproto.LineReader
	commands int
}

func newDialogue(conn net.Conn) *dialogue {
	return &dialogue{conn: conn, LineReader: mailproto.NewLineReader(conn)}
}

// beginTLS starts TLS after the server has agreed to it.
func (d *dialogue) beginTLS(ctx context.Context, config *tls.Config) error {
	if len(d.Buffered()) > 0 {
		return errInjection
	}
	c := tls.Client(d.conn, config)
	d.conn, d.LineReader = c, mailproto.NewLineReader(c)
	return c.HandshakeContext(ctx)
}

// imap has a conversation with an IMAP server, up to its capabilities.
func (t target) imap(ctx context.Context, conn net.Conn) finding {
	d := newDialogue(conn)
	line, err := d.Line()
	if err != nil {
		return finding{err: fmt.Errorf("reading the greeting: %w", err)}
	}
	greeting, caps := quoted(string(line)), mailproto.IMAPCapabilities(line)
	switch tag, status := mailproto.IMAPStatus(line); {
	case string(tag) != "*" || !status.Is("OK", "PREAUTH", "BYE"):
		return finding{err: fmt.Errorf("not an IMAP greeting: %s", greeting)}
	case status.Is("PREAUTH"):
		return finding{err: errPreauth}
	case status.Is("BYE"):
		return finding{err: fmt.Errorf("it greets with %s", greeting)}
	}
	if t.Scheme.TLS == config.TLSStart {
		_, err := d.imapCommand("STARTTLS")
		if err == nil {
			err = d.beginTLS(ctx, t.tls)
		}
		if err != nil {
			return finding{err: fmt.Errorf("beginning TLS with STARTTLS: %w", err)}
		}
		caps = nil // those from before TLS do not count (RFC 9051, Section 6.2.1)
	}
	if caps == nil {
		caps, err = d.imapCommand("CAPABILITY")
		if _, refused := errors.AsType[*refusedError](err); refused || err == nil && caps == nil {
			err = errNoCapabilities
		}
		if err != nil {
			return finding{err: err}
		}
	}
	var mechanisms []string
	for _, c := range caps {
		if mechanism, ok := strings.CutPrefix(strings.ToUpper(c), "AUTH="); ok {
			mechanisms = append(mechanisms, mechanism)
		}
	}
	slices.Sort(mechanisms)
	disabled := slices.ContainsFunc(caps, func(c string) bool { return strings.EqualFold(c, "LOGINDISABLED") })
	return finding{greeting: "answers with " + greeting, warnings: t.judge(mechanisms, disabled)}
}

// imapCommand sends a command, and returns the capabilities in the answer.
func (d *dialogue) imapCommand(command string) (caps []string, err error) {
	d.commands++
	tag := fmt.Sprintf("A%d", d.commands)
	if _, err := io.WriteString(d.conn, tag+" "+command+"\r\n"); err != nil {
		return nil, err
	}
	list := func(response []byte) {
		if c := mailproto.IMAPCapabilities(response); c != nil {
			caps = c
		}
	}
	reply, err := d.IMAPReply(tag, list)
	if err != nil {
		return nil, err
	}
	if !mailproto.HasPrefixFold(reply, "OK") {
		return nil, &refusedError{"imap: " + text.Clean(string(reply), 120)}
	}
	list([]byte(tag + " " + string(reply)))
	return caps, nil
}

// pop3 has a conversation with a POP3 server, up to its capabilities (RFC 2449).
func (t target) pop3(ctx context.Context, conn net.Conn) finding {
	d := newDialogue(conn)
	line, err := d.Line()
	if err != nil {
		return finding{err: fmt.Errorf("reading the greeting: %w", err)}
	}
	greeting := quoted(string(line))
	if !mailproto.IsPOP3Status(line, "+OK") {
		return finding{err: fmt.Errorf("it greets with %s", greeting)}
	}
	if t.Scheme.TLS == config.TLSStart { // RFC 2595, Section 4
		err := d.pop3Command("STLS")
		if err == nil {
			err = d.beginTLS(ctx, t.tls)
		}
		if err != nil {
			return finding{err: fmt.Errorf("beginning TLS with STLS: %w", err)}
		}
	}
	f := finding{greeting: "answers with " + greeting}
	mechanisms, user, err := d.pop3Logins()
	if _, refused := errors.AsType[*refusedError](err); refused {
		return f // before RFC 2449 there was no CAPA
	}
	if err != nil {
		return finding{err: fmt.Errorf("reading the capabilities: %w", err)}
	}
	f.warnings = t.judge(mechanisms, !user && len(mechanisms) == 0)
	_, _ = io.WriteString(d.conn, "QUIT\r\n") // it is closed in any case
	return f
}

func (d *dialogue) pop3Command(command string) error {
	if _, err := io.WriteString(d.conn, command+"\r\n"); err != nil {
		return err
	}
	line, err := d.Line()
	if err == nil && !mailproto.IsPOP3Status(line, "+OK") {
		err = &refusedError{"it answers " + quoted(string(line))}
	}
	return err
}

// pop3Logins returns the login mechanisms that CAPA lists.
func (d *dialogue) pop3Logins() (mechanisms []string, user bool, err error) {
	const most = 100 // lines: no server has so many capabilities
	if err := d.pop3Command("CAPA"); err != nil {
		return nil, false, err
	}
	for range most {
		line, err := d.Line()
		if err != nil {
			return nil, false, err
		}
		switch words := strings.Fields(string(line)); {
		case len(words) == 0:
		case words[0] == ".":
			return mechanisms, user, nil
		case strings.EqualFold(words[0], "USER"):
			user = true
		case strings.EqualFold(words[0], "SASL"):
			mechanisms = append(mechanisms, words[1:]...)
		}
	}
	return nil, false, errEndless
}
