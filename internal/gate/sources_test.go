package gate

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"postern/policy"
	"postern/proxy"
)

func TestAFewPrivateSourcesAreWarnedOfOnce(t *testing.T) {
	addr := netip.MustParseAddr
	lb := []netip.Addr{addr("10.0.0.1"), addr("10.0.0.2"), addr("fd00::3")}
	few := func(i int) netip.Addr { return lb[i%3] }
	for name, test := range map[string]struct {
		client func(i int) netip.Addr
		every  time.Duration
		silent bool // without a hello
		want   []netip.Addr
	}{
		"one":       {client: func(int) netip.Addr { return lb[0] }, want: lb[:1]},
		"three":     {client: few, want: lb},
		"this host": {client: func(int) netip.Addr { return addr("127.0.0.1") }, want: []netip.Addr{addr("127.0.0.1")}},
		"four":      {client: func(i int) netip.Addr { return addr(fmt.Sprintf("10.0.0.%d", i%4)) }},
		"public":    {client: func(int) netip.Addr { return addr("192.0.2.1") }},
		"many":      {client: func(i int) netip.Addr { return addr(fmt.Sprintf("10.0.%d.%d", i/250, i%250)) }},
		"too slow":  {client: few, every: 4 * time.Second},
		"no hello":  {client: few, silent: true},
		"one in seven": {client: func(i int) netip.Addr {
			if i%7 == 0 {
				return addr("2001:db8::1")
			}
			return few(i)
		}},
	} {
		t.Run(name, func(t *testing.T) {
			var got [][]netip.Addr
			now := time.Now()
			s := newSources(func(a []netip.Addr) { got = append(got, a) })
			s.now = func() time.Time { return now }
			hello := &policy.Hello{}
			if test.silent {
				hello = nil
			}
			for i := range 2000 {
				s.Handshake(&proxy.Handshake{Hello: hello, Conn: &proxy.Conn{Client: netip.AddrPortFrom(test.client(i), 1)}})
				now = now.Add(test.every)
			}
			switch {
			case test.want == nil && len(got) > 0:
				t.Errorf("warned of %v", got)
			case test.want != nil && (len(got) != 1 || len(got[0]) != len(test.want)):
				t.Errorf("warned of %v, want %v once", got, test.want)
			case test.want != nil:
				for _, a := range test.want {
					if !slices.Contains(got[0], a) {
						t.Errorf("warned of %v, want %v", got, test.want)
					}
				}
			}
			if len(s.seen) > sourcesCounted {
				t.Errorf("%d addresses kept", len(s.seen))
			}
		})
	}
}
