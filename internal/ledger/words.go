package ledger

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"syscall"

	"github.com/jackc/pgx/v5/pgconn"
	modernc "modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"
)

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
