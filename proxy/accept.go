//go:build linux

package proxy

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"syscall"
	"time"
)

// acceptor takes connections from a listener. From a TCP socket it takes bare
// descriptors: one whose client is refused at once never has a net.Conn, nor is
// the runtime ever told of it. A client may be let wait a little in a room of the
// acceptor's, until it has said something: one goroutine waits for all of them and
// for new ones, by an epoll instance. All methods but close are for that
// goroutine.
type acceptor struct {
	listener net.Listener // where it is no TCP socket
	socket   *os.File
	// local is the address of all connections; invalid where they have several.
	local netip.AddrPort

	listening descriptor // kept open by socket
	epoll     *epoll

	room  map[descriptor]arrival
	next  []arrival // to be handed out
	given int       // of these
	err   error     // of the last accept4
}

const (
	// roomSize is how many may wait in the room, and roomTime how long at least;
	// at most it is twice that.
	roomSize = 256
	roomTime = 50 * time.Millisecond
)

// newAcceptor takes a listener over, which is closed with the acceptor.
func newAcceptor(nl net.Listener) (*acceptor, error) {
	tcp, ok := nl.(*net.TCPListener)
	if !ok {
		return &acceptor{listener: nl}, nil
	}
	defer tcp.Close()
	a := &acceptor{room: make(map[descriptor]arrival)}
	if local := addrPort(tcp.Addr()); !local.Addr().IsUnspecified() {
		a.local = local
	}
	err := a.open(tcp)
	if err != nil {
		a.close()
		return nil, err
	}
	return a, nil
}

func (a *acceptor) open(tcp *net.TCPListener) (err error) {
	if a.epoll, err = newEpoll(a.happened); err != nil {
		return err
	}
	if a.socket, a.listening, err = listening(tcp); err != nil {
		return err
	}
	return a.watch(a.listening)
}

// watch has happened called when there is something to read from d.
func (a *acceptor) watch(d descriptor) error { return a.epoll.add(d, event{key: int32(d)}) }

// close ends accept with net.ErrClosed. The epoll instance goes first: that waits
// until nobody uses the listening descriptor.
func (a *acceptor) close() {
	if a.listener != nil {
		a.listener.Close()
		return
	}
	if a.epoll != nil {
		a.epoll.close()
	}
	if a.socket != nil {
		a.socket.Close()
	}
}

// accept waits for the next connection, or for one in the room that has said
// something or has waited long enough.
func (a *acceptor) accept() (arrival, error) {
	if a.listener != nil {
		c, err := a.listener.Accept()
		if err != nil {
			return arrival{}, err
		}
		return arrival{conn: c.(tcpConn), local: addrPort(c.LocalAddr()), peer: addrPort(c.RemoteAddr()), at: time.Now()}, nil
	}
	for a.given == len(a.next) {
		a.next, a.given = a.next[:0], 0
		err := a.epoll.wait()
		switch {
		case err == nil && a.err != nil:
			err, a.err = a.err, nil
			return arrival{}, err
		case err == nil:
		case err == os.ErrDeadlineExceeded:
			a.clearRoom(time.Now().Add(-roomTime))
		default:
			a.clearRoom(time.Now())
			for _, n := range a.next {
				n.fd.close()
			}
			return arrival{}, net.ErrClosed
		}
	}
	a.given++
	return a.next[a.given-1], nil
}

// wait leaves a client in the room, if there is a place in it.
func (a *acceptor) wait(n arrival) bool {
	if n.waited || n.conn != nil || len(a.room) >= roomSize || a.watch(n.fd) != nil {
		return false
	}
	if len(a.room) == 0 {
		a.epoll.file.SetReadDeadline(n.at.Add(roomTime))
	}
	n.waited = true
	a.room[n.fd] = n
	return true
}

// clearRoom hands out who has waited since then.
func (a *acceptor) clearRoom(since time.Time) {
	for _, n := range a.room {
		if !n.at.After(since) {
			a.leave(n)
		}
	}
	if len(a.room) > 0 {
		a.epoll.file.SetReadDeadline(time.Now().Add(roomTime))
	}
}

