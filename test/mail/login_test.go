package mail

import (
	"crypto/tls"
	"encoding/base64"
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"

	"postern/internal/posterntest"
)

func plainResponse(name, password string) string {
	return base64.StdEncoding.EncodeToString([]byte("\x00" + name + "\x00" + password))
}

// filtered are the capabilities of an upstream's plain port that do not hold
// inside TLS.
var filtered = regexp.MustCompile(`(?i)\b(STARTTLS|STLS|LOGINDISABLED)\b|-PLUS\b`)

// challenge starts AUTHENTICATE and reads the server's "+".
func challenge(t *testing.T, c *posterntest.Client, mechanism string) {
	t.Helper()
	start(t, c, "AUTHENTICATE %s", mechanism)
	c.ExpectLine(t, "+")
}

func TestIMAPLoginsFailAndSucceedAsTheUpstreamSays(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "enforce", smallMailbox()...)
	name, password := w.user.Name, w.user.Password
	right, wrong := plainResponse(name, password), plainResponse(name, "wrong")
	const failed = "NO [AUTHENTICATIONFAILED]"
	ways := map[string]func(*testing.T, *posterntest.Client){
		"LOGIN quoted": func(t *testing.T, c *posterntest.Client) {
			c.ExpectReply(t, failed, "LOGIN %q wrong", name)
			c.ExpectReply(t, "OK", "LOGIN %q %q", name, password)
		},
		"LOGIN literals": func(t *testing.T, c *posterntest.Client) {
			c.ExpectReply(t, failed, "login {%d+}\r\n%s {5+}\r\nwrong", len(name), name)
			start(t, c, "login {%d}", len(name))
			c.ExpectLine(t, "+")
			c.Send(t, fmt.Sprintf("%s {%d}\r\n", name, len(password)))
			c.ExpectLine(t, "+")
			c.Send(t, password+"\r\n")
			finish(t, c, "OK")
		},
		"PLAIN with initial response": func(t *testing.T, c *posterntest.Client) {
			c.ExpectReply(t, failed, "AUTHENTICATE PLAIN %s", wrong)
			c.ExpectReply(t, "OK", "AUTHENTICATE PLAIN %s", right)
		},
		"PLAIN without": func(t *testing.T, c *posterntest.Client) {
			challenge(t, c, "PLAIN")
			c.Send(t, "*\r\n")
			finish(t, c, "BAD")
			challenge(t, c, "PLAIN")
			c.Send(t, wrong+"\r\n")
			finish(t, c, failed)
			challenge(t, c, "PLAIN")
			c.Send(t, right+"\r\n")
			finish(t, c, "OK")
		},
		"AUTHENTICATE LOGIN": func(t *testing.T, c *posterntest.Client) {
			challenge(t, c, "LOGIN")
			c.Send(t, base64.StdEncoding.EncodeToString([]byte(name))+"\r\n")
			c.ExpectLine(t, "+")
			c.Send(t, base64.StdEncoding.EncodeToString([]byte(password))+"\r\n")
			finish(t, c, "OK")
		},
	}
	for _, listener := range []string{"imaps", "imap"} {
		for way, login := range ways {
			t.Run(listener+" "+way, func(t *testing.T) {
				c := w.open(t, listener)
				login(t, c)
				sameMessages(t, listener, hashAll(fetchAll(t, c)), hashAll(smallMailbox()))
				c.Must(t, "LOGOUT")
			})
		}
	}
}

func TestPOP3LoginsFailAndSucceedAsTheUpstreamSays(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "enforce", smallMailbox()...)
	name, password := w.user.Name, w.user.Password
	right, wrong := plainResponse(name, password), plainResponse(name, "wrong")
	type exchange struct{ send, want string }
	const failed = "-ERR [AUTH]"
	ways := map[string][]exchange{
		"USER and PASS": {
			{"USER " + name, "+OK"}, {"PASS wrong", failed},
			{"user " + name, "+OK"}, {"pass " + password, "+OK"},
		},
		"PLAIN with initial response": {
			{"AUTH PLAIN " + wrong, failed}, {"AUTH PLAIN " + right, "+OK"},
		},
		"PLAIN without": {
			{"AUTH PLAIN", "+"}, {"*", "-ERR"},
			{"AUTH PLAIN", "+"}, {wrong, failed},
			{"AUTH PLAIN", "+"}, {right, "+OK"},
		},
	}
	for _, listener := range []string{"pop3s", "pop3"} {
		for way, exchanges := range ways {
			t.Run(listener+" "+way, func(t *testing.T) {
				c := w.open(t, listener)
				for _, e := range exchanges {
					c.ExpectReply(t, e.want, "%s", e.send)
				}
				_, texts := retrieveAll(t, c)
				sameMessages(t, listener, texts, hashAll(smallMailbox()))
				c.Must(t, "QUIT")
			})
		}
	}
}

func TestCommandsPipelinedBehindALoginAllArrive(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "enforce", smallMailbox()...)
	for _, listener := range []string{"imaps", "imap"} {
		c := w.open(t, listener)
		c.Send(t, fmt.Sprintf("p1 LOGIN %q %q\r\np2 EXAMINE INBOX\r\n", w.user.Name, w.user.Password))
		reply := c.Must(t, "UID FETCH 1:* (UID BODY.PEEK[])")
		sameMessages(t, listener, hashAll(messagesIn(reply)), hashAll(smallMailbox()))
	}
	for _, listener := range []string{"pop3s", "pop3"} {
		c := w.open(t, listener)
		c.Must(t, "USER %s\r\nPASS %s\r\nSTAT\r\nQUIT", w.user.Name, w.user.Password)
		for _, want := range []string{"+OK Logged in", fmt.Sprintf("+OK %d ", len(smallMailbox())), "+OK Logging out"} {
			c.ExpectLine(t, want)
		}
	}
}

