//go:build !race

// The race detector empties sync.Pools at random.

package proxy

import (
	"io"
	"net"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"postern/internal/netpoll"
	"postern/internal/posterntest"
	"postern/policy"
)

// readerSize is the size of the reader that crypto/tls allocates for each read.
const readerSize = 24

// allocated is what the process allocates while run runs, in objects, which of those are as
// large as a reader of crypto/tls, and in bytes.
func allocated(run func()) (objects, readers, bytes float64) {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	run()
	runtime.ReadMemStats(&after)
	for i, class := range after.BySize {
		if class.Size == readerSize {
			readers = float64(class.Mallocs - before.BySize[i].Mallocs)
		}
	}
	return float64(after.Mallocs - before.Mallocs), readers, float64(after.TotalAlloc - before.TotalAlloc)
}

// succeedsOnce fails the test where each of five attempts fails: a collection, or a goroutine that moves
// to another processor, may find a pool empty, but not each time.
func succeedsOnce(t *testing.T, attempt func() bool) {
	t.Helper()
	for range 5 {
		if attempt() {
			return
		}
	}
	t.Error("too much is allocated, each time")
}

// After login nothing is allocated for a chunk on its way to the client. The
// client takes it without decrypting it, so that nobody else allocates.
func TestCopyToClientAllocatesNothing(t *testing.T) {
	g := StartProxy(t, policy.Enforce, floodUpstream(t).Addr(), "", func(c *Config) { c.Metrics = quietMeter{} })
	c := loggedIn(t, g)
	buf := make([]byte, 64<<10)
	const total = 64 << 20
	take := func(n int) {
		for n > 0 {
			got, err := c.NetConn().Read(buf)
			if err != nil {
				t.Fatal(err)
			}
			n -= got
		}
	}
	take(total) // buffers have grown, pools are filled
	succeedsOnce(t, func() bool {
		objects, _, size := allocated(func() { take(total) })
		chunks := float64(total / len(netpoll.Buffer{}))
		t.Logf("%v objects, %v bytes for %v chunks, want none", objects, size, chunks)
		return objects/chunks <= 0.1 && size/chunks <= 512
	})
}

// On the way to the upstream crypto/tls allocates a reader each time that it asks for more:
// twice for a record, and once where there is nothing yet, as the scheduler has it. The
// proxy adds nothing.
func TestCopyToUpstreamAllocatesNothingOfItsOwn(t *testing.T) {
	addr, taken := deafUpstream(t)
	g := StartProxy(t, policy.Enforce, addr, "", func(c *Config) { c.Metrics = quietMeter{} })
	c := loggedIn(t, g)
	chunk := make([]byte, 100)
	const chunks = 2000
	send := func() {
		all := taken.Load() + int64(chunks*len(chunk))
		for range chunks {
			if _, err := c.Write(chunk); err != nil {
				t.Fatal(err)
			}
		}
		for end := time.Now().Add(time.Minute); taken.Load() < all; time.Sleep(time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("%d bytes have not arrived", all-taken.Load())
			}
		}
	}
	send()
	succeedsOnce(t, func() bool {
		objects, readers, size := allocated(send)
		t.Logf("%v objects, %v of them readers, %v bytes for %v chunks, want readers alone", objects, readers, size, chunks)
		return (objects-readers)/chunks <= 0.1 && size/chunks <= 3*32
	})
}

// deafUpstream takes a login and then throws away all that comes, but counts it; it keeps
// no record, which would grow.
func deafUpstream(t *testing.T) (addr string, taken *atomic.Int64) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	taken = new(atomic.Int64)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				io.WriteString(c, posterntest.IMAPGreeting)
				buf := make([]byte, 4096)
				for n, err := c.Read(buf); err == nil; n, err = c.Read(buf) {
					if string(buf[:n]) == "a LOGIN u p\r\n" {
						io.WriteString(c, "a OK in\r\n")
					} else {
						taken.Add(int64(n))
					}
				}
			}()
		}
	}()
	return l.Addr().String(), taken
}

// quietMeter allocates nothing itself.
type quietMeter struct{}

func (quietMeter) Opened(Listener)                           {}
func (quietMeter) CleartextLogin(Listener)                   {}
func (quietMeter) Injection(Listener)                        {}
func (quietMeter) Relayed(Listener, Direction, int)          {}
func (quietMeter) UpstreamConnected(Listener, time.Duration) {}
func (quietMeter) UpstreamFailed(string, UpstreamFailure)    {}
func (quietMeter) UpstreamUp(string, error)                  {}
func (quietMeter) UpstreamGreeted(string)                    {}
func (quietMeter) LimitRefused(Listener, Limit)              {}
func (quietMeter) ProxyHeaderFailed(Listener)                {}

// That a session is not idle is noted for each chunk, and its next deadline set
// each second.
func TestTheIdleTimerAllocatesNothing(t *testing.T) {
	up := posterntest.StartUpstream(t, posterntest.IMAPGreeting, posterntest.IMAPReply)
	g := StartProxy(t, policy.Enforce, up.Addr(), "", nil)
	loggedIn(t, g)
	g.Server.mu.Lock()
	var s *session
	for s = range g.open {
	}
	g.Server.mu.Unlock()
	for s.tunnel.Load() == nil {
		time.Sleep(time.Millisecond)
	}
	c := &netpoll.Conn{Socket: s.raw.Socket} // which is not to park
	n := testing.AllocsPerRun(1000, func() {
		s.tunnel.Load().touch()
		if s.tunnel.Load().park(c) {
			t.Fatal("it is parked")
		}
		s.tunnel.Load().setParkDeadline(c)
		s.tunnel.Load().checkIdle()
	})
	if n != 0 {
		t.Errorf("%v allocations, want none", n)
	}
}
