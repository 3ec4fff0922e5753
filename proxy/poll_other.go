//go:build !linux

package proxy

import (
	"errors"
	"net"
	"net/netip"
	"sync/atomic"
	"time"
)

// Elsewhere than on Linux the gate serves by what package net offers, so that
// it can be worked on there: a waiting session keeps its goroutines and buffers.

var errWouldBlock = errors.New("nothing to read now")

type poller struct {
	active bool
	conn   tcpConn
	read   func([]byte) (int, error)
	lot    *lot

	patience atomic.Int64
}

func (p *poller) start(c tcpConn, read func([]byte) (int, error), patience time.Duration, _ func()) error {
	p.conn, p.read, p.active = c, read, true
	p.patience.Store(int64(patience))
	if read == nil {
		p.read = c.Read
	}
	return nil
}

func (p *poller) next() (*buffer, int, error) {
	buf := getBuffer()
	n, err := p.read(buf[:])
	if n == 0 {
		buf.put()
		buf = nil
	}
	return buf, n, err
}

func (p *poller) write(b []byte) (int, error) {
	p.conn.SetWriteDeadline(time.Now().Add(time.Duration(p.patience.Load())))
	return p.conn.Write(b)
}

func (p *poller) hurry(patience time.Duration) {
	p.patience.Store(int64(patience))
	if p.conn != nil {
		p.conn.SetWriteDeadline(time.Now().Add(patience))
	}
}

func (p *poller) readNow(b []byte) (int, error) { return p.conn.Read(b) }

func (p *poller) park() bool    { return false }
func (p *poller) drained() bool { return true }
func (p *poller) stay()         {}

type lot struct{ over chan struct{} }

func openLot() (*lot, error) { return &lot{make(chan struct{})}, nil }
func (l *lot) watch()        { <-l.over }
func (l *lot) close()        { close(l.over) }

type acceptor struct{ listener net.Listener }

func newAcceptor(nl net.Listener) (*acceptor, error) { return &acceptor{nl}, nil }
func (a *acceptor) close()                           { a.listener.Close() }

func (a *acceptor) accept() (arrival, error) {
	c, err := a.listener.Accept()
	if err != nil {
		return arrival{}, err
	}
	return arrival{conn: c.(tcpConn), local: addrPort(c.LocalAddr()), peer: addrPort(c.RemoteAddr()), at: time.Now()}, nil
}

func (a *acceptor) wait(arrival) bool { return false }

type arrival struct {
	conn        tcpConn
	local, peer netip.AddrPort
	at          time.Time
}

func (a *arrival) readNow([]byte) (int, error) { return 0, errWouldBlock }
func (a *arrival) pending() bool               { return true }
func (a *arrival) dismiss([]byte)              {}
func (a *arrival) open() tcpConn               { return a.conn }

// pendingBytes cannot be told without a descriptor.
func pendingBytes(tcpConn) bool { return false }

func dismissConn(c tcpConn, words []byte) {
	c.Write(words)
	c.CloseWrite()
}

// ListenConfig is what listening sockets are best made with.
func ListenConfig() net.ListenConfig { return net.ListenConfig{} }

func keepAlive(tcpConn, netip.Addr) {}
