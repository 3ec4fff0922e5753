package proxy

import (
	"bytes"
	"crypto/rand"
	"crypto/tls"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"postern/internal/hello"
	"postern/internal/posterntest"
	"postern/policy"
)

// stubs starts an IMAP and a POP3 upstream that accept every password.
func stubs(t testing.TB) (imap, pop3 *posterntest.Upstream) {
	t.Helper()
	return posterntest.StartUpstream(t, posterntest.IMAPGreeting, posterntest.IMAPReply),
		posterntest.StartUpstream(t, posterntest.POP3Greeting, posterntest.POP3Reply)
}

// oldClient is what a client of TLS 1.0 offers.
func (g *Proxy) oldClient() *tls.Config {
	c := g.ClientConfig()
	c.MinVersion, c.MaxVersion = tls.VersionTLS10, tls.VersionTLS10
	c.CipherSuites = hello.Typical(tls.VersionTLS10).CipherSuites
	return c
}

// Invariant 1: crypto/tls enforces, policy explains.
func TestNoLenientConfigExistsUnderEnforce(t *testing.T) {
	imap, pop3 := stubs(t)
	g := StartProxy(t, policy.Enforce, imap.Addr(), pop3.Addr(), nil)
	if len(g.tls.snapshot.Load().lenient) != 0 {
		t.Errorf("%d lenient configurations", len(g.tls.snapshot.Load().lenient))
	}
	for p, c := range g.tls.snapshot.Load().strict {
		if c.MinVersion != tls.VersionTLS12 || len(c.CipherSuites) == 0 || c.MaxVersion != 0 {
			t.Errorf("%v: from %#x to %#x, suites %x", p, c.MinVersion, c.MaxVersion, c.CipherSuites)
		}
	}
	// A policy that is wrong about what it said at the start can call an old
	// client observed; it cannot let it in.
	wrong := *g.tls.snapshot.Load()
	wrong.policy = policy.New(policy.FloorTLS12, policy.Observe).At(time.Now())
	g.tls.snapshot.Store(&wrong)
	c := tls.Client(g.Dial(t, IMAPS), g.oldClient())
	if err := c.Handshake(); err == nil {
		t.Error("a TLS 1.0 client came in")
	}
	if h := g.WaitHandshake(t, 1); h.Outcome == Accepted || h.Outcome == Observed {
		t.Errorf("outcome %s", h.Outcome)
	}
	for _, mode := range []policy.Mode{policy.Explain, policy.Observe} {
		if g := StartProxy(t, mode, imap.Addr(), "", nil); len(g.tls.snapshot.Load().lenient) != 1 {
			t.Errorf("%s: %d lenient configurations", mode, len(g.tls.snapshot.Load().lenient))
		}
	}
}

// The lenient configuration is chosen for the hello that needs it, and for no
// other one.
func TestLenientConfigIsChosenPerHello(t *testing.T) {
	imap, _ := stubs(t)
	g := StartProxy(t, policy.Observe, imap.Addr(), "", nil)
	for i, tt := range []struct {
		config  *tls.Config
		outcome Outcome
	}{{g.oldClient(), Observed}, {g.ClientConfig(), Accepted}, {g.oldClient(), Observed}} {
		c := tls.Client(g.Dial(t, IMAPS), tt.config)
		if err := c.Handshake(); err != nil {
			t.Fatal(err)
		}
		if h := g.WaitHandshake(t, i+1); h.Outcome != tt.outcome || h.Verdict.Legacy() != (tt.outcome == Observed) {
			t.Errorf("%d: %s, %+v", i, h.Outcome, h.Verdict)
		}
	}
}

