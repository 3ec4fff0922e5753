package mailproto

import (
	"regexp"
	"strings"
	"testing"
)

func TestIMAPCommandSyntaxIsStrict(t *testing.T) {
	for _, tt := range []struct{ line, tag, name, args string }{
		{"a LOGIN u p\r\n", "a", "LOGIN", " u p\r\n"},
		{"a NOOP\r\n", "a", "NOOP", "\r\n"},
		{"A1.-] noop\r\n", "A1.-]", "noop", "\r\n"},
		{"a NOOP \r\n", "a", "NOOP", " \r\n"},
		{"a UID FETCH 1\r\n", "a", "UID", " FETCH 1\r\n"},
	} {
		c, ok := ParseIMAPCommand([]byte(tt.line))
		if !ok || string(c.Tag) != tt.tag || string(c.Name) != tt.name || string(c.Args) != tt.args {
			t.Errorf("%q: %q %q %q, %v", tt.line, c.Tag, c.Name, c.Args, ok)
		}
	}
	for _, line := range []string{
		"\r\n", " NOOP\r\n", "a\r\n", "a \r\n", "a  NOOP\r\n", "a\tNOOP\r\n", "a\tb NOOP\r\n", "a NO\tOP\r\n", "a+ NOOP\r\n",
		"+ NOOP\r\n", "* NOOP\r\n", "a* NOOP\r\n", "(a NOOP\r\n", "{3} NOOP\r\n", "a {3}\r\n", "a \"NOOP\"\r\n", "a\\ NOOP\r\n",
		"a% NOOP\r\n", "a\x7f NOOP\r\n", "a\x80 NOOP\r\n", "a NO\xffOP\r\n", "a NO{OP\r\n", "a ]X\r\n",
	} {
		if c, ok := ParseIMAPCommand([]byte(line)); ok {
			t.Errorf("%q is taken for %q %q", line, c.Tag, c.Name)
		}
	}
}

func TestLiteralHeaders(t *testing.T) {
	const tooLong = MaxLiterals + 1
	for _, tt := range []struct {
		line   string
		size   int
		sync   bool
		header int
	}{
		{"a LOGIN {5}\r\n", 5, true, 5},
		{"a LOGIN {5+}\r\n", 5, false, 6},
		{"a LOGIN {0}\r\n", 0, true, 5},
		{"a LOGIN {0+}\r\n", 0, false, 6},
		{"a LOGIN {5}\n", 5, true, 4},
		{"a X ~{5}\r\n", 5, true, 6},
		{"a X ~{5+}\r\n", 5, false, 7},
		{"a LOGIN {0005}\r\n", 5, true, 8},
		{"a {{5}\r\n", 5, true, 5},
		{"a LOGIN {262144}\r\n", 262144, true, 10},
		{"a LOGIN {262145}\r\n", tooLong, true, 10},
		{"a LOGIN {99999999999999999999}\r\n", tooLong, true, 24},
		{"a LOGIN {99999999999999999999+}\r\n", tooLong, false, 25},
		{"{1}\r\n", 1, true, 5},
	} {
		lit, ok := LiteralAtEnd([]byte(tt.line))
		if want := (Literal{tt.size, tt.sync, tt.header}); !ok || lit != want {
			t.Errorf("%q: %+v, %v, want %+v", tt.line, lit, ok, want)
		}
	}
	for _, line := range []string{
		"a LOGIN {5}", "a LOGIN {5} \r\n", "a LOGIN {}\r\n", "a LOGIN {+}\r\n", "a LOGIN {-5}\r\n", "a LOGIN {5++}\r\n", "a LOGIN {+5}\r\n",
		"a LOGIN {5 }\r\n", "a LOGIN {0x5}\r\n", "a LOGIN 5}\r\n", "a LOGIN {5\r\n", "}\r\n", "\r\n", "", "a {5}}\r\n", "a {\xb2}\r\n", "a {5-}\r\n",
	} {
		if lit, ok := LiteralAtEnd([]byte(line)); ok {
			t.Errorf("%q has a literal %+v", line, lit)
		}
	}
}

