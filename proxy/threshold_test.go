//go:build linux

package proxy

import (
	"bytes"
	"crypto/tls"
	"io"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"postern/internal/hello"
	"postern/internal/posterntest"
	"postern/policy"
)

// Dice are thrown once for a connection, whoever asks the policy first.
func TestAShareOfConnectionsIsTheSameOnTheThreshold(t *testing.T) {
	p, err := policy.Parse([]byte("mode: observe\nrules:\n- {name: half, mode: enforce, share: {from: 50%, to: 50%, by: connection}, from: 2020-01-01T00:00:00Z, until: 2099-01-01T00:00:00Z}\n"))
	if err != nil {
		t.Fatal(err)
	}
	g := startIMAP(t, func(c *Config) { c.Policy = p })
	const n = 300
	rejected := 0
	for i := range n {
		c := enterLate(t, g, hello.ClientHello(hello.Typical(0x0301)))
		c.Read(make([]byte, 1))
		c.Close()
		if g.WaitHandshake(t, i+1).Outcome == Rejected {
			rejected++
		}
	}
	if rejected < n/2-45 || rejected > n/2+45 { // five standard deviations
		t.Errorf("%d of %d rejected, want half of them", rejected, n)
	}
}

func TestAResetBeforeTheFirstByteIsOfTheNetworkOnTheThreshold(t *testing.T) {
	g := startIMAP(t, nil)
	nl, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := nl.Addr().String()
	a, err := newAcceptor(nl)
	if err != nil {
		t.Fatal(err)
	}
	defer a.close()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	n, err := a.accept()
	if err != nil {
		t.Fatal(err)
	}
	c.(*net.TCPConn).SetLinger(0)
	c.Close()
	time.Sleep(20 * time.Millisecond)
	(&door{srv: g.Server, listener: IMAPS, acceptor: a}).enter(n)
	if h := g.WaitHandshake(t, 1); h.Outcome != Failed || h.Failure != FailIO {
		t.Errorf("%s, %s", h.Outcome, h.Failure)
	}
}

// slowMeter has the client's direction wait for two seconds, once, as a machine
// may that has much to do.
type slowMeter struct {
	*Recorder
	once atomic.Bool
}

func (m *slowMeter) Relayed(l Listener, d Direction, n int) {
	m.Recorder.Relayed(l, d, n)
	if d == ToUpstream && n > 10_000 && m.once.CompareAndSwap(false, true) {
		time.Sleep(2 * time.Second)
	}
}

// A session does not park on records that have left the socket, but not the gate.
func TestASessionParksOnlyWhenItHasNothingLeft(t *testing.T) {
	got := make(chan int, 1000)
	up := posterntest.StartRawUpstream(t, func(c net.Conn) {
		io.WriteString(c, posterntest.IMAPGreeting)
		buf := make([]byte, 64<<10)
		if _, err := c.Read(buf); err != nil {
			return
		}
		io.WriteString(c, "a OK in\r\n")
		for n, err := c.Read(buf); err == nil; n, err = c.Read(buf) {
			got <- n
		}
	})
	g := StartGate(t, policy.Enforce, up.Addr(), "", func(c *Config) { c.Meter = &slowMeter{Recorder: c.Meter.(*Recorder)} })
	config := g.ClientConfig()
	config.DynamicRecordSizingDisabled = true
	held := &holding{Conn: g.Dial(t, IMAPS)}
	c := tls.Client(held, config)
	io.WriteString(c, "a LOGIN u p\r\n")
	readLine(t, c)
	readLine(t, c)
	held.hold = true
	c.Write(bytes.Repeat([]byte("x"), 3<<14)) // three records, in one write
	held.Conn.Write(held.bytes)
	left := 3 << 14
	for end := time.After(8 * time.Second); left > 0; {
		select {
		case n := <-got:
			left -= n
		case <-end:
			t.Fatalf("%d bytes have not arrived", left)
		}
	}
	waitParked(t, g, 2)
}

// holding keeps what is written while hold is set.
type holding struct {
	net.Conn
	hold  bool
	bytes []byte
}

func (h *holding) Write(b []byte) (int, error) {
	if h.hold {
		h.bytes = append(h.bytes, b...)
		return len(b), nil
	}
	return h.Conn.Write(b)
}

// Who came before the gate began to accept has the options too.
func TestListenConfigSetsOptionsFromTheFirstConnectionOn(t *testing.T) {
	lc := ListenConfig()
	nl, err := lc.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c, err := net.Dial("tcp", nl.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	a, err := newAcceptor(nl)
	if err != nil {
		t.Fatal(err)
	}
	defer a.close()
	n, err := a.accept()
	if err != nil {
		t.Fatal(err)
	}
	wantOptions(t, int(n.fd))
	n.open().Close()
}
