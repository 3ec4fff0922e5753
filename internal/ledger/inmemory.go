package ledger

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"fmt"

	modernc "modernc.org/sqlite" // registers sqlite
)

// openMemory opens a ledger in memory. Nothing can go wrong with it that the
// operator could mend, so the database is made when something is first asked of
// it, and the start of a gate does not wait for that.
func openMemory(dsn string) (*Store, error) {
	c, err := modernc.NewConnector(dsn)
	if err != nil {
		return nil, fmt.Errorf("opening the ledger %s: %w", Memory, err)
	}
	s := &Store{db: sql.OpenDB(inMemory{c}), dialect: sqlite}
	s.db.SetMaxOpenConns(1) // each connection is a database of its own
	s.migrated.Store(true)
	return s, nil
}

// inMemory makes databases with tables.
type inMemory struct{ driver.Connector }

func (m inMemory) Connect(ctx context.Context) (driver.Conn, error) {
	c, err := m.Connector.Connect(ctx)
	if err != nil {
		return nil, err
	}
	for _, migration := range migrations {
		for _, statement := range migration {
			if _, err := c.(driver.ExecerContext).ExecContext(ctx, sqlite.schema.Replace(statement), nil); err != nil {
				c.Close()
				return nil, fmt.Errorf("making its tables: %w", err)
			}
		}
	}
	return c, nil
}
