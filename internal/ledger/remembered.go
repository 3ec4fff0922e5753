package ledger

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"iter"
	"maps"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"postern/internal/text"
	"postern/policy"
	"postern/proxy"
)

// maxRemembered bounds the sightings in the ledger of a candidate: most clients may be
// such.
const maxRemembered = 1_000_000

// remembered is what the ledger of a candidate has beside that of legacy clients.
type remembered struct {
	floor policy.Floor
	// most bounds its sightings, of which there were size at a time, and what was written
	// since. full: it was said that there is no room.
	most, size int64
	sized      time.Time
	full       bool
	// found: its tables are there, whoever has made them.
	found atomic.Bool
}

// tableNames begin the names of all that a candidate's ledger has apart.
var tableNames = strings.Fields("sightings accounts days hellos batches counted remaining upgrade moved postern_ledger noise_after")

// makeCandidates makes the ledgers of candidates. There is one for each floor, whatever
// candidate has it, in tables of the same form with names of their own: so no query reads
// clients of two kinds, and each is for all of them.
func (s *Store) makeCandidates() {
	s.candidates = make([]*Store, len(policy.Floors))
	for _, f := range policy.Floors {
		c := &Store{db: s.db, dialect: s.dialect, name: s.name, dsn: s.dsn, shared: s.shared, readOnly: s.readOnly, owner: s.owner, programs: s.programs,
			remembered: remembered{floor: f, most: maxRemembered}}
		var names []string
		for _, name := range tableNames {
			names = append(names, name, strings.NewReplacer(".", "_", "-", "_").Replace(f.String())+"_"+name)
		}
		c.names = strings.NewReplacer(names...)
		s.candidates[f] = c
	}
}

// Candidate returns the ledger of those who are not legacy, and whom a remembered
// candidate with that floor would refuse.
func (s *Store) Candidate(f policy.Floor) *Store { return s.candidates[f] }

// tables is a reader of a store's tables.
type tables struct {
	reader
	of *Store
}

func (t tables) rows(ctx context.Context, statement string, each func(row), args ...any) error {
	return t.reader.rows(ctx, t.of.names.Replace(statement), each, args...)
}

// errNotRemembered reports that nobody has made the ledger of a candidate.
var errNotRemembered = errors.New("nothing is remembered for this candidate yet: has Postern run with this ledger and this policy?")

// there returns an error where a candidate's ledger has no tables.
func (s *Store) there(ctx context.Context) error {
	if s.candidates != nil || s.migrated.Load() || s.found.Load() {
		return nil
	}
	n, err := number(ctx, s, "looking for its tables", text.Either(s.columns, `SELECT count(to_regclass('postern_ledger'))`,
		`SELECT count(*) FROM sqlite_master WHERE name = 'postern_ledger'`))
	if err == nil && n == 0 {
		err = errNotRemembered
	}
	s.found.Store(err == nil)
	return err
}

// known are the ledgers of candidates that are known to have tables.
func (s *Store) known() []*Store {
	return slices.DeleteFunc(slices.Clone(s.candidates), func(c *Store) bool { return !c.migrated.Load() && !c.found.Load() })
}

// below has the ledgers that know of logins of clients below a floor, each with the
// condition on its sightings s of such: that of legacy clients, and those of candidates,
// remembered now or before, whom a higher one tells by their version.
func (s *Store) below(f policy.Floor) iter.Seq2[*Store, string] {
	const loggedIn = "s.login_ok > 0"
	return func(yield func(*Store, string) bool) {
		more := yield(s, loggedIn)
		for _, c := range s.known() {
			higher := fmt.Sprintf(" AND s.version < '%s'", f.MinVersion())
			nobody := c.floor.Compare(f) > 0 && f.MinVersion() == policy.TLS12 // no candidate's floor is lower
			more = more && (nobody || yield(c, loggedIn+text.Either(c.floor.Compare(f) > 0, higher, "")))
		}
	}
}

// login computes a column of a new sighting that says how its client's logins have ended,
// here and, of its network with its fingerprint, in the ledgers of candidates.
func (s *Store) login(name string) column {
	of := "SELECT " + name + " AS logins FROM sightings s WHERE s.ja4 = @ja4 AND "
	remembered := of + fmt.Sprintf("s.network = @network AND s.id BETWEEN (@id >> %[1]d << %[1]d) AND (@id | %[2]d)", 63-bucketBits, inBucket)
	parts := text.Each(s.known(), func(c *Store) string { return c.names.Replace(" UNION ALL " + remembered) })
	return column{name, "COALESCE((SELECT max(logins) FROM (" + of + "s.client = @client AND s.owner IN (@owner, 0)" + strings.Join(parts, "") + ") known), 0)"}
}

