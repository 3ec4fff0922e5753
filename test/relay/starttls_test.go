package relay

import (
	"bytes"
	"crypto/tls"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"postern/internal/hello"

	"postern/internal/posterntest"
)

func (r *rig) plain(t *testing.T, listener string) *posterntest.Client {
	t.Helper()
	c := newEnd("client", r.Dial(t, listener))
	if listener == "imap" {
		c.ExpectLine(t, "* OK [CAPABILITY IMAP4rev1 ")
	} else {
		c.ExpectLine(t, "+OK ")
	}
	return c
}

func TestIMAPBeforeTLSIsTheProxysOwn(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	c := newEnd("client", r.Dial(t, "imap"))
	greeting := c.ExpectLine(t, "* OK [CAPABILITY ")
	list, _, _ := strings.Cut(strings.TrimPrefix(greeting, "* OK [CAPABILITY "), "]")
	words := strings.Fields(list)
	for _, want := range []string{"IMAP4rev1", "STARTTLS", "LOGINDISABLED"} {
		if !slices.Contains(words, want) {
			t.Errorf("no %s in the greeting %q", want, greeting)
		}
	}
	if words[0] != "IMAP4rev1" || strings.Contains(list, "AUTH=") || strings.Contains(list, "SASL") {
		t.Errorf("greeting %q", greeting)
	}
	for _, dialogue := range [][2]string{
		{"a1 CAPABILITY\r\n", "* CAPABILITY " + list + "\r\na1 OK "},
		{"a2 capability\r\n", "* CAPABILITY " + list + "\r\na2 OK "},
		{"a3 ID NIL\r\n", "* ID ("},
		{"a4 ID (\"name\" {6+}\r\nMutter)\r\n", "* ID ("},
		{"a5 ID ({4}\r\n", "+ "},
		{"name \"x\")\r\n", "* ID ("},
		{"a6 noop\r\n", "a6 OK "},
		{"a7 NOOP\r\na8 NOOP\r\n", "a7 OK "},
		{"", "a8 OK "},
		{"a9 SELECT INBOX\r\n", "a9 BAD "},
		{"b1 LOGOUT\r\n", "* BYE "},
		{"", "b1 OK "},
	} {
		c.Send(t, dialogue[0])
		first, second, two := strings.Cut(dialogue[1], "\r\n")
		c.ExpectLine(t, first)
		if two {
			c.ExpectLine(t, second)
		} else if first == "* ID (" {
			c.ExpectLine(t, "a")
		}
	}
	if rest := c.ExpectEnd(t); rest != "" {
		t.Errorf("%q after LOGOUT", rest)
	}
	r.untouched(t)
	r.CheckIdentities(t, 0)
}

func TestPOP3BeforeTLSIsTheProxysOwn(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	c := newEnd("client", r.Dial(t, "pop3"))
	if greeting := c.ExpectLine(t, "+OK "); strings.Contains(greeting, "<") {
		t.Errorf("the greeting offers APOP: %q", greeting)
	}
	for _, capa := range []string{"CAPA\r\n", "capa\r\n"} {
		c.Send(t, capa)
		c.ExpectLine(t, "+OK")
		var list []string
		for line := c.ExpectLine(t, ""); line != "."; line = c.ExpectLine(t, "") {
			list = append(list, line)
		}
		if !slices.Contains(list, "STLS") {
			t.Errorf("no STLS in %q", list)
		}
		for _, line := range list {
			if line == "USER" || strings.HasPrefix(line, "SASL") {
				t.Errorf("%q is offered before TLS", line)
			}
		}
	}
	for _, dialogue := range [][2]string{
		{"NOOP\r\n", "+OK"}, {"noop\r\nNOOP\r\n", "+OK"}, {"", "+OK"},
		{"STAT\r\n", "-ERR"}, {"RETR 1\r\n", "-ERR"}, {"QUIT\r\n", "+OK"},
	} {
		c.Send(t, dialogue[0])
		c.ExpectLine(t, dialogue[1])
	}
	if rest := c.ExpectEnd(t); rest != "" {
		t.Errorf("%q after QUIT", rest)
	}
	r.untouched(t)
	r.CheckIdentities(t, 0)
}

