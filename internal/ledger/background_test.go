package ledger

import (
	"runtime"
	"testing"
)

// TestGOMAXPROCSOutlivesAReader: the variable is the operator's.
func TestGOMAXPROCSOutlivesAReader(t *testing.T) {
	was := runtime.GOMAXPROCS(7)
	defer runtime.GOMAXPROCS(was)
	t.Setenv("GOMAXPROCS", "7")
	end := inBackground()
	more := runtime.GOMAXPROCS(0)
	if end(); more != 7+backgroundProcs || runtime.GOMAXPROCS(0) != 7 {
		t.Errorf("%d processors, then %d, want %d, then 7", more, runtime.GOMAXPROCS(0), 7+backgroundProcs)
	}
}
