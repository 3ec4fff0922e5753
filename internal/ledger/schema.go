package ledger

import (
	"context"
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
	err := s.within(ctx, (*writer).update)
	s.migrated.Store(err == nil)
	return err
}

// update makes the tables, or begins to bring them up to date.
func (w *writer) update() {
	w.run(`CREATE TABLE IF NOT EXISTS postern_ledger (version INTEGER NOT NULL)`)
	w.run(`INSERT INTO postern_ledger SELECT 0 WHERE NOT EXISTS (SELECT 1 FROM postern_ledger)`)
	var statements []string
	switch have := w.number(`SELECT version FROM postern_ledger`); {
	case w.err != nil:
		return
	case have > schemaVersion:
		w.err = errNewer
		return
	case have == 1:
		statements = w.d.statements("from version 1")
	case have == 0:
		statements = w.d.statements("tables")
	}
	set := fmt.Sprintf(`UPDATE postern_ledger SET version = %[1]d WHERE version <> %[1]d`, schemaVersion)
	if w.runAll(append(statements, set, begin())); w.err != nil {
		w.err = fmt.Errorf("making its tables: %w", w.err)
	}
}

// beginning is the writer of the batch that says since when there is a ledger.
const beginning = 0

func begin() string {
	return fmt.Sprintf(`INSERT INTO batches SELECT %d, 0, COALESCE(min(added), %d) FROM sightings WHERE 1 = 1
		ON CONFLICT (writer) DO NOTHING`, beginning, time.Now().Unix())
}

// Began returns since when the ledger remembers clients.
func (s *Store) Began(ctx context.Context) (time.Time, error) {
	began, err := number(ctx, s.db, "reading how old the ledger is", fmt.Sprintf(`SELECT min(t) FROM (SELECT min(added) AS t FROM sightings
		UNION ALL SELECT written FROM batches WHERE writer = %d) x`, beginning))
	return time.Unix(began, 0).UTC(), err
}

// checkVersion rejects tables of another version of this program.
func (s *Store) checkVersion(ctx context.Context) error {
	have, err := number(ctx, s.db, "reading its version", `SELECT version FROM postern_ledger`)
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
