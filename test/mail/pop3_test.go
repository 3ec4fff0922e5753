package mail

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
)

// pop3Client is a bare POP3 client.
type pop3Client struct {
	conn     net.Conn
	r        *bufio.Reader
	greeting string
}

func newPOP3(c net.Conn) *pop3Client {
	return &pop3Client{conn: c, r: bufio.NewReaderSize(c, 64<<10)}
}

// pop3 returns a client inside TLS over one of the listeners pop3s and pop3.
func (w *world) pop3(t *testing.T, listener string) *pop3Client {
	t.Helper()
	conn := dial(t, w.Addr(listener))
	if listener == "pop3s" {
		c := newPOP3(w.secure(t, conn))
		c.greeting = c.readLine(t)
		return c
	}
	plain := newPOP3(conn)
	plain.readLine(t)
	plain.ok(t, "STLS")
	return newPOP3(w.secure(t, conn))
}

// directPOP3 talks to Dovecot itself, from the gate's address.
func (w *world) directPOP3(t *testing.T) *pop3Client {
	t.Helper()
	c := newPOP3(dialFrom(t, "127.0.0.1", w.dovecot.POP3))
	c.greeting = c.readLine(t)
	return c
}

func (c *pop3Client) login(t *testing.T, w *world) {
	t.Helper()
	c.ok(t, "USER "+w.user.Name)
	c.ok(t, "PASS "+w.user.Password)
}

func (c *pop3Client) readLine(t *testing.T) string {
	t.Helper()
	line, err := c.r.ReadString('\n')
	if err != nil {
		t.Fatalf("reading a line after %.80q: %v", line, err)
	}
	if !strings.HasSuffix(line, "\r\n") {
		t.Fatalf("line %.80q does not end in CRLF", line)
	}
	return strings.TrimSuffix(line, "\r\n")
}

func (c *pop3Client) command(t *testing.T, line string) string {
	t.Helper()
	setDeadline(t, c.conn)
	if _, err := io.WriteString(c.conn, line+"\r\n"); err != nil {
		t.Fatalf("sending %.40q: %v", line, err)
	}
	return c.readLine(t)
}

// ok is command for one that must succeed.
func (c *pop3Client) ok(t *testing.T, line string) string {
	t.Helper()
	reply := c.command(t, line)
	if !strings.HasPrefix(reply, "+OK") {
		t.Fatalf("%.40q answered %q", line, reply)
	}
	return reply
}

// multiline reads up to the line of a single dot, and gives what came both as
// it was on the wire and with its dots unstuffed (RFC 1939, section 3).
func (c *pop3Client) multiline(t *testing.T) (wire, text []byte) {
	t.Helper()
	for {
		line, err := c.r.ReadBytes('\n')
		if err != nil {
			t.Fatalf("reading a multi-line reply: %v", err)
		}
		wire = append(wire, line...)
		if string(line) == ".\r\n" {
			return wire, text
		}
		text = append(text, bytes.TrimPrefix(line, []byte("."))...)
	}
}

// list returns the lines of a command with a multi-line answer.
func (c *pop3Client) list(t *testing.T, command string) []string {
	t.Helper()
	c.ok(t, command)
	_, text := c.multiline(t)
	return strings.Split(strings.TrimSuffix(string(text), "\r\n"), "\r\n")
}

// fetchAll returns hashes of every message, as on the wire and unstuffed.
func (c *pop3Client) fetchAll(t *testing.T) (wires, texts []string) {
	t.Helper()
	for i := range c.list(t, "UIDL") {
		c.ok(t, fmt.Sprintf("RETR %d", i+1))
		wire, text := c.multiline(t)
		wires, texts = append(wires, hash(wire)), append(texts, hash(text))
	}
	return wires, texts
}
