package servers

import (
	"encoding/base64"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"

	"postern/internal/dovecot"
	"postern/internal/posterntest"
)

// dialogue is what a server says to one client, in lines.
type dialogue struct {
	*posterntest.Client
	s    *server
	user string
	said []string
	caps string // the capabilities before the login
	way  string // to log in
}

func (d *dialogue) hear(lines ...string) { d.said = append(d.said, lines...) }

// command sends one, and hears the whole reply.
func (d *dialogue) command(t *testing.T, format string, args ...any) posterntest.Reply {
	t.Helper()
	if err := d.Start(format, args...); err != nil {
		t.Fatalf("%s: %v", d.Name, err)
	}
	return d.finish(t)
}

func (d *dialogue) finish(t *testing.T) posterntest.Reply {
	t.Helper()
	reply, err := d.Finish()
	if err != nil {
		t.Fatalf("%s: %v after\n%s", d.Name, err, strings.Join(d.said, "\n"))
	}
	for _, r := range reply.Untagged {
		d.hear(r.Line)
		for _, literal := range r.Literals {
			d.hear(string(literal))
		}
	}
	d.hear(reply.Text)
	return reply
}

// line hears a single line.
func (d *dialogue) line(t *testing.T) string {
	t.Helper()
	line := d.ExpectLine(t, "")
	d.hear(line)
	return line
}

// list hears the lines of a POP3 reply, to the dot.
func (d *dialogue) list(t *testing.T, format string, args ...any) {
	t.Helper()
	if !d.command(t, format, args...).OK() {
		return
	}
	wire, _, err := d.Multiline()
	if err != nil {
		t.Fatalf("%s: %v", d.Name, err)
	}
	d.hear(strings.Split(string(wire), "\r\n")...)
}

// end hears what comes to the end of the connection.
func (d *dialogue) end(t *testing.T) {
	t.Helper()
	d.hear(d.ExpectEnd(t) + "(end)")
}

// has tells whether the server has announced a capability before the login.
func (d *dialogue) has(capability string) bool {
	return slices.Contains(strings.Fields(d.caps), capability)
}

func (d *dialogue) plain() string {
	return base64.StdEncoding.EncodeToString([]byte("\x00" + d.user + "\x00" + password))
}

// loginsOf are the ways to log in, by the name of the protocol.
var loginsOf = map[string]map[string]func(*testing.T, *dialogue){
	"imap": {
		"LOGIN": func(t *testing.T, d *dialogue) { d.command(t, "LOGIN %s %q", d.user, password) },
		"LOGIN with literals": func(t *testing.T, d *dialogue) {
			if d.has("LITERAL+") {
				d.command(t, "LOGIN {%d+}\r\n%s {%d+}\r\n%s", len(d.user), d.user, len(password), password)
				return
			}
			d.Must(t, "NOOP") // another LOGIN needs a session: see the next way
			d.command(t, "LOGIN {%d}\r\n%s", len(d.user), d.user+" "+fmt.Sprintf("%q", password))
		},
		"LOGIN with synchronizing literals": func(t *testing.T, d *dialogue) {
			if err := d.Start("LOGIN {%d}", len(d.user)); err != nil {
				t.Fatal(err)
			}
			d.line(t)
			d.Send(t, fmt.Sprintf("%s {%d}\r\n", d.user, len(password)))
			d.line(t)
			d.Send(t, password+"\r\n")
			d.finish(t)
		},
		"AUTHENTICATE PLAIN": func(t *testing.T, d *dialogue) {
			if err := d.Start("AUTHENTICATE PLAIN"); err != nil {
				t.Fatal(err)
			}
			d.line(t)
			d.Send(t, d.plain()+"\r\n")
			d.finish(t)
		},
		"AUTHENTICATE PLAIN at once": func(t *testing.T, d *dialogue) {
			if d.has("SASL-IR") {
				d.command(t, "AUTHENTICATE PLAIN %s", d.plain())
				return
			}
			d.command(t, "LOGIN %s %q", d.user, password)
		},
	},
	"pop3": {
		"USER": func(t *testing.T, d *dialogue) {
			d.command(t, "USER %s", d.user)
			d.command(t, "PASS %s", password)
		},
		"AUTH PLAIN": func(t *testing.T, d *dialogue) {
			d.command(t, "AUTH PLAIN")
			d.command(t, "%s", d.plain())
		},
		"AUTH PLAIN at once": func(t *testing.T, d *dialogue) { d.command(t, "AUTH PLAIN %s", d.plain()) },
	},
}

// speakIMAP is a session that uses what clients use.
func (d *dialogue) speakIMAP(t *testing.T, login func(*testing.T, *dialogue)) {
	t.Helper()
	d.command(t, "CAPABILITY")
	d.caps = strings.Join(d.said, " ")
	d.command(t, "ID NIL")
	d.command(t, "NOOP")
	login(t, d)
	d.hear("-- logged in")
	d.command(t, "SELECT INBOX")
	fetch := "UID FETCH 1:* (UID FLAGS RFC822.SIZE BODY.PEEK[])"
	d.command(t, "%s", fetch)
	d.appended(t)
	d.idle(t)
	compresses := strings.Contains(fmt.Sprint(d.command(t, "CAPABILITY").Untagged), " COMPRESS=DEFLATE")
	d.command(t, `STORE 1:* +FLAGS.SILENT (\Deleted)`)
	d.command(t, "EXPUNGE")
	if compresses != d.s.compresses {
		t.Errorf("%s: it offers COMPRESS: %v", d.Name, compresses)
	}
	if compresses && d.way != "LOGIN" {
		if err := d.Compress(); err != nil {
			t.Fatalf("%s: %v", d.Name, err)
		}
		d.appended(t)
		d.command(t, "NOOP")
		d.command(t, "%s", fetch)
		// Dovecot 2.3 now and then loses its last words in a compressed stream.
		d.Close()
		return
	}
	d.command(t, "LOGOUT")
	d.end(t)
}

