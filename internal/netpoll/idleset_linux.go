package netpoll

import (
	"maps"
	"net"
	"os"
	"slices"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// IdleSet holds parked connections. It waits for all of them by one epoll
// instance, which the runtime in turn waits for.
type IdleSet struct {
	file   *os.File
	raw    syscall.RawConn
	events [64]unix.EpollEvent

	mu     sync.Mutex
	parked map[uint64]*Conn
	// last is the number of the last parking. None is used again, so that a late event
	// is for nobody.
	last   uint64
	closed bool
}

// NewIdleSet makes a set. Run has to run, and Close ends it.
func NewIdleSet() (*IdleSet, error) {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("epoll_create1", err)
	}
	if err := unix.SetNonblock(fd, true); err != nil { // else package os would not poll
		unix.Close(fd)
		return nil, os.NewSyscallError("fcntl", err)
	}
	s := &IdleSet{file: os.NewFile(uintptr(fd), "epoll"), parked: make(map[uint64]*Conn)}
	s.raw, _ = s.file.SyscallConn() // it is open
	return s, nil
}

// Run resumes connections that there is something to read from, until Close.
func (s *IdleSet) Run() {
	try := s.resumeReady
	for s.raw.Read(try) == nil {
	}
}

// resumeReady takes the events that there are; it returns false, to wait, where
// there are none.
func (s *IdleSet) resumeReady(fd uintptr) bool {
	n, err := unix.EpollWait(int(fd), s.events[:], 0)
	if err != nil {
		return err == unix.EINTR
	}
	for _, e := range s.events[:n] {
		s.happened(uint64(uint32(e.Fd)) | uint64(e.Pad)<<32)
	}
	return n > 0
}

// happened resumes the connection that an event is for, if it is still parked; 0 is for
// nobody.
func (s *IdleSet) happened(parking uint64) {
	s.mu.Lock()
	c := s.parked[parking]
	if c != nil {
		s.leave(c)
	}
	s.mu.Unlock()
	if c != nil {
		c.resume()
	}
}

// Close ends the set, and resumes the connections that are still parked.
func (s *IdleSet) Close() {
	s.mu.Lock()
	s.closed = true
	parked := slices.Collect(maps.Keys(s.parked))
	s.mu.Unlock()
	s.file.Close() // waits until nobody uses the descriptor
	for _, parking := range parked {
		s.happened(parking)
	}
}

// Len is how many connections are parked.
func (s *IdleSet) Len() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.parked)
}

// Park puts c aside until there is something to read, c is closed, or Unpark is
// called; then it is resumed. Where Park returns true that may have happened
// already, and c belongs to another goroutine. It returns false where c cannot be
// parked.
func (c *Conn) Park() bool {
	s := c.IdleSet
	s.mu.Lock()
	defer s.mu.Unlock()
	if c.awake || s.closed {
		return false
	}
	s.take(c)
	if s.arm(c) != nil {
		s.leave(c)
		return false
	}
	c.known = true
	return true
}

// arm has the epoll instance report c once.
func (s *IdleSet) arm(c *Conn) error {
	op := unix.EPOLL_CTL_ADD
	if c.known {
		op = unix.EPOLL_CTL_MOD
	}
	e := &unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLONESHOT, Fd: int32(c.parking), Pad: int32(c.parking >> 32)}
	err := net.ErrClosed
	c.raw.Control(func(fd uintptr) {
		s.raw.Control(func(epoll uintptr) { err = unix.EpollCtl(int(epoll), op, int(fd), e) })
	})
	return err
}

// Unpark resumes c if it is parked, and keeps it from being parked again.
func (c *Conn) Unpark() {
	s := c.IdleSet
	s.mu.Lock()
	c.awake = true
	parking := c.parking
	s.mu.Unlock()
	s.happened(parking)
}

// take puts c into the set; mu is held.
func (s *IdleSet) take(c *Conn) {
	s.last++
	c.parking = s.last
	s.parked[c.parking] = c
}

// leave takes c out of the set; mu is held.
func (s *IdleSet) leave(c *Conn) {
	delete(s.parked, c.parking)
	c.parking = 0
}
