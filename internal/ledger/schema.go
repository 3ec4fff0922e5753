package ledger

import (
	"cmp"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"postern/internal/text"
)

var errNewer = errors.New("it has been written by a newer version of this program")

// schemaVersion is that of the tables. Version 1 had accounts by address, and neither
// noise nor last_day.
const schemaVersion = 2

//go:embed schema.sql
var schemaSQL string

var schema = text.Templates(schemaSQL, map[string]any{"noise": noiseOf})

// statements returns those of a template of schema.sql, in the database's own words.
func (d *dialect) statements(name string) []string {
	return strings.Split(strings.TrimSpace(schema(name, map[string]bool{"PostgreSQL": d.columns})), ";\n")
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
	case have < schemaVersion:
		statements = w.d.statements([]string{"tables", "from version 1"}[have])
	}
	set := fmt.Sprintf(`UPDATE postern_ledger SET version = %[1]d WHERE version <> %[1]d`, schemaVersion)
	if w.runAll(slices.Concat(statements, []string{set, begin()}, w.d.statements("added"))); w.err != nil {
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
	if err := s.readable(ctx); err != nil {
		return time.Time{}, err
	}
	began, err := number(ctx, s, "reading how old the ledger is", fmt.Sprintf(`SELECT min(t) FROM (SELECT min(added) AS t FROM sightings
		UNION ALL SELECT written FROM batches WHERE writer = %d) x`, beginning))
	return time.Unix(began, 0).UTC(), err
}