// leave hands out one who has waited.
func (a *acceptor) leave(n arrival) {
	delete(a.room, n.fd)
	a.epoll.remove(n.fd)
	if len(a.room) == 0 {
		a.epoll.file.SetReadDeadline(time.Time{})
	}
	a.next = append(a.next, n)
}

// happened takes who is there now: a new one, or one from the room.
func (a *acceptor) happened(e event) {
	if n, ok := a.room[descriptor(e.key)]; ok {
		a.leave(n)
		return
	}
	n, err := a.acceptOne()
	switch err {
	case 0:
		a.next = append(a.next, n)
	case syscall.EINTR, syscall.EAGAIN, syscall.ECONNABORTED:
	default:
		a.err = os.NewSyscallError("accept4", err)
	}
}

func (a *acceptor) acceptOne() (arrival, syscall.Errno) {
	fd, peer, err := a.listening.accept()
	if err != 0 {
		return arrival{}, err
	}
	n := arrival{fd: fd, local: a.local, peer: peer, at: time.Now()}
	if !n.local.IsValid() {
		if n.local, err = fd.local(); err != 0 {
			fd.close()
		}
	}
	return n, err
}

// arrival is a connection that has been accepted, and that nobody waits for
// yet: a bare descriptor, or conn where it came by a net.Listener.
type arrival struct {
	fd          descriptor
	conn        tcpConn
	local, peer netip.AddrPort
	at          time.Time
	waited      bool // in the room
}

// readNow reads what has come already; errWouldBlock where that is nothing.
func (a *arrival) readNow(b []byte) (int, error) {
	if a.conn != nil {
		return 0, errWouldBlock
	}
	return a.fd.readNow(b)
}

// pending reports whether more has come than was read.
func (a *arrival) pending() bool { return a.conn != nil || a.fd.pending() }

// dismiss sends the last words, with the end of the stream, and closes. What
// comes in this moment is answered with a reset, but behind the words.
func (a *arrival) dismiss(words []byte) {
	a.fd.dismiss(words)
	a.fd.close()
}

// open makes a connection of it.
func (a *arrival) open() tcpConn {
	if a.conn != nil {
		return a.conn
	}
	return &socket{file: a.fd.open(), local: a.local, peer: a.peer}
}

// socket is a TCP connection that was not accepted by package net: what that
// asks the kernel for each one, and keeps of the answers, is known already.
type socket struct {
	file        *os.File
	local, peer netip.AddrPort
}

func (c *socket) Read(b []byte) (int, error) {
	n, err := c.file.Read(b)
	return n, c.wrap("read", err)
}

func (c *socket) Write(b []byte) (int, error) {
	n, err := c.file.Write(b)
	return n, c.wrap("write", err)
}

// wrap makes the errors of package os those of package net, which crypto/tls
// and we tell apart.
func (c *socket) wrap(op string, err error) error {
	if err == nil || err == io.EOF {
		return err
	}
	var path *os.PathError
	if errors.As(err, &path) {
		err = path.Err
	}
	if errors.Is(err, os.ErrClosed) {
		err = net.ErrClosed
	}
	return &net.OpError{Op: op, Net: "tcp", Source: c.LocalAddr(), Addr: c.RemoteAddr(), Err: err}
}

func (c *socket) Close() error                          { return c.file.Close() }
func (c *socket) LocalAddr() net.Addr                   { return net.TCPAddrFromAddrPort(c.local) }
func (c *socket) RemoteAddr() net.Addr                  { return net.TCPAddrFromAddrPort(c.peer) }
func (c *socket) SetDeadline(t time.Time) error         { return c.file.SetDeadline(t) }
func (c *socket) SetReadDeadline(t time.Time) error     { return c.file.SetReadDeadline(t) }
func (c *socket) SetWriteDeadline(t time.Time) error    { return c.file.SetWriteDeadline(t) }
func (c *socket) SyscallConn() (syscall.RawConn, error) { return c.file.SyscallConn() }

// CloseWrite sends the end of the stream.
func (c *socket) CloseWrite() error { return closeWrite(c.file) }
