// Package netpoll reads and writes TCP connections that are silent most of the
// time, and holds next to nothing for one that is silent. It is the only package
// that uses file descriptors.
//
// # Polling
//
// A session that has logged in may be silent for half an hour, and there may be
// a hundred thousand of them. So a buffer is taken only when there is something
// to read. A reader such as crypto/tls wants a buffer before it waits; Conn turns
// that round. After Conn.Start, Conn.Next calls the reader, with a buffer from the
// pool, whenever the runtime says that the descriptor may be readable. The reader
// calls Conn.Read of the same connection, which no longer waits: it asks the
// descriptor once, and returns ErrWouldBlock where there is nothing. Next then puts
// the buffer back and waits for the descriptor.
//
// This is the one place where a connection is entered again from inside: Next
// calls the reader, which calls Read. The rules are:
//
//   - After Start nobody calls Read but the reader, and nobody calls the reader
//     but Next. One goroutine at a time is in Next.
//   - The reader hands ErrWouldBlock on as it came.
//   - Write may be called at any time, also by the reader (crypto/tls answers a
//     key update). One goroutine at a time is in Write.
//   - The reader never calls Next, Park or Unpark.
//
// # Parking
//
// A goroutine that waits in Next holds a stack, which is the larger part of what
// is left. Conn.Park puts the connection into an IdleSet instead, and the
// goroutine ends. The set calls the resume function of the connection, once, when
// there is something to read, and nobody waits meanwhile.
//
// # Other systems
//
// On Linux the set is an epoll instance. Elsewhere the package is built on package
// net alone: connections cannot be parked, and Next holds a buffer while it waits.
package netpoll

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// Socket is what a Conn is made of: *net.TCPConn, but for tests. Its SyscallConn never fails.
type Socket interface {
	net.Conn
	CloseWrite() error
	SyscallConn() (syscall.RawConn, error)
}

// Conn is a TCP connection. Until Start it is what its Socket is.
type Conn struct {
	Socket
	// IdleSet is where the connection parks.
	IdleSet *IdleSet

	// writeTimeout bounds a write that waits, in nanoseconds from the last byte
	// that was taken.
	writeTimeout atomic.Int64
	poller
}

// Start begins polling by way of read, which may be c.Read itself. From then on a
// write waits no longer than writeTimeout for the peer to take something. resume is
// called when c is parked no longer.
func (c *Conn) Start(read func([]byte) (int, error), writeTimeout time.Duration, resume func()) {
	c.writeTimeout.Store(int64(writeTimeout))
	c.start(read, resume)
}

// polling reports whether Start was called.
func (c *Conn) polling() bool { return c.read != nil }

// Read reads from the socket. After Start it does not wait.
func (c *Conn) Read(p []byte) (int, error) {
	if c.polling() {
		return c.readNow(p)
	}
	return c.Socket.Read(p)
}

// Write writes all of p.
func (c *Conn) Write(p []byte) (int, error) {
	if c.polling() {
		return c.write(p)
	}
	return c.Socket.Write(p)
}

// ShortenDeadline bounds writes by timeout, also one that waits already.
func (c *Conn) ShortenDeadline(timeout time.Duration) {
	c.writeTimeout.Store(int64(timeout))
	c.SetWriteDeadline(time.Now().Add(timeout))
}

// Close closes. A connection that is parked is resumed.
func (c *Conn) Close() error {
	err := c.Socket.Close()
	c.Unpark()
	return err
}

// KeepAlive has a peer noticed that has died, unless it is on this host.
func KeepAlive(c Socket, peer netip.Addr) {
	if tcp, ok := c.(*net.TCPConn); ok && !peer.IsLoopback() {
		tcp.SetKeepAliveConfig(keepAlive)
	}
}

// Dead peers are noticed after some four minutes. A telephone that waits in IDLE
// is woken up for it, and so not more often than that.
var keepAlive = net.KeepAliveConfig{Enable: true, Idle: 120 * time.Second, Interval: 30 * time.Second, Count: 4}

// FileListener makes a listener of a listening socket that another process has made, and
// gives it the options of ListenConfig. It closes f.
func FileListener(f *os.File, deferAccept bool) (_ net.Listener, err error) {
	defer f.Close()
	l, _ := net.FileListener(f)
	tcp, listens := l.(*net.TCPListener)
	if listens {
		raw, _ := tcp.SyscallConn() // it is open
		raw.Control(func(fd uintptr) {
			on, _ := syscall.GetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_ACCEPTCONN)
			listens = on != 0
		})
		if set := ListenConfig(deferAccept).Control; set != nil {
			err = set("", "", raw)
		}
	}
	if !listens {
		return nil, errors.New("not a listening TCP socket")
	}
	return fileListener{tcp}, err
}

// fileListener takes back what package net sets on each connection of such a socket:
// probes every 15 seconds.
type fileListener struct{ *net.TCPListener }

func (l fileListener) Accept() (net.Conn, error) {
	c, err := l.AcceptTCP()
	if err != nil {
		return nil, err
	}
	c.SetKeepAliveConfig(keepAlive)
	return c, nil
}

// AddrPort is the address of a TCP peer; one that came over a dual-stack socket is
// unmapped.
func AddrPort(a net.Addr) netip.AddrPort {
	tcp, ok := a.(*net.TCPAddr)
	if !ok {
		return netip.AddrPort{}
	}
	ap := tcp.AddrPort()
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
}

// Accepts reports whether a listener would get a connection to an address.
func Accepts(l net.Listener, to netip.AddrPort) bool {
	at := AddrPort(l.Addr())
	ip := to.Addr().Unmap()
	if at.Port() != to.Port() || !at.Addr().IsUnspecified() {
		return at == netip.AddrPortFrom(ip, to.Port())
	}
	return Local(ip) && (at.Addr().Is4() == ip.Is4() || at.Addr().Is6() && !onlyIPv6(l))
}

// ListenAddr is a listener's address as it is configured: without a host where it gets
// IPv4 and IPv6.
func ListenAddr(l net.Listener) string {
	if at := AddrPort(l.Addr()); at.Addr().IsUnspecified() && at.Addr().Is6() && !onlyIPv6(l) {
		return fmt.Sprint(":", at.Port())
	}
	return l.Addr().String()
}

// Local reports whether an address is one of this host.
func Local(ip netip.Addr) bool {
	here, _ := net.InterfaceAddrs()
	return ip.IsLoopback() || slices.ContainsFunc(here, func(a net.Addr) bool { return strings.HasPrefix(a.String(), ip.String()+"/") })
}

// onlyIPv6 reports whether a listener for all of IPv6 gets no IPv4.
func onlyIPv6(l net.Listener) bool {
	only := 1
	raw, _ := l.(syscall.Conn).SyscallConn() // it is open
	raw.Control(func(fd uintptr) { only, _ = syscall.GetsockoptInt(int(fd), syscall.IPPROTO_IPV6, syscall.IPV6_V6ONLY) })
	return only != 0
}

// bufferSize fits four full TLS records: one call reads them all.
const bufferSize = 64 << 10

// Buffer is what a read takes from the pool.
type Buffer [bufferSize]byte

var buffers = sync.Pool{New: func() any { return new(Buffer) }}

// GetBuffer takes a buffer from the pool.
func GetBuffer() *Buffer { return buffers.Get().(*Buffer) }

// Put gives the buffer back.
func (b *Buffer) Put() { buffers.Put(b) }

// ErrWouldBlock ends a read that found nothing. It is temporary, which keeps
// crypto/tls from remembering it.
var ErrWouldBlock error = syscall.EAGAIN
