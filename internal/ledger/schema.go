package ledger

import (
	"context"
	"database/sql"
	_ "embed"
	"errors"
	"fmt"
	"strings"
	"sync"
	"text/template"
	"time"
)

var errNewer = errors.New("it has been written by a newer version of this program")

// schemaVersion is that of the tables. Version 1 had accounts by address, and neither
// noise nor last_day.
const schemaVersion = 2

//go:embed schema.sql
var schemaSQL string

var schema = sync.OnceValue(func() *template.Template {
	return template.Must(template.New("").Funcs(template.FuncMap{"noise": noiseOf}).Parse(schemaSQL))
})

// statements returns those of a template of schema.sql, in the database's own words.
func (d *dialect) statements(name string) []string {
	var b strings.Builder
	if err := schema().ExecuteTemplate(&b, name, map[string]bool{"PostgreSQL": d.columns}); err != nil {
		panic(err) // it is ours
	}
	return strings.Split(strings.TrimSpace(b.String()), ";\n")
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
		statements = s.statements("from version 1")
	case have == 0:
		statements = s.statements("tables")
	}
	set := fmt.Sprintf(`UPDATE postern_ledger SET version = %[1]d WHERE version <> %[1]d`, schemaVersion)
	w := &writer{ctx: ctx, tx: tx, d: s.dialect}
	w.runAll(append(statements, set, begin()))
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
