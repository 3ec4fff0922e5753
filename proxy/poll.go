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
	"sync"
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
func (p *poller) readNow(b []byte) (int, error) { return readNow(int(p.fd), b) }

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
		n, err := send(int(fd), p.out, 0)
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

// readNow reads what there is; where there is nothing it does not wait.
func readNow(fd int, b []byte) (int, error) {
	for {
		n, err := recv(fd, b, 0)
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

func recv(fd int, b []byte, flags int) (int, syscall.Errno) {
	raceWrite(b)
	n, _, err := unix.RawSyscall6(unix.SYS_RECVFROM, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)), uintptr(flags), 0, 0)
	return int(n), err
}

func send(fd int, b []byte, flags int) (int, syscall.Errno) {
	raceRead(b)
	n, _, err := unix.RawSyscall6(unix.SYS_SENDTO, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)), uintptr(flags|unix.MSG_NOSIGNAL), 0, 0)
	return int(n), err
}

// epollWait takes the events that there are, and does not wait.
func epollWait(fd int, events []syscall.EpollEvent) (int, syscall.Errno) {
	n, _, err := unix.RawSyscall6(unix.SYS_EPOLL_PWAIT, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(events))), uintptr(len(events)), 0, 0, 0)
	if err != 0 {
		return 0, err
	}
	return int(n), 0
}

// accept takes a connection from a listening socket, and says whose it is.
func accept(listening int) (fd int, peer netip.AddrPort, err syscall.Errno) {
	var sa unix.RawSockaddrInet6 // one of IPv4 is shorter
	size := uint32(unsafe.Sizeof(sa))
	n, _, err := unix.RawSyscall6(unix.SYS_ACCEPT4, uintptr(listening), uintptr(unsafe.Pointer(&sa)), uintptr(unsafe.Pointer(&size)),
		unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0, 0)
	if err != 0 {
		return -1, netip.AddrPort{}, err
	}
	return int(n), peerOf(&sa), 0
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
func dismiss(fd int, words []byte) {
	send(fd, words, unix.MSG_MORE)
	unix.RawSyscall(unix.SYS_SHUTDOWN, uintptr(fd), unix.SHUT_WR, 0)
}

// endOfWait names what ends a wait: a deadline, or that the connection was
// closed here, for which package os has no exported error.
func endOfWait(err error) error {
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return os.ErrDeadlineExceeded
	}
	return net.ErrClosed
}

// lot is where pollers park. A slot that was left is given to another one; its
// turn tells an event for that one from a late event for the one before.
type lot struct {
	raw    syscall.RawConn // of file
	file   *os.File        // the epoll instance
	fd     int
	events [128]syscall.EpollEvent

	mu     sync.Mutex
	slots  []slot
	free   []int32
	closed bool
}

type slot struct {
	p    *poller
	turn int32
}

// openLot makes a lot; watch has to run, and close ends it.
func openLot() (l *lot, err error) {
	l = new(lot)
	if l.file, l.fd, err = newEpoll(); err != nil {
		return nil, err
	}
	if l.raw, err = l.file.SyscallConn(); err != nil {
		l.file.Close()
		return nil, err
	}
	return l, nil
}

// close ends the lot, and resumes who is still parked.
func (l *lot) close() {
	l.mu.Lock()
	l.closed = true
	var parked []*poller
	for i, s := range l.slots {
		if s.p != nil {
			parked = append(parked, l.leave(int32(i)))
		}
	}
	l.mu.Unlock()
	l.file.Close()
	for _, p := range parked {
		p.resume()
	}
}

// park puts p aside until there is something to read, its connection is
// closed, or it is told to stay; then it is resumed. Where park returns true
// that may have happened already, and p belongs to another goroutine. It
// returns false where p cannot be parked.
func (p *poller) park() bool {
	l := p.lot
	l.mu.Lock()
	defer l.mu.Unlock()
	if p.staying || l.closed {
		return false
	}
	i := l.take(p)
	event := syscall.EpollEvent{Events: syscall.EPOLLIN | syscall.EPOLLONESHOT, Fd: i, Pad: l.slots[i].turn}
	op := syscall.EPOLL_CTL_ADD
	if p.known {
		op = syscall.EPOLL_CTL_MOD
	}
	var failed error
	err := p.raw.Control(func(fd uintptr) { failed = syscall.EpollCtl(l.fd, op, int(fd), &event) })
	if err != nil || failed != nil {
		l.leave(i)
		return false
	}
	p.known = true
	return true
}

// stay resumes p if it is parked, and keeps it from parking again.
func (p *poller) stay() {
	p.lot.mu.Lock()
	p.staying = true
	parked := p.parked
	if parked {
		p.lot.leave(p.slot)
	}
	p.lot.mu.Unlock()
	if parked {
		p.resume()
	}
}

