package handover

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Start starts the program on disk, with this one's arguments and the environment of its
// start, and hands it the sockets. It is no child of this process but its sibling, so that
// systemd, or whoever started this one, learns of its end.
func (given Given) Start() (*Link, error) {
	if os.Getpid() == 1 {
		return nil, errors.New("this is process 1, with which its container ends: start a container of the new image")
	}
	pair, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("socketpair", err)
	}
	defer syscall.Close(pair[1])
	files, names := []uintptr{0, 1, 2, uintptr(pair[1])}, []string{linkName}
	for name, list := range given.Sockets {
		for _, l := range list {
			// By File both processes would block in accept: findings/go-a-listener-handed-on-blocks.sh.
			raw, _ := l.(syscall.Conn).SyscallConn() // it is open
			raw.Control(func(fd uintptr) { files, names = append(files, fd), append(names, name) })
		}
	}
	link, err := newLink(os.NewFile(uintptr(pair[0]), linkName))
	if err != nil { // a process whose link is broken would think that it is alone
		return nil, fmt.Errorf("starting %s: %w", given.Program, err)
	}
	pid, err := syscall.ForkExec("/proc/self/exe", slices.Concat([]string{Starter, given.Program}, os.Args), &syscall.ProcAttr{
		Env:   slices.Concat([]string{fmt.Sprint("LISTEN_FDS=", len(names)), "LISTEN_FDNAMES=" + strings.Join(names, ":"), "WATCHDOG_PID="}, given.environ),
		Files: files, Sys: &syscall.SysProcAttr{Cloneflags: syscall.CLONE_PARENT},
	})
	if err != nil {
		link.Close()
		return nil, fmt.Errorf("starting %s: %w", given.Program, err)
	}
	link.Process, err = os.FindProcess(pid)
	return link, err
}

// waitEnd waits for the end of the next process, and no longer than a time. How a sibling
// ends only its parent can know.
func (l *Link) waitEnd(timeout time.Duration) {
	l.WithHandle(func(pidfd uintptr) {
		ends, end := []unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}}, time.Now().Add(timeout)
		for err := error(unix.EINTR); err == unix.EINTR; {
			_, err = unix.Poll(ends, int(max(0, time.Until(end)).Milliseconds()))
		}
	})
}
