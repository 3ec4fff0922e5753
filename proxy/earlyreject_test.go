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
	"postern/internal/netpoll"
	"postern/internal/posterntest"
	"postern/policy"
)

// startDeferred starts a proxy for IMAP whose listener with implicit TLS defers
// accepts, as "serve" binds it: the first bytes of a client are there when it is
// accepted.
func startDeferred(t *testing.T, mode policy.Mode, change func(*Config)) (*Proxy, *posterntest.Upstream) {
	t.Helper()
	up := posterntest.StartUpstream(t, posterntest.IMAPGreeting, posterntest.IMAPReply)
	var addr string
	g := StartProxy(t, mode, up.Addr(), "", func(c *Config) {
		lc := netpoll.ListenConfig(true)
		nl, err := lc.Listen(t.Context(), "tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		c.Listeners[IMAPS][0].Close()
		c.Listeners[IMAPS], addr = []net.Listener{nl}, nl.Addr().String()
		if change != nil {
			change(c)
		}
	})
	g.addrs[IMAPS] = addr
	return g, up
}

// say dials and says something at once.
func say(t *testing.T, g *Proxy, first []byte) *net.TCPConn {
	t.Helper()
	c := g.Dial(t, IMAPS)
	c.Write(first)
	return c
}

// wantAlert wants the alert of a client that is too old, and the end of the stream.
func wantAlert(t *testing.T, c net.Conn) {
	t.Helper()
	if got, err := io.ReadAll(c); err != nil || !bytes.Equal(got, []byte{21, 3, 1, 0, 2, 2, 70}) {
		t.Errorf("answered % x, %v", got, err)
	}
}

var tls10Hello = hello.ClientHello(hello.Typical(0x0301))

// A client that is rejected early gets the same alert, and yields the same events,
// as one that crypto/tls rejects: with a limit by client, with more behind its hello,
// or with the hello in two records.
func TestAnEarlyRejectSaysTheSameAsCryptoTLS(t *testing.T) {
	var events []Handshake
	for _, limit := range []int{0, 1000} {
		g, up := startDeferred(t, policy.Enforce, func(c *Config) { c.Limits.ConnectionsPerClient = limit })
		for i, flight := range [][]byte{tls10Hello, append(bytes.Clone(tls10Hello), "and more"...), posterntest.Fragment(tls10Hello, 50)} {
			c := say(t, g, flight)
			wantAlert(t, c)
			c.Close()
			h := g.WaitHandshake(t, i+1)
			if end := g.WaitClosed(t, i+1); end.Reason != ReasonHandshake || end.ID != h.ID ||
				h.Client != netpoll.AddrPort(c.LocalAddr()) || h.Local != netpoll.AddrPort(c.RemoteAddr()) {
				t.Errorf("limit %d: ended for %s, %d and %d, at %v", limit, end.Reason, end.ID, h.ID, h.Client)
			}
			if got := fmt.Sprint(g.Events(h.ID)); got != "[handshake closed]" {
				t.Errorf("limit %d: %s", limit, got)
			}
			events = append(events, h)
		}
		if n := up.Connections(); n > 1 { // the prober's
			t.Errorf("%d connections went upstream", n)
		}
	}
	for _, h := range events {
		same := events[0]
		if h.Outcome != Rejected || h.JA4 != same.JA4 || !h.Legacy || fmt.Sprint(h.Verdict) != fmt.Sprint(same.Verdict) || fmt.Sprint(*h.Hello) != fmt.Sprint(*same.Hello) {
			t.Errorf("told %+v,\nthen %+v", same, h)
		}
	}
}

// An early reject does without crypto/tls, also where the hello is padded.
func TestAnEarlyRejectDoesNotCallCryptoTLS(t *testing.T) {
	g, _ := startDeferred(t, policy.Enforce, nil)
	g.tls.base.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) {
		t.Error("crypto/tls has read a hello")
		return nil, nil
	}
	padded := hello.Typical(tls.VersionTLS10)
	padded.Extra = []hello.Extension{{Type: 21, Data: posterntest.Padding(hello.ClientHello(padded), 512)}}
	flights := [][]byte{tls10Hello, hello.ClientHello(padded)}
	for _, flight := range unreadable(tls.VersionTLS10) { // which crypto/tls would not read
		if len(flight) <= maxEarlyHello {
			flights = append(flights, flight)
		}
	}
	for _, flight := range flights {
		wantAlert(t, say(t, g, flight))
	}
}

