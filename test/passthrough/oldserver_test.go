package passthrough

import (
	"bytes"
	"crypto/sha256"
	"crypto/tls"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"postern/internal/hello"
	"postern/internal/posterntest"
)

// serverHello is how an old server's answer begins.
const serverHello = "\x16\x03\x00\x00\x04\x0e\x00\x00\x00"

var (
	ssl2 = hello.SSLv2()
	ssl3 = hello.ClientHello(hello.Typical(hello.VersionSSL30))
)

// ancient are the hellos of clients for which there is no program any more.
var ancient = map[string]struct {
	flight  []byte
	version string
}{
	"SSL 2.0": {ssl2, "ssl2"}, "SSL 3.0": {ssl3, "ssl3"},
}

// startObserving starts a proxy before small servers, whose clients may be
// passed through to old.
func startObserving(t *testing.T, old string, env map[string]string) *posterntest.Proxy {
	t.Helper()
	all := map[string]string{
		"UPSTREAM_IMAP": posterntest.StartUpstream(t, posterntest.IMAPGreeting, posterntest.IMAPReply).URL("imap"),
		"UPSTREAM_POP3": posterntest.StartUpstream(t, posterntest.POP3Greeting, posterntest.POP3Reply).URL("pop3"),
		"POLICY_MODE":   "observe", "UPSTREAM_PASSTHROUGH_IMAPS": old, "UPSTREAM_PASSTHROUGH_POP3S": old,
	}
	for key, value := range env {
		all[key] = value
		if value == "" {
			delete(all, key)
		}
	}
	return posterntest.Start(t, all)
}

// answering plays an old server: it answers a hello of that length, then sends
// all that it has, and waits for the end of what the client says.
func answering(length int, all []byte) func(net.Conn) {
	return func(c net.Conn) {
		if _, err := io.ReadFull(c, make([]byte, length)); err != nil {
			return
		}
		io.WriteString(c, serverHello)
		c.Write(all)
		if len(all) > 0 {
			c.(interface{ CloseWrite() error }).CloseWrite()
		}
		io.Copy(io.Discard, c)
	}
}

func noise(size int) []byte {
	b := make([]byte, size)
	rng := rand.NewChaCha8([32]byte{'p'})
	rng.Read(b)
	return b
}

func TestSSL2AndSSL3GoToTheOldServerByteForByteAndBack(t *testing.T) {
	t.Parallel()
	down, up := noise(32<<20), noise(9<<20)
	for name, client := range ancient {
		old := posterntest.StartRawUpstream(t, answering(len(client.flight), down))
		g := startObserving(t, old.Addr(), nil)
		for i, listener := range listeners {
			conn := g.Dial(t, listener)
			sent := append(bytes.Clone(client.flight), up...)
			var sending sync.WaitGroup
			sending.Go(func() {
				conn.Write(sent)
				conn.CloseWrite()
			})
			got, err := io.ReadAll(conn)
			sending.Wait()
			if want := append([]byte(serverHello), down...); err != nil || sha256.Sum256(got) != sha256.Sum256(want) {
				t.Errorf("%s, %s: %d bytes came down, %v, want %d", name, listener, len(got), err, len(want))
			}
			received := func() []byte { return old.Received(i) }
			waitFor(t, "the client's bytes", func() bool { return len(received()) >= len(sent) })
			if sha256.Sum256(received()) != sha256.Sum256(sent) {
				t.Errorf("%s, %s: %d bytes came up, or others, want %d", name, listener, len(received()), len(sent))
			}
			g.Wait(t, func(s posterntest.Samples) bool {
				return s.Count("postern_legacy_handshakes_total", "listener="+listener, "version="+client.version, "reason=version", "outcome=observed") == 1 &&
					s.Count("postern_connections_open") == 0
			})
		}
		g.CheckIdentities(t, 2)
		for _, line := range g.WaitLog(t, "legacy handshake", 2) {
			if line["outcome"] != "observed" || line["version"] != client.version {
				t.Errorf("%s: log line %v", name, line)
			}
		}
		if s := g.Metrics(t); s.Count("postern_relayed_bytes_total") != 0 || s.Count("postern_tls_sessions_total") != 0 {
			t.Errorf("%s: counted as a session of the proxy's own", name)
		}
	}
}

