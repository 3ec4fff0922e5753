package check

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"

	"github.com/emersion/go-imap/v2"
	"github.com/emersion/go-imap/v2/imapclient"

	"postern/internal/config"
)

var errPreauth = errors.New("it greets with PREAUTH: everybody would be logged in as somebody; " +
	"let it ask for a login")

// imap asks an IMAP server for its capabilities.
func (t target) imap(conn net.Conn) finding {
	first := &firstLine{Conn: conn}
	client, err := t.imapClient(first)
	if err == nil {
		defer client.Close()
		err = client.WaitGreeting()
	}
	line := first.text()
	upper := strings.ToUpper(line)
	switch {
	case strings.HasPrefix(upper, "* PREAUTH"):
		return finding{err: errPreauth}
	case strings.HasPrefix(upper, "* BYE"):
		return finding{err: fmt.Errorf("it greets with %s", quoted(line))}
	case err != nil && line != "" && !strings.HasPrefix(upper, "* OK"):
		return finding{err: fmt.Errorf("not an IMAP greeting: %s", quoted(line))}
	case err != nil:
		return finding{err: err}
	}
	caps := client.Caps()
	if caps == nil {
		return finding{err: errors.New("it does not tell its capabilities")}
	}
	return finding{
		greeting: "answers with " + quoted(line),
		warnings: t.judge(mechanisms(caps), caps.Has(imap.CapLoginDisabled)),
	}
}

func (t target) imapClient(conn net.Conn) (*imapclient.Client, error) {
	if t.Scheme.TLS != config.TLSStart {
		return imapclient.New(conn, nil), nil
	}
	client, err := imapclient.NewStartTLS(conn, &imapclient.Options{TLSConfig: t.tlsConfig()})
	if err != nil {
		return nil, fmt.Errorf("beginning TLS with STARTTLS: %w", err)
	}
	return client, nil
}

func mechanisms(caps imap.CapSet) []string {
	var list []string
	for name := range caps {
		if mechanism, ok := strings.CutPrefix(strings.ToUpper(string(name)), "AUTH="); ok {
			list = append(list, mechanism)
		}
	}
	slices.Sort(list)
	return list
}

// firstLine keeps the first line that a connection has brought: the client
// forgets the words of a BYE.
type firstLine struct {
	net.Conn
	mu   sync.Mutex
	line []byte
	over bool
}

const maxFirstLine = 512

func (c *firstLine) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.over {
		c.line = append(c.line, p[:n]...)
		end := bytes.IndexByte(c.line, '\n')
		if end < 0 {
			end = maxFirstLine
		}
		if c.over = len(c.line) > end; c.over {
			c.line = c.line[:end]
		}
	}
	return n, err
}

func (c *firstLine) text() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return strings.TrimRight(string(c.line), "\r\n")
}