// Invariant 2: what is pipelined behind a login arrives once and in order, and
// so does what the upstream sends along with its OK.
func TestOneReaderAndOneWriterPerSide(t *testing.T) {
	behind := make([]byte, 300<<10)
	rand.Read(behind)
	for _, tt := range []struct {
		l                   Listener
		greeting, login, ok string
	}{
		{IMAPS, "* OK hi\r\n", "a LOGIN u p\r\n", "a OK in\r\n"},
		{POP3S, "+OK hi\r\n", "PASS p\r\n", "+OK in\r\n"},
	} {
		t.Run(string(tt.l), func(t *testing.T) {
			up := posterntest.StartRawUpstream(t, func(c net.Conn) {
				io.WriteString(c, tt.greeting)
				if _, err := io.ReadFull(c, make([]byte, len(tt.login))); err != nil {
					return
				}
				time.Sleep(20 * time.Millisecond) // the rest piles up in the proxy
				c.Write(append([]byte(tt.ok), behind...))
				io.Copy(c, c)
			})
			g := StartProxy(t, policy.Enforce, up.Addr(), up.Addr(), nil)
			c := g.TLS(t, tt.l)
			go func() {
				c.Write(append([]byte(tt.login), behind...))
				c.Conn.(*tls.Conn).CloseWrite()
			}()
			got, err := io.ReadAll(c)
			want := tt.greeting + tt.ok + string(behind) + string(behind)
			if err != nil || string(got) != want {
				t.Fatalf("%d bytes, %v, want %d; first difference at %d", len(got), err, len(want), difference(got, []byte(want)))
			}
			end := g.WaitClosed(t, 1)
			if end.ToClient != int64(len(want)) || end.ToUpstream != int64(len(tt.login)+len(behind)) {
				t.Errorf("counted %d to the client, %d to the upstream", end.ToClient, end.ToUpstream)
			}
		})
	}
}

func difference(a, b []byte) int {
	for i := range min(len(a), len(b)) {
		if a[i] != b[i] {
			return i
		}
	}
	return min(len(a), len(b))
}

// Invariant 3.
func TestNoByteGoesUpstreamForARefusedClient(t *testing.T) {
	imap, pop3 := stubs(t)
	for _, mode := range []policy.Mode{policy.Enforce, policy.Explain} {
		imapBefore, pop3Before := imap.Connections(), pop3.Connections()
		g := StartProxy(t, mode, imap.Addr(), pop3.Addr(), nil)
		for imap.Connections() == imapBefore || pop3.Connections() == pop3Before {
			time.Sleep(time.Millisecond) // the probe at the start
		}
		n := 0
		for _, l := range Listeners {
			for _, flight := range [][]byte{
				nil, hello.SSLv2(), posterntest.SSLv2Offering(0x0303), hello.ClientHello(hello.Typical(0x0300)), []byte("a LOGIN u p\r\n"),
			} {
				c := g.Dial(t, l)
				n++
				if !l.ImplicitTLS() {
					beginTLS(t, c, l)
				}
				if flight != nil {
					c.Write(flight)
					c.CloseWrite()
					io.Copy(io.Discard, c)
					continue
				}
				if tc := tls.Client(c, g.oldClient()); tc.Handshake() == nil {
					io.WriteString(tc, "a LOGIN u p\r\nUSER u\r\nPASS p\r\n")
					io.Copy(io.Discard, tc)
				}
				c.Close()
			}
		}
		g.WaitClosed(t, n)
		for _, h := range g.shakes {
			if h.Outcome == Accepted || h.Outcome == Observed {
				t.Errorf("%s on %s", h.Outcome, h.Listener)
			}
		}
		for end := time.Now().Add(time.Minute); imap.FromClients()+pop3.FromClients() > 0; time.Sleep(time.Millisecond) {
			if time.Now().After(end) { // or the prober has been asking since
				t.Fatalf("%s: an upstream was dialled", mode)
			}
		}
	}
	if got := append(imap.ReceivedFromClients(), pop3.ReceivedFromClients()...); len(got) > 0 {
		t.Errorf("the upstreams received %q", got)
	}
}

