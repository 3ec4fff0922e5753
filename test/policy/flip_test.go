package policy

import (
	"slices"
	"testing"
	"time"

	"postern/internal/posterntest"
)

const (
	flipBound = 2 * time.Second
	flipTries = 10
)

// From the rename to the first client who meets with the other mode. A busy
// machine may be late once, a proxy that looks too seldom is late each time.
func TestAnotherModeTakesOverWithinTwoSeconds(t *testing.T) {
	t.Parallel()
	g := start(t, "mode: observe\n", nil)
	g.waitMet(t, letIn)
	took := make(map[string][]time.Duration)
	late := func() bool {
		return len(took) == 0 || slices.Min(took["enforce"]) > flipBound || slices.Min(took["observe"]) > flipBound
	}
	for try := 0; try < flipTries && late(); try++ {
		for _, to := range []struct{ mode, met string }{{"enforce", rejectedBy}, {"observe", letIn}} {
			g.replace(t, "mode: "+to.mode+"\n")
			renamed := time.Now()
			g.waitMet(t, to.met)
			took[to.mode] = append(took[to.mode], time.Since(renamed))
			for range 3 {
				g.expect(t, posterntest.Caller{From: fresh()}, "imaps", to.met)
			}
		}
	}
	for mode, all := range took {
		t.Logf("to %s: %v", mode, all)
		if best := slices.Min(all); best > flipBound {
			t.Errorf("another policy, to %s, takes over in %v at best, want %v", mode, best, flipBound)
		}
	}
}
