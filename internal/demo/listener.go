package demo

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"time"
)

// A listener bounds its connections, and ends with its context, as they do.
// imapserver does neither: its own Close misses connections that are just
// starting, and waits for none.
type listener struct {
	net.Listener
	ctx     context.Context
	busy    string        // said to a connection over the bound
	slots   chan struct{} // holds a value for each connection, and no more than the bound
	serving *sync.WaitGroup
}

// listen listens on a free port of 127.0.0.1. Each connection is in serving
// until the server has closed it.
func listen(ctx context.Context, serving *sync.WaitGroup, bound int, busy string) (*listener, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	context.AfterFunc(ctx, func() { l.Close() })
	return &listener{l, ctx, busy, make(chan struct{}, bound), serving}, nil
}

// Accept returns the next connection that is within the bound. Its one error is
// net.ErrClosed: anything else (no descriptors left, say) passes, and is waited
// out.
func (l *listener) Accept() (net.Conn, error) {
	for {
		nc, err := l.Listener.Accept()
		if errors.Is(err, net.ErrClosed) {
			return nil, err
		}
		if err != nil {
			time.Sleep(10 * time.Millisecond)
			continue
		}
		select {
		case l.slots <- struct{}{}:
			return l.admit(nc), nil
		default:
			nc.SetWriteDeadline(time.Now().Add(time.Second))
			io.WriteString(nc, l.busy)
			nc.Close()
		}
	}
}

func (l *listener) admit(nc net.Conn) net.Conn {
	l.serving.Add(1)
	stop := context.AfterFunc(l.ctx, func() { nc.Close() })
	return servedConn{nc, sync.OnceFunc(func() {
		stop()
		<-l.slots
		l.serving.Done()
	})}
}

// A servedConn is served until its Close, which servers call as the last thing
// that they do.
type servedConn struct {
	net.Conn
	closed func()
}

func (c servedConn) Close() error {
	defer c.closed()
	return c.Conn.Close()
}