// beginTLS has the dialogue that ends with the OK to STARTTLS or STLS.
func beginTLS(t testing.TB, c net.Conn, l Listener) {
	t.Helper()
	readLine(t, c)
	if l == IMAP {
		io.WriteString(c, "a STARTTLS\r\n")
	} else {
		io.WriteString(c, "STLS\r\n")
	}
	if line := readLine(t, c); !strings.Contains(line, "OK") {
		t.Fatalf("TLS is refused: %q", line)
	}
}

// readLine reads byte by byte, so that nothing of what follows is taken.
func readLine(t testing.TB, c net.Conn) string {
	t.Helper()
	var line []byte
	for b := make([]byte, 1); !bytes.HasSuffix(line, []byte("\r\n")); line = append(line, b...) {
		if _, err := io.ReadFull(c, b); err != nil {
			t.Fatalf("reading a line: %v, after %q", err, line)
		}
	}
	return string(line)
}

// Invariant 4.
func TestNothingFromBeforeSTARTTLSSurvives(t *testing.T) {
	imap, pop3 := stubs(t)
	g := StartProxy(t, policy.Enforce, imap.Addr(), pop3.Addr(), nil)
	for _, tt := range []struct {
		l                       Listener
		chat, inject, after, ok string
		answers                 int // lines to the chat, the greeting among them
		up                      *posterntest.Upstream
	}{
		{IMAP, "a ID (\"name\" \"before\")\r\nb LOGIN before before\r\nc CAPABILITY\r\n", "s STARTTLS\r\nx NOOP\r\n", "a LOGIN after after\r\n", "a OK", 6, imap},
		{POP3, "CAPA\r\nUSER before\r\nPASS before\r\n", "STLS\r\nNOOP\r\n", "USER after\r\n", "+OK", 8, pop3},
	} {
		t.Run(string(tt.l), func(t *testing.T) {
			c := g.Dial(t, tt.l)
			readLine(t, c)
			io.WriteString(c, tt.inject)
			said, _ := io.ReadAll(c)
			if bytes.Contains(said, []byte("OK")) || len(said) == 0 {
				t.Errorf("pipelined behind the command: %q", said)
			}
			c.Close()

			c = g.Dial(t, tt.l)
			io.WriteString(c, tt.chat)
			for n := 0; n < tt.answers; n++ {
				readLine(t, c)
			}
			before := g.shakeCount()
			tc := secure(t, g, c, tt.l)
			tc.Send(t, tt.after)
			if line := tc.ExpectLine(t, ""); !strings.HasPrefix(line, tt.ok) {
				t.Errorf("inside TLS: %q", line)
			}
			if got := string(tt.up.ReceivedFromClients()); got != tt.after {
				t.Errorf("the upstream received %q", got)
			}
			if h := g.WaitHandshake(t, before+1); !h.StartTLS || h.Outcome != Accepted {
				t.Errorf("handshake %+v", h)
			}
			if g.injected[tt.l] != 1 || g.cleared[tt.l] != 1 {
				t.Errorf("injections %v, logins in clear %v", g.injected, g.cleared)
			}
		})
	}
	if n := g.shakeCount(); n != 2 {
		t.Errorf("%d handshakes: an injection must count as none", n)
	}
}

func (r *Recorder) shakeCount() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.shakes)
}

// secure sends STARTTLS or STLS on a connection that has been greeted, and
// shakes hands.
func secure(t testing.TB, g *Proxy, c net.Conn, l Listener) *posterntest.Client {
	t.Helper()
	command := "s STARTTLS\r\n"
	if l == POP3 {
		command = "STLS\r\n"
	}
	io.WriteString(c, command)
	if line := readLine(t, c); !strings.Contains(line, "OK") {
		t.Fatalf("TLS is refused: %q", line)
	}
	tc := tls.Client(c, g.ClientConfig())
	if err := tc.Handshake(); err != nil {
		t.Fatal(err)
	}
	return newClient(tc)
}
