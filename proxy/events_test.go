package proxy

import (
	"crypto/tls"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"postern/internal/hello"
	"postern/internal/mailproto"
	"postern/internal/netpoll"
	"postern/policy"
)

// visitor is one kind of client; it goes on until the connection is over.
type visitor struct {
	name      string
	listeners []Listener
	visit     func(g *Proxy, l Listener, c *net.TCPConn)
	// events it must cause.
	events string
}

var (
	implicit = []Listener{IMAPS, POP3S}
	explicit = []Listener{IMAP, POP3}
	// loginOf and byeOf are what a client says.
	loginOf = map[Protocol]string{ProtocolIMAP: "a LOGIN u p\r\n", ProtocolPOP3: "USER u\r\nPASS p\r\n"}
	wrongOf = map[Protocol]string{ProtocolIMAP: "a FOO\r\nb LOGIN {99999999+}\r\n", ProtocolPOP3: "RETR 1\r\n\r\n"}
	byeOf   = map[Protocol]string{ProtocolIMAP: "z LOGOUT\r\n", ProtocolPOP3: "QUIT\r\n"}
)

// inTLS shakes hands, after STARTTLS where that is due, says what it has to
// say and reads to the end.
func inTLS(config func(*Proxy) *tls.Config, say func(Protocol) string) func(*Proxy, Listener, *net.TCPConn) {
	return func(g *Proxy, l Listener, c *net.TCPConn) {
		if !l.ImplicitTLS() {
			askTLS(c, l)
		}
		tc := tls.Client(c, config(g))
		if tc.Handshake() == nil {
			io.WriteString(tc, say(l.Protocol()))
			tc.CloseWrite()
			io.Copy(io.Discard, tc)
		}
	}
}

func askTLS(c net.Conn, l Listener) {
	buf := make([]byte, 512)
	c.Read(buf)
	io.WriteString(c, map[Listener]string{IMAP: "s STARTTLS\r\n", POP3: "STLS\r\n"}[l])
	c.Read(buf)
}

func inClear(say string, reset bool) func(*Proxy, Listener, *net.TCPConn) {
	return func(_ *Proxy, _ Listener, c *net.TCPConn) {
		io.WriteString(c, say)
		if reset {
			c.SetLinger(0)
			c.Close()
			return
		}
		c.CloseWrite()
		io.Copy(io.Discard, c)
	}
}

func visitors() []visitor {
	modern, old := (*Proxy).ClientConfig, (*Proxy).oldClient
	distrust := func(*Proxy) *tls.Config { return &tls.Config{ServerName: "localhost"} }
	says := func(m map[Protocol]string) func(Protocol) string { return func(p Protocol) string { return m[p] } }
	both := func(p Protocol) string { return loginOf[p] + byeOf[p] }
	typical := hello.ClientHello(hello.Typical(tls.VersionTLS13))
	return []visitor{
		{"logs in", Listeners, inTLS(modern, both), "handshake login closed"},
		{"is wrong", Listeners, inTLS(modern, says(wrongOf)), "handshake closed"},
		{"leaves", Listeners, inTLS(modern, says(byeOf)), "handshake closed"},
		{"says nothing", Listeners, inTLS(modern, says(nil)), "handshake closed"},
		{"is old", Listeners, inTLS(old, both), "handshake closed"},
		{"distrusts", Listeners, inTLS(distrust, both), "handshake closed"},
		{"hangs up at once", implicit, inClear("", false), "handshake closed"},
		{"hangs up at once, in clear", explicit, inClear("", false), "closed"},
		{"resets at once", implicit, inClear("", true), "handshake closed"},
		{"resets at once, in clear", explicit, inClear("", true), "closed"},
		{"SSL 2.0", implicit, inClear(string(hello.SSLv2()), false), "handshake closed"},
		{"SSL 3.0", implicit, inClear(string(hello.ClientHello(hello.Typical(0x0300))), false), "handshake closed"},
		{"half a hello", implicit, inClear(string(typical[:40]), false), "handshake closed"},
		{"half a hello and a reset", implicit, inClear(string(typical[:40]), true), "handshake closed"},
		{"a hello and no more", implicit, inClear(string(typical), false), "handshake closed"},
		{"an alert alone", implicit, inClear("\x15\x03\x01\x00\x02\x02\x28", false), "handshake closed"},
		{"garbage", implicit, inClear("\x00\x01\x02", false), "handshake closed"},
		{"text", implicit, inClear("a LOGIN u p\r\n", false), "handshake closed"},
		{"HTTP", implicit, inClear("GET / HTTP/1.1\r\n\r\n", false), "handshake closed"},
		{"TLS too soon", explicit, inClear(string(typical), false), "handshake closed"},
		{"SSL 2.0 too soon", explicit, inClear(string(hello.SSLv2()), false), "handshake closed"},
		{"injects", explicit, inClear("s STARTTLS\r\nx NOOP\r\nSTLS\r\nNOOP\r\n", false), "closed"},
		{"babbles", explicit, inClear(strings.Repeat("x y\r\n", 50), false), "closed"},
		{"a long line", explicit, inClear(strings.Repeat("x", mailproto.MaxLine+1), false), "closed"},
		{"asks for TLS and leaves", explicit, func(_ *Proxy, l Listener, c *net.TCPConn) { askTLS(c, l) }, "handshake closed"},
	}
}