// take gives p a slot; mu is held.
func (l *lot) take(p *poller) (i int32) {
	if n := len(l.free); n > 0 {
		i = l.free[n-1]
		l.free = l.free[:n-1]
	} else {
		i = int32(len(l.slots))
		l.slots = append(l.slots, slot{})
	}
	l.slots[i].p = p
	p.slot, p.parked = i, true
	return i
}

// leave empties a slot; mu is held.
func (l *lot) leave(i int32) *poller {
	p := l.slots[i].p
	l.slots[i] = slot{turn: l.slots[i].turn + 1}
	l.free = append(l.free, i)
	p.parked = false
	return p
}

// watch resumes the pollers that there is something to read for, until close.
func (l *lot) watch() { l.raw.Read(l.look) }

// look takes the events that there are; it returns false, to wait for more.
func (l *lot) look(fd uintptr) bool {
	for {
		n, err := epollWait(int(fd), l.events[:])
		if err == syscall.EINTR {
			continue
		}
		if n <= 0 {
			return false
		}
		for _, e := range l.events[:n] {
			l.happened(e)
		}
	}
}

// happened resumes the poller that an event is for, if it is still parked.
func (l *lot) happened(e syscall.EpollEvent) {
	l.mu.Lock()
	var p *poller
	if s := l.slots[e.Fd]; s.p != nil && s.turn == e.Pad {
		p = l.leave(e.Fd)
	}
	l.mu.Unlock()
	if p != nil {
		p.resume()
	}
}

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

	epoll     *os.File
	raw       syscall.RawConn // of epoll
	fd        int             // of epoll
	listening int
	try       func(fd uintptr) bool
	events    [64]syscall.EpollEvent

	room  map[int32]arrival // by descriptor
	next  []arrival         // to be handed out
	given int               // of these
	err   error             // of the last accept4
}

const (
	// roomSize is how many may wait in the room, and roomTime how long at least;
	// at most it is twice that.
	roomSize = 256
	roomTime = 50 * time.Millisecond
)

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