// Every other client is served from its first byte on.
func TestAnEarlyRejectTakesNothingFromOthers(t *testing.T) {
	g, _ := startDeferred(t, policy.Enforce, nil)
	for i := range 2 {
		c := tls.Client(g.Dial(t, IMAPS), g.ClientConfig())
		if err := c.Handshake(); err != nil {
			t.Fatal(err)
		}
		readLine(t, c)
		c.Close()
		if h := g.WaitHandshake(t, i+1); h.Outcome != Accepted || h.Verdict.Version != policy.TLS13 {
			t.Errorf("%s, taken for %s", h.Outcome, h.Verdict.Version)
		}
	}
}

// Where the policy does not enforce, old clients are let in.
func TestNoEarlyRejectForAClientThatIsLetIn(t *testing.T) {
	for _, mode := range []policy.Mode{policy.Observe, policy.Explain} {
		g, _ := startDeferred(t, mode, nil)
		c := say(t, g, tls10Hello)
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

// The random value is drawn once for a connection, whoever asks the policy first.
func TestAShareOfConnectionsIsTheSameForAnEarlyReject(t *testing.T) {
	p, err := policy.Parse([]byte("mode: observe\nrules:\n- {name: half, mode: enforce, share: {from: 50%, to: 50%, by: connection}, from: 2020-01-01T00:00:00Z, until: 2099-01-01T00:00:00Z}\n"))
	if err != nil {
		t.Fatal(err)
	}
	g, _ := startDeferred(t, policy.Enforce, func(c *Config) { c.Policy = p })
	const n = 300
	rejected := 0
	for i := range n {
		c := say(t, g, tls10Hello)
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

func TestAResetBeforeTheFirstByteIsOfTheNetwork(t *testing.T) {
	g := startIMAP(t, nil) // a deferred accept would never see it
	c := g.Dial(t, IMAPS)
	c.SetLinger(0)
	c.Close()
	if h := g.WaitHandshake(t, 1); h.Outcome != Failed || h.Failure != FailIO {
		t.Errorf("%s, %s", h.Outcome, h.Failure)
	}
}

func TestASilentClientTimesOut(t *testing.T) {
	const timeout = 500 * time.Millisecond
	g, _ := startDeferred(t, policy.Enforce, func(c *Config) { c.TimeoutHandshake = timeout })
	tries := 0
	posterntest.Within(t, "the end", 8*time.Second, func() time.Duration {
		begun := time.Now()
		c := g.Dial(t, IMAPS)
		if got, err := io.ReadAll(c); err != nil || len(got) > 0 {
			t.Errorf("answered % x, %v", got, err)
		}
		took := time.Since(begun)
		if took < timeout {
			t.Errorf("closed after %v", took)
		}
		tries++
		if h := g.WaitHandshake(t, tries); h.Outcome != Failed || h.Failure != FailTimeout {
			t.Errorf("%s, %s", h.Outcome, h.Failure)
		}
		g.WaitClosed(t, tries)
		return took
	})
}

// A client whose hello comes late is served, before and after it is accepted for its
// silence.
func TestALateHelloIsServed(t *testing.T) {
	g, _ := startDeferred(t, policy.Enforce, nil)
	for i, delay := range []time.Duration{100 * time.Millisecond, 2500 * time.Millisecond} {
		old, modern := g.Dial(t, IMAPS), g.Dial(t, IMAPS)
		time.Sleep(delay)
		old.Write(tls10Hello)
		wantAlert(t, old)
		if h := g.WaitHandshake(t, 2*i+1); h.Outcome != Rejected {
			t.Errorf("after %v: %s", delay, h.Outcome)
		}
		c := tls.Client(modern, g.ClientConfig())
		if err := c.Handshake(); err != nil {
			t.Errorf("after %v: %v", delay, err)
		}
		c.Close()
		g.WaitHandshake(t, 2*i+2)
	}
}
