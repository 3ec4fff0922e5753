package proxy

import (
	"encoding/binary"
	"net/netip"
	"runtime"
	"testing"
	"time"
)

func TestConnectionsAreCountedPerClient(t *testing.T) {
	c := newClientLimits(Limits{ConnectionsPerClient: 2})
	a, b := netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("2001:db8::2")
	if !c.enter(a) || !c.enter(b) || c.enter(a) {
		t.Error("a /64 has not two connections")
	}
	c.leave(b)
	if !c.enter(a) {
		t.Error("a place that was left is not given again")
	}
	c.leave(a)
	c.leave(a)
	if len(c.open) != 0 {
		t.Errorf("%d clients are remembered that have no connection", len(c.open))
	}
}

func TestHandshakesComeBackWithTime(t *testing.T) {
	const n = 10
	c := newClientLimits(Limits{HandshakesPerClient: n})
	client, now := netip.MustParseAddr("192.0.2.1"), time.Now()
	allowed := func(tries int) (count int) {
		for range tries {
			if c.allowHandshake(client, now) {
				count++
			}
		}
		return count
	}
	if got := allowed(50); got != n {
		t.Errorf("%d handshakes at once, want %d", got, n)
	}
	total := 0
	for range 100 { // ten seconds, across many generations
		now = now.Add(100 * time.Millisecond)
		total += allowed(5)
	}
	if total < 99 || total > 101 {
		t.Errorf("%d handshakes in ten seconds, want 100", total)
	}
	now = now.Add(time.Hour)
	if got := allowed(50); got != n {
		t.Errorf("%d handshakes after an hour, want %d", got, n)
	}
	if !c.allowHandshake(netip.MustParseAddr("192.0.2.2"), now) {
		t.Error("another client has to do with it")
	}
}

// address makes distinct clients.
func address(i int) netip.Addr {
	var a [16]byte
	a[0], a[1] = 0x20, 0x01
	binary.BigEndian.PutUint32(a[4:], uint32(i))
	return netip.AddrFrom16(a)
}

func TestAMillionAddressesAreRememberedInBoundedMemory(t *testing.T) {
	heap := func() uint64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	before, now := heap(), time.Now()
	c := newClientLimits(Limits{HandshakesPerClient: 1, ConnectionsPerClient: 1})
	for i := range 1_000_000 {
		now = now.Add(5 * time.Microsecond)
		client := address(i)
		if !c.enter(client) || !c.allowHandshake(client, now) {
			t.Fatalf("client %d was refused", i)
		}
		c.leave(client)
	}
	if grown := heap() - before; grown > 64<<20 {
		t.Errorf("a million addresses cost %d MB", grown>>20)
	}
	if n := len(c.recent) + len(c.older); n > 2*maxRemembered || len(c.open) != 0 {
		t.Errorf("%d addresses are remembered, %d of them as connected", n, len(c.open))
	}
	// A flood of addresses forgives nobody who was there before it.
	greedy := netip.MustParseAddr("192.0.2.1")
	now = now.Add(time.Hour)
	c.allowHandshake(greedy, now)
	for i := range 10_000 {
		c.allowHandshake(address(i), now)
	}
	if c.allowHandshake(greedy, now) {
		t.Error("a client's handshakes were forgotten")
	}
	runtime.KeepAlive(c)
}
