package ledger

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"postern/proxy"
)

// A page's cursor leads to the pages before it where it is followed against the
// order.
func TestACursorLeadsBothWays(t *testing.T) {
	each(t, func(t *testing.T, g *replica) {
		for i := range 9 {
			for range 1 + i%3 {
				g.meet(hello(fmt.Sprintf("192.0.2.%d", i)))
			}
			g.later(time.Minute)
		}
		g.flush()
		orders := slices.Sorted(maps.Keys(keys))
		for n, key := range orders {
			all, _, err := g.store.Clients(t.Context(), Filter{}, Order{By: key}, "", 0)
			if err != nil || len(all) != 9 {
				t.Fatalf("%s: %d, %v", key, len(all), err)
			}
			_, cursor, err := g.store.Clients(t.Context(), Filter{}, Order{By: key}, "", 6)
			if err != nil {
				t.Fatal(err)
			}
			back, next, err := g.store.Clients(t.Context(), Filter{}, Order{By: key, Descending: true}, cursor, 3)
			slices.Reverse(back)
			if diff := cmp.Diff(addressesInOrder(all[2:5]), addressesInOrder(back)); diff != "" || err != nil {
				t.Errorf("%s, back: %v %s", key, err, diff)
			}
			again, _, err := g.store.Clients(t.Context(), Filter{}, Order{By: key}, next, 3)
			if diff := cmp.Diff(addressesInOrder(all[3:6]), addressesInOrder(again)); diff != "" || err != nil {
				t.Errorf("%s, forth again: %v %s", key, err, diff)
			}
			if _, _, err := g.store.Clients(t.Context(), Filter{}, Order{By: orders[(n+1)%len(orders)]}, cursor, 3); err != ErrCursor {
				t.Errorf("%s: a cursor of another key: %v", key, err)
			}
		}
	})
}

func addressesInOrder(list []Client) (all []string) {
	for _, c := range list {
		all = append(all, c.Addr.String())
	}
	return all
}

func TestTheStateChangesWithTheLedger(t *testing.T) {
	each(t, func(t *testing.T, g *replica) {
		last := ""
		changes := func(what string, want bool) {
			t.Helper()
			state, err := g.store.State(context.Background())
			if err != nil || (state != last) != want {
				t.Errorf("after %s: %q, before %q, %v", what, state, last, err)
			}
			last = state
		}
		changes("the start", true)
		changes("nothing", false)
		g.meet(hello("192.0.2.7"))
		g.flush()
		changes("a client", true)
		o := g.another()
		o.meet(hello("192.0.2.7"))
		o.flush()
		changes("a client of another replica", true)
		g.flush()
		changes("a flush of nothing", false)
		if _, err := g.store.Forget(context.Background(), "192.0.2.7"); err != nil {
			t.Fatal(err)
		}
		changes("an erasure", true)
	})
}

func TestProgramsOfAccounts(t *testing.T) {
	each(t, func(t *testing.T, g *replica) {
		g.session(hello("192.0.2.7"), "anna", "Outlook 14.0")
		g.session(hello("192.0.2.8", program(1)), "anna", "Mail 3")
		g.session(hello("192.0.2.9", program(2)), "anna", "")
		g.session(hello("192.0.2.9"), "bert", "")
		g.session(hello("192.0.2.9"), "carl", "K-9")
		g.flush()
		got, err := g.store.Programs(t.Context(), []string{"anna", "bert", "nobody\x00"})
		if diff := cmp.Diff(map[string][]string{"anna": {"Mail 3", "Outlook 14.0"}}, got); diff != "" || err != nil {
			t.Errorf("%v: %s", err, diff)
		}
		if got, err := g.store.Programs(t.Context(), nil); len(got) > 0 || err != nil {
			t.Errorf("of nobody: %v, %v", got, err)
		}
	})
}

func TestDaysOfAClient(t *testing.T) {
	each(t, func(t *testing.T, g *replica) {
		g.at(noon)
		for range 3 {
			g.meet(hello("192.0.2.7"))
			g.meet(hello("192.0.2.8"))
			g.meet(hello("192.0.2.8"))
			g.later(48 * time.Hour)
			g.flush()
		}
		g.meet(hello("192.0.2.7", outcome(proxy.Observed)))
		list := g.clients(Filter{})
		list = slices.DeleteFunc(list, func(c Client) bool { return c.Addr.String() != "192.0.2.7" })
		if err := g.store.AddDays(t.Context(), list, noon.Add(24*time.Hour)); err != nil {
			t.Fatal(err)
		}
		first := noon.Unix() / secondsADay
		want := []Day{{first + 2, Counts{Rejected: 1}}, {first + 4, Counts{Rejected: 1}}, {first + 6, Counts{Observed: 1}}}
		if diff := cmp.Diff(want, list[0].Days); diff != "" {
			t.Error(diff)
		}
	})
}
