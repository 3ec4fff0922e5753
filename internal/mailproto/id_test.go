package mailproto

import (
	"strings"
	"testing"
)

// filterID sends the arguments of one ID command through a filter, as a relay
// would: it is flushed at each synchronizing literal and at the end.
func filterID(in string) (string, error) {
	var f IDFilter
	var out strings.Builder
	flush := func() error {
		p, err := f.Flush()
		out.Write(p)
		return err
	}
	for more := true; more; {
		end := strings.IndexByte(in, '\n') + 1
		line, rest := in[:end], in[end:]
		f.Add([]byte(line))
		var lit Literal
		if lit, more = LiteralAtEnd([]byte(line)); !more {
			break
		}
		if lit.Sync {
			if err := flush(); err != nil {
				return "", err
			}
		}
		f.Add([]byte(rest[:lit.Size]))
		in = rest[lit.Size:]
	}
	err := flush()
	return out.String(), err
}

func TestForbiddenIDFieldsAreTakenOut(t *testing.T) {
	const rest = `"name" "x"`
	for _, tt := range []struct{ name, in, want string }{
		{"alone", ` ("x-originating-ip" "1.2.3.4")`, ` ()`},
		{"first", ` ("x-originating-ip" "1.2.3.4" ` + rest + `)`, ` (` + rest + `)`},
		{"last", ` (` + rest + ` "x-originating-ip" "1.2.3.4")`, ` (` + rest + `)`},
		{"between", ` (` + rest + ` "x-connected-port" "1" "os" NIL)`, ` (` + rest + ` "os" NIL)`},
		{"several", ` ("x-session-id" "1" "x-session-ext-id" "2" ` + rest + ` "x-proxy-ttl" "3" "x-connected-ip" "4")`, ` (` + rest + `)`},
		{"mixed case", ` ("X-Originating-PORT" "9" ` + rest + `)`, ` (` + rest + `)`},
		{"prefix", ` ("x-forward-" "a" "X-FORWARD-anything" "b" "x-forwarde" "c")`, ` ("x-forwarde" "c")`},
		{"NIL value", ` ("x-originating-ip" NIL ` + rest + `)`, ` (` + rest + `)`},
		{"atom", ` (x-originating-ip 1.2.3.4 ` + rest + `)`, ` (` + rest + `)`},
		{"value with parentheses", ` ("x-originating-ip" "a) (\"b\\" ` + rest + `)`, ` (` + rest + `)`},
		{"literal value", " (\"x-originating-ip\" {7+}\r\n1.2.3.4 " + rest + ")", ` (` + rest + `)`},
		{"literal name", " ({16+}\r\nX-Originating-IP \"1.2.3.4\" " + rest + ")", ` (` + rest + `)`},
		{"both", " ({16+}\r\nx-originating-ip {7+}\r\n1.2.3.4 " + rest + ")", ` (` + rest + `)`},
		{"literal8", " (~{16+}\r\nx-originating-ip ~{7+}\r\n1.2.3.4 " + rest + ")", ` (` + rest + `)`},
		{"behind a literal that ends like a list begins", " (\"a\" {1+}\r\n( \"x-session-id\" \"y\" \"b\" \"c\")", " (\"a\" {1+}\r\n( \"b\" \"c\")"},
		{"without spaces", ` ("a"b"x-session-id""y"c"d")`, ` ("a"b c"d")`},
		{"its name as a value stays", ` ("name" "x-originating-ip")`, ` ("name" "x-originating-ip")`},
		{"inside a literal stays", " (\"name\" {23+}\r\nx-originating-ip \"1.2\") )", " (\"name\" {23+}\r\nx-originating-ip \"1.2\") )"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := filterID(tt.in + "\r\n")
			if err != nil || got != tt.want+"\r\n" {
				t.Errorf("%q became %q, %v, want %q", tt.in, got, err, tt.want)
			}
		})
	}
}

