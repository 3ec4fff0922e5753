package mail

import (
	"encoding/base64"
	"fmt"
	"regexp"
	"strings"
	"testing"

	"postern/internal/posterntest"
)

func plainResponse(name, password string) string {
	return base64.StdEncoding.EncodeToString([]byte("\x00" + name + "\x00" + password))
}

// untrue is what an upstream says of its plain port and must not say in TLS.
var untrue = regexp.MustCompile(`(?i)\b(STARTTLS|STLS|LOGINDISABLED)\b|-PLUS\b`)

// answers asserts how the reply to a command begins.
func (c *imapClient) answers(t *testing.T, want, format string, args ...any) {
	t.Helper()
	if _, done := c.command(t, format, args...); !strings.HasPrefix(done, want) {
		t.Fatalf("%.40q answered %q, want %s", format, done, want)
	}
}

// challenge starts AUTHENTICATE and reads the server's "+".
func (c *imapClient) challenge(t *testing.T, mechanism string) {
	t.Helper()
	c.start(t, "AUTHENTICATE %s", mechanism)
	if line := c.readLine(t); !strings.HasPrefix(line, "+") {
		t.Fatalf("AUTHENTICATE %s answered %q", mechanism, line)
	}
}

func (c *imapClient) finishes(t *testing.T, want string) {
	t.Helper()
	if _, done := c.finish(t); !strings.HasPrefix(done, want) {
		t.Fatalf("the exchange ended in %q, want %s", done, want)
	}
}

func TestIMAPLoginsFailAndSucceedAsTheUpstreamSays(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "enforce", smallMailbox()...)
	name, password := w.user.Name, w.user.Password
	right, wrong := plainResponse(name, password), plainResponse(name, "wrong")
	const failed = "NO [AUTHENTICATIONFAILED]"
	ways := map[string]func(*testing.T, *imapClient){
		"LOGIN quoted": func(t *testing.T, c *imapClient) {
			c.answers(t, failed, "LOGIN %q wrong", name)
			c.answers(t, "OK", "LOGIN %q %q", name, password)
		},
		"LOGIN literals": func(t *testing.T, c *imapClient) {
			c.answers(t, failed, "login {%d+}\r\n%s {5+}\r\nwrong", len(name), name)
			c.start(t, "login {%d}", len(name))
			c.expectContinuation(t)
			c.send(t, fmt.Sprintf("%s {%d}\r\n", name, len(password)))
			c.expectContinuation(t)
			c.send(t, password+"\r\n")
			c.finishes(t, "OK")
		},
		"PLAIN with initial response": func(t *testing.T, c *imapClient) {
			c.answers(t, failed, "AUTHENTICATE PLAIN %s", wrong)
			c.answers(t, "OK", "AUTHENTICATE PLAIN %s", right)
		},
		"PLAIN without": func(t *testing.T, c *imapClient) {
			c.challenge(t, "PLAIN")
			c.send(t, "*\r\n")
			c.finishes(t, "BAD")
			c.challenge(t, "PLAIN")
			c.send(t, wrong+"\r\n")
			c.finishes(t, failed)
			c.challenge(t, "PLAIN")
			c.send(t, right+"\r\n")
			c.finishes(t, "OK")
		},
		"AUTHENTICATE LOGIN": func(t *testing.T, c *imapClient) {
			c.challenge(t, "LOGIN")
			c.send(t, base64.StdEncoding.EncodeToString([]byte(name))+"\r\n")
			c.expectContinuation(t)
			c.send(t, base64.StdEncoding.EncodeToString([]byte(password))+"\r\n")
			c.finishes(t, "OK")
		},
	}
	for _, listener := range []string{"imaps", "imap"} {
		for way, login := range ways {
			t.Run(listener+" "+way, func(t *testing.T) {
				c := w.imap(t, listener)
				login(t, c)
				sameMessages(t, listener, hashAll(c.fetchAll(t)), hashAll(smallMailbox()))
				c.ok(t, "LOGOUT")
			})
		}
	}
}

func (c *imapClient) expectContinuation(t *testing.T) {
	t.Helper()
	if line := c.readLine(t); !strings.HasPrefix(line, "+") {
		t.Fatalf("%q instead of a continuation", line)
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
				c := w.pop3(t, listener)
				for _, e := range exchanges {
					if got := c.command(t, e.send); !strings.HasPrefix(got, e.want) {
						t.Fatalf("%q answered %q, want %s", e.send, got, e.want)
					}
				}
				_, texts := c.fetchAll(t)
				sameMessages(t, listener, texts, hashAll(smallMailbox()))
				c.ok(t, "QUIT")
			})
		}
	}
}

func TestCommandsPipelinedBehindALoginAllArrive(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "enforce", smallMailbox()...)
	for _, listener := range []string{"imaps", "imap"} {
		c := w.imap(t, listener)
		c.send(t, fmt.Sprintf("p1 LOGIN %q %q\r\np2 EXAMINE INBOX\r\nx1 UID FETCH 1:* (UID BODY.PEEK[])\r\n",
			w.user.Name, w.user.Password))
		c.tag = 1
		untagged, done := c.finish(t)
		var got []string
		for _, r := range untagged {
			if len(r.literals) == 1 {
				got = append(got, hash(r.literals[0]))
			}
		}
		sameMessages(t, listener, got, hashAll(smallMailbox()))
		if !strings.HasPrefix(done, "OK") {
			t.Errorf("%s: FETCH answered %q", listener, done)
		}
	}
	for _, listener := range []string{"pop3s", "pop3"} {
		c := w.pop3(t, listener)
		c.ok(t, fmt.Sprintf("USER %s\r\nPASS %s\r\nSTAT\r\nQUIT", w.user.Name, w.user.Password))
		for _, want := range []string{"+OK Logged in", fmt.Sprintf("+OK %d ", len(smallMailbox())), "+OK Logging out"} {
			if got := c.readLine(t); !strings.HasPrefix(got, want) {
				t.Errorf("%s: %q, want %q", listener, got, want)
			}
		}
	}
}

