//go:build linux

package proxy

import (
	"cmp"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"strconv"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// This is the one file that knows about file descriptors.
//
// A session that has logged in may be silent for half an hour, and there may be
// a hundred thousand of them. So nothing is held for it while it is silent.
//
// A buffer is taken only when there is something to read. crypto/tls wants a
// buffer before it waits; the poller turns that round. It calls the reader,
// with a buffer from the pool, inside RawConn.Read: the runtime resets its
// readiness before that call, so that what arrives between a read that found
// nothing and the wait is not missed. In there the connection's own Read asks
// the descriptor once, and returns errWouldBlock instead of waiting.
//
// A goroutine, whose stack is the larger part of what is left, waits for a
// second. Then it parks: the descriptor is put into an epoll instance of the
// server's own, the goroutine ends, and a new one goes on when there is
// something to read. That instance is in turn waited for by the runtime.

// errWouldBlock ends a read that found nothing. It is temporary, which keeps
// crypto/tls from remembering it.
var errWouldBlock error = wouldBlock{}

type wouldBlock struct{}

func (wouldBlock) Error() string   { return "nothing to read now" }
func (wouldBlock) Timeout() bool   { return true }
func (wouldBlock) Temporary() bool { return true }

// poller reads from a connection, through its upper layer, without holding a
// buffer while there is nothing to read.
type poller struct {
	raw    syscall.RawConn
	fd     uintptr
	active bool

	// read is the upper layer: crypto/tls, or readNow itself.
	read func([]byte) (int, error)
	buf  *buffer
	n    int
	err  error
	try  func(fd uintptr) bool
	dry  bool // the last read has found nothing

	// Of the write under way: what is still to be written, and what has failed.
	out    []byte
	outErr error
	waited bool
	put    func(fd uintptr) bool
	// deadliner bounds a write that waits by patience, in nanoseconds, from the
	// last byte that went.
	deadliner interface{ SetWriteDeadline(time.Time) error }
	patience  atomic.Int64

	// lot is where p parks; resume goes on, on another goroutine, when it is no
	// longer parked.
	lot    *lot
	resume func()
	// What follows is guarded by the lot: p is parked in a slot, or not; its
	// descriptor is known to the epoll instance; it is not to park any more.
	slot           int32
	parked         bool
	known, staying bool
}

// start makes p read from c by way of read; nil means from c itself. A write
// waits no longer than patience for the peer to take something. What resume does
// is to be done once p is no longer parked.
func (p *poller) start(c tcpConn, read func([]byte) (int, error), patience time.Duration, resume func()) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	p.raw, p.read, p.resume, p.active = raw, read, resume, true
	if read == nil {
		p.read = p.readNow
	}
	p.try = p.tryRead
	p.deadliner, p.put = c, p.tryWrite
	p.patience.Store(int64(patience))
	return nil
}

// next waits until there is something to read and returns it in a buffer that
// the caller puts back; nil with an error. The connection's read deadline
// applies.
func (p *poller) next() (*buffer, int, error) {
	p.buf, p.n, p.err, p.dry = nil, 0, nil, false
	if err := p.raw.Read(p.try); err != nil {
		return nil, 0, endOfWait(err)
	}
	if p.n == 0 && p.buf != nil {
		p.buf.put()
		p.buf = nil
	}
	return p.buf, p.n, p.err
}

func (p *poller) tryRead(fd uintptr) bool {
	p.fd = fd
	buf := getBuffer()
	n, err := p.read(buf[:])
	if n == 0 && err == errWouldBlock {
		buf.put()
		p.dry = true
		return false
	}
	if err == errWouldBlock {
		err = nil
	}
	p.buf, p.n, p.err = buf, n, err
	return true
}

// drained reports whether next has waited in vain. A deadline may have passed
// before it has looked: then there may be something left in the upper layer, of
// which the descriptor knows nothing.
func (p *poller) drained() bool { return p.dry }

// readNow reads once, inside of next only.
func (p *poller) readNow(b []byte) (int, error) { return descriptor(p.fd).readNow(b) }

