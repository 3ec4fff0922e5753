// Package handover takes listening sockets from systemd, or from the Postern before, and
// hands them to the next one. Both speak systemd's protocol (sd_listen_fds(3)); between
// two Posterns there is one more socket, a [Link].
//
// A handover goes like this:
//
//	the process before starts the program on disk, and goes on serving
//	the next one starts, takes no connection, and calls Link.Ready once it could
//	the process before lets it (Link.Go), and takes no more connections
//
// Both have the sockets, so that a connection waits in the kernel until one of the two
// accepts it. As long as both live, the next may ask the one before to end (Link.End).
package handover

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/coreos/go-systemd/v22/activation"

	"postern/internal/config"
	"postern/internal/netpoll"
	"postern/internal/text"
	"postern/proxy"
)

// Sockets are listening sockets by name: imaps, pop3s, imap, pop3, admin.
type Sockets map[string][]net.Listener

// Given is what a process was started with.
type Given struct {
	Sockets
	// Before is the Postern before, which hands over; nil if there is none.
	Before *Link

	// Program is the path of the program that Start starts.
	Program string
	environ []string
}

// variables name the addresses of sockets.
var variables = map[string]string{"imaps": "LISTEN_IMAPS", "pop3s": "LISTEN_POP3S", "imap": "LISTEN_IMAP", "pop3": "LISTEN_POP3", "admin": "ADMIN_LISTEN"}

// linkName is the name of a Link among the sockets.
const linkName = "handover"

// Take takes the sockets that this process was given, and their variables out of the
// environment. The error has a line for each that is of no use.
func Take() (given Given, err error) {
	// What is on disk may be replaced, also the target of a link.
	program, err := exec.LookPath(os.Args[0])
	if err == nil {
		program, err = filepath.Abs(program)
	}
	if err != nil {
		program, _ = os.Executable()
	}
	given = Given{Sockets: make(Sockets), Program: program, environ: os.Environ()}
	var problems []error
	for _, f := range activation.Files(true) {
		name := f.Name()
		if name == linkName {
			given.Before, err = newLink(f)
			problems = append(problems, err)
			continue
		}
		l, err := netpoll.FileListener(f, proxy.Listener(name).ImplicitTLS())
		switch {
		case variables[name] == "":
			err = errors.New("not one of imaps, pop3s, imap, pop3, admin: FileDescriptorName= of a socket unit says for which listener it is")
		case name == "admin" && len(given.Sockets[name]) > 0:
			err = errors.New("given twice: there is one admin port, so that its socket unit has one ListenStream=")
		}
		if err != nil {
			problems = append(problems, fmt.Errorf("LISTEN_FDNAMES: %s: %w", text.Clean(name, 80), err))
		}
		given.Sockets[name] = append(given.Sockets[name], l)
	}
	return given, errors.Join(problems...)
}

// Environ returns an environment in which the addresses of the sockets have taken the
// place of those in the variables. An admin port off loopback that has a name keeps it, since
// browsers ask by it.
func (s Sockets) Environ(environ []string) []string {
	environ = slices.Clone(environ)
	for name, list := range s {
		if name == "admin" && slices.ContainsFunc(environ, isAdminName) {
			continue
		}
		var addrs []string
		for _, l := range list {
			if addr := netpoll.ListenAddr(l); !slices.Contains(addrs, addr) {
				addrs = append(addrs, addr)
			}
		}
		environ = append(environ, config.Prefix+variables[name]+"="+strings.Join(addrs, ","))
	}
	return environ
}

func isAdminName(variable string) bool {
	addr, is := strings.CutPrefix(variable, config.Prefix+variables["admin"]+"=")
	host, _, _ := net.SplitHostPort(addr)
	return is && net.ParseIP(host) == nil && host != "" && !config.OnLoopback(addr)
}

// Close closes all of them.
func (s Sockets) Close() {
	for _, list := range s {
		for _, l := range list {
			l.Close()
		}
	}
}

// A Link leads to the other process. It breaks when that ends.
type Link struct {
	net.Conn
	*os.Process // the next one's; nil for the one before
}

func newLink(f *os.File) (*Link, error) {
	defer f.Close()
	c, err := net.FileConn(f)
	return &Link{Conn: c}, err
}

// Ready says to the process before that this one could take over, and waits until it may,
// or is alone. It returns how many handovers there were, and how many failed.
func (l *Link) Ready() (ok, failed int) {
	l.Write([]byte{ready})
	fmt.Fscanln(l, &ok, &failed)
	return ok, failed
}

// End asks the process before to end, and waits until it has, or ctx ends. A nil Link
// leads to none. Before Ready it says that this process will not take over.
func (l *Link) End(ctx context.Context) error {
	if l != nil {
		l.Write([]byte{end})
		defer context.AfterFunc(ctx, func() { l.SetReadDeadline(time.Now()) })()
		io.Copy(io.Discard, l)
	}
	return nil
}

// endTime is how long a process that has let go of its Link may take to say why, and end.
const endTime = 5 * time.Second

// Await waits until the next process is ready, and no longer than a time. One that goes
// instead has had its time to end.
func (l *Link) Await(timeout time.Duration) error {
	l.SetReadDeadline(time.Now().Add(timeout))
	err := l.hears(ready)
	l.SetReadDeadline(time.Time{})
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return fmt.Errorf("the new process has not said within %v that it is ready", timeout)
	} else if err != nil {
		l.Close()
		l.waitEnd(endTime)
		return errors.New("the new process has ended without being ready: what it says stands in its own lines of the log")
	}
	return nil
}

// Go lets the next process take over, and tells it the counts that Ready returns.
func (l *Link) Go(ok, failed int) error {
	_, err := fmt.Fprintln(l, ok, failed)
	return err
}

// Ended is closed when the next process asks this one to end.
func (l *Link) Ended() <-chan struct{} {
	asked := make(chan struct{})
	go func() {
		if l.hears(end) == nil {
			close(asked)
		}
	}()
	return asked
}

// What the next process says.
const ready, end = 'r', 'e'

// hears waits for a word of the next process.
func (l *Link) hears(word byte) error {
	said := make([]byte, 1)
	_, err := l.Read(said)
	if err == nil && said[0] != word {
		err = io.EOF // it goes
	}
	return err
}

// Starter is the name under which a program runs that is about to become another.
const Starter = "postern-handover"

// Become makes this process, a Starter, the program that its arguments name. It alone
// knows its process id, which is how the program knows that the sockets are meant for it.
func Become() {
	os.Setenv("LISTEN_PID", strconv.Itoa(os.Getpid()))
	err := syscall.Exec(os.Args[1], os.Args[2:], os.Environ())
	fmt.Fprintf(os.Stderr, "postern: starting %s: %v\n", os.Args[1], err)
	os.Exit(1)
}
