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
	"testing"
	"time"

	"postern/internal/posterntest"
	"postern/policy"
)

// waitParked waits until so many directions are parked.
func waitParked(t *testing.T, g *Proxy, n int) {
	t.Helper()
	for end := time.Now().Add(time.Minute); g.idleSet.Len() != n; {
		if time.Now().After(end) {
			t.Fatalf("%d directions are parked, want %d", g.idleSet.Len(), n)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

func startIMAP(t *testing.T, change func(*Config)) *Proxy {
	up := posterntest.StartUpstream(t, posterntest.IMAPGreeting, posterntest.IMAPReply)
	return StartProxy(t, policy.Enforce, up.Addr(), "", change)
}

// A session parks after a second of silence, goes on when either side speaks,
// and parks again.
func TestASilentSessionParksAndGoesOn(t *testing.T) {
	g := startIMAP(t, nil)
	c := loggedIn(t, g)
	for i := range 3 {
		posterntest.Within(t, "an answer", 5*time.Second, func() time.Duration {
			waitParked(t, g, 2)
			c.SetDeadline(time.Now().Add(time.Minute))
			begun := time.Now()
			fmt.Fprintf(c, "b%d NOOP\r\n", i)
			if got, want := readLine(t, c), fmt.Sprintf("b%d OK done\r\n", i); got != want {
				t.Errorf("answered %q, want %q", got, want)
			}
			return time.Since(begun)
		})
	}
	waitParked(t, g, 2)
	c.Close()
	if end := g.WaitClosed(t, 1); end.Reason != ReasonClient {
		t.Errorf("ended for %s", end.Reason)
	}
	waitParked(t, g, 0)
}

func TestAParkedSessionNoticesThatTheUpstreamLeaves(t *testing.T) {
	posterntest.Within(t, "the end", 5*time.Second, func() time.Duration { return upstreamLeaves(t) })
}

// upstreamLeaves returns how long its client takes to notice.
func upstreamLeaves(t *testing.T) time.Duration {
	t.Helper()
	leave := make(chan struct{})
	up := posterntest.StartRawUpstream(t, func(c net.Conn) {
		io.WriteString(c, posterntest.IMAPGreeting)
		c.Read(make([]byte, 100))
		io.WriteString(c, "a OK in\r\n")
		<-leave
		io.WriteString(c, "* BYE gone\r\n")
	})
	g := StartProxy(t, policy.Enforce, up.Addr(), "", nil)
	c := loggedIn(t, g)
	waitParked(t, g, 2)
	close(leave)
	begun := time.Now()
	c.SetDeadline(begun.Add(time.Minute))
	if rest, err := io.ReadAll(c); err != nil || string(rest) != "* BYE gone\r\n" {
		t.Errorf("told %q, %v", rest, err)
	}
	took := time.Since(begun)
	c.Close()
	if end := g.WaitClosed(t, 1); end.Reason != ReasonUpstream {
		t.Errorf("ended for %s", end.Reason)
	}
	return took
}

func TestAParkedSessionEndsAfterTheIdleTime(t *testing.T) {
	const idle = 5 * time.Second
	g := startIMAP(t, func(c *Config) { c.TimeoutIdle = idle })
	tries := 0
	posterntest.Within(t, "the session", idle+3*time.Second, func() time.Duration {
		c := loggedIn(t, g)
		waitParked(t, g, 2)
		c.SetDeadline(time.Now().Add(time.Minute))
		if rest, err := io.ReadAll(c); err != nil || len(rest) > 0 {
			t.Errorf("told %q, %v; want close_notify alone", rest, err)
		}
		tries++
		end := g.WaitClosed(t, tries)
		if end.Reason != ReasonTimeout || end.Duration < idle {
			t.Errorf("ended for %s after %v", end.Reason, end.Duration)
		}
		waitParked(t, g, 0)
		return end.Duration
	})
}

// The idle time counts from the last byte, also where it came while parked.
func TestAParkedSessionThatSpeaksHasItsIdleTimeAnew(t *testing.T) {
	const idle = 6 * time.Second
	g := startIMAP(t, func(c *Config) { c.TimeoutIdle = idle })
	posterntest.Within(t, "the session after its last word", idle+2*time.Second, func() time.Duration {
		c := loggedIn(t, g)
		c.SetDeadline(time.Now().Add(time.Minute))
		var spoke time.Time
		for range 2 {
			waitParked(t, g, 2)
			time.Sleep(700 * time.Millisecond)
			spoke = time.Now()
			io.WriteString(c, "b NOOP\r\n")
			readLine(t, c)
		}
		if rest, err := io.ReadAll(c); err != nil || len(rest) > 0 {
			t.Errorf("told %q, %v", rest, err)
		}
		after := time.Since(spoke)
		if after < idle {
			t.Errorf("ended %v after the last word, want %v", after, idle)
		}
		waitParked(t, g, 0)
		return after
	})
}

func TestParkedSessionsEndAtShutdown(t *testing.T) {
	noLeak(t)
	const drain, sessions = 3 * time.Second, 20
	posterntest.Within(t, "the drain", drain+time.Second, func() time.Duration {
		g := startIMAP(t, func(c *Config) { c.TimeoutDrain = drain })
		for range sessions {
			loggedIn(t, g)
		}
		waitParked(t, g, 2*sessions)
		running := g.Server
		begun := time.Now()
		<-shutDown(t, g)
		took := time.Since(begun)
		for i := range sessions {
			g.WaitClosed(t, i+1)
		}
		if n := running.idleSet.Len(); n != 0 {
			t.Errorf("%d directions are still parked", n)
		}
		return took
	})
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
					c.SetDeadline(time.Now().Add(time.Minute))
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
		if end := g.WaitClosed(t, i+1); end.Reason != ReasonClient {
			t.Errorf("ended for %s", end.Reason)
		}
	}
}

// slowMeter has the client's direction wait for two seconds, once, as a machine
// may that has much to do.
type slowMeter struct {
	*Recorder
	once atomic.Bool
}

func (m *slowMeter) Relayed(l Listener, d Direction, n int) {
	m.Recorder.Relayed(l, d, n)
	if d == ToUpstream && n > 10_000 && m.once.CompareAndSwap(false, true) {
		time.Sleep(2 * time.Second)
	}
}

// A session does not park on records that have left the socket, but not the proxy.
func TestASessionParksOnlyWhenItHasNothingLeft(t *testing.T) {
	got := make(chan int, 1000)
	up := posterntest.StartRawUpstream(t, func(c net.Conn) {
		io.WriteString(c, posterntest.IMAPGreeting)
		buf := make([]byte, 64<<10)
		if _, err := c.Read(buf); err != nil {
			return
		}
		io.WriteString(c, "a OK in\r\n")
		for n, err := c.Read(buf); err == nil; n, err = c.Read(buf) {
			got <- n
		}
	})
	g := StartProxy(t, policy.Enforce, up.Addr(), "", func(c *Config) { c.Metrics = &slowMeter{Recorder: c.Metrics.(*Recorder)} })
	config := g.ClientConfig()
	config.DynamicRecordSizingDisabled = true
	held := &holding{Conn: g.Dial(t, IMAPS)}
	c := tls.Client(held, config)
	io.WriteString(c, "a LOGIN u p\r\n")
	readLine(t, c)
	readLine(t, c)
	held.hold = true
	c.Write(bytes.Repeat([]byte("x"), 3<<14)) // three records, in one write
	held.Conn.Write(held.bytes)
	left := 3 << 14
	for end := time.After(time.Minute); left > 0; {
		select {
		case n := <-got:
			left -= n
		case <-end:
			t.Fatalf("%d bytes have not arrived", left)
		}
	}
	waitParked(t, g, 2)
}

// holding keeps what is written while hold is set.
type holding struct {
	net.Conn
	hold  bool
	bytes []byte
}

func (h *holding) Write(b []byte) (int, error) {
	if h.hold {
		h.bytes = append(h.bytes, b...)
		return len(b), nil
	}
	return h.Conn.Write(b)
}