// write writes all of b, one at a time.
func (p *poller) write(b []byte) (int, error) {
	p.out, p.outErr, p.waited = b, nil, false
	err := p.raw.Write(p.put)
	if err != nil {
		err = endOfWait(err)
	} else if p.outErr != nil {
		err = os.NewSyscallError("write", p.outErr)
	}
	if p.waited && err == nil {
		p.deadliner.SetWriteDeadline(time.Time{})
	}
	n := len(b) - len(p.out)
	p.out = nil
	return n, err
}

func (p *poller) tryWrite(fd uintptr) bool {
	for len(p.out) > 0 {
		n, err := descriptor(fd).send(p.out, 0)
		switch err {
		case 0:
			p.out = p.out[n:]
		case syscall.EINTR:
		case syscall.EAGAIN:
			p.waited = true
			p.bound()
			return false
		default:
			p.outErr = err
			return true
		}
	}
	return true
}

// bound sets the deadline of a write that has to wait.
func (p *poller) bound() {
	for patience := p.patience.Load(); ; {
		p.deadliner.SetWriteDeadline(time.Now().Add(time.Duration(patience)))
		now := p.patience.Load()
		if now == patience {
			return
		}
		patience = now // hurry has been called
	}
}

// hurry bounds writes by less, also one that waits already.
func (p *poller) hurry(patience time.Duration) {
	p.patience.Store(int64(patience))
	if p.deadliner != nil {
		p.deadliner.SetWriteDeadline(time.Now().Add(patience))
	}
}

// descriptor is a socket that does not block.
type descriptor int

// readNow reads what there is; where there is nothing it does not wait.
func (d descriptor) readNow(b []byte) (int, error) {
	for {
		n, err := d.recv(b, 0)
		switch {
		case err == syscall.EINTR:
			continue
		case err == syscall.EAGAIN:
			return 0, errWouldBlock
		case err != 0:
			return 0, &net.OpError{Op: "read", Net: "tcp", Err: os.NewSyscallError("recvfrom", err)}
		case n == 0 && len(b) > 0:
			return 0, io.EOF
		}
		return n, nil
	}
}

// The calls that are made for each chunk and for each connection that comes in
// are ones that the runtime is not told of. None of them blocks, since the
// descriptors are non-blocking. For a call that it is told of, the runtime gets
// ready to take the thread's place, and while there is traffic a thread of its own
// wakes up every 20 µs to see whether it has to: that took a tenth of the CPU time.
// The price is that a collection may have to wait for the copy of a buffer.

func (d descriptor) recv(b []byte, flags int) (int, syscall.Errno) {
	raceWrite(b)
	n, _, err := unix.RawSyscall6(unix.SYS_RECVFROM, uintptr(d), uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)), uintptr(flags), 0, 0)
	return int(n), err
}

func (d descriptor) send(b []byte, flags int) (int, syscall.Errno) {
	raceRead(b)
	n, _, err := unix.RawSyscall6(unix.SYS_SENDTO, uintptr(d), uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)), uintptr(flags|unix.MSG_NOSIGNAL), 0, 0)
	return int(n), err
}

// accept takes a connection from a listening socket, and says whose it is.
func (d descriptor) accept() (accepted descriptor, peer netip.AddrPort, err syscall.Errno) {
	var sa unix.RawSockaddrInet6 // one of IPv4 is shorter
	size := uint32(unsafe.Sizeof(sa))
	n, _, err := unix.RawSyscall6(unix.SYS_ACCEPT4, uintptr(d), uintptr(unsafe.Pointer(&sa)), uintptr(unsafe.Pointer(&size)),
		unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0, 0)
	if err != 0 {
		return -1, netip.AddrPort{}, err
	}
	return descriptor(n), peerOf(&sa), 0
}

// peerOf is the address of a TCP peer; one that came over a dual-stack socket is
// unmapped.
func peerOf(sa *unix.RawSockaddrInet6) netip.AddrPort {
	var port [2]byte // in network byte order
	binary.NativeEndian.PutUint16(port[:], sa.Port)
	addr := netip.AddrFrom16(sa.Addr).Unmap()
	switch {
	case sa.Family == unix.AF_INET:
		addr = netip.AddrFrom4((*unix.RawSockaddrInet4)(unsafe.Pointer(sa)).Addr)
	case sa.Scope_id != 0 && addr.Is6():
		addr = addr.WithZone(zone(int(sa.Scope_id)))
	}
	return netip.AddrPortFrom(addr, binary.BigEndian.Uint16(port[:]))
}

