package posterntest

import (
	"crypto/tls"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestMain turns the test binary into a stand-in for postern when it is
// started as one.
func TestMain(m *testing.M) {
	if os.Getenv("POSTERN_ADMIN_LISTEN") != "" {
		os.Exit(fakePostern())
	}
	Main(m)
}

const fakeMetrics = `# TYPE postern_handshakes_total counter
postern_handshakes_total{listener="imaps",version="tls1.0",outcome="rejected"} 2
postern_handshakes_total{listener="imaps",version="tls1.2",outcome="failed"} 1
# TYPE postern_legacy_handshakes_total counter
postern_legacy_handshakes_total{listener="imaps",version="tls1.0",reason="version",outcome="rejected"} 2
# TYPE postern_handshake_failures_total counter
postern_handshake_failures_total{listener="imaps",reason="timeout"} 1
`

func fakePostern() int {
	term := make(chan os.Signal, 1)
	signal.Notify(term, syscall.SIGTERM)
	http.HandleFunc("/readyz", func(http.ResponseWriter, *http.Request) {})
	http.HandleFunc("/metrics", func(w http.ResponseWriter, _ *http.Request) {
		io.WriteString(w, fakeMetrics)
	})
	l, err := net.Listen("tcp", os.Getenv("POSTERN_ADMIN_LISTEN"))
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 3
	}
	go http.Serve(l, nil)
	fmt.Fprintln(os.Stderr, `{"msg":"legacy handshake","version":"tls1.0"}`)
	fmt.Fprintln(os.Stderr, os.Getenv("FAKE_STDERR"))
	<-term
	if os.Getenv("FAKE_EXIT") != "" {
		return 3
	}
	return 0
}

// recorder stands for a test of which this one sees whether it failed.
type recorder struct {
	testing.TB
	errors   []string
	cleanups []func()
}

func (r *recorder) Helper()                   {}
func (r *recorder) Cleanup(f func())          { r.cleanups = append(r.cleanups, f) }
func (r *recorder) Failed() bool              { return len(r.errors) > 0 }
func (r *recorder) Logf(string, ...any)       {}
func (r *recorder) Errorf(f string, a ...any) { r.errors = append(r.errors, fmt.Sprintf(f, a...)) }
func (r *recorder) end() {
	for _, f := range r.cleanups {
		f()
	}
}

func startFake(t *testing.T) (*Proxy, *recorder) {
	t.Helper()
	t.Setenv("POSTERN_BIN", os.Args[0])
	r := &recorder{TB: t}
	return Start(r, map[string]string{"UPSTREAM_IMAP": "imap://127.0.0.1:1"}), r
}

func TestStartFillsInWhatTheTestLeftOut(t *testing.T) {
	g, r := startFake(t)
	for _, key := range []string{"LISTEN_IMAPS", "LISTEN_IMAP", "ADMIN_LISTEN", "TIMEOUT_DRAIN"} {
		if g.env[key] == "" {
			t.Errorf("%s was not filled in", key)
		}
	}
	if addr, set := g.env["LISTEN_POP3S"]; set {
		t.Errorf("LISTEN_POP3S is %q without a POP3 upstream", addr)
	}
	certs, keys := strings.Split(g.env["TLS_CERT_FILE"], ","), strings.Split(g.env["TLS_KEY_FILE"], ",")
	for i := range certs {
		pair, err := tls.LoadX509KeyPair(certs[i], keys[i])
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range DefaultNames {
			if err := pair.Leaf.VerifyHostname(name); err != nil {
				t.Error(err)
			}
		}
	}
	g.Restart(t)
	r.end()
	if len(r.errors) != 0 {
		t.Errorf("a clean run failed its test: %q", r.errors)
	}
}

