package mailproto

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"postern/internal/posterntest"
	"postern/internal/text"
)

var (
	commandLine = regexp.MustCompile(`^[^\x00-\x20\x7f-\x{10ffff}(){%*"\\+]+ ([^\x00-\x20\x7f-\x{10ffff}(){%*"\\\]]+)(| .*)\r\n$`)
	literalLine = regexp.MustCompile(`~?\{(\d+)(\+?)\}\r\n$`)
	// In an ID a literal stands as a NUL and a number.
	idString = `(?:"(?:[^"\\\r\n]|\\["\\])*"|\x00\d+|[^ ()"\r\n\x00]+)`
	wholeIDs = regexp.MustCompile(`^ *\( *(?:` + idString + ` *)*\) *\r\n$`)
	inID     = regexp.MustCompile(idString)
	quoting  = regexp.MustCompile(`\\(.)`)
)

// sniffedIn is what a Sniffer has to find in data, by regular expressions.
func sniffedIn(data []byte) string {
	data = data[:min(len(data), maxSniffed)]
	for {
		text, literals, rest, ok := commandIn(data)
		if !ok {
			return ""
		}
		data = rest
		m := commandLine.FindStringSubmatch(text)
		if m == nil || posterntest.ASCIIUpper(m[1]) != "ID" {
			continue
		}
		if software := softwareIn(m[2]+"\r\n", literals); software != "" {
			return software
		}
	}
}

// commandIn splits the first command off; its literals stand apart. An empty
// line is one too.
func commandIn(data []byte) (text string, literals []string, rest []byte, ok bool) {
	verb := ""
	for {
		line, after, err := posterntest.NextLine(data)
		if err != nil || !strictBytes(line) || len(literals) > 0 && !strings.Contains(" )\r", string(line[0])) {
			return "", nil, nil, false
		}
		if text == "" && string(line) == "\r\n" {
			return "", nil, after, true
		}
		if text == "" {
			m := commandLine.FindSubmatch(line)
			if m == nil {
				return "", nil, nil, false
			}
			verb = posterntest.ASCIIUpper(string(m[1]))
		}
		if slices.Contains([]string{"IDLE", "COMPRESS", "LOGIN", "AUTHENTICATE", "UNAUTHENTICATE"}, verb) {
			return "", nil, nil, false
		}
		m := literalLine.FindSubmatch(line)
		if m == nil {
			return text + string(line), literals, after, true
		}
		size, err := strconv.Atoi(string(m[1]))
		lit, _ := LiteralAtEnd(line)
		message := verb == "APPEND" || verb == "REPLACE" || verb == "UID"
		if err != nil || size > len(after) || !lit.PlacedIn(line) || len(m[2]) == 0 && message {
			return "", nil, nil, false
		}
		text += fmt.Sprintf("%s\x00%d", line[:len(line)-len(m[0])], len(literals))
		literals, data = append(literals, string(after[:size])), after[size:]
	}
}

func softwareIn(args string, literals []string) string {
	list := inID.FindAllString(args, -1)
	if !wholeIDs.MatchString(args) || len(list)%2 != 0 {
		return ""
	}
	for i, s := range list {
		switch {
		case s[0] == 0:
			n, _ := strconv.Atoi(s[1:])
			list[i] = literals[n]
		case s[0] == '"':
			list[i] = quoting.ReplaceAllString(s[1:len(s)-1], "$1")
		case posterntest.ASCIIUpper(s) == "NIL":
			list[i] = ""
		}
	}
	said := make(map[string]string)
	for i := 0; i < len(list); i += 2 {
		said[posterntest.ASCIIUpper(list[i])] = text.Cut(list[i+1], MaxSoftware)
	}
	if said["NAME"] == "" || said["VERSION"] == "" {
		return said["NAME"]
	}
	return text.Cut(said["NAME"]+" "+said["VERSION"], MaxSoftware)
}

// FuzzSniffer hands commands to a Sniffer in pieces of any sizes: an ID is found
// if, and only if, there is one.
func FuzzSniffer(f *testing.F) {
	for _, tt := range sniffings() {
		if len(tt.said) < 1000 {
			f.Add([]byte(tt.said), []byte{3, 0, 40})
		}
	}
	f.Fuzz(func(t *testing.T, data, sizes []byte) {
		want := sniffedIn(data)
		got := sniff(t, data, sizes)
		if len(got) > 1 || strings.Join(got, "") != want {
			t.Fatalf("%q: found %q, want %q", data, got, want)
		}
		if len(want) > MaxSoftware {
			t.Fatalf("%d bytes", len(want))
		}
	})
}