// keepAlive has a dead upstream noticed, as far as it is not on this host.
func keepAlive(c tcpConn) {
	if tcp, ok := c.(*net.TCPConn); ok && !addrPort(c.RemoteAddr()).Addr().IsLoopback() {
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

// newAcceptor takes a listener over, which is closed with the acceptor.
func newAcceptor(nl net.Listener) (*acceptor, error) {
	tcp, ok := nl.(*net.TCPListener)
	if !ok {
		return &acceptor{listener: nl}, nil
	}
	defer tcp.Close()
	a := &acceptor{room: make(map[int32]arrival)}
	a.try = a.look
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
	if a.epoll, a.fd, err = newEpoll(); err != nil {
		return err
	}
	if a.raw, err = a.epoll.SyscallConn(); err != nil {
		return err
	}
	if a.socket, err = tcp.File(); err != nil {
		return err
	}
	raw, err := a.socket.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	err = raw.Control(func(fd uintptr) {
		a.listening = int(fd)
		failed = cmp.Or(setOptions(int(fd)), os.NewSyscallError("epoll_ctl", watch(a.fd, int(fd))))
	})
	return cmp.Or(err, failed)
}

// newEpoll makes an epoll instance that the runtime can wait for.
func newEpoll() (*os.File, int, error) {
	fd, err := syscall.EpollCreate1(syscall.EPOLL_CLOEXEC)
	if err != nil {
		return nil, -1, os.NewSyscallError("epoll_create1", err)
	}
	if err := syscall.SetNonblock(fd, true); err != nil { // else package os would not
		syscall.Close(fd)
		return nil, -1, os.NewSyscallError("fcntl", err)
	}
	return os.NewFile(uintptr(fd), "epoll"), fd, nil
}

func watch(epoll, fd int) error {
	return syscall.EpollCtl(epoll, syscall.EPOLL_CTL_ADD, fd, &syscall.EpollEvent{Events: syscall.EPOLLIN, Fd: int32(fd)})
}

// close ends accept with net.ErrClosed. The epoll instance goes first: that waits
// until nobody uses the listening descriptor.
func (a *acceptor) close() {
	if a.listener != nil {
		a.listener.Close()
		return
	}
	for _, f := range []*os.File{a.epoll, a.socket} {
		if f != nil {
			f.Close()
		}
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
		err := a.raw.Read(a.try)
		switch {
		case err == nil && a.err != nil:
			err, a.err = a.err, nil
			return arrival{}, err
		case err == nil:
		case endOfWait(err) == os.ErrDeadlineExceeded:
			a.clearRoom(time.Now().Add(-roomTime))
		default:
			a.clearRoom(time.Now())
			for _, n := range a.next {
				unix.Close(n.fd)
			}
			return arrival{}, net.ErrClosed
		}
	}
	a.given++
	return a.next[a.given-1], nil
}

// wait leaves a client in the room, if there is a place in it.
func (a *acceptor) wait(n arrival) bool {
	if n.waited || n.conn != nil || len(a.room) >= roomSize || a.control(func() error { return watch(a.fd, n.fd) }) != nil {
		return false
	}
	if len(a.room) == 0 {
		a.epoll.SetReadDeadline(n.at.Add(roomTime))
	}
	n.waited = true
	a.room[int32(n.fd)] = n
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
		a.epoll.SetReadDeadline(time.Now().Add(roomTime))
	}
}

// control does something with the epoll instance, unless that is closed.
func (a *acceptor) control(do func() error) (failed error) {
	if err := a.raw.Control(func(uintptr) { failed = do() }); err != nil {
		return net.ErrClosed
	}
	return failed
}

// leave hands out one who has waited.
func (a *acceptor) leave(n arrival) {
	delete(a.room, int32(n.fd))
	a.control(func() error { return syscall.EpollCtl(a.fd, syscall.EPOLL_CTL_DEL, n.fd, nil) })
	if len(a.room) == 0 {
		a.epoll.SetReadDeadline(time.Time{})
	}
	a.next = append(a.next, n)
}

// look looks who is there; it returns false where that is nobody, to wait.
func (a *acceptor) look(fd uintptr) bool {
	n, err := epollWait(int(fd), a.events[:])
	if err == syscall.EINTR {
		return true
	}
	for _, e := range a.events[:max(n, 0)] {
		if n, ok := a.room[e.Fd]; ok {
			a.leave(n)
			continue
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
	return n > 0
}

func (a *acceptor) acceptOne() (arrival, syscall.Errno) {
	fd, peer, err := accept(a.listening)
	if err != 0 {
		return arrival{}, err
	}
	n := arrival{fd: fd, local: a.local, peer: peer, at: time.Now()}
	if !n.local.IsValid() {
		if n.local, err = localOf(fd); err != 0 {
			unix.Close(fd)
		}
	}
	return n, err
}

// localOf is the address that a connection has reached.
func localOf(fd int) (netip.AddrPort, syscall.Errno) {
	var sa unix.RawSockaddrInet6
	size := uint32(unsafe.Sizeof(sa))
	_, _, err := unix.RawSyscall(unix.SYS_GETSOCKNAME, uintptr(fd), uintptr(unsafe.Pointer(&sa)), uintptr(unsafe.Pointer(&size)))
	return peerOf(&sa), err
}

// zone is the name of an interface, for link-local addresses.
func zone(index int) string {
	if i, err := net.InterfaceByIndex(index); err == nil {
		return i.Name
	}
	return strconv.Itoa(index)
}

// arrival is a connection that has been accepted, and that nobody waits for
// yet: a bare descriptor, or conn where it came by a net.Listener.
type arrival struct {
	fd          int
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
	return readNow(a.fd, b)
}

// pending reports whether more has come than was read.
func (a *arrival) pending() bool { return a.conn != nil || pending(a.fd) }

// dismiss sends the last words, with the end of the stream, and closes. What
// comes in this moment is answered with a reset, but behind the words.
func (a *arrival) dismiss(words []byte) {
	dismiss(a.fd, words)
	unix.RawSyscall(unix.SYS_CLOSE, uintptr(a.fd), 0, 0) // nothing lingers, nothing waits
}

// open makes a connection of it.
func (a *arrival) open() tcpConn {
	if a.conn != nil {
		return a.conn
	}
	return &socket{file: os.NewFile(uintptr(a.fd), "tcp"), local: a.local, peer: a.peer}
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
func (c *socket) CloseWrite() error {
	raw, err := c.file.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	if err := raw.Control(func(fd uintptr) { failed = syscall.Shutdown(int(fd), syscall.SHUT_WR) }); err != nil {
		return net.ErrClosed
	}
	return os.NewSyscallError("shutdown", failed)
}

// dismissConn is dismiss for a connection that has been opened.
func dismissConn(c tcpConn, words []byte) {
	if raw, err := c.SyscallConn(); err == nil {
		raw.Control(func(fd uintptr) { dismiss(int(fd), words) })
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
		found = pending(int(fd))
		return true
	})
	return found
}

func pending(fd int) bool {
	var b [1]byte
	n, err := recv(fd, b[:], unix.MSG_PEEK|unix.MSG_DONTWAIT)
	return err == 0 && n > 0
}
