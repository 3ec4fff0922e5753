package ledger

import (
	"cmp"
	"context"
	"database/sql"
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"
	zombiezen "zombiezen.com/go/sqlite"
)

// reader is a connection that reads many rows. Through database/sql each value
// costs several allocations, and a million clients five times as long.
type reader interface {
	// rows calls each for every row. All arguments are of type int64.
	rows(ctx context.Context, statement string, each func(row), args ...any) error
	close()
}

// row is one row, valid until the next. Columns count from 0; text is that of the
// reader. A number that is NULL is 0.
type row interface {
	int(column int) int64
	text(column int) []byte
}

// sqlRow is a row of database/sql.
type sqlRow []sql.RawBytes

func (r sqlRow) text(column int) []byte { return r[column] }

func (r sqlRow) int(column int) int64 { return parseInt(r[column]) }

// parseInt reads the text of a column that is a number.
func parseInt(text []byte) int64 {
	n, _ := strconv.ParseInt(string(text), 10, 64)
	return n
}

// reader opens a connection to read.
func (s *Store) reader(ctx context.Context) (reader, error) {
	if s.columns {
		c, err := s.db.Conn(ctx)
		return tables{&postgresReader{conn: c}, s}, err
	}
	flags := zombiezen.OpenURI | zombiezen.OpenReadOnly
	if s.name == Memory {
		flags = zombiezen.OpenURI | zombiezen.OpenReadWrite
	}
	c, err := zombiezen.OpenConn(s.dsn, flags)
	if err != nil {
		return nil, err
	}
	c.SetBusyTimeout(busyTime)
	return tables{&sqliteReader{conn: c}, s}, nil
}

type sqliteReader struct {
	conn *zombiezen.Conn
	stmt *zombiezen.Stmt
	bufs [16][]byte // one for each column of text
}

func (r *sqliteReader) rows(ctx context.Context, statement string, each func(row), args ...any) (err error) {
	r.conn.SetInterrupt(ctx.Done())
	if r.stmt, err = r.conn.Prepare(statement); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.stmt.Reset()) }()
	for i, a := range args {
		r.stmt.BindInt64(i+1, a.(int64))
	}
	for {
		if more, err := r.stmt.Step(); err != nil || !more {
			return err
		}
		each(r)
	}
}

func (r *sqliteReader) int(column int) int64 { return r.stmt.ColumnInt64(column) }

func (r *sqliteReader) text(column int) []byte {
	n := r.stmt.ColumnLen(column)
	if n > len(r.bufs[column]) {
		r.bufs[column] = make([]byte, n)
	}
	return r.bufs[column][:r.stmt.ColumnBytes(column, r.bufs[column][:n])]
}

func (r *sqliteReader) close() { r.conn.Close() }

// postgresReader is the row that it has read, too.
type postgresReader struct {
	conn *sql.Conn
	pgx.Rows
}

func (r *postgresReader) rows(ctx context.Context, statement string, each func(row), args ...any) error {
	return r.conn.Raw(func(c any) error {
		var err error
		if r.Rows, err = c.(*stdlib.Conn).Conn().Query(ctx, statement, args...); err != nil {
			return err
		}
		defer r.Rows.Close()
		for r.Next() {
			each(r)
		}
		return r.Err()
	})
}

func (r *postgresReader) close() { r.conn.Close() }

func (r *postgresReader) text(column int) []byte { return r.RawValues()[column] }

func (r *postgresReader) int(column int) (n int64) {
	switch b := r.RawValues()[column]; {
	case r.FieldDescriptions()[column].Format == pgx.TextFormatCode:
		n = parseInt(b)
	case len(b) == 8:
		n = int64(binary.BigEndian.Uint64(b))
	case len(b) == 4:
		n = int64(int32(binary.BigEndian.Uint32(b)))
	}
	return n
}

// querier is a database or a transaction.
type querier interface {
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
}

// errEnough ends reading early.
var errEnough = errors.New("no more rows are wanted")

// read calls each for the rows of a query; its errors begin with doing.
func read(ctx context.Context, db querier, doing, statement string, args []any, each func(row) error) error {
	rows, err := db.QueryContext(ctx, statement, args...)
	if err != nil {
		return fmt.Errorf("%s: %w", doing, err)
	}
	defer rows.Close()
	names, err := rows.Columns()
	one, to := make(sqlRow, len(names)), make([]any, len(names))
	for i := range one {
		to[i] = &one[i]
	}
	for err == nil && rows.Next() {
		if err = rows.Scan(to...); err == nil {
			err = each(one)
		}
	}
	if err = cmp.Or(err, rows.Err()); err != nil && err != errEnough {
		return fmt.Errorf("%s: %w", doing, err)
	}
	return nil
}

// query returns what scan makes of all rows of a query, as read does.
func query[T any](ctx context.Context, db querier, doing, statement string, args []any, scan func(row) T) (all []T, err error) {
	err = read(ctx, db, doing, statement, args, func(r row) error {
		all = append(all, scan(r))
		return nil
	})
	return all, err
}

// number returns the number that is the answer to a query, 0 if there is no row, as read
// does.
func number(ctx context.Context, db querier, doing, statement string, args ...any) (n int64, err error) {
	err = read(ctx, db, doing, statement, args, func(r row) error {
		n = r.int(0)
		return nil
	})
	return n, err
}