// saslIn is the account in a message that is whole, by the rules of each
// mechanism, once more; done where no other message has to be waited for.
func saslIn(mechanism, m string) (account string, done bool) {
	switch mechanism = posterntest.ASCIIUpper(mechanism); {
	case mechanism == "PLAIN":
		parts := strings.Split(m, "\x00")
		if len(parts) < 3 {
			return "", false
		}
		if parts[0] != "" {
			return parts[0], true
		}
		return parts[1], true
	case mechanism == "LOGIN":
		return m, true
	case mechanism == "XOAUTH2":
		if parts := regexp.MustCompile(`(?s)^user=([^\x01]*)\x01`).FindStringSubmatch(m); parts != nil {
			return parts[1], true
		}
	case mechanism == "OAUTHBEARER" || strings.HasPrefix(mechanism, "SCRAM-"):
		parts := regexp.MustCompile(`(?s)^(?:n|y|p=[^,]*),(?:a=([^,]*),|,n=([^,]*),)`).FindStringSubmatch(m)
		if parts != nil {
			name := strings.ReplaceAll(parts[1]+parts[2], "=2C", ",")
			return strings.ReplaceAll(name, "=3D", "="), true
		}
	case mechanism == "CRAM-MD5":
		if parts := regexp.MustCompile(`(?s)^(.*) [[:xdigit:]]{32}$`).FindStringSubmatch(m); parts != nil {
			return parts[1], true
		}
	}
	return "", false
}

// FuzzSASLAccount has a client authenticate with two messages, in IMAP with an
// initial response, in a literal or without: the account is the one that is in
// them, and never more of them.
func FuzzSASLAccount(f *testing.F) {
	for _, s := range [][3]string{
		{"PLAIN", "\x00anna\x00secret", ""}, {"plain", "anna\x00admin\x00secret", ""}, {"PLAIN", "\x00anna", "\x00bert\x00secret"},
		{"PLAIN", "", "a\x00\x00"}, {"LOGIN", "anna", "secret"}, {"LOGIN", "", "secret"}, {"XOAUTH2", "user=anna\x01auth=Bearer t\x01\x01", ""},
		{"OAUTHBEARER", "n,a=anna,\x01auth=Bearer t\x01\x01", ""}, {"OAUTHBEARER", "p=x,,n=anna,", "y,a==2C=3D=3D2C,"}, {"SCRAM-SHA-1", "n,,n=anna,r=x", "c=biws,r=x,p=y"},
		{"SCRAM-SHA-256-PLUS", "p=tls-unique,b=anna,n=x,", ""}, {"CRAM-MD5", "anna " + strings.Repeat("0", 32), ""}, {"CRAM-MD5", strings.Repeat("0", 33), ""},
		{"NTLM", "\x00anna\x00secret", ""}, {"PLAIN", strings.Repeat("x", 255) + "\x00anna\x00secret", ""}, {"LOGIN", strings.Repeat("x", 800), ""},
	} {
		f.Add(s[0], []byte(s[1]), []byte(s[2]))
	}
	f.Fuzz(func(t *testing.T, mechanism string, first, second []byte) {
		if mechanism == "" || !all([]byte(mechanism), isAtomChar) {
			return
		}
		want := ""
		for _, m := range [][]byte{first, second} {
			account, done := saslIn(mechanism, string(m[:min(len(m), maxMessage)]))
			if len(account) > MaxAccount {
				account = ""
			}
			if want = account; done {
				break
			}
		}
		one, two := base64.StdEncoding.EncodeToString(first), []byte(base64.StdEncoding.EncodeToString(second)+"\r\n")
		if one == "" {
			one = "="
		}
		ways := map[string]func(*Identity){
			"at once": func(in *Identity) { in.imap("a AUTHENTICATE " + mechanism + " " + one + "\r\n") },
			"quoted":  func(in *Identity) { in.imap("a AUTHENTICATE \"" + mechanism + "\" \"" + one + "\"\r\n") },
			"in a literal": func(in *Identity) {
				in.imap("a AUTHENTICATE " + mechanism + " {9}\r\n")
				in.Literal([]byte(one))
				in.Line(crlf)
			},
			"asked": func(in *Identity) {
				in.imap("a AUTHENTICATE " + mechanism + "\r\n")
				in.Response([]byte(one + "\r\n"))
			},
			"POP3": func(in *Identity) {
				in.POP3Command(POP3Command{Name: Keyword("AUTH"), Args: []byte(mechanism + " " + one)})
			},
		}
		for name, say := range ways {
			in := &Identity{Wanted: true, Account: "before"}
			say(in)
			kept := bytes.Clone(two)
			in.Response(two)
			if in.Account != want || !bytes.Equal(two, kept) {
				t.Fatalf("%s, %s: %q, %q: account %q, want %q", name, mechanism, first, second, in.Account, want)
			}
		}
	})
}

// imap begins a command.
func (in *Identity) imap(line string) {
	cmd, _ := ParseIMAPCommand([]byte(line))
	in.IMAPCommand(cmd)
}
