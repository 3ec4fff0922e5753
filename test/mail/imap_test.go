package mail

import (
	"bufio"
	"bytes"
	"compress/flate"
	"fmt"
	"io"
	"net"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// imapClient is a bare IMAP client: it shows the wire as it is.
type imapClient struct {
	conn     net.Conn
	r        *bufio.Reader
	w        io.Writer
	flush    func() error // of a compressed stream
	tag      int
	greeting string
}

// response is one line with its literals taken out.
type response struct {
	line     string
	literals [][]byte
}

func newIMAP(c net.Conn) *imapClient {
	return &imapClient{conn: c, r: bufio.NewReaderSize(c, 64<<10), w: c, flush: func() error { return nil }}
}

// imap returns a client inside TLS over one of the listeners imaps and imap.
func (w *world) imap(t *testing.T, listener string) *imapClient {
	t.Helper()
	conn := dial(t, w.Addr(listener))
	if listener == "imaps" {
		c := newIMAP(w.secure(t, conn))
		c.greeting = c.readLine(t)
		return c
	}
	plain := newIMAP(conn)
	plain.readLine(t)
	plain.ok(t, "STARTTLS")
	return newIMAP(w.secure(t, conn))
}

// directIMAP talks to Dovecot itself, from the gate's address.
func (w *world) directIMAP(t *testing.T) *imapClient {
	t.Helper()
	c := newIMAP(dialFrom(t, "127.0.0.1", w.dovecot.IMAP))
	c.greeting = c.readLine(t)
	return c
}

func (c *imapClient) login(t *testing.T, w *world) {
	t.Helper()
	c.ok(t, "LOGIN %q %q", w.user.Name, w.user.Password)
}

func (c *imapClient) send(t *testing.T, text string) {
	t.Helper()
	_, err := io.WriteString(c.w, text)
	if err == nil {
		err = c.flush()
	}
	if err != nil {
		t.Fatalf("sending %.40q: %v", text, err)
	}
}

func (c *imapClient) readLine(t *testing.T) string {
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

var literalEnd = regexp.MustCompile(`\{(\d+)\}$`)

func (c *imapClient) read(t *testing.T) response {
	t.Helper()
	var r response
	for {
		line := c.readLine(t)
		r.line += line
		m := literalEnd.FindStringSubmatch(line)
		if m == nil {
			return r
		}
		n, err := strconv.Atoi(m[1])
		if err != nil {
			t.Fatal(err)
		}
		literal := make([]byte, n)
		if _, err := io.ReadFull(c.r, literal); err != nil {
			t.Fatalf("reading a literal of %d bytes: %v", n, err)
		}
		r.literals = append(r.literals, literal)
	}
}

// command returns the untagged responses and the tagged one without its tag.
func (c *imapClient) command(t *testing.T, format string, args ...any) ([]response, string) {
	t.Helper()
	c.start(t, format, args...)
	return c.finish(t)
}

func (c *imapClient) start(t *testing.T, format string, args ...any) {
	t.Helper()
	setDeadline(t, c.conn)
	c.tag++
	c.send(t, fmt.Sprintf("x%d ", c.tag)+fmt.Sprintf(format, args...)+"\r\n")
}

func (c *imapClient) finish(t *testing.T) ([]response, string) {
	t.Helper()
	var untagged []response
	for {
		r := c.read(t)
		if done, ok := strings.CutPrefix(r.line, fmt.Sprintf("x%d ", c.tag)); ok {
			return untagged, done
		}
		untagged = append(untagged, r)
	}
}

// ok is command for one that must succeed.
func (c *imapClient) ok(t *testing.T, format string, args ...any) ([]response, string) {
	t.Helper()
	untagged, done := c.command(t, format, args...)
	if !strings.HasPrefix(done, "OK") {
		t.Fatalf("%.40q answered %q", format, done)
	}
	return untagged, done
}

// compress turns on COMPRESS=DEFLATE (RFC 4978): raw deflate both ways from
// the byte after the OK.
func (c *imapClient) compress(t *testing.T) {
	t.Helper()
	c.ok(t, "COMPRESS DEFLATE")
	w, err := flate.NewWriter(c.conn, flate.DefaultCompression)
	if err != nil {
		t.Fatal(err)
	}
	c.w, c.flush = w, w.Flush
	c.r = bufio.NewReaderSize(flate.NewReader(c.r), 64<<10)
}

// fetchAll returns every message of the INBOX, in order.
func (c *imapClient) fetchAll(t *testing.T) [][]byte {
	t.Helper()
	c.ok(t, "EXAMINE INBOX")
	untagged, _ := c.ok(t, "UID FETCH 1:* (UID BODY.PEEK[])")
	var messages [][]byte
	for _, r := range untagged {
		if strings.Contains(r.line, "FETCH (UID ") && len(r.literals) == 1 {
			messages = append(messages, r.literals[0])
		}
	}
	return messages
}

func TestIdleWakesThroughTheGate(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "enforce", smallMailbox()...)
	for _, listener := range []string{"imaps", "imap"} {
		c := w.imap(t, listener)
		c.login(t, w)
		c.ok(t, "SELECT INBOX")
		c.start(t, "IDLE")
		for line := c.readLine(t); !strings.HasPrefix(line, "+"); line = c.readLine(t) {
			if !strings.HasPrefix(line, "* ") {
				t.Fatalf("%s: IDLE answered %q", listener, line)
			}
		}
		w.dovecot.Deliver(t, w.user.Name, smallMailbox()[1])
		for line := c.readLine(t); !strings.HasSuffix(line, " EXISTS"); line = c.readLine(t) {
			if !strings.HasPrefix(line, "* ") {
				t.Fatalf("%s: a delivery told %q", listener, line)
			}
		}
		c.send(t, "DONE\r\n")
		if _, done := c.finish(t); !strings.HasPrefix(done, "OK") {
			t.Errorf("%s: DONE answered %q", listener, done)
		}
		c.ok(t, "LOGOUT")
	}
}

func TestCompressWorksThroughTheGate(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "enforce", smallMailbox()...)
	for _, listener := range []string{"imaps", "imap"} {
		c := w.imap(t, listener)
		c.login(t, w)
		c.compress(t)
		sameMessages(t, listener, hashAll(c.fetchAll(t)), hashAll(smallMailbox()))
		upload := bytes.Repeat([]byte("STARTTLS \xe9\xff\r\n"), 20_000)
		c.ok(t, "APPEND INBOX {%d+}\r\n%s", len(upload), upload)
		c.ok(t, "SELECT INBOX")
		untagged, _ := c.ok(t, "UID FETCH * BODY.PEEK[]")
		if len(untagged) != 1 || len(untagged[0].literals) != 1 || !bytes.Equal(untagged[0].literals[0], upload) {
			t.Errorf("%s: what was appended did not come back", listener)
		}
		c.ok(t, `STORE * +FLAGS.SILENT (\Deleted)`)
		c.ok(t, "EXPUNGE")
		c.ok(t, "LOGOUT")
	}
}
