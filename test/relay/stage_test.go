package relay

import (
	"bufio"
	"io"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"postern/internal/posterntest"
)

// stage is an upstream whose connections the test plays itself.
type stage struct {
	*posterntest.Upstream
	over chan struct{}

	mu     sync.Mutex
	silent []*newcomer // in the order in which they came
	gone   int         // those that have ended without a word
}

// newcomer is a connection that was greeted. It is the prober's where it speaks: a client's
// is silent until the test has both ends.
type newcomer struct {
	net.Conn
	came  time.Time
	taken chan net.Conn
}

func newStage(t *testing.T, greeting string) *stage {
	t.Helper()
	s := &stage{over: make(chan struct{})}
	s.Upstream = posterntest.StartRawUpstream(t, func(c net.Conn) {
		io.WriteString(c, greeting)
		s.receive(c)
	})
	t.Cleanup(func() { close(s.over) })
	return s
}

// receive answers the prober, however long that takes to speak, and keeps other
// connections until they are taken.
func (s *stage) receive(c net.Conn) {
	n := &newcomer{c, time.Now(), make(chan net.Conn, 1)}
	s.mu.Lock()
	s.silent = append(s.silent, n)
	s.mu.Unlock()
	var conn net.Conn = readAhead{c, bufio.NewReader(c)}
	_, err := conn.(readAhead).in.Peek(len("CAPA\r\n"))
	s.mu.Lock()
	i := slices.Index(s.silent, n)
	if i >= 0 {
		s.silent = slices.Delete(s.silent, i, i+1)
		if err != nil {
			s.gone++
		}
	}
	s.mu.Unlock()
	if i >= 0 {
		if err != nil {
			return
		}
		if conn = posterntest.AnswerProbe(conn); conn == nil {
			return
		}
		s.mu.Lock() // a client that has something to say already
		s.silent = append(s.silent, n)
		s.mu.Unlock()
	}
	n.taken <- conn
	<-s.over
}

// readAhead reads what was read ahead, too.
type readAhead struct {
	net.Conn
	in *bufio.Reader
}

func (c readAhead) Read(p []byte) (int, error) { return c.in.Read(p) }

// CloseWrite sends FIN and leaves the other direction open.
func (c readAhead) CloseWrite() error { return c.Conn.(interface{ CloseWrite() error }).CloseWrite() }

// settled is how long a client's connection is silent before it is taken for one, where
// no other is there. Of several, the prober's may still speak.
const settled = 100 * time.Millisecond

// take is the connection of the client that has just come.
func (s *stage) take(t *testing.T) net.Conn {
	t.Helper()
	for begun := time.Now(); time.Since(begun) < dialogTime; time.Sleep(5 * time.Millisecond) {
		if n := s.next(begun); n != nil {
			n.SetReadDeadline(time.Unix(1, 0)) // wakes its reader
			c := <-n.taken
			c.SetReadDeadline(time.Time{})
			return c
		}
	}
	t.Fatal("the upstream was not dialled")
	return nil
}

func (s *stage) next(wanted time.Time) *newcomer {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.silent) == 0 {
		return nil
	}
	n := s.silent[0]
	waited := min(time.Since(wanted), time.Since(n.came))
	if waited < settled || len(s.silent) > 1 && waited < 5*settled {
		return nil
	}
	s.silent = slices.Delete(s.silent, 0, 1)
	return n
}

// untaken is how many connections have come that were not the prober's, and were not
// taken.
func (s *stage) untaken() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.silent) + s.gone
}

// forgetProbes forgets the connections so far, which were the proxy's probes where it
// did not like how it was greeted.
func (s *stage) forgetProbes() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, n := range s.silent {
		n.Close()
	}
	s.silent, s.gone = nil, 0
}
