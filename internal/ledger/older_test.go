package ledger

import (
	"fmt"
	"net/netip"
	"testing"
)

// TestWhoReadsBeforeTheTablesAreMadeEndsNoUpgrade: as where the database was away when
// the proxy started.
func TestWhoReadsBeforeTheTablesAreMadeEndsNoUpgrade(t *testing.T) {
	for _, kind := range []string{"sqlite", "postgres"} {
		t.Run(kind, func(t *testing.T) {
			url := newURL(t, kind)
			oldLedger(t, url)
			s, err := open(url, false)
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			_, _ = s.Count(t.Context(), Filter{}) // there may be columns that are missing
			if err := s.Upgrade(t.Context(), func(float64) {}); err != nil {
				t.Fatal(err)
			}
			reader, err := OpenReadOnly(t.Context(), url)
			if err != nil {
				t.Fatal(err)
			}
			reader.Close()
		})
	}
}

// TestRowsOfAReplicaOfAnEarlierVersion have no owner.
func TestRowsOfAReplicaOfAnEarlierVersion(t *testing.T) {
	each(t, func(t *testing.T, g *replica) {
		a, b := nthClient(1), nthClient(2)
		for _, c := range []struct {
			of      string
			account string
		}{{a.Addr().String(), "anna@example.org"}, {b.Addr().String(), "bert@example.org"}} {
			network := networkOf(c.of)
			texts := entryTexts{c.of, "imaps", "", "tls1.0", "version", oldJA4(1)}
			if _, err := g.store.db.Exec(fmt.Sprintf(`INSERT INTO sightings (id, client, network, listener, name, port, version, reason, ja4, added,
				first_seen, last_seen, observed, explained, rejected, failed, login_ok, login_failed, scanner)
				VALUES (%d, '%s', %d, 'imaps', '', 993, 'tls1.0', 'version', '%s', 1, 1, 1, 1, 0, 0, 0, 1, 0, 0)`,
				texts.row(network, 993), c.of, network, texts.ja4)); err != nil {
				t.Fatal(err)
			}
			if _, err := g.store.db.Exec(fmt.Sprintf(`INSERT INTO accounts VALUES ('%s', '%s', '%s', '', '', 1, 1, %d)`,
				c.of, texts.ja4, c.account, ownerOf(c.of, texts.ja4))); err != nil {
				t.Fatal(err)
			}
		}
		want := map[string]string{a.Addr().String(): "[anna@example.org]", b.Addr().String(): "[bert@example.org]"}
		if err := g.store.Scan(t.Context(), Scope{Logins: true}, func(list []Client) error {
			for _, c := range list {
				if got := fmt.Sprint(c.Accounts); got != want[c.Addr.String()] {
					t.Errorf("%s has accounts %s, want %s", c.Addr, got, want[c.Addr.String()])
				}
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		if n, err := g.store.Count(t.Context(), Filter{Network: netip.PrefixFrom(a.Addr(), 32), Noise: true}); n != 1 || err != nil {
			t.Errorf("the page of a client finds %d rows: %v", n, err)
		}
	})
}
