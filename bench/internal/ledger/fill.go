package ledger

import (
	"cmp"
	"context"
	"database/sql"
	"fmt"
	"iter"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
	_ "modernc.org/sqlite" // registers sqlite
)

// table is a table and its rows, in the order of its key.
type table struct {
	name    string
	columns []string
	rows    iter.Seq[[]any]
}

// tables are all that hold facts, as version 1 of the schema has them.
func (f Facts) tables() []table {
	order, days := f.order()
	return []table{
		{"sightings", []string{"id", "client", "network", "listener", "name", "port", "version", "reason", "ja4", "added", "first_seen", "last_seen",
			"observed", "explained", "rejected", "failed", "login_ok", "login_failed", "scanner"}, f.sightingRows(order)},
		{"days", []string{"day", "sighting", "observed", "explained", "rejected", "failed"}, f.dayRows(days)},
		{"hellos", []string{"ja4", "hello"}, helloRows},
		{"accounts", []string{"client", "ja4", "account", "software", "folded", "first_seen", "last_seen"}, f.accountRows},
	}
}

// keyed is a row by its key: of one day, or 0 where it is not of a day.
type keyed struct {
	day, id int64
	row     int32
}

// order sorts the sightings and their days by their keys.
func (f Facts) order() (sightings, days []keyed) {
	for i := range f.Rows {
		s := f.sighting(i)
		sightings = append(sightings, keyed{id: s.id, row: int32(i)})
		list, _ := s.days()
		for _, d := range list {
			days = append(days, keyed{day: d, id: s.id, row: int32(i)})
		}
	}
	byKey := func(a, b keyed) int { return cmp.Or(cmp.Compare(a.day, b.day), cmp.Compare(a.id, b.id)) }
	slices.SortFunc(sightings, byKey)
	slices.SortFunc(days, byKey)
	return sightings, days
}

func (f Facts) sightingRows(order []keyed) iter.Seq[[]any] {
	return func(yield func([]any) bool) {
		for _, k := range order {
			s := f.sighting(int(k.row))
			if !yield([]any{s.id, s.client, s.network, s.listener, s.name, int64(s.port), s.version, s.reason, s.ja4, s.added, s.first, s.last,
				s.observed, s.explained, s.rejected, s.failed, s.loginOK, s.loginFailed, s.scanner}) {
				return
			}
		}
	}
}

func (f Facts) dayRows(order []keyed) iter.Seq[[]any] {
	return func(yield func([]any) bool) {
		for _, k := range order {
			s := f.sighting(int(k.row))
			list, counts := s.days()
			c := counts[slices.Index(list, k.day)]
			if !yield([]any{k.day, k.id, c[0], c[1], c[2], c[3]}) {
				return
			}
		}
	}
}

func helloRows(yield func([]any) bool) {
	for print := range fingerprint(prints) {
		if !yield([]any{print.ja4(), print.hello()}) {
			return
		}
	}
}

func (f Facts) accountRows(yield func([]any) bool) {
	for i := range f.Rows {
		s := f.sighting(i)
		if s.account != "" && !yield([]any{s.client, s.ja4, s.account, s.software, strings.ToLower(s.software), s.first, s.last}) {
			return
		}
	}
}

// Account is one that is in the ledger.
func (f Facts) Account() string {
	for i := range f.Rows {
		if s := f.sighting(i); s.account != "" {
			return s.account
		}
	}
	return ""
}

// FillSQLite makes the file of a ledger with the facts.
func (f Facts) FillSQLite(ctx context.Context, path string) error {
	db, err := sql.Open("sqlite", "file:"+path+"?_pragma=synchronous(0)&_pragma=cache_size(-262144)")
	if err != nil {
		return err
	}
	defer db.Close()
	db.SetMaxOpenConns(1)
	if _, err := db.ExecContext(ctx, sqliteSchema); err != nil {
		return err
	}
	for _, t := range f.tables() {
		if err := t.insert(ctx, db); err != nil {
			return fmt.Errorf("filling %s: %w", t.name, err)
		}
	}
	return nil
}

func (t *table) insert(ctx context.Context, db *sql.DB) error {
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback()
	insert, err := tx.PrepareContext(ctx, fmt.Sprintf("INSERT INTO %s (%s) VALUES (?%s)",
		t.name, strings.Join(t.columns, ", "), strings.Repeat(", ?", len(t.columns)-1)))
	if err != nil {
		return err
	}
	defer insert.Close()
	for row := range t.rows {
		if _, err := insert.Exec(row...); err != nil { // a context would cost as much as the row
			return err
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
	return tx.Commit()
}

// FillPostgres makes a ledger with the facts in an empty database, and leaves it
// as autovacuum would.
func (f Facts) FillPostgres(ctx context.Context, url string) error {
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	if _, err := conn.Exec(ctx, postgresSchema); err != nil {
		return err
	}
	for _, t := range f.tables() {
		next, stop := iter.Pull(t.rows)
		_, err := conn.CopyFrom(ctx, pgx.Identifier{t.name}, t.columns, pgx.CopyFromFunc(func() ([]any, error) {
			row, _ := next() // nil ends it
			return row, nil
		}))
		stop()
		if err != nil {
			return fmt.Errorf("filling %s: %w", t.name, err)
		}
	}
	_, err = conn.Exec(ctx, "VACUUM ANALYZE")
	return err
}
