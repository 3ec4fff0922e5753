package demo

import (
	"context"
	"errors"
	"net"
	"sync"
	"time"
)

// A listener ends with its context, and so do its connections. imapserver does not
// see to that: its own Close misses connections that are just starting, and waits
// for none.
type listener struct {
	net.Listener
	ctx     context.Context
	serving *sync.WaitGroup
}

// listen listens on a free port of 127.0.0.1. Each connection is in serving
// until the server has closed it.
func listen(ctx context.Context, serving *sync.WaitGroup) (*listener, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	context.AfterFunc(ctx, func() { l.Close() })
	return &listener{l, ctx, serving}, nil
}

// Accept returns the next connection. Its one error is net.ErrClosed: anything else
// (no descriptors left, say) passes, and is waited out.
func (l *listener) Accept() (net.Conn, error) {
	nc, err := l.Listener.Accept()
	for ; err != nil; nc, err = l.Listener.Accept() {
		if errors.Is(err, net.ErrClosed) {
			return nil, err
		}
		time.Sleep(10 * time.Millisecond)
	}
	l.serving.Add(1)
	stop := context.AfterFunc(l.ctx, func() { nc.Close() })
	return servedConn{nc, sync.OnceFunc(func() {
		stop()
		l.serving.Done()
	})}, nil
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
