package ledger

import (
	"cmp"
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
	// Network is a range of addresses: a single one, a prefix of IPv4, or one of
	// IPv6 that is not longer than /64.
	Network netip.Prefix
	// Outcome leaves out clients that never met it.
	Outcome proxy.Outcome
	// Since leaves out clients that were not seen since then.
	Since time.Time
	// Noise includes noise.
	Noise bool
	// Keep selects further, by what no database knows; nil for all. It gets clients
	// without accounts and programs.
	Keep func(*Client) bool
}

// Order is an order of clients.
type Order struct {
	By         Key
	Descending bool
}

// Key is what clients are ordered by.
type Key string

// The keys. The zero Key is ByFirstSeen. ByClient is by address.
const (
	ByFirstSeen  Key = "first_seen"
	ByLastSeen   Key = "last_seen"
	ByHandshakes Key = "handshakes"
	ByClient     Key = "client"
)

// Keys lists the keys.
var Keys = []Key{ByFirstSeen, ByLastSeen, ByHandshakes, ByClient}

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
	if f.Network.IsValid() {
		first, last := networkRange(f.Network)
		add("s.network BETWEEN $%d AND $%d", first, last)
		if f.Network.IsSingleIP() {
			add("s.client = $%d", f.Network.Addr().String())
		}
	}
	if f.Outcome != "" {
		add("s." + string(f.Outcome) + " > 0")
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
	if f.Keep != nil {
		err = s.each(ctx, f, "", func(*Client) bool { n++; return true })
		return n, err
	}
	where, args := f.where()
	err = s.db.QueryRowContext(ctx, "SELECT count(*) FROM sightings s WHERE "+where, args...).Scan(&n)
	if err != nil {
		return 0, fmt.Errorf("counting clients: %w", err)
	}
	return n, nil
}

// ErrCursor reports an invalid cursor.
var ErrCursor = errors.New("not a cursor of an earlier answer")

// Clients lists clients in an order, starting at a cursor: at most limit of them,
// unless that is 0. Next is the cursor of the next page; empty at the end. Against
// the order it leads to those before. In the order of their first handshakes,
// clients that are seen again keep their place.
func (s *Store) Clients(ctx context.Context, f Filter, o Order, cursor string, limit int) (list []Client, next string, err error) {
	rest, err := o.clause(cursor)
	if err != nil {
		return nil, "", err
	}
	if limit > 0 && f.Keep == nil {
		rest += fmt.Sprintf(" LIMIT %d", limit+1)
	}
	err = s.each(ctx, f, rest, func(c *Client) bool {
		if limit > 0 && len(list) == limit { // there is more
			next = o.cursor(&list[limit-1])
			return false
		}
		list = append(list, *c)
		return true
	})
	if err != nil {
		return nil, "", err
	}
	return list, next, s.addLogins(ctx, list)
}

// Sightings lists all clients of a filter without their accounts and programs.
func (s *Store) Sightings(ctx context.Context, f Filter) (list []Client, err error) {
	err = s.each(ctx, f, "", func(c *Client) bool { list = append(list, *c); return true })
	return list, err
}

// each calls do with the clients of a filter until it returns false.
func (s *Store) each(ctx context.Context, f Filter, rest string, do func(*Client) bool) error {
	where, args := f.where()
	rows, err := s.db.QueryContext(ctx, `SELECT s.added, s.id, s.client, s.listener, s.name, s.port, s.version, s.reason, s.ja4, s.first_seen, s.last_seen,
		s.login_ok, s.login_failed, s.scanner, CASE WHEN `+noise+` THEN 1 ELSE 0 END, s.observed, s.explained, s.rejected, s.failed
		FROM sightings s WHERE `+where+rest, args...)
	if err != nil {
		return fmt.Errorf("reading clients: %w", err)
	}
	defer rows.Close()
	for rows.Next() {
		var c Client
		if err := scanClient(rows, &c); err != nil {
			return fmt.Errorf("reading clients: %w", err)
		}
		if (f.Keep == nil || f.Keep(&c)) && !do(&c) {
			return nil
		}
	}
	if err := rows.Err(); err != nil {
		return fmt.Errorf("reading clients: %w", err)
	}
	return nil
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

// expression is what SQL orders sightings s by, and value what that is of a client.
func (k Key) expression() string {
	switch k {
	case ByLastSeen:
		return "s.last_seen"
	case ByHandshakes:
		return "s.observed + s.explained + s.rejected + s.failed"
	case ByClient:
		return "s.network"
	}
	return "s.added"
}

func (k Key) value(c *Client) int64 {
	switch k {
	case ByLastSeen:
		return c.Last.Unix()
	case ByHandshakes:
		return c.Counts.Observed + c.Counts.Explained + c.Counts.Rejected + c.Counts.Failed
	case ByClient:
		return networkNumber(c.Addr)
	}
	return c.added
}

// clause returns the end of a statement that begins behind a cursor.
func (o Order) clause(cursor string) (string, error) {
	e, than, desc := o.By.expression(), ">", ""
	if o.Descending {
		than, desc = "<", " DESC"
	}
	order := fmt.Sprintf(" ORDER BY %s%s, s.id%s", e, desc, desc)
	if cursor == "" {
		return order, nil
	}
	b, err := base64.RawURLEncoding.DecodeString(cursor)
	of, place, _ := strings.Cut(string(b), ":")
	value, id, _ := strings.Cut(place, ".")
	v, verr := strconv.ParseInt(value, 10, 64)
	i, ierr := strconv.ParseInt(id, 10, 64)
	if cmp.Or(err, verr, ierr) != nil || of != string(o.key()) {
		return "", ErrCursor
	}
	return fmt.Sprintf(" AND (%s, s.id) %s (%d, %d)%s", e, than, v, i, order), nil
}

func (o Order) cursor(last *Client) string {
	return base64.RawURLEncoding.EncodeToString(fmt.Appendf(nil, "%s:%d.%d", o.key(), o.By.value(last), last.id))
}

func (o Order) key() Key { return cmp.Or(o.By, ByFirstSeen) }

// String returns the order as the API has it: -last_seen is descending.
func (o Order) String() string {
	if o.Descending {
		return "-" + string(o.key())
	}
	return string(o.key())
}

// ParseOrder reads what String returns.
func ParseOrder(s string) (Order, error) {
	by, descending := strings.CutPrefix(s, "-")
	if !slices.Contains(Keys, Key(by)) {
		return Order{}, errors.New("use first_seen, last_seen, handshakes or client, with - before it for descending")
	}
	return Order{Key(by), descending}, nil
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
	list, _, err := s.Clients(ctx, f, Order{}, "", 0)
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