func TestIMAPCapabilitiesInTLSAreTrue(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "enforce")
	c := w.directIMAP(t)
	if !strings.Contains(c.greeting, "STARTTLS") {
		t.Fatalf("Dovecot offers no STARTTLS to hide: %q", c.greeting)
	}
	for _, listener := range []string{"imaps", "imap"} {
		// Dovecot answers a login with capabilities in its OK, or untagged
		// where the client has asked for them before.
		quiet := w.imap(t, listener)
		w.speaksTruly(t, listener, quiet, quiet.greeting)
		asking := w.imap(t, listener)
		said, done := asking.ok(t, "CAPABILITY")
		if len(said) != 1 || !strings.Contains(said[0].line, " AUTH=PLAIN") {
			t.Errorf("%s: no way to log in: %q", listener, said)
		}
		w.speaksTruly(t, listener, asking, lines(said, done)...)
		if listener == "imaps" && !strings.HasPrefix(quiet.greeting, "* OK [CAPABILITY IMAP4rev1 ") {
			t.Errorf("the greeting lost its capabilities: %q", quiet.greeting)
		}
		again := w.imap(t, listener)
		again.answers(t, "BAD", "STARTTLS")
		again.login(t, w)
	}
}

func lines(untagged []response, done string) []string {
	said := []string{done}
	for _, r := range untagged {
		said = append(said, r.line)
	}
	return said
}

// speaksTruly logs in and judges what was said before, then, and after.
func (w *world) speaksTruly(t *testing.T, listener string, c *imapClient, before ...string) {
	t.Helper()
	atLogin := lines(c.ok(t, "LOGIN %q %q", w.user.Name, w.user.Password))
	if !strings.Contains(strings.Join(atLogin, "\n"), "COMPRESS=DEFLATE") {
		t.Errorf("%s: the login told no capabilities: %q", listener, atLogin)
	}
	after := lines(c.ok(t, "CAPABILITY"))
	for _, line := range append(append(before, atLogin...), after...) {
		if word := untrue.FindString(line); word != "" {
			t.Errorf("%s: %s in %q", listener, word, line)
		}
	}
}

func TestPOP3CapabilitiesInTLSAreTrue(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "enforce")
	if said := w.directPOP3(t).list(t, "CAPA"); !strings.Contains(strings.Join(said, " "), "STLS") {
		t.Fatalf("Dovecot offers no STLS to hide: %q", said)
	}
	for _, listener := range []string{"pop3s", "pop3"} {
		c := w.pop3(t, listener)
		said := strings.Join(append(c.list(t, "CAPA"), c.greeting), "\n")
		if word := untrue.FindString(said); word != "" {
			t.Errorf("%s: %s in %q", listener, word, said)
		}
		for _, want := range []string{"UIDL", "SASL PLAIN LOGIN", "USER"} {
			if !strings.Contains(said, want) {
				t.Errorf("%s: no %s in %q", listener, want, said)
			}
		}
		if got := c.command(t, "STLS"); !strings.HasPrefix(got, "-ERR") {
			t.Errorf("%s: STLS inside TLS answered %q", listener, got)
		}
		c.login(t, w)
	}
}

func TestPlaintextLoginsAreRefusedAndForgotten(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "enforce")
	seen := strings.Count(w.dovecot.Log(t), "-login: ")

	c := newIMAP(dial(t, w.Addr("imap")))
	if greeting := c.readLine(t); !strings.Contains(greeting, "STARTTLS") || !strings.Contains(greeting, "LOGINDISABLED") {
		t.Errorf("greeting in plaintext: %q", greeting)
	}
	c.answers(t, "NO [PRIVACYREQUIRED]", "LOGIN %q %q", w.user.Name, w.user.Password)
	c.answers(t, "NO [PRIVACYREQUIRED]", "AUTHENTICATE PLAIN %s", plainResponse(w.user.Name, w.user.Password))
	p := newPOP3(dial(t, w.Addr("pop3")))
	p.readLine(t)
	for _, attempt := range []string{"USER " + w.user.Name, "AUTH PLAIN " + plainResponse(w.user.Name, w.user.Password),
		"APOP " + w.user.Name + " c4c9334bac560ecc979e58001b3e22fb"} {
		if got := p.command(t, attempt); !strings.HasPrefix(got, "-ERR [AUTH]") {
			t.Errorf("%.4s answered %q", attempt, got)
		}
	}
	if got := p.command(t, "PASS "+w.user.Password); !strings.HasPrefix(got, "-ERR") {
		t.Errorf("PASS answered %q", got)
	}
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

	c.ok(t, "STARTTLS")
	secured := newIMAP(w.secure(t, c.conn))
	secured.login(t, w)
	p.ok(t, "STLS")
	newPOP3(w.secure(t, p.conn)).login(t, w)
}
