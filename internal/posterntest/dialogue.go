package posterntest

import (
	"errors"
	"io"
	"os"
	"strings"
	"testing"
	"time"
)

// Send writes a text as it stands.
func (c *Client) Send(t testing.TB, text string) {
	t.Helper()
	if _, err := io.WriteString(c, text); err != nil {
		t.Fatalf("%s sends %.60q: %v", c.Name, text, err)
	}
}

// Expect reads exactly this text.
func (c *Client) Expect(t testing.TB, want string) {
	t.Helper()
	got := make([]byte, len(want))
	n, err := io.ReadFull(c, got)
	if text := string(got[:n]); text != want {
		t.Fatalf("%s gets %s\nwant %s (%v)", c.Name, shown(text), shown(want), err)
	}
}

func shown(s string) string {
	if len(s) > 400 {
		return strings.ReplaceAll(s[:400], "\r\n", "\\r\\n\n") + "…"
	}
	return "\n" + strings.ReplaceAll(s, "\r\n", "\\r\\n\n")
}

// ExpectLine reads a line that begins in this way, and returns it.
func (c *Client) ExpectLine(t testing.TB, prefix string) string {
	t.Helper()
	line, err := c.Line()
	if err != nil || !strings.HasPrefix(line, prefix) {
		t.Fatalf("%s gets %.200q, want a line %q: %v", c.Name, line, prefix, err)
	}
	return line
}

// Until reads lines up to one that begins in this way, which it returns.
func (c *Client) Until(t testing.TB, prefix string) string {
	t.Helper()
	for {
		if line := c.ExpectLine(t, ""); strings.HasPrefix(line, prefix) {
			return line
		}
	}
}

// Rest reads to the end of the stream, however that comes.
func (c *Client) Rest() string {
	rest, _ := io.ReadAll(c)
	return string(rest)
}

// ExpectReply sends a command whose reply must begin in this way.
func (c *Client) ExpectReply(t testing.TB, prefix, format string, args ...any) Reply {
	t.Helper()
	reply, err := c.Command(format, args...)
	if err != nil || !strings.HasPrefix(reply.Text, prefix) {
		t.Fatalf("%.40q answered %.200q, want %q: %v", format, reply.Text, prefix, err)
	}
	return reply
}

// Must sends a command that must succeed.
func (c *Client) Must(t testing.TB, format string, args ...any) Reply {
	t.Helper()
	ok := "+OK"
	if c.imap {
		ok = "OK"
	}
	return c.ExpectReply(t, ok, format, args...)
}

// ExpectSilence fails the test where anything comes for a while.
func (c *Client) ExpectSilence(t testing.TB, d time.Duration) {
	t.Helper()
	c.silence = d
	defer func() { c.silence = 0 }()
	if _, err := c.in.Peek(1); !errors.Is(err, os.ErrDeadlineExceeded) {
		early, _ := c.in.Peek(max(1, c.in.Buffered()))
		t.Fatalf("%s gets %.200q too soon: %v", c.Name, early, err)
	}
}

// ExpectEnd reads to the end of the stream, which must come in order: inside
// TLS by close_notify.
func (c *Client) ExpectEnd(t testing.TB) string {
	t.Helper()
	rest, err := io.ReadAll(c)
	if err != nil {
		t.Errorf("%s: the connection did not end in order: %v after %.200q", c.Name, err, rest)
	}
	return string(rest)
}

// ExpectLastLine reads one line that begins in this way, and then the end.
func (c *Client) ExpectLastLine(t testing.TB, prefix string) {
	t.Helper()
	if text := c.ExpectEnd(t); !strings.HasPrefix(text, prefix) || strings.Index(text, "\r\n") != len(text)-2 {
		t.Errorf("%s gets %.200q, want one line %q and the end", c.Name, text, prefix)
	}
}