func (d *dialogue) appended(t *testing.T) {
	t.Helper()
	m := dovecot.Message(8, []byte(strings.Repeat("a OK\r\n", 5000)))
	if d.has("LITERAL+") {
		d.command(t, "APPEND INBOX {%d+}\r\n%s", len(m), m)
	}
	reply := appendMessage(t, d.Client, m)
	d.hear(reply.Text)
}

// idle is woken by a message from elsewhere.
func (d *dialogue) idle(t *testing.T) {
	t.Helper()
	if err := d.Start("IDLE"); err != nil {
		t.Fatal(err)
	}
	for !strings.HasPrefix(d.line(t), "+") {
	}
	d.s.deliver(t, d.user, dovecot.Message(9, []byte("news\r\n")))
	for !strings.HasSuffix(d.line(t), " EXISTS") {
	}
	d.Send(t, "DONE\r\n")
	d.finish(t)
}

func (d *dialogue) speakPOP3(t *testing.T, login func(*testing.T, *dialogue)) {
	t.Helper()
	d.list(t, "CAPA")
	d.command(t, "STAT")
	login(t, d)
	d.hear("-- logged in")
	d.list(t, "CAPA")
	d.command(t, "STAT")
	d.list(t, "LIST")
	d.list(t, "UIDL")
	for n := 1; n <= 5; n++ { // there is no fifth
		d.list(t, "RETR %d", n)
		d.list(t, "TOP %d 1", n)
	}
	d.command(t, "DELE 2")
	d.command(t, "RSET\r\nNOOP\r\nDELE 1") // all at once
	d.line(t)
	d.line(t)
	d.command(t, "QUIT")
	d.end(t)
}

// hidden are the capabilities that do not hold inside the proxy's TLS.
var hidden = regexp.MustCompile(`(?i) (STARTTLS|LOGINDISABLED|AUTH=\S+-PLUS|\S+-PLUS)\b`)

// filtered takes out of a dialogue with the server what the proxy hides: up to the
// login, and where the server lists capabilities.
func filtered(said []string) []string {
	var out []string
	loggedIn := false
	for _, line := range said {
		loggedIn = loggedIn || line == "-- logged in"
		switch {
		case loggedIn:
		case line == "STLS":
			continue
		case strings.Contains(line, "CAPABILITY "), strings.HasPrefix(line, "SASL "):
			line = hidden.ReplaceAllString(line, "")
		}
		out = append(out, line)
	}
	return out
}

// volatile are what differs from one session, mailbox or moment to the next.
var volatile = []struct {
	pattern *regexp.Regexp
	instead string
}{
	{regexp.MustCompile(`SESSIONID=<[^>]*>`), "SESSIONID=<…>"},
	{regexp.MustCompile(`<\d+\.\d+[^>]*@[^>]*>`), "<timestamp>"},
	{regexp.MustCompile(`(UIDVALIDITY|APPENDUID|UIDNEXT|HIGHESTMODSEQ) \d+`), "$1 N"},
	{regexp.MustCompile(`MAILBOXID \([^)]*\)`), "MAILBOXID (…)"},
	{regexp.MustCompile(`^(\d+) \S*[0-9a-f.]{8}\S*$`), "$1 unique-id"},
	{regexp.MustCompile(`anna\d\d`), "anna"},
	{regexp.MustCompile(`in \d+\.\d+ secs|\(\d+\.\d+ sec\)|\(\d+\.\d+ \+ \d+\.\d+( \+ \d+\.\d+)? secs\)`), "at once"},
	{regexp.MustCompile(`session=<[^>]*>`), "session=<…>"},
}

func settled(said []string) string {
	text := strings.Join(said, "\r\n")
	var out []string
	for line := range strings.SplitSeq(text, "\r\n") {
		if line == "* OK Still here" { // Dovecot says so to who idles, by a clock of its own
			continue
		}
		for _, v := range volatile {
			line = v.pattern.ReplaceAllString(line, v.instead)
		}
		out = append(out, line)
	}
	return strings.Join(out, "\n")
}

// firstDifference shows where two dialogues part.
func firstDifference(got, want string) string {
	g, w := strings.Split(got, "\n"), strings.Split(want, "\n")
	for i := range max(len(g), len(w)) {
		at := func(lines []string) string {
			if i < len(lines) {
				return lines[i]
			}
			return "(nothing)"
		}
		if at(g) != at(w) {
			before := strings.Join(g[max(0, i-3):min(i, len(g))], "\n")
			return fmt.Sprintf("after\n%.600s\ncame %.1500q\nwant %.1500q", before, at(g), at(w))
		}
	}
	return ""
}
