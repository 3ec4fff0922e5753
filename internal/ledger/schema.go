package ledger

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

var errNewer = errors.New("it has been written by a newer version of this program")

// migrations bring the tables from one version to the next; they are never
// changed, only added to.
//
// No index holds a column that changes with every sighting: SQLite would write
// it twice, and PostgreSQL could not update the row in place. A sighting's
// added is the first_seen of its first write and never changes, so that paging
// by it meets each row once. The columns that decide about noise are in the row
// itself, as every query needs them. The days of one day lie side by side, in
// the order in which they are written.
var migrations = [][]string{
	{
		`CREATE TABLE sightings (
			id @key,
			client TEXT NOT NULL,
			network BIGINT NOT NULL,
			listener TEXT NOT NULL,
			name TEXT NOT NULL,
			port INTEGER NOT NULL,
			version TEXT NOT NULL,
			reason TEXT NOT NULL,
			ja4 TEXT NOT NULL,
			added BIGINT NOT NULL,
			first_seen BIGINT NOT NULL,
			last_seen BIGINT NOT NULL,
			observed BIGINT NOT NULL,
			explained BIGINT NOT NULL,
			rejected BIGINT NOT NULL,
			failed BIGINT NOT NULL,
			login_ok BIGINT NOT NULL,
			login_failed BIGINT NOT NULL,
			scanner INTEGER NOT NULL)`,
		`CREATE INDEX sightings_by_age ON sightings (added, id)`,
		`CREATE INDEX sightings_by_client ON sightings (client, ja4)`,
		`CREATE TABLE days (
			day INTEGER NOT NULL,
			sighting BIGINT NOT NULL,
			observed BIGINT NOT NULL,
			explained BIGINT NOT NULL,
			rejected BIGINT NOT NULL,
			failed BIGINT NOT NULL,
			PRIMARY KEY (day, sighting))@without_rowid`,
		`CREATE TABLE hellos (ja4 TEXT PRIMARY KEY, hello TEXT NOT NULL)`,
		// folded is the software in lower case: databases differ in how
		// they lower it.
		`CREATE TABLE accounts (
			client TEXT NOT NULL,
			ja4 TEXT NOT NULL,
			account TEXT NOT NULL,
			software TEXT NOT NULL,
			folded TEXT NOT NULL,
			first_seen BIGINT NOT NULL,
			last_seen BIGINT NOT NULL,
			PRIMARY KEY (client, ja4, account, software))`,
		`CREATE INDEX accounts_by_account ON accounts (account)`,
		`CREATE INDEX accounts_by_time ON accounts (last_seen)`,
		// The last batch of each process that writes here.
		`CREATE TABLE batches (writer BIGINT PRIMARY KEY, number BIGINT NOT NULL, written BIGINT NOT NULL)`,
	},
}

// migrate brings the tables up to date.
func (s *Store) migrate(ctx context.Context) error {
	if s.migrated.Load() {
		return nil
	}
	err := s.within(ctx, func(tx *sql.Tx) error { return s.update(ctx, tx) })
	s.migrated.Store(err == nil)
	return err
}

func (s *Store) update(ctx context.Context, tx *sql.Tx) error {
	if _, err := tx.ExecContext(ctx, `CREATE TABLE IF NOT EXISTS postern_ledger (version INTEGER NOT NULL)`); err != nil {
		return err
	}
	var version int
	err := tx.QueryRowContext(ctx, `SELECT version FROM postern_ledger`).Scan(&version)
	if errors.Is(err, sql.ErrNoRows) {
		_, err = tx.ExecContext(ctx, `INSERT INTO postern_ledger VALUES (0)`)
	}
	if err != nil {
		return err
	}
	if version > len(migrations) {
		return errNewer
	}
	set := fmt.Sprintf(`UPDATE postern_ledger SET version = %[1]d WHERE version <> %[1]d`, len(migrations))
	for _, statement := range append(slices.Concat(migrations[version:]...), set, begin()) {
		if _, err := tx.ExecContext(ctx, s.schema.Replace(statement)); err != nil {
			return fmt.Errorf("making its tables: %w", err)
		}
	}
	return nil
}

// beginning is the writer of the batch that says since when there is a ledger.
const beginning = 0

func begin() string {
	return fmt.Sprintf(`INSERT INTO batches SELECT %d, 0, COALESCE(min(added), %d) FROM sightings WHERE 1 = 1
		ON CONFLICT (writer) DO NOTHING`, beginning, time.Now().Unix())
}

// Began returns since when the ledger remembers clients.
func (s *Store) Began(ctx context.Context) (time.Time, error) {
	var began int64
	err := s.db.QueryRowContext(ctx, fmt.Sprintf(`SELECT COALESCE(min(t), 0) FROM (SELECT min(added) AS t FROM sightings
		UNION ALL SELECT written FROM batches WHERE writer = %d) x`, beginning)).Scan(&began)
	if err != nil {
		return time.Time{}, fmt.Errorf("reading how old the ledger is: %w", err)
	}
	return time.Unix(began, 0).UTC(), nil
}

// checkVersion rejects tables of another version of this program.
func (s *Store) checkVersion(ctx context.Context) error {
	var version int
	err := s.db.QueryRowContext(ctx, `SELECT version FROM postern_ledger`).Scan(&version)
	switch {
	case err == nil && version > len(migrations):
		return errNewer
	case err == nil && version < len(migrations):
		return fmt.Errorf("its tables are of version %d, not %d: an instance of this version has not opened it yet", version, len(migrations))
	case err != nil && (strings.Contains(err.Error(), "no such table") || strings.Contains(err.Error(), "SQLSTATE 42P01")):
		return errNone
	}
	return err
}