// adopt copies the accounts of legacy clients that are new, or were away, from the ledgers
// of candidates, but for those that a condition leaves out.
func (w *writer) adopt(s *Store, rows []*sighting, but string) {
	rows = slices.DeleteFunc(slices.Clone(rows), func(r *sighting) bool { return r.written })
	owners := numbers(rows, func(r **sighting) int64 { return ownerOf((*r).client.String(), ja4Text((*r).ja4)) })
	columns := strings.Join(accountColumns, ", ")
	for _, c := range s.known() {
		if len(rows) > 0 {
			w.run("INSERT INTO accounts (" + columns + ") SELECT " + columns + " FROM " + c.names.Replace("accounts") + " WHERE owner IN (" + owners + ")" + but + sameAccount)
		}
	}
}

// ofCandidates does something with the ledgers of candidates that there are.
func (s *Store) ofCandidates(ctx context.Context, do func(*Store) error) error {
	for _, c := range s.candidates {
		err := c.readable(ctx)
		if err == nil {
			err = do(c)
		}
		if err != nil && !errors.Is(err, errNotRemembered) {
			return err
		}
	}
	return nil
}

// Hellos returns the hello behind each fingerprint, also of clients of candidates.
func (s *Store) Hellos(ctx context.Context) (map[string]policy.Hello, error) {
	all, err := s.hellos(ctx, "")
	return all, cmp.Or(err, s.ofCandidates(ctx, func(c *Store) error {
		more, err := c.hellos(ctx, "")
		maps.Copy(all, more)
		return err
	}))
}

// bounded leaves out the sightings that are new where there is no room for them.
func (w *writer) bounded(s *Store, b *batch, rows []*sighting) []*sighting {
	if s.most == 0 || len(rows) == 0 {
		return rows
	}
	known := w.among("id", numbers(rows, func(r **sighting) int64 { return (*r).id }))
	if now := time.Now(); now.Sub(s.sized) >= loadEvery {
		s.size, s.sized = w.number(`SELECT count(*) FROM sightings`), now
	}
	b.dropped = 0
	return slices.DeleteFunc(rows, func(r *sighting) bool {
		switch {
		case known[r.id]:
			return false
		case s.size < s.most:
			known[r.id] = true // also where it is of two days
			s.size++
			return false
		}
		b.dropped += r.counts.Observed + r.counts.Failed
		return true
	})
}

// ofKnown leaves out accounts of clients that bounded leaves out.
func (w *writer) ofKnown(s *Store, seen map[accountKey]span) map[accountKey]span {
	if s.size < s.most || s.most == 0 || len(seen) == 0 {
		return seen
	}
	owner := func(k *accountKey) int64 { return ownerOf(k.client.String(), ja4Text(k.ja4)) }
	known := w.among("owner", numbers(slices.Collect(maps.Keys(seen)), owner))
	seen = maps.Clone(seen)
	maps.DeleteFunc(seen, func(k accountKey, _ span) bool { return !known[owner(&k)] })
	return seen
}

// among returns those of some numbers that sightings have in a column.
func (w *writer) among(column, list string) map[int64]bool {
	known := make(map[int64]bool)
	statement := fmt.Sprintf(`SELECT %[1]s FROM sightings WHERE %[1]s IN (%[2]s)`, column, list)
	for _, n := range found(w, "reading sightings", statement, nil, func(r row) int64 { return r.int(0) }) {
		known[n] = true
	}
	return known
}

// rememberTime bounds the wait for a database that hangs.
const rememberTime = 2 * time.Second

// Remember has those recorded, from now on, whom remembered candidates of a policy refuse.
// Their ledgers are made now, or with the first write if the database is away.
func (r *Recorder) Remember(p *policy.Policy) {
	ctx, cancel := context.WithTimeout(context.Background(), rememberTime)
	defer cancel()
	for _, c := range p.Remembered() {
		o := r.remembered[c.Floor]
		o.wanted.Store(true)
		_ = o.store.migrate(ctx)
	}
}

// concerned are the recorders that a client's connection is for.
func (r *Recorder) concerned(c *proxy.Conn) iter.Seq[*Recorder] {
	return func(yield func(*Recorder) bool) {
		if c.Legacy {
			yield(r)
			return
		}
		for _, o := range r.remembered {
			if c.Remembered.Has(o.store.floor) && !yield(o) {
				return
			}
		}
	}
}

// QueryContext implements querier.
func (s *Store) QueryContext(ctx context.Context, statement string, args ...any) (*sql.Rows, error) {
	return s.db.QueryContext(ctx, s.names.Replace(statement), args...)
}

// QueryContext implements querier.
func (w *writer) QueryContext(ctx context.Context, statement string, args ...any) (*sql.Rows, error) {
	return w.tx.QueryContext(ctx, w.d.names.Replace(statement), args...)
}
