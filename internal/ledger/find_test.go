package ledger

import (
	"fmt"
	"testing"
)

// A page lists nobody whom its total lacks, although clients come meanwhile.
func TestATotalHasAllOfItsPage(t *testing.T) {
	each(t, func(t *testing.T, g *replica) {
		const clients = 50
		done := make(chan error)
		go func() {
			defer close(done)
			for i := range clients {
				g.meet(hello(fmt.Sprintf("198.51.100.%d", i)))
				if err := g.Flush(t.Context()); err != nil {
					done <- err
					return
				}
			}
		}()
		for ended := false; !ended; {
			select {
			case err := <-done:
				if ended = true; err != nil {
					t.Fatal(err)
				}
			default:
			}
			for _, f := range []Filter{{}, {Noise: true}} { // one is counted by a statement of its own
				p, err := g.store.Find(t.Context(), f, Order{}, "", clients)
				if err != nil || p.Total < len(p.Clients) || ended && len(p.Clients) != clients {
					t.Errorf("%+v: %d clients of a total of %d: %v", f, len(p.Clients), p.Total, err)
				}
			}
		}
	})
}
