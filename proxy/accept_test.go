package proxy

import (
	"net"
	"testing"
	"time"

	"postern/internal/posterntest"
	"postern/policy"
)

// stuck is a listener whose accept loop does not wake up.
type stuck struct{ net.Listener }

func (stuck) SetDeadline(time.Time) error { return nil }

// waitTurns waits until so many accept loops have gone round.
func waitTurns(t *testing.T, g *Proxy, n int64) {
	t.Helper()
	for end := time.Now().Add(time.Minute); g.turns.Load() < n; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%d accept loops have gone round, want %d", g.turns.Load(), n)
		}
	}
}

// The watchdog's question wakes every accept loop, and each goes on after it.
func TestAcceptsIsFalseWhereAnAcceptLoopIsStuck(t *testing.T) {
	up := posterntest.StartUpstream(t, posterntest.IMAPGreeting, posterntest.IMAPReply).Addr()
	g := StartProxy(t, policy.Enforce, up, up, nil)
	for range 3 {
		g.Accepts()
		waitTurns(t, g, 4)
		if !g.Accepts() {
			t.Fatal("not every loop takes connections")
		}
		g.Dial(t, IMAP).Read(make([]byte, 1)) // the greeting
	}
	g = StartProxy(t, policy.Enforce, up, up, func(cfg *Config) { cfg.Listeners[POP3][0] = stuck{cfg.Listeners[POP3][0]} })
	for range 3 {
		if g.Accepts() {
			t.Error("a loop that is stuck takes connections")
		}
		waitTurns(t, g, 3) // of those that are not stuck
	}
	g.Shutdown(t.Context())
	if !g.Accepts() {
		t.Error("a server that drains is no server that is stuck")
	}
}