func TestIMAPLoginsBeforeTLSAreRefusedAndForgotten(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	attempts := []string{
		"a LOGIN anna s3cr3t-word\r\n",
		"a login \"anna\" \"s3cr3t-word\"\r\n",
		"a LOGIN \"an\\\"na\" \"\"\r\n",
		"a LOGIN {4}\r\n", // nobody asks for the rest
		"a LOGIN anna {11}\r\n",
		"a LOGIN {0}\r\n",
		"a LOGIN {4+}\r\nanna {11+}\r\ns3cr3t-word\r\n",
		"a LOGIN {4+}\r\nanna {11}\r\n",
		"a LOGIN {0+}\r\n {0+}\r\n\r\n",
		"a LOGIN {14+}\r\nb STARTTLS\r\nxx {11+}\r\ns3cr3t-word\r\n",
		"a AUTHENTICATE PLAIN\r\n",
		"a AUTHENTICATE PLAIN AGFubmEAczNjcjN0LXdvcmQ=\r\n",
		"a AUTHENTICATE EXTERNAL =\r\n",
		"a authenticate XOAUTH2 " + strings.Repeat("QUJD", 4000) + "\r\n",
	}
	for i, attempt := range attempts {
		c := r.plain(t, "imap")
		c.Send(t, attempt)
		c.ExpectLine(t, "a NO [PRIVACYREQUIRED] ")
		c.Send(t, "b NOOP\r\n")
		c.ExpectLine(t, "b OK ")
		c.ExpectSilence(t, quietTime)
		c.Close()
		r.becomes(t, float64(i+1), "postern_cleartext_logins_total", "listener=imap")
	}
	r.untouched(t)
	noSecret(t, r)
	r.CheckIdentities(t, 0)
}

func TestPOP3LoginsBeforeTLSAreRefusedAndForgotten(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	counted := 0
	for _, attempt := range []struct {
		lines []string
		count int
	}{
		{[]string{"USER anna", "PASS s3cr3t-word"}, 1},
		{[]string{"user anna", "pass s3cr3t-word", "user anna", "pass s3cr3t-word"}, 2},
		{[]string{"APOP anna c4c9334bac560ecc979e58001b3e22fb"}, 1},
		{[]string{"AUTH PLAIN"}, 1},
		{[]string{"auth plain AGFubmEAczNjcjN0LXdvcmQ="}, 1},
		{[]string{"AUTH EXTERNAL ="}, 1},
	} {
		c := r.plain(t, "pop3")
		for _, line := range attempt.lines {
			c.Send(t, line+"\r\n")
			c.ExpectLine(t, "-ERR [AUTH] ")
		}
		c.Send(t, "NOOP\r\n")
		c.ExpectLine(t, "+OK")
		c.ExpectSilence(t, quietTime)
		c.Close()
		counted += attempt.count
		r.becomes(t, float64(counted), "postern_cleartext_logins_total", "listener=pop3")
	}
	c := r.plain(t, "pop3")
	c.Send(t, "USER anna\r\nPASS s3cr3t-word\r\nSTAT\r\n") // pipelined
	c.ExpectLine(t, "-ERR [AUTH] ")
	c.ExpectLine(t, "-ERR [AUTH] ")
	c.ExpectLine(t, "-ERR ")
	r.becomes(t, float64(counted+1), "postern_cleartext_logins_total", "listener=pop3")
	r.untouched(t)
	noSecret(t, r)
	r.CheckIdentities(t, 0)
}

func TestAnInvalidTagIsNotEchoed(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	for _, line := range []string{
		"(tag) NOOP", "{tag} NOOP", "\"tag\" NOOP", "ta%tag NOOP", "*tag NOOP", "+tag NOOP", "\\tag NOOP", "tag",
		"t\xe4tag NOOP", "\x1btag NOOP", "tag\x00 NOOP", strings.Repeat("tag", 1000) + " NOOP", " tag NOOP",
	} {
		c := r.plain(t, "imap")
		c.Send(t, line+"\r\n")
		if answer := c.ExpectLine(t, "* BAD "); strings.Contains(answer, "tag") {
			t.Errorf("%q answered %q", line, answer)
		}
		c.Send(t, "b NOOP\r\n")
		c.ExpectLine(t, "b OK ")
		c.Close()
	}
	c := r.plain(t, "imap")
	c.Send(t, "GET /?<script>alert(1)</script> HTTP/1.1\r\n\"x\"<script>: alert(1)\r\nHost: mail.example.org\r\n\r\n"+
		strings.Repeat("<script>alert(1)</script>\r\n", 30))
	if text := c.ExpectEnd(t); strings.Contains(text, "script") || strings.Contains(text, "HTTP") || strings.Contains(text, "example") {
		t.Errorf("HTTP is answered with its own words: %q", text)
	}
	r.untouched(t)
}

