//go:build linux

package proxy

import (
	"crypto/tls"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"syscall"
	"testing"
	"time"

	"postern/internal/posterntest"
	"postern/policy"
)

// A dead upstream is noticed, but one on the same host needs no probes.
func TestUpstreamsOnOtherHostsAreKeptAlive(t *testing.T) {
	for upstream, want := range map[string]int{"192.0.2.1": 1, "127.0.0.1": 0, "::1": 0} {
		nl := listen(t, net.ListenConfig{}, "tcp", "127.0.0.1:0")
		defer nl.Close()
		dialer := net.Dialer{KeepAlive: -1}
		c, err := dialer.Dial("tcp", nl.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		keepAlive(c.(*net.TCPConn), netip.MustParseAddr(upstream))
		raw, err := c.(*net.TCPConn).SyscallConn()
		if err != nil {
			t.Fatal(err)
		}
		raw.Control(func(fd uintptr) {
			if got, err := syscall.GetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_KEEPALIVE); err != nil || got != want {
				t.Errorf("%s: keepalive is %d, %v; want %d", upstream, got, err, want)
			}
		})
	}
}

// writing is a poller that writes to a peer.
func writing(t *testing.T, patience time.Duration) (*poller, *net.TCPConn) {
	t.Helper()
	_, peer, n := knock(t, listen(t, net.ListenConfig{}, "tcp", "127.0.0.1:0"), false)
	c := n.open()
	t.Cleanup(func() { c.Close() })
	p := new(poller)
	if err := p.start(c, nil, patience, nil); err != nil {
		t.Fatal(err)
	}
	return p, peer
}

// A write to a peer that takes nothing ends when it is hurried, and not before.
func TestAWriteThatWaitsCanBeHurried(t *testing.T) {
	p, _ := writing(t, time.Hour)
	done := make(chan error)
	go func() {
		_, err := p.write(make([]byte, 64<<20))
		done <- err
	}()
	select {
	case err := <-done:
		t.Fatalf("ended at once: %v", err)
	case <-time.After(300 * time.Millisecond):
	}
	p.hurry(50 * time.Millisecond)
	select {
	case err := <-done:
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("ended with %v", err)
		}
	case <-time.After(5 * time.Second):
		t.Fatal("still waits")
	}
	// Nor does a later one wait for longer.
	if _, err := p.write(make([]byte, 64<<20)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("another one ended with %v", err)
	}
}

// A write that has waited leaves no deadline behind.
func TestAWriteAfterOneThatWaitedHasItsTime(t *testing.T) {
	const patience = 400 * time.Millisecond
	p, peer := writing(t, patience)
	const size = 16 << 20
	go func() {
		time.Sleep(patience / 4)
		io.CopyN(io.Discard, peer, size)
	}()
	if n, err := p.write(make([]byte, size)); n != size || err != nil {
		t.Fatalf("wrote %d, %v", n, err)
	}
	time.Sleep(2 * patience)
	if n, err := p.write([]byte("more")); n != 4 || err != nil {
		t.Errorf("then wrote %d, %v", n, err)
	}
}

// Whatever pieces the stream comes in, left never reaches behind a record.
func TestRecordsKnowsWhereRecordsEnd(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	var stream []byte
	ends := map[int]bool{}
	for range 300 {
		n := []int{0, 1, 5, 255, 256, 1 << 14}[r.IntN(6)]
		ends[len(stream)+recordHeaderLen] = true
		stream = append(stream, 23, 3, 3, byte(n>>8), byte(n))
		stream = append(stream, make([]byte, n)...)
		ends[len(stream)] = true
	}
	var c records
	for at := 0; at < len(stream); {
		left := c.left()
		if left <= 0 || !ends[at+left] {
			t.Fatalf("at %d: %d are left, but nothing ends there", at, left)
		}
		n := 1 + r.IntN(left)
		c.advance(stream[at : at+n])
		at += n
	}
	if c != (records{}) {
		t.Errorf("at the end: %+v", c)
	}
	// Reads during the handshake are not bounded.
	var all records
	all.advance(stream[:len(stream)-3])
	all.advance(stream[len(stream)-3:])
	if all != (records{}) {
		t.Errorf("in two pieces: %+v", all)
	}
}

// What is said before STARTTLS is no record.
func TestRecordsBeginWithTLS(t *testing.T) {
	up := posterntest.StartUpstream(t, posterntest.IMAPGreeting, posterntest.IMAPReply)
	g := StartGate(t, policy.Enforce, up.Addr(), "", nil)
	nc := g.Dial(t, IMAP)
	readLine(t, nc)
	io.WriteString(nc, "a STARTTLS\r\n")
	readLine(t, nc)
	c := tls.Client(nc, g.ClientConfig())
	io.WriteString(c, "b LOGIN u p\r\n")
	readLine(t, c)
	waitParked(t, g, 2)
	g.Server.mu.Lock()
	defer g.Server.mu.Unlock()
	for s := range g.open {
		if s.raw.records != (records{}) {
			t.Errorf("between two records: %+v", s.raw.records)
		}
	}
}