func TestIMAPCapabilitiesInTLSAreTrue(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "enforce")
	c := w.direct(t, "imap")
	if !strings.Contains(c.Greeting, "STARTTLS") {
		t.Fatalf("Dovecot offers no STARTTLS to hide: %q", c.Greeting)
	}
	for _, listener := range []string{"imaps", "imap"} {
		// Dovecot answers a login with capabilities in its OK, or untagged
		// where the client has asked for them before.
		quiet := w.open(t, listener)
		w.speaksTruly(t, listener, quiet, quiet.Greeting)
		asking := w.open(t, listener)
		said := lines(asking.Must(t, "CAPABILITY"))
		if len(said) != 2 || !strings.Contains(said[1], " AUTH=PLAIN") {
			t.Errorf("%s: no way to log in: %q", listener, said)
		}
		w.speaksTruly(t, listener, asking, said...)
		if listener == "imaps" && !strings.HasPrefix(quiet.Greeting, "* OK [CAPABILITY IMAP4rev1 ") {
			t.Errorf("the greeting lost its capabilities: %q", quiet.Greeting)
		}
		again := w.open(t, listener)
		again.ExpectReply(t, "BAD", "STARTTLS")
		w.login(t, again)
	}
}

func lines(reply posterntest.Reply) []string {
	said := []string{reply.Text}
	for _, r := range reply.Untagged {
		said = append(said, r.Line)
	}
	return said
}

// speaksTruly logs in and judges what was said before, then, and after.
func (w *world) speaksTruly(t *testing.T, listener string, c *posterntest.Client, before ...string) {
	t.Helper()
	atLogin := lines(c.Must(t, "LOGIN %q %q", w.user.Name, w.user.Password))
	if !strings.Contains(strings.Join(atLogin, "\n"), "COMPRESS=DEFLATE") {
		t.Errorf("%s: the login told no capabilities: %q", listener, atLogin)
	}
	after := lines(c.Must(t, "CAPABILITY"))
	for _, line := range append(append(before, atLogin...), after...) {
		if word := filtered.FindString(line); word != "" {
			t.Errorf("%s: %s in %q", listener, word, line)
		}
	}
}

func TestPOP3CapabilitiesInTLSAreTrue(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "enforce")
	if said := list(t, w.direct(t, "pop3"), "CAPA"); !strings.Contains(strings.Join(said, " "), "STLS") {
		t.Fatalf("Dovecot offers no STLS to hide: %q", said)
	}
	for _, listener := range []string{"pop3s", "pop3"} {
		c := w.open(t, listener)
		said := strings.Join(append(list(t, c, "CAPA"), c.Greeting), "\n")
		if word := filtered.FindString(said); word != "" {
			t.Errorf("%s: %s in %q", listener, word, said)
		}
		for _, want := range []string{"UIDL", "SASL PLAIN LOGIN", "USER"} {
			if !strings.Contains(said, want) {
				t.Errorf("%s: no %s in %q", listener, want, said)
			}
		}
		c.ExpectReply(t, "-ERR", "STLS")
		w.login(t, c)
	}
}

func TestPlaintextLoginsAreRefusedAndForgotten(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "enforce")
	// What Postern has asked Dovecot for itself, over IMAP and POP3, is logged by and by.
	for deadline := time.Now().Add(30 * time.Second); strings.Count(w.dovecot.Log(t), "no auth attempts") < 2 && time.Now().Before(deadline); {
		time.Sleep(50 * time.Millisecond)
	}
	seen := strings.Count(w.dovecot.Log(t), "-login: ")

	c := posterntest.NewClient(w.DialFrom(t, "imap", elsewhere), "imap")
	if greeting := c.ExpectLine(t, "* OK"); !strings.Contains(greeting, "STARTTLS") || !strings.Contains(greeting, "LOGINDISABLED") {
		t.Errorf("greeting in plaintext: %q", greeting)
	}
	c.ExpectReply(t, "NO [PRIVACYREQUIRED]", "LOGIN %q %q", w.user.Name, w.user.Password)
	c.ExpectReply(t, "NO [PRIVACYREQUIRED]", "AUTHENTICATE PLAIN %s", plainResponse(w.user.Name, w.user.Password))
	p := posterntest.NewClient(w.DialFrom(t, "pop3", elsewhere), "pop3")
	p.ExpectLine(t, "+OK")
	for _, attempt := range []string{"USER " + w.user.Name, "AUTH PLAIN " + plainResponse(w.user.Name, w.user.Password),
		"APOP " + w.user.Name + " c4c9334bac560ecc979e58001b3e22fb"} {
		p.ExpectReply(t, "-ERR [AUTH]", "%s", attempt)
	}
	p.ExpectReply(t, "-ERR", "PASS %s", w.user.Password)
	if now := strings.Count(w.dovecot.Log(t), "-login: "); now != seen {
		t.Errorf("Dovecot heard of refused logins:\n%s", w.dovecot.Log(t))
	}
	var imap, pop3 float64
	w.Wait(t, func(m posterntest.Samples) bool {
		imap = m.Value("postern_cleartext_logins_total", "listener=imap")
		pop3 = m.Value("postern_cleartext_logins_total", "listener=pop3")
		return imap == 2 && pop3 == 3
	})
	if imap != 2 || pop3 != 3 {
		t.Errorf("cleartext logins counted: imap %v, pop3 %v, want 2 and 3", imap, pop3)
	}

	for _, client := range []*posterntest.Client{c, p} {
		if err := client.StartTLS(&tls.Config{RootCAs: w.CA.Pool, ServerName: "mail.example.org"}); err != nil {
			t.Fatal(err)
		}
		w.login(t, client)
	}
}
