package netpoll

import (
	"cmp"
	"net"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// deferAcceptTime is how long the kernel waits for a client's first bytes before
// it hands over the connection without any, in seconds.
const deferAcceptTime = 1

// ListenConfig makes listening sockets whose connections have all their options
// from the start, since Linux hands them on. With deferAccept a connection is
// accepted once its client has sent something, or is silent after a second. That
// is for protocols in which the client speaks first.
//
// Multipath TCP, which package net turns on, is off: mail programs do not speak it,
// and each accept would ask for it.
func ListenConfig(deferAccept bool) net.ListenConfig {
	lc := net.ListenConfig{KeepAlive: -1, Control: func(_, _ string, c syscall.RawConn) (err error) {
		failed := c.Control(func(fd uintptr) { err = setOptions(int(fd), deferAccept) })
		return cmp.Or(failed, err)
	}}
	lc.SetMultipathTCP(false)
	return lc
}

func setOptions(fd int, deferAccept bool) error {
	options := []struct{ level, name, value int }{
		{unix.IPPROTO_TCP, unix.TCP_NODELAY, 1},
		{unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1},
		{unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, int(keepAlive.Idle / time.Second)},
		{unix.IPPROTO_TCP, unix.TCP_KEEPINTVL, int(keepAlive.Interval / time.Second)},
		{unix.IPPROTO_TCP, unix.TCP_KEEPCNT, keepAlive.Count},
		{unix.IPPROTO_TCP, unix.TCP_DEFER_ACCEPT, deferAcceptTime},
	}
	if !deferAccept {
		options = options[:len(options)-1]
	}
	for _, o := range options {
		if err := unix.SetsockoptInt(fd, o.level, o.name, o.value); err != nil {
			return os.NewSyscallError("setsockopt", err)
		}
	}
	return nil
}
