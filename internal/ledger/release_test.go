package ledger

import (
	"context"
	"fmt"
	"testing"
	"time"

	"postern/policy"
	"postern/proxy"
)

// TestWhatIsReleasedStaysSoForAnyClock: a gate whose clock is ahead, or behind, has a guard
// trip again when it has refused enough clients after the release, not for those before.
func TestWhatIsReleasedStaysSoForAnyClock(t *testing.T) {
	for _, tt := range []struct {
		what              string
		refuses, releases time.Duration // how far the clock of that gate is ahead
	}{
		{"a gate a day ahead has refused", 24 * time.Hour, 0},
		{"a gate some seconds ahead has refused", 30 * time.Second, 0},
		{"a gate ten minutes behind is asked", 0, -10 * time.Minute},
	} {
		t.Run(tt.what, func(t *testing.T) {
			each(t, func(t *testing.T, g *replica) {
				p := guardedBy(t, twoGuards)
				clients := g.known(12)
				right := g.now()
				refuses, releases := g.another(), g.another()
				tripped := func(what string, want bool) {
					t.Helper()
					for _, by := range []struct {
						*replica
						ahead time.Duration
					}{{refuses, tt.refuses}, {releases, tt.releases}, {g, 0}} {
						g.at(right.Add(by.ahead))
						if s := by.check(p)["cutover"]; s.Tripped.IsZero() == want {
							t.Errorf("%s, %v ahead: %+v", what, by.ahead, s)
						}
					}
				}
				refuse := func(some []string) {
					g.at(right.Add(tt.refuses))
					for _, c := range some {
						refuses.meet(hello(c, byRule("cutover"), outcome(proxy.Explained)))
					}
				}
				tripped("at first", false)
				refuse(clients[:4])
				tripped("four clients", true)
				refuse(clients[4:8]) // which waits to be written when somebody lets it go
				if err := g.store.Release(t.Context(), "cutover", right.Add(tt.releases)); err != nil {
					t.Fatal(err)
				}
				tripped("released", false)
				right = right.Add(time.Minute)
				refuse(clients[8:11])
				tripped("three clients since", false)
				refuse(clients[11:])
				tripped("four clients since", true)
			})
		})
	}
}

// TestAGateThatKnowsNoReleaseCountsByTime: it has started while the ledger was away, so that
// refusals wait which count.
func TestAGateThatKnowsNoReleaseCountsByTime(t *testing.T) {
	each(t, func(t *testing.T, g *replica) {
		p := guardedBy(t, twoGuards)
		clients := g.known(4)
		if err := g.store.Release(t.Context(), "cutover", g.now().Add(-time.Minute)); err != nil {
			t.Fatal(err)
		}
		for _, c := range clients {
			g.meet(hello(c, byRule("cutover")))
		}
		if s := g.check(p)["cutover"]; s.Seen != 4 || s.Tripped.IsZero() {
			t.Errorf("%+v", s)
		}
	})
}

// TestAReleaseBeatsAGateThatIsAboutToTrip what it has read before.
func TestAReleaseBeatsAGateThatIsAboutToTrip(t *testing.T) {
	each(t, func(t *testing.T, g *replica) {
		p := guardedBy(t, twoGuards)
		for _, c := range g.known(4) {
			g.meet(hello(c, byRule("cutover")))
		}
		g.flush()
		states, err := g.store.Guards(t.Context(), p, g.now())
		if err != nil {
			t.Fatal(err)
		}
		if err := g.store.Release(t.Context(), "cutover", g.now()); err != nil {
			t.Fatal(err)
		}
		for i := range states {
			if err := g.store.trip(t.Context(), &states[i], g.now()); err != nil {
				t.Fatal(err)
			}
		}
		again, err := g.Guards(context.Background(), p)
		if err != nil || again[1].Rule != "cutover" || !again[1].Tripped.IsZero() {
			t.Errorf("%+v, %v", again, err)
		}
	})
}

// TestAGuardNamesThoseThatTrippedIt, and neither those that were told why afterwards nor
// those that had been long before, whatever the clocks say.
func TestAGuardNamesThoseThatTrippedIt(t *testing.T) {
	each(t, func(t *testing.T, g *replica) {
		p := guardedBy(t, `rules: [{name: ramp, mode: explain, share: {from: 0%, to: 100%}, from: 2026-06-01T00:00:00Z,
			until: 2026-06-11T00:00:00Z, guard: {clients: 2, within: 1h, then: hold}}]`)
		clients := g.known(8)
		g.check(p)
		tell := func(some ...string) {
			for _, c := range some {
				g.meet(hello(c, byRule("ramp"), outcome(proxy.Explained)))
			}
		}
		names := func(when string, want ...string) {
			t.Helper()
			state := g.check(p)["ramp"]
			by, err := g.store.TrippedBy(t.Context(), &state)
			if err != nil || state.Tripped.IsZero() || len(by) != len(want) {
				t.Errorf("%s: %v of %+v, %v, want %v", when, by, state, err, want)
			}
			for _, c := range want {
				if len(by[c]) != 1 || by[c][0] != "anna" {
					t.Errorf("%s: %s: %q", when, c, by[c])
				}
			}
		}
		tell(clients[:2]...)
		g.check(p)
		g.later(2 * time.Hour) // they do not count any more
		right := g.now()
		g.at(right.Add(30 * time.Second)) // by a clock that is ahead, as far as it may be
		tell(clients[2:5]...)
		g.flush()
		g.at(right)
		names("tripped", clients[2:5]...)
		tell(clients[0], clients[3], clients[5])
		g.flush()
		g.later(time.Minute)
		names("others come", clients[2:5]...)
		g.at(right.Add(-time.Hour)) // one that is behind follows
		names("a clock that is behind", clients[2:5]...)
		g.at(right.Add(48 * time.Hour))
		tell(clients[6])
		names("two days later", clients[2:5]...)
		if _, err := g.store.Forget(t.Context(), clients[2]); err != nil {
			t.Fatal(err)
		}
		names("one is forgotten", clients[3:5]...)
		left := func() int64 {
			t.Helper()
			n, err := number(t.Context(), g.store, "counting", `SELECT count(*) FROM tripped_by`)
			if err != nil {
				t.Fatal(err)
			}
			return n
		}
		if n := left(); n != 2 {
			t.Errorf("%d are kept of two", n)
		}
		if err := g.store.Release(t.Context(), "ramp", g.now()); err != nil || left() != 0 {
			t.Errorf("%v, %d are kept once it is released", err, left())
		}
		g.check(p)
		g.later(time.Second)
		tell(clients[5:8]...)
		names("tripped again", clients[5:8]...)
		if err := g.store.Prune(t.Context(), g.now().Add(time.Second)); err != nil || left() != 0 {
			t.Errorf("%v, %d are kept beyond the retention", err, left())
		}
	})
}

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