// dismiss sends the last words, with the end of the stream behind them, in one
// segment.
func (d descriptor) dismiss(words []byte) {
	d.send(words, unix.MSG_MORE)
	unix.RawSyscall(unix.SYS_SHUTDOWN, uintptr(d), unix.SHUT_WR, 0)
}

// close does not wait: nothing lingers.
func (d descriptor) close() { unix.RawSyscall(unix.SYS_CLOSE, uintptr(d), 0, 0) }

// open makes a file of it, for which the runtime waits.
func (d descriptor) open() *os.File { return os.NewFile(uintptr(d), "tcp") }

// epoll is an epoll instance that the runtime waits for. Its methods may be called
// by several goroutines, but for wait.
type epoll struct {
	file   *os.File
	raw    syscall.RawConn
	fd     int
	events [64]syscall.EpollEvent
	try    func(fd uintptr) bool
	take   func(event)
}

// event is what is handed to wait when there is something to read.
type event struct{ key, turn int32 }

// newEpoll makes an instance whose events are handed to take.
func newEpoll(take func(event)) (*epoll, error) {
	fd, err := syscall.EpollCreate1(syscall.EPOLL_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("epoll_create1", err)
	}
	if err := syscall.SetNonblock(fd, true); err != nil { // else package os would not
		syscall.Close(fd)
		return nil, os.NewSyscallError("fcntl", err)
	}
	e := &epoll{file: os.NewFile(uintptr(fd), "epoll"), fd: fd, take: take}
	e.try = e.look
	if e.raw, err = e.file.SyscallConn(); err != nil {
		e.file.Close()
		return nil, err
	}
	return e, nil
}

// close ends wait, and waits until nobody is in it.
func (e *epoll) close() { e.file.Close() }

// control changes what is watched, unless the instance is closed: its number may
// be another file's then.
func (e *epoll) control(op int, d descriptor, events uint32, ev event) error {
	var failed error
	err := e.raw.Control(func(uintptr) {
		failed = syscall.EpollCtl(e.fd, op, int(d), &syscall.EpollEvent{Events: events, Fd: ev.key, Pad: ev.turn})
	})
	if err != nil {
		return net.ErrClosed
	}
	return os.NewSyscallError("epoll_ctl", failed)
}

// add watches d until it is removed or closed.
func (e *epoll) add(d descriptor, ev event) error {
	return e.control(syscall.EPOLL_CTL_ADD, d, syscall.EPOLLIN, ev)
}

// arm watches d for one event; again says that it was armed before.
func (e *epoll) arm(d descriptor, ev event, again bool) error {
	op := syscall.EPOLL_CTL_ADD
	if again {
		op = syscall.EPOLL_CTL_MOD
	}
	return e.control(op, d, syscall.EPOLLIN|syscall.EPOLLONESHOT, ev)
}

func (e *epoll) remove(d descriptor) { e.control(syscall.EPOLL_CTL_DEL, d, 0, event{}) }

// wait hands over the next events, until a deadline or the end.
func (e *epoll) wait() error {
	if err := e.raw.Read(e.try); err != nil {
		return endOfWait(err)
	}
	return nil
}

// look takes the events that there are; it returns false, to wait, where there are
// none.
func (e *epoll) look(fd uintptr) bool {
	n, _, err := unix.RawSyscall6(unix.SYS_EPOLL_PWAIT, fd, uintptr(unsafe.Pointer(&e.events[0])), uintptr(len(e.events)), 0, 0, 0)
	if err != 0 {
		return err == unix.EINTR
	}
	for _, ev := range e.events[:n] {
		e.take(event{ev.Fd, ev.Pad})
	}
	return n > 0
}

// endOfWait names what ends a wait: a deadline, or that the connection was
// closed here, for which package os has no exported error.
func endOfWait(err error) error {
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return os.ErrDeadlineExceeded
	}
	return net.ErrClosed
}

// Dead clients are noticed after some four minutes; that often, and no more, a
// telephone that waits in IDLE is woken up for it. Linux hands these options on
// to the connections that are accepted.
const (
	keepAliveIdle     = 120 // seconds
	keepAliveInterval = 30  // seconds
	keepAliveProbes   = 4
)

