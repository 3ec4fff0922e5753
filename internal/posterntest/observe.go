package posterntest

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

// Listeners are all listeners, in the order in which tables show them.
var Listeners = []string{"imaps", "pop3s", "imap", "pop3"}

// Metrics scrapes /metrics, again where that takes longer than it may.
func (g *Proxy) Metrics(t testing.TB) Samples {
	t.Helper()
	status, body, err := g.Get("/metrics")
	for deadline := time.Now().Add(pollTimeout); status == http.StatusServiceUnavailable && time.Now().Before(deadline); {
		status, body, err = g.Get("/metrics")
	}
	if err != nil || status != 200 {
		t.Fatalf("scraping /metrics: status %d, %v", status, err)
	}
	s, err := ParseSamples(strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// Wait scrapes until cond holds and returns the next scrape, if it holds there too: one
// scrape reads its series one after the other, while the proxy counts. After half a
// minute it fails the test and returns the last one.
func (g *Proxy) Wait(t testing.TB, cond func(Samples) bool) Samples {
	t.Helper()
	deadline := time.Now().Add(pollTimeout)
	for {
		s := g.Metrics(t)
		if cond(s) {
			if next := g.Metrics(t); cond(next) {
				return next
			}
			return s
		}
		if time.Now().After(deadline) {
			t.Errorf("metrics did not come to what was waited for in %v", pollTimeout)
			return s
		}
		time.Sleep(pollEvery)
	}
}

// WaitWritten waits until all clients have left and the ledger has all that was learnt of
// them: a login, and how a program speaks, is noted after the client has its answer.
func (g *Proxy) WaitWritten(t testing.TB) {
	t.Helper()
	g.Wait(t, func(s Samples) bool { return s.Count("postern_connections_open") == 0 })
	g.Wait(t, func(s Samples) bool { return s.Value("postern_ledger_pending") == 0 })
}

// LogLines returns the JSON lines on stderr with the given msg, so far.
func (g *Proxy) LogLines(msg string) []map[string]any {
	var found []map[string]any
	for line := range strings.Lines(g.stderr.String()) {
		var fields map[string]any
		if json.Unmarshal([]byte(line), &fields) == nil && fields["msg"] == msg {
			found = append(found, fields)
		}
	}
	return found
}

// WaitLog returns the lines with the given msg once there are n of them, or
// fails the test after half a minute. With 0 it is LogLines.
func (g *Proxy) WaitLog(t testing.TB, msg string, n int) []map[string]any {
	t.Helper()
	deadline := time.Now().Add(pollTimeout)
	for {
		lines := g.LogLines(msg)
		if len(lines) >= n {
			return lines
		}
		if time.Now().After(deadline) {
			t.Errorf("%d log lines %q in %v, want %d", len(lines), msg, pollTimeout, n)
			return lines
		}
		time.Sleep(pollEvery)
	}
}

// CheckIdentities fails the test unless, within half a minute, handshakes,
// failures and legacy handshakes agree on every listener, and, where begun is
// given, that many handshakes were counted over all listeners since the
// start.
func (g *Proxy) CheckIdentities(t testing.TB, begun ...int) {
	t.Helper()
	deadline := time.Now().Add(pollTimeout)
	for {
		problems := identityProblems(g.Metrics(t), begun...)
		if len(problems) == 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Errorf("identities do not hold:\n%s", strings.Join(problems, "\n"))
			return
		}
		time.Sleep(pollEvery)
	}
}

func identityProblems(s Samples, begun ...int) []string {
	const (
		handshakes = "postern_handshakes_total"
		legacy     = "postern_legacy_handshakes_total"
		failures   = "postern_handshake_failures_total"
	)
	var problems []string
	complain := func(format string, args ...any) {
		problems = append(problems, fmt.Sprintf(format, args...))
	}
	for _, l := range Listeners {
		listener := "listener=" + l
		failed, named := s.Count(handshakes, listener, "outcome=failed"), s.Count(failures, listener)
		if failed != named {
			complain("%s: %v handshakes failed, but %v failures have a reason", l, failed, named)
		}
		if all, kx := s.Count("postern_tls_sessions_total", listener), s.Count("postern_key_exchanges_total", listener); all != kx {
			complain("%s: %v sessions, but %v key exchanges", l, all, kx)
		}
		for _, v := range Versions {
			version := "version=" + v
			for _, o := range []string{"observed", "explained", "rejected"} {
				all, old := s.Count(handshakes, listener, version, "outcome="+o), s.Count(legacy, listener, version, "outcome="+o)
				if all != old {
					complain("%s %s: %v handshakes %s, but %v legacy ones", l, v, all, o, old)
				}
			}
			all, old := s.Count(handshakes, listener, version, "outcome=failed"), s.Count(legacy, listener, version, "outcome=failed")
			if old > all {
				complain("%s %s: %v handshakes failed, but %v legacy ones", l, v, all, old)
			}
		}
	}
	if len(begun) > 0 && s.Count(handshakes) != float64(begun[0]) {
		complain("%v handshakes counted, want %d", s.Count(handshakes), begun[0])
	}
	return problems
}

// Versions are the values of the label version.
var Versions = []string{"ssl2", "ssl3", "tls1.0", "tls1.1", "tls1.2", "tls1.3", "none"}

// Dial connects to a listener. All that follows is bounded.
func (g *Proxy) Dial(t testing.TB, listener string) *net.TCPConn {
	t.Helper()
	return g.DialFrom(t, listener, "127.0.0.1")
}

// DialFrom is Dial from another loopback address, such as 127.0.0.9: some
// things are counted, or suppressed in the log, by client.
func (g *Proxy) DialFrom(t testing.TB, listener, client string) *net.TCPConn {
	t.Helper()
	return g.dialed(t, Caller{From: client}.Dial, listener)
}

// DialForTLS connects to a listener as far as the client's hello.
func (g *Proxy) DialForTLS(t testing.TB, listener string) *net.TCPConn {
	t.Helper()
	return g.DialForTLSFrom(t, listener, "127.0.0.1")
}

// DialForTLSFrom is DialForTLS from another loopback address.
func (g *Proxy) DialForTLSFrom(t testing.TB, listener, client string) *net.TCPConn {
	t.Helper()
	return g.dialed(t, Caller{From: client}.DialForTLS, listener)
}

func (g *Proxy) dialed(t testing.TB, dial func(*Proxy, string) (*net.TCPConn, error), listener string) *net.TCPConn {
	t.Helper()
	conn, err := dial(g, listener)
	if err != nil {
		t.Fatalf("%s: %v", listener, err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}
