//go:build !linux

package netpoll

import (
	"net"
	"time"
)

type poller struct {
	read func([]byte) (int, error)
}

func (c *Conn) start(read func([]byte) (int, error), _ func()) { c.read = read }

// Next waits until there is something to read and returns it in a buffer that
// the caller puts back; nil with an error. The read deadline applies.
func (c *Conn) Next() (*Buffer, int, error) {
	buf := GetBuffer()
	n, err := c.read(buf[:])
	if n == 0 {
		buf.Put()
		buf = nil
	}
	return buf, n, err
}

// Drained is never asked to good effect: nothing parks.
func (c *Conn) Drained() bool { return true }

func (c *Conn) readNow(p []byte) (int, error) { return c.Socket.Read(p) }

func (c *Conn) write(p []byte) (int, error) {
	c.SetWriteDeadline(time.Now().Add(time.Duration(c.writeTimeout.Load())))
	return c.Socket.Write(p)
}

// WriteLast writes p and the end of the stream.
func (c *Conn) WriteLast(p []byte) {
	c.Socket.Write(p)
	c.CloseWrite()
}

// Together is write: whether its segments leave together is for the kernel to say.
func (c *Conn) Together(write func() (int, error)) (int, error) { return write() }

// ReadAvailable reads nothing: what is there cannot be told without a descriptor.
func (c *Conn) ReadAvailable(p []byte) (int, error) { return 0, ErrWouldBlock }

// Pending cannot be told without a descriptor.
func (c *Conn) Pending() bool { return false }

// Park does nothing.
func (c *Conn) Park() bool { return false }

// Unpark does nothing.
func (c *Conn) Unpark() {}

// IdleSet stays empty.
type IdleSet struct{ over chan struct{} }

// NewIdleSet makes a set. Run has to run, and Close ends it.
func NewIdleSet() (*IdleSet, error) { return &IdleSet{make(chan struct{})}, nil }

// Run waits for Close.
func (s *IdleSet) Run() { <-s.over }

// Close ends the set.
func (s *IdleSet) Close() { close(s.over) }

// ListenConfig makes listening sockets whose connections are kept alive.
// deferAccept has no effect.
func ListenConfig(deferAccept bool) net.ListenConfig {
	return net.ListenConfig{KeepAliveConfig: keepAlive}
}
