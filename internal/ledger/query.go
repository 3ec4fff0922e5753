package ledger

import (
	"context"
	"database/sql"
	"encoding/base64"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"postern/internal/text"
	"postern/policy"
	"postern/proxy"
)

// querier is a database or a transaction.
type querier interface {
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
}

// query reads all rows of a query; its errors begin with doing.
func query[T any](ctx context.Context, db querier, doing, statement string, args []any, scan func(*sql.Rows, *T) error) ([]T, error) {
	rows, err := db.QueryContext(ctx, statement, args...)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", doing, err)
	}
	defer rows.Close()
	var all []T
	for rows.Next() {
		var one T
		if err := scan(rows, &one); err != nil {
			return nil, fmt.Errorf("%s: %w", doing, err)
		}
		all = append(all, one)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("%s: %w", doing, err)
	}
	return all, nil
}

// Filter selects clients; the zero Filter selects all but noise.
type Filter struct {
	Version  policy.Version
	Listener proxy.Listener
	// Account is a whole name, Software a part of one, both without regard to case.
	Account, Software string
	// Since leaves out clients that were not seen since then.
	Since time.Time
	// Noise includes noise.
	Noise bool
}

// where returns the condition of a filter on sightings s.
func (f *Filter) where() (condition string, args []any) {
	parts := []string{"1 = 1"}
	add := func(format string, values ...any) {
		var marks []any
		for _, v := range values {
			args = append(args, v)
			marks = append(marks, len(args))
		}
		parts = append(parts, fmt.Sprintf(format, marks...))
	}
	if f.Version != policy.NoVersion {
		add("s.version = $%d", f.Version.String())
	}
	if f.Listener != "" {
		add("s.listener = $%d", storable(string(f.Listener)))
	}
	if !f.Since.IsZero() {
		add("s.last_seen >= $%d", f.Since.Unix())
	}
	if !f.Noise {
		add("NOT " + noise)
	}
	const account = "EXISTS (SELECT 1 FROM accounts a WHERE a.client = s.client AND a.ja4 = s.ja4 AND "
	if f.Account != "" { // a hash may have capitals
		add(account+"a.account IN ($%d, $%d))", storable(f.Account), storable(strings.ToLower(f.Account)))
	}
	if f.Software != "" {
		like := strings.NewReplacer(`!`, `!!`, `%`, `!%`, `_`, `!_`).Replace(strings.ToLower(text.Clean(f.Software, maxSoftware)))
		add(account+"a.folded LIKE $%d ESCAPE '!')", storable("%"+like+"%"))
		add("s.listener IN ($%d, $%d)", string(proxy.IMAPS), string(proxy.IMAP))
		add("NOT "+account+"a.software = $%d)", noID)
	}
	return strings.Join(parts, " AND "), args
}

// storable makes a text acceptable to PostgreSQL as a parameter. No stored text
// has what it changes.
func storable(s string) string {
	return strings.ToValidUTF8(strings.ReplaceAll(s, "\x00", "\ufffd"), "\ufffd")
}

// Count returns the number of clients.
func (s *Store) Count(ctx context.Context, f Filter) (n int, err error) {
	where, args := f.where()
	err = s.db.QueryRowContext(ctx, "SELECT count(*) FROM sightings s WHERE "+where, args...).Scan(&n)
	if err != nil {
		return 0, fmt.Errorf("counting clients: %w", err)
	}
	return n, nil
}

// ErrCursor reports an invalid cursor.
var ErrCursor = errors.New("not a cursor of an earlier answer")

// Clients lists clients in the order in which they were first seen, starting at
// a cursor: at most limit of them, unless that is 0. Next is the cursor of the
// next page; empty at the end. A client that is seen again keeps its place.
func (s *Store) Clients(ctx context.Context, f Filter, cursor string, limit int) (list []Client, next string, err error) {
	list, next, err = s.sightings(ctx, f, cursor, limit)
	if err != nil {
		return nil, "", err
	}
	return list, next, s.addLogins(ctx, list)
}

// Sightings lists all clients of a filter without their accounts and programs.
func (s *Store) Sightings(ctx context.Context, f Filter) ([]Client, error) {
	list, _, err := s.sightings(ctx, f, "", 0)
	return list, err
}

func (s *Store) sightings(ctx context.Context, f Filter, cursor string, limit int) (list []Client, next string, err error) {
	where, args := f.where()
	if cursor != "" {
		added, id, err := parseCursor(cursor)
		if err != nil {
			return nil, "", err
		}
		args = append(args, added, id)
		where += fmt.Sprintf(" AND (s.added, s.id) > ($%d, $%d)", len(args)-1, len(args))
	}
	statement := `SELECT s.added, s.id, s.client, s.listener, s.name, s.port, s.version, s.reason, s.ja4, s.first_seen, s.last_seen,
		s.login_ok, s.login_failed, s.scanner, CASE WHEN ` + noise + ` THEN 1 ELSE 0 END, s.observed, s.explained, s.rejected, s.failed
		FROM sightings s WHERE ` + where + " ORDER BY s.added, s.id"
	if limit > 0 {
		statement += fmt.Sprintf(" LIMIT %d", limit+1) // one more tells whether there is more
	}
	list, err = query(ctx, s.db, "reading clients", statement, args, scanClient)
	if err != nil {
		return nil, "", err
	}
	if limit > 0 && len(list) > limit {
		list = list[:limit]
		next = formatCursor(list[limit-1].added, list[limit-1].id)
	}
	return list, next, nil
}