// Invariant 6.
func TestEveryConnectionYieldsItsEventsOnceAndInOrder(t *testing.T) {
	noLeak(t)
	t.Run("enforce", func(t *testing.T) { eventsOf(t, policy.Enforce, visitors()) })
	t.Run("observe", func(t *testing.T) { eventsOf(t, policy.Observe, oldVisitors()) })
}

// oldVisitors are let in, and say before their login, behind it, or never what
// they are.
func oldVisitors() []visitor {
	both := func(p Protocol) string { return loginOf[p] + byeOf[p] }
	id := "i ID (\"name\" \"x\")\r\n"
	before := func(Protocol) string { return id + loginOf[ProtocolIMAP] + id }
	behind := func(Protocol) string { return loginOf[ProtocolIMAP] + id + id }
	imap := []Listener{IMAPS, IMAP}
	return []visitor{
		{"is old", Listeners, inTLS((*Proxy).oldClient, both), "handshake login closed"},
		{"says what it is before", imap, inTLS((*Proxy).oldClient, before), "handshake login closed"},
		{"says what it is behind", imap, inTLS((*Proxy).oldClient, behind), "handshake login software closed"},
		{"says what it is, and is new", imap, inTLS((*Proxy).ClientConfig, behind), "handshake login closed"},
		{"is old, and wrong", Listeners, inTLS((*Proxy).oldClient, func(p Protocol) string { return wrongOf[p] }), "handshake closed"},
	}
}

func eventsOf(t *testing.T, mode policy.Mode, visitors []visitor) {
	t.Helper()
	imap, pop3 := stubs(t)
	g := StartProxy(t, mode, imap.Addr(), pop3.Addr(), func(c *Config) { c.Identity = true })
	type met struct{ name, want string }
	var mu sync.Mutex
	byPorts := make(map[[2]uint16]met) // the client's, which may come again elsewhere, and ours
	var wg sync.WaitGroup
	slots := make(chan struct{}, 8)
	n := 0
	for range 2 {
		for _, v := range visitors {
			for _, l := range v.listeners {
				n++
				slots <- struct{}{}
				c := g.Dial(t, l)
				mu.Lock()
				byPorts[[2]uint16{netpoll.AddrPort(c.LocalAddr()).Port(), netpoll.AddrPort(c.RemoteAddr()).Port()}] = met{v.name + " on " + string(l), v.events}
				mu.Unlock()
				wg.Go(func() {
					defer func() { <-slots }()
					defer c.Close()
					v.visit(g, l, c)
				})
			}
		}
	}
	wg.Wait()
	g.WaitClosed(t, n)
	time.Sleep(50 * time.Millisecond) // for one too many
	if g.opened != n || len(g.closes) != n {
		t.Errorf("%d connections, %d opened, %d closed", n, g.opened, len(g.closes))
	}
	for _, c := range g.closes {
		m := byPorts[[2]uint16{c.Client.Port(), c.Local.Port()}]
		if got := strings.Join(g.Events(c.ID), " "); got != m.want {
			t.Errorf("%s: %q, want %q (closed: %s)", m.name, got, m.want, c.Reason)
		}
	}
	g.checkHandshakes(t)
}

// checkHandshakes looks at what holds for every handshake.
func (r *Recorder) checkHandshakes(t *testing.T) {
	t.Helper()
	for _, h := range r.shakes {
		if (h.Outcome == Failed) != (h.Failure != NoFailure) {
			t.Errorf("outcome %s with failure %q", h.Outcome, h.Failure)
		}
		if h.Outcome == Accepted && (h.Verdict.Legacy() || h.Version < policy.TLS12 || h.Hello == nil) {
			t.Errorf("accepted: %+v", h)
		}
		if h.Outcome == Rejected && !h.Verdict.Legacy() {
			t.Errorf("rejected: %+v", h)
		}
		if h.Hello == nil && h.Verdict.Version != policy.NoVersion {
			t.Errorf("a version without a hello: %+v", h)
		}
	}
}
