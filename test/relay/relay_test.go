// Package relay tests, through the built binary and with scripted upstreams,
// what is said on the way from a client to its mail server and back: before
// TLS, before login, after it, and at the end.
package relay

import (
	"bytes"
	"crypto/tls"
	"io"
	"maps"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"postern/internal/posterntest"
)

func TestMain(m *testing.M) {
	// The race detector lets a process sleep for a second at its end, which is
	// too long where the end is what is looked at.
	os.Setenv("GORACE", strings.TrimSpace("atexit_sleep_ms=20 "+os.Getenv("GORACE")))
	posterntest.Main(m)
}

const (
	dialogTime = 60 * time.Second      // for anything that has to come
	quietTime  = 60 * time.Millisecond // for what must not come
)

const (
	imapGreeting = "* OK [CAPABILITY IMAP4rev1 SASL-IR LITERAL+ ID AUTH=PLAIN] at your service\r\n"
	pop3Greeting = "+OK at your service <17.42@mail.example.org>\r\n"
)

// rig is a proxy between clients and upstreams that the test plays both.
type rig struct {
	*posterntest.Proxy
	imap, pop3 *stage
}

func newRig(t *testing.T, env map[string]string) *rig {
	t.Helper()
	return newRigGreeting(t, env, imapGreeting, pop3Greeting)
}

func newRigGreeting(t *testing.T, env map[string]string, imap, pop3 string) *rig {
	t.Helper()
	r := &rig{imap: newStage(t, imap), pop3: newStage(t, pop3)}
	all := map[string]string{"UPSTREAM_IMAP": r.imap.URL("imap"), "UPSTREAM_POP3": r.pop3.URL("pop3")}
	maps.Copy(all, env)
	r.Proxy = posterntest.Start(t, all)
	r.imap.forgetProbes()
	r.pop3.forgetProbes()
	return r
}

func isIMAP(listener string) bool { return strings.HasPrefix(listener, "imap") }

func (r *rig) stageOf(listener string) *stage {
	if isIMAP(listener) {
		return r.imap
	}
	return r.pop3
}

// untouched fails the test where a session has reached an upstream.
func (r *rig) untouched(t *testing.T) {
	t.Helper()
	if n := r.imap.untaken() + r.pop3.untaken(); n > 0 {
		t.Errorf("%d connections have reached an upstream", n)
	}
	if got := append(r.imap.ReceivedFromClients(), r.pop3.ReceivedFromClients()...); len(got) > 0 {
		t.Errorf("the upstreams have seen %.200q", got)
	}
}

// newEnd is one end of a dialogue.
func newEnd(name string, c net.Conn) *posterntest.Client {
	e := posterntest.NewClient(c, "pop3") // without tags of its own
	e.Name, e.Timeout = name, dialogTime
	return e
}

// sending sends beside the test, for what is more than the sockets hold.
func sending(e *posterntest.Client, text string) <-chan error {
	sent := make(chan error, 1)
	go func() {
		_, err := io.WriteString(e, text)
		sent <- err
	}()
	return sent
}

// wasSent waits for what was sending.
func wasSent(t *testing.T, sent <-chan error) {
	t.Helper()
	if err := <-sent; err != nil {
		t.Errorf("sending: %v", err)
	}
}

// dialogue is a session with both its ends.
type dialogue struct {
	client, upstream *posterntest.Client
}

// open begins a session inside TLS and takes both ends, the greeting read.
func (r *rig) open(t *testing.T, listener string) *dialogue {
	t.Helper()
	conn := r.secure(t, listener, r.DialForTLS(t, listener))
	d := &dialogue{client: newEnd("client", conn), upstream: r.taken(t, listener)}
	switch listener {
	case "imaps":
		d.client.Expect(t, imapGreeting)
	case "pop3s":
		d.client.Expect(t, pop3Greeting)
	}
	return d
}

func (r *rig) secure(t *testing.T, listener string, c net.Conn) *tls.Conn {
	t.Helper()
	protocol := strings.TrimSuffix(listener, "s")
	conn := tls.Client(c, &tls.Config{RootCAs: r.CA.Pool, ServerName: "mail.example.org", NextProtos: []string{protocol}})
	if err := conn.Handshake(); err != nil {
		t.Fatalf("handshaking: %v", err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

// taken is the upstream's end of the session that has just begun.
func (r *rig) taken(t *testing.T, listener string) *posterntest.Client {
	t.Helper()
	c := r.stageOf(listener).take(t)
	t.Cleanup(func() { c.Close() })
	return newEnd("upstream", c)
}

// pass is sent by the client and must reach the upstream unchanged.
func (d *dialogue) pass(t *testing.T, text string) {
	t.Helper()
	sent := sending(d.client, text)
	d.upstream.Expect(t, text)
	wasSent(t, sent)
}

// back is sent by the upstream and must reach the client unchanged.
func (d *dialogue) back(t *testing.T, text string) {
	t.Helper()
	sent := sending(d.upstream, text)
	d.client.Expect(t, text)
	wasSent(t, sent)
}

// goesOn shows that both ends still understand each other before login.
func (d *dialogue) goesOn(t *testing.T, listener string) {
	t.Helper()
	if isIMAP(listener) {
		d.pass(t, "zz NOOP\r\n")
		d.back(t, "zz OK noop\r\n")
		return
	}
	d.pass(t, "NOOP\r\n")
	d.back(t, "+OK noop\r\n")
}

// login logs in; from then on the stream is the upstream's.
func (d *dialogue) login(t *testing.T, listener string) {
	t.Helper()
	if isIMAP(listener) {
		d.pass(t, "in LOGIN anna s3cr3t-word\r\n")
		d.back(t, "in OK logged in\r\n")
		return
	}
	d.pass(t, "USER anna\r\n")
	d.back(t, "+OK\r\n")
	d.pass(t, "PASS s3cr3t-word\r\n")
	d.back(t, "+OK logged in\r\n")
}

// enter is open and login.
func (r *rig) enter(t *testing.T, listener string) *dialogue {
	t.Helper()
	d := r.open(t, listener)
	d.login(t, listener)
	return d
}

// becomes waits until a metric has the value.
func (r *rig) becomes(t *testing.T, want float64, name string, labels ...string) {
	t.Helper()
	s := r.Wait(t, func(s posterntest.Samples) bool {
		got := s.Value(name, labels...)
		return got == want || want > 0 && got > want
	})
	if got := s.Value(name, labels...); got != want {
		t.Errorf("%s %v is %v, want %v", name, labels, got, want)
	}
}

func noSecret(t *testing.T, r *rig) {
	t.Helper()
	if bytes.Contains([]byte(r.Stderr()), []byte("s3cr3t-word")) {
		t.Error("a password is in the log")
	}
}