func scanClient(rows *sql.Rows, c *Client) error {
	var addr, version, reason string
	var first, last, ok, failed, marks, isNoise int64
	err := rows.Scan(append([]any{&c.added, &c.id, &addr, &c.Listener, &c.Endpoint.Name, &c.Endpoint.Port, &version, &reason, &c.JA4,
		&first, &last, &ok, &failed, &marks, &isNoise}, c.Counts.columns()...)...)
	if err != nil {
		return err
	}
	// Values of a newer version that this one does not know stay zero.
	_ = c.Version.UnmarshalText([]byte(version))
	_ = c.Reason.UnmarshalText([]byte(reason))
	c.Addr, _ = netip.ParseAddr(addr)
	c.First, c.Last = time.Unix(first, 0).UTC(), time.Unix(last, 0).UTC()
	c.Login, c.Noise = loginOf(ok, failed, c.Counts.Observed, marks), isNoise == 1
	return nil
}

func formatCursor(added, id int64) string {
	return base64.RawURLEncoding.EncodeToString(fmt.Appendf(nil, "%d.%d", added, id))
}

func parseCursor(s string) (added, id int64, err error) {
	b, err := base64.RawURLEncoding.DecodeString(s)
	if err != nil {
		return 0, 0, ErrCursor
	}
	a, z, _ := strings.Cut(string(b), ".")
	added, aerr := strconv.ParseInt(a, 10, 64)
	id, ierr := strconv.ParseInt(z, 10, 64)
	if aerr != nil || ierr != nil {
		return 0, 0, ErrCursor
	}
	return added, id, nil
}

// addressesAtOnce is the most clients to look up by address. For more of them
// all accounts are read.
const addressesAtOnce = 1000

// addLogins adds logins, accounts and software.
func (s *Store) addLogins(ctx context.Context, list []Client) error {
	if len(list) == 0 {
		return nil
	}
	statement, args := `SELECT client, ja4, account, software FROM accounts`, []any(nil)
	if len(list) <= addressesAtOnce {
		marks := make([]string, len(list))
		for i := range list {
			marks[i] = fmt.Sprintf("$%d", i+1)
			args = append(args, list[i].Addr.String())
		}
		statement += " WHERE client IN (" + strings.Join(marks, ",") + ")"
	}
	type row struct {
		client, ja4 string
		Identity
	}
	rows, err := query(ctx, s.db, "reading accounts", statement+" ORDER BY account, software", args, func(rows *sql.Rows, r *row) error {
		return rows.Scan(&r.client, &r.ja4, &r.Account, &r.Software)
	})
	if err != nil {
		return err
	}
	logins, mixed := make(map[[2]string][]Identity), make(map[[2]string]bool)
	for _, r := range rows {
		k := [2]string{r.client, r.ja4}
		if r.Software == noID {
			mixed[k], r.Software = true, ""
		}
		logins[k] = append(logins[k], r.Identity)
	}
	for i := range list {
		c := &list[i]
		k := [2]string{c.Addr.String(), c.JA4}
		c.Logins = logins[k]
		if mixed[k] || c.Listener.Protocol() != proxy.ProtocolIMAP { // an ID is IMAP's
			c.Logins = withoutSoftware(c.Logins)
		}
		c.Accounts, c.Software = []string{}, []string{}
		for _, l := range c.Logins {
			c.Accounts, c.Software = appendNew(c.Accounts, l.Account), appendNew(c.Software, l.Software)
		}
	}
	return nil
}

// withoutSoftware returns the accounts of logins alone.
func withoutSoftware(logins []Identity) []Identity {
	var accounts []Identity
	for _, l := range logins {
		if a := (Identity{Account: l.Account}); !slices.Contains(accounts, a) {
			accounts = append(accounts, a)
		}
	}
	return accounts
}

// appendNew appends a text that is neither empty nor in the list.
func appendNew(list []string, s string) []string {
	if s == "" || slices.Contains(list, s) {
		return list
	}
	return append(list, s)
}

// ClientsSince lists all clients of a filter, each with its handshakes of the
// days since Filter.Since.
func (s *Store) ClientsSince(ctx context.Context, f Filter) ([]Client, error) {
	list, _, err := s.Clients(ctx, f, "", 0)
	if err != nil {
		return nil, err
	}
	type row struct {
		id     int64
		counts Counts
	}
	rows, err := query(ctx, s.db, "reading days", `SELECT d.sighting, `+sums+` FROM days d WHERE d.day >= $1 GROUP BY d.sighting`,
		[]any{max(f.Since.Unix(), 0) / secondsADay}, func(rows *sql.Rows, r *row) error {
			return rows.Scan(append([]any{&r.id}, r.counts.columns()...)...)
		})
	if err != nil {
		return nil, err
	}
	since := make(map[int64]Counts, len(rows))
	for _, r := range rows {
		since[r.id] = r.counts
	}
	for i := range list {
		list[i].Since = since[list[i].id]
	}
	return list, nil
}
