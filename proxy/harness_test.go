package proxy

import (
	"crypto/tls"
	"log/slog"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"postern/internal/certs"
	"postern/internal/posterntest"
	"postern/policy"
)

// Proxy is a server on loopback, inside the test's own process.
type Proxy struct {
	*Server
	*Recorder
	CA    *posterntest.CA
	addrs map[Listener]string
}

// StartProxy starts a proxy whose IMAP and POP3 upstreams listen at the given
// addresses (an empty one leaves its listeners out); change may touch the
// configuration. The test's end stops it.
func StartProxy(t testing.TB, mode policy.Mode, imap, pop3 string, change func(*Config)) *Proxy {
	t.Helper()
	g := &Proxy{Recorder: newRecorder(), CA: posterntest.NewCA(t), addrs: make(map[Listener]string)}
	ec := g.CA.Issue(t, posterntest.DefaultNames, posterntest.ECDSA)
	rsa := g.CA.Issue(t, posterntest.DefaultNames, posterntest.RSA)
	store, err := certs.Load([]string{ec.CertFile, rsa.CertFile}, []string{ec.KeyFile, rsa.KeyFile})
	if err != nil {
		t.Fatal(err)
	}
	cfg := Config{
		Listeners: make(map[Listener][]net.Listener), Policy: policy.New(policy.FloorTLS12, mode), Now: time.Now,
		Certificates: store, Upstreams: make(map[Protocol][]UpstreamConfig),
		UpstreamTimeout: 10 * time.Second, TimeoutHandshake: time.Minute, TimeoutLogin: time.Minute,
		TimeoutIdle: time.Minute, TimeoutDrain: 2 * time.Second, ExplainText: DefaultExplainText,
		Observer: g.Recorder, Metrics: g.Recorder, Log: slog.New(slog.DiscardHandler),
	}
	for p, addr := range map[Protocol]string{ProtocolIMAP: imap, ProtocolPOP3: pop3} {
		if addr != "" {
			cfg.Upstreams[p] = []UpstreamConfig{{Name: string(p) + "://" + addr, Addr: addr}}
		}
	}
	for _, l := range Listeners {
		if len(cfg.Upstreams[l.Protocol()]) == 0 {
			continue
		}
		nl, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		cfg.Listeners[l], g.addrs[l] = []net.Listener{nl}, nl.Addr().String()
	}
	if change != nil {
		change(&cfg)
	}
	if g.Server, err = New(cfg); err != nil {
		t.Fatal(err)
	}
	g.Start()
	g.Accept()
	t.Cleanup(func() {
		if !g.isDraining() {
			g.Shutdown(t.Context())
		}
	})
	return g
}

// Addr is the address of a listener.
func (g *Proxy) Addr(l Listener) string { return g.addrs[l] }

// Dial opens a bare connection.
func (g *Proxy) Dial(t testing.TB, l Listener) *net.TCPConn {
	t.Helper()
	c, err := net.Dial("tcp", g.addrs[l])
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(time.Minute))
	return c.(*net.TCPConn)
}

// ClientConfig is what a client of the proxy trusts.
func (g *Proxy) ClientConfig() *tls.Config {
	return &tls.Config{RootCAs: g.CA.Pool, ServerName: "localhost"}
}

// TLS opens a connection to a listener with implicit TLS.
func (g *Proxy) TLS(t testing.TB, l Listener) *posterntest.Client {
	t.Helper()
	c := tls.Client(g.Dial(t, l), g.ClientConfig())
	if err := c.Handshake(); err != nil {
		t.Fatal(err)
	}
	return newClient(c)
}

// newClient is a client without tags of its own.
func newClient(c net.Conn) *posterntest.Client { return posterntest.NewClient(c, "pop3") }

// Recorder is an observer and a meter that remembers.
type Recorder struct {
	mu       sync.Mutex
	changed  chan struct{}
	opened   int
	events   map[uint64][]string
	shakes   []Handshake
	closes   []Closed
	refused  []LoginFailed
	logins   []Login
	software []Software
	cleared  map[Listener]int
	injected map[Listener]int
	failures map[UpstreamFailure]int
	relayed  map[Direction]int
}

