//go:build unix

package proxy

import (
	"io"
	"syscall"
)

// This is the one file that knows about file descriptors.
//
// A session that has logged in may be silent for half an hour, and there may be
// a hundred thousand of them. So nothing is held for it while it is silent: a
// buffer is taken only when there is something to read. crypto/tls wants a
// buffer before it waits; the poller turns that round. It calls the reader,
// with a buffer from the pool, inside RawConn.Read: the runtime resets its
// readiness before that call, so that what arrives between a read that found
// nothing and the wait is not missed. In there the connection's own Read asks
// the descriptor once, and returns errWouldBlock instead of waiting.

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
}

// start makes p read from c by way of read; nil means from c itself.
func (p *poller) start(c tcpConn, read func([]byte) (int, error)) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	p.raw, p.read, p.active = raw, read, true
	if read == nil {
		p.read = p.readNow
	}
	p.try = p.tryRead
	return nil
}

// next waits until there is something to read and returns it in a buffer that
// the caller puts back; nil with an error. The connection's read deadline
// applies.
func (p *poller) next() (*buffer, int, error) {
	p.buf, p.n, p.err = nil, 0, nil
	if err := p.raw.Read(p.try); err != nil {
		return nil, 0, err
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
		return false
	}
	if err == errWouldBlock {
		err = nil
	}
	p.buf, p.n, p.err = buf, n, err
	return true
}

// readNow reads once, inside of next only.
func (p *poller) readNow(b []byte) (int, error) {
	for {
		n, err := syscall.Read(int(p.fd), b)
		switch {
		case err == syscall.EINTR:
			continue
		case err == syscall.EAGAIN:
			return 0, errWouldBlock
		case err != nil:
			return 0, err
		case n == 0 && len(b) > 0:
			return 0, io.EOF
		}
		return n, nil
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
		var b [1]byte
		n, _, err := syscall.Recvfrom(int(fd), b[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
		found = err == nil && n > 0
		return true
	})
	return found
}
