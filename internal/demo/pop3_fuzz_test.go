package demo

import (
	"bytes"
	"io"
	"net"
	"regexp"
	"strings"
	"testing"
	"time"
)

// A tape is a connection whose client has said all that it will ever say.
type tape struct {
	net.Conn
	in  io.Reader
	out bytes.Buffer
}

func (t *tape) Read(b []byte) (int, error)       { return t.in.Read(b) }
func (t *tape) Write(b []byte) (int, error)      { return t.out.Write(b) }
func (t *tape) SetReadDeadline(time.Time) error  { return nil }
func (t *tape) SetWriteDeadline(time.Time) error { return nil }

// oneByteReader hands out what it has byte by byte, as a slow client would.
type oneByteReader struct{ io.Reader }

func (r oneByteReader) Read(b []byte) (int, error) { return r.Reader.Read(b[:min(1, len(b))]) }

var (
	statusLine = regexp.MustCompile(`^(\+OK|-ERR|\+) [\x20-\x7e]*$`)
	multiline  = regexp.MustCompile(
		`^\+OK (\d+ octets|\d+ messages \(.*|what this server can do|top of message follows)$`)
)

// FuzzPOP3 holds that any input ends the session without a panic, that the
// answer is the same in whatever pieces it comes, that it grows no faster than
// there are commands, and that nothing but replies is in it.
func FuzzPOP3(f *testing.F) {
	f.Add([]byte("USER anna\r\nPASS de mo\r\nSTAT\r\nRETR 2\r\nTOP 2 1\r\nDELE 1\r\nRSET\r\nQUIT\r\n"))
	f.Add([]byte("USER anna\r\nPASS de mo\r\nUIDL\r\nLIST 1\r\n"))
	f.Add([]byte("AUTH PLAIN =\r\nCAPA\r\nUSER \x00\r\n\r\n\n\r"))
	f.Fuzz(func(t *testing.T, in []byte) {
		whole := &tape{in: bytes.NewReader(in)}
		newPOP3(whole, smallDrops()).run()
		pieces := &tape{in: oneByteReader{bytes.NewReader(in)}}
		newPOP3(pieces, smallDrops()).run()

		out := whole.out.String()
		if out != pieces.out.String() {
			t.Errorf("in pieces it said %q, at once %q", &pieces.out, out)
		}
		if most := 300 * (bytes.Count(in, []byte("\n")) + 1); len(out) > most {
			t.Errorf("%d octets in answer, at most %d expected", len(out), most)
		}
		checkReplies(t, out, bytes.Count(in, []byte("\n")))
	})
}

// checkReplies reads out as a client would that knows no command, and so
// tells a multi-line reply by what the server says of it.
func checkReplies(t *testing.T, out string, lines int) {
	t.Helper()
	replies, inBody := 0, false
	for line := range strings.Lines(out) {
		text, ok := strings.CutSuffix(line, "\r\n")
		switch {
		case !ok:
			t.Fatalf("%q does not end in CRLF", line)
		case inBody:
			inBody = text != "."
		case !statusLine.MatchString(text):
			t.Fatalf("%q is no reply", line)
		default:
			replies++
			inBody = multiline.MatchString(text)
		}
	}
	if inBody {
		t.Fatalf("a reply has no end: %q", out)
	}
	if replies > lines+1 {
		t.Fatalf("%d replies to %d lines: %q", replies, lines, out)
	}
}
