package proxy_test

import (
	"bytes"
	"crypto/tls"
	"encoding/base64"
	"fmt"
	"io"
	"log/slog"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"postern/internal/certs"
	"postern/internal/hello"
	"postern/internal/ledger"
	"postern/internal/logging"
	"postern/internal/posterntest"
	"postern/metrics"
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

// chain tells several observers.
type chain []proxy.Observer

func (c chain) Handshake(h *proxy.Handshake) {
	for _, o := range c {
		o.Handshake(h)
	}
}

func (c chain) Login(l *proxy.Login) {
	for _, o := range c {
		o.Login(l)
	}
}

func (c chain) LoginFailed(l *proxy.LoginFailed) {
	for _, o := range c {
		o.LoginFailed(l)
	}
}

func (c chain) Software(s *proxy.Software) {
	for _, o := range c {
		o.Software(s)
	}
}

func (c chain) Closed(e *proxy.Closed) {
	for _, o := range c {
		o.Closed(e)
	}
}

// spy writes down all that is in an event, named ones apart.
type spy struct{ named, others lockedBuffer }

func (s *spy) Handshake(h *proxy.Handshake) {
	fmt.Fprintf(&s.others, "%+v %+v %+v\n", *h, *h.Conn, h.Hello)
}
func (s *spy) Login(l *proxy.Login) { fmt.Fprintf(&s.named, "login %+v %+v\n", *l, *l.Conn) }
func (s *spy) LoginFailed(l *proxy.LoginFailed) {
	fmt.Fprintf(&s.named, "refused %+v %+v\n", *l, *l.Conn)
}
func (s *spy) Software(e *proxy.Software) { fmt.Fprintf(&s.named, "software %+v %+v\n", *e, *e.Conn) }
func (s *spy) Closed(c *proxy.Closed)     { fmt.Fprintf(&s.others, "%+v %+v\n", *c, *c.Conn) }

// Identify knows nobody.
func (s *spy) Identify(*proxy.Handshake) (known ledger.Known) { return known }

// listening has all that can listen to a proxy do so: the log at its finest, the
// metrics, and a spy.
func listening(log io.Writer, s *spy, m *metrics.Metrics) func(*proxy.Config) {
	logger := logging.New(log, slog.LevelDebug, "json")
	suppression := logging.NewSuppression(time.Now, func(netip.Addr, uint64) {})
	return func(c *proxy.Config) {
		c.Log, c.Metrics = logger, m
		c.Observer = chain{c.Observer, s, &logging.Observer{Log: logger, Suppression: suppression, Identify: s.Identify, Logins: suppression, Account: func(a string) string { return "account " + a }}, m}
	}
}

func newMetrics() *metrics.Metrics {
	none, zero := func() uint64 { return 0 }, func() float64 { return 0 }
	return metrics.New(metrics.Options{
		Listeners: proxy.Listeners, Policy: policy.New(policy.FloorTLS12, policy.Enforce), Now: time.Now,
		Certificates:  func() []certs.Info { return nil },
		LogSuppressed: none, LedgerDropped: none, LedgerPending: zero, LedgerWritten: zero,
	})
}

// scraped is what metrics say, in text.
func scraped(m *metrics.Metrics) string {
	w := httptest.NewRecorder()
	m.Handler().ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	return w.Body.String()
}

// oldClient is what a client of TLS 1.0 offers.
func oldClient(g *proxy.Proxy) *tls.Config {
	c := g.ClientConfig()
	c.MinVersion, c.MaxVersion = tls.VersionTLS10, tls.VersionTLS10
	c.CipherSuites = hello.Typical(tls.VersionTLS10).CipherSuites
	return c
}

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
	var events spy
	meter := newMetrics()
	imap := posterntest.StartUpstream(t, posterntest.IMAPGreeting, answerSecret(true))
	pop3 := posterntest.StartUpstream(t, posterntest.POP3Greeting, answerSecret(false))
	for _, mode := range policy.Modes {
		g := proxy.StartProxy(t, mode, imap.Addr(), pop3.Addr(), func(c *proxy.Config) {
			listening(&log, &events, meter)(c)
			c.Identity = true
		})
		inside := g.ClientConfig()
		if mode == policy.Observe {
			inside = oldClient(g)
		}
		n := 0
		for _, l := range proxy.Listeners {
			lines := imapSecrets
			if l.Protocol() == proxy.ProtocolPOP3 {
				lines = pop3Secrets
			}
			for _, line := range lines {
				tell(t, g, l, line, nil)
				n++
				if l.ImplicitTLS() {
					tell(t, g, l, line, inside)
					n++
				}
			}
		}
		g.WaitClosed(t, n)
	}
	text := log.String()
	if strings.Count(text, "\"msg\":\"closed\"") < 50 || !strings.Contains(text, `"why":"upstream"`) || !strings.Contains(text, "plaintext") {
		t.Fatalf("the log does not tell of these connections:\n%.2000s", text)
	}
	for where, text := range map[string]string{
		"the log": text, "an event": events.named.String() + events.others.String(), "a metric": scraped(meter),
	} {
		for _, l := range loot() {
			if i := strings.Index(text, l); i >= 0 {
				t.Errorf("%s tells %q: %s", where, l, text[max(0, i-200):min(len(text), i+100)])
			}
		}
	}
	if sent := string(slices.Concat(imap.ReceivedAll(), pop3.ReceivedAll())); !strings.Contains(sent, secret) || !strings.Contains(sent, saslPlain("user", secret)) {
		t.Error("no credential was ever sent: this test shows nothing")
	}
}

