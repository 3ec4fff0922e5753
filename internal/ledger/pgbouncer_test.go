package ledger

import (
	"fmt"
	"testing"

	"postern/internal/postgrestest"
	"postern/proxy"
)

func TestReplicasBehindPgBouncer(t *testing.T) {
	first := newReplica(t, postgrestest.Pooled(t, newURL(t, "postgres")))
	for i := range 20 {
		for j, g := range []*replica{first, first.another(), first.another()} {
			// A login, and a mark of the client, are more statements in a transaction.
			g.session(hello(fmt.Sprintf("192.0.2.%d", 3*i+j), passed), "anna", "")
			g.flush()
			if _, _, err := g.store.Distinct(t.Context(), g.now()); err != nil {
				t.Fatal(err)
			}
		}
	}
	if list := first.clients(Filter{Noise: true}); len(list) != 60 {
		t.Errorf("%d clients, want 60", len(list))
	}
	reader, err := OpenReadOnly(t.Context(), first.url)
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	if n, err := reader.Count(t.Context(), Filter{Noise: true}); n != 60 || err != nil {
		t.Errorf("a report reads %d clients, %v", n, err)
	}
	if err := Try(t.Context(), first.url); err != nil {
		t.Error(err)
	}
	p := guardedBy(t, twoGuards)
	for i := range 4 {
		first.session(hello(fmt.Sprintf("203.0.113.%d", i)), "anna", "")
		first.flush()
		first.meet(hello(fmt.Sprintf("203.0.113.%d", i), byRule("cutover"), outcome(proxy.Rejected)))
	}
	if s := first.check(p)["cutover"]; s.Seen != 4 || s.Tripped.IsZero() {
		t.Errorf("a guard: %+v", s)
	}
	if err := first.store.Release(t.Context(), "cutover", first.now()); err != nil {
		t.Error(err)
	}
}
