package ledger

import (
	"cmp"
	"context"
	"database/sql"
	"encoding/base64"
	"errors"
	"fmt"
	"math"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"postern/internal/programs"
	"postern/internal/text"
	"postern/policy"
	"postern/proxy"
)

// querier is a database or a transaction.
type querier interface {
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
}

// errEnough ends reading early.
var errEnough = errors.New("no more rows are wanted")

// read calls each for the rows of a query; its errors begin with doing.
func read(ctx context.Context, db querier, doing, statement string, args []any, each func(*sql.Rows) error) error {
	rows, err := db.QueryContext(ctx, statement, args...)
	if err != nil {
		return fmt.Errorf("%s: %w", doing, err)
	}
	defer rows.Close()
	for err == nil && rows.Next() {
		err = each(rows)
	}
	if err = cmp.Or(err, rows.Err()); err != nil && err != errEnough {
		return fmt.Errorf("%s: %w", doing, err)
	}
	return nil
}

// query returns all rows of a query, as read does.
func query[T any](ctx context.Context, db querier, doing, statement string, args []any, scan func(*sql.Rows, *T) error) (all []T, err error) {
	err = read(ctx, db, doing, statement, args, func(rows *sql.Rows) error {
		var one T
		err := scan(rows, &one)
		all = append(all, one)
		return err
	})
	if err != nil {
		return nil, err
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

// keys are what SQL orders sightings s by, and what that is of a client.
var keys = map[Key]struct {
	expression string
	value      func(*Client) int64
}{
	ByFirstSeen: {"s.added", func(c *Client) int64 { return c.added }},
	ByLastSeen:  {"s.last_seen", func(c *Client) int64 { return c.Last.Unix() }},
	ByHandshakes: {"s.observed + s.explained + s.rejected + s.failed", func(c *Client) int64 {
		return c.Counts.Observed + c.Counts.Explained + c.Counts.Rejected + c.Counts.Failed
	}},
	ByClient: {"s.network", func(c *Client) int64 { return networkNumber(c.Addr) }},
}

// The keys. The zero Key is ByFirstSeen. ByClient is by address.
const (
	ByFirstSeen  Key = "first_seen"
	ByLastSeen   Key = "last_seen"
	ByHandshakes Key = "handshakes"
	ByClient     Key = "client"
)

// Keys lists the keys.
var Keys = []Key{ByFirstSeen, ByLastSeen, ByHandshakes, ByClient}

// plain reports that at most Since selects.
func (f *Filter) plain() bool {
	return f.Version == policy.NoVersion && f.Listener == "" && f.Account == "" && f.Software == "" && !f.Network.IsValid() && f.Outcome == "" &&
		!f.Noise && f.Keep == nil
}

// few reports that another index finds the clients sooner than that of their order.
func (f *Filter) few() bool { return f.Account != "" || f.Software != "" || f.Network.IsValid() }

// where returns the condition of a filter on sightings s.
func (d *dialect) where(f *Filter) (condition string, args []any) {
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
	if f.Network.IsSingleIP() {
		first, last := keysOf(f.Network.Addr())
		add(fmt.Sprintf(ofAddress, "$%d", "$%d", "$%d"), f.Network.Addr().String(), first, last)
	} else if f.Network.IsValid() {
		first, last := networkRange(f.Network)
		add("s.network BETWEEN $%d AND $%d", first, last)
	}
	if f.Outcome != "" {
		add("s." + string(f.Outcome) + " > 0")
	}
	if !f.Since.IsZero() {
		add("s.last_seen >= $%d", f.Since.Unix())
	}
	if !f.Noise {
		add(d.noIndex + "s.noise = 0")
	}
	const logins = "s.owner IN (SELECT owner FROM accounts WHERE "
	if f.Account != "" { // a hash may have capitals
		add(logins+"account IN ($%d, $%d))", storable(f.Account), storable(strings.ToLower(f.Account)))
	}
	if f.Software != "" {
		like := strings.NewReplacer(`!`, `!!`, `%`, `!%`, `_`, `!_`).Replace(strings.ToLower(text.Clean(f.Software, maxSoftware)))
		add(logins+"folded IN ("+distinctPrograms+" WHERE folded LIKE $%d ESCAPE '!'))", storable("%"+like+"%"))
		add("s.listener IN ($%d, $%d)", string(proxy.IMAPS), string(proxy.IMAP))
		add("NOT EXISTS (SELECT 1 FROM accounts a WHERE a.owner = s.owner AND a.software = $%d)", noID)
	}
	return strings.Join(parts, " AND "), args
}

// distinctPrograms finds the distinct programs by one look-up in the index for each.
const distinctPrograms = `WITH RECURSIVE program(folded) AS (SELECT min(folded) FROM accounts UNION ALL
	SELECT (SELECT min(a.folded) FROM accounts a WHERE a.folded > p.folded) FROM program p WHERE p.folded IS NOT NULL) SELECT folded FROM program`

// storable makes a text acceptable to PostgreSQL as a parameter. No stored text
// has what it changes.
func storable(s string) string {
	return strings.ToValidUTF8(strings.ReplaceAll(s, "\x00", "\ufffd"), "\ufffd")
}

// Count returns the number of clients.
func (s *Store) Count(ctx context.Context, f Filter) (n int, err error) {
	if err := s.readable(ctx); err != nil {
		return 0, err
	}
	if f.Keep != nil {
		err = s.each(ctx, f, "", func(*Client) bool { n++; return true })
		return n, err
	}
	statement := "SELECT count(*) FROM sightings s WHERE "
	where, args := s.where(&f)
	if recent := (Filter{Since: f.Since}); f.plain() { // an index alone has these, but for those of the first day
		where, args = s.where(&recent)
		day := f.Since.Unix() / secondsADay
		if f.Since.IsZero() {
			day = math.MinInt32
		}
		where = fmt.Sprintf("s.noise = 0 AND s.last_day > %[1]d) + (%[2]s s.noise = 0 AND s.last_day = %[1]d AND %[3]s)", day, statement, where)
		statement = "SELECT (" + statement
		if f.Since.IsZero() && !s.dialect.columns {
			statement, where, args = "SELECT sightings FROM remaining", "", nil
		}
	}
	err = s.db.QueryRowContext(ctx, statement+where, args...).Scan(&n)
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
	rest, err := o.clause(cursor, f.few() || !f.Since.IsZero() && !o.Descending)
	if err != nil {
		return nil, "", err
	}
	if limit > 0 && f.Keep == nil {
		rest += fmt.Sprintf(" LIMIT %d", limit+1)
	}
	err = s.each(ctx, f, rest, func(c *Client) bool {
		if limit > 0 && len(list) == limit { // there is more
			last := &list[limit-1]
			next = o.cursor(place{keys[o.key()].value(last), last.id})
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

// Found is a page of clients.
type Found struct {
	Clients []Client
	// Next is the cursor of the next page; empty at the end.
	Next string
	// Total counts all clients of the filter.
	Total int
}

// Find returns what Clients and Count do, in one pass where no index has both.
func (s *Store) Find(ctx context.Context, f Filter, o Order, cursor string, limit int) (p Found, err error) {
	if f.plain() || f.Keep != nil || limit == 0 {
		if p.Total, err = s.Count(ctx, f); err == nil {
			p.Clients, p.Next, err = s.Clients(ctx, f, o, cursor, limit)
		}
		return p, err
	}
	places, total, err := s.places(ctx, f, o, cursor, limit+1)
	if err != nil {
		return p, err
	}
	p.Total = total
	ids := make([]string, min(len(places), limit))
	for i := range ids {
		ids[i] = strconv.FormatInt(places[i].id, 10)
	}
	if len(ids) == 0 {
		return p, nil
	}
	rest, _ := o.clause("", true)
	if err := s.each(ctx, Filter{Noise: true}, " AND s.id IN ("+strings.Join(ids, ",")+")"+rest, func(c *Client) bool {
		p.Clients = append(p.Clients, *c)
		return true
	}); err != nil {
		return p, err
	}
	if len(places) > limit { // where it was: a client may have moved meanwhile
		p.Next = o.cursor(places[limit-1])
	}
	return p, s.addLogins(ctx, p.Clients)
}

// place is a client's place in an order.
type place struct{ value, id int64 }

func (p place) compare(o place) int {
	return cmp.Or(cmp.Compare(p.value, o.value), cmp.Compare(p.id, o.id))
}

// places counts the clients of a filter, and returns the places of the first so many
// behind a cursor.
func (s *Store) places(ctx context.Context, f Filter, o Order, cursor string, most int) (first []place, total int, err error) {
	if err := s.readable(ctx); err != nil {
		return nil, 0, err
	}
	from, err := o.parseCursor(cursor)
	if err != nil {
		return nil, 0, err
	}
	order := place.compare
	if o.Descending {
		order = func(a, b place) int { return b.compare(a) }
	}
	keep := func() {
		slices.SortFunc(first, order)
		first = first[:min(len(first), most)]
	}
	where, args := s.where(&f)
	err = read(ctx, s.db, "reading clients", "SELECT "+keys[o.key()].expression+", s.id FROM sightings s WHERE "+where, args, func(rows *sql.Rows) error {
		var p place
		err := rows.Scan(&p.value, &p.id)
		total++
		if cursor == "" || order(p, from) > 0 {
			if first = append(first, p); len(first) >= 2*most {
				keep()
			}
		}
		return err
	})
	keep()
	return first, total, err
}

// each calls do with the clients of a filter until it returns false.
func (s *Store) each(ctx context.Context, f Filter, rest string, do func(*Client) bool) error {
	if err := s.readable(ctx); err != nil {
		return err
	}
	where, args := s.where(&f)
	return read(ctx, s.db, "reading clients", `SELECT s.added, s.id, s.client, s.listener, s.name, s.port, s.version, s.reason, s.ja4, s.first_seen, s.last_seen,
		s.login_ok, s.login_failed, s.scanner, s.noise, s.observed, s.explained, s.rejected, s.failed
		FROM sightings s WHERE `+where+rest, args, func(rows *sql.Rows) error {
		var c Client
		err := scanClient(rows, &c)
		if err == nil && (f.Keep == nil || f.Keep(&c)) && !do(&c) {
			return errEnough
		}
		return err
	})
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

// clause returns the end of a statement that begins behind a cursor.
func (o Order) clause(cursor string, few bool) (string, error) {
	e, than, desc := keys[o.key()].expression, ">", ""
	if few {
		e = "+" + e // no index of the order
	}
	if o.Descending {
		than, desc = "<", " DESC"
	}
	order := fmt.Sprintf(" ORDER BY %s%s, s.id%s", e, desc, desc)
	if cursor == "" {
		return order, nil
	}
	from, err := o.parseCursor(cursor)
	return fmt.Sprintf(" AND (%s, s.id) %s (%d, %d)%s", e, than, from.value, from.id, order), err
}

// parseCursor reads what cursor returns; the zero place where there is none.
func (o Order) parseCursor(cursor string) (p place, err error) {
	if cursor == "" {
		return p, nil
	}
	b, err := base64.RawURLEncoding.DecodeString(cursor)
	of, at, _ := strings.Cut(string(b), ":")
	value, id, _ := strings.Cut(at, ".")
	v, verr := strconv.ParseInt(value, 10, 64)
	i, ierr := strconv.ParseInt(id, 10, 64)
	if cmp.Or(err, verr, ierr) != nil || of != string(o.key()) {
		return p, ErrCursor
	}
	return place{v, i}, nil
}

func (o Order) cursor(last place) string {
	return base64.RawURLEncoding.EncodeToString(fmt.Appendf(nil, "%s:%d.%d", o.key(), last.value, last.id))
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

// addLogins adds logins, accounts and software, a thousand clients at a time.
func (s *Store) addLogins(ctx context.Context, list []Client) error {
	const atOnce = 1000
	for part := range slices.Chunk(list, atOnce) {
		owners, logins := make([]string, len(part)), make(map[string][]Identity)
		for i := range part {
			owners[i] = strconv.FormatInt(ownerOf(part[i].Addr.String(), part[i].JA4), 10)
		}
		if err := read(ctx, s.db, "reading accounts", `SELECT owner, account, software FROM accounts WHERE owner IN (`+
			strings.Join(owners, ",")+`) ORDER BY owner, account, software`, nil, func(rows *sql.Rows) error {
			var owner string
			var l Identity
			err := rows.Scan(&owner, &l.Account, &l.Software)
			logins[owner] = append(logins[owner], l)
			return err
		}); err != nil {
			return err
		}
		for i := range part {
			part[i].addLogins(logins[owners[i]], s.Table())
		}
	}
	return nil
}

// addLogins adds what is known of the client's address and fingerprint, by rows in the
// order of accounts. Software of POP3, which has no ID, and of those that may be several
// programs is left out, and patterns of other listeners.
func (c *Client) addLogins(rows []Identity, t *programs.Table) {
	c.Accounts, c.Software, c.SpeaksLike, c.Logins = []string{}, []string{}, []string{}, nil
	nameless := c.Listener.Protocol() != proxy.ProtocolIMAP || slices.ContainsFunc(rows, func(l Identity) bool { return l.Software == noID })
	begin := 0 // of the account's
	for i, l := range rows {
		pattern, is := strings.CutPrefix(l.Software, asPattern)
		if is || nameless {
			l.Software = ""
		}
		if is && ofListener(pattern, string(c.Listener)) {
			l.SpeaksLike = t.SpeaksLike(pattern)
		}
		c.Accounts, c.Software, c.SpeaksLike = appendNew(c.Accounts, l.Account), appendNew(c.Software, l.Software), appendNew(c.SpeaksLike, l.SpeaksLike)
		c.Logins = append(c.Logins, l)
		if i+1 == len(rows) || rows[i+1].Account != l.Account {
			c.Logins = append(c.Logins[:begin], mostKnown(c.Logins[begin:])...)
			begin = len(c.Logins)
		}
	}
	slices.Sort(c.SpeaksLike)
	var ja4 policy.JA4
	copy(ja4[:], c.JA4)
	c.Library, c.Advice = t.Library(ja4), []string{}
	for i := range c.Logins {
		l := &c.Logins[i]
		l.Advice = t.Advise(l.Software, l.SpeaksLike, c.Library)
		c.Advice = appendNew(c.Advice, l.Advice)
	}
	if len(c.Logins) == 0 {
		c.Advice = appendNew(c.Advice, t.Advise("", "", c.Library))
	}
}

// mostKnown returns the programs of an account by what they have said or, where none has,
// by how they speak, each once.
func mostKnown(logins []Identity) []Identity {
	said := slices.ContainsFunc(logins, func(l Identity) bool { return l.Software != "" })
	spoke := !said && slices.ContainsFunc(logins, func(l Identity) bool { return l.SpeaksLike != "" })
	var kept []Identity
	for _, l := range logins {
		if said {
			l.SpeaksLike = ""
		}
		if (!said || l.Software != "") && (!spoke || l.SpeaksLike != "") && !slices.Contains(kept, l) && l != (Identity{}) {
			kept = append(kept, l)
		}
	}
	return kept
}

// appendNew appends a text that is neither empty nor in the list.
func appendNew(list []string, s string) []string {
	if s == "" || slices.Contains(list, s) {
		return list
	}
	return append(list, s)
}
