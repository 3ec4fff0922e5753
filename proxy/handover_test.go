package proxy

import (
	"testing"
	"time"

	"postern/internal/posterntest"
	"postern/policy"
)

// Sessions run on, logged in or not, and the end of the last one is known.
func TestAHandoverLeavesSessionsAlone(t *testing.T) {
	imap := posterntest.StartUpstream(t, posterntest.IMAPGreeting, posterntest.IMAPReply).Addr()
	pop3 := posterntest.StartUpstream(t, posterntest.POP3Greeting, posterntest.POP3Reply).Addr()
	g := StartProxy(t, policy.Enforce, imap, pop3, nil)
	before := posterntest.NewClient(g.Dial(t, IMAP), "imap")
	if _, err := before.Line(); err != nil { // the greeting: it has been accepted
		t.Fatal(err)
	}
	ended := g.HandOver()
	for range 3 {
		if err := before.Do("NOOP"); err != nil {
			t.Fatal(err)
		}
		select {
		case <-ended:
			t.Fatal("a connection is open, and all have ended")
		case <-time.After(10 * time.Millisecond):
		}
	}
	before.Close()
	select {
	case <-ended:
	case <-time.After(time.Minute):
		t.Error("the last connection has ended, and nobody knows")
	}
	select {
	case <-g.HandOver():
	case <-time.After(time.Minute):
		t.Error("there is no connection, and not all have ended")
	}
}
