package ledger

import (
	"cmp"
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"postern/policy"
)

// network is what counts as one client: the IPv4 address or the IPv6 /64.
func network(a netip.Addr) string {
	if a = a.Unmap(); a.Is6() {
		p, _ := a.Prefix(64)
		return p.String()
	}
	return a.String()
}

// id is the primary key of a sighting's row: a hash of what it is added up by,
// so that every process knows it without asking.
func (k *entryKey) id() int64 {
	b := make([]byte, 0, 256)
	b = k.client.AppendTo(b)
	for _, s := range []string{string(k.listener), k.name, k.version.String(), k.reason.String(), k.ja4.String()} {
		b = append(append(b, 0), s...)
	}
	b = binary.BigEndian.AppendUint16(append(b, 0), k.port)
	sum := sha256.Sum256(b)
	return int64(binary.BigEndian.Uint64(sum[:8]) >> 1)
}

// row is a sighting with its id.
type row struct {
	id int64
	*sighting
}

// add writes a batch in one transaction. Rows go in the order of their keys, so
// that two gates never wait for each other in a circle.
func (s *Store) add(ctx context.Context, b *batch) error {
	rows := make([]row, len(b.sightings))
	for i := range b.sightings {
		rows[i] = row{b.sightings[i].id(), &b.sightings[i]}
	}
	slices.SortFunc(rows, func(a, b row) int { return cmp.Or(cmp.Compare(a.id, b.id), cmp.Compare(a.day, b.day)) })
	return s.within(ctx, func(tx *sql.Tx) error {
		w := writer{ctx: ctx, tx: tx, d: s.dialect}
		w.sightings(rows)
		w.days(rows)
		w.hellos(b.hellos)
		w.logins(b.logins)
		w.accounts(b.accounts)
		w.scanners(b.scanners)
		return w.err
	})
}

// writer writes rows, many at a time, until the first error.
type writer struct {
	ctx context.Context
	tx  *sql.Tx
	d   dialect
	err error
}

// insert runs INSERT ... VALUES ... for n rows, with rest behind it; args gives
// a row's values.
func (w *writer) insert(into string, columns, n int, rest string, args func(i int) []any) {
	var statement *sql.Stmt
	for begin := 0; begin < n && w.err == nil; begin += w.d.rowsAtOnce {
		count := min(w.d.rowsAtOnce, n-begin)
		if statement == nil || count < w.d.rowsAtOnce {
			statement, w.err = w.tx.PrepareContext(w.ctx, "INSERT INTO "+into+" VALUES "+placeholders(count, columns)+" "+rest)
			if w.err != nil {
				return
			}
			defer statement.Close()
		}
		values := make([]any, 0, count*columns)
		for i := range count {
			values = append(values, args(begin+i)...)
		}
		_, w.err = statement.ExecContext(w.ctx, values...)
	}
}

// placeholders is ($1,$2),($3,$4) for two rows of two columns.
func placeholders(rows, columns int) string {
	var b strings.Builder
	for i := range rows * columns {
		switch {
		case i == 0:
			b.WriteByte('(')
		case i%columns == 0:
			b.WriteString("),(")
		default:
			b.WriteByte(',')
		}
		fmt.Fprintf(&b, "$%d", i+1)
	}
	return b.String() + ")"
}

const addCounts = `observed = %[1]s.observed + excluded.observed, explained = %[1]s.explained + excluded.explained,
	rejected = %[1]s.rejected + excluded.rejected, failed = %[1]s.failed + excluded.failed`

// widen makes the times of a row include those of the new one.
func (w *writer) widen(table string) string {
	return fmt.Sprintf(`first_seen = %[2]s(%[1]s.first_seen, excluded.first_seen), last_seen = %[3]s(%[1]s.last_seen, excluded.last_seen)`,
		table, w.d.least, w.d.greatest)
}

