package ledger

import (
	"context"
	"database/sql"
	"fmt"
	"net/netip"
	"strings"
	"time"
)

// Prune deletes clients that were not seen since a time.
func (s *Store) Prune(ctx context.Context, before time.Time) error {
	t := before.Unix()
	return s.whileNobodyWrites(func([]*Recorder) error {
		return s.within(ctx, func(tx *sql.Tx) error {
			for _, statement := range []string{
				fmt.Sprintf(`DELETE FROM days WHERE day < %d`, t/secondsADay),
				fmt.Sprintf(`DELETE FROM sightings WHERE last_seen < %d`, t),
				fmt.Sprintf(`DELETE FROM accounts WHERE last_seen < %d`, t),
				fmt.Sprintf(`DELETE FROM batches WHERE written < %d AND writer <> %d`, t, beginning),
				`DELETE FROM hellos WHERE ja4 NOT IN (SELECT ja4 FROM sightings)`,
			} {
				if _, err := tx.ExecContext(ctx, statement); err != nil {
					return fmt.Errorf("pruning the ledger: %w", err)
				}
			}
			return nil
		})
	})
}

// Forget erases an account, or everything about an address, here and in the
// recorders that write here; other replicas follow within a minute. It returns
// the number of rows. An account is given as it is stored (hashed accounts as
// the hash), in upper or lower case.
func (s *Store) Forget(ctx context.Context, who string) (n int64, err error) {
	who = storable(who)
	lower := strings.ToLower(who)
	statements, args := []string{`DELETE FROM accounts WHERE account = $1 OR account = $2`}, []any{who, lower}
	account := func(a string) bool { return a == who || a == lower }
	var client netip.Addr
	if a, err := netip.ParseAddr(who); err == nil {
		client = a.Unmap().WithZone("")
		args = []any{client.String()}
		statements = []string{
			`DELETE FROM days WHERE sighting IN (SELECT id FROM sightings WHERE client = $1)`,
			`DELETE FROM sightings WHERE client = $1`,
			`DELETE FROM accounts WHERE client = $1`,
		}
	}
	err = s.whileNobodyWrites(func(recorders []*Recorder) error {
		for _, r := range recorders {
			r.erase(account, client)
		}
		return s.within(ctx, func(tx *sql.Tx) error {
			for _, statement := range statements {
				result, err := tx.ExecContext(ctx, statement, args...)
				if err != nil {
					return fmt.Errorf("erasing: %w", err)
				}
				rows, err := result.RowsAffected()
				if err != nil {
					return fmt.Errorf("erasing: %w", err)
				}
				n += rows
			}
			_, err := tx.ExecContext(ctx, fmt.Sprintf(`UPDATE batches SET number = number + 1 WHERE writer = %d`, beginning)) // for State
			return err
		})
	})
	return n, err
}
