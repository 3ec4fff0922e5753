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

// schemaVersion is that of the tables. Version 1 had accounts by address, and neither
// noise nor last_day.
const schemaVersion = 2

// The tables of a ledger.
//
// A sighting's id is a hash of what it is, and its owner, and that of an account, one
// of address and fingerprint; the first bits of each are a hash of the network alone: what is known of one network lies together in each order, so that a
// reader goes through all of them side by side, some thousand rows at a time, and
// counts distinct networks without remembering them.
//
// No index holds a column that changes with every sighting: SQLite would write
// it twice, and PostgreSQL could not update the row in place. A sighting's
// added is the first_seen of its first write and never changes, so that paging
// by it meets each row once; last_day changes once a day. noise is kept by the
// database, whatever changes a row. The days of one day lie side by side, in the
// order in which they are written.
const (
	sightingsTable = `CREATE TABLE sightings (
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
		scanner INTEGER NOT NULL,
		owner BIGINT NOT NULL DEFAULT 0,
		last_day @last_day,
		noise @noise)`
	sightingsByAge = `CREATE INDEX sightings_by_age ON sightings (added, id)`
	daysTable      = `CREATE TABLE days (
		day INTEGER NOT NULL,
		sighting BIGINT NOT NULL,
		observed BIGINT NOT NULL,
		explained BIGINT NOT NULL,
		rejected BIGINT NOT NULL,
		failed BIGINT NOT NULL,
		PRIMARY KEY (day, sighting))@without_rowid`
	// What one of several replicas has counted for all of them, of which ledger, and
	// when it is due again.
	countedTable = `CREATE TABLE counted (owner BIGINT NOT NULL, due BIGINT NOT NULL, state TEXT NOT NULL, at BIGINT NOT NULL, figures TEXT NOT NULL)`
	countedRow   = `INSERT INTO counted VALUES (0, 0, '', 0, '[]')`
)

// keepNoise has SQLite keep the column noise. A generated column with an index
// would be written with every sighting there.
func keepNoise(after string) string {
	return fmt.Sprintf(`@sqlite CREATE TRIGGER noise_after_%[1]s AFTER %[1]s ON sightings WHEN new.noise <> %[2]s
		BEGIN UPDATE sightings SET noise = 1 - new.noise WHERE id = new.id; END`, after, noiseOf("new."))
}

var tables = []string{
	sightingsTable, sightingsByAge, keepNoise("INSERT"), keepNoise("UPDATE"), daysTable,
	`CREATE TABLE hellos (ja4 TEXT PRIMARY KEY, hello TEXT NOT NULL)`,
	// folded is the software in lower case: databases differ in how they lower it.
	`CREATE TABLE accounts (
		client TEXT NOT NULL,
		ja4 TEXT NOT NULL,
		account TEXT NOT NULL,
		software TEXT NOT NULL,
		folded TEXT NOT NULL,
		first_seen BIGINT NOT NULL,
		last_seen BIGINT NOT NULL,
		owner BIGINT NOT NULL,
		PRIMARY KEY (client, ja4, account, software))`,
	`CREATE INDEX accounts_by_account ON accounts (account)`,
	`CREATE INDEX accounts_by_time ON accounts (last_seen)`,
	// The last batch of each process that writes here.
	`CREATE TABLE batches (writer BIGINT PRIMARY KEY, number BIGINT NOT NULL, written BIGINT NOT NULL)`,
	countedTable, countedRow,
}

// forReading is what version 1 has not.
var forReading = []string{
	`CREATE INDEX sightings_by_owner ON sightings (owner)`,
	`CREATE INDEX sightings_by_day ON sightings (noise, last_day)`,
	`CREATE INDEX accounts_by_owner ON accounts (owner, account, software)`,
	`CREATE INDEX accounts_by_software ON accounts (folded, owner)`,
	// How many sightings are no noise. SQLite would go through an index to count them;
	// replicas would wait for each other at this row.
	`@sqlite CREATE TABLE remaining AS SELECT count(*) AS sightings FROM sightings WHERE noise = 0`,
	keepRemaining("INSERT", "new.noise = 0", "+ 1"), keepRemaining("DELETE", "old.noise = 0", "- 1"),
	keepRemaining("UPDATE OF noise", "old.noise <> new.noise", "+ 1 - 2 * new.noise"),
}

func keepRemaining(after, when, change string) string {
	event, _, _ := strings.Cut(after, " ")
	return fmt.Sprintf(`@sqlite CREATE TRIGGER remaining_after_%s AFTER %s ON sightings WHEN %s
		BEGIN UPDATE remaining SET sightings = sightings %s; END`, event, after, when, change)
}

// migrate makes the tables, or begins to bring them up to date.
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
	var have int
	err := tx.QueryRowContext(ctx, `SELECT version FROM postern_ledger`).Scan(&have)
	if errors.Is(err, sql.ErrNoRows) {
		_, err = tx.ExecContext(ctx, `INSERT INTO postern_ledger VALUES (0)`)
	}
	var statements []string
	switch {
	case err != nil:
		return err
	case have > schemaVersion:
		return errNewer
	case have == 1:
		statements = fromVersion1
	case have == 0:
		statements = slices.Concat(tables, forReading)
	}
	set := fmt.Sprintf(`UPDATE postern_ledger SET version = %[1]d WHERE version <> %[1]d`, schemaVersion)
	w := &writer{ctx: ctx, tx: tx, d: s.dialect}
	for _, statement := range append(statements, set, begin()) {
		w.run(statement)
	}
	if w.err != nil {
		return fmt.Errorf("making its tables: %w", w.err)
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
	var have int
	err := s.db.QueryRowContext(ctx, `SELECT version FROM postern_ledger`).Scan(&have)
	switch {
	case err == nil && have > schemaVersion:
		return errNewer
	case err == nil && have < schemaVersion:
		return fmt.Errorf("its tables are of version %d, not %d: an instance of this version has not opened it yet", have, schemaVersion)
	case noTable(err):
		return errNone
	case err != nil:
		return err
	}
	return s.readable(ctx)
}

// noTable reports that a statement named a table that is not there.
func noTable(err error) bool {
	return err != nil && (strings.Contains(err.Error(), "no such table") || strings.Contains(err.Error(), "SQLSTATE 42P01"))
}
