// Package upstream tests the proxy's other side, through the built binary: how
// it finds, secures and changes mail servers, and what it tells them of the
// client.
package upstream

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"io"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"postern/internal/posterntest"
)

func TestMain(m *testing.M) { posterntest.Main(m) }

// implicit names the listener on which a client is greeted by the upstream.
var implicit = map[string]string{"imap": "imaps", "pop3": "pop3s"}

// dialogues are the small servers of posterntest, by protocol.
var dialogues = map[string]struct {
	greeting string
	reply    func(string) string
}{
	"imap": {posterntest.IMAPGreeting, posterntest.IMAPReply},
	"pop3": {posterntest.POP3Greeting, posterntest.POP3Reply},
}

// converse plays a small server on a connection.
func converse(c io.ReadWriter, protocol string) {
	d := dialogues[protocol]
	if _, err := io.WriteString(c, d.greeting); err == nil {
		answer(c, d.reply)
	}
}

func answer(c io.ReadWriter, reply func(string) string) {
	lines := bufio.NewScanner(c)
	for lines.Scan() {
		if _, err := io.WriteString(c, reply(strings.TrimRight(lines.Text(), "\r"))); err != nil {
			return
		}
	}
}

// plain starts a small server without TLS.
func plain(t *testing.T, protocol string) *posterntest.Upstream {
	t.Helper()
	return posterntest.StartRawUpstream(t, func(c net.Conn) { converse(c, protocol) })
}

// tlsUpstream is a small server behind implicit TLS, whose certificate can be
// replaced.
type tlsUpstream struct {
	*posterntest.Upstream
	config atomic.Pointer[tls.Config]
	// resumed and full count its handshakes; name is the SNI of the last.
	resumed, full atomic.Int64
	name          atomic.Value
}

func startTLSUpstream(t *testing.T, protocol string, pair posterntest.Pair) *tlsUpstream {
	t.Helper()
	u := new(tlsUpstream)
	u.present(t, pair)
	u.Upstream = posterntest.StartRawUpstream(t, func(c net.Conn) {
		secured := tls.Server(c, u.config.Load())
		if secured.Handshake() != nil {
			return
		}
		state := secured.ConnectionState()
		u.name.Store(state.ServerName)
		if state.DidResume {
			u.resumed.Add(1)
		} else {
			u.full.Add(1)
		}
		converse(secured, protocol)
	})
	return u
}

// present lets the upstream have a certificate. Tickets that were made before
// are worth nothing then.
func (u *tlsUpstream) present(t *testing.T, pair posterntest.Pair) {
	t.Helper()
	u.config.Store(&tls.Config{Certificates: []tls.Certificate{pair.Load(t)}})
}

// listenersOf are those of one protocol.
func listenersOf(protocol string) []string { return []string{protocol + "s", protocol} }

// unavailable are the words for a client that no upstream serves.
var unavailable = map[string]string{"imap": "* BYE [UNAVAILABLE] ", "pop3": "-ERR [SYS/TEMP] "}

const secret = "never-to-be-seen"

// expectUnavailable connects to a listener, logs in without waiting, and wants
// nothing but the words.
func expectUnavailable(t *testing.T, g *posterntest.Proxy, listener string) {
	t.Helper()
	protocol := strings.TrimSuffix(listener, "s")
	eager := map[string]string{"imap": "e LOGIN anna " + secret + "\r\n", "pop3": "USER anna\r\nPASS " + secret + "\r\n"}[protocol]
	conn := tls.Client(g.DialForTLS(t, listener), &tls.Config{RootCAs: g.CA.Pool, ServerName: "localhost"})
	if _, err := io.WriteString(conn, eager); err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(conn)
	if err != nil {
		t.Errorf("%s: the connection did not end in order: %v", listener, err)
	}
	if !strings.HasPrefix(string(got), unavailable[protocol]) || strings.Count(string(got), "\n") != 1 {
		t.Errorf("%s: the client was told %q, want one line %s", listener, got, unavailable[protocol])
	}
}

// serves wants a whole session over a listener.
func serves(t *testing.T, g *posterntest.Proxy, listener string) *posterntest.Client {
	t.Helper()
	c, err := posterntest.Caller{}.Login(g, listener, "anna", "password")
	if err != nil {
		t.Errorf("%s: %v", listener, err)
		return nil
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// noSecret wants that no credential was sent to an upstream.
func noSecret(t *testing.T, u *posterntest.Upstream) {
	t.Helper()
	if got := u.ReceivedAll(); bytes.Contains(got, []byte(secret)) || bytes.Contains(got, []byte("anna")) {
		t.Errorf("credentials have reached the upstream: %q", got)
	}
}

// failuresOf waits until an upstream has failed for a reason.
func failuresOf(t *testing.T, g *posterntest.Proxy, url, reason string) {
	t.Helper()
	g.Wait(t, func(s posterntest.Samples) bool {
		return s.Count("postern_upstream_failures_total", "upstream="+url, "reason="+reason) > 0
	})
}

// isUp waits until the proxy says whether an upstream answers.
func isUp(t *testing.T, g *posterntest.Proxy, url string, want float64) {
	t.Helper()
	s := g.Wait(t, func(s posterntest.Samples) bool { return s.Value("postern_upstream_up", "upstream="+url) == want })
	if got := s.Value("postern_upstream_up", "upstream="+url); got != want {
		t.Fatalf("postern_upstream_up of %s is %v, want %v", url, got, want)
	}
}

// failuresLogged are the errors of the lines so far that say that an upstream has failed
// for a reason.
func failuresLogged(g *posterntest.Proxy, url, reason string) (errors []string) {
	for _, line := range g.LogLines("upstream failed") {
		if line["upstream"] == url && line["reason"] == reason {
			errors = append(errors, line["error"].(string))
		}
	}
	return errors
}

// failureLogged returns the last of them, once there are more than before.
func failureLogged(t *testing.T, g *posterntest.Proxy, url, reason string, before int) string {
	t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for {
		if errors := failuresLogged(g, url, reason); len(errors) > before {
			return errors[len(errors)-1]
		}
		if time.Now().After(deadline) {
			t.Errorf("no other log line says that %s failed for %s: %v", url, reason, g.LogLines("upstream failed"))
			return ""
		}
		time.Sleep(10 * time.Millisecond)
	}
}
