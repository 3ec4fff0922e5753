package mailbox

import (
	"errors"
	"io"
	"net"
	"sync"
	"time"
)

// A crowd is a listener that knows its connections: it turns away those over
// a bound, and its Close ends them all. imapserver does neither: its own Close
// misses connections that are just starting, and waits for none.
type crowd struct {
	net.Listener
	max  int
	busy string // said to a connection over the bound

	mu      sync.Mutex
	closed  bool
	members map[*member]struct{}
	inside  sync.WaitGroup
}

func newCrowd(l net.Listener, max int, busy string) *crowd {
	return &crowd{Listener: l, max: max, busy: busy, members: make(map[*member]struct{})}
}

// Accept returns the next connection that is within the bound. Its one error
// is net.ErrClosed: anything else (no descriptors left, say) passes, and is
// waited out.
func (c *crowd) Accept() (net.Conn, error) {
	for {
		conn, err := c.Listener.Accept()
		if errors.Is(err, net.ErrClosed) {
			return nil, net.ErrClosed
		}
		if err != nil {
			time.Sleep(10 * time.Millisecond)
			continue
		}
		if m := c.admit(conn); m != nil {
			return m, nil
		}
		conn.SetWriteDeadline(time.Now().Add(time.Second))
		io.WriteString(conn, c.busy)
		conn.Close()
	}
}

func (c *crowd) admit(conn net.Conn) *member {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed || len(c.members) >= c.max {
		return nil
	}
	m := &member{Conn: conn, crowd: c}
	c.members[m] = struct{}{}
	c.inside.Add(1)
	return m
}

// Close stops accepting, cuts all connections, and waits until those who
// serve them have closed them too.
func (c *crowd) Close() error {
	c.mu.Lock()
	c.closed = true
	err := c.Listener.Close()
	for m := range c.members {
		// Only the inner conn: the member stays until its own Close.
		m.Conn.Close()
	}
	c.mu.Unlock()
	c.inside.Wait()
	return err
}

type member struct {
	net.Conn
	crowd *crowd
	once  sync.Once
}

// Close closes the connection and leaves the crowd. Servers call it as the
// last thing that they do.
func (m *member) Close() error {
	err := m.Conn.Close()
	m.once.Do(func() {
		m.crowd.mu.Lock()
		delete(m.crowd.members, m)
		m.crowd.mu.Unlock()
		m.crowd.inside.Done()
	})
	return err
}
