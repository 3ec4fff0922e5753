package handover

import (
	"errors"
	"net"
	"os"
	"syscall"
	"testing"
)

func TestAStartThatFailsForWantOfDescriptorsTakesNone(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0") // Go's poller has its own by now
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	defer syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit)
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &syscall.Rlimit{Cur: 64, Max: limit.Max}); err != nil {
		t.Fatal(err)
	}
	var taken []*os.File
	take := func() {
		for {
			f, err := os.Open(os.DevNull)
			if err != nil {
				return
			}
			taken = append(taken, f)
		}
	}
	defer func() {
		for _, f := range taken {
			f.Close()
		}
	}()
	take()
	// The pair takes two, the link a third, and one of the pair goes; a process takes two.
	for free := range 4 {
		for range free {
			taken[len(taken)-1].Close()
			taken = taken[:len(taken)-1]
		}
		before := len(taken)
		if _, err := (Given{Program: "postern"}).Start(); !errors.Is(err, syscall.EMFILE) {
			t.Errorf("%d are left: %v", free, err)
		}
		if take(); len(taken) != before+free {
			t.Errorf("%d were left, then %d", free, len(taken)-before)
		}
	}
}
