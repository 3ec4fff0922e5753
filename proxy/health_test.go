package proxy

import (
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"postern/internal/netpoll"
	"postern/internal/posterntest"
	"postern/policy"
)

// A login shows that an upstream serves, so that it need not be asked.
func TestAnUpstreamIsAskedOnlyWhereNobodyLogsIn(t *testing.T) {
	g := StartProxy(t, policy.Enforce, posterntest.StartUpstream(t, posterntest.IMAPGreeting, posterntest.IMAPReply).Addr(), "", nil)
	up := g.upstreams[ProtocolIMAP][0]
	logins := 0
	for every := 300 * time.Millisecond; ; every *= 4 {
		asked := make(chan time.Duration, 1)
		up.served.Store(int64(time.Since(g.started)))
		begun := time.Now()
		go func() {
			g.untilDoubt(up, every)
			asked <- time.Since(begun)
		}()
		time.Sleep(every / 2)
		login := time.Since(begun)
		c := g.TLS(t, IMAPS)
		c.ExpectLine(t, "")
		c.Send(t, "a LOGIN anna password\r\n")
		c.ExpectLine(t, "")
		logins++
		g.wait(t, "the login", func() bool { return len(g.logins) == logins }) // by then it is noted that the upstream serves
		noted, took := time.Since(begun), <-asked
		if noted >= every {
			continue // a machine that is so slow has more time
		}
		if took < login+every {
			t.Errorf("it is asked after %v, and the login was not before %v", took, login)
		}
		return
	}
}

// Greetings are no proof that an upstream serves; a login is.
func TestAnUpstreamThatIsDownComesBackByALoginAlone(t *testing.T) {
	up := posterntest.StartUpstream(t, posterntest.IMAPGreeting, func(line string) string {
		if strings.HasPrefix(line, "postern ") {
			return "* BYE not for you\r\n"
		}
		return posterntest.IMAPReply(line)
	})
	g := StartProxy(t, policy.Enforce, up.Addr(), "", nil)
	down := func() bool { return g.upstreams[ProtocolIMAP][0].down.Load() }
	g.wait(t, "a refusal of the prober", func() bool { return g.failures[UpstreamRefused] > 0 && down() })
	c := g.TLS(t, IMAPS)
	c.ExpectLine(t, "")
	if !down() {
		t.Error("it is up for its greeting")
	}
	c.Send(t, "a LOGIN anna password\r\n")
	c.ExpectLine(t, "")
	g.wait(t, "the login", func() bool { return len(g.logins) > 0 })
	if down() {
		t.Error("it is down in spite of a login")
	}
}

func TestWhichConnectionsComeBack(t *testing.T) {
	own := func(network, addr string) *net.TCPListener {
		l, err := net.Listen(network, addr)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { l.Close() })
		return l.(*net.TCPListener)
	}
	for _, test := range []struct {
		network, addr, to string
		want              bool
	}{
		{"tcp", ":0", "127.0.0.1", true}, {"tcp", ":0", "127.0.0.2", true}, {"tcp", ":0", "::1", true}, {"tcp", ":0", "192.0.2.1", false},
		{"tcp4", "0.0.0.0:0", "127.0.0.1", true}, {"tcp4", "0.0.0.0:0", "::1", false},
		{"tcp6", "[::]:0", "127.0.0.1", false}, {"tcp6", "[::]:0", "::1", true},
		{"tcp4", "127.0.0.1:0", "127.0.0.1", true}, {"tcp4", "127.0.0.1:0", "127.0.0.2", false},
	} {
		l := own(test.network, test.addr)
		port := netpoll.AddrPort(l.Addr()).Port()
		to := netip.AddrPortFrom(netip.MustParseAddr(test.to), port)
		if got := netpoll.Accepts(l, to); got != test.want {
			t.Errorf("%s %s, to %s: %v", test.network, test.addr, test.to, got)
		}
		if netpoll.Accepts(l, netip.AddrPortFrom(to.Addr(), port+1)) {
			t.Errorf("%s: another port is the same", l.Addr())
		}
	}
}

// Somebody who answers the prober in time, but with more than it asked for, is not up.
func TestThePROXYHeaderIsNoCommand(t *testing.T) {
	for _, answer := range []string{
		"PROXY BAD what?\r\n", "* BAD what?\r\n", "* BYE what?\r\n", "+ what?\r\n", "postern BAD what?\r\n", "postern NO what?\r\n", "",
	} {
		up := posterntest.StartRawUpstream(t, func(c net.Conn) {
			io.WriteString(c, posterntest.IMAPGreeting)
			c.Read(make([]byte, 4096))
			io.WriteString(c, answer+"* CAPABILITY IMAP4rev1\r\n")
			if answer != "" {
				io.WriteString(c, "postern OK done\r\n")
			}
		})
		_, err := Ask(t.Context(), Config{UpstreamTimeout: time.Second, UpstreamProxyProtocol: 1}, ProtocolIMAP,
			UpstreamConfig{Name: "imap://" + up.Addr(), Addr: up.Addr()})
		if err == nil || !strings.Contains(err.Error(), "set POSTERN_UPSTREAM_PROXY_PROTOCOL=off if it expects no PROXY header, else have it trust") {
			t.Errorf("%q: %v", answer, err)
		}
	}
}
