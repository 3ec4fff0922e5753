package ledger

import (
	"os"
	"runtime"
	"sync"
)

// background holds how many readers of a whole ledger run. Each keeps a processor of
// Go's scheduler busy for seconds, which would have mail wait for the next one: so
// there are as many more meanwhile, and the threads of the readers get what time the
// system has left.
var background struct {
	sync.Mutex
	running int
	procs   int // without them
}

// backgroundProcs is how many processors there are for readers.
const backgroundProcs = scanReaders + 1

// inBackground counts a reader; the caller calls what it returns at its end.
func inBackground() (end func()) {
	background.Lock()
	defer background.Unlock()
	if background.running++; background.running == 1 {
		background.procs = runtime.GOMAXPROCS(runtime.GOMAXPROCS(0) + backgroundProcs)
	}
	return func() {
		background.Lock()
		defer background.Unlock()
		switch background.running--; {
		case background.running > 0:
		case os.Getenv("GOMAXPROCS") != "": // which the default does not heed
			runtime.GOMAXPROCS(background.procs)
		default:
			runtime.SetDefaultGOMAXPROCS()
		}
	}
}

// idleWorkers are goroutines with threads of low priority that wait for work. They
// stay: where a thread ends, the system signals what it has started as if the whole
// process had ended (PR_SET_PDEATHSIG).
var idleWorkers = make(chan func())

// inLowPriority begins f on a thread of low priority.
func inLowPriority(f func()) {
	select {
	case idleWorkers <- f:
	default:
		go work(f)
	}
}

func work(f func()) {
	lowPriority()
	for {
		f()
		f = <-idleWorkers
	}
}

// Background runs f, which reads a whole ledger and goes on with what it reads, on a
// thread of low priority, and returns at its end. It panics if f does.
func Background(f func()) {
	defer inBackground()()
	var panicked any
	done := make(chan struct{})
	inLowPriority(func() {
		defer close(done)
		defer func() { panicked = recover() }()
		f()
	})
	if <-done; panicked != nil {
		panic(panicked)
	}
}
