//go:build linux

package netpoll

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"postern/internal/posterntest"
)

func listen(t *testing.T, lc net.ListenConfig, network, addr string) net.Listener {
	t.Helper()
	l, err := lc.Listen(t.Context(), network, addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

// option reads a socket option.
func option(t *testing.T, c net.Conn, level, name int) (value int) {
	t.Helper()
	raw, err := c.(*net.TCPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	raw.Control(func(fd uintptr) { value, err = unix.GetsockoptInt(int(fd), level, name) })
	if err != nil {
		t.Fatal(err)
	}
	return value
}

func TestAcceptedConnectionsHaveTheirOptions(t *testing.T) {
	for _, l := range []net.Listener{
		listen(t, ListenConfig(false), "tcp", "127.0.0.1:0"), listen(t, ListenConfig(true), "tcp", "127.0.0.1:0"),
		fromFile(t, false), fromFile(t, true),
	} {
		client, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer client.Close()
		client.Write([]byte("hello"))
		c, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		for _, o := range []struct{ level, name, want int }{
			{unix.IPPROTO_TCP, unix.TCP_NODELAY, 1},
			{unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1},
			{unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, 120},
			{unix.IPPROTO_TCP, unix.TCP_KEEPINTVL, 30},
			{unix.IPPROTO_TCP, unix.TCP_KEEPCNT, 4},
		} {
			if got := option(t, c, o.level, o.name); got != o.want {
				t.Errorf("option %d of level %d is %d, want %d", o.name, o.level, got, o.want)
			}
		}
	}
}

// fromFile listens on a socket that somebody else has made.
func fromFile(t *testing.T, deferAccept bool) net.Listener {
	t.Helper()
	f, err := listen(t, net.ListenConfig{}, "tcp", "127.0.0.1:0").(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	l, err := FileListener(f, deferAccept)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

func TestAFileThatDoesNotListenIsNoListener(t *testing.T) {
	unixSocket, err := net.Listen("unix", t.TempDir()+"/socket")
	if err != nil {
		t.Fatal(err)
	}
	defer unixSocket.Close()
	connected, err := net.Dial("tcp", listen(t, net.ListenConfig{}, "tcp", "127.0.0.1:0").Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer connected.Close()
	var files []*os.File
	for _, c := range []any{unixSocket, connected} {
		f, err := c.(interface{ File() (*os.File, error) }).File()
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, f)
	}
	for _, f := range files {
		if l, err := FileListener(f, false); err == nil {
			t.Errorf("%s became a listener at %v", f.Name(), l.Addr())
		}
	}
}

func TestAListenerForIPv4AndIPv6HasNoHostInItsAddress(t *testing.T) {
	for network, want := range map[string]string{"tcp": ":", "tcp4": "0.0.0.0:", "tcp6": "[::]:"} {
		l := listen(t, net.ListenConfig{}, network, map[string]string{"tcp4": "0.0.0.0:0"}[network])
		if got := ListenAddr(l); !strings.HasPrefix(got, want) || got == want {
			t.Errorf("%s: %s", network, got)
		}
	}
}

// A client that says nothing is accepted, but later, and one that speaks at once.
func TestDeferAcceptWaitsForTheFirstBytes(t *testing.T) {
	ours, given := listen(t, ListenConfig(true), "tcp", "127.0.0.1:0"), fromFile(t, true)
	for _, tt := range []struct {
		l             net.Listener
		first         string
		atLeast, most time.Duration
	}{{ours, "hello", 0, 500 * time.Millisecond}, {ours, "", 500 * time.Millisecond, 8 * time.Second}, {given, "", 500 * time.Millisecond, 8 * time.Second}} {
		posterntest.Within(t, fmt.Sprintf("accepting a client that says %q", tt.first), tt.most, func() time.Duration {
			took := acceptedAfter(t, tt.l, tt.first)
			if took < tt.atLeast {
				t.Errorf("a client that says %q is accepted after %v", tt.first, took)
			}
			return took
		})
	}
}

// acceptedAfter is how long it takes until a client is accepted.
func acceptedAfter(t *testing.T, l net.Listener, first string) time.Duration {
	t.Helper()
	begun := time.Now()
	client, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	client.Write([]byte(first))
	c, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
	return time.Since(begun)
}

// A dead peer is noticed, but one on the same host needs no probes.
func TestPeersOnOtherHostsAreKeptAlive(t *testing.T) {
	l := listen(t, ListenConfig(false), "tcp", "127.0.0.1:0")
	for peer, want := range map[string]int{"192.0.2.1": 1, "127.0.0.1": 0, "::1": 0} {
		dialer := net.Dialer{KeepAlive: -1}
		c, err := dialer.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		KeepAlive(c.(*net.TCPConn), netip.MustParseAddr(peer))
		if got := option(t, c, unix.SOL_SOCKET, unix.SO_KEEPALIVE); got != want {
			t.Errorf("%s: keepalive is %d, want %d", peer, got, want)
		}
	}
}

// A client that came over a dual-stack socket has its IPv4 address.
func TestAddrPortIsUnmapped(t *testing.T) {
	for want, addr := range map[string]net.Addr{
		"[2001:db8::7]:4660":  &net.TCPAddr{IP: net.ParseIP("2001:db8::7"), Port: 4660},
		"192.0.2.7:4660":      net.TCPAddrFromAddrPort(netip.MustParseAddrPort("[::ffff:192.0.2.7]:4660")),
		"[fe80::1%eth0]:4660": &net.TCPAddr{IP: net.ParseIP("fe80::1"), Zone: "eth0", Port: 4660},
		"invalid AddrPort":    &net.UnixAddr{},
	} {
		if got := AddrPort(addr); got.String() != want {
			t.Errorf("%v is %v, want %s", addr, got, want)
		}
	}
}