func TestStopFailsTheTestOnExitCodeRaceAndPanic(t *testing.T) {
	for _, env := range []string{"FAKE_EXIT=1", "FAKE_STDERR=WARNING: DATA RACE", "FAKE_STDERR=panic: oh"} {
		t.Run(env, func(t *testing.T) {
			key, value, _ := strings.Cut(env, "=")
			t.Setenv(key, value)
			_, r := startFake(t)
			r.end()
			if len(r.errors) != 1 {
				t.Errorf("errors %q, want one", r.errors)
			}
		})
	}
}

func TestMetricsAndLog(t *testing.T) {
	g, r := startFake(t)
	defer r.end()
	s := g.Wait(t, func(s Samples) bool { return s.Has("postern_handshakes_total") })
	if got := s.Value("postern_handshakes_total", "listener=imaps"); got != 3 {
		t.Errorf("sum over a listener %v, want 3", got)
	}
	if got := s.Value("postern_handshakes_total", "listener=pop3s"); !math.IsNaN(got) {
		t.Errorf("missing series %v, want NaN", got)
	}
	if lines := g.WaitLog(t, "legacy handshake", 1); lines[0]["version"] != "tls1.0" {
		t.Errorf("log lines %v", lines)
	}
	g.CheckIdentities(t, 3)
}

func TestBrokenIdentitiesAreNamed(t *testing.T) {
	for name, metrics := range map[string]string{
		"failure without a reason": strings.Replace(fakeMetrics, `reason="timeout"} 1`, `reason="timeout"} 0`, 1),
		"rejection counted twice":  strings.Replace(fakeMetrics, `outcome="rejected"} 2`, `outcome="rejected"} 3`, 1),
		"legacy failure too many":  fakeMetrics + `postern_legacy_handshakes_total{listener="imaps",version="ssl2",outcome="failed"} 1` + "\n",
	} {
		s, err := ParseSamples(strings.NewReader(metrics))
		if err != nil {
			t.Fatal(err)
		}
		if len(identityProblems(s)) == 0 {
			t.Errorf("%s: no problem found", name)
		}
	}
	s, _ := ParseSamples(strings.NewReader(fakeMetrics))
	if len(identityProblems(s, 4)) != 1 {
		t.Error("a wrong number of handshakes passed")
	}
}

func TestUpstreamRecordsPerConnection(t *testing.T) {
	u := StartUpstream(t, IMAPGreeting, IMAPReply)
	for _, command := range []string{"a NOOP\r\n", "b CAPABILITY\r\n"} {
		conn, err := net.Dial("tcp", u.Addr())
		if err != nil {
			t.Fatal(err)
		}
		c := NewClient(conn, "imap")
		c.Send(t, command)
		c.Until(t, command[:1]+" OK")
		conn.Close()
	}
	if u.Connections() != 2 || string(u.Received(1)) != "b CAPABILITY\r\n" {
		t.Errorf("%d connections, second sent %q", u.Connections(), u.Received(1))
	}
	if got := string(u.ReceivedAll()); got != "a NOOP\r\nb CAPABILITY\r\n" {
		t.Errorf("received %q", got)
	}
}

func TestWithinHasFiveTries(t *testing.T) {
	for _, tt := range []struct {
		took  []time.Duration
		fails bool
	}{
		{[]time.Duration{1}, false},
		{[]time.Duration{3, 3, 4, 3, 2}, false},
		{[]time.Duration{3, 3, 4, 3, 3}, true},
	} {
		r, n := new(recorder), 0
		Within(r, "it", 2, func() time.Duration { n++; return tt.took[n-1] })
		if n != len(tt.took) || r.Failed() != tt.fails {
			t.Errorf("%v: %d tries, errors %q", tt.took, n, r.errors)
		}
	}
	r, n := new(recorder), 0
	Within(r, "it", 2, func() time.Duration { n++; r.Errorf("wrong"); return 3 })
	if n != 1 || r.errors[0] != "wrong" {
		t.Errorf("after a failure: %d tries, errors %q", n, r.errors)
	}
}
