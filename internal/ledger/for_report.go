package ledger

import (
	"context"
	"fmt"
	"net/netip"
	"time"
)

// Seen is a client in a report: what it did since a time, and whom it belongs
// to.
type Seen struct {
	Client
	// Since are its handshakes on the days since that time, where Counts are all
	// that are remembered.
	Since Counts
	// Logins are its accounts, each with a program of theirs, in order.
	Logins []Identity
}

// Identity is an account and a program that it came with; Software may be empty.
type Identity struct{ Account, Software string }

// place is what tells the rows of a ledger apart.
type place struct {
	addr                              netip.Addr
	listener, name, version, why, ja4 string
	port                              uint16
}

// Seen lists the clients of a filter with what a report tells of them.
func (s *Store) Seen(ctx context.Context, f Filter) ([]Seen, error) {
	clients, _, err := s.Clients(ctx, f, "", 0)
	if err != nil {
		return nil, err
	}
	counts, err := s.countsSince(ctx, f.Since)
	if err != nil {
		return nil, err
	}
	logins, err := s.identities(ctx)
	if err != nil {
		return nil, err
	}
	all := make([]Seen, len(clients))
	for i, c := range clients {
		all[i] = Seen{
			Client: c, Since: counts[place{c.Addr, c.Listener, c.Name, c.Version, c.Reason, c.JA4, c.Port}],
			Logins: logins[[2]string{c.Addr.String(), c.JA4}],
		}
	}
	return all, nil
}

// sums adds up the outcomes of days; a sum of PostgreSQL would else be no
// integer.
const sums = `CAST(sum(d.observed) AS BIGINT), CAST(sum(d.explained) AS BIGINT), CAST(sum(d.rejected) AS BIGINT), CAST(sum(d.failed) AS BIGINT)`

func (s *Store) countsSince(ctx context.Context, since time.Time) (map[place]Counts, error) {
	rows, err := s.db.QueryContext(ctx, `SELECT s.client, s.listener, s.name, s.version, s.reason, s.ja4, s.port, `+sums+`
		FROM days d JOIN sightings s ON s.id = d.sighting WHERE d.day >= $1 GROUP BY s.id`, max(since.Unix(), 0)/secondsADay)
	if err != nil {
		return nil, fmt.Errorf("reading days: %w", err)
	}
	defer rows.Close()
	all := make(map[place]Counts)
	for rows.Next() {
		var p place
		var c Counts
		var addr string
		if err := rows.Scan(&addr, &p.listener, &p.name, &p.version, &p.why, &p.ja4, &p.port,
			&c.Observed, &c.Explained, &c.Rejected, &c.Failed); err != nil {
			return nil, fmt.Errorf("reading days: %w", err)
		}
		p.addr, _ = netip.ParseAddr(addr)
		all[p] = c
	}
	return all, rows.Err()
}

// identities are all accounts, by address and fingerprint.
func (s *Store) identities(ctx context.Context) (map[[2]string][]Identity, error) {
	rows, err := s.db.QueryContext(ctx, `SELECT client, ja4, account, software FROM accounts ORDER BY account, software`)
	if err != nil {
		return nil, fmt.Errorf("reading accounts: %w", err)
	}
	defer rows.Close()
	all := make(map[[2]string][]Identity)
	for rows.Next() {
		var key [2]string
		var i Identity
		if err := rows.Scan(&key[0], &key[1], &i.Account, &i.Software); err != nil {
			return nil, fmt.Errorf("reading accounts: %w", err)
		}
		all[key] = append(all[key], i)
	}
	return all, rows.Err()
}

// Period is what was seen on some days that follow each other, in UTC.
type Period struct {
	First   time.Time
	Clients int // distinct
	Counts  Counts
}

// Trend tells, for n periods of so many days each from a day on, who came then,
// noise left out; also those that have stayed away since.
func (s *Store) Trend(ctx context.Context, first time.Time, n, days int) ([]Period, error) {
	day := first.Unix() / secondsADay
	all := make([]Period, n)
	for i := range all {
		all[i].First = time.Unix((day+int64(i*days))*secondsADay, 0).UTC()
	}
	rows, err := s.db.QueryContext(ctx, fmt.Sprintf(`SELECT (d.day - %d) / %d, count(DISTINCT s.network), `, day, days)+sums+`
		FROM days d JOIN sightings s ON s.id = d.sighting 
		WHERE d.day >= $1 AND NOT `+noise+` GROUP BY 1`, day)
	if err != nil {
		return nil, fmt.Errorf("reading days: %w", err)
	}
	defer rows.Close()
	for rows.Next() {
		var i int
		var p Period
		if err := rows.Scan(&i, &p.Clients, &p.Counts.Observed, &p.Counts.Explained, &p.Counts.Rejected, &p.Counts.Failed); err != nil {
			return nil, fmt.Errorf("reading days: %w", err)
		}
		if i >= 0 && i < n { // a day ahead of our clock is nobody's
			all[i].Clients, all[i].Counts = p.Clients, p.Counts
		}
	}
	return all, rows.Err()
}
