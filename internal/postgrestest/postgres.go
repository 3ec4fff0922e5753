// Package postgrestest runs a real PostgreSQL for tests: a cluster of its own in
// a temporary directory, on a free loopback port, without durability. The
// system's own clusters are never touched.
package postgrestest

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	_ "github.com/jackc/pgx/v5/stdlib" // registers pgx

	"postern/internal/posterntest"
)

const (
	startTimeout = 60 * time.Second
	stopTimeout  = 20 * time.Second
	superuser    = "postern"
)

// Server is a PostgreSQL.
type Server struct {
	// Addr is host:port on 127.0.0.1. It stays the same over Stop and Start.
	Addr string

	dir       string // short, as a unix socket's path has room for 108 bytes
	bin       string // where the programs are
	process   *os.Process
	gone      chan struct{}
	databases atomic.Int64
}

// New runs a server until the test ends.
func New(t testing.TB) *Server {
	t.Helper()
	s, err := Launch()
	if err != nil {
		t.Fatal(err)
	}
	s.closeWith(t)
	return s
}

func (s *Server) closeWith(t testing.TB) {
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("postgres's log:\n%s", s.Log())
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
}

// Launch runs a server until Close: for the tests of a package, by TestMain. A
// missing Debian package is an error that names it.
func Launch() (*Server, error) {
	found, _ := filepath.Glob("/usr/lib/postgresql/*/bin/initdb")
	if len(found) == 0 {
		return nil, errors.New("this test needs the Debian package postgresql: there is no /usr/lib/postgresql/*/bin/initdb")
	}
	slices.Sort(found)
	dir, err := os.MkdirTemp("", "pg")
	if err != nil {
		return nil, err
	}
	s := &Server{dir: dir, bin: filepath.Dir(found[len(found)-1])}
	return s, s.launch("initdb", "-D", s.data(), "-U", superuser, "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8", "--no-sync", "--no-instructions")
}

// launch has a program make the cluster, and starts it.
func (s *Server) launch(program string, args ...string) error {
	err := s.create(program, args...)
	if err != nil {
		os.RemoveAll(s.dir)
		return fmt.Errorf("making a cluster: %w", err)
	}
	// Between choosing a free port and the server's bind another process may
	// take it; no client gets it while the server is stopped.
	for range 3 {
		if s.Addr, err = posterntest.FindAddr(); err != nil {
			break
		}
		if err = s.Start(); err == nil {
			return nil
		}
	}
	err = fmt.Errorf("starting postgres: %w\n%s", err, s.Log())
	os.RemoveAll(s.dir)
	return err
}

// create makes the cluster. Its directory belongs to whom the server runs as.
func (s *Server) create(program string, args ...string) error {
	if id := unprivileged(); id != nil {
		if err := os.Chown(s.dir, int(id.Uid), int(id.Gid)); err != nil {
			return err
		}
	}
	if out, err := s.command(program, args...).CombinedOutput(); err != nil {
		return fmt.Errorf("%w\n%s", err, out)
	}
	return nil
}

// Standby runs a server until the test ends that follows this one, and may only be
// read until Promote. From then on each commit here waits for it.
func (s *Server) Standby(t testing.TB) *Server {
	t.Helper()
	dir, err := os.MkdirTemp("", "pg")
	if err != nil {
		t.Fatal(err)
	}
	host, port, _ := net.SplitHostPort(s.Addr)
	b := &Server{dir: dir, bin: s.bin}
	if err := b.launch("pg_basebackup", "-D", b.data(), "-R", "-c", "fast", "--no-sync", "-h", host, "-p", port, "-U", superuser); err != nil {
		t.Fatal(err)
	}
	b.closeWith(t)
	s.Exec(t, "postgres", "ALTER SYSTEM SET synchronous_standby_names = '*'", "SELECT pg_reload_conf()")
	return b
}

// Promote makes a standby a server that can be written.
func (s *Server) Promote(t testing.TB) {
	t.Helper()
	s.Exec(t, "postgres", "SELECT pg_promote()")
}

// Crash ends the server as a power failure does.
func (s *Server) Crash() error {
	err := s.process.Signal(syscall.SIGQUIT)
	<-s.gone
	return err
}

// Exec runs statements in a database.
func (s *Server) Exec(t testing.TB, database string, statements ...string) {
	t.Helper()
	db, err := sql.Open("pgx", s.URL(database))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	for _, statement := range statements {
		if _, err := db.ExecContext(t.Context(), statement); err != nil {
			t.Fatalf("%s: %v\n%s", statement, err, s.Log())
		}
	}
}

func (s *Server) data() string { return filepath.Join(s.dir, "data") }

// unprivileged is whom the server runs as where this process is root, as
// PostgreSQL refuses to run as root.
func unprivileged() *syscall.Credential {
	if os.Getuid() != 0 {
		return nil
	}
	for _, name := range []string{"postgres", "nobody"} {
		u, err := user.Lookup(name)
		if err != nil {
			continue
		}
		uid, uerr := strconv.ParseUint(u.Uid, 10, 32)
		gid, gerr := strconv.ParseUint(u.Gid, 10, 32)
		if uerr == nil && gerr == nil {
			return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid), NoSetGroups: true}
		}
	}
	return &syscall.Credential{Uid: 65534, Gid: 65534, NoSetGroups: true}
}

