package ledger

import (
	"database/sql"
	"path/filepath"
	"slices"
	"testing"
	"time"
)

var facts = Facts{Rows: 2000, Now: 1_800_000_000}

func TestTheFactsAreTheSameInEveryRun(t *testing.T) {
	s := facts.sighting(9)
	if again := facts.sighting(9); s != again {
		t.Errorf("%+v, and then %+v", s, again)
	}
	type key struct{ client, ja4, listener string }
	ids, keys := map[int64]bool{}, map[key]bool{}
	for i := range facts.Rows {
		s := facts.sighting(i)
		k := key{s.client, s.ja4, s.listener}
		if ids[s.id] || keys[k] || s.id < 0 {
			t.Errorf("twice: %+v", s)
		}
		ids[s.id], keys[k] = true, true
		if s.first > s.last || s.last >= facts.Now || s.first < facts.Now-history {
			t.Errorf("out of time: %+v", s)
		}
		if d := s.last - facts.Since().Unix(); -60 < d && d < 60 {
			t.Errorf("last seen %d s from the beginning of the window", d)
		}
		days, counts := s.days()
		sum := int64(0)
		for _, c := range counts {
			sum += c[0] + c[1] + c[2] + c[3]
		}
		if !slices.IsSorted(days) || sum != s.observed+s.explained+s.rejected+s.failed {
			t.Errorf("%v of %+v", counts, s)
		}
	}
}

// TestAFilledLedgerIsLikeOneOfAMailHost asks the database itself.
func TestAFilledLedgerIsLikeOneOfAMailHost(t *testing.T) {
	file := filepath.Join(t.TempDir(), "ledger.db")
	if err := facts.FillSQLite(t.Context(), file); err != nil {
		t.Fatal(err)
	}
	db, err := sql.Open("sqlite", file)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	number := func(query string) (n int) {
		if err := db.QueryRow(query).Scan(&n); err != nil {
			t.Fatalf("%s: %v", query, err)
		}
		return n
	}
	for _, test := range []struct {
		query       string
		least, most int
	}{
		{`SELECT count(*) FROM sightings`, 2000, 2000},
		{`SELECT count(DISTINCT network) FROM sightings`, 1400, 1400},
		{`SELECT count(*) FROM (SELECT network FROM sightings GROUP BY network HAVING count(DISTINCT ja4) > 1)`, 200, 200},
		{`SELECT count(*) FROM sightings WHERE client LIKE '%:%'`, 200, 400},
		{`SELECT count(*) FROM days`, 4000, 6000},
		{`SELECT count(*) FROM accounts`, 900, 1100},
		{`SELECT count(DISTINCT substr(account, instr(account, '@'))) FROM accounts`, 50, 203},
		{`SELECT count(*) FROM accounts WHERE NOT EXISTS (SELECT 1 FROM sightings s WHERE s.client = accounts.client AND s.ja4 = accounts.ja4 AND s.login_ok > 0)`, 0, 0},
		{`SELECT count(*) FROM hellos`, prints, prints},
		{`SELECT count(*) FROM sightings WHERE ja4 NOT IN (SELECT ja4 FROM hellos) OR length(ja4) <> 36`, 0, 0},
		{`SELECT count(*) FROM days WHERE sighting NOT IN (SELECT id FROM sightings)`, 0, 0},
		{`SELECT count(*) FROM sightings WHERE last_seen >= 1800000000 - 86400 * 15`, 900, 1100}, // half within a quarter of the time
		{`SELECT count(DISTINCT listener || version) FROM sightings`, 16, 16},
		{`SELECT count(*) FROM sightings WHERE reason = 'fallback' OR observed + explained + rejected = 0
			OR (login_ok = 0 AND (login_failed > 0 OR scanner <> 0))`, 2000 - facts.clients(), 2000 - facts.clients()},
	} {
		if n := number(test.query); n < test.least || n > test.most {
			t.Errorf("%s: %d, not %d to %d", test.query, n, test.least, test.most)
		}
	}
	if n := facts.clients(); n < 1700 || n > 1950 {
		t.Errorf("%d of 2000 are no noise", n)
	}
}

func TestNumbersThatAreNotTheSameAreBothNamed(t *testing.T) {
	names := [2]string{"new", "old"}
	mine := figures{"a": "1", "b": "2"}
	if p := mine.differ(figures{"a": "1"}, names); p != nil {
		t.Errorf("%q", p)
	}
	p := mine.differ(figures{"b": "3", "c": "4"}, names)
	slices.Sort(p)
	if want := []string{"b: new says 2, old says 3", "c: new says nothing, old says 4"}; !slices.Equal(p, want) {
		t.Errorf("%q", p)
	}
}

func TestP99(t *testing.T) {
	l := &logins{}
	for n := range 200 {
		l.took = append(l.took, time.Duration(n)*time.Millisecond)
	}
	if got := l.p99(); got != 198 {
		t.Error(got)
	}
}