// checkVersion rejects tables of another version of this program.
func (s *Store) checkVersion(ctx context.Context) error {
	have, err := number(ctx, s, "reading its version", `SELECT version FROM postern_ledger`)
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

// The steps of an upgrade, the first of which is in schema.sql as 0.
const (
	checkKeys = iota
	fillSightings
	fillAccounts
	makeIndexes
	upgradeSteps
)

// upgradeRows is how many rows are filled in one transaction.
const upgradeRows = 20_000

// ErrUpgrading reports that a ledger cannot be read yet.
var ErrUpgrading = errors.New("an instance is bringing the ledger up to this version; its log says how far it is")

// upgrade is how far an upgrade has come.
type upgrade struct {
	step       int
	place      string // in the table of the step
	done, rows int64  // of that table
}

// Upgrade brings a ledger of an earlier version up to date, and calls progress with
// the share that is done before each piece. Until it has returned nil, nothing can
// be read. It may be called again after an error, which is ErrAway as for Open, and
// by several replicas at once.
func (s *Store) Upgrade(ctx context.Context, progress func(done float64)) error {
	if err := s.migrate(ctx); err != nil {
		if s.columns && away(err) {
			err = fmt.Errorf("%w: %w", ErrAway, err)
		}
		return err
	}
	for u := (upgrade{}); ; {
		pending, err := s.upgradePending(ctx)
		if err == nil && !pending {
			return nil
		}
		if err == nil {
			progress((float64(u.step) + float64(u.done)/float64(max(u.rows, 1))) / upgradeSteps)
			err = s.within(ctx, func(w *writer) { w.upgradePiece(&u) })
		}
		if err != nil && !(s.columns && errors.Is(err, errInDoubt)) { // the next piece sees; SQLite's has failed
			return fmt.Errorf("bringing the ledger up to date: %w", err)
		}
	}
}

// upgradePending reports whether columns wait to be filled.
func (s *Store) upgradePending(ctx context.Context) (bool, error) {
	if s.current.Load() {
		return false, nil
	}
	if err := s.there(ctx); err != nil {
		return false, err
	}
	made := s.migrated.Load() || s.readOnly || s.candidates == nil // else an upgrade may not have begun
	_, err := number(ctx, s, "asking for an upgrade", `SELECT step FROM upgrade`)
	if noTable(err) {
		if made {
			s.current.Store(true)
		}
		return false, nil
	}
	return err == nil, err
}

// readable returns why the ledger cannot be read.
func (s *Store) readable(ctx context.Context) error {
	pending, err := s.upgradePending(ctx)
	if pending {
		return ErrUpgrading
	}
	return err
}

func (w *writer) upgradePiece(u *upgrade) {
	w.err = read(w.ctx, w, "reading how far an upgrade is", `SELECT step, place, done, rows FROM upgrade`, nil, func(r row) error {
		*u = upgrade{int(r.int(0)), string(r.text(1)), r.int(2), r.int(3)}
		return nil
	})
	switch {
	case noTable(w.err): // another replica has finished
		w.err = nil
		return
	case w.err != nil:
		return
	}
	switch u.step {
	case checkKeys:
		w.checkKeys(u)
	case fillSightings:
		w.fillSightings(u)
	case fillAccounts:
		w.fillAccounts(u)
	case makeIndexes:
		w.runAll(w.d.statements("finish"))
		u.done, u.rows = 1, 1
		return
	}
	w.run(`UPDATE upgrade SET step = $1, place = $2, done = $3, rows = $4`, u.step, u.place, u.done, u.rows)
}

// next goes to the next step, which reads a table.
func (w *writer) next(u *upgrade, table string) {
	u.step, u.place, u.done = u.step+1, "", 0
	u.rows = w.number(`SELECT count(*) FROM ` + table)
}

// checkKeys finds sightings whose id or network does not follow from what they are,
// as in a ledger that something else has filled, and gives them those that do.
func (w *writer) checkKeys(u *upgrade) {
	type keys struct{ old, id, network int64 }
	var moved []keys
	w.err = read(w.ctx, w, "reading sightings", `SELECT id, client, network, listener, name, port, version, reason, ja4 FROM sightings`, nil, func(r row) error {
		t := entryTexts{string(r.text(1)), string(r.text(3)), string(r.text(4)), string(r.text(6)), string(r.text(7)), string(r.text(8))}
		k := keys{old: r.int(0), network: networkOf(t.client)}
		if k.id = t.row(k.network, r.int(5)); k.id != k.old || k.network != r.int(2) {
			moved = append(moved, k)
		}
		return nil
	})
	if len(moved) > 0 {
		w.runAll(w.d.statements("moved"))
		insert(w, "moved", []string{"old", "id", "network"}, nil, moved, "",
			func(k keys, to []any) []any { return append(to, k.old, k.id, k.network) })
		w.runAll(w.d.statements("rewrite"))
	}
	w.next(u, "sightings")
}

// fillSightings fills the columns of some sightings. PostgreSQL generates all but
// one.
func (w *writer) fillSightings(u *upgrade) {
	if w.d.columns && u.place == "" {
		w.runAll(w.d.statements("generated"))
	}
	var last string
	list := found(w, "reading sightings", fmt.Sprintf(`SELECT id, client, ja4 FROM sightings WHERE id > CAST($1 AS BIGINT) ORDER BY id LIMIT %d`, upgradeRows),
		[]any{cmp.Or(u.place, strconv.Itoa(math.MinInt64))}, func(r row) string {
			last = string(r.text(0))
			return fmt.Sprintf("(%s, %d)", last, ownerOf(string(r.text(1)), string(r.text(2))))
		})
	if len(list) == 0 {
		w.next(u, "accounts")
		return
	}
	set := "owner = n.column2"
	if !w.d.columns {
		set += ", last_day = last_seen / 86400, noise = " + noiseOf("")
	}
	w.run("UPDATE sightings SET " + set + " FROM (VALUES " + strings.Join(list, ", ") + ") AS n WHERE id = n.column1")
	u.place, u.done = last, u.done+int64(len(list))
}

// fillAccounts fills the columns of the accounts of some addresses.
func (w *writer) fillAccounts(u *upgrade) {
	clients := found(w, "reading accounts", fmt.Sprintf(`SELECT client FROM accounts WHERE client > $1 ORDER BY client LIMIT %d`, upgradeRows),
		[]any{u.place}, func(r row) string { return string(r.text(0)) })
	if len(clients) == 0 {
		u.step, u.done = u.step+1, 0
		return
	}
	last := clients[len(clients)-1]
	seen := make(map[accountKey]span)
	for _, a := range found(w, "reading accounts", `SELECT client, ja4, account, software, first_seen, last_seen
		FROM accounts WHERE client > $1 AND client <= $2`, []any{u.place, last}, accountOf) {
		seen[a.accountKey] = a.span
	}
	w.accounts(seen)
	u.place, u.done = last, u.done+int64(len(seen))
}
