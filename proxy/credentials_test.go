package proxy_test

import (
	"bytes"
	"crypto/tls"
	"encoding/base64"
	"io"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"postern/internal/logging"
	"postern/internal/posterntest"
	"postern/policy"
	"postern/proxy"
)

// secret is all that must not be found; pairs of it make up every credential.
const secret = "sesam-oeffne-dich"

// saslPlain is the message of the PLAIN mechanism (RFC 4616).
func saslPlain(user, password string) string {
	return base64.StdEncoding.EncodeToString([]byte("\x00" + user + "\x00" + password))
}

// loot is every form in which the secret might show up.
func loot() []string {
	out := []string{secret, strings.ToUpper(secret)}
	for skew := range 3 {
		// base64 of the secret at each of the three offsets that it can have,
		// without the characters that its neighbours share.
		text := base64.StdEncoding.EncodeToString([]byte(strings.Repeat("x", skew) + secret))
		out = append(out, text[4:len(text)-6])
	}
	return out
}

// lockedBuffer is a log for many goroutines.
type lockedBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

// both tells two observers.
type both [2]proxy.Observer

func (b both) Handshake(h *proxy.Handshake) { b[0].Handshake(h); b[1].Handshake(h) }
func (b both) Login(l *proxy.Login)         { b[0].Login(l); b[1].Login(l) }
func (b both) Software(e *proxy.Software)   { b[0].Software(e); b[1].Software(e) }
func (b both) Closed(c *proxy.Closed)       { b[0].Closed(c); b[1].Closed(c) }

var imapSecrets = []string{
	"a LOGIN user " + secret + "\r\n", "a LOGIN \"user\" \"" + secret + "\"\r\n",
	"a LOGIN {4+}\r\nuser {17+}\r\n" + secret + "\r\n", "a LOGIN {4}\r\nuser {17}\r\n" + secret + "\r\n",
	"a AUTHENTICATE PLAIN " + saslPlain("user", secret) + "\r\n", "a AUTHENTICATE PLAIN\r\n" + saslPlain("user", secret) + "\r\n",
	"a AUTHENTICATE LOGIN\r\n" + base64.StdEncoding.EncodeToString([]byte(secret)) + "\r\n",
	"a LOGIN user " + secret + "\rx\r\n", "a LOGIN \"user " + secret + "\r\n", secret + "\r\n", "\"" + secret + "\" x\r\n",
	"a LOGIN user " + secret + "{5}\r\n", "a LOGIN user {999999+}\r\n" + secret, "a ID (\"" + secret + "\")\r\n", "a LOGIN user " + secret,
	"a HANGUP " + secret + "\r\n", "a NONSENSE " + secret + "\r\n",
}

var pop3Secrets = []string{
	"USER user\r\nPASS " + secret + "\r\n", "APOP user " + secret + "\r\n", "AUTH PLAIN " + saslPlain("user", secret) + "\r\n",
	"AUTH PLAIN\r\n" + saslPlain("user", secret) + "\r\n", "PASS " + secret + "\x00\r\n", "(" + secret + ")\r\n", "HANGUP " + secret + "\r\n",
}

// answerSecret refuses some logins, asks for more in others, and goes away.
func answerSecret(imap bool) func(string) string {
	return func(line string) string {
		switch upper := strings.ToUpper(line); {
		case strings.Contains(upper, "HANGUP"):
			return posterntest.Hangup
		case strings.HasSuffix(line, "{4}"), strings.HasSuffix(line, "{17}"), strings.HasSuffix(upper, "AUTHENTICATE PLAIN"), strings.HasSuffix(upper, "AUTHENTICATE LOGIN"), upper == "AUTH PLAIN":
			return "+ \r\n"
		case !imap && strings.HasPrefix(upper, "USER"):
			return "+OK\r\n"
		case !imap:
			return "-ERR no\r\n"
		}
		return "a NO no\r\n"
	}
}

// Invariant 5.
func TestCredentialsNeverReachALog(t *testing.T) {
	var log lockedBuffer
	logger := logging.New(&log, slog.LevelDebug, "json")
	imap := posterntest.StartUpstream(t, posterntest.IMAPGreeting, answerSecret(true))
	pop3 := posterntest.StartUpstream(t, posterntest.POP3Greeting, answerSecret(false))
	for _, mode := range policy.Modes {
		fold := logging.NewFold(time.Now, func(netip.Addr, uint64) {}, func(uint64) {})
		g := proxy.StartGate(t, mode, imap.Addr(), pop3.Addr(), func(c *proxy.Config) {
			c.Log = logger
			c.Observer = both{c.Observer, &logging.Observer{Log: logger, Fold: fold}}
		})
		n := 0
		for _, l := range proxy.Listeners {
			lines := imapSecrets
			if l.Protocol() == proxy.ProtocolPOP3 {
				lines = pop3Secrets
			}
			for _, line := range lines {
				tell(t, g, l, line, false)
				n++
				if l.ImplicitTLS() {
					tell(t, g, l, line, true)
					n++
				}
			}
		}
		g.WaitClosed(t, n)
	}
	text := log.String()
	if strings.Count(text, "\"msg\":\"closed\"") < 50 || !strings.Contains(text, "upstream failed before login") || !strings.Contains(text, "plaintext") {
		t.Fatalf("the log does not tell of these connections:\n%.2000s", text)
	}
	for _, l := range loot() {
		if i := strings.Index(text, l); i >= 0 {
			t.Errorf("the log tells %q: %s", l, text[max(0, i-200):min(len(text), i+100)])
		}
	}
	if sent := string(slices.Concat(imap.ReceivedAll(), pop3.ReceivedAll())); !strings.Contains(sent, secret) || !strings.Contains(sent, saslPlain("user", secret)) {
		t.Error("no credential was ever sent: this test shows nothing")
	}
}

// tell says a line, in clear or inside TLS, and waits for the end.
func tell(t *testing.T, g *proxy.Gate, l proxy.Listener, line string, inside bool) {
	t.Helper()
	c := g.Dial(t, l)
	defer c.Close()
	var w interface {
		io.ReadWriter
		CloseWrite() error
	} = c
	if inside {
		tc := tls.Client(c, g.ClientConfig())
		if err := tc.Handshake(); err != nil {
			t.Fatal(err)
		}
		w = tc
	}
	io.WriteString(w, line)
	w.CloseWrite()
	io.Copy(io.Discard, w)
}

func TestLootHoldsEveryForm(t *testing.T) {
	for _, text := range []string{secret, saslPlain("user", secret), saslPlain("me", secret), saslPlain("you", secret)} {
		found := false
		for _, l := range loot() {
			found = found || strings.Contains(text, l)
		}
		if !found {
			t.Errorf("%q is not recognised", text)
		}
	}
}
