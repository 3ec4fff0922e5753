//go:build linux

package netpoll

import (
	"errors"
	"io"
	"net"
	"os"
	"syscall"
	"testing"
	"time"
)

// pair is a Conn and its peer.
func pair(t *testing.T) (*Conn, *net.TCPConn) {
	t.Helper()
	set, err := NewIdleSet()
	if err != nil {
		t.Fatal(err)
	}
	over := make(chan struct{})
	go func() {
		defer close(over)
		set.Run()
	}()
	l := listen(t, ListenConfig(false), "tcp", "127.0.0.1:0")
	peer, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	peer.SetDeadline(time.Now().Add(30 * time.Second))
	accepted, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	c := &Conn{Socket: accepted.(*net.TCPConn), IdleSet: set}
	t.Cleanup(func() {
		c.Close()
		peer.Close()
		set.Close()
		<-over
	})
	return c, peer.(*net.TCPConn)
}

// polling is a Conn that polls, and its peer.
func polling(t *testing.T, writeTimeout time.Duration) (*Conn, *net.TCPConn) {
	t.Helper()
	c, peer := pair(t)
	c.Start(c.Read, writeTimeout, func() {})
	return c, peer
}

// next is Next with the bytes copied.
func next(c *Conn) (string, error) {
	buf, n, err := c.Next()
	if buf == nil {
		return "", err
	}
	defer buf.Put()
	return string(buf[:n]), err
}

func TestNextReadsWhatComesUntilTheEnd(t *testing.T) {
	c, peer := polling(t, time.Hour)
	for _, word := range []string{"one", "two"} {
		time.AfterFunc(20*time.Millisecond, func() { io.WriteString(peer, word) })
		if got, err := next(c); got != word || err != nil {
			t.Errorf("read %q, %v; want %q", got, err, word)
		}
	}
	peer.Close()
	if got, err := next(c); got != "" || err != io.EOF {
		t.Errorf("read %q, %v; want the end", got, err)
	}
}

func TestNextKeepsTheReadDeadline(t *testing.T) {
	c, _ := polling(t, time.Hour)
	for wait := 50 * time.Millisecond; !c.Drained(); wait *= 4 { // it may have passed before anything is tried
		c.SetReadDeadline(time.Now().Add(wait))
		if got, err := next(c); got != "" || !errors.Is(err, os.ErrDeadlineExceeded) || wait > 10*time.Second {
			t.Fatalf("read %q, %v; drained: %v", got, err, c.Drained())
		}
	}
	c.SetReadDeadline(time.Now().Add(-time.Second))
	if _, err := next(c); !errors.Is(err, os.ErrDeadlineExceeded) || c.Drained() {
		t.Errorf("%v; drained: %v, but nothing was tried", err, c.Drained())
	}
	time.AfterFunc(20*time.Millisecond, func() { c.Close() })
	c.SetReadDeadline(time.Time{})
	if _, err := next(c); !errors.Is(err, net.ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
}

// Nothing is taken away from what Read is to return.
func TestReadAvailableAndPendingDoNotWait(t *testing.T) {
	c, peer := pair(t)
	b := make([]byte, 10)
	if n, err := c.ReadAvailable(b); n != 0 || err != ErrWouldBlock || c.Pending() {
		t.Errorf("read %d, %v; pending: %v", n, err, c.Pending())
	}
	io.WriteString(peer, "words")
	for end := time.Now().Add(time.Minute); !c.Pending() && time.Now().Before(end); {
		time.Sleep(time.Millisecond)
	}
	if n, err := c.ReadAvailable(b[:3]); string(b[:n]) != "wor" || err != nil || !c.Pending() {
		t.Errorf("read %q, %v", b[:n], err)
	}
	if n, err := c.Read(b); string(b[:n]) != "ds" || err != nil {
		t.Errorf("then read %q, %v", b[:n], err)
	}
	peer.SetLinger(0)
	peer.Close()
	n, err := c.ReadAvailable(b)
	for end := time.Now().Add(time.Minute); err == ErrWouldBlock && time.Now().Before(end); n, err = c.ReadAvailable(b) {
		time.Sleep(time.Millisecond)
	}
	if n != 0 || !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("after a reset: %d, %v", n, err)
	}
}

func TestWriteLastEndsTheStream(t *testing.T) {
	c, peer := pair(t)
	c.WriteLast([]byte("bye"))
	peer.SetDeadline(time.Now().Add(time.Minute))
	if got, err := io.ReadAll(peer); string(got) != "bye" || err != nil {
		t.Errorf("read %q, %v", got, err)
	}
}

// A write to a peer that takes nothing ends when its deadline is shortened, and not
// before.
func TestTheDeadlineOfAWriteThatWaitsCanBeShortened(t *testing.T) {
	c, _ := polling(t, time.Hour)
	done := make(chan error)
	go func() {
		_, err := c.Write(make([]byte, 64<<20))
		done <- err
	}()
	select {
	case err := <-done:
		t.Fatalf("ended at once: %v", err)
	case <-time.After(300 * time.Millisecond):
	}
	c.ShortenDeadline(50 * time.Millisecond)
	select {
	case err := <-done:
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("ended with %v", err)
		}
	case <-time.After(time.Minute):
		t.Fatal("still waits")
	}
	// Nor does a later one wait for longer.
	if _, err := c.Write(make([]byte, 64<<20)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("the next one ended with %v", err)
	}
}

// A write that has waited leaves no deadline behind.
func TestAWriteAfterOneThatWaitedHasItsTime(t *testing.T) {
	const timeout = 2 * time.Second
	c, peer := polling(t, timeout)
	const size = 16 << 20
	go func() {
		time.Sleep(timeout / 4)
		io.CopyN(io.Discard, peer, size)
	}()
	if n, err := c.Write(make([]byte, size)); n != size || err != nil {
		t.Fatalf("wrote %d, %v", n, err)
	}
	time.Sleep(timeout + 100*time.Millisecond)
	if n, err := c.Write([]byte("more")); n != 4 || err != nil {
		t.Errorf("then wrote %d, %v", n, err)
	}
}
