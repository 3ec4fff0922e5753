package mailproto

import (
	"errors"
	"io"
	"strings"
	"testing"
)

// scripted is a server that says the same whatever it is told.
type scripted struct {
	io.Reader
	told strings.Builder
}

func (s *scripted) Write(b []byte) (int, error) { return s.told.Write(b) }

// begin returns a dialogue with a server that has greeted.
func begin(t *testing.T, greeting, says string) (*Dialogue, *scripted) {
	t.Helper()
	s := &scripted{Reader: strings.NewReader(greeting + "\r\n" + says)}
	d := NewDialogue(s)
	if got, err := d.Greeting(); err != nil || got != greeting+"\r\n" {
		t.Fatalf("%q, %v", got, err)
	}
	return d, s
}

func TestRepliesAreReadToTheirEnd(t *testing.T) {
	const many = maxResponses
	for _, tt := range []struct {
		name, greeting, command, in, told, reply string
		lines                                    int
		err                                      error
	}{
		{"at once", "* OK", "NOOP", "postern OK done\r\n", "postern NOOP\r\n", "OK done", 0, nil},
		{"behind others", "* OK", "NOOP", "* 1 EXISTS\r\n+ go\r\nx OK\r\npostern NO\r\n", "postern NOOP\r\n", "NO", 3, nil},
		{"in a literal it is none", "* OK", "NOOP", "* ID (\"name\" {12}\r\npostern OK\r\n)\r\npostern OK\r\n", "postern NOOP\r\n", "OK", 1, nil},
		{"behind text that looks like a literal", "* OK", "NOOP", "* OK {6}\r\npostern OK\r\n", "postern NOOP\r\n", "OK", 1, nil},
		{"never", "* OK", "NOOP", "* 1 EXISTS\r\n", "postern NOOP\r\n", "", 1, io.EOF},
		{"too late", "* OK", "NOOP", strings.Repeat("* 1 EXISTS\r\n", many) + "postern OK\r\n", "postern NOOP\r\n", "", many, ErrOutOfStep},
		{"behind too much", "* OK", "NOOP", "* X {65537}\r\n", "postern NOOP\r\n", "", 0, ErrLiterals},
		{"behind too much in all", "* OK", "NOOP", strings.Repeat("* X {60000}\r\n"+strings.Repeat("x", 60000)+"\r\n", 6), "postern NOOP\r\n", "", 5, ErrOutOfStep},
		{"behind too many lines", "* OK", "NOOP", "{0}\r\n" + strings.Repeat(strings.Repeat("x", 1000)+" {0}\r\n", 70), "postern NOOP\r\n", "", 0, ErrLineTooLong},
		{"a line", "+OK", "QUIT", "+OK bye\r\nmore\r\n", "QUIT\r\n", "+OK bye", 0, nil},
		{"a list", "+OK", "CAPA", "+OK\r\nSTLS\r\nUSER\r\n.\r\nmore\r\n", "CAPA\r\n", "+OK", 2, nil},
		{"no list", "+OK", "CAPA", "-ERR what?\r\nmore\r\n", "CAPA\r\n", "-ERR what?", 0, nil},
		{"a list without an end", "+OK", "CAPA", "+OK\r\nSTLS\r\n", "CAPA\r\n", "", 1, io.EOF},
		{"an endless list", "+OK", "CAPA", "+OK\r\n" + strings.Repeat("TOP\r\n", many+1), "CAPA\r\n", "", many, ErrOutOfStep},
	} {
		d, s := begin(t, tt.greeting+" ready", tt.in)
		reply, lines, err := d.Say(tt.command)
		if reply != tt.reply || len(lines) != tt.lines || err != tt.err || s.told.String() != tt.told {
			t.Errorf("%s: %q behind %d lines, %v; told %q", tt.name, reply, len(lines), err, &s.told)
		}
	}
}

func TestTLSBeginsBehindAnOKAlone(t *testing.T) {
	for in, want := range map[string]error{
		"postern OK go on\r\n":                    nil,
		"postern OK go on\r\n* OK more\r\n":       ErrInjectedReply,
		"postern NO not here\r\n":                 ErrNoStartTLS,
		"postern OKAY\r\n":                        ErrNoStartTLS,
		"* BYE\r\n":                               io.EOF,
		"* OK\r\npostern BAD what?\r\n* OK x\r\n": ErrNoStartTLS,
	} {
		d, s := begin(t, "* OK ready", in)
		if err := d.StartTLS("\r\nx NOOP"); !errors.Is(err, want) || s.told.String() != "postern STARTTLS\r\nx NOOP\r\n" {
			t.Errorf("%q: %v, told %q", in, err, &s.told)
		}
	}
	for in, want := range map[string]error{"+OK\r\n": nil, "+OK\r\n+OK\r\n": ErrInjectedReply, "-ERR\r\n": ErrNoStartTLS} {
		d, s := begin(t, "+OK ready", in)
		if err := d.StartTLS(""); !errors.Is(err, want) || s.told.String() != "STLS\r\n" {
			t.Errorf("%q: %v, told %q", in, err, &s.told)
		}
	}
}

func TestNothingFromBeforeTLSIsReadInside(t *testing.T) {
	d, _ := begin(t, "* OK ready", "* OK more\r\n")
	d.Inside(&scripted{Reader: strings.NewReader("postern OK inside\r\n")})
	if reply, lines, err := d.Say("NOOP"); reply != "OK inside" || lines != nil || err != nil {
		t.Errorf("%q, %q, %v", reply, lines, err)
	}
}
