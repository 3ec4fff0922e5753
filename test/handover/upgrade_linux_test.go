package handover

import (
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"postern/internal/posterntest"
)

// replace puts a program in the place of another, as install(1) does.
func replace(t *testing.T, path string, program []byte) {
	t.Helper()
	err := os.WriteFile(path+".new", program, 0o755)
	if err == nil {
		err = os.Rename(path+".new", path)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func postern(t *testing.T) []byte {
	t.Helper()
	program, err := os.ReadFile(posterntest.Binary(t))
	if err != nil {
		t.Fatal(err)
	}
	return program
}

// start runs a copy of the program that can be replaced at the path.
func start(t *testing.T, env map[string]string, environ ...string) (g *posterntest.Proxy, path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "postern")
	replace(t, path, postern(t))
	all := upstreams(t)
	maps.Copy(all, env)
	return posterntest.Process{Program: path, Environ: environ}.Start(t, all), path
}

func login(t *testing.T, g *posterntest.Proxy, listener string) *posterntest.Client {
	t.Helper()
	c, err := posterntest.Caller{}.Login(g, listener, "anna", "password")
	if err != nil {
		t.Fatalf("%s: %v", listener, err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// gone waits for the end of a process, and returns how long that took.
func gone(t *testing.T, pid int) time.Duration {
	t.Helper()
	for begun := time.Now(); ; time.Sleep(10 * time.Millisecond) {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		took := time.Since(begun)
		if err != nil || strings.Contains(string(stat), ") Z ") {
			return took
		}
		if took > time.Minute {
			t.Fatalf("process %d is still there after %v", pid, took)
		}
	}
}

// crowd comes while the program is replaced: some stay logged in, and others come and go,
// with TLS of today or of yesterday.
type crowd struct {
	t               *testing.T
	g               *posterntest.Proxy
	over            atomic.Bool
	closed, legacy  atomic.Int64 // sessions that were closed in order, and handshakes
	logins          atomic.Int64
	stopped, idlers sync.WaitGroup
}

// idle keeps a session for as long as it lives, and then another.
func (c *crowd) idle(listener string) {
	for !c.over.Load() {
		s, err := posterntest.Caller{}.Login(c.g, listener, "anna", "password")
		if err != nil {
			c.t.Errorf("%s, to stay: %v", listener, err)
			return
		}
		for err = nil; err == nil && !c.over.Load(); {
			s.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
			_, err = s.Conn.Read(make([]byte, 1))
			if timeout, ok := errors.AsType[net.Error](err); ok && timeout.Timeout() {
				err = nil
			}
		}
		if err == nil {
			err = s.Do("NOOP")
		} else if err == io.EOF {
			c.closed.Add(1)
			err = nil
		}
		if s.Close(); err != nil {
			c.t.Errorf("%s: a session was cut: %v", listener, err)
			return
		}
	}
}

// visit logs in again and again.
func (c *crowd) visit(i int, listener string) {
	caller := posterntest.Caller{From: fmt.Sprintf("127.20.0.%d", i+1)}
	if i%2 == 1 {
		caller.TLS = &tls.Config{MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS10}
	}
	for !c.over.Load() {
		s, err := caller.Login(c.g, listener, "anna", "password")
		if err == nil {
			err = s.Do("NOOP")
			s.Close()
			c.logins.Add(1)
			c.legacy.Add(int64(i % 2))
		}
		if err != nil {
			c.t.Errorf("%s: %v", listener, err)
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
}

func TestNobodyNoticesThatTheProgramIsReplaced(t *testing.T) {
	t.Parallel()
	g, path := start(t, map[string]string{
		"POLICY_MODE": "observe", "LEDGER_URL": "sqlite:" + filepath.Join(t.TempDir(), "ledger.db"), "TIMEOUT_DRAIN": "2s",
	})
	c := &crowd{t: t, g: g}
	for i := range 16 {
		c.idlers.Go(func() { c.idle(posterntest.Listeners[i%4]) })
	}
	for i := range 8 {
		c.stopped.Go(func() { c.visit(i, posterntest.Listeners[i/2]) })
	}
	time.Sleep(time.Second)
	for n := range 3 {
		before := g.PID()
		replace(t, path, postern(t))
		g.Upgrade(t)
		if n == 0 && c.closed.Load() > 0 {
			t.Errorf("%d sessions were closed by the first upgrade", c.closed.Load())
		}
		if g.PID() == before {
			t.Errorf("process %d has handed over to itself", before)
		}
		handovers(t, g, "ok", float64(n+1))
		time.Sleep(500 * time.Millisecond)
	}
	c.over.Store(true)
	c.stopped.Wait()
	c.idlers.Wait()
	t.Logf("%d logins, %d of them legacy; %d idle sessions were closed in order", c.logins.Load(), c.legacy.Load(), c.closed.Load())
	observed := 0
	for end := time.Now().Add(time.Minute); observed != int(c.legacy.Load()) && time.Now().Before(end); time.Sleep(200 * time.Millisecond) {
		observed = inLedger(t, g)
	}
	if observed != int(c.legacy.Load()) {
		t.Errorf("the ledger has %d observed handshakes, the clients had %d", observed, c.legacy.Load())
	}
}

// handovers waits until the process that serves, which is the new one a moment after the
// old one has said so, counts so many.
func handovers(t *testing.T, g *posterntest.Proxy, outcome string, want float64) {
	t.Helper()
	g.Wait(t, func(s posterntest.Samples) bool {
		return s.Value("postern_handovers_total", "outcome="+outcome) == want
	})
}

// inLedger is the number of handshakes in the ledger that were observed.
func inLedger(t *testing.T, g *posterntest.Proxy) (observed int) {
	t.Helper()
	var page struct {
		Clients []struct{ Counts map[string]int }
	}
	_, body, err := g.Get("/api/v1/legacy-clients?limit=1000")
	if err == nil {
		err = json.Unmarshal([]byte(body), &page)
	}
	if err != nil {
		t.Fatal(err)
	}
	for _, client := range page.Clients {
		observed += client.Counts["observed"]
	}
	return observed
}

// Sessions stay with the process that has them; without any it ends.
func TestTheOldProcessEndsWithItsLastSession(t *testing.T) {
	t.Parallel()
	posterntest.Within(t, "the end of the old process", 5*time.Second, func() time.Duration { return lastSession(t) })
}

// lastSession returns how long the old process is there after its last session.
func lastSession(t *testing.T) time.Duration {
	t.Helper()
	g, _ := start(t, nil)
	old := g.PID()
	stays := login(t, g, "imaps")
	begun, err := posterntest.Caller{}.Open(g, "pop3s") // not logged in
	if err != nil {
		t.Fatal(err)
	}
	g.Upgrade(t)
	if err := begun.Login("anna", "password"); err != nil {
		t.Errorf("a client that had not logged in: %v", err)
	}
	if err := stays.Do("NOOP"); err != nil {
		t.Error(err)
	}
	if n := g.Metrics(t).Count("postern_connections_open"); n > 1 {
		t.Errorf("the new process has %v connections of the old one", n)
	}
	g.WaitLog(t, "the ledger in memory is not handed over: the new process knows no client", 1)
	if err := syscall.Kill(old, syscall.SIGHUP); err != nil {
		t.Error(err)
	}
	g.WaitLog(t, "reading files again", 1)
	stays.Close()
	begun.Close()
	took := gone(t, old)
	login(t, g, "imap")
	return took
}

func TestSessionsStayForTheTimeoutAndNoLonger(t *testing.T) {
	t.Parallel()
	for timeout, bounds := range map[string][2]time.Duration{"0": {time.Second, 2500 * time.Millisecond}, "5s": {4 * time.Second, 5500 * time.Millisecond}} {
		t.Run(timeout, func(t *testing.T) {
			t.Parallel()
			posterntest.Within(t, "the session", bounds[1], func() time.Duration {
				g, _ := start(t, map[string]string{"TIMEOUT_HANDOVER": timeout, "TIMEOUT_DRAIN": "2s"})
				old, c := g.PID(), login(t, g, "imaps")
				time.Sleep(1100 * time.Millisecond) // idle sessions go before others
				begun := time.Now()
				g.Upgrade(t)
				upgraded := time.Since(begun)
				if rest, err := io.ReadAll(c); err != nil || len(rest) > 0 {
					t.Errorf("the session ended with %q, %v", rest, err)
				}
				took := time.Since(begun)
				if took < bounds[0]-100*time.Millisecond {
					t.Errorf("it ended after %v", took)
				}
				return max(took-upgraded, gone(t, old)+bounds[1]-2*time.Second) // it has two seconds for its own end
			})
		})
	}
}

// A stop is one of both processes.
func TestAStopEndsTheProcessBeforeToo(t *testing.T) {
	t.Parallel()
	posterntest.Within(t, "the end of the process before", 5*time.Second, func() time.Duration { return stopAfterHandover(t) })
}

// stopAfterHandover returns how long the process before is there after its last session.
func stopAfterHandover(t *testing.T) time.Duration {
	t.Helper()
	g, _ := start(t, map[string]string{"TIMEOUT_DRAIN": "2s"})
	old, c := g.PID(), login(t, g, "imaps")
	g.Upgrade(t)
	begun := time.Now()
	g.Signal(t, syscall.SIGTERM)
	g.WaitLog(t, "stopping after the handover", 1)
	syscall.Kill(old, syscall.SIGTERM) // as systemd does: that is no second one
	if _, err := io.ReadAll(c); err != nil {
		t.Error(err)
	}
	if took := time.Since(begun); took < time.Second {
		t.Errorf("the session was cut after %v", took)
	}
	took := gone(t, old)
	<-g.Exited()
	return took
}

// A process that waits to take over starts no third one, and its stop is not the end of
// the one that serves.
func TestSignalsToAProcessThatWaitsToTakeOver(t *testing.T) {
	t.Parallel()
	posterntest.Within(t, "the end of the process that waits", 5*time.Second, func() time.Duration { return signalsToWaiting(t) })
}

// signalsToWaiting returns how long that process is there after its stop.
func signalsToWaiting(t *testing.T) time.Duration {
	t.Helper()
	g, path := start(t, nil)
	pid := filepath.Join(t.TempDir(), "pid")
	replace(t, path, fmt.Appendf(nil, "#!/bin/sh\necho $$ >>%s; POSTERN_UPSTREAM_POP3=pop3://127.0.0.1:1 exec %s \"$@\"\n", pid, posterntest.Binary(t)))
	g.Signal(t, syscall.SIGUSR2)
	g.WaitLog(t, "waiting to take over", 1)
	var waits int
	text, _ := os.ReadFile(pid)
	fmt.Sscan(string(text), &waits)
	syscall.Kill(waits, syscall.SIGUSR2)
	time.Sleep(300 * time.Millisecond)
	if text, _ := os.ReadFile(pid); len(strings.Fields(string(text))) != 1 {
		t.Errorf("processes that were started: %q", text)
	}
	begun := time.Now()
	if err := syscall.Kill(waits, syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	g.WaitLog(t, "handing over failed, nothing has changed", 1)
	gone(t, waits)
	took := time.Since(begun)
	login(t, g, "imap")
	return took
}

const endedUnready = "the new process has ended without being ready: what it says stands in its own lines of the log"

// failing are programs that do not take over, and what the log says of it.
var failing = map[string]string{
	// As a Postern that has let go of the link, and looks for all else that is wrong.
	"#!/bin/sh\nexec 3>&-; sleep 1; echo it says why >&2; exit 7\n": endedUnready,
	"#!/bin/sh\nexec sleep 40\n":                                    "the new process has not said within 30s that it is ready",
	"no program":                                                    endedUnready,
	"#!/bin/sh\nPOSTERN_UPSTREAM_POP3=pop3://127.0.0.1:1 exec BINARY \"$@\"\n": "the new process has not said within 30s that it is ready",
}

func TestAProgramThatDoesNotStartChangesNothing(t *testing.T) {
	t.Parallel()
	for program, want := range failing {
		t.Run(want, func(t *testing.T) {
			t.Parallel()
			g, path := start(t, nil)
			before, c := g.PID(), login(t, g, "imaps")
			replace(t, path, []byte(strings.ReplaceAll(program, "BINARY", posterntest.Binary(t))))
			g.Signal(t, syscall.SIGUSR2)
			var line map[string]any
			for end := time.Now().Add(90 * time.Second); line == nil && time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
				if lines := g.LogLines("handing over failed, nothing has changed"); len(lines) > 0 {
					line = lines[0]
				}
			}
			if line == nil || !strings.Contains(fmt.Sprint(line["error"]), want) {
				t.Errorf("the log has %v", line)
			}
			if strings.Contains(program, "it says why") && !strings.Contains(g.Stderr(), "it says why") {
				t.Error("it was not let say why")
			}
			if len(g.LogLines("handing over")) != 1 {
				t.Error("the log does not say that it began")
			}
			if strings.Contains(program, "POP3") && !strings.Contains(fmt.Sprint(g.WaitLog(t, "not ready to take over yet", 1)), "upstream pop3: not answered yet") {
				t.Error("the log does not say what it waits for")
			}
			if err := c.Do("NOOP"); err != nil {
				t.Error(err)
			}
			login(t, g, "pop3")
			m := g.Metrics(t)
			if ok, failed := m.Value("postern_handovers_total", "outcome=ok"), m.Value("postern_handovers_total", "outcome=failed"); ok != 0 || failed != 1 {
				t.Errorf("%v handovers, %v failed", ok, failed)
			}
			replace(t, path, postern(t))
			g.Upgrade(t)
			if g.PID() == before {
				t.Error("nothing took over")
			}
			handovers(t, g, "ok", 1)
			handovers(t, g, "failed", 1)
		})
	}
}

// A program that waits to take over does not outlive a stop.
func TestAStopEndsAProgramThatIsStarted(t *testing.T) {
	t.Parallel()
	posterntest.Within(t, "the end of the program", 5*time.Second, func() time.Duration { return stopWhileStarting(t) })
}

// stopWhileStarting returns how long the program is there after the stop.
func stopWhileStarting(t *testing.T) time.Duration {
	t.Helper()
	g, path := start(t, nil)
	pid := filepath.Join(t.TempDir(), "pid")
	replace(t, path, []byte("#!/bin/sh\necho $$ >"+pid+".new; mv "+pid+".new "+pid+"; exec sleep 60\n"))
	g.Signal(t, syscall.SIGUSR2)
	var started int
	for end := time.Now().Add(time.Minute); started == 0 && time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		text, _ := os.ReadFile(pid)
		fmt.Sscan(string(text), &started)
	}
	g.Signal(t, syscall.SIGTERM)
	took := gone(t, started)
	<-g.Exited()
	return took
}

func TestSystemdFollowsTheNewProcess(t *testing.T) {
	t.Parallel()
	s := startSystemd(t)
	g, _ := start(t, nil, s.environ(300*time.Millisecond)...)
	s.hears(t, "READY=1")
	c := login(t, g, "imaps")
	for range 2 {
		g.Upgrade(t)
		s.hears(t, fmt.Sprint("MAINPID=", g.PID()))
		s.hears(t, "READY=1")
		s.hears(t, "WATCHDOG=1")
		s.hears(t, "STATUS=open connections: 0")
		g.Signal(t, syscall.SIGHUP)
		s.hears(t, "RELOADING=1")
		s.hears(t, "READY=1")
	}
	if _, err := io.ReadAll(c); err != nil { // the process before the last one is gone
		t.Error(err)
	}
	g.Signal(t, syscall.SIGTERM)
	s.hears(t, "STOPPING=1")
}
