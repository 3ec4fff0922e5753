package config

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"postern/internal/text"
)

// BindError says why the address of a variable cannot be bound, and what helps.
func BindError(variable, addr string, err error) error {
	_, port, _ := net.SplitHostPort(addr)
	var unknown *net.DNSError
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		holder := cmp.Or(Holder(addr), fmt.Sprintf("another program (as root, ss -ltnp sport = :%s names it)", port))
		return fmt.Errorf("%s: %s: address already in use by %s: stop it or move it to another port (deploy/dovecot.conf moves Dovecot's), or choose another port here", variable, addr, holder)
	case errors.Is(err, syscall.EACCES):
		return fmt.Errorf("%s: %s: a port below 1024 needs CAP_NET_BIND_SERVICE, which deploy/systemd/postern.service gives, "+
			"or root; or choose a port from 1024 on", variable, addr)
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return fmt.Errorf("%s: %s is not an address of this machine (now): ip addr lists them, and :%s is every one", variable, addr, port)
	case errors.Is(err, syscall.EAFNOSUPPORT):
		return fmt.Errorf("%s: %s: this machine has no IPv6: write an IPv4 address, or leave the host empty", variable, addr)
	case errors.As(err, &unknown):
		return fmt.Errorf("%s: %s: the name has no address (%s): use an IP address, or leave the host empty", variable, addr, unknown.Err)
	}
	return fmt.Errorf("%s: %w", variable, err)
}

// Holder names the process that listens on the port of an address of this machine, as
// far as this user may know; "" if not.
func Holder(addr string) string {
	_, port, _ := net.SplitHostPort(addr)
	n, _ := strconv.Atoi(port)
	sockets := listening(n)
	links, _ := filepath.Glob("/proc/[0-9]*/fd/*")
	for _, link := range links {
		if to, err := os.Readlink(link); err == nil && slices.Contains(sockets, to) {
			pid := strings.Split(link, "/")[2]
			name, _ := os.ReadFile("/proc/" + pid + "/comm")
			return fmt.Sprintf("process %s (%s)", pid, text.Clean(strings.TrimSpace(string(name)), 40))
		}
	}
	return ""
}

// listening returns the sockets that listen on a port, as their descriptors'
// links name them. See proc_pid_net(5).
func listening(port int) (sockets []string) {
	const local, state, inode, listen = 1, 3, 9, "0A"
	digits := fmt.Sprintf(":%04X", port)
	for _, table := range []string{"/proc/net/tcp", "/proc/net/tcp6"} {
		lines, _ := os.ReadFile(table)
		for line := range strings.Lines(string(lines)) {
			if f := strings.Fields(line); len(f) > inode && f[state] == listen && strings.HasSuffix(f[local], digits) {
				sockets = append(sockets, "socket:["+f[inode]+"]")
			}
		}
	}
	return sockets
}
