package posterntest

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

const (
	readyTimeout = time.Minute
	exitTimeout  = 30 * time.Second
	// handoverTimeout is longer than a new process may take.
	handoverTimeout = 40 * time.Second
	pollTimeout     = 30 * time.Second
	pollEvery       = 20 * time.Millisecond
	startTries      = 3
)

// listenersOf names the listeners that exist where an upstream is configured.
var listenersOf = map[string][]string{
	"UPSTREAM_IMAP": {"imaps", "imap"},
	"UPSTREAM_POP3": {"pop3s", "pop3"},
}

// Proxy is a running postern.
type Proxy struct {
	// CA signed the certificates that Start made; nil where the test named
	// its own.
	CA *CA

	env    map[string]string
	binary string
	how    Process
	cmd    *exec.Cmd
	stderr *logBuffer
	exited chan struct{}
	pids   []int // of cmd and of those that it has handed over to, the last of which serves
}

// Start runs "postern serve" and returns once it is ready. The keys of env
// lack the POSTERN_ prefix. What the test leaves out is filled in: a loopback
// port for ADMIN_LISTEN and for every listener whose protocol has an
// upstream, an ECDSA and an RSA certificate for DefaultNames, and two seconds
// for TIMEOUT_DRAIN.
//
// When the test ends the process gets SIGTERM and half a minute; the test fails
// where it does not exit with 0, or where stderr tells of a race or a panic.
func Start(t testing.TB, env map[string]string) *Proxy {
	t.Helper()
	return Process{}.Start(t, env)
}

// Process is how the binary is run, where that matters.
type Process struct {
	// Measured is without the race detector, which costs several times the
	// memory and CPU time. $POSTERN_BIN stands for both.
	Measured bool
	// Descriptors is the hard limit on open files; 0 is the test's own.
	Descriptors int
	// Sockets are handed over to it, as systemd does.
	Sockets []Socket
	// Environ has variables without the prefix POSTERN_.
	Environ []string
	// Program is the binary, where it is not the one that Measured says.
	Program string
}

// Socket listens for one of imaps, pop3s, imap, pop3, admin.
type Socket struct {
	Name string
	*net.TCPListener
}

// variable names the addresses that sockets take the place of, without POSTERN_.
func (s Socket) variable() string {
	if s.Name == "admin" {
		return "ADMIN_LISTEN"
	}
	return "LISTEN_" + strings.ToUpper(s.Name)
}

// Start is the function Start for such a process.
func (p Process) Start(t testing.TB, env map[string]string) *Proxy {
	t.Helper()
	built := &raced
	if p.Measured {
		built = &measured
	}
	g := &Proxy{binary: p.Program, how: p}
	if g.binary == "" {
		g.binary = built.get(t)
	}
	filled := maps.Clone(env)
	if filled == nil {
		filled = make(map[string]string)
	}
	g.fillCertificates(t, filled)
	if _, ok := filled["TIMEOUT_DRAIN"]; !ok {
		filled["TIMEOUT_DRAIN"] = "2s"
	}
	for try := 1; ; try++ {
		g.env = maps.Clone(filled)
		for _, s := range p.Sockets {
			if g.env[s.variable()] == "" {
				g.env[s.variable()] = s.Addr().String()
			}
		}
		fillPorts(t, g.env)
		err := g.run()
		if err == nil {
			break
		}
		// Somebody else may take a free port before postern does.
		taken := strings.Contains(g.stderr.String(), "address already in use")
		if !taken || try == startTries {
			t.Fatalf("starting postern: %v\n%s", err, g.stderr.String())
		}
	}
	t.Cleanup(func() { g.Stop(t) })
	return g
}

func (g *Proxy) fillCertificates(t testing.TB, env map[string]string) {
	t.Helper()
	if _, ok := env["TLS_CERT_FILE"]; ok {
		return
	}
	g.CA = NewCA(t)
	ec := g.CA.Issue(t, DefaultNames, ECDSA)
	rsa := g.CA.Issue(t, DefaultNames, RSA)
	env["TLS_CERT_FILE"] = ec.CertFile + "," + rsa.CertFile
	env["TLS_KEY_FILE"] = ec.KeyFile + "," + rsa.KeyFile
}

