package ledger

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"testing"
	"time"
)

// readable returns which texts stand in the files of an SQLite ledger.
func (g *replica) readable(texts ...string) (found []string) {
	g.t.Helper()
	path := strings.TrimPrefix(g.url, "sqlite:")
	file, err := os.ReadFile(path)
	if err != nil {
		g.t.Fatal(err)
	}
	log, err := os.ReadFile(path + "-wal")
	if err != nil && !os.IsNotExist(err) {
		g.t.Fatal(err)
	}
	for _, s := range texts {
		if bytes.Contains(file, []byte(s)) || bytes.Contains(log, []byte(s)) {
			found = append(found, s)
		}
	}
	return found
}

// churn has clients come, log in with other programs and stay away.
func (g *replica) churn(people int) {
	g.t.Helper()
	r := rand.New(rand.NewPCG(1, 2))
	for round := range 20 {
		for range people / 4 {
			i := r.IntN(people)
			g.session(hello(fmt.Sprintf("10.1.%d.%d", i/200, i%200)), nthPerson(i), fmt.Sprintf("Mail %d %s", r.IntN(4), strings.Repeat("x", r.IntN(40))))
		}
		g.flush()
		g.later(3 * time.Hour)
		if round%10 == 9 {
			if err := g.store.Prune(g.t.Context(), g.now().Add(-24*time.Hour)); err != nil {
				g.t.Fatal(err)
			}
		}
	}
}

func nthPerson(i int) string { return fmt.Sprintf("person-%d.@example.org", i) }

// TestWhatIsForgottenIsNotInTheFile, nor in its log, neither where it was erased nor where
// rows were before that moved; and others can open the ledger, which has its other rows.
func TestWhatIsForgottenIsNotInTheFile(t *testing.T) {
	g := newReplica(t, newURL(t, "sqlite"))
	p := remembering(t, noTLS13)
	g.Remember(p)
	const people = 1000
	g.churn(people)
	g.login(let(p, "192.0.2.77", gcm), "candidate@example.org", "Mail")
	g.flush()
	before := len(g.clients(Filter{}))
	gone := []string{"candidate@example.org", "192.0.2.77"}
	for i := 0; i < people; i += 20 {
		gone = append(gone, nthPerson(i))
	}
	if n := len(g.readable(gone...)); n < len(gone)/2 {
		t.Fatalf("%d of %d were there", n, len(gone))
	}
	other := g.another() // as the command does
	for _, who := range gone {
		if _, err := other.store.Forget(t.Context(), who); err != nil {
			t.Fatal(err)
		}
	}
	if err := other.store.Scrub(t.Context()); err != nil {
		t.Fatal(err)
	}
	if found := g.readable(gone...); len(found) > 0 {
		t.Errorf("still there: %v", found)
	}
	g.restart(plainIdentity)
	if n := len(g.clients(Filter{})); n != before {
		t.Errorf("%d clients, before that %d", n, before)
	}
}

// TestRetentionOverwrites nearly all of what it deletes.
func TestRetentionOverwrites(t *testing.T) {
	g := newReplica(t, newURL(t, "sqlite"))
	const people = 1000
	g.churn(people)
	g.later(91 * 24 * time.Hour)
	if err := g.store.Prune(t.Context(), g.now().Add(-90*24*time.Hour)); err != nil {
		t.Fatal(err)
	}
	if _, err := number(t.Context(), g.store, "emptying its log", "PRAGMA wal_checkpoint(TRUNCATE)"); err != nil {
		t.Fatal(err)
	}
	var all []string
	for i := range people {
		all = append(all, nthPerson(i))
	}
	if found := g.readable(all...); len(found) > people/50 {
		t.Errorf("%d of %d are still there", len(found), people)
	}
}

// TestAReaderKeepsTheFileFromBeingScrubbed, which is said.
func TestAReaderKeepsTheFileFromBeingScrubbed(t *testing.T) {
	g := newReplica(t, newURL(t, "sqlite"))
	g.session(hello("192.0.2.7"), "anna", "Mail")
	g.flush()
	reads := g.another()
	rows, err := reads.store.db.Query(`SELECT account FROM accounts`)
	if err != nil || !rows.Next() {
		t.Fatal(err)
	}
	if _, err := g.store.Forget(t.Context(), "anna"); err != nil {
		t.Fatal(err)
	}
	if err := g.store.Scrub(t.Context()); err == nil || !strings.Contains(err.Error(), "another process reads it") {
		t.Errorf("%v", err)
	}
	rows.Close()
	if err := g.store.Scrub(t.Context()); err != nil || len(g.readable("anna")) > 0 {
		t.Errorf("%v, %v", err, g.readable("anna"))
	}
}
