package ledger

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// version1 makes the tables of the first version.
var version1 = []string{
	`CREATE TABLE postern_ledger (version INTEGER NOT NULL)`,
	`INSERT INTO postern_ledger VALUES (1)`,
	`CREATE TABLE sightings (id @key, client TEXT NOT NULL, network BIGINT NOT NULL, listener TEXT NOT NULL, name TEXT NOT NULL,
		port INTEGER NOT NULL, version TEXT NOT NULL, reason TEXT NOT NULL, ja4 TEXT NOT NULL, added BIGINT NOT NULL,
		first_seen BIGINT NOT NULL, last_seen BIGINT NOT NULL, observed BIGINT NOT NULL, explained BIGINT NOT NULL,
		rejected BIGINT NOT NULL, failed BIGINT NOT NULL, login_ok BIGINT NOT NULL, login_failed BIGINT NOT NULL, scanner INTEGER NOT NULL)`,
	`CREATE INDEX sightings_by_age ON sightings (added, id)`,
	`CREATE INDEX sightings_by_client ON sightings (client, ja4)`,
	`CREATE TABLE days (day INTEGER NOT NULL, sighting BIGINT NOT NULL, observed BIGINT NOT NULL, explained BIGINT NOT NULL,
		rejected BIGINT NOT NULL, failed BIGINT NOT NULL, PRIMARY KEY (day, sighting))@without_rowid`,
	`CREATE TABLE hellos (ja4 TEXT PRIMARY KEY, hello TEXT NOT NULL)`,
	`CREATE TABLE accounts (client TEXT NOT NULL, ja4 TEXT NOT NULL, account TEXT NOT NULL, software TEXT NOT NULL, folded TEXT NOT NULL,
		first_seen BIGINT NOT NULL, last_seen BIGINT NOT NULL, PRIMARY KEY (client, ja4, account, software))`,
	`CREATE INDEX accounts_by_account ON accounts (account)`,
	`CREATE INDEX accounts_by_time ON accounts (last_seen)`,
	`CREATE TABLE batches (writer BIGINT PRIMARY KEY, number BIGINT NOT NULL, written BIGINT NOT NULL)`,
}

// oldClients are the clients of a ledger of version 1.
const oldClients = 3_000

func oldAddress(i int) netip.Addr {
	if i%5 == 0 {
		return netip.MustParseAddr(fmt.Sprintf("2001:db8:%x::%x", i/10, i))
	}
	return nthClient(i / 2).Addr() // two fingerprints each
}

// oldLedger makes a ledger of version 1. The ids of some rows are no hashes.
func oldLedger(t *testing.T, url string) {
	t.Helper()
	d, dsn, reason := source(url, false)
	if reason != "" {
		t.Fatal(reason)
	}
	s, err := open(url, false)
	if err != nil {
		t.Fatal(dsn, err)
	}
	defer s.Close()
	words := strings.NewReplacer("@key", "INTEGER PRIMARY KEY", "@without_rowid", " WITHOUT ROWID")
	if d.columns {
		words = strings.NewReplacer("@key", "BIGINT PRIMARY KEY", "@without_rowid", "")
	}
	random := rand.New(rand.NewPCG(1, 2))
	if err := s.within(t.Context(), func(w *writer) {
		for _, statement := range version1 {
			w.run(words.Replace(statement))
		}
		const day0 = 20_000
		clients := make([]int, oldClients)
		for i := range clients {
			clients[i] = i
		}
		insert(w, "sightings", append([]string{"added", "login_ok", "login_failed", "scanner"},
			sightingColumns[:len(sightingColumns)-1]...), nil, clients, "", func(i int, to []any) []any {
			a := oldAddress(i)
			texts := entryTexts{a.String(), "imaps", "imap.example.org", "tls1.0", "version", oldJA4(i)}
			id := texts.row(networkNumber(a), 993)
			network := networkNumber(a)
			if i%3 == 0 {
				id, network = int64(i), int64(i/2)
				if i%5 == 0 {
					network = int64(i)
				}
			}
			first := int64(day0+i%40)*secondsADay + random.Int64N(secondsADay)
			return append(to, first, int64(i%2), int64(i%4/3), int64(0), id, a.String(), network, "imaps", "imap.example.org", int64(993),
				"tls1.0", "version", oldJA4(i), first, first+int64(i%20)*secondsADay, int64(i%7), int64(0), int64(i%3), int64(1))
		})
		w.run(`INSERT INTO days SELECT first_seen / 86400, id, observed, explained, rejected, 0 FROM sightings`)
		w.run(`INSERT INTO days SELECT last_seen / 86400, id, 0, 0, 0, 1 FROM sightings WHERE 1 = 1
			ON CONFLICT (day, sighting) DO UPDATE SET failed = 1`)
		insert(w, "accounts", accountColumns[:7], nil, clients[:oldClients/2], "", func(i int, to []any) []any {
			return append(to, oldAddress(2*i+1).String(), oldJA4(2*i+1), fmt.Sprintf("user%d@example.org", i/2), "Outlook", "outlook", int64(1), int64(2))
		})
	}); err != nil {
		t.Fatal(err)
	}
}

