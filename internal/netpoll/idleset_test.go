//go:build linux

package netpoll

import (
	"io"
	"testing"
	"time"
)

// waitResumed waits for a connection to be resumed.
func waitResumed(t *testing.T, resumed chan struct{}) {
	t.Helper()
	select {
	case <-resumed:
	case <-time.After(time.Minute):
		t.Fatal("not resumed")
	}
}

func TestAParkedConnectionIsResumed(t *testing.T) {
	c, peer := pair(t)
	resumed := make(chan struct{}, 10)
	c.Start(c.Read, time.Hour, func() { resumed <- struct{}{} })
	park := func() {
		t.Helper()
		if !c.Park() || c.IdleSet.Len() != 1 {
			t.Fatal("does not park")
		}
	}
	for range 2 { // there is something to read, again and again
		park()
		io.WriteString(peer, "word")
		waitResumed(t, resumed)
		if got, err := next(c); got != "word" || err != nil {
			t.Errorf("read %q, %v", got, err)
		}
	}
	park()
	c.Close()
	waitResumed(t, resumed)
	if c.Park() || c.IdleSet.Len() != 0 || len(resumed) > 0 {
		t.Errorf("parks after Close; %d are parked, %d resumed once more", c.IdleSet.Len(), len(resumed))
	}
}

func TestUnparkKeepsAConnectionFromParking(t *testing.T) {
	c, _ := pair(t)
	resumed := make(chan struct{}, 1)
	c.Start(c.Read, time.Hour, func() { resumed <- struct{}{} })
	if !c.Park() {
		t.Fatal("does not park")
	}
	c.Unpark()
	waitResumed(t, resumed)
	if c.Park() {
		t.Error("parks again")
	}
}

func TestNoConnectionIsLeftInAnIdleSetThatCloses(t *testing.T) {
	c, _ := pair(t)
	set, err := NewIdleSet()
	if err != nil {
		t.Fatal(err)
	}
	c.IdleSet = set
	resumed := make(chan struct{}, 1)
	c.Start(c.Read, time.Hour, func() { resumed <- struct{}{} })
	if !c.Park() {
		t.Fatal("does not park")
	}
	set.Close()
	waitResumed(t, resumed)
	if c.Park() {
		t.Error("parks in a closed set")
	}
}

// A late event for a parking that is over resumes nobody: neither the connection, which
// may be parked again, nor another one.
func TestALateEventResumesNoOther(t *testing.T) {
	s := &IdleSet{parked: make(map[uint64]*Conn)}
	resumed := 0
	first, second := &Conn{IdleSet: s}, &Conn{IdleSet: s}
	first.resume, second.resume = func() { resumed++ }, func() { resumed += 10 }
	s.take(first)
	late := first.parking
	s.happened(late)
	s.take(second)
	s.take(first)
	s.happened(late)
	if resumed != 1 || first.parking == 0 || second.parking == 0 {
		t.Errorf("resumed: %d; parked as %d and %d", resumed, first.parking, second.parking)
	}
	s.happened(second.parking)
	if resumed != 11 || first.parking == 0 || second.parking != 0 {
		t.Errorf("resumed: %d; parked as %d and %d", resumed, first.parking, second.parking)
	}
}
