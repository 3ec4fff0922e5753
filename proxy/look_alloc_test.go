//go:build !race

// The race detector allocates on its own account.

package proxy

import "testing"

// Whoever comes again, or names the same server, costs no memory.
func TestLookAllocatesNothingForAHelloItHasSeen(t *testing.T) {
	for _, h := range legacyHellos(t) {
		var l look
		if n := testing.AllocsPerRun(10, func() {
			if !l.read(h.bytes) {
				t.Fatalf("%s: not understood", h.name)
			}
		}); n != 0 {
			t.Errorf("%s: %v allocations", h.name, n)
		}
	}
}
