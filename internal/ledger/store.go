package ledger

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	_ "github.com/jackc/pgx/v5/stdlib" // registers pgx
	modernc "modernc.org/sqlite"       // registers sqlite
	sqlite3 "modernc.org/sqlite/lib"

	"postern/internal/programs"
)

// Store is a ledger in a database. Safe for concurrent use.
type Store struct {
	db *sql.DB
	dialect
	name string // its URL, without a password
	// shared: other processes may write it too. readOnly: this one does not; for
	// PostgreSQL that is seen to here, since PgBouncer refuses the parameter.
	shared, readOnly bool
	dsn              string
	// migrated: the tables are those of this version; current: and so are all rows.
	migrated, current atomic.Bool
	erased            atomic.Uint64 // how often something has been erased here
	programs          *atomic.Pointer[programs.Table]
	// candidates are the ledgers of Candidate, by floor; nil where this is one.
	candidates []*Store
	remembered

	// writing is held from copying a batch until the write has ended, and while
	// something is erased. So a pending batch cannot bring back erased rows.
	writing   sync.Mutex
	recorders []*Recorder // that write here, and drop what is erased

	// owner is this replica where one counts for all. tally is the last count;
	// counting is held meanwhile.
	owner    int64
	counting sync.Mutex
	tally    *tally
}

// dialect holds the differences between the databases.
type dialect struct {
	driver string
	// columns: it generates columns, and one statement has many rows, since each takes
	// a round trip. Without round trips, one row at a time costs least: see writer.
	columns bool
	// names puts the names of a candidate's tables into statements.
	names *strings.Replacer
}

var sqlite, postgres = dialect{driver: "sqlite", names: strings.NewReplacer()}, dialect{driver: "pgx", columns: true, names: strings.NewReplacer()}

// lock makes a transaction of PostgreSQL the only writer until it ends. Replicas write
// every few seconds for some milliseconds, so waiting for each other costs little, and
// one lock cannot deadlock. A replica that hangs loses its transaction.
const lock = "SELECT set_config('idle_in_transaction_session_timeout', '30000', true), pg_advisory_xact_lock(7073737)"

// connectTimeout bounds the wait for a database at the start.
const connectTimeout = 10 * time.Second

// Memory is the URL of a ledger that ends with the process.
const Memory = "memory:"

// Open opens the ledger of a LEDGER_URL and brings its tables up to date:
// memory:, sqlite:/path/file.db or postgres://. No error holds a password. With
// ErrAway it returns a Store too. A large ledger of an earlier version needs
// Upgrade before it can be read.
func Open(ctx context.Context, ledgerURL string) (*Store, error) {
	return connect(ctx, ledgerURL, false, func(s *Store, ctx context.Context) error {
		if err := s.migrate(ctx); err != nil {
			return err
		}
		// A small ledger of an earlier version is up to date at once.
		if pending, err := s.upgradePending(ctx); err != nil || !pending {
			return err
		}
		rows, err := number(ctx, s, "counting sightings", `SELECT count(*) FROM (SELECT 1 FROM sightings LIMIT $1) x`, upgradeRows)
		if err != nil || rows == upgradeRows {
			return err
		}
		_ = s.Upgrade(ctx, func(float64) {}) // where a disk is full, it goes on behind the start
		return nil
	})
}

// OpenReadOnly opens a ledger that another process writes, to read it.
func OpenReadOnly(ctx context.Context, ledgerURL string) (*Store, error) {
	if ledgerURL == Memory {
		return nil, errors.New("the ledger memory: is that of the running instance alone")
	}
	if path, isFile := strings.CutPrefix(ledgerURL, "sqlite:"); isFile {
		if _, err := os.Stat(sqlitePath(path)); errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("%s: %w", Redacted(ledgerURL), errNone)
		}
	}
	return connect(ctx, ledgerURL, true, (*Store).checkVersion)
}

// errNone reports that nobody has made the ledger.
var errNone = errors.New("no ledger is there yet: has Postern run with this URL?")

