package handover

import (
	"testing"

	"golang.org/x/sys/unix"
)

// monotonic is the clock by which systemd orders reloads, in microseconds.
func monotonic(t *testing.T) int64 {
	t.Helper()
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil {
		t.Fatal(err)
	}
	return now.Nano() / 1000
}
