// Package relay tests, through the built binary and with scripted upstreams,
// what is said on the way from a client to its mail server and back: before
// TLS, before login, after it, and at the end.
package relay

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"errors"
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
	dialogTime = 20 * time.Second      // for anything that has to come
	quietTime  = 60 * time.Millisecond // for what must not come
)

// stage is an upstream whose connections the test plays itself.
type stage struct {
	*posterntest.Upstream
	conns chan net.Conn
}

func newStage(t *testing.T, greeting string) *stage {
	t.Helper()
	s := &stage{conns: make(chan net.Conn, 1000)}
	over := make(chan struct{})
	s.Upstream = posterntest.StartRawUpstream(t, func(c net.Conn) {
		s.conns <- c
		io.WriteString(c, greeting)
		<-over
	})
	t.Cleanup(func() { close(over) })
	return s
}

// settle forgets the connections so far, which were the gate's probes.
func (s *stage) settle() {
	for len(s.conns) > 0 {
		(<-s.conns).Close()
	}
}

const (
	imapGreeting = "* OK [CAPABILITY IMAP4rev1 SASL-IR LITERAL+ ID AUTH=PLAIN] at your service\r\n"
	pop3Greeting = "+OK at your service <17.42@mail.example.org>\r\n"
)

// rig is a gate between clients and upstreams that the test plays both.
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
	r.imap.settle()
	r.pop3.settle()
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
	if n := len(r.imap.conns) + len(r.pop3.conns); n > 0 {
		t.Errorf("%d connections have reached an upstream", n)
	}
	if got := append(r.imap.ReceivedAll(), r.pop3.ReceivedAll()...); len(got) > 0 {
		t.Errorf("the upstreams have seen %.200q", got)
	}
}

// end is one end of a dialogue.
type end struct {
	name string
	net.Conn
	r *bufio.Reader
}

func newEnd(name string, c net.Conn) *end {
	return &end{name, c, bufio.NewReaderSize(c, 64<<10)}
}

func (e *end) send(t *testing.T, text string) {
	t.Helper()
	e.SetWriteDeadline(time.Now().Add(dialogTime))
	if _, err := io.WriteString(e.Conn, text); err != nil {
		t.Fatalf("%s sends %.60q: %v", e.name, text, err)
	}
}

// sending sends beside the test, for what is more than the sockets hold.
func (e *end) sending(text string) <-chan error {
	sent := make(chan error, 1)
	go func() {
		e.SetWriteDeadline(time.Now().Add(dialogTime))
		_, err := io.WriteString(e.Conn, text)
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

// gets reads exactly this text.
func (e *end) gets(t *testing.T, want string) {
	t.Helper()
	e.SetReadDeadline(time.Now().Add(dialogTime))
	got := make([]byte, len(want))
	n, err := io.ReadFull(e.r, got)
	if text := string(got[:n]); text != want {
		t.Fatalf("%s gets %s\nwant %s (%v)", e.name, shown(text), shown(want), err)
	}
}

func shown(s string) string {
	if len(s) > 400 {
		return strings.ReplaceAll(s[:400], "\r\n", "\\r\\n\n") + "…"
	}
	return "\n" + strings.ReplaceAll(s, "\r\n", "\\r\\n\n")
}

// line reads one line, which must end in CRLF, and returns it without.
func (e *end) line(t *testing.T) string {
	t.Helper()
	e.SetReadDeadline(time.Now().Add(dialogTime))
	text, err := e.r.ReadString('\n')
	if err != nil || !strings.HasSuffix(text, "\r\n") {
		t.Fatalf("%s gets %.200q instead of a line: %v", e.name, text, err)
	}
	return strings.TrimSuffix(text, "\r\n")
}

// starts reads a line that begins in this way.
func (e *end) starts(t *testing.T, want string) string {
	t.Helper()
	text := e.line(t)
	if !strings.HasPrefix(text, want) {
		t.Fatalf("%s gets %.200q, want %q", e.name, text, want)
	}
	return text
}

// quiet fails the test where anything comes for a while.
func (e *end) quiet(t *testing.T) {
	t.Helper()
	e.SetReadDeadline(time.Now().Add(quietTime))
	if _, err := e.r.Peek(1); !errors.Is(err, os.ErrDeadlineExceeded) {
		b, _ := e.r.Peek(max(1, e.r.Buffered()))
		t.Fatalf("%s gets %.200q too soon: %v", e.name, b, err)
	}
}

// over reads to the end of the stream, which must come in order: inside TLS by
// close_notify.
func (e *end) over(t *testing.T) string {
	t.Helper()
	e.SetReadDeadline(time.Now().Add(dialogTime))
	rest, err := io.ReadAll(e.r)
	if err != nil {
		t.Errorf("%s: the connection did not end in order: %v after %.200q", e.name, err, rest)
	}
	return string(rest)
}

// says reads one line that begins in this way, and then the end.
func (e *end) says(t *testing.T, want string) {
	t.Helper()
	if text := e.over(t); !strings.HasPrefix(text, want) || strings.Count(text, "\r\n") != 1 || !strings.HasSuffix(text, "\r\n") {
		t.Errorf("%s gets %.200q, want one line %q and the end", e.name, text, want)
	}
}

// dialogue is a session with both its ends.
type dialogue struct {
	client, upstream *end
}

// open begins a session inside TLS and takes both ends, the greeting read.
func (r *rig) open(t *testing.T, listener string) *dialogue {
	t.Helper()
	conn := r.secure(t, listener, r.DialForTLS(t, listener))
	d := &dialogue{client: newEnd("client", conn), upstream: r.taken(t, listener)}
	switch listener {
	case "imaps":
		d.client.gets(t, imapGreeting)
	case "pop3s":
		d.client.gets(t, pop3Greeting)
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
func (r *rig) taken(t *testing.T, listener string) *end {
	t.Helper()
	select {
	case c := <-r.stageOf(listener).conns:
		t.Cleanup(func() { c.Close() })
		return newEnd("upstream", c)
	case <-time.After(dialogTime):
		t.Fatal("the upstream was not dialled")
		return nil
	}
}

// pass is sent by the client and must reach the upstream unchanged.
func (d *dialogue) pass(t *testing.T, text string) {
	t.Helper()
	sent := d.client.sending(text)
	d.upstream.gets(t, text)
	wasSent(t, sent)
}

// back is sent by the upstream and must reach the client unchanged.
func (d *dialogue) back(t *testing.T, text string) {
	t.Helper()
	sent := d.upstream.sending(text)
	d.client.gets(t, text)
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
	var got float64
	s := r.Wait(t, func(s posterntest.Samples) bool { return s.Value(name, labels...) >= want })
	if got = s.Value(name, labels...); got != want {
		t.Errorf("%s %v is %v, want %v", name, labels, got, want)
	}
}

func noSecret(t *testing.T, r *rig) {
	t.Helper()
	if bytes.Contains([]byte(r.Stderr()), []byte("s3cr3t-word")) {
		t.Error("a password is in the log")
	}
}
