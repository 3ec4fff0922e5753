package check

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"

	"postern/internal/config"
)

// Bounds on what a POP3 server may say: a line of RFC 2449, Section 4 has 512
// bytes, and no server has so many capabilities.
const (
	maxPOP3Line         = 4096
	maxPOP3Capabilities = 100
)

// pop3 asks a POP3 server for its capabilities (RFC 2449).
func (t target) pop3(ctx context.Context, conn net.Conn) finding {
	p := newPOP3(conn)
	greeting, err := p.line()
	switch {
	case err != nil:
		return finding{err: fmt.Errorf("reading the greeting: %w", err)}
	case !strings.HasPrefix(greeting, "+OK"):
		return finding{err: fmt.Errorf("it greets with %s", quoted(greeting))}
	}
	if t.Scheme.TLS == config.TLSStart {
		if p, err = t.stls(ctx, p); err != nil {
			return finding{err: fmt.Errorf("beginning TLS with STLS: %w", err)}
		}
	}
	f := finding{greeting: "answers with " + quoted(greeting)}
	caps, err := p.capabilities()
	var refused *refusedError
	switch {
	case errors.As(err, &refused): // before RFC 2449 there was no CAPA
	case err != nil:
		return finding{err: fmt.Errorf("reading the capabilities: %w", err)}
	default:
		mechanisms, user := logins(caps)
		f.warnings = t.judge(mechanisms, !user && len(mechanisms) == 0)
	}
	_ = p.say("QUIT")
	return f
}

// stls begins TLS (RFC 2595, Section 4).
func (t target) stls(ctx context.Context, p *pop3) (*pop3, error) {
	if err := p.say("STLS"); err != nil {
		return nil, err
	}
	if _, err := p.ok(); err != nil {
		return nil, err
	}
	if p.r.Buffered() > 0 {
		return nil, errors.New("bytes come before TLS that must not be trusted")
	}
	c := tls.Client(p.conn, t.tlsConfig())
	if err := c.HandshakeContext(ctx); err != nil {
		return nil, err
	}
	return newPOP3(c), nil
}

// logins takes the ways to log in out of a list of capabilities.
func logins(caps []string) (mechanisms []string, user bool) {
	for _, line := range caps {
		words := strings.Fields(line)
		switch {
		case len(words) == 0:
		case strings.EqualFold(words[0], "USER"):
			user = true
		case strings.EqualFold(words[0], "SASL"):
			mechanisms = append(mechanisms, words[1:]...)
		}
	}
	return mechanisms, user
}

// pop3 is a dialogue with a POP3 server.
type pop3 struct {
	conn net.Conn
	r    *bufio.Reader
}

func newPOP3(conn net.Conn) *pop3 { return &pop3{conn, bufio.NewReaderSize(conn, maxPOP3Line)} }

// refusedError is an answer that begins with -ERR.
type refusedError struct{ line string }

func (e *refusedError) Error() string { return "it answers " + quoted(e.line) }

func (p *pop3) say(command string) error {
	_, err := io.WriteString(p.conn, command+"\r\n")
	return err
}

func (p *pop3) line() (string, error) {
	line, err := p.r.ReadSlice('\n')
	if err != nil {
		return "", err
	}
	return strings.TrimRight(string(line), "\r\n"), nil
}

// ok reads an answer; one that is not +OK is a refusedError.
func (p *pop3) ok() (string, error) {
	line, err := p.line()
	if err == nil && !strings.HasPrefix(line, "+OK") {
		err = &refusedError{line}
	}
	return line, err
}

func (p *pop3) capabilities() (list []string, err error) {
	if err := p.say("CAPA"); err != nil {
		return nil, err
	}
	if _, err := p.ok(); err != nil {
		return nil, err
	}
	for len(list) <= maxPOP3Capabilities {
		line, err := p.line()
		if err != nil || line == "." {
			return list, err
		}
		list = append(list, line)
	}
	return nil, errors.New("there is no end of them")
}
