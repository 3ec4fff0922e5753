package ledger

import (
	"testing"

	"golang.org/x/sys/unix"
)

// TestReadersHaveTheLowestPriority: the system call counts from 40 down to 1.
func TestReadersHaveTheLowestPriority(t *testing.T) {
	var priority int
	Background(func() { priority, _ = unix.Getpriority(unix.PRIO_PROCESS, unix.Gettid()) })
	if want := 20 - lowestPriority; priority != want {
		t.Errorf("%d, want %d", priority, want)
	}
	defer func() {
		if got := recover(); got != "broken" {
			t.Errorf("it panicked with %v", got)
		}
	}()
	Background(func() { panic("broken") })
}