// Try opens a ledger as Open does, and takes back what that writes: what is there
// stays as it is, and nothing is left behind. ErrAway is as for Open.
func Try(ctx context.Context, ledgerURL string) error {
	path := sqlitePath(ledgerURL)
	info, err := os.Stat(path)
	if strings.HasPrefix(ledgerURL, "sqlite:") && (err != nil || info.Size() == 0 && info.Mode().IsRegular()) {
		dir, err := os.MkdirTemp(filepath.Dir(path), ".postern-check-")
		if err != nil {
			return fmt.Errorf("the ledger cannot be made: %w", inWords(err))
		}
		defer os.RemoveAll(dir)
		// Written for good: whether a disk has room shows at the end of a transaction.
		trial := "sqlite:" + filepath.Join(dir, "ledger.db")
		s, err := Open(ctx, trial)
		if err != nil {
			return errors.New(strings.ReplaceAll(err.Error(), trial, ledgerURL))
		}
		return s.Close()
	}
	s, err := connect(ctx, ledgerURL, false, func(s *Store, ctx context.Context) error {
		err := s.within(ctx, func(w *writer) {
			w.update()
			w.err = cmp.Or(w.err, errTried)
		})
		if errors.Is(err, errTried) {
			return nil
		}
		return err
	})
	if s != nil {
		s.Close()
	}
	if err == nil && !s.columns {
		err = room(filepath.Dir(path), ledgerURL)
	}
	return err
}

// room reports a disk that is too full for some more clients. A proxy starts
// there all the same.
func room(dir, ledgerURL string) error {
	f, err := os.CreateTemp(dir, ".postern-check-")
	if err != nil {
		return fmt.Errorf("opening the ledger %s: %w", ledgerURL, inWords(err))
	}
	defer os.Remove(f.Name())
	_, err = f.Write(make([]byte, 64<<10))
	if err = cmp.Or(err, f.Close()); err != nil {
		return fmt.Errorf("%w: %s: %w", ErrAway, ledgerURL, inWords(errors.Unwrap(err)))
	}
	return nil
}

// errTried has a transaction taken back.
var errTried = errors.New("only tried")

func connect(ctx context.Context, ledgerURL string, readOnly bool, check func(*Store, context.Context) error) (*Store, error) {
	s, err := open(ledgerURL, readOnly)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	err = check(s, ctx)
	switch {
	case err == nil:
		return s, nil
	case !readOnly && s.columns && away(err):
		return s, fmt.Errorf("%w: %s: %w", ErrAway, Redacted(ledgerURL), oneLine{err})
	}
	s.Close()
	return nil, fmt.Errorf("opening the ledger %s: %w", Redacted(ledgerURL), oneLine{inWords(err)})
}

// ErrAway reports that a database server does not answer now, or cannot be
// written now. The Store is valid: the first write that succeeds brings its
// tables up to date.
var ErrAway = errors.New("the ledger's database does not answer, or cannot be written now")

// passing are the SQLSTATEs of a server that cannot write now and may later:
// read_only_sql_transaction, lock_not_available, query_canceled, and the
// classes of lost connections, rollbacks, scarce resources, an operator's
// intervention (shutdown, start), and of what the system around it does.
var passing = []string{"25006", "55P03", "57014", "08", "40", "53", "57P", "58"}

// away reports whether a server cannot be reached, or cannot be written now,
// rather than refused.
func away(err error) bool {
	var said *pgconn.PgError
	if errors.As(err, &said) {
		return slices.ContainsFunc(passing, func(code string) bool { return strings.HasPrefix(said.Code, code) })
	}
	var connecting *pgconn.ConnectError
	return errors.As(err, &connecting) || errors.Is(err, context.DeadlineExceeded)
}

// Check returns the problem with the text of a LEDGER_URL; empty if there is
// none. It never holds a password.
func Check(ledgerURL string) string {
	_, _, reason := source(ledgerURL, false)
	return reason
}

// Redacted returns a LEDGER_URL without its password.
func Redacted(ledgerURL string) string {
	u, err := url.Parse(ledgerURL)
	switch {
	case strings.HasPrefix(ledgerURL, "sqlite:"):
		return ledgerURL
	case err != nil || Check(ledgerURL) != "":
		return "..." // a password may be anywhere in it
	}
	u.RawQuery = ""
	return u.Redacted()
}

