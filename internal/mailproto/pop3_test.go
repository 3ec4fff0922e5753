package mailproto

import (
	"io"
	"strings"
	"testing"
)

func TestPOP3Commands(t *testing.T) {
	for _, tt := range []struct {
		line, name, args   string
		ok, login, listing bool
	}{
		{"USER anna\r\n", "USER", "anna", true, false, false},
		{"pass with spaces \r\n", "pass", "with spaces", true, true, false},
		{"APOP anna c4\r\n", "APOP", "anna c4", true, true, false},
		{"AUTH\r\n", "AUTH", "", true, false, true},
		{"AUTH PLAIN\r\n", "AUTH", "PLAIN", true, true, false},
		{"capa\r\n", "capa", "", true, false, true},
		{"LANG\r\n", "LANG", "", true, false, true},
		{"LANG de\r\n", "LANG", "de", true, false, false},
		{"HELP\r\n", "HELP", "", true, false, true},
		{"NOOP\r\n", "NOOP", "", true, false, false},
		{"\r\n", "", "", false, false, true},
		{" USER anna\r\n", "", "USER anna", false, false, true},
		{"US\tER anna\r\n", "US\tER", "anna", false, false, true},
	} {
		c, ok := ParsePOP3Command([]byte(tt.line))
		if string(c.Name) != tt.name || string(c.Args) != tt.args || ok != tt.ok || c.IsLogin() != tt.login || c.MayList() != tt.listing {
			t.Errorf("%q: %q %q, %v, login %v, listing %v", tt.line, c.Name, c.Args, ok, c.IsLogin(), c.MayList())
		}
	}
}

func TestPOP3Listings(t *testing.T) {
	for _, tt := range []struct {
		in, want string
		err      error
	}{
		{".\r\n", "+OK\r\n.\r\n", nil},
		{"STLS\r\nTOP\r\nSASL PLAIN X-PLUS\r\n.\r\nmore\r\n", "+OK\r\nTOP\r\nSASL PLAIN\r\n.\r\n", nil},
		{".x\r\n.\n", "+OK\r\n.x\r\n.\n", nil},
		{"TOP\r\n", "", io.EOF},
		{strings.Repeat(strings.Repeat("x", 1000)+"\r\n", 263), "", ErrLiterals},
	} {
		got, err := NewLineReader(strings.NewReader(tt.in)).POP3Listing([]byte("+OK\r\n"))
		if string(got) != tt.want || err != tt.err {
			t.Errorf("%.50q: %q, %v", tt.in, got, err)
		}
	}
}

func TestAGreetingDoesNotSayWhatIsForProxies(t *testing.T) {
	for in, want := range map[string]string{
		"+OK [XCLIENT] Dovecot ready.\r\n":          "+OK Dovecot ready.\r\n",
		"+ok [xclient] ready <1.2@example.org>\r\n": "+ok ready <1.2@example.org>\r\n",
		"+OK [XCLIENT]\r\n":                         "+OK \r\n",
		"+OK ready [XCLIENT]\r\n":                   "+OK ready [XCLIENT]\r\n",
		"+OK [X] ready\r\n":                         "+OK [X] ready\r\n",
		"+OK\r\n":                                   "+OK\r\n",
	} {
		if got := string(FilterPOP3Greeting([]byte(in))); got != want {
			t.Errorf("%q became %q, want %q", in, got, want)
		}
	}
}
