//go:build linux

package proxy

import (
	"net"
	"syscall"
	"testing"
)

// What the listening socket is told, the connections know.
func TestAcceptedConnectionsHaveTheirOptions(t *testing.T) {
	for _, multipath := range []bool{false, true} {
		var lc net.ListenConfig
		lc.SetMultipathTCP(multipath)
		nl, err := lc.Listen(t.Context(), "tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		addr := nl.Addr().String()
		a, err := newAcceptor(nl)
		if err != nil {
			t.Fatal(err)
		}
		defer a.close()
		client, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		defer client.Close()
		n, err := a.accept()
		if err != nil {
			t.Fatal(err)
		}
		for _, o := range acceptedOptions {
			if got, err := syscall.GetsockoptInt(n.fd, o.level, o.name); err != nil || got != o.value {
				t.Errorf("multipath %v: option %d of level %d is %d, %v; want %d", multipath, o.name, o.level, got, err, o.value)
			}
		}
		if n.peer != addrPort(client.LocalAddr()) || n.local != addrPort(client.RemoteAddr()) {
			t.Errorf("accepted from %v at %v, want %v and %v", n.peer, n.local, client.LocalAddr(), client.RemoteAddr())
		}
		n.open().Close()
	}
}