// source returns the driver and its data source for a URL.
func source(ledgerURL string, readOnly bool) (d dialect, dsn, reason string) {
	switch scheme, _, _ := strings.Cut(ledgerURL, ":"); scheme {
	case "memory":
		if ledgerURL != Memory {
			return d, "", "nothing follows memory:, and the colon belongs to it"
		}
		return sqlite, fmt.Sprintf("file:/postern-%d%s&_pragma=%s", rand.Uint64(), inMemory, busy), ""
	case "sqlite":
		path := sqlitePath(ledgerURL)
		if !strings.HasPrefix(path, "/") || strings.HasSuffix(path, "/") || strings.ContainsAny(path, "?#") {
			return d, "", "write sqlite: and the absolute path of a file, such as sqlite:/var/lib/postern/ledger.db"
		}
		q := url.Values{"mode": {"ro"}, "_pragma": {busy}}
		if !readOnly {
			q = url.Values{"_txlock": {"immediate"}, "_pragma": {busy, "journal_mode(WAL)", "synchronous(NORMAL)", "secure_delete(1)"}}
		}
		return sqlite, "file:" + (&url.URL{Path: path}).EscapedPath() + "?" + q.Encode(), ""
	case "postgres", "postgresql":
		dsn, reason = postgresSource(ledgerURL, readOnly)
		return postgres, dsn, reason
	}
	return d, "", "use memory:, sqlite:/path/file.db or postgres://user@host/database"
}

// sqlitePath returns the file that the URL names.
func sqlitePath(ledgerURL string) string {
	return strings.TrimPrefix(strings.TrimPrefix(ledgerURL, "sqlite:"), "//")
}

// busy has one process wait for another's write.
var busy = fmt.Sprintf("busy_timeout(%d)", busyTime.Milliseconds())

const busyTime = 10 * time.Second

// idleConnections are kept open, and openConnections are for all but scans, of which
// so many may run at once: for a report, the page's chart and verdict, and gauges.
const (
	idleConnections = 2
	openConnections = 4
	scansAtOnce     = 4
)

func open(ledgerURL string, readOnly bool) (*Store, error) {
	d, dsn, reason := source(ledgerURL, readOnly)
	if reason == "" && d.columns {
		reason = passfileProblem(dsn)
	}
	if reason != "" {
		return nil, errors.New(reason)
	}
	memory := ledgerURL == Memory
	if !d.columns && !memory && !readOnly {
		// For this user alone: it says who uses which program from where. SQLite's other
		// files get the same rights.
		f, err := os.OpenFile(sqlitePath(ledgerURL), os.O_CREATE|os.O_WRONLY, 0o600)
		if err != nil {
			return nil, fmt.Errorf("opening the ledger %s: %w", Redacted(ledgerURL), inWords(err))
		}
		f.Close()
	}
	db, err := sql.Open(d.driver, dsn)
	if err != nil {
		return nil, fmt.Errorf("opening the ledger %s: its URL cannot be used", Redacted(ledgerURL))
	}
	s := &Store{db: db, dialect: d, name: Redacted(ledgerURL), dsn: dsn, shared: !memory, readOnly: readOnly, owner: rand.Int64(),
		programs: new(atomic.Pointer[programs.Table])}
	s.makeCandidates()
	if memory { // whose tables are made with it
		s.migrated.Store(true)
		s.current.Store(true)
		db.SetMaxOpenConns(1) // which keeps the database
		return s, nil
	}
	db.SetMaxOpenConns(openConnections)
	if d.columns { // whose scans take connections from here, and writing waits for none of them
		db.SetMaxOpenConns(openConnections + scansAtOnce*scanReaders)
	}
	db.SetMaxIdleConns(idleConnections)
	db.SetConnMaxIdleTime(5 * time.Minute)
	return s, nil
}

func init() { modernc.RegisterConnectionHook(makeInMemory) }

