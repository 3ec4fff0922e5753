package ledger

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"postern/internal/text"
)

const (
	// pruneRows is how many rows are deleted in one transaction, and prunePause the
	// time between two of them: nobody waits long, and others may write.
	pruneRows  = 2000
	prunePause = 50 * time.Millisecond
)

// Prune deletes clients that were not seen since a time, in pieces.
func (s *Store) Prune(ctx context.Context, before time.Time) error {
	if err := s.readable(ctx); err != nil {
		return err
	}
	defer s.erased.Add(1)
	t := before.Unix()
	for _, p := range []struct{ table, key, old string }{
		{"days", "(day, sighting)", fmt.Sprintf(`SELECT day, sighting FROM days WHERE day < %d`, t/secondsADay)},
		// Their last day finds those that were not seen since a time.
		{"sightings", "id", fmt.Sprintf(`SELECT id FROM sightings WHERE noise IN (0, 1) AND last_day <= %d AND last_seen < %d`, t/secondsADay, t)},
		{"accounts", "(client, ja4, account, software)", fmt.Sprintf(`SELECT client, ja4, account, software FROM accounts WHERE last_seen < %d`, t)},
		{"refusals", "(rule, network)", fmt.Sprintf(`SELECT rule, network FROM refusals WHERE last_seen < %d`, t)},
		{"tripped_by", "(rule, network)", fmt.Sprintf(`SELECT rule, network FROM tripped_by WHERE tripped < %d`, t)},
		{"negotiated", "day", fmt.Sprintf(`SELECT day FROM negotiated WHERE day < %d`, t/secondsADay)},
		{"batches", "writer", fmt.Sprintf(`SELECT writer FROM batches WHERE written < %d AND writer <> %d`, t, beginning)},
	} {
		statement := fmt.Sprintf(`DELETE FROM %s WHERE %s IN (%s LIMIT %d)`, p.table, p.key, p.old, pruneRows)
		for {
			deleted, err := s.prune(ctx, statement)
			if err != nil {
				return fmt.Errorf("pruning the ledger: %w", err)
			}
			if deleted < pruneRows {
				break
			}
			time.Sleep(prunePause)
		}
	}
	if err := s.pruneHellos(ctx); err != nil {
		return err
	}
	return s.ofCandidates(ctx, func(c *Store) error { return c.Prune(ctx, before) })
}

// pruneHellos deletes hellos whose fingerprints nobody has. Looking for them takes
// long, so of several replicas the one does it that has counted last, and hellos that
// came meanwhile are looked at again.
func (s *Store) pruneHellos(ctx context.Context) error {
	if s.columns {
		owner, err := number(ctx, s, "reading who counts", `SELECT owner FROM counted`)
		if err != nil || owner != 0 && owner != s.owner {
			return err
		}
	}
	today := time.Now().Unix()/secondsADay - 1
	var unseen []any
	var err error
	Background(func() {
		unseen, err = query(ctx, s, "reading hellos", `SELECT ja4 FROM hellos EXCEPT SELECT ja4 FROM sightings`, nil,
			func(r row) any { return string(r.text(0)) })
	})
	if err != nil {
		return err
	}
	for gone := range slices.Chunk(unseen, 500) {
		if _, err := s.prune(ctx, fmt.Sprintf(`DELETE FROM hellos WHERE ja4 IN (%s)
			AND ja4 NOT IN (SELECT ja4 FROM sightings WHERE noise IN (0, 1) AND last_day >= %d)`, marks(1, len(gone)), today), gone...); err != nil {
			return fmt.Errorf("pruning hellos: %w", err)
		}
	}
	return nil
}

// prune runs a statement that deletes. A server that has died without a word ends it.
func (s *Store) prune(ctx context.Context, statement string, args ...any) (n int64, err error) {
	ctx, cancel := context.WithTimeout(ctx, flushTimeout)
	defer cancel()
	return s.erase(ctx, []string{statement}, args, func(*Recorder) {})
}

// erase runs statements while no recorder has a batch under way, and returns how many
// rows they deleted. Each recorder drops what it has of them before.
func (s *Store) erase(ctx context.Context, statements []string, args []any, drop func(*Recorder)) (n int64, err error) {
	s.writing.Lock()
	defer s.writing.Unlock()
	for _, r := range s.recorders {
		drop(r)
	}
	err = s.within(ctx, func(w *writer) {
		for _, statement := range statements {
			n += w.run(statement, args...)
		}
		if n > 0 {
			w.run(fmt.Sprintf(`UPDATE batches SET number = number + 1 WHERE writer = %d`, beginning)) // changes the state
		}
	})
	return n, err
}

// Forget erases an account, or everything about an address, here and in the
// recorders that write here; other replicas follow within a minute. It returns
// the number of rows. An account is given as it is stored (hashed accounts as
// the hash), in upper or lower case.
func (s *Store) Forget(ctx context.Context, who string) (n int64, err error) {
	who = storable(who)
	lower := strings.ToLower(who)
	statements, args := []string{`DELETE FROM accounts WHERE account = $1 OR account = $2`}, []any{who, lower}
	account := func(a string) bool { return a == who || a == lower }
	var client netip.Addr
	if a, err := netip.ParseAddr(who); err == nil {
		client = a.Unmap().WithZone("")
		args = addressArgs(client)
		statements = []string{
			`DELETE FROM refusals WHERE network IN (SELECT network FROM sightings WHERE ` + isAddress + `)`,
			`DELETE FROM tripped_by WHERE network IN (SELECT network FROM sightings WHERE ` + isAddress + `)`,
			`DELETE FROM days WHERE sighting IN (SELECT id FROM sightings WHERE ` + isAddress + `)`,
			`DELETE FROM sightings WHERE ` + isAddress,
			`DELETE FROM accounts WHERE ` + isAddress,
		}
	}
	defer s.erased.Add(1)
	if err = s.ofCandidates(ctx, func(c *Store) error { // first: the ledger of legacy clients copies from them
		more, err := c.Forget(ctx, who)
		n += more
		return err
	}); err != nil {
		return n, err
	}
	more, err := s.erase(ctx, statements, args, func(r *Recorder) { r.erase(account, client) })
	if err != nil {
		return n, fmt.Errorf("erasing: %w", err)
	}
	return n + more, nil
}

// Scrub leaves nothing to read, in the file of an SQLite ledger and in its log, of what was
// erased there: pages may have copies of old rows in bytes that are free.
func (s *Store) Scrub(ctx context.Context) error {
	if s.columns {
		return nil
	}
	_, err := s.db.ExecContext(ctx, "VACUUM")
	busy, more := number(ctx, s, "emptying its log", "PRAGMA wal_checkpoint(TRUNCATE)")
	if err = cmp.Or(err, more, text.Either(busy != 0, errors.New("another process reads it"), nil)); err != nil {
		return fmt.Errorf("erased, but the file of the ledger may hold old bytes until this succeeds once more: %w", inWords(err))
	}
	return nil
}
