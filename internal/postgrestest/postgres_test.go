package postgrestest

import (
	"context"
	"database/sql"
	"testing"
	"time"
)

// TestAServerThatIsStoppedOrFrozen says what a database that is away looks like.
func TestAServerThatIsStoppedOrFrozen(t *testing.T) {
	s := New(t)
	db, err := sql.Open("pgx", s.NewDatabase(t))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if _, err := db.Exec("CREATE TABLE kept (n INTEGER)"); err != nil {
		t.Fatal(err)
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	count := func(wait time.Duration) error {
		ctx, cancel := context.WithTimeout(t.Context(), wait)
		defer cancel()
		var n int
		return db.QueryRowContext(ctx, "SELECT count(*) FROM kept").Scan(&n)
	}
	must(s.Stop())
	if count(time.Second) == nil {
		t.Error("a server that was stopped answers")
	}
	must(s.Start())
	if err := count(time.Minute); err != nil {
		t.Errorf("after it was stopped and started: %v", err)
	}
	must(s.Pause())
	if count(time.Second) == nil {
		t.Error("a frozen server answers")
	}
	must(s.Resume())
	deadline := time.Now().Add(time.Minute)
	for err = count(10 * time.Second); err != nil && time.Now().Before(deadline); err = count(10 * time.Second) {
		time.Sleep(50 * time.Millisecond)
	}
	if err != nil {
		t.Errorf("after it was frozen: %v", err)
	}
}