// acceptSecret takes every login that credentials come with.
func acceptSecret(imap bool) func(string) string {
	return func(line string) string {
		switch upper := strings.ToUpper(line); {
		case strings.HasSuffix(line, "}") && !strings.HasSuffix(line, "+}"), strings.HasSuffix(upper, " PLAIN"), strings.HasSuffix(upper, " LOGIN"):
			return "+ \r\n"
		case strings.HasSuffix(line, "+}"):
			return ""
		case !imap:
			return "+OK\r\n"
		}
		return "a OK done\r\n"
	}
}

// An account that is told belongs to the one who logs in, and to nobody who
// reads a log.
func TestAnAccountIsReportedWithALoginAlone(t *testing.T) {
	const account = "anna-konto"
	id := "a ID (\"name\" \"mail-konto\")\r\n"
	token := base64.StdEncoding.EncodeToString([]byte("user=" + account + "\x01auth=Bearer " + secret + "\x01\x01"))
	said := map[proxy.Listener][]string{
		proxy.IMAPS: {
			"a LOGIN " + account + " " + secret + "\r\n" + id, id + "a LOGIN {10}\r\n" + account + " {17}\r\n" + secret + "\r\n", "a AUTHENTICATE XOAUTH2 " + token + "\r\n",
			"a AUTHENTICATE PLAIN\r\n" + saslPlain(account, secret) + "\r\n", "a LOGIN {10+}\r\n" + account + " {17+}\r\n" + secret + "\r\n" + id,
		},
		proxy.POP3S: {"USER " + account + "\r\nPASS " + secret + "\r\n", "APOP " + account + " " + secret + "\r\n", "AUTH PLAIN " + saslPlain(account, secret) + "\r\n"},
	}
	imap := posterntest.StartUpstream(t, posterntest.IMAPGreeting, acceptSecret(true))
	pop3 := posterntest.StartUpstream(t, posterntest.POP3Greeting, acceptSecret(false))
	for _, identity := range []bool{false, true} {
		var log lockedBuffer
		var events spy
		meter := newMetrics()
		g := proxy.StartProxy(t, policy.Observe, imap.Addr(), pop3.Addr(), func(c *proxy.Config) {
			listening(&log, &events, meter)(c)
			c.Identity = identity
		})
		n := 0
		for l, lines := range said {
			for _, line := range lines {
				tell(t, g, l, line, oldClient(g))
				n++
			}
		}
		g.WaitClosed(t, n)
		told := events.named.String()
		if logins := strings.Count(told, "login {"); logins != n {
			t.Fatalf("%d logins of %d", logins, n)
		}
		if got := strings.Count(told, account); identity && got < n || !identity && (got > 0 || strings.Contains(told, "mail-konto")) {
			t.Errorf("identity %v: the account is told %d times:\n%s", identity, got, told)
		}
		if identity && strings.Count(told, "Software:mail-konto") != 3 {
			t.Errorf("the software is told otherwise than three times:\n%s", told)
		}
		rest := log.String() + events.others.String() + scraped(meter)
		for _, l := range append(loot(), "konto") {
			if strings.Contains(rest, l) || l != "konto" && strings.Contains(told, l) {
				t.Errorf("identity %v: %q is told", identity, l)
			}
		}
	}
}

// tell says a line, in clear or inside TLS, and waits for the end.
func tell(t *testing.T, g *proxy.Proxy, l proxy.Listener, line string, inside *tls.Config) {
	t.Helper()
	c := g.Dial(t, l)
	defer c.Close()
	var w interface {
		io.ReadWriter
		CloseWrite() error
	} = c
	if inside != nil {
		tc := tls.Client(c, inside)
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
