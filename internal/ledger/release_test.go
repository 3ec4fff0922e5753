package ledger

import (
	"context"
	"fmt"
	"testing"
	"time"

	"postern/policy"
)

// TestManyGuardsAreReadTogether, each with its own bounds.
func TestManyGuardsAreReadTogether(t *testing.T) {
	each(t, func(t *testing.T, g *replica) {
		file := "rules:\n"
		const rules = 200
		for i := range rules {
			file += fmt.Sprintf("  - {name: r%d, mode: enforce, guard: {clients: %d, within: %dm, then: observe}}\n", i, i%5, 1+i)
		}
		p := guardedBy(t, file)
		clients := g.known(4)
		for i := range rules {
			g.meet(hello(clients[0], byRule(fmt.Sprintf("r%d", i))))
		}
		g.flush()
		g.later(100 * time.Minute)
		for i := range rules {
			for _, c := range clients[1 : 1+i%4] {
				g.meet(hello(c, byRule(fmt.Sprintf("r%d", i))))
			}
		}
		for i, all := 0, g.check(p); i < rules; i++ {
			s, seen := all[fmt.Sprintf("r%d", i)], i%4
			if i >= 100 { // for which the first one counts
				seen++
			}
			if seen = min(seen, i%5+1); s.Seen != seen || s.Tripped.IsZero() != (seen <= i%5) {
				t.Errorf("%+v, want %d", s, seen)
			}
		}
	})
}

func benchmarkGuards(b *testing.B, kind string, n int) {
	g := newReplica(b, newURL(b, kind))
	file := "rules:\n"
	for i := range n {
		file += fmt.Sprintf("  - {name: r%d, mode: enforce, guard: {clients: 20, within: 1h, then: observe}}\n", i)
	}
	p, err := policy.Parse([]byte(file))
	if err != nil {
		b.Fatal(err)
	}
	clients := g.known(20)
	for i := range n {
		for _, c := range clients {
			g.meet(hello(c, byRule(fmt.Sprintf("r%d", i))))
		}
	}
	g.flush()
	for b.Loop() {
		if _, err := g.Guards(context.Background(), p); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkGuards is what each gate asks once a second.
func BenchmarkGuards(b *testing.B) {
	for _, kind := range []string{"sqlite", "postgres"} {
		for _, n := range []int{1, 200} {
			b.Run(fmt.Sprintf("%s/%d", kind, n), func(b *testing.B) { benchmarkGuards(b, kind, n) })
		}
	}
}