// sightings writes one row for each id: two of one id, of different days, would
// be refused in one statement.
func (w *writer) sightings(rows []row) {
	merged := make([]row, 0, len(rows))
	for _, r := range rows {
		if n := len(merged); n > 0 && merged[n-1].id == r.id {
			sum := *merged[n-1].sighting
			sum.counts.add(r.counts)
			sum.first, sum.last = min(sum.first, r.first), max(sum.last, r.last)
			merged[n-1].sighting = &sum
			continue
		}
		merged = append(merged, r)
	}
	w.insert("sightings", 16, len(merged), "ON CONFLICT (id) DO UPDATE SET "+fmt.Sprintf(addCounts, "sightings")+", "+w.widen("sightings"),
		func(i int) []any {
			r := merged[i]
			return []any{r.id, r.client.String(), network(r.client), string(r.listener), r.name, int(r.port), r.version.String(),
				r.reason.String(), r.ja4.String(), r.first, r.last,
				r.counts.Observed, r.counts.Explained, r.counts.Rejected, r.counts.Failed, 0}
		})
}

func (w *writer) days(rows []row) {
	w.insert("days", 6, len(rows), "ON CONFLICT (sighting, day) DO UPDATE SET "+fmt.Sprintf(addCounts, "days"), func(i int) []any {
		c := &rows[i].counts
		return []any{rows[i].id, rows[i].day, c.Observed, c.Explained, c.Rejected, c.Failed}
	})
}

func (w *writer) hellos(list map[policy.JA4]policy.Hello) {
	for ja4, hello := range list {
		text, err := json.Marshal(hello)
		if w.err == nil {
			w.err = err
		}
		if w.err != nil {
			return
		}
		_, w.err = w.tx.ExecContext(w.ctx, `INSERT INTO hellos SELECT $1, $2 WHERE (SELECT count(*) FROM hellos) < $3
			ON CONFLICT (ja4) DO NOTHING`, ja4.String(), string(text), maxHellos)
	}
}

func (w *writer) logins(list []loginDelta) {
	slices.SortFunc(list, func(a, b loginDelta) int { return a.clientKey.compare(&b.clientKey) })
	w.insert("logins", 5, len(list), fmt.Sprintf(`ON CONFLICT (client, ja4) DO UPDATE SET ok = logins.ok + excluded.ok,
		failed = logins.failed + excluded.failed, last_seen = %s(logins.last_seen, excluded.last_seen)`, w.d.greatest), func(i int) []any {
		l := &list[i]
		return []any{l.client.String(), l.ja4.String(), l.ok, l.failed, l.last}
	})
}

func (w *writer) accounts(list []accountSeen) {
	slices.SortFunc(list, func(a, b accountSeen) int {
		return cmp.Or(a.clientKey.compare(&b.clientKey), cmp.Compare(a.account, b.account), cmp.Compare(a.software, b.software))
	})
	w.insert("accounts", 6, len(list), "ON CONFLICT (client, ja4, account, software) DO UPDATE SET "+w.widen("accounts"), func(i int) []any {
		a := &list[i]
		return []any{a.client.String(), a.ja4.String(), a.account, a.software, a.first, a.last}
	})
}

func (w *writer) scanners(list []netip.Addr) {
	slices.SortFunc(list, netip.Addr.Compare)
	for _, a := range list {
		if w.err != nil {
			return
		}
		_, w.err = w.tx.ExecContext(w.ctx, `UPDATE sightings SET scanner = 1 WHERE client = $1 AND scanner = 0`, a.String())
	}
}

func (k *clientKey) compare(o *clientKey) int {
	return cmp.Or(k.client.Compare(o.client), slices.Compare(k.ja4[:], o.ja4[:]))
}

// Prune removes what has not been seen since a time.
func (s *Store) Prune(ctx context.Context, before time.Time) error {
	t := before.Unix()
	return s.within(ctx, func(tx *sql.Tx) error {
		for _, statement := range []string{
			fmt.Sprintf(`DELETE FROM days WHERE day < %d`, t/secondsADay),
			fmt.Sprintf(`DELETE FROM sightings WHERE last_seen < %d`, t),
			fmt.Sprintf(`DELETE FROM logins WHERE last_seen < %d`, t),
			fmt.Sprintf(`DELETE FROM accounts WHERE last_seen < %d`, t),
			`DELETE FROM hellos WHERE ja4 NOT IN (SELECT ja4 FROM sightings)`,
		} {
			if _, err := tx.ExecContext(ctx, statement); err != nil {
				return fmt.Errorf("pruning the ledger: %w", err)
			}
		}
		return nil
	})
}