func waitFor(t *testing.T, what string, cond func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !cond(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not in half a minute", what)
		}
	}
}

// refused sends a hello and wants an alert alone.
func refused(t *testing.T, g *posterntest.Proxy, listener string, flight []byte, want uint8) {
	t.Helper()
	conn := g.Dial(t, listener)
	conn.Write(flight)
	answer, err := hello.ReadFlight(conn)
	if err != nil || answer.Kind != hello.Alert || answer.Level != 2 || answer.Alert != want {
		t.Errorf("%s: answered %+v, %v, want alert %d", listener, answer, err, want)
	}
	if rest, err := io.ReadAll(conn); err != nil || len(rest) > 0 {
		t.Errorf("%s: behind the alert %q, %v", listener, rest, err)
	}
}

func dheOnly(version uint16, more ...uint16) []byte {
	return hello.ClientHello(hello.Typical(version).Only(append(slices.Clone(hello.DHE), more...)...))
}

func TestAnAlertOfTheOldServerReachesTheClientAndIsAFailure(t *testing.T) {
	t.Parallel()
	old := posterntest.StartRawUpstream(t, func(c net.Conn) {
		io.ReadFull(c, make([]byte, len(ssl3)))
		io.WriteString(c, "\x15\x03\x00\x00\x02\x02\x2f") // illegal_parameter: never the proxy's own
	})
	g := startObserving(t, old.Addr(), nil)
	for _, listener := range listeners {
		refused(t, g, listener, ssl3, 47)
		g.Wait(t, func(s posterntest.Samples) bool {
			return s.Count("postern_legacy_handshakes_total", "listener="+listener, "version=ssl3", "outcome=failed") == 1 &&
				s.Count("postern_handshake_failures_total", "listener="+listener, "reason=other") == 1
		})
	}
	for _, line := range g.WaitLog(t, "legacy handshake", 2) {
		if line["outcome"] != "failed" || line["failure"] != "other" {
			t.Errorf("log line %v", line)
		}
	}
	g.CheckIdentities(t, 2)
}

// Dovecot's OpenSSL hangs up on hellos that it cannot serve either. That is not
// a failure of the server: it still serves others, and nothing is logged.
func TestInputThatMakesDovecotHangUpIsRefused(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "observe", nil)
	for i := range 2 {
		conn := w.Dial(t, "imaps")
		conn.Write(dheOnly(tls.VersionTLS12))
		if answer, err := hello.ReadFlight(conn); err != nil || answer.Kind != hello.ServerHello {
			t.Errorf("DHE: %+v, %v", answer, err)
		}
		conn.Close()
		for _, client := range ancient {
			refused(t, w.Proxy, "imaps", client.flight, 70)
			w.moved(t, float64(i+1), "postern_legacy_handshakes_total", "listener=imaps", "version="+client.version, "outcome=rejected")
		}
	}
	w.moved(t, 4, "postern_upstream_failures_total", "upstream="+w.old["imaps"], "reason=closed")
	if lines := w.LogLines("upstream failed"); len(lines) > 0 {
		t.Errorf("log lines %v", lines)
	}
	w.CheckIdentities(t, 6)
}

