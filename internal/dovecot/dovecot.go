// Package dovecot runs a real Dovecot for tests: on free loopback ports, with
// its own configuration, sockets and mail in a temporary directory. The
// system's own Dovecot and its configuration are never touched.
package dovecot

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"postern/internal/debian13"
)

// User is one mailbox owner, logging in by name and password.
type User struct{ Name, Password string }

// Anna is the user of a server whose options name nobody.
var Anna = User{Name: "anna@example.org", Password: "correct horse"}

// Options says how a server differs from the plain one: IMAP and POP3 without
// TLS, mechanisms PLAIN and LOGIN, plaintext logins refused on every line that
// Dovecot does not take for secure. It takes for secure any line whose two
// ends have the same address, so a proxy on 127.0.0.1 may log in and a client
// from 127.0.0.9 may not.
type Options struct {
	Users             []User // Anna alone where empty
	CertFile, KeyFile string // PEM; Dovecot's own TLS ports and STARTTLS where set
	Debian13          bool   // Dovecot 2.4 instead of 2.3; skips the test where there can be none
	HAProxy           bool   // ports that begin with a PROXY header, from 127.0.0.0/8: plain ones, and TLS with a certificate
	Config            string // appended to the configuration, so that it wins
}

// Server is a running Dovecot. Addresses are host:port on 127.0.0.1; those of
// TLS ports are empty where the options held no certificate, and those of
// ports with a PROXY header where they did not ask for any.
type Server struct {
	IMAP, POP3, IMAPS, POP3S string
	ProxyIMAP, ProxyPOP3     string
	ProxyIMAPS, ProxyPOP3S   string

	tree      debian13.Tree // "" for the system's own Dovecot
	dir       string        // short, as a unix socket's path has room for 108 bytes
	master    int           // its process
	delivered atomic.Int64
}

const (
	startTimeout = 15 * time.Second
	stopTimeout  = 5 * time.Second
)

// Start runs a Dovecot that answers logins by the time it returns, and stops it
// when the test ends. A missing Debian package fails the test, naming it.
func Start(t testing.TB, o Options) *Server {
	t.Helper()
	var tree debian13.Tree
	if o.Debian13 {
		tree = debian13.Get(t)
	}
	for module, pkg := range map[string]string{"imap": "dovecot-imapd", "pop3": "dovecot-pop3d"} {
		if _, err := os.Stat(filepath.Join(string(tree), "/usr/lib/dovecot", module)); err != nil {
			t.Fatalf("this test needs the Debian package %s: %v", pkg, err)
		}
	}
	if len(o.Users) == 0 {
		o.Users = []User{Anna}
	}
	var err error
	// Between choosing a free port and Dovecot's bind another process may take it.
	for range 3 {
		var s *Server
		if s, err = start(t, tree, o); err == nil {
			return s
		}
	}
	t.Fatalf("starting dovecot: %v", err)
	return nil
}

func start(t testing.TB, tree debian13.Tree, o Options) (*Server, error) {
	temporary := "" // the system's
	if tree != "" {
		temporary = filepath.Join(string(tree), "tmp")
	}
	dir, err := os.MkdirTemp(temporary, "dc")
	if err != nil {
		return nil, err
	}
	s := &Server{tree: tree, dir: dir}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("dovecot's log:\n%s", s.Log(t))
		}
		_ = os.RemoveAll(dir) // a dying mail process may still write; the next reboot takes the rest
	})
	if err := s.configure(o); err != nil {
		return nil, err
	}
	out, err := os.Create(filepath.Join(dir, "out"))
	if err != nil {
		return nil, err
	}
	defer out.Close()
	cmd := tree.Command("/usr/sbin/dovecot", "-F", "-c", tree.Inside(filepath.Join(dir, "conf")))
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	s.master = cmd.Process.Pid
	gone := make(chan struct{})
	go func() {
		_ = cmd.Wait()
		close(gone)
	}()
	t.Cleanup(func() { stop(t, cmd.Process, gone) })
	if err := s.waitReady(o.Users[0], gone); err != nil {
		return nil, fmt.Errorf("%w\n%s", err, s.Log(t))
	}
	return s, nil
}

func stop(t testing.TB, p *os.Process, gone <-chan struct{}) {
	_ = p.Signal(syscall.SIGTERM)
	select {
	case <-gone:
	case <-time.After(stopTimeout):
		t.Errorf("dovecot did not end within %v of SIGTERM", stopTimeout)
		_ = p.Kill()
		<-gone
	}
}

// waitReady logs in over both protocols: Dovecot listens before its
// authentication process answers.
func (s *Server) waitReady(u User, gone <-chan struct{}) error {
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	for {
		err := s.login(u)
		if err == nil {
			return nil
		}
		select {
		case <-gone:
			return fmt.Errorf("dovecot ended at once, last answer: %w", err)
		case <-ctx.Done():
			return fmt.Errorf("logging in for %v: %w", startTimeout, err)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func (s *Server) login(u User) error {
	err := converse(s.IMAP, fmt.Sprintf("a LOGIN %q %q\r\nb LOGOUT\r\n", u.Name, u.Password), "a OK")
	if err != nil {
		return err
	}
	return converse(s.POP3, fmt.Sprintf("USER %s\r\nPASS %s\r\nQUIT\r\n", u.Name, u.Password), "+OK Logged in")
}

// converse sends commands and reads lines until one begins with want.
func converse(addr, commands, want string) error {
	c, err := net.DialTimeout("tcp", addr, startTimeout)
	if err != nil {
		return err
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(startTimeout)); err != nil {
		return err
	}
	if _, err := c.Write([]byte(commands)); err != nil {
		return err
	}
	lines := bufio.NewScanner(c)
	last := ""
	for lines.Scan() {
		if last = lines.Text(); strings.HasPrefix(last, want) {
			return nil
		}
	}
	return fmt.Errorf("%s ended with %q, not with %q: %v", addr, last, want, lines.Err())
}

// Suspend stops one of Dovecot's own processes, such as auth, until resume.
func (s *Server) Suspend(t testing.TB, name string) (resume func()) {
	t.Helper()
	all, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, stat := range all {
		text, _ := os.ReadFile(stat)
		title, _ := os.ReadFile(filepath.Join(filepath.Dir(stat), "cmdline"))
		// After the name in parentheses come the state and the parent.
		fields := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
		command, _, _ := strings.Cut(strings.Trim(string(title), "\x00"), " ")
		if len(fields) < 2 || fields[1] != strconv.Itoa(s.master) || !strings.HasSuffix(command, "/"+name) {
			continue
		}
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(stat)))
		if err != nil {
			t.Fatal(err)
		}
		if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
			t.Fatalf("suspending dovecot's %s: %v", name, err)
		}
		resume = sync.OnceFunc(func() { _ = syscall.Kill(pid, syscall.SIGCONT) })
		t.Cleanup(resume)
		return resume
	}
	t.Fatalf("dovecot has no process %s", name)
	return nil
}

// Log returns what Dovecot has logged so far.
func (s *Server) Log(t testing.TB) string {
	t.Helper()
	var text []byte
	for _, name := range []string{"out", "log"} {
		b, err := os.ReadFile(filepath.Join(s.dir, name))
		if err != nil && !os.IsNotExist(err) {
			t.Errorf("reading dovecot's log: %v", err)
		}
		text = append(text, b...)
	}
	return string(text)
}
