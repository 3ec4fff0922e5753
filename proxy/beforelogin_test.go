package proxy

import (
	"bufio"
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

// twoUpstreams gives the protocol a second upstream, so that a client could be
// handed on.
func twoUpstreams(p Protocol, addr string) func(*Config) {
	return func(c *Config) {
		c.Upstreams[p] = append(c.Upstreams[p], UpstreamConfig{Name: "second", Addr: addr})
	}
}

// hangupAfter answers like a POP3 server that closes behind one command.
func hangupAfter(command, answer string) func(net.Conn) {
	return func(c net.Conn) {
		defer c.Close()
		io.WriteString(c, "+OK ready\r\n")
		buf := make([]byte, 512)
		for {
			n, err := c.Read(buf)
			if err != nil {
				return
			}
			switch said := string(buf[:n]); {
			case strings.HasPrefix(said, command):
				io.WriteString(c, answer)
				return
			case strings.HasPrefix(said, "CAPA"): // so asks the prober
				io.WriteString(c, "+OK\r\n.\r\n")
				continue
			}
			io.WriteString(c, "+OK\r\n")
		}
	}
}

func TestQUITBeforeLoginEndsTheSession(t *testing.T) {
	first := posterntest.StartRawUpstream(t, hangupAfter("QUIT", "+OK bye\r\n"))
	second := posterntest.StartRawUpstream(t, hangupAfter("QUIT", "+OK bye\r\n"))
	g := StartProxy(t, policy.Enforce, "", first.Addr(), twoUpstreams(ProtocolPOP3, second.Addr()))
	tries := 0
	posterntest.Within(t, "the end", 2*time.Second, func() time.Duration {
		tries++
		c := g.TLS(t, POP3S)
		c.ExpectLine(t, "")
		c.Send(t, "QUIT\r\n")
		begun := time.Now()
		if got := c.Rest(); got != "+OK bye\r\n" {
			t.Errorf("QUIT is answered %q", got)
		}
		return time.Since(begun)
	})
	g.WaitClosed(t, tries)
	if len(g.failures) > 0 {
		t.Errorf("an upstream is said to have failed: %v", g.failures)
	}
}

func TestAFailedLoginIsNotTriedOnAnotherUpstream(t *testing.T) {
	first := posterntest.StartRawUpstream(t, hangupAfter("PASS", "-ERR no\r\n"))
	second := posterntest.StartRawUpstream(t, hangupAfter("PASS", "-ERR no\r\n"))
	g := StartProxy(t, policy.Enforce, "", first.Addr(), twoUpstreams(ProtocolPOP3, second.Addr()))
	c := g.TLS(t, POP3S)
	c.ExpectLine(t, "")
	c.Send(t, "USER anna\r\nPASS wrong\r\n")
	if got := c.Rest(); !strings.HasPrefix(got, "+OK\r\n-ERR no\r\n-ERR [SYS/TEMP] ") || strings.Count(got, "\r\n") != 3 {
		t.Errorf("the client hears %q", got)
	}
	if tried := strings.Count(string(first.ReceivedAll())+string(second.ReceivedAll()), "PASS"); tried != 1 {
		t.Errorf("%d tries", tried)
	}
}

func TestTimeoutLoginHoldsWhileTheUpstreamThinks(t *testing.T) {
	mute := posterntest.StartRawUpstream(t, func(c net.Conn) {
		defer c.Close()
		io.WriteString(c, "* OK ready\r\n")
		io.Copy(io.Discard, c)
	})
	const limit = 2 * time.Second
	g := StartProxy(t, policy.Enforce, mute.Addr(), "", func(c *Config) {
		c.TimeoutLogin, c.UpstreamTimeout = limit, time.Minute
	})
	posterntest.Within(t, "the end", limit+2500*time.Millisecond, func() time.Duration {
		c := g.TLS(t, IMAPS)
		c.ExpectLine(t, "")
		c.Send(t, "a LOGIN u p\r\n")
		begun := time.Now()
		if got := c.Rest(); !strings.HasPrefix(got, "* BYE ") {
			t.Errorf("the client hears %q", got)
		}
		return time.Since(begun)
	})
}

func TestTLSBehindAPipelinedCommandIsKnown(t *testing.T) {
	imap, _ := stubs(t)
	g := StartProxy(t, policy.Enforce, imap.Addr(), "", nil)
	c := g.Dial(t, IMAP)
	io.WriteString(c, "a NOOP\r\n"+string(hello.ClientHello(hello.Typical(tls.VersionTLS12))))
	if h := g.WaitHandshake(t, 1); h.Failure != FailTLSOnStartTLS || h.Verdict.Version != policy.NoVersion {
		t.Errorf("failure %q, version %s", h.Failure, h.Verdict.Version)
	}
}

func TestAContinuationThatEndsLikeALiteralIsPassedOn(t *testing.T) {
	up := posterntest.StartUpstream(t, "* OK ready\r\n", func(line string) string {
		if strings.HasPrefix(line, "a AUTHENTICATE") {
			return "+ give {5}\r\n"
		}
		return "a OK in\r\n"
	})
	g := StartProxy(t, policy.Enforce, up.Addr(), "", nil)
	c := g.TLS(t, IMAPS)
	c.ExpectLine(t, "")
	c.Send(t, "a AUTHENTICATE X\r\n")
	if got := c.ExpectLine(t, ""); got != "+ give {5}" {
		t.Fatalf("the client is asked %q", got)
	}
	c.Send(t, "answer\r\n")
	if got := c.ExpectLine(t, ""); got != "a OK in" {
		t.Errorf("then it hears %q", got)
	}
}

func TestAnUpstreamThatRefusesOneClientIsNotTakenOut(t *testing.T) {
	banned := posterntest.StartRawUpstream(t, func(c net.Conn) {
		defer c.Close()
		in := bufio.NewReader(c)
		header, _ := in.ReadString('\n')
		_, port, _ := net.SplitHostPort(c.LocalAddr().String())
		if !strings.HasSuffix(header, " "+port+"\r\n") {
			io.WriteString(c, "* BYE you are banned\r\n")
			return
		}
		io.WriteString(c, "* OK ready\r\n") // for the proxy itself
		in.ReadString('\n')
		io.WriteString(c, "* CAPABILITY IMAP4rev1\r\npostern OK done\r\n")
	})
	g := StartProxy(t, policy.Enforce, banned.Addr(), "", func(c *Config) { c.UpstreamProxyProtocol = 1 })
	for range 3 {
		c := g.TLS(t, IMAPS)
		if got := c.Rest(); got != "* BYE you are banned\r\n" {
			t.Errorf("the client hears %q", got)
		}
	}
	if up := g.upstreams[ProtocolIMAP][0]; up.down.Load() {
		t.Error("the upstream is taken out")
	}
}
