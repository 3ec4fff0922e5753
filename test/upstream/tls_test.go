package upstream

import (
	"bytes"
	"regexp"
	"strings"
	"testing"
	"time"

	"postern/internal/dovecot"
	"postern/internal/posterntest"
)

func TestARealDovecotIsReachedOverEveryKindOfTLS(t *testing.T) {
	t.Parallel()
	ca := posterntest.NewCA(t)
	pair := ca.Issue(t, []string{"127.0.0.1"}, posterntest.RSA)
	d := dovecot.Start(t, dovecot.Options{CertFile: pair.CertFile, KeyFile: pair.KeyFile})
	message := dovecot.Message(1, bytes.Repeat([]byte("0123456789abcdef * BYE STARTTLS 8-bit: \xfc\xff\r\n"), 40_000))
	d.Deliver(t, dovecot.Anna.Name, message)
	for kind, env := range map[string]map[string]string{
		"implicit": {"UPSTREAM_IMAP": "imaps://" + d.IMAPS, "UPSTREAM_POP3": "pop3s://" + d.POP3S},
		"starttls": {"UPSTREAM_IMAP": "imap+starttls://" + d.IMAP, "UPSTREAM_POP3": "pop3+starttls://" + d.POP3},
	} {
		env["UPSTREAM_CA_FILE"] = ca.File
		g := posterntest.Start(t, env)
		for _, listener := range posterntest.Listeners {
			t.Run(kind+" "+listener, func(t *testing.T) {
				fetches(t, g, listener, message)
			})
		}
	}
	// Dovecot's log comes a little late.
	logged(t, d, 8, `Login: user=<anna@example.org>, .* TLS, session=`)
}

// logged waits until that many lines of Dovecot's log match.
func logged(t *testing.T, d *dovecot.Server, n int, pattern string) {
	t.Helper()
	match := regexp.MustCompile(pattern)
	deadline := time.Now().Add(30 * time.Second)
	for {
		found := len(match.FindAllString(d.Log(t), -1))
		if found >= n {
			return
		}
		if time.Now().After(deadline) {
			t.Errorf("%d lines of Dovecot's log match %s, want %d", found, pattern, n)
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// fetches logs in as Anna, who must see no capability that does not hold inside TLS, and fetches her
// first message.
func fetches(t *testing.T, g *posterntest.Proxy, listener string, message []byte) {
	t.Helper()
	c, err := posterntest.Caller{From: "127.0.0.9"}.Open(g, listener)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	said := []string{c.Greeting}
	if strings.HasPrefix(listener, "imap") {
		for _, r := range c.Must(t, "CAPABILITY").Untagged {
			said = append(said, r.Line)
		}
	}
	for _, line := range said {
		if strings.Contains(line, "STARTTLS") || strings.Contains(line, "LOGINDISABLED") {
			t.Errorf("does not hold inside TLS: %q", line)
		}
	}
	if err := c.Login(dovecot.Anna.Name, dovecot.Anna.Password); err != nil {
		t.Fatal(err)
	}
	got, err := c.Fetch(1)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, message) {
		t.Errorf("the message has changed: %d bytes instead of %d", len(got), len(message))
	}
}

func TestABadUpstreamCertificateIsNeverTrusted(t *testing.T) {
	t.Parallel()
	ca, other := posterntest.NewCA(t), posterntest.NewCA(t)
	names := []string{"127.0.0.1"}
	good := ca.Issue(t, names, posterntest.ECDSA)
	bad := map[string]posterntest.Pair{
		"unknown authority": other.Issue(t, names, posterntest.ECDSA),
		"valid for":         ca.Issue(t, []string{"elsewhere.example.org", "127.0.0.2"}, posterntest.ECDSA),
		"expired":           ca.IssueExpired(t, names, posterntest.ECDSA),
	}
	upstreams := map[string]*tlsUpstream{
		"imap": startTLSUpstream(t, "imap", good), "pop3": startTLSUpstream(t, "pop3", good),
	}
	g := posterntest.Start(t, map[string]string{
		"UPSTREAM_IMAP": upstreams["imap"].URL("imaps"), "UPSTREAM_POP3": upstreams["pop3"].URL("pop3s"),
		"UPSTREAM_CA_FILE": ca.File,
	})
	for words, pair := range bad {
		for protocol, u := range upstreams {
			url := u.URL(protocol + "s")
			isUp(t, g, url, 1)
			logged := len(failuresLogged(g, url, "tls"))
			u.present(t, pair)
			before := u.Connections()
			for _, listener := range listenersOf(protocol) {
				expectUnavailable(t, g, listener)
			}
			if got := failureLogged(t, g, url, "tls", logged); !strings.Contains(got, words) {
				t.Errorf("the log says %q, nothing of %q", got, words)
			}
			for i := before; i < u.Connections(); i++ {
				if got := u.Received(i); len(got) > 0 && got[0] != 22 {
					t.Errorf("something else than TLS was tried: %q", got)
				}
			}
			noSecret(t, u.Upstream)
			u.present(t, good)
			isUp(t, g, url, 1)
		}
	}
	for _, listener := range posterntest.Listeners {
		serves(t, g, listener)
	}
	for protocol, u := range upstreams {
		failuresOf(t, g, u.URL(protocol+"s"), "tls")
	}
}

func TestSessionsWithAnUpstreamAreResumed(t *testing.T) {
	t.Parallel()
	ca := posterntest.NewCA(t)
	pair := ca.Issue(t, []string{"127.0.0.1"}, posterntest.ECDSA)
	imap, pop3 := startTLSUpstream(t, "imap", pair), startTLSUpstream(t, "pop3", pair)
	g := posterntest.Start(t, map[string]string{
		"UPSTREAM_IMAP": imap.URL("imaps"), "UPSTREAM_POP3": pop3.URL("pop3s"), "UPSTREAM_CA_FILE": ca.File,
	})
	for range 5 {
		for _, listener := range posterntest.Listeners {
			serves(t, g, listener)
		}
	}
	for _, u := range []*tlsUpstream{imap, pop3} {
		if resumed, full := u.resumed.Load(), u.full.Load(); resumed < 5 {
			t.Errorf("%d of %d handshakes with the upstream were resumed", resumed, resumed+full)
		}
	}
}

func TestUpstreamServerNameIsSentAndVerified(t *testing.T) {
	t.Parallel()
	ca := posterntest.NewCA(t)
	u := startTLSUpstream(t, "imap", ca.Issue(t, []string{"mx.example.org"}, posterntest.ECDSA))
	g := posterntest.Start(t, map[string]string{
		"UPSTREAM_IMAP": u.URL("imaps"), "UPSTREAM_CA_FILE": ca.File, "UPSTREAM_SERVER_NAME": "mx.example.org",
	})
	serves(t, g, "imaps")
	if got := u.name.Load(); got != "mx.example.org" {
		t.Errorf("the upstream was asked for %q", got)
	}
	u.present(t, ca.Issue(t, []string{"127.0.0.1", "localhost"}, posterntest.ECDSA))
	expectUnavailable(t, g, "imaps")
	noSecret(t, u.Upstream)
}