func oldJA4(i int) string { return fmt.Sprintf("t10d%06d_%012x_%012x", i%100, i%10, 0) }

// figures are what is asked of a ledger, by plain SQL that both versions understand.
func figures(t *testing.T, s *Store) (all []string) {
	t.Helper()
	for _, statement := range []string{
		`SELECT count(*), count(DISTINCT s.client), sum(observed), sum(rejected), sum(failed), sum(login_ok), min(added), max(last_seen) FROM sightings s WHERE NOT ` + noiseOf("s."),
		`SELECT count(*), count(DISTINCT s.client), sum(observed), sum(rejected), sum(failed), sum(login_ok), min(added), max(last_seen) FROM sightings s`,
		`SELECT count(*), sum(d.day), sum(d.observed), sum(d.rejected), sum(d.failed), count(DISTINCT s.client), count(DISTINCT s.ja4), 0
			FROM days d JOIN sightings s ON s.id = d.sighting`,
		`SELECT count(*), count(DISTINCT client), count(DISTINCT ja4), count(DISTINCT account), count(DISTINCT folded), sum(last_seen), 0, 0 FROM accounts`,
	} {
		var n [8]int64
		if err := s.db.QueryRow(statement).Scan(&n[0], &n[1], &n[2], &n[3], &n[4], &n[5], &n[6], &n[7]); err != nil {
			t.Fatal(statement, err)
		}
		all = append(all, fmt.Sprint(n))
	}
	return all
}

func TestAnOlderLedgerIsBroughtUp(t *testing.T) {
	for _, kind := range []string{"sqlite", "postgres", "pgbouncer"} {
		t.Run(kind, func(t *testing.T) {
			url := newURL(t, kind)
			oldLedger(t, url)
			before, err := open(url, false)
			if err != nil {
				t.Fatal(err)
			}
			want := figures(t, before)
			before.Close()
			if _, err := OpenReadOnly(t.Context(), url); err == nil || !strings.Contains(err.Error(), "has not opened it yet") {
				t.Errorf("reading an older one: %v", err)
			}
			interrupted(t, url)
			if _, err := OpenReadOnly(t.Context(), url); !errors.Is(err, ErrUpgrading) {
				t.Errorf("reading one that is half way: %v", err)
			}
			var group sync.WaitGroup
			for range 4 { // as many replicas start at once
				group.Go(func() {
					if err := openStore(t, url).Upgrade(t.Context(), func(float64) {}); err != nil {
						t.Error(err)
					}
				})
			}
			group.Wait()
			s := openStore(t, url)
			if diff := cmp.Diff(want, figures(t, s)); diff != "" {
				t.Error(diff)
			}
			checkNoise(t, s)
			if err := s.within(t.Context(), func(w *writer) { w.run(`UPDATE postern_ledger SET version = 3`) }); err != nil {
				t.Fatal(err)
			}
			for _, open := range []func(context.Context, string) (*Store, error){Open, OpenReadOnly} {
				if _, err := open(t.Context(), url); !errors.Is(err, errNewer) {
					t.Errorf("opening a newer one: %v", err)
				}
			}
		})
	}
}

