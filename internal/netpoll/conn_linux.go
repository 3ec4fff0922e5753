package netpoll

import (
	"cmp"
	"io"
	"net"
	"os"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// poller is what polling needs of a Conn on Linux.
type poller struct {
	raw    syscall.RawConn
	resume func()

	// Of the read under way. try is tryRead, made once.
	try   func(fd uintptr) bool
	read  func([]byte) (int, error)
	fd    int
	buf   *Buffer
	n     int
	err   error
	empty bool // the last read has found nothing

	// Of the write under way: what is still to be written, and what has failed.
	put    func(fd uintptr) bool
	out    []byte
	outErr error
	waited bool

	// Guarded by the idle set: the number of the parking, 0 if it is not parked; whether
	// the epoll instance knows the descriptor; whether it may not be parked any more.
	parking      uint64
	known, awake bool
}

func (c *Conn) start(read func([]byte) (int, error), resume func()) {
	c.read, c.resume, c.try, c.put = read, resume, c.tryRead, c.tryWrite
	c.raw, _ = c.SyscallConn()
}

// Next waits until there is something to read and returns it in a buffer that
// the caller puts back; nil with an error. The read deadline applies.
func (c *Conn) Next() (*Buffer, int, error) {
	c.empty = false
	if err := c.raw.Read(c.try); err != nil {
		return nil, 0, err
	}
	return c.buf, c.n, c.err
}

// tryRead runs inside RawConn.Read: the runtime resets its readiness before each
// call, so that what arrives between a read that found nothing and the wait is not
// missed.
func (c *Conn) tryRead(fd uintptr) bool {
	c.fd = int(fd)
	buf := GetBuffer()
	n, err := c.read(buf[:])
	if n == 0 {
		buf.Put()
		buf = nil
	}
	c.empty = n == 0 && err == ErrWouldBlock
	if err == ErrWouldBlock {
		err = nil
	}
	c.buf, c.n, c.err = buf, n, err
	return !c.empty
}

// Drained reports whether the last Next found nothing to read. It may have
// reached its deadline before it tried: then the reader may hold something of
// which the descriptor knows nothing.
func (c *Conn) Drained() bool { return c.empty }

// readNow reads what there is, inside Next.
func (c *Conn) readNow(p []byte) (int, error) { return readOnce(c.fd, p, 0) }

// readOnce reads what there is, and does not wait.
func readOnce(fd int, p []byte, flags int) (int, error) {
	for {
		n, err := recv(fd, p, flags)
		switch {
		case err == unix.EINTR:
			continue
		case err == unix.EAGAIN:
			return 0, ErrWouldBlock
		case err != nil:
			return 0, &net.OpError{Op: "read", Net: "tcp", Err: os.NewSyscallError("read", err)}
		case n == 0 && len(p) > 0:
			return 0, io.EOF
		}
		return n, nil
	}
}

// write sets a deadline only where it has to wait: to set one costs more than a
// short write does.
func (c *Conn) write(p []byte) (int, error) {
	c.out, c.outErr, c.waited = p, nil, false
	err := cmp.Or(c.raw.Write(c.put), os.NewSyscallError("write", c.outErr))
	if c.waited && err == nil {
		c.SetWriteDeadline(time.Time{})
	}
	n := len(p) - len(c.out)
	c.out = nil
	return n, err
}

func (c *Conn) tryWrite(fd uintptr) bool {
	for len(c.out) > 0 {
		n, err := send(int(fd), c.out)
		switch err {
		case nil:
			c.out = c.out[n:]
		case unix.EINTR:
		case unix.EAGAIN:
			c.waited = true
			c.boundWrite()
			return false
		default:
			c.outErr = err
			return true
		}
	}
	return true
}

// boundWrite sets the deadline of a write that has to wait.
func (c *Conn) boundWrite() {
	for timeout := c.writeTimeout.Load(); ; {
		c.SetWriteDeadline(time.Now().Add(time.Duration(timeout)))
		now := c.writeTimeout.Load()
		if now == timeout {
			return
		}
		timeout = now // ShortenDeadline has been called
	}
}

// ReadAvailable reads what has come already: ErrWouldBlock where that is nothing.
func (c *Conn) ReadAvailable(p []byte) (n int, err error) { return c.receive(p, 0) }

// Pending reports whether there are bytes to read, without taking them.
func (c *Conn) Pending() bool {
	n, _ := c.receive(make([]byte, 1), unix.MSG_PEEK)
	return n > 0
}

// receive reads outside of Next, without waiting.
func (c *Conn) receive(p []byte, flags int) (n int, err error) {
	raw, _ := c.SyscallConn()
	failed := raw.Read(func(fd uintptr) bool {
		n, err = readOnce(int(fd), p, flags)
		return true
	})
	return n, cmp.Or(failed, err)
}

// WriteLast writes p, which is short, and the end of the stream behind it, in one
// segment.
func (c *Conn) WriteLast(p []byte) {
	raw, _ := c.SyscallConn()
	raw.Control(func(fd uintptr) {
		unix.Sendto(int(fd), p, unix.MSG_MORE|unix.MSG_NOSIGNAL, nil)
		unix.Shutdown(int(fd), unix.SHUT_WR)
	})
}

// Together sends what write writes in as few segments as it takes.
func (c *Conn) Together(write func() (int, error)) (int, error) {
	raw, _ := c.SyscallConn()
	cork := func(on int) {
		raw.Control(func(fd uintptr) { unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_CORK, on) })
	}
	cork(1)
	defer cork(0)
	return write()
}

// The two calls that are made for every chunk are ones that the runtime is not told
// of. Neither blocks, since the descriptor does not. For a call that it is told of,
// the runtime gets ready to take the thread's place, and its monitor wakes up every
// 20 µs to see whether it has to: a tenth of the CPU time of a round trip. The price
// is that a collection may have to wait for the copy of a buffer.

func recv(fd int, p []byte, flags int) (int, error) {
	raceWrite(p)
	n, _, err := unix.RawSyscall6(unix.SYS_RECVFROM, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)), uintptr(flags), 0, 0)
	if err != 0 {
		return 0, err
	}
	return int(n), nil
}

func send(fd int, p []byte) (int, error) {
	raceRead(p)
	n, _, err := unix.RawSyscall6(unix.SYS_SENDTO, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)), unix.MSG_NOSIGNAL, 0, 0)
	if err != 0 {
		return 0, err
	}
	return int(n), nil
}
