package demo

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"time"
)

// A listener accepts a bounded number of connections, and ends with its
// context, as they all do. imapserver does neither: its Close misses
// connections that are just starting, and waits for none.
type listener struct {
	net.Listener
	ctx    context.Context
	busy   string // said to a connection over the bound
	slots  chan struct{}
	served sync.WaitGroup
}

func newListener(ctx context.Context, l net.Listener, max int, busy string) *listener {
	context.AfterFunc(ctx, func() { l.Close() })
	return &listener{Listener: l, ctx: ctx, busy: busy, slots: make(chan struct{}, max)}
}

// Accept returns the next connection that is within the bound. Its one error
// is net.ErrClosed: anything else (no descriptors left, say) passes, and is
// waited out.
func (l *listener) Accept() (net.Conn, error) {
	for {
		nc, err := l.Listener.Accept()
		if errors.Is(err, net.ErrClosed) {
			return nil, net.ErrClosed
		}
		if err != nil {
			time.Sleep(10 * time.Millisecond)
			continue
		}
		select {
		case l.slots <- struct{}{}:
			return l.conn(nc), nil
		default:
			nc.SetWriteDeadline(time.Now().Add(time.Second))
			io.WriteString(nc, l.busy)
			nc.Close()
		}
	}
}

// conn is a connection that whoever serves it closes as the last thing.
type conn struct {
	net.Conn
	closed func()
}

func (l *listener) conn(nc net.Conn) conn {
	l.served.Add(1)
	stop := context.AfterFunc(l.ctx, func() { nc.Close() })
	return conn{nc, sync.OnceFunc(func() {
		stop()
		<-l.slots
		l.served.Done()
	})}
}

func (c conn) Close() error {
	defer c.closed()
	return c.Conn.Close()
}
