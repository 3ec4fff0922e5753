//go:build linux

package proxy

import (
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/netip"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"postern/internal/hello"
)

// knock connects to a listening socket, and accepts that; early, before there is
// an acceptor.
func knock(t *testing.T, nl net.Listener, early bool) (*acceptor, *net.TCPConn, arrival) {
	t.Helper()
	var c net.Conn
	addr := nl.Addr().String()
	dial := func() {
		var err error
		if c, err = net.Dial("tcp", addr); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		c.SetDeadline(time.Now().Add(10 * time.Second))
	}
	if early {
		dial()
	}
	a, err := newAcceptor(nl)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(a.close)
	if !early {
		dial()
	}
	n, err := a.accept()
	if err != nil {
		t.Fatal(err)
	}
	return a, c.(*net.TCPConn), n
}

func listen(t *testing.T, lc net.ListenConfig, network, addr string) net.Listener {
	t.Helper()
	nl, err := lc.Listen(t.Context(), network, addr)
	if err != nil {
		t.Fatal(err)
	}
	return nl
}

// What the listening socket is told, the connections know.
func TestAcceptedConnectionsHaveTheirOptions(t *testing.T) {
	for _, multipath := range []bool{false, true} {
		var lc net.ListenConfig
		lc.SetMultipathTCP(multipath)
		_, client, n := knock(t, listen(t, lc, "tcp", "127.0.0.1:0"), false)
		wantOptions(t, int(n.fd))
		if n.peer != addrPort(client.LocalAddr()) || n.local != addrPort(client.RemoteAddr()) {
			t.Errorf("accepted from %v at %v, want %v and %v", n.peer, n.local, client.LocalAddr(), client.RemoteAddr())
		}
		n.open().Close()
	}
}

// Who came before the gate began to accept has the options too.
func TestListenConfigSetsOptionsFromTheFirstConnectionOn(t *testing.T) {
	_, _, n := knock(t, listen(t, ListenConfig(), "tcp", "127.0.0.1:0"), true)
	wantOptions(t, int(n.fd))
	n.open().Close()
}

func wantOptions(t *testing.T, fd int) {
	t.Helper()
	for _, o := range []struct{ level, name, want int }{
		{syscall.IPPROTO_TCP, syscall.TCP_NODELAY, 1},
		{syscall.SOL_SOCKET, syscall.SO_KEEPALIVE, 1},
		{syscall.IPPROTO_TCP, syscall.TCP_KEEPIDLE, 120},
		{syscall.IPPROTO_TCP, syscall.TCP_KEEPINTVL, 30},
		{syscall.IPPROTO_TCP, syscall.TCP_KEEPCNT, 4},
	} {
		if got, err := syscall.GetsockoptInt(fd, o.level, o.name); err != nil || got != o.want {
			t.Errorf("option %d of level %d is %d, %v; want %d", o.name, o.level, got, err, o.want)
		}
	}
}

// Who says nothing for a moment waits without a session, then has one.
func TestASilentClientHasASessionSoon(t *testing.T) {
	g := startIMAP(t, nil)
	opened := func() int {
		g.Recorder.mu.Lock()
		defer g.Recorder.mu.Unlock()
		return g.opened
	}
	var clients []net.Conn
	for range roomSize + 10 {
		clients = append(clients, g.Dial(t, IMAPS))
	}
	for end := time.Now().Add(5 * time.Second); opened() < len(clients); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%d of %d silent clients have a session", opened(), len(clients))
		}
	}
	for _, c := range clients[:20] {
		c.Write(hello.ClientHello(hello.Typical(0x0301)))
		if got, err := io.ReadAll(c); err != nil || len(got) != alertRecordLen || got[alertRecordLen-1] != 70 {
			t.Errorf("told % x, %v", got, err)
		}
	}
}

// In the room the hello may come at any time.
func TestAHelloInTheRoomIsAnswered(t *testing.T) {
	g := startIMAP(t, nil)
	for i := range 40 {
		c := g.Dial(t, IMAPS)
		time.Sleep(time.Duration(i) * 3 * time.Millisecond)
		c.Write(hello.ClientHello(hello.Typical(0x0302)))
		if got, err := io.ReadAll(c); err != nil || len(got) != alertRecordLen || got[alertRecordLen-1] != 70 {
			t.Errorf("after %d ms: told % x, %v", 3*i, got, err)
		}
		if h := g.WaitHandshake(t, i+1); h.Outcome != Rejected {
			t.Errorf("after %d ms: %s", 3*i, h.Outcome)
		}
	}
}

// Addresses are told as package net tells them.
func TestAcceptedAddressesAreThoseOfPackageNet(t *testing.T) {
	for _, x := range []struct{ network, listen, dial string }{
		{"tcp", ":0", "127.0.0.1"}, {"tcp4", "0.0.0.0:0", "127.0.0.2"}, {"tcp", ":0", "::1"}, {"tcp6", "[::1]:0", "::1"},
	} {
		t.Run(x.listen+" from "+x.dial, func(t *testing.T) {
			if l, err := net.Listen("tcp6", "[::1]:0"); err == nil {
				l.Close()
			} else if x.dial == "::1" {
				t.Skipf("no IPv6 here: %v", err)
			}
			nl := listen(t, net.ListenConfig{}, x.network, x.listen)
			port := addrPort(nl.Addr()).Port()
			a, err := newAcceptor(nl)
			if err != nil {
				t.Fatal(err)
			}
			defer a.close()
			c, err := net.Dial("tcp", net.JoinHostPort(x.dial, fmt.Sprint(port)))
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			n, err := a.accept()
			if err != nil {
				t.Fatal(err)
			}
			opened := n.open()
			defer opened.Close()
			if n.peer != addrPort(c.LocalAddr()) || n.local != addrPort(c.RemoteAddr()) || addrPort(opened.RemoteAddr()) != n.peer {
				t.Errorf("%v at %v, want %v at %v", n.peer, n.local, c.LocalAddr(), c.RemoteAddr())
			}
		})
	}
}

// Those of IPv6 need no such host.
func TestPeersAreToldByTheirAddresses(t *testing.T) {
	port := [2]byte{0x12, 0x34}
	at := func(addr string, scope uint32) unix.RawSockaddrInet6 {
		return unix.RawSockaddrInet6{
			Family: unix.AF_INET6, Port: binary.NativeEndian.Uint16(port[:]), Addr: netip.MustParseAddr(addr).As16(), Scope_id: scope,
		}
	}
	for want, sa := range map[string]unix.RawSockaddrInet6{
		"[2001:db8::7]:4660":     at("2001:db8::7", 0),
		"192.0.2.7:4660":         at("::ffff:192.0.2.7", 0),
		"[fe80::1%4000000]:4660": at("fe80::1", 4_000_000),
	} {
		if got := peerOf(&sa); got.String() != want {
			t.Errorf("told %v, want %s", got, want)
		}
	}
}