// injected are the ways in which something may stand behind the command that
// begins TLS; each is a list of segments.
func injected(listener string) map[string][]string {
	command, next := "a STARTTLS\r\n", "b LOGIN anna s3cr3t-word\r\n"
	if listener == "pop3" {
		command, next = "STLS\r\n", "USER anna\r\nPASS s3cr3t-word\r\n"
	}
	all := map[string][]string{
		"in one segment":           {command + next},
		"one byte":                 {command + "b"},
		"amid the line end":        {command[:len(command)-1], "\n" + next},
		"amid the command":         {command[:3], command[3:] + next},
		"in a segment of its own":  {command, next},
		"a hello":                  {command + string(hello.ClientHello(hello.Typical(tls.VersionTLS13)))},
		"a hello of its own":       {command, string(hello.ClientHello(hello.Typical(tls.VersionTLS13)))},
		"the command once more":    {command + command},
		"an empty line":            {command + "\r\n"},
		"commands before it, too":  {strings.Repeat("n NOOP\r\n", 3) + command + next},
		"far more than one buffer": {command + strings.Repeat(next, 3000)},
	}
	// Where the command ends just where a buffer does, the rest is not read yet.
	for _, size := range []int{512, 1024, 2048, 4096} {
		filler := "n ID (\"name\" \"" + strings.Repeat("x", size-len(command)-len("n ID (\"name\" \"\")\r\n")) + "\")\r\n"
		if listener == "pop3" {
			filler = "NOOP " + strings.Repeat("x", size-len(command)-len("NOOP \r\n")) + "\r\n"
		}
		all[fmt.Sprintf("at the edge of %d bytes", size)] = []string{filler + command + next}
	}
	return all
}

// freeze stops the proxy and returns once all its threads stand still.
func (r *rig) freeze(t *testing.T) {
	t.Helper()
	r.Signal(t, syscall.SIGSTOP)
	for deadline := time.Now().Add(dialogTime); ; time.Sleep(time.Millisecond) {
		stats, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", r.PID()))
		if err != nil || time.Now().After(deadline) {
			t.Fatalf("the proxy does not stop: %v", err)
		}
		moving := slices.ContainsFunc(stats, func(path string) bool {
			stat, err := os.ReadFile(path)
			return err == nil && !bytes.Contains(stat, []byte(") T "))
		})
		if len(stats) > 0 && !moving {
			return
		}
	}
}

func TestBytesPipelinedBehindSTARTTLSAreNeverExecuted(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	for _, listener := range []string{"imap", "pop3"} {
		for name, segments := range injected(listener) {
			t.Run(listener+" "+name, func(t *testing.T) {
				const metric = "postern_starttls_injections_total"
				before := r.Metrics(t).Value(metric, "listener="+listener)
				c := r.plain(t, listener)
				// The proxy stands still, so that all is there before its OK.
				r.freeze(t)
				for i, segment := range segments {
					if i > 0 {
						time.Sleep(5 * time.Millisecond)
					}
					c.Send(t, segment)
				}
				time.Sleep(5 * time.Millisecond)
				r.Signal(t, syscall.SIGCONT)
				text := c.ExpectEnd(t)
				if strings.Contains(text, "a OK") || strings.Contains(text, "b ") || strings.Contains(text, "Begin TLS") {
					t.Errorf("answered %q", text)
				}
				r.becomes(t, before+1, metric, "listener="+listener)
			})
		}
		m := r.Metrics(t)
		if got := m.Value("postern_cleartext_logins_total", "listener="+listener); got != 0 {
			t.Errorf("%s: %v logins were read behind the command", listener, got)
		}
	}
	r.untouched(t)
	noSecret(t, r)
	r.CheckIdentities(t, 0)
}

func TestNothingFromBeforeSTARTTLSSurvivesIt(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	for _, listener := range []string{"imap", "pop3"} {
		c := r.plain(t, listener)
		bad, answer, begin, ok := "t BOGUS anna\r\n", "t BAD ", "t STARTTLS\r\n", "t OK "
		if listener == "pop3" {
			bad, answer, begin, ok = "BOGUS anna\r\n", "-ERR ", "STLS\r\n", "+OK "
		}
		for range 15 {
			c.Send(t, bad)
			c.ExpectLine(t, answer)
		}
		c.Send(t, begin)
		c.ExpectLine(t, ok)
		d := &dialogue{client: newEnd("client", r.secure(t, listener, c.Conn)), upstream: r.taken(t, listener)}
		d.client.ExpectSilence(t, quietTime) // no second greeting
		for range 15 {
			d.pass(t, bad) // with the same tag
			d.back(t, answer+"not known\r\n")
		}
		d.login(t, listener)
		d.client.Close()
		d.upstream.ExpectEnd(t)
	}
}
