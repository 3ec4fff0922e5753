//go:build linux

package netpoll

import (
	"io"
	"sync/atomic"
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
	if err := c.Start(nil, time.Hour, func() { resumed <- struct{}{} }); err != nil {
		t.Fatal(err)
	}
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
	c.Start(nil, time.Hour, func() { resumed <- struct{}{} })
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
	c.Start(nil, time.Hour, func() { resumed <- struct{}{} })
	if !c.Park() {
		t.Fatal("does not park")
	}
	set.Close()
	waitResumed(t, resumed)
	if c.Park() {
		t.Error("parks in a closed set")
	}
}

// A slot that was left is used again; a late event for the connection before does
// not resume the new one.
func TestALateEventResumesNoOther(t *testing.T) {
	s := &IdleSet{}
	var resumed atomic.Int32
	first, second := &Conn{IdleSet: s}, &Conn{IdleSet: s}
	first.resume, second.resume = func() { resumed.Add(1) }, func() { resumed.Add(10) }
	s.mu.Lock()
	i := s.take(first)
	late := s.slots[i].generation
	s.mu.Unlock()
	first.Unpark()
	s.mu.Lock()
	if j := s.take(second); j != i {
		t.Fatalf("slot %d, want the free one, %d", j, i)
	}
	s.mu.Unlock()
	s.happened(i, late)
	if resumed.Load() != 1 || !second.parked {
		t.Errorf("resumed: %d; the second one is parked: %v", resumed.Load(), second.parked)
	}
	s.happened(i, s.slots[i].generation)
	if resumed.Load() != 11 || second.parked {
		t.Errorf("resumed: %d; the second one is parked: %v", resumed.Load(), second.parked)
	}
}
