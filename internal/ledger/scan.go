package ledger

import (
	"cmp"
	"context"
	"database/sql"
	"slices"
	"time"
)

// Scope is what Scan reads.
type Scope struct {
	// Since leaves out clients that were not seen since then; none, if it is zero.
	Since time.Time
	// Logins reads accounts and programs.
	Logins bool
	// Days reads the handshakes of each day, in UTC, from this one on; of none, if
	// it is zero.
	Days time.Time
}

// Day holds a client's handshakes of one day in UTC.
type Day struct {
	// Number counts days since 1970.
	Number int64
	Counts Counts
}

// Date returns the beginning of the day.
func (d Day) Date() time.Time { return time.Unix(d.Number*secondsADay, 0).UTC() }

// Scan calls each once for every network, in no particular order, with all of its
// clients in the scope, noise included. The clients are valid until each returns;
// its error ends the scan.
func (s *Store) Scan(ctx context.Context, scope Scope, each func(clients []Client) error) error {
	f := Filter{Since: scope.Since, Noise: true}
	list, err := s.Sightings(ctx, f)
	if err == nil && scope.Logins {
		err = s.addLogins(ctx, list)
	}
	if err != nil {
		return err
	}
	if !scope.Days.IsZero() {
		if err := s.addDays(ctx, scope.Days, list); err != nil {
			return err
		}
	}
	slices.SortStableFunc(list, func(a, b Client) int { return cmp.Compare(networkNumber(a.Addr), networkNumber(b.Addr)) })
	for len(list) > 0 {
		n := 1
		for n < len(list) && networkNumber(list[n].Addr) == networkNumber(list[0].Addr) {
			n++
		}
		if err := each(list[:n:n]); err != nil {
			return err
		}
		list = list[n:]
	}
	return nil
}

func (s *Store) addDays(ctx context.Context, first time.Time, list []Client) error {
	type row struct {
		id int64
		Day
	}
	rows, err := query(ctx, s.db, "reading days", `SELECT sighting, day, observed, explained, rejected, failed FROM days WHERE day >= $1`,
		[]any{first.Unix() / secondsADay}, func(rows *sql.Rows, r *row) error {
			return rows.Scan(append([]any{&r.id, &r.Number}, r.Counts.columns()...)...)
		})
	days := make(map[int64][]Day)
	for _, r := range rows {
		days[r.id] = append(days[r.id], r.Day)
	}
	for i := range list {
		list[i].Days = days[list[i].id]
	}
	return err
}
