package policy

import (
	"testing"
	"time"

	"postern/internal/posterntest"
)

// From the rename to the first client who meets with the other mode.
func TestAnotherModeTakesOverWithinTwoSeconds(t *testing.T) {
	t.Parallel()
	g := start(t, "mode: observe\n", nil)
	to := func(mode, met string) time.Duration {
		g.replace(t, "mode: "+mode+"\n")
		renamed := time.Now()
		g.waitMet(t, met)
		took := time.Since(renamed)
		for range 3 {
			g.expect(t, posterntest.Caller{From: fresh()}, "imaps", met)
		}
		return took
	}
	posterntest.Within(t, "the policy, to enforce,", 2*time.Second, func() time.Duration {
		to("observe", letIn)
		return to("enforce", rejectedBy)
	})
	posterntest.Within(t, "the policy, to observe,", 2*time.Second, func() time.Duration {
		to("enforce", rejectedBy)
		return to("observe", letIn)
	})
}
