package netpoll

import (
	"net"
	"os"
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
	slots  []slot
	free   []int32
	closed bool
}

// slot is a place for a connection. One that was left is used again; its
// generation tells an event for the new connection from a late one for the old.
type slot struct {
	conn       *Conn
	generation int32
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
	s := &IdleSet{file: os.NewFile(uintptr(fd), "epoll")}
	if s.raw, err = s.file.SyscallConn(); err != nil {
		s.file.Close()
		return nil, err
	}
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
		s.happened(e.Fd, e.Pad)
	}
	return n > 0
}

// happened resumes the connection that an event is for, if it is still parked.
func (s *IdleSet) happened(i, generation int32) {
	s.mu.Lock()
	var c *Conn
	if slot := s.slots[i]; slot.conn != nil && slot.generation == generation {
		c = s.leave(i)
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
	var parked []*Conn
	for i, slot := range s.slots {
		if slot.conn != nil {
			parked = append(parked, s.leave(int32(i)))
		}
	}
	s.mu.Unlock()
	s.file.Close() // waits until nobody uses the descriptor
	for _, c := range parked {
		c.resume()
	}
}

// Len is how many connections are parked.
func (s *IdleSet) Len() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.slots) - len(s.free)
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
	i := s.take(c)
	if s.arm(c, i) != nil {
		s.leave(i)
		return false
	}
	c.known = true
	return true
}

// arm has the epoll instance report c once.
func (s *IdleSet) arm(c *Conn, i int32) error {
	op := unix.EPOLL_CTL_ADD
	if c.known {
		op = unix.EPOLL_CTL_MOD
	}
	e := &unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLONESHOT, Fd: i, Pad: s.slots[i].generation}
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
	parked := c.parked
	if parked {
		s.leave(c.slot)
	}
	s.mu.Unlock()
	if parked {
		c.resume()
	}
}

// take gives c a slot; mu is held.
func (s *IdleSet) take(c *Conn) (i int32) {
	if n := len(s.free); n > 0 {
		i = s.free[n-1]
		s.free = s.free[:n-1]
	} else {
		i = int32(len(s.slots))
		s.slots = append(s.slots, slot{})
	}
	s.slots[i].conn = c
	c.slot, c.parked = i, true
	return i
}

// leave empties a slot; mu is held.
func (s *IdleSet) leave(i int32) *Conn {
	c := s.slots[i].conn
	s.slots[i] = slot{generation: s.slots[i].generation + 1}
	s.free = append(s.free, i)
	c.parked = false
	return c
}
