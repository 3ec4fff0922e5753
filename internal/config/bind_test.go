package config

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

func TestAnAddressThatCannotBeBound(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, taken := net.Listen("tcp4", l.Addr().String())
	me := fmt.Sprintf("process %d (%.15s)", os.Getpid(), filepath.Base(os.Args[0]))
	_, unknown := net.Listen("tcp", "nobody.invalid:10993")
	for _, tt := range []struct {
		addr string
		err  error
		want string
	}{
		{l.Addr().String(), taken, "V: " + l.Addr().String() + ": address already in use by " + me + ": stop it"},
		{":993", &net.OpError{Op: "listen", Err: os.NewSyscallError("bind", syscall.EACCES)}, "V: :993: a port below 1024 needs CAP_NET_BIND_SERVICE"},
		{"192.0.2.1:993", os.NewSyscallError("bind", syscall.EADDRNOTAVAIL), "V: 192.0.2.1:993 is not an address of this machine"},
		{"[::1]:993", os.NewSyscallError("socket", syscall.EAFNOSUPPORT), "V: [::1]:993: this machine has no IPv6"},
		{"nobody.invalid:10993", unknown, "V: nobody.invalid:10993: the name has no address"},
	} {
		if got := BindError("V", tt.addr, tt.err).Error(); !strings.HasPrefix(got, tt.want) {
			t.Errorf("got %q, want %q", got, tt.want)
		}
	}
	l.Close()
	if got := Holder(l.Addr().String()); got != "" {
		t.Errorf("nobody listens, but %s", got)
	}
}