// ListenConfig is what listening sockets are best made with: connections have
// their options from the first one on. Multipath TCP, which package net turns on,
// is off: mail programs do not speak it, and each accept would ask for it.
func ListenConfig() net.ListenConfig {
	lc := net.ListenConfig{KeepAlive: -1, Control: func(_, _ string, c syscall.RawConn) error {
		var failed error
		return cmp.Or(c.Control(func(fd uintptr) { failed = setOptions(int(fd)) }), failed)
	}}
	lc.SetMultipathTCP(false)
	return lc
}

// keepAlive has an upstream noticed that has died, unless it is on this host.
func keepAlive(c tcpConn, upstream netip.Addr) {
	if tcp, ok := c.(*net.TCPConn); ok && !upstream.IsLoopback() {
		tcp.SetKeepAliveConfig(net.KeepAliveConfig{
			Enable: true, Idle: keepAliveIdle * time.Second, Interval: keepAliveInterval * time.Second, Count: keepAliveProbes,
		})
	}
}

func setOptions(fd int) error {
	for _, o := range acceptedOptions {
		if err := syscall.SetsockoptInt(fd, o.level, o.name, o.value); err != nil {
			return os.NewSyscallError("setsockopt", err)
		}
	}
	return nil
}

var acceptedOptions = []struct{ level, name, value int }{
	{syscall.IPPROTO_TCP, syscall.TCP_NODELAY, 1},
	{syscall.SOL_SOCKET, syscall.SO_KEEPALIVE, 1},
	{syscall.IPPROTO_TCP, syscall.TCP_KEEPIDLE, keepAliveIdle},
	{syscall.IPPROTO_TCP, syscall.TCP_KEEPINTVL, keepAliveInterval},
	{syscall.IPPROTO_TCP, syscall.TCP_KEEPCNT, keepAliveProbes},
}

// local is the address that a connection has reached.
func (d descriptor) local() (netip.AddrPort, syscall.Errno) {
	var sa unix.RawSockaddrInet6
	size := uint32(unsafe.Sizeof(sa))
	_, _, err := unix.RawSyscall(unix.SYS_GETSOCKNAME, uintptr(d), uintptr(unsafe.Pointer(&sa)), uintptr(unsafe.Pointer(&size)))
	return peerOf(&sa), err
}

// zone is the name of an interface, for link-local addresses.
func zone(index int) string {
	if i, err := net.InterfaceByIndex(index); err == nil {
		return i.Name
	}
	return strconv.Itoa(index)
}

// dismissConn is dismiss for a connection that has been opened.
func dismissConn(c tcpConn, words []byte) {
	if raw, err := c.SyscallConn(); err == nil {
		raw.Control(func(fd uintptr) { descriptor(fd).dismiss(words) })
	}
}

// pendingBytes reports whether there are bytes to read from c, without taking
// them.
func pendingBytes(c tcpConn) bool {
	raw, err := c.SyscallConn()
	if err != nil {
		return false
	}
	found := false
	raw.Read(func(fd uintptr) bool {
		found = descriptor(fd).pending()
		return true
	})
	return found
}

// pending reports whether there is something to read.
func (d descriptor) pending() bool {
	var b [1]byte
	n, err := d.recv(b[:], unix.MSG_PEEK|unix.MSG_DONTWAIT)
	return err == 0 && n > 0
}

// closeWrite sends the end of the stream.
func closeWrite(f *os.File) error {
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	if err := raw.Control(func(fd uintptr) { failed = syscall.Shutdown(int(fd), syscall.SHUT_WR) }); err != nil {
		return net.ErrClosed
	}
	return os.NewSyscallError("shutdown", failed)
}

// listening is the descriptor of a listening socket, with what connections are to
// inherit. The file keeps it open.
func listening(l *net.TCPListener) (f *os.File, d descriptor, err error) {
	if f, err = l.File(); err != nil {
		return nil, 0, err
	}
	raw, err := f.SyscallConn()
	if err == nil {
		var failed error
		err = cmp.Or(raw.Control(func(fd uintptr) { d, failed = descriptor(fd), setOptions(int(fd)) }), failed)
	}
	if err != nil {
		f.Close()
		return nil, 0, err
	}
	return f, d, nil
}
