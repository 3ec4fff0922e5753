//go:build linux

package proxy

import (
	"bytes"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"testing"
	"time"

	"postern/internal/hello"
	"postern/internal/posterntest"
	"postern/policy"
)

// enterLate has a client come in by the threshold when its first bytes have
// arrived, for certain.
func enterLate(t *testing.T, g *Gate, first []byte) net.Conn {
	t.Helper()
	a, c, n := knock(t, listen(t, net.ListenConfig{}, "tcp", "127.0.0.1:0"), false)
	c.Write(first)
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
			if end := g.WaitClosed(t, i+1); end.Reason != ReasonHandshake || end.ID != h.ID || h.Client != addrPort(c.LocalAddr()) || h.Local != addrPort(c.RemoteAddr()) {
				t.Errorf("limit %d: ended for %s, %d and %d, at %v", limit, end.Reason, end.ID, h.ID, h.Client)
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

// Dice are thrown once for a connection, whoever asks the policy first.
func TestAShareOfConnectionsIsTheSameOnTheThreshold(t *testing.T) {
	p, err := policy.Parse([]byte("mode: observe\nrules:\n- {name: half, mode: enforce, share: {from: 50%, to: 50%, by: connection}, from: 2020-01-01T00:00:00Z, until: 2099-01-01T00:00:00Z}\n"))
	if err != nil {
		t.Fatal(err)
	}
	g := startIMAP(t, func(c *Config) { c.Policy = p })
	const n = 300
	rejected := 0
	for i := range n {
		c := enterLate(t, g, hello.ClientHello(hello.Typical(0x0301)))
		c.Read(make([]byte, 1))
		c.Close()
		if g.WaitHandshake(t, i+1).Outcome == Rejected {
			rejected++
		}
	}
	if rejected < n/2-45 || rejected > n/2+45 { // five standard deviations
		t.Errorf("%d of %d rejected, want half of them", rejected, n)
	}
}

func TestAResetBeforeTheFirstByteIsOfTheNetworkOnTheThreshold(t *testing.T) {
	g := startIMAP(t, nil)
	a, c, n := knock(t, listen(t, net.ListenConfig{}, "tcp", "127.0.0.1:0"), false)
	c.SetLinger(0)
	c.Close()
	time.Sleep(20 * time.Millisecond)
	(&door{srv: g.Server, listener: IMAPS, acceptor: a}).enter(n)
	if h := g.WaitHandshake(t, 1); h.Outcome != Failed || h.Failure != FailIO {
		t.Errorf("%s, %s", h.Outcome, h.Failure)
	}
}