// makeInMemory makes the tables of a database in memory, which is made at its first use,
// as it cannot fail in a way that the operator could fix, and the start does not wait for
// it.
func makeInMemory(c modernc.ExecQuerierContext, dsn string) error {
	if !strings.Contains(dsn, inMemory) {
		return nil
	}
	for _, statement := range slices.Concat(sqlite.statements("tables"), []string{begin()}, sqlite.statements("added")) {
		if _, err := c.ExecContext(context.Background(), statement, nil); err != nil {
			return fmt.Errorf("making its tables: %w", err)
		}
	}
	return nil
}

// inMemory is in the data source of a database in memory, and in no other: the path of a
// file has no question mark.
const inMemory = "?vfs=memdb"

// Close closes the database. A ledger in memory is lost.
func (s *Store) Close() error { return s.db.Close() }

// within has f write in one transaction, as the only one that writes.
func (s *Store) within(ctx context.Context, f func(*writer)) (err error) {
	if s.readOnly {
		return errors.New("the ledger was opened to be read")
	}
	defer func() {
		if s.columns && away(err) {
			// A connection may be for reading alone as long as it lives, or lead to a server
			// that has died without a word: the next attempt makes a new one.
			s.db.SetMaxIdleConns(-1)
			s.db.SetMaxIdleConns(idleConnections)
		}
	}()
	tx, err := s.db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	w := &writer{ctx: ctx, tx: tx, d: s.dialect, prepared: make(map[string]*sql.Stmt)}
	if s.columns {
		w.run(lock)
	}
	if w.err == nil {
		f(w)
	}
	if w.err != nil {
		tx.Rollback()
		return w.err
	}
	if err := tx.Commit(); err != nil {
		return fmt.Errorf("%w: %w", errInDoubt, err)
	}
	return nil
}

// errInDoubt reports that a transaction may have been committed, as the answer
// was lost.
var errInDoubt = errors.New("committing")

// SetPrograms sets what names programs and libraries, from now on, in place of
// [programs.Builtin].
func (s *Store) SetPrograms(t *programs.Table) { s.programs.Store(t) }

// Table returns what SetPrograms has set.
func (s *Store) Table() *programs.Table { return cmp.Or(s.programs.Load(), programs.Builtin) }

// inWords says what helps against an error at the opening of a database.
func inWords(err error) error {
	var said *modernc.Error
	code := 0
	if errors.As(err, &said) {
		code = said.Code()
	}
	if code != sqlite3.SQLITE_IOERR_SHMSIZE { // which is a disk without room for the index of the log
		code &= 0xff // the rest says more of the same
	}
	words := ""
	var refused *pgconn.PgError
	switch {
	case errors.As(err, &refused) && refused.Code == "42501":
		words = "the role lacks a right: let it own the tables and make them, by GRANT USAGE, CREATE ON SCHEMA public TO it"
	case code == sqlite3.SQLITE_FULL, code == sqlite3.SQLITE_IOERR_SHMSIZE, errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		words = "the disk is full: make room on the file system of this file"
	case code == sqlite3.SQLITE_NOTADB:
		words = "the file is no SQLite database: move it away, or name another"
	case code == sqlite3.SQLITE_CORRUPT:
		words = "the file is damaged: restore it, or move it away to begin anew"
	case code == sqlite3.SQLITE_READONLY, code == sqlite3.SQLITE_CANTOPEN, errors.Is(err, fs.ErrPermission):
		words = "this user may not write the file or its folder: chown them to the user that Postern runs as"
	case errors.Is(err, fs.ErrNotExist):
		words = "its folder is not there: make it, owned by the user that Postern runs as, or start the unit, whose StateDirectory= makes /var/lib/postern"
	default:
		return err
	}
	return fmt.Errorf("%s (%w)", words, err)
}

// oneLine puts an error on one line: pgx lists every address that it tried, with TLS and
// without.
type oneLine struct{ error }

func (e oneLine) Error() string {
	var said []string
	for line := range strings.Lines(e.error.Error()) {
		line = strings.Join(strings.Fields(line), " ")
		if !slices.ContainsFunc(said, func(s string) bool { return strings.HasSuffix(s, line) }) {
			said = append(said, line)
		}
	}
	return strings.Join(said, " ")
}

func (e oneLine) Unwrap() error { return e.error }