func TestAnOldServerThatIsDownIsReportedOnceAndItsClientsAreRefused(t *testing.T) {
	t.Parallel()
	old := posterntest.StartRawUpstream(t, answering(len(ssl3), []byte("hi")))
	old.Close()
	g := startObserving(t, old.Addr(), nil)
	failures := func(s posterntest.Samples, reason string) float64 {
		return s.Value("postern_upstream_failures_total", "upstream="+old.Addr(), "reason="+reason)
	}
	for _, reason := range []string{"dial", "timeout", "tls", "closed"} {
		if n := failures(g.Metrics(t), reason); n != 0 {
			t.Errorf("%s is %v at the start, want 0", reason, n)
		}
	}
	for _, listener := range listeners {
		refused(t, g, listener, ssl2, 70)
		refused(t, g, listener, ssl3, 70)
		refused(t, g, listener, dheOnly(tls.VersionTLS10), 70)
		refused(t, g, listener, dheOnly(tls.VersionTLS12), 40)
	}
	g.Wait(t, func(s posterntest.Samples) bool {
		return failures(s, "dial") == 8 && s.Count("postern_legacy_handshakes_total", "outcome=rejected") == 8
	})
	if status, body, err := g.Get("/readyz"); err != nil || status != 200 {
		t.Errorf("readyz: %d, %s, %v", status, body, err)
	}
	// One line for each of the two listeners' servers, and one when each is back.
	const words = "nothing listens there: start the mail server, or name its port in POSTERN_UPSTREAM_PASSTHROUGH_"
	if lines := g.WaitLog(t, "upstream failed", 2); len(lines) != 2 || lines[0]["upstream"] != old.Addr() || lines[0]["level"] != "WARN" || lines[0]["reason"] != "dial" ||
		!strings.Contains(lines[0]["error"].(string), words) {
		t.Errorf("log lines %v", lines)
	}
	old.Reopen(t)
	for _, listener := range listeners {
		conn := g.Dial(t, listener)
		conn.Write(ssl3)
		if got, err := io.ReadAll(conn); err != nil || string(got) != serverHello+"hi" {
			t.Errorf("%s: %q, %v", listener, got, err)
		}
		conn.Close()
	}
	if lines := g.WaitLog(t, "upstream answers", 2); len(lines) < 2 {
		t.Errorf("log lines %v", lines)
	}
	g.CheckIdentities(t, 10)
}

func TestASilentOldServerDoesNotHoldUpTheRefusal(t *testing.T) {
	t.Parallel()
	old := posterntest.StartRawUpstream(t, func(c net.Conn) { io.Copy(io.Discard, c) })
	for variable, env := range map[string]map[string]string{
		"UPSTREAM_TIMEOUT":  {"UPSTREAM_TIMEOUT": "2s"},
		"TIMEOUT_HANDSHAKE": {"TIMEOUT_HANDSHAKE": "2s"},
	} {
		g := startObserving(t, old.Addr(), env)
		came := 0
		for _, client := range ancient {
			posterntest.Within(t, variable+": the refusal", 4500*time.Millisecond, func() time.Duration {
				came++
				begun := time.Now()
				refused(t, g, "pop3s", client.flight, 70)
				took := time.Since(begun)
				if took < 1500*time.Millisecond {
					t.Errorf("%s: refused after %v", variable, took)
				}
				return took
			})
		}
		g.Wait(t, func(s posterntest.Samples) bool {
			return s.Count("postern_upstream_failures_total", "upstream="+old.Addr(), "reason=timeout") == float64(came) &&
				s.Count("postern_legacy_handshakes_total", "outcome=rejected") == float64(came)
		})
		g.CheckIdentities(t, came)
	}
}

func TestOtherClientsAreNotPassedThrough(t *testing.T) {
	t.Parallel()
	old := posterntest.StartRawUpstream(t, answering(1, []byte("never")))
	for _, mode := range []string{"enforce", "explain"} {
		g := startObserving(t, old.Addr(), map[string]string{"POLICY_MODE": mode})
		for _, listener := range listeners {
			refused(t, g, listener, ssl2, 70)
			refused(t, g, listener, ssl3, 70)
			refused(t, g, listener, dheOnly(tls.VersionTLS12), 40)
		}
		g.CheckIdentities(t, 6)
	}
	g := startObserving(t, old.Addr(), map[string]string{"UPSTREAM_PASSTHROUGH_POP3S": ""})
	refused(t, g, "imaps", dheOnly(tls.VersionTLS10, tls.TLS_FALLBACK_SCSV), 70)
	refused(t, g, "pop3s", ssl2, 70)
	refused(t, g, "pop3s", ssl3, 70)
	g.Wait(t, func(s posterntest.Samples) bool {
		return s.Count("postern_legacy_handshakes_total", "listener=imaps", "reason=fallback", "outcome=rejected") == 1 &&
			s.Count("postern_legacy_handshakes_total", "listener=pop3s", "reason=version", "outcome=rejected") == 2
	})
	g.CheckIdentities(t, 3)
	if n := old.Connections(); n != 0 {
		t.Errorf("the old server was dialled %d times", n)
	}
}

