package ledger

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"

	_ "github.com/jackc/pgx/v5/stdlib" // registers pgx
	_ "modernc.org/sqlite"             // registers sqlite
)

// Store is a ledger in a database. Safe for concurrent use.
type Store struct {
	db *sql.DB
	dialect
}

// dialect is what differs between the databases.
type dialect struct {
	driver string
	// shared: other processes may write too.
	shared bool
	// greatest and least are functions of two numbers.
	greatest, least string
	// rowsAtOnce is how many rows one statement writes: many where each is a
	// journey to a server and back.
	rowsAtOnce int
	// lock keeps others from migrating at the same time.
	lock string
}

var (
	sqlite   = dialect{driver: "sqlite", rowsAtOnce: 1, greatest: "max", least: "min"}
	postgres = dialect{driver: "pgx", shared: true, rowsAtOnce: 500, greatest: "greatest", least: "least",
		lock: "SELECT pg_advisory_xact_lock(7073737)"}
)

// connectTimeout bounds how long a database is waited for at the start.
const connectTimeout = 10 * time.Second

// Memory is the URL of a ledger that is gone with the process.
const Memory = "memory:"

// Open opens the ledger of a LEDGER_URL and brings its tables up to date:
// memory:, sqlite:/path/file.db or postgres://. No error holds a password.
func Open(ctx context.Context, ledgerURL string) (*Store, error) {
	s, err := open(ledgerURL, false)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	if err := s.migrate(ctx); err != nil {
		s.Close()
		return nil, fmt.Errorf("opening the ledger %s: %w", Redacted(ledgerURL), err)
	}
	return s, nil
}

// OpenReadOnly opens a ledger that another process writes, to read it.
func OpenReadOnly(ctx context.Context, ledgerURL string) (*Store, error) {
	if ledgerURL == Memory {
		return nil, errors.New("the ledger memory: is that of the running gate alone")
	}
	s, err := open(ledgerURL, true)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	version, err := s.schemaVersion(ctx)
	switch {
	case err == nil && version > len(migrations):
		err = errNewer
	case err == nil && version < len(migrations):
		err = fmt.Errorf("its tables are of version %d, not %d: a gate of this version has not opened it yet", version, len(migrations))
	}
	if err != nil {
		s.Close()
		return nil, fmt.Errorf("opening the ledger %s: %w", Redacted(ledgerURL), err)
	}
	return s, nil
}

// Check says what is wrong with a LEDGER_URL, as far as its text tells; empty
// where nothing is. It never holds a password.
func Check(ledgerURL string) string {
	_, _, reason := source(ledgerURL, false)
	return reason
}

// Redacted is a LEDGER_URL for people to read, without a password.
func Redacted(ledgerURL string) string {
	u, err := url.Parse(ledgerURL)
	if err != nil {
		scheme, _, _ := strings.Cut(ledgerURL, ":")
		return scheme + ":..."
	}
	u.RawQuery = ""
	return u.Redacted()
}

// source is the driver and its data source for a URL.
func source(ledgerURL string, readOnly bool) (d dialect, dsn, reason string) {
	const forms = "use memory:, sqlite:/path/file.db or postgres://user@host/database"
	switch scheme, rest, _ := strings.Cut(ledgerURL, ":"); scheme {
	case "memory":
		if rest != "" {
			return d, "", "nothing follows memory:"
		}
		return sqlite, "file::memory:?" + pragmas(nil), ""
	case "sqlite":
		path := strings.TrimPrefix(rest, "//")
		if !strings.HasPrefix(path, "/") || strings.HasSuffix(path, "/") || strings.ContainsAny(path, "?#") {
			return d, "", "not sqlite: and the absolute path of a file"
		}
		q := url.Values{}
		if readOnly {
			q.Set("mode", "ro")
		} else {
			q.Set("_txlock", "immediate")
			q["_pragma"] = []string{"journal_mode(WAL)", "synchronous(NORMAL)"}
		}
		return sqlite, "file:" + (&url.URL{Path: path}).EscapedPath() + "?" + pragmas(q), ""
	case "postgres", "postgresql":
		u, err := url.Parse(ledgerURL)
		if err != nil || u.Host == "" && u.Query().Get("host") == "" {
			return d, "", "not a postgres:// URL with a host"
		}
		if readOnly {
			q := u.Query()
			q.Set("default_transaction_read_only", "on")
			u.RawQuery = q.Encode()
		}
		return postgres, u.String(), ""
	}
	return d, "", forms
}

