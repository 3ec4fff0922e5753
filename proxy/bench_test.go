package proxy

import (
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

// A whole handshake of TLS 1.3 with an ECDSA certificate and the
// post-quantum key share, and the upstream's greeting through the proxy.
func BenchmarkHandshake(b *testing.B) {
	up := posterntest.StartUpstream(b, posterntest.IMAPGreeting, posterntest.IMAPReply)
	g := StartProxy(b, policy.Enforce, up.Addr(), "", nil)
	config := g.ClientConfig()
	config.MinVersion = tls.VersionTLS13
	buf := make([]byte, 512)
	b.ReportAllocs()
	for b.Loop() {
		nc, err := net.Dial("tcp", g.Addr(IMAPS))
		if err != nil {
			b.Fatal(err)
		}
		c := tls.Client(nc, config)
		if n, err := c.Read(buf); err != nil || n == 0 {
			b.Fatal(err)
		}
		c.Close()
	}
	if h := g.WaitHandshake(b, 1); h.Key != KeyECDSA || h.Version != policy.TLS13 {
		b.Fatalf("%+v", h)
	}
}

// What it costs to turn a TLS 1.0 client away.
func BenchmarkRefusal(b *testing.B) {
	up := posterntest.StartUpstream(b, posterntest.IMAPGreeting, posterntest.IMAPReply)
	g := StartProxy(b, policy.Enforce, up.Addr(), "", nil)
	flight := hello.ClientHello(hello.Typical(tls.VersionTLS10))
	buf := make([]byte, 512)
	b.ReportAllocs()
	for b.Loop() {
		c, err := net.Dial("tcp", g.Addr(IMAPS))
		if err != nil {
			b.Fatal(err)
		}
		c.Write(flight)
		if n, _ := c.Read(buf); n != alertRecordLen || buf[n-1] != 70 {
			b.Fatalf("answered % x", buf[:n])
		}
		c.Close()
	}
}

// A command and its answer, after login.
func BenchmarkRoundTrip(b *testing.B) {
	up := posterntest.StartUpstream(b, posterntest.IMAPGreeting, posterntest.IMAPReply)
	c := loggedIn(b, StartProxy(b, policy.Enforce, up.Addr(), "", nil))
	command, answer := []byte("a NOOP\r\n"), make([]byte, len("a OK done\r\n"))
	b.ReportAllocs()
	for b.Loop() {
		c.Write(command)
		if _, err := io.ReadFull(c, answer); err != nil {
			b.Fatal(err)
		}
	}
}

// Message data on its way to the client.
func BenchmarkBulkToClient(b *testing.B) {
	const chunk = 1 << 20
	c := loggedIn(b, StartProxy(b, policy.Enforce, floodUpstream(b).Addr(), "", nil))
	buf := make([]byte, chunk)
	b.SetBytes(chunk)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := io.ReadFull(c, buf); err != nil {
			b.Fatal(err)
		}
	}
}

// floodUpstream sends without end once a login has been said.
func floodUpstream(t testing.TB) *posterntest.Upstream {
	return posterntest.StartRawUpstream(t, func(c net.Conn) {
		io.WriteString(c, posterntest.IMAPGreeting)
		buf := make([]byte, 64<<10)
		if _, err := c.Read(buf); err != nil {
			return
		}
		io.WriteString(c, "a OK in\r\n")
		for err := error(nil); err == nil; {
			_, err = c.Write(buf)
		}
	})
}

// loggedIn is a session after login.
func loggedIn(t testing.TB, g *Proxy) *tls.Conn {
	t.Helper()
	nc := g.Dial(t, IMAPS)
	nc.SetDeadline(time.Time{})
	c := tls.Client(nc, g.ClientConfig())
	io.WriteString(c, "a LOGIN u p\r\n")
	// Byte by byte, so that nothing of what follows is taken.
	for line := ""; !strings.HasPrefix(line, "a OK"); {
		line = readLine(t, c)
	}
	return c
}
