package posterntest

import (
	"syscall"
	"time"
)

// CPUTime is what the test's own process has used so far, in user and system mode: a
// bound on it holds also while the machine is busy with something else.
func CPUTime() time.Duration {
	var r syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &r); err != nil {
		panic(err)
	}
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}