// pragmas adds how long one writer waits for another.
func pragmas(q url.Values) string {
	if q == nil {
		q = url.Values{}
	}
	q.Add("_pragma", "busy_timeout(5000)")
	return q.Encode()
}

func open(ledgerURL string, readOnly bool) (*Store, error) {
	d, dsn, reason := source(ledgerURL, readOnly)
	if reason != "" {
		return nil, errors.New(reason)
	}
	db, err := sql.Open(d.driver, dsn)
	if err != nil {
		return nil, fmt.Errorf("opening the ledger %s: its URL cannot be used", Redacted(ledgerURL))
	}
	if ledgerURL == Memory {
		db.SetMaxOpenConns(1) // each connection would be a database of its own
	} else {
		db.SetMaxOpenConns(4)
		db.SetConnMaxIdleTime(5 * time.Minute)
	}
	return &Store{db, d}, nil
}

// Close ends it. A ledger in memory is gone then.
func (s *Store) Close() error { return s.db.Close() }

// within runs f in one transaction.
func (s *Store) within(ctx context.Context, f func(*sql.Tx) error) error {
	tx, err := s.db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	if err := f(tx); err != nil {
		tx.Rollback()
		return err
	}
	return tx.Commit()
}

var errNewer = errors.New("it has been written by a newer version of this program")

// migrations bring the tables from one version to the next; they are never
// changed, only added to.
var migrations = [][]string{
	{
		`CREATE TABLE sightings (
			id BIGINT PRIMARY KEY,
			client TEXT NOT NULL,
			network TEXT NOT NULL,
			listener TEXT NOT NULL,
			name TEXT NOT NULL,
			port INTEGER NOT NULL,
			version TEXT NOT NULL,
			reason TEXT NOT NULL,
			ja4 TEXT NOT NULL,
			first_seen BIGINT NOT NULL,
			last_seen BIGINT NOT NULL,
			observed BIGINT NOT NULL,
			explained BIGINT NOT NULL,
			rejected BIGINT NOT NULL,
			failed BIGINT NOT NULL,
			scanner SMALLINT NOT NULL)`,
		`CREATE INDEX sightings_by_time ON sightings (last_seen)`,
		`CREATE INDEX sightings_by_age ON sightings (first_seen, id)`,
		`CREATE INDEX sightings_by_client ON sightings (client, ja4)`,
		`CREATE TABLE days (
			sighting BIGINT NOT NULL,
			day INTEGER NOT NULL,
			observed BIGINT NOT NULL,
			explained BIGINT NOT NULL,
			rejected BIGINT NOT NULL,
			failed BIGINT NOT NULL,
			PRIMARY KEY (sighting, day))`,
		`CREATE INDEX days_by_day ON days (day)`,
		`CREATE TABLE hellos (ja4 TEXT PRIMARY KEY, hello TEXT NOT NULL)`,
		`CREATE TABLE logins (
			client TEXT NOT NULL,
			ja4 TEXT NOT NULL,
			ok BIGINT NOT NULL,
			failed BIGINT NOT NULL,
			last_seen BIGINT NOT NULL,
			PRIMARY KEY (client, ja4))`,
		`CREATE TABLE accounts (
			client TEXT NOT NULL,
			ja4 TEXT NOT NULL,
			account TEXT NOT NULL,
			software TEXT NOT NULL,
			first_seen BIGINT NOT NULL,
			last_seen BIGINT NOT NULL,
			PRIMARY KEY (client, ja4, account, software))`,
		`CREATE INDEX accounts_by_account ON accounts (account)`,
		`CREATE INDEX accounts_by_time ON accounts (last_seen)`,
	},
}

// migrate brings the tables up to date.
func (s *Store) migrate(ctx context.Context) error {
	return s.within(ctx, func(tx *sql.Tx) error {
		if s.lock != "" {
			if _, err := tx.ExecContext(ctx, s.lock); err != nil {
				return err
			}
		}
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
		for _, m := range migrations[version:] {
			for _, statement := range m {
				if _, err := tx.ExecContext(ctx, statement); err != nil {
					return fmt.Errorf("making its tables: %w", err)
				}
			}
		}
		_, err = tx.ExecContext(ctx, fmt.Sprintf(`UPDATE postern_ledger SET version = %d`, len(migrations)))
		return err
	})
}

func (s *Store) schemaVersion(ctx context.Context) (version int, err error) {
	err = s.db.QueryRowContext(ctx, `SELECT version FROM postern_ledger`).Scan(&version)
	return version, err
}
