//go:build linux

package proxy

import (
	"bytes"
	"crypto/tls"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"postern/internal/hello"
	"postern/internal/posterntest"
	"postern/policy"
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
		wantOptions(t, int(n.fd))
		if n.peer != addrPort(client.LocalAddr()) || n.local != addrPort(client.RemoteAddr()) {
			t.Errorf("accepted from %v at %v, want %v and %v", n.peer, n.local, client.LocalAddr(), client.RemoteAddr())
		}
		n.open().Close()
	}
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

// parkedNow is how many directions are parked.
func (srv *Server) parkedNow() int {
	srv.lot.mu.Lock()
	defer srv.lot.mu.Unlock()
	return len(srv.lot.slots) - len(srv.lot.free)
}

// waitParked waits until so many directions are parked.
func waitParked(t *testing.T, g *Gate, n int) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); g.parkedNow() != n; {
		if time.Now().After(end) {
			t.Fatalf("%d directions are parked, want %d", g.parkedNow(), n)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

func startIMAP(t *testing.T, change func(*Config)) *Gate {
	up := posterntest.StartUpstream(t, posterntest.IMAPGreeting, posterntest.IMAPReply)
	return StartGate(t, policy.Enforce, up.Addr(), "", change)
}

// A session parks after a second of silence, goes on when either side speaks,
// and parks again.
func TestASilentSessionParksAndGoesOn(t *testing.T) {
	g := startIMAP(t, nil)
	c := loggedIn(t, g)
	for i := range 3 {
		waitParked(t, g, 2)
		c.SetDeadline(time.Now().Add(5 * time.Second))
		fmt.Fprintf(c, "b%d NOOP\r\n", i)
		if got, want := readLine(t, c), fmt.Sprintf("b%d OK done\r\n", i); got != want {
			t.Errorf("answered %q, want %q", got, want)
		}
	}
	waitParked(t, g, 2)
	c.Close()
	if end := g.WaitClosed(t, 1); end.Why != WhyClient {
		t.Errorf("ended for %s", end.Why)
	}
	waitParked(t, g, 0)
}

func TestAParkedSessionNoticesThatTheUpstreamLeaves(t *testing.T) {
	leave := make(chan struct{})
	up := posterntest.StartRawUpstream(t, func(c net.Conn) {
		io.WriteString(c, posterntest.IMAPGreeting)
		c.Read(make([]byte, 100))
		io.WriteString(c, "a OK in\r\n")
		<-leave
		io.WriteString(c, "* BYE gone\r\n")
	})
	g := StartGate(t, policy.Enforce, up.Addr(), "", nil)
	c := loggedIn(t, g)
	waitParked(t, g, 2)
	close(leave)
	c.SetDeadline(time.Now().Add(5 * time.Second))
	if rest, err := io.ReadAll(c); err != nil || string(rest) != "* BYE gone\r\n" {
		t.Errorf("told %q, %v", rest, err)
	}
	c.Close()
	if end := g.WaitClosed(t, 1); end.Why != WhyUpstream {
		t.Errorf("ended for %s", end.Why)
	}
}

func TestAParkedSessionEndsAfterTheIdleTime(t *testing.T) {
	const idle = 2500 * time.Millisecond
	g := startIMAP(t, func(c *Config) { c.TimeoutIdle = idle })
	c := loggedIn(t, g)
	waitParked(t, g, 2)
	c.SetDeadline(time.Now().Add(idle + 5*time.Second))
	if rest, err := io.ReadAll(c); err != nil || len(rest) > 0 {
		t.Errorf("told %q, %v; want close_notify alone", rest, err)
	}
	if end := g.WaitClosed(t, 1); end.Why != WhyTimeout || end.Duration < idle || end.Duration > idle+3*time.Second {
		t.Errorf("ended for %s after %v", end.Why, end.Duration)
	}
	waitParked(t, g, 0)
}

// The idle time counts from the last byte, also where it came while parked.
func TestAParkedSessionThatSpeaksHasItsIdleTimeAnew(t *testing.T) {
	const idle = 3 * time.Second
	g := startIMAP(t, func(c *Config) { c.TimeoutIdle = idle })
	c := loggedIn(t, g)
	c.SetDeadline(time.Now().Add(20 * time.Second))
	for range 2 {
		waitParked(t, g, 2)
		time.Sleep(700 * time.Millisecond)
		io.WriteString(c, "b NOOP\r\n")
		readLine(t, c)
	}
	spoke := time.Now()
	if rest, err := io.ReadAll(c); err != nil || len(rest) > 0 {
		t.Errorf("told %q, %v", rest, err)
	}
	if after := time.Since(spoke); after < idle-100*time.Millisecond || after > idle+2*time.Second {
		t.Errorf("ended %v after the last word, want %v", after, idle)
	}
}

func TestParkedSessionsEndAtShutdown(t *testing.T) {
	noLeak(t)
	g := startIMAP(t, func(c *Config) { c.TimeoutDrain = 3 * time.Second })
	const sessions = 20
	for range sessions {
		loggedIn(t, g)
	}
	waitParked(t, g, 2*sessions)
	begun := time.Now()
	g.Shutdown(t.Context())
	if took := time.Since(begun); took > 4*time.Second {
		t.Errorf("the drain took %v", took)
	}
	for i := range sessions {
		g.WaitClosed(t, i+1)
	}
	if n := g.parkedNow(); n != 0 {
		t.Errorf("%d directions are still parked", n)
	}
}

// A slot that has been left is given to others; a late event for the one before
// does not wake them.
func TestALateEventWakesNobodyElse(t *testing.T) {
	l := &lot{}
	var woken atomic.Int32
	first, second := &poller{lot: l, resume: func() { woken.Add(1) }}, &poller{lot: l, resume: func() { woken.Add(10) }}
	l.mu.Lock()
	i := l.take(first)
	late := event{i, l.slots[i].turn}
	l.mu.Unlock()
	first.stay()
	l.mu.Lock()
	if j := l.take(second); j != i {
		t.Fatalf("slot %d, want the free one, %d", j, i)
	}
	l.mu.Unlock()
	l.happened(late)
	if woken.Load() != 1 || !second.parked {
		t.Errorf("woken: %d; the second one is parked: %v", woken.Load(), second.parked)
	}
	l.happened(event{i, l.slots[i].turn})
	if woken.Load() != 11 || second.parked {
		t.Errorf("woken: %d; the second one is parked: %v", woken.Load(), second.parked)
	}
}

// Sessions that speak, fall silent and leave at random lose no byte.
func TestParkingUnderTraffic(t *testing.T) {
	noLeak(t)
	g := startIMAP(t, nil)
	const sessions = 40
	done := make(chan error)
	for i := range sessions {
		c := loggedIn(t, g)
		go func() {
			r := rand.New(rand.NewPCG(7, uint64(i)))
			done <- func() error {
				defer c.Close()
				for n := range 8 {
					time.Sleep(time.Duration(900+r.IntN(500)) * time.Millisecond)
					word := bytes.Repeat([]byte{'x'}, 1+r.IntN(2000))
					fmt.Fprintf(c, "b%d NOOP %s\r\n", n, word)
					c.SetDeadline(time.Now().Add(5 * time.Second))
					want := fmt.Sprintf("b%d OK done\r\n", n)
					got := make([]byte, len(want))
					if _, err := io.ReadFull(c, got); err != nil || string(got) != want {
						return fmt.Errorf("session %d: %q, %v", i, got, err)
					}
				}
				return nil
			}()
		}()
	}
	for range sessions {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	for i := range sessions {
		if end := g.WaitClosed(t, i+1); end.Why != WhyClient {
			t.Errorf("ended for %s", end.Why)
		}
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

// enterLate has a client come in by the threshold when its first bytes have
// arrived, for certain.
func enterLate(t *testing.T, g *Gate, first []byte) net.Conn {
	t.Helper()
	nl, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := nl.Addr().String()
	a, err := newAcceptor(nl)
	if err != nil {
		t.Fatal(err)
	}
	defer a.close()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(10 * time.Second))
	c.Write(first)
	n, err := a.accept()
	if err != nil {
		t.Fatal(err)
	}
	for !n.fd.pending() {
		time.Sleep(time.Millisecond)
	}
	(&door{srv: g.Server, listener: IMAPS, acceptor: a}).enter(n)
	return c
}

// A client that is turned away on the threshold gets the alert and the end of
// the stream, and is told of, as if it had had a session. So does one with more
// behind its hello, who has one.
func TestTheThresholdSaysTheSameAsASession(t *testing.T) {
	first := hello.ClientHello(hello.Typical(0x0301))
	var facts []Handshake
	for _, limit := range []int{0, 1000} { // with a limit by client everybody gets a session
		up := posterntest.StartUpstream(t, posterntest.IMAPGreeting, posterntest.IMAPReply)
		g := StartGate(t, policy.Enforce, up.Addr(), "", func(c *Config) { c.Limits.ConnectionsPerClient = limit })
		for i, more := range []string{"", "and more"} {
			c := enterLate(t, g, append(bytes.Clone(first), more...))
			if got, err := io.ReadAll(c); err != nil || !bytes.Equal(got, []byte{21, 3, 1, 0, 2, 2, 70}) {
				t.Errorf("limit %d, %q: told % x, %v", limit, more, got, err)
			}
			c.Close()
			h := g.WaitHandshake(t, i+1)
			if end := g.WaitClosed(t, i+1); end.Why != WhyHandshake || end.ID != h.ID || h.Client != addrPort(c.LocalAddr()) || h.Local != addrPort(c.RemoteAddr()) {
				t.Errorf("limit %d: ended for %s, %d and %d, at %v", limit, end.Why, end.ID, h.ID, h.Client)
			}
			facts = append(facts, h)
		}
		if n := up.Connections(); n > 1 { // the prober's
			t.Errorf("%d connections went upstream", n)
		}
	}
	for _, h := range facts {
		same := facts[0]
		if h.Outcome != Rejected || h.JA4 != same.JA4 || !h.Legacy || fmt.Sprint(h.Verdict) != fmt.Sprint(same.Verdict) || fmt.Sprint(*h.Hello) != fmt.Sprint(*same.Hello) {
			t.Errorf("told %+v,\nthen %+v", same, h)
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

// Whatever else comes in is served from its first byte on.
func TestTheThresholdLosesNothingOfOthers(t *testing.T) {
	g := startIMAP(t, nil)
	for i := range 2 {
		var first bytes.Buffer
		tls.Client(&captured{&first}, g.ClientConfig()).Handshake()
		c := enterLate(t, g, first.Bytes())
		answer := make([]byte, recordHeaderLen)
		if _, err := io.ReadFull(c, answer); err != nil || answer[0] != recordHandshake {
			t.Errorf("answered % x, %v", answer, err)
		}
		c.Close()
		if h := g.WaitHandshake(t, i+1); h.Verdict.Version != policy.TLS13 {
			t.Errorf("taken for %s", h.Verdict.Version)
		}
	}
}

// captured keeps what is written, and has nothing to read.
type captured struct{ to io.Writer }

func (c *captured) Read([]byte) (int, error)         { return 0, io.EOF }
func (c *captured) Write(p []byte) (int, error)      { return c.to.Write(p) }
func (c *captured) Close() error                     { return nil }
func (c *captured) LocalAddr() net.Addr              { return &net.TCPAddr{} }
func (c *captured) RemoteAddr() net.Addr             { return &net.TCPAddr{} }
func (c *captured) SetDeadline(time.Time) error      { return nil }
func (c *captured) SetReadDeadline(time.Time) error  { return nil }
func (c *captured) SetWriteDeadline(time.Time) error { return nil }

// Where the policy does not enforce, old clients come in, by way of the threshold
// too.
func TestTheThresholdLetsInWhoMayComeIn(t *testing.T) {
	for _, mode := range []policy.Mode{policy.Observe, policy.Explain} {
		up := posterntest.StartUpstream(t, posterntest.IMAPGreeting, posterntest.IMAPReply)
		g := StartGate(t, mode, up.Addr(), "", nil)
		c := enterLate(t, g, hello.ClientHello(hello.Typical(0x0301)))
		answer := make([]byte, recordHeaderLen)
		if _, err := io.ReadFull(c, answer); err != nil || answer[0] != recordHandshake {
			t.Errorf("%s: answered % x, %v", mode, answer, err)
		}
		c.Close()
		if h := g.WaitHandshake(t, 1); h.Verdict.Serve != mode || h.Outcome != Failed {
			t.Errorf("%s: %s, to be served by %s", mode, h.Outcome, h.Verdict.Serve)
		}
	}
}

// Addresses are told as package net tells them.
func TestAcceptedAddressesAreThoseOfPackageNet(t *testing.T) {
	for _, x := range []struct{ network, listen, dial string }{
		{"tcp", ":0", "127.0.0.1"}, {"tcp", ":0", "::1"}, {"tcp6", "[::1]:0", "::1"}, {"tcp4", "0.0.0.0:0", "127.0.0.2"},
	} {
		nl, err := net.Listen(x.network, x.listen)
		if err != nil {
			t.Skipf("no IPv6 here: %v", err)
		}
		port := addrPort(nl.Addr()).Port()
		a, err := newAcceptor(nl)
		if err != nil {
			t.Fatal(err)
		}
		defer a.close()
		c, err := net.Dial("tcp", net.JoinHostPort(x.dial, fmt.Sprint(port)))
		if err != nil {
			t.Skipf("no IPv6 here: %v", err)
		}
		defer c.Close()
		n, err := a.accept()
		if err != nil {
			t.Fatal(err)
		}
		opened := n.open()
		defer opened.Close()
		if n.peer != addrPort(c.LocalAddr()) || n.local != addrPort(c.RemoteAddr()) || addrPort(opened.RemoteAddr()) != n.peer {
			t.Errorf("%s: %v at %v, want %v at %v", x.listen, n.peer, n.local, c.LocalAddr(), c.RemoteAddr())
		}
	}
	sa := unix.RawSockaddrInet6{Family: unix.AF_INET6, Port: 0x0102, Addr: [16]byte{0xfe, 0x80, 15: 1}, Scope_id: 4_000_000}
	if got := peerOf(&sa).Addr(); got.Zone() != "4000000" || !got.IsLinkLocalUnicast() {
		t.Errorf("a link-local peer is %v", got)
	}
}