// interrupted begins to bring a ledger up to date, and ends after two pieces.
func interrupted(t *testing.T, url string) {
	t.Helper()
	s, err := connect(t.Context(), url, false, (*Store).migrate)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	last := 0.0
	if err := s.Upgrade(ctx, func(done float64) {
		if done < last || done > 1 {
			t.Errorf("%v of it is done after %v", done, last)
		}
		if last = done; done > 0.3 {
			cancel()
		}
	}); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	if _, err := s.Count(t.Context(), Filter{}); !errors.Is(err, ErrUpgrading) {
		t.Errorf("counting half of the clients: %v", err)
	}
	if err := s.Scan(t.Context(), Scope{}, func([]Client) error { return nil }); !errors.Is(err, ErrUpgrading) {
		t.Errorf("reading half of the clients: %v", err)
	}
}

// checkNoise compares columns with what they stand for.
func checkNoise(t *testing.T, s *Store) {
	t.Helper()
	type keys struct {
		entryTexts
		id, owner, network, port int64
	}
	list, err := query(t.Context(), s.db, "reading keys", `SELECT id, owner, network, client, listener, name, port, version, reason, ja4 FROM sightings`, nil,
		func(r row) keys {
			texts := entryTexts{string(r.text(3)), string(r.text(4)), string(r.text(5)), string(r.text(7)), string(r.text(8)), string(r.text(9))}
			return keys{texts, r.int(0), r.int(1), r.int(2), r.int(6)}
		})
	if err != nil {
		t.Fatal(err)
	}
	for _, k := range list {
		if network := networkOf(k.client); k.network != network || k.id != k.row(network, k.port) || k.owner != ownerOf(k.client, k.ja4) {
			t.Fatalf("the keys of %+v", k)
		}
	}
	var wrong, all, day int
	if err := s.db.QueryRow(`SELECT count(*), COALESCE(sum(CASE WHEN (noise = 1) <> `+noiseOf("")+` THEN 1 ELSE 0 END), 0),
		COALESCE(sum(CASE WHEN last_day <> last_seen / 86400 THEN 1 ELSE 0 END), 0) FROM sightings`).Scan(&all, &wrong, &day); err != nil || all == 0 || wrong+day > 0 {
		t.Errorf("of %d sightings %d are wrong about noise, %d about their last day, %v", all, wrong, day, err)
	}
}

// TestClientsAreRecordedDuringAnUpgrade: those of which the old tables have rows,
// and others.
func TestClientsAreRecordedDuringAnUpgrade(t *testing.T) {
	for _, kind := range []string{"sqlite", "postgres"} {
		t.Run(kind, func(t *testing.T) {
			url := newURL(t, kind)
			oldLedger(t, url)
			s, err := connect(t.Context(), url, false, (*Store).migrate)
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			g := &replica{t: t, url: Memory, clock: new(atomic.Int64), store: s} // which is not opened anew
			g.at(time.Now())
			g.restart(plainIdentity)
			pieces, met := 0, 0
			if err := s.Upgrade(t.Context(), func(float64) {
				pieces++
				for i := range 20 {
					g.session(hello(oldAddress(i*oldClients/20).String(), outcome("observed")), "anna", "")
					met++
				}
				g.session(hello(fmt.Sprintf("192.0.2.%d", pieces)), "bert", "")
				met++
				g.flush()
			}); err != nil || pieces < 4 {
				t.Fatal(pieces, err)
			}
			checkNoise(t, s)
			var observed, days, accounts int64
			for statement, to := range map[string]*int64{
				`SELECT CAST(sum(observed) AS BIGINT) FROM sightings`: &observed, `SELECT CAST(sum(observed) AS BIGINT) FROM days`: &days,
				`SELECT count(*) FROM accounts`: &accounts,
			} {
				if err := s.db.QueryRow(statement).Scan(to); err != nil {
					t.Fatal(err)
				}
			}
			before := int64(0)
			for i := range oldClients {
				before += int64(i % 7)
			}
			if want := before + int64(met); observed != want || days != want || accounts != oldClients/2+20+int64(pieces) {
				t.Errorf("observed %d, in days %d, want %d; %d accounts", observed, days, want, accounts)
			}
			if c := g.clients(Filter{Account: "anna"}); len(c) != 20 {
				t.Errorf("anna has %d clients", len(c))
			}
		})
	}
}