func newRecorder() *Recorder {
	return &Recorder{
		changed: make(chan struct{}), events: make(map[uint64][]string), cleared: make(map[Listener]int),
		injected: make(map[Listener]int), failures: make(map[UpstreamFailure]int), relayed: make(map[Direction]int),
	}
}

// note changes the record and wakes who waits for it.
func (r *Recorder) note(change func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	change()
	close(r.changed)
	r.changed = make(chan struct{})
}

// Handshake, Login, Software and Closed make it an Observer.
func (r *Recorder) Handshake(h *Handshake) {
	r.note(func() {
		kept, conn := *h, *h.Conn
		if kept.Conn = &conn; kept.Hello != nil {
			hello := *h.Hello
			hello.Versions, hello.CipherSuites = slices.Clone(hello.Versions), slices.Clone(hello.CipherSuites)
			hello.Extensions, hello.ALPN = slices.Clone(hello.Extensions), slices.Clone(hello.ALPN)
			kept.Hello = &hello
		}
		r.shakes = append(r.shakes, kept)
		r.events[h.ID] = append(r.events[h.ID], "handshake")
	})
}

func (r *Recorder) LoginFailed(l *LoginFailed) {
	r.note(func() {
		kept, conn := *l, *l.Conn
		kept.Conn = &conn
		r.refused = append(r.refused, kept)
	})
}

func (r *Recorder) Login(l *Login) {
	r.note(func() {
		r.logins = append(r.logins, *l)
		r.events[l.ID] = append(r.events[l.ID], "login")
	})
}

func (r *Recorder) Software(e *Software) {
	r.note(func() {
		r.software = append(r.software, *e)
		r.events[e.ID] = append(r.events[e.ID], "software")
	})
}

func (r *Recorder) Closed(c *Closed) {
	r.note(func() {
		kept, conn := *c, *c.Conn
		kept.Conn = &conn
		r.closes = append(r.closes, kept)
		r.events[c.ID] = append(r.events[c.ID], "closed")
	})
}

func (r *Recorder) Opened(Listener)           { r.note(func() { r.opened++ }) }
func (r *Recorder) CleartextLogin(l Listener) { r.note(func() { r.cleared[l]++ }) }
func (r *Recorder) Injection(l Listener)      { r.note(func() { r.injected[l]++ }) }

func (r *Recorder) Relayed(_ Listener, d Direction, n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.relayed[d] += n
}

func (r *Recorder) UpstreamConnected(Listener, time.Duration) {}
func (r *Recorder) UpstreamUp(string, error)                  {}
func (r *Recorder) UpstreamGreeted(string)                    {}
func (r *Recorder) LimitRefused(Listener, Limit)              {}
func (r *Recorder) ProxyHeaderFailed(Listener)                {}

func (r *Recorder) UpstreamFailed(_ string, f UpstreamFailure) {
	r.note(func() { r.failures[f]++ })
}

// wait waits until done says so of the record, which is locked meanwhile.
func (r *Recorder) wait(t testing.TB, what string, done func() bool) {
	t.Helper()
	timeout := time.After(time.Minute)
	for {
		r.mu.Lock()
		ok, changed := done(), r.changed
		r.mu.Unlock()
		if ok {
			return
		}
		select {
		case <-changed:
		case <-timeout:
			t.Fatalf("waiting for %s: timed out; events %v", what, r.events)
		}
	}
}

// Events are those of a connection so far, in order.
func (r *Recorder) Events(id uint64) []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.events[id])
}

// WaitClosed waits for the nth end of a connection and returns it.
func (r *Recorder) WaitClosed(t testing.TB, n int) Closed {
	t.Helper()
	r.wait(t, "the end of a connection", func() bool { return len(r.closes) >= n })
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.closes[n-1]
}

// WaitHandshake waits for the nth end of a handshake and returns it.
func (r *Recorder) WaitHandshake(t testing.TB, n int) Handshake {
	t.Helper()
	r.wait(t, "the end of a handshake", func() bool { return len(r.shakes) >= n })
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.shakes[n-1]
}
