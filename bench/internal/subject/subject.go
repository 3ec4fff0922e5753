// Package subject starts and stops the things measured. Each subject has a
// file of its own, which writes its configuration and says what to run.
//
// What is alike for all: one certificate at a time; TLS 1.2 and 1.3; session
// tickets as shipped (on); at most two worker threads or processes;
// AES-128-GCM first where the server's order rules; listen backlog 4096 where
// it can be set. The peers write no log lines where Log is unset and they can
// be quiet; Postern always runs with all that it has on by default.
package subject

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"time"

	"postern/bench/internal/certs"
	"postern/bench/internal/proc"
	"postern/bench/internal/stub"
)

// Options is what a subject is started with.
type Options struct {
	Dir                             string // its work directory, fresh
	Cert                            certs.Pair
	IMAPS, POP3S, IMAP, POP3, Admin int // ports to listen on, 127.0.0.1
	Stub                            stub.Ports
	Log                             bool // log connections and failed handshakes
	Profile                         bool // Postern serves profiles on its admin port
	MaxConn                         int
	Env                             []string      // variables of Postern's, besides
	Patience                        time.Duration // for the first handshake; 10 s if 0
}

// Plan is what to run.
type Plan struct {
	Cmds []*exec.Cmd // all long-lived, in the foreground
	Log  string      // where it logs, if not to stdout or stderr
}

// Subject is one thing measured.
type Subject struct {
	Name    string
	Peer    bool   // counts for "best peer"
	Note    string // how it is set up
	Plan    func(Options) (Plan, error)
	Size    func() string // what has to be installed
	Bin     func() string // the executable; nil: the harness's own
	Version func() string
	// Direct: no subject process and no TLS, the stub itself.
	Direct bool
	// Ours: it is a Postern.
	Ours bool
	// Root: it runs as root alone.
	Root bool
}

// All subjects, in the order they run and are reported.
func All() []*Subject {
	return []*Subject{Direct, Haproxy, NginxMail, NginxStream, Stunnel, Dovecot, Ghostunnel, Naive, Postern}
}

// Missing says why the subject cannot run here, or nothing.
func (s *Subject) Missing() string {
	if s.Root && os.Getuid() != 0 {
		return "runs as root alone"
	}
	if s.Bin == nil {
		return ""
	}
	if _, err := os.Stat(s.Bin()); err != nil {
		return "not installed"
	}
	return ""
}

// Direct is the floor: the client talks to the stub, in the clear.
var Direct = &Subject{
	Name: "direct", Direct: true, Note: "no proxy, no TLS",
	Version: func() string { return "" }, Size: func() string { return "" },
}

// Instance is a running subject.
type Instance struct {
	*Subject
	Options
	Roots []int
	Log   string

	cmds   []*exec.Cmd
	exited []chan struct{}
}

// Start starts s in a directory of its own under dir, which Stop removes, and
// returns at once.
func Start(s *Subject, dir string, o Options) (*Instance, error) {
	in := &Instance{Subject: s, Options: o}
	if s.Direct {
		in.IMAPS, in.POP3S = o.Stub.IMAP, o.Stub.POP3
		return in, nil
	}
	var err error
	if in.Dir, err = os.MkdirTemp(dir, s.Name+"-"); err != nil {
		return nil, err
	}
	if err := os.Chmod(in.Dir, 0o755); err != nil { // for those that drop root
		return nil, err
	}
	ports, err := FreePorts(5)
	if err != nil {
		return nil, err
	}
	in.IMAPS, in.POP3S, in.IMAP, in.POP3, in.Admin = ports[0], ports[1], ports[2], ports[3], ports[4]
	plan, err := s.Plan(in.Options)
	if err != nil {
		return nil, err
	}
	out, err := os.Create(filepath.Join(in.Dir, "output"))
	if err != nil {
		return nil, err
	}
	defer out.Close()
	in.Log = plan.Log
	if in.Log == "" {
		in.Log = out.Name()
	}
	for _, c := range plan.Cmds {
		c.Stdout, c.Stderr, c.Dir = out, out, in.Dir
		c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
		if err := c.Start(); err != nil {
			in.Stop()
			return nil, err
		}
		done := make(chan struct{})
		go func() { c.Wait(); close(done) }()
		in.cmds = append(in.cmds, c)
		in.exited = append(in.exited, done)
		in.Roots = append(in.Roots, c.Process.Pid)
	}
	return in, nil
}