func fillPorts(t testing.TB, env map[string]string) {
	t.Helper()
	keys := []string{"ADMIN_LISTEN"}
	for upstream, listeners := range listenersOf {
		if _, ok := env[upstream]; !ok {
			continue
		}
		for _, l := range listeners {
			keys = append(keys, "LISTEN_"+strings.ToUpper(l))
		}
	}
	for _, key := range keys {
		if _, ok := env[key]; !ok {
			env[key] = FreeAddr(t)
		}
	}
}

// FreeAddr returns a loopback address on whose port nothing listens now, and not the
// same one twice. No client gets the port either: it is below those that Linux hands out.
func FreeAddr(t testing.TB) string {
	t.Helper()
	addr, err := FindAddr()
	if err != nil {
		t.Fatal(err)
	}
	return addr
}

// FindAddr is FreeAddr outside of a test.
func FindAddr() (string, error) {
	for range ports {
		port := firstPort + int(nextPort.Add(1))%ports
		if l, err := net.Listen("tcp", fmt.Sprint(":", port)); err == nil {
			l.Close()
			return fmt.Sprint("127.0.0.1:", port), nil
		}
	}
	return "", errors.New("no free port")
}

const firstPort, ports = 12000, 20000

// nextPort begins where those of other test processes hardly do.
var nextPort = func() *atomic.Uint32 {
	n := new(atomic.Uint32)
	n.Store(rand.Uint32N(ports))
	return n
}()

// run starts the process and waits until it is ready; on an error the
// process is gone.
func (g *Proxy) run() error {
	g.stderr = new(logBuffer)
	g.exited = make(chan struct{})
	g.cmd = exec.Command(g.binary, "serve")
	if g.how.Descriptors > 0 {
		// The Go runtime raises a soft limit: both must be set, before it runs.
		g.cmd = exec.Command("sh", "-c", fmt.Sprintf(`ulimit -n %d && exec "$0" serve`, g.how.Descriptors), g.binary)
	}
	g.cmd.Stderr = g.stderr
	env := maps.Clone(g.env)
	if len(g.how.Sockets) > 0 {
		var names []string
		for _, s := range g.how.Sockets {
			f, err := s.File()
			if err != nil {
				return err
			}
			defer f.Close()
			g.cmd.ExtraFiles, names = append(g.cmd.ExtraFiles, f), append(names, s.Name)
			delete(env, s.variable())
		}
		g.cmd.Path, g.cmd.Args = "/bin/sh", []string{"sh", "-c", `LISTEN_PID=$$ exec "$0" serve`, g.binary}
		g.cmd.Env = []string{fmt.Sprint("LISTEN_FDS=", len(names)), "LISTEN_FDNAMES=" + strings.Join(names, ":")}
	}
	g.cmd.Env = slices.Concat(processEnv(env), g.how.Environ, g.cmd.Env)
	if err := g.cmd.Start(); err != nil {
		return err
	}
	g.pids = []int{g.cmd.Process.Pid}
	exited, cmd := g.exited, g.cmd
	go func() {
		cmd.Wait()
		close(exited)
	}()
	err := g.waitReady()
	if err != nil {
		g.cmd.Process.Kill()
		<-g.exited
	}
	return err
}

// Command runs another command of the binary in the environment of this one, and
// returns its exit code and all that it writes.
func (g *Proxy) Command(args ...string) (code int, output string) {
	cmd := exec.Command(g.binary, args...)
	cmd.Env = processEnv(g.env)
	out, _ := cmd.CombinedOutput()
	return cmd.ProcessState.ExitCode(), string(out)
}

// processEnv lets nothing that configures another postern slip in.
func processEnv(env map[string]string) []string {
	var out []string
	for _, kv := range os.Environ() {
		if !strings.HasPrefix(kv, "POSTERN_") {
			out = append(out, kv)
		}
	}
	for k, v := range env {
		out = append(out, "POSTERN_"+k+"="+v)
	}
	// The race detector would sleep for a second at the end.
	return append(out, "GORACE=atexit_sleep_ms=20")
}

func (g *Proxy) waitReady() error {
	deadline := time.Now().Add(readyTimeout)
	last := "no answer"
	for time.Now().Before(deadline) {
		select {
		case <-g.exited:
			return fmt.Errorf("waiting for readiness: exit code %d", g.cmd.ProcessState.ExitCode())
		case <-time.After(pollEvery):
		}
		status, body, err := g.Get("/readyz")
		if err == nil && status == http.StatusOK {
			return nil
		}
		if err == nil {
			last = fmt.Sprintf("status %d: %s", status, body)
		}
	}
	return fmt.Errorf("waiting for readiness: timed out, last: %s", last)
}