func (s *Server) command(program string, args ...string) *exec.Cmd {
	cmd := exec.Command(filepath.Join(s.bin, program), args...)
	cmd.Dir = s.dir
	cmd.Env = []string{"PATH=/usr/bin:/bin", "LC_ALL=C.UTF-8", "TZ=UTC"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: unprivileged()}
	posterntest.EndWithTest(cmd, syscall.SIGQUIT) // on which PostgreSQL waits for nobody
	return cmd
}

// Start starts a server that was stopped; it answers by the time that Start
// returns.
func (s *Server) Start() error {
	_, port, err := net.SplitHostPort(s.Addr)
	if err != nil {
		return err
	}
	log, err := os.OpenFile(filepath.Join(s.dir, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := s.command("postgres", "-D", s.data(), "-k", s.dir, "-p", port, "-c", "listen_addresses=127.0.0.1",
		"-c", "fsync=off", "-c", "full_page_writes=off", "-c", "shared_buffers=32MB", "-c", "max_connections=50", "-c", "jit=off")
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		return err
	}
	gone := make(chan struct{})
	s.process, s.gone = cmd.Process, gone
	go func() {
		_ = cmd.Wait()
		close(gone)
	}()
	if err := s.waitReady(); err != nil {
		_ = s.process.Kill()
		<-gone
		return err
	}
	return nil
}

func (s *Server) waitReady() error {
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	db, err := sql.Open("pgx", s.URL("postgres"))
	if err != nil {
		return err
	}
	defer db.Close()
	for {
		err := db.PingContext(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-s.gone:
			return fmt.Errorf("it ended at once, last answer: %w", err)
		case <-ctx.Done():
			return fmt.Errorf("asking it for %v: %w", startTimeout, err)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// Stop ends the server and all connections to it; its databases stay.
func (s *Server) Stop() error {
	if err := s.process.Signal(syscall.SIGINT); err != nil {
		return err
	}
	select {
	case <-s.gone:
		return nil
	case <-time.After(stopTimeout):
		_ = s.process.Signal(syscall.SIGQUIT)
		<-s.gone
		return fmt.Errorf("postgres did not end within %v of SIGINT", stopTimeout)
	}
}

// Pause freezes the server, connections and all, until Resume.
func (s *Server) Pause() error { return s.signalAll(syscall.SIGSTOP) }

// Resume ends a Pause.
func (s *Server) Resume() error { return s.signalAll(syscall.SIGCONT) }

// signalAll reaches the server's children too: each has a session of its own.
func (s *Server) signalAll(sig syscall.Signal) error {
	if err := s.process.Signal(sig); err != nil {
		return err
	}
	return s.children(func(pid int, _ []string) error {
		if err := syscall.Kill(pid, sig); err != nil && !errors.Is(err, syscall.ESRCH) {
			return err
		}
		return nil
	})
}

// children calls f with the fields of proc(5) behind the name of each child.
func (s *Server) children(f func(pid int, stat []string) error) error {
	list, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return err
	}
	for _, path := range list {
		fields := statFields(path)
		if len(fields) < 2 || fields[1] != strconv.Itoa(s.process.Pid) {
			continue
		}
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(path)))
		if err == nil {
			err = f(pid, fields)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// statFields reads "pid (name) state ppid ..." from the state on; of a process that has
// ended there is nothing.
func statFields(path string) []string {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil
	}
	return strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:]))
}

// CPUTime is what the server has used so far, in user and system mode, with all sessions
// that it has or had: a bound on it holds also while the machine is busy with something else.
func (s *Server) CPUTime(t testing.TB) time.Duration {
	t.Helper()
	const utime, cutime, end, hertz = 11, 13, 15, 100
	ticks := 0
	add := func(stat []string) error {
		for _, field := range stat {
			n, err := strconv.Atoi(field)
			if err != nil {
				return err
			}
			ticks += n
		}
		return nil
	}
	err := add(statFields(fmt.Sprintf("/proc/%d/stat", s.process.Pid))[utime:end]) // its late children too
	if err == nil {
		err = s.children(func(_ int, stat []string) error { return add(stat[utime:cutime]) })
	}
	if err != nil {
		t.Fatal(err)
	}
	return time.Duration(ticks) * time.Second / hertz
}

// Close stops the server and removes its cluster.
func (s *Server) Close() error {
	var err error
	select {
	case <-s.gone:
	default:
		err = s.Stop()
	}
	return errors.Join(err, os.RemoveAll(s.dir))
}

// URL is that of a database.
func (s *Server) URL(database string) string {
	return fmt.Sprintf("postgres://%s@%s/%s?sslmode=disable", superuser, s.Addr, database)
}

// NewDatabase makes an empty database and returns its URL.
func (s *Server) NewDatabase(t testing.TB) string {
	t.Helper()
	name := fmt.Sprintf("test%d", s.databases.Add(1))
	s.Exec(t, "postgres", "CREATE DATABASE "+name)
	return s.URL(name)
}

// Log is what the server has logged so far.
func (s *Server) Log() string {
	b, err := os.ReadFile(filepath.Join(s.dir, "log"))
	if err != nil {
		return err.Error()
	}
	return string(b)
}