// Exited tells whether a root process has ended.
func (in *Instance) Exited() bool {
	for _, d := range in.exited {
		select {
		case <-d:
			return true
		default:
		}
	}
	return false
}

// Stop ends the subject: its roots by SIGTERM, and whatever of the tree is
// left after five seconds, by PID, with SIGKILL.
func (in *Instance) Stop() {
	if len(in.cmds) == 0 {
		return
	}
	pids := proc.PIDs(in.Roots)
	for _, c := range in.cmds {
		c.Process.Signal(syscall.SIGTERM)
	}
	end := time.Now().Add(5 * time.Second)
	for time.Now().Before(end) && (!in.allExited() || anyAlive(pids)) {
		time.Sleep(10 * time.Millisecond)
	}
	for _, p := range pids {
		if alive(p) {
			syscall.Kill(p, syscall.SIGKILL)
		}
	}
	for _, d := range in.exited {
		<-d
	}
	in.cmds = nil
	os.RemoveAll(in.Dir)
}

// allExited tells whether all root processes have ended.
func (in *Instance) allExited() bool {
	for _, d := range in.exited {
		select {
		case <-d:
		default:
			return false
		}
	}
	return true
}

func alive(pid int) bool { return syscall.Kill(pid, 0) == nil }

func anyAlive(pids []int) bool { return slices.ContainsFunc(pids, alive) }

// Ports of subjects are below the ephemeral range.
const firstPort, lastPort = 20000, 31999

var nextPort = firstPort

// FreePorts finds n ports, none of which was given out lately.
func FreePorts(n int) ([]int, error) {
	var out []int
	for range lastPort - firstPort + 1 {
		if len(out) == n {
			return out, nil
		}
		port := nextPort
		if nextPort++; nextPort > lastPort {
			nextPort = firstPort
		}
		l, err := net.Listen("tcp", addr(port))
		if err != nil {
			continue
		}
		l.Close()
		out = append(out, port)
	}
	return nil, errors.New("no free ports left")
}

// write writes a file of configuration.
func write(o Options, name, text string) (string, error) {
	p := filepath.Join(o.Dir, name)
	return p, os.WriteFile(p, []byte(text), 0o644)
}

func addr(port int) string { return fmt.Sprintf("127.0.0.1:%d", port) }

func at(path string) func() string { return func() string { return path } }

// iff is s if cond, and otherwise other.
func iff(cond bool, s, other string) string {
	if cond {
		return s
	}
	return other
}

// versionOf is the first number with dots that a program prints of itself.
func versionOf(bin func() string, args ...string) func() string {
	return func() string {
		out, _ := exec.Command(bin(), args...).CombinedOutput()
		return dotted.FindString(string(out))
	}
}

var dotted = regexp.MustCompile(`\d+(\.\d+)+`)

// fileSize is the size of a binary.
func fileSize(path string) string {
	fi, err := os.Stat(path)
	if err != nil {
		return "?"
	}
	return fmt.Sprintf("%.1f MB binary", float64(fi.Size())/1e6)
}

// packages is the installed size of Debian packages.
func packages(names ...string) func() string {
	return func() string {
		args := append([]string{"-W", "-f=${Installed-Size}\n"}, names...)
		b, err := exec.Command("dpkg-query", args...).Output()
		if err != nil {
			return "?"
		}
		var kb, sum int
		for line := range strings.Lines(string(b)) {
			if _, err := fmt.Sscan(line, &kb); err == nil {
				sum += kb
			}
		}
		return fmt.Sprintf("%.1f MB (%s)", float64(sum)/1e3, strings.Join(names, "+"))
	}
}
