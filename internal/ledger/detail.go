package ledger

import (
	"context"
	"database/sql"
	"fmt"
	"strings"
	"time"

	"postern/internal/text"
)

// State is a text that changes with every batch of a recorder, here or elsewhere,
// and whenever something is erased.
func (s *Store) State(ctx context.Context) (string, error) {
	t, err := s.stamp(ctx, "batches", "number")
	return fmt.Sprint(t.n, ".", t.sum), err
}

// Programs returns the programs of accounts, at whatever address and with whatever
// fingerprint they logged in, in order.
func (s *Store) Programs(ctx context.Context, accounts []string) (map[string][]string, error) {
	programs := make(map[string][]string)
	if len(accounts) == 0 {
		return programs, nil
	}
	args := []any{noID}
	for _, a := range accounts {
		args = append(args, storable(a))
	}
	rows, err := query(ctx, s.db, "reading programs", `SELECT DISTINCT account, software FROM accounts
		WHERE software <> '' AND software <> $1 AND account IN (`+marks(2, len(accounts))+`) ORDER BY account, software`, args,
		func(rows *sql.Rows, i *Identity) error { return rows.Scan(&i.Account, &i.Software) })
	for _, i := range rows {
		programs[i.Account] = append(programs[i.Account], i.Software)
	}
	return programs, err
}

// AddDays fills in the days of a few clients, from a day in UTC on.
func (s *Store) AddDays(ctx context.Context, list []Client, first time.Time) error {
	if len(list) == 0 {
		return nil
	}
	places, args, last := make(map[int64]*Client), []any(nil), first
	for i := range list {
		list[i].Days = nil
		places[list[i].id] = &list[i]
		args = append(args, list[i].id)
		last = text.Later(last, list[i].Last)
	}
	// Both parts of the key are lists: a range of days would have all rows of
	// these days read.
	for day := first.Unix() / secondsADay; day <= last.Unix()/secondsADay; day++ {
		args = append(args, day)
	}
	type row struct {
		id int64
		Day
	}
	rows, err := query(ctx, s.db, "reading days", `SELECT sighting, day, observed, explained, rejected, failed FROM days
		WHERE sighting IN (`+marks(1, len(list))+`) AND day IN (`+marks(len(list)+1, len(args)-len(list))+`) ORDER BY day`, args,
		func(rows *sql.Rows, r *row) error {
			return rows.Scan(append([]any{&r.id, &r.Number}, r.Counts.columns()...)...)
		})
	for _, r := range rows {
		places[r.id].Days = append(places[r.id].Days, r.Day)
	}
	return err
}

// marks are those of n parameters from a number on.
func marks(first, n int) string {
	all := make([]string, n)
	for i := range all {
		all[i] = fmt.Sprintf("$%d", first+i)
	}
	return strings.Join(all, ", ")
}
