package ledger

import (
	"runtime"

	"golang.org/x/sys/unix"
)

// lowestPriority is that of nice(1).
const lowestPriority = 19

// lowPriority gives the goroutine a thread of its own with the lowest priority, for
// good: only the privileged may raise it again.
func lowPriority() {
	runtime.LockOSThread()
	_ = unix.Setpriority(unix.PRIO_PROCESS, unix.Gettid(), lowestPriority) // where it is denied, mail waits a little longer
}
