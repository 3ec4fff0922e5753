package proxy

import (
	"bufio"
	"crypto/tls"
	"io"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"postern/internal/posterntest"
	"postern/policy"
)

// lateListener hands out connections whose writes return late once they are
// told to: the bytes are with the client long before.
type lateListener struct {
	net.Listener
	late atomic.Bool
}

func (l *lateListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &lateConn{c.(*net.TCPConn), l}, nil
}

type lateConn struct {
	*net.TCPConn
	l *lateListener
}

func (c *lateConn) Write(p []byte) (int, error) {
	n, err := c.TCPConn.Write(p)
	if c.l.late.Load() {
		time.Sleep(200 * time.Millisecond)
	}
	return n, err
}

// A client that has been told of its login is not one that has not logged in,
// even where the shutdown begins in that moment.
func TestALoginThatTheClientKnowsOfRunsOnAtShutdown(t *testing.T) {
	imap := posterntest.StartUpstream(t, posterntest.IMAPGreeting, posterntest.IMAPReply)
	pop3 := posterntest.StartUpstream(t, posterntest.POP3Greeting, posterntest.POP3Reply)
	for l, login := range map[Listener]struct{ commands, reply, next, answer string }{
		IMAPS: {"a LOGIN anna secret\r\n", "a OK", "b NOOP\r\n", "b OK"},
		POP3S: {"PASS secret\r\n", "+OK", "NOOP\r\n", "+OK"},
	} {
		late := new(lateListener)
		g := StartProxy(t, policy.Enforce, imap.Addr(), pop3.Addr(), func(c *Config) {
			late.Listener = c.Listeners[l][0]
			c.Listeners[l][0] = late
			c.TimeoutDrain = time.Minute
		})
		c := g.TLS(t, l)
		c.ExpectLine(t, "")
		late.late.Store(true)
		c.Send(t, login.commands)
		if line := c.ExpectLine(t, ""); !strings.HasPrefix(line, login.reply) {
			t.Fatalf("%s: the login was answered %q", l, line)
		}
		stopped := shutDown(t, g)
		time.Sleep(50 * time.Millisecond) // the write has still not returned
		c.Send(t, login.next)
		if line := c.ExpectLine(t, ""); !strings.HasPrefix(line, login.answer) {
			t.Errorf("%s: a session that had logged in was told %q", l, line)
		}
		c.Close()
		<-stopped
	}
}

// shutDown begins to stop a proxy before the test's end does: to that it leaves
// one that does nothing.
func shutDown(t *testing.T, g *Proxy) (stopped chan struct{}) {
	t.Helper()
	running := g.Server
	var err error
	if g.Server, err = New(Config{Policy: running.tls.policy, Now: time.Now, Log: running.cfg.Log}); err != nil {
		t.Fatal(err)
	}
	stopped = make(chan struct{})
	go func() {
		defer close(stopped)
		running.Shutdown(t.Context())
	}()
	return stopped
}

// A client that is explained does not hold up a shutdown, and hears why all the same.
func TestExplainedClientsAreToldAtShutdown(t *testing.T) {
	imap, pop3 := stubs(t)
	posterntest.Within(t, "the shutdown", 1500*time.Millisecond, func() time.Duration {
		g := StartProxy(t, policy.Explain, imap.Addr(), pop3.Addr(), func(c *Config) { c.TimeoutDrain = time.Minute })
		clients := make(map[Listener]*tls.Conn)
		for i, l := range []Listener{IMAP, POP3, POP3S} {
			c := g.Dial(t, l)
			if !l.ImplicitTLS() {
				beginTLS(t, c, l)
			}
			clients[l] = tls.Client(c, g.oldClient())
			if err := clients[l].Handshake(); err != nil {
				t.Fatal(err)
			}
			g.WaitHandshake(t, i+1)
		}
		begun := time.Now()
		<-shutDown(t, g)
		took := time.Since(begun)
		for l, c := range clients {
			if got, err := io.ReadAll(c); err != nil || !strings.Contains(string(got), " TLS 1.0 is no longer accepted here") {
				t.Errorf("%s: %q, %v", l, got, err)
			}
		}
		return took
	})
}

// An upstream that greets and then does not take an ID does not hold up a shutdown.
func TestAClientOfASilentUpstreamIsToldAtShutdown(t *testing.T) {
	told := make(chan struct{}, 10)
	up := posterntest.StartRawUpstream(t, func(c net.Conn) {
		io.WriteString(c, posterntest.IMAPGreeting)
		for in := bufio.NewReader(c); ; {
			line, err := in.ReadString('\n')
			if err != nil {
				return
			} else if strings.Contains(line, "x-originating-ip") {
				told <- struct{}{}
			}
		}
	})
	posterntest.Within(t, "the shutdown", 1500*time.Millisecond, func() time.Duration {
		g := StartProxy(t, policy.Enforce, up.Addr(), "", func(c *Config) {
			c.UpstreamClientID, c.UpstreamTimeout, c.TimeoutDrain = true, time.Minute, time.Minute
		})
		<-told // by the prober
		c := g.TLS(t, IMAPS)
		<-told
		begun := time.Now()
		<-shutDown(t, g)
		if line := c.ExpectLine(t, ""); !strings.HasPrefix(line, "* BYE Shutting down") {
			t.Errorf("after %v: %q", time.Since(begun), line)
		}
		return time.Since(begun)
	})
}