func TestAtSIGTERMADownloadThatIsPassedThroughArrivesWhole(t *testing.T) {
	t.Parallel()
	const drain = 14 * time.Second
	posterntest.Within(t, "the drain", drain+500*time.Millisecond, func() time.Duration { return drainOfOne(t, drain) })
}

// drainOfOne returns how long the process was there.
func drainOfOne(t *testing.T, drain time.Duration) time.Duration {
	t.Helper()
	all := noise(16 << 20)
	old := posterntest.StartRawUpstream(t, func(c net.Conn) {
		io.ReadFull(c, make([]byte, len(ssl3)))
		io.WriteString(c, serverHello)
		var more [1]byte
		if _, err := io.ReadFull(c, more[:]); err == nil && more[0] == 'd' {
			c.Write(all)
		}
		io.Copy(io.Discard, c)
	})
	g := startObserving(t, old.Addr(), map[string]string{"TIMEOUT_DRAIN": drain.String()})
	open := func(listener string) net.Conn {
		conn := g.Dial(t, listener)
		conn.SetDeadline(time.Now().Add(time.Minute))
		conn.Write(ssl3)
		if _, err := io.ReadFull(conn, make([]byte, len(serverHello))); err != nil {
			t.Fatal(err)
		}
		return conn
	}
	idle, busy := open("pop3s"), open("imaps")
	busy.Write([]byte("d"))
	if _, err := io.ReadFull(busy, make([]byte, 64<<10)); err != nil {
		t.Fatal(err)
	}
	begun := time.Now()
	g.Signal(t, syscall.SIGTERM)
	var gone time.Duration
	var waiting sync.WaitGroup
	waiting.Go(func() {
		if rest, err := io.ReadAll(idle); err != nil || len(rest) > 0 {
			t.Errorf("the idle one ended with %q, %v", rest, err)
		}
		gone = time.Since(begun)
	})
	time.Sleep(drain/2 + 500*time.Millisecond) // it has put its laptop down for a moment
	rest := make([]byte, len(all)-64<<10)
	if _, err := io.ReadFull(busy, rest); err != nil || !bytes.Equal(rest, all[64<<10:]) {
		t.Errorf("the download did not arrive whole: %v", err)
	}
	busy.Close()
	waiting.Wait()
	if gone < drain/2-50*time.Millisecond {
		t.Errorf("the idle one was closed after %v of %v", gone, drain)
	}
	select {
	case <-g.Exited():
	case <-time.After(drain + 30*time.Second):
		t.Error("the process is still there")
	}
	return max(time.Since(begun), gone+500*time.Millisecond) // it goes by the end of the drain
}

func TestClientsThatArePassedThroughLeaveNothingBehind(t *testing.T) {
	t.Parallel()
	old := posterntest.StartRawUpstream(t, answering(len(ssl3), nil))
	g := startObserving(t, old.Addr(), nil)
	descriptors := func() int {
		all, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", g.PID()))
		if err != nil {
			t.Fatal(err)
		}
		return len(all)
	}
	before := descriptors()
	const clients = 60
	for i := range clients {
		conn := g.DialFrom(t, listeners[i%2], "127.0.0.1")
		conn.Write(ssl3)
		io.ReadFull(conn, make([]byte, len(serverHello)))
		switch i % 3 {
		case 0:
			conn.SetLinger(0) // a reset
		case 1:
			conn.CloseWrite()
			io.Copy(io.Discard, conn)
		}
		conn.Close()
	}
	g.Wait(t, func(s posterntest.Samples) bool {
		return s.Count("postern_connections_open") == 0 && s.Count("postern_legacy_handshakes_total", "outcome=observed") == clients
	})
	waitFor(t, "the descriptors to come back", func() bool { return descriptors() <= before+2 })
	g.CheckIdentities(t, clients)
}