// Get asks the admin port, and returns the status and the body.
func (g *Proxy) Get(path string) (int, string, error) {
	client := http.Client{Timeout: pollTimeout, Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Get("http://" + g.Admin() + path)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(body), err
}

// Addr is the first address of a listener: imaps, pop3s, imap or pop3.
func (g *Proxy) Addr(listener string) string {
	first, _, _ := strings.Cut(g.env["LISTEN_"+strings.ToUpper(listener)], ",")
	return first
}

// Admin is the address of the admin port.
func (g *Proxy) Admin() string { return g.env["ADMIN_LISTEN"] }

// PID is the process id, for looking at descriptors and memory: that of the process which
// serves, where it was replaced.
func (g *Proxy) PID() int { return g.pids[len(g.pids)-1] }

// Stderr is all that the process has written so far.
func (g *Proxy) Stderr() string { return g.stderr.String() }

// Signal sends a signal to the process.
func (g *Proxy) Signal(t testing.TB, sig syscall.Signal) {
	t.Helper()
	if err := syscall.Kill(g.PID(), sig); err != nil {
		t.Errorf("sending %v: %v", sig, err)
	}
}

// Upgrade has the process hand over to the program on disk, and returns once it has.
func (g *Proxy) Upgrade(t testing.TB) {
	t.Helper()
	n := len(g.pids)
	g.Signal(t, syscall.SIGUSR2)
	for end := time.Now().Add(handoverTimeout); ; time.Sleep(pollEvery) {
		if lines := g.LogLines("handed over"); len(lines) == n {
			g.pids = append(g.pids, int(lines[n-1]["pid"].(float64)))
			return
		} else if time.Now().After(end) {
			t.Fatalf("nothing was handed over in %v", handoverTimeout)
		}
	}
}

// Exited is closed when the process is gone, and all that it has handed over to.
func (g *Proxy) Exited() <-chan struct{} { return g.exited }

// Stop ends the process with SIGTERM and judges how it went, as Start says.
// On a process that is gone already it only judges.
func (g *Proxy) Stop(t testing.TB) {
	t.Helper()
	if len(g.pids) > 1 {
		syscall.Kill(g.PID(), syscall.SIGTERM)
	} else {
		g.cmd.Process.Signal(syscall.SIGTERM) // it may have ended, and its id be another's
	}
	select {
	case <-g.exited:
	case <-time.After(exitTimeout):
		g.cmd.Process.Kill()
		g.killSuccessors()
		<-g.exited
		t.Errorf("postern was still there %v after SIGTERM", exitTimeout)
	}
	stderr := g.stderr.String()
	bad := strings.Contains(stderr, "DATA RACE") || strings.Contains(stderr, "panic:")
	code := g.cmd.ProcessState.ExitCode()
	for _, pid := range g.pids[1:] { // children of this process, too
		var status syscall.WaitStatus
		if _, err := syscall.Wait4(pid, &status, 0, nil); err == nil && status != 0 {
			t.Errorf("process %d, which was handed over to, ended with %v", pid, status)
		}
	}
	if code != 0 || bad {
		t.Errorf("postern ended with exit code %d; stderr:\n%s", code, stderr)
	} else if t.Failed() {
		t.Logf("postern's stderr:\n%s", stderr)
	}
}

// killSuccessors kills what was started from a program of this test's own.
func (g *Proxy) killSuccessors() {
	files, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, file := range files {
		pid, _ := strconv.Atoi(strings.Split(file, "/")[2])
		if line, _ := os.ReadFile(file); g.how.Program != "" && strings.Contains(string(line), g.how.Program) {
			syscall.Kill(pid, syscall.SIGKILL)
		}
	}
}

// Restart stops the process and starts it anew with the same environment and
// ports. Counters and the log begin again.
func (g *Proxy) Restart(t testing.TB) {
	t.Helper()
	g.Stop(t)
	if err := g.run(); err != nil {
		t.Fatalf("starting postern again: %v\n%s", err, g.stderr.String())
	}
}

// Kill ends the process without a word, and starts it anew as Restart does.
func (g *Proxy) Kill(t testing.TB) {
	t.Helper()
	g.cmd.Process.Kill()
	<-g.exited
	if err := g.run(); err != nil {
		t.Fatalf("starting postern again: %v\n%s", err, g.stderr.String())
	}
}

// logBuffer is written by the process's copier and read by the test.
type logBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *logBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *logBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}