func TestLiteralsStandWhereEveryServerSeesThem(t *testing.T) {
	for line, want := range map[string]bool{
		`a LOGIN {5}`:                       true,
		`a LOGIN {5+}`:                      true,
		`a LOGIN "u" {5}`:                   true,
		`a LOGIN "u \" {9} \\" {5}`:         true,
		`a ID ({5}`:                         true,
		`a ID ("name" {5}`:                  true,
		`a ID ("name" "x") {5}`:             true,
		`a X ~{5}`:                          true,
		`a LOGIN "" {5}`:                    true,
		`a LOGIN u{5}`:                      false,
		`a LOGIN {{5}`:                      false,
		`a X ~~{5}`:                         false,
		`a LOGIN "u {5}`:                    false, // inside an open string
		`a LOGIN "u\" {5}`:                  false,
		`a LOGIN "u\\" {5}`:                 true,
		`a LOGIN "u\\\" {5}`:                false,
		`a LOGIN "u\x" {5}`:                 false, // no such escape
		`a LOGIN "u"{5}`:                    false,
		`a LOGIN "u"x {5}`:                  false,
		`a LOGIN "u""v" {5}`:                false,
		`a LOGIN x"u" {5}`:                  false,
		`a LOGIN x" {5}`:                    false,
		`"u" {5}`:                           false,
		`){5}`:                              false,
		`{5}`:                               false, // right behind another literal
		` {5}`:                              true,
		` "a {1} b" {99999999999999999999}`: true,
	} {
		b := []byte(line + "\r\n")
		lit, ok := LiteralAtEnd(b)
		if !ok {
			t.Fatalf("%q has no literal", line)
		}
		if got := lit.PlacedIn(b); got != want {
			t.Errorf("%q: placed %v, want %v", line, got, want)
		}
	}
	// What looks like a literal inside quotes is none: the line goes on.
	if lit, ok := LiteralAtEnd([]byte("a LOGIN u \"{5}\"\r\n")); ok {
		t.Errorf("a quoted {5} is taken for a literal: %+v", lit)
	}
}

func TestQuotedStrings(t *testing.T) {
	for _, tt := range []struct {
		in, value string
		size      int
		ok        bool
	}{
		{`""`, "", 2, true}, {`"a b" c`, "a b", 5, true}, {`"a\"b"`, `a"b`, 6, true}, {`"a\\"`, `a\`, 5, true},
		{`"\\\""x`, `\"`, 6, true}, {`"{5}"`, "{5}", 5, true}, {"\"\xff\"", "\xff", 3, true},
		{`"a`, "", 0, false}, {`"`, "", 0, false}, {`"a\`, "", 0, false}, {`"a\n"`, "", 0, false}, {"\"a\r\"", "", 0, false},
		{"\"a\n\"", "", 0, false}, {`"\"`, "", 0, false},
	} {
		for _, pattern := range []*regexp.Regexp{arguments, idArguments} {
			tok, _ := nextToken([]byte(tt.in), pattern)
			if string(tok.value) != tt.value || len(tok.raw) != tt.size || (tok.kind == tokenQuoted) != tt.ok {
				t.Errorf("%q: %+v", tt.in, tok)
			}
		}
	}
}

func TestLongestLineIsStillALine(t *testing.T) {
	fits := strings.Repeat("a", MaxLine-2) + "\r\n"
	r := NewLineReader(strings.NewReader(fits + "next\r\n"))
	if line, err := r.Line(); err != nil || len(line) != MaxLine {
		t.Fatalf("%d bytes, %v", len(line), err)
	}
	if line, err := r.Line(); err != nil || string(line) != "next\r\n" {
		t.Fatalf("%q, %v", line, err)
	}
	r = NewLineReader(strings.NewReader("a" + fits))
	if _, err := r.Line(); err != ErrLineTooLong {
		t.Errorf("a byte more: %v", err)
	}
	if cap(r.buf) > 2*MaxLine {
		t.Errorf("holds %d bytes", cap(r.buf))
	}
}