func TestForbiddenIDFieldsInSynchronizingLiteralsMeanNothing(t *testing.T) {
	for _, tt := range []struct{ name, in, want string }{
		{"value, first field", " (\"x-originating-ip\" {7}\r\n1.2.3.4 \"name\" \"x\")\r\n", " (\"x-removed\" {7}\r\n        \"name\" \"x\")\r\n"},
		{"value, later field", " (\"name\" \"x\" \"x-originating-ip\" {7}\r\n1.2.3.4)\r\n", " (\"name\" \"x\" \"x-removed\" {7}\r\n       )\r\n"},
		{"value, behind a removed field", " (\"x-session-id\" \"x\" \"x-originating-ip\" {7}\r\n1.2.3.4)\r\n", " (\"x-removed\" {7}\r\n       )\r\n"},
		{"name", " ({16}\r\nX-originating-ip \"1.2.3.4\" \"name\" \"x\")\r\n", " ({16}\r\nxxxxxxxxxxxxxxxx NIL \"name\" \"x\")\r\n"},
		{"name, with a value in a literal of the other kind", " ({16}\r\nX-originating-ip {7+}\r\n1.2.3.4)\r\n", " ({16}\r\nxxxxxxxxxxxxxxxx NIL)\r\n"},
		{"name and value", " ({16}\r\nx-originating-ip {7}\r\n1.2.3.4)\r\n", " ({16}\r\nxxxxxxxxxxxxxxxx {7}\r\n       )\r\n"},
		{"an honest field", " ({4}\r\nname {16}\r\nx-originating-ip)\r\n", " ({4}\r\nname {16}\r\nx-originating-ip)\r\n"},
		{"an honest value", " (\"name\" {3}\r\na\r\n \"x-session-id\" \"y\")\r\n", " (\"name\" {3}\r\na\r\n)\r\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got, err := filterID(tt.in); err != nil || got != tt.want {
				t.Errorf("%q became %q, %v, want %q", tt.in, got, err, tt.want)
			}
		})
	}
}

func TestOtherIDsStayAsTheyAre(t *testing.T) {
	for _, in := range []string{
		" NIL\r\n", " nil\r\n", " ()\r\n", "  ( )\r\n", ` ("name" "x" "version" NIL)` + "\r\n", ` (  "name"   "a \" b"  )  ` + "\r\n",
		" (name {5+}\r\nhello os \"y\")\r\n", ` ("" "")` + "\r\n", ` ("x-originating-ipx" "1")` + "\r\n", ` ("x-forward" "1")` + "\r\n",
		` (" x-originating-ip" "1")` + "\r\n", "NIL\r\n",
	} {
		if got, err := filterID(in); err != nil || got != in {
			t.Errorf("%q became %q, %v", in, got, err)
		}
	}
}

func TestMalformedIDsAreRefused(t *testing.T) {
	for _, in := range []string{
		"\r\n", " \r\n", " x\r\n", " (\r\n", " )\r\n", ` ("a"`, ` ("a")` + "\r\n", ` ("a" "b"` + "\r\n", ` ("a" "b" "c")` + "\r\n",
		` ("a" "b") x` + "\r\n", ` ("a" "b"))` + "\r\n", ` (("a" "b"))` + "\r\n", ` ("a" ("b"))` + "\r\n", ` ("a\x" "b")` + "\r\n",
		` ("a "b")` + "\r\n", " NIL NIL\r\n", " NIL ()\r\n", ` "a" "b"` + "\r\n", ` ("x-originating-ip")` + "\r\n",
	} {
		if got, err := filterID(in); err == nil {
			t.Errorf("%q became %q", in, got)
		}
	}
}

// Literals without synchronization need nobody's consent, so that a client can
// send them for as long as it likes.
func TestAnIDThatDoesNotEndTakesLittleMemory(t *testing.T) {
	f := NewIDFilter(IMAPCommand{Tag: []byte("a"), Name: Keyword("ID")})
	f.Add([]byte(" (\"os\" {0+}\r\n"))
	field := []byte(" \"" + strings.Repeat("x", 1000) + "\" {0+}\r\n")
	for range 2000 {
		f.Add(nil)
		f.Add(field)
	}
	if n := cap(f.args); n > 2*(MaxLine+MaxLiterals) {
		t.Errorf("it holds %d bytes", n)
	}
	if _, err := f.Flush(); err != ErrID {
		t.Errorf("got %v", err)
	}
}

// Each is asked for by the server, and has the whole ID read again.
func TestAnIDHasAHundredSynchronizingLiteralsAtMost(t *testing.T) {
	field := "\"os\" {1}\r\nx "
	for fields, want := range map[int]error{maxFlushes - 1: nil, maxFlushes: ErrID} {
		if out, err := filterID(" (" + strings.Repeat(field, fields) + ")\r\n"); err != want {
			t.Errorf("%d fields became %d bytes, %v, want %v", fields, len(out), err, want)
		}
	}
}
