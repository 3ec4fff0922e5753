package ledger

import (
	"cmp"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
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

// Filter selects clients; the zero Filter selects all but noise.
type Filter struct {
	Version  policy.Version
	Listener proxy.Listener
	// Account is a whole name, Software a part of one that is said or inferred, both
	// without regard to case.
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

// keys are what SQL orders sightings s by.
var keys = map[Key]string{
	ByFirstSeen:  "s.added",
	ByLastSeen:   "s.last_seen",
	ByHandshakes: "s.observed + s.explained + s.rejected + s.failed",
	ByClient:     "s.network",
}

// The keys. The zero Key is ByFirstSeen. ByClient is by address.
const (
	ByFirstSeen  Key = "first_seen"
	ByLastSeen   Key = "last_seen"
	ByHandshakes Key = "handshakes"
	ByClient     Key = "client"
)

// plain reports that at most Since selects.
func (f *Filter) plain() bool {
	return f.Version == policy.NoVersion && f.Listener == "" && f.Account == "" && f.Software == "" && !f.Network.IsValid() && f.Outcome == "" &&
		!f.Noise && f.Keep == nil
}

// few reports that another index finds the clients sooner than that of their order.
func (f *Filter) few() bool { return f.Account != "" || f.Software != "" || f.Network.IsValid() }

// where returns the condition of a filter on sightings s.
func (s *Store) where(f *Filter) (condition string, args []any) {
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
		add(fmt.Sprintf(ofAddress, "$%d", "$%d", "$%d"), addressArgs(f.Network.Addr())...)
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
		// No index is to find it. PostgreSQL would have no statistics of such an expression:
		// it chooses better by itself.
		add(text.Either(s.columns, "", "+") + "s.noise = 0")
	}
	const logins = "s.owner IN (SELECT owner FROM accounts WHERE "
	if f.Account != "" { // a hash may have capitals
		add(logins+"account IN ($%d, $%d))", storable(f.Account), storable(strings.ToLower(f.Account)))
	}
	if f.Software != "" {
		like := strings.NewReplacer(`!`, `!!`, `%`, `!%`, `_`, `!_`).Replace(strings.ToLower(text.Clean(f.Software, maxSoftware)))
		values := []any{storable("%" + like + "%"), string(proxy.IMAPS), string(proxy.IMAP), noID}
		condition := logins + "folded IN (" + distinctPrograms + " WHERE folded LIKE $%d ESCAPE '!')) AND s.listener IN ($%d, $%d) AND " +
			"NOT EXISTS (SELECT 1 FROM accounts a WHERE a.owner = s.owner AND a.software = $%d)"
		inferred, patterns := speaksLike(s.Table().PatternsOf(f.Software))
		add("("+condition+inferred+")", append(values, patterns...)...)
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
		err = s.each(ctx, f, Order{}, "", func(*Client) bool { n++; return true })
		return n, err
	}
	statement := "SELECT count(*) FROM sightings s WHERE "
	where, args := s.where(&f)
	switch {
	case f.plain() && !f.Since.IsZero(): // an index alone has these, but for those of the first day
		where = fmt.Sprintf("s.noise = 0 AND s.last_day > %[1]d) + (%[2]s s.noise = 0 AND s.last_day = %[1]d AND %[3]s)",
			f.Since.Unix()/secondsADay, statement, where)
		statement = "SELECT (" + statement
	case f.plain() && !s.columns:
		statement, where = "SELECT sightings FROM remaining", ""
	}
	total, err := number(ctx, s, "counting clients", statement+where, args...)
	return int(total), err
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
	err = s.each(ctx, f, o, rest, func(c *Client) bool {
		if limit > 0 && len(list) == limit { // there is more
			last := &list[limit-1]
			next = o.cursor(place{last.place, last.id})
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
		if p.Clients, p.Next, err = s.Clients(ctx, f, o, cursor, limit); err == nil {
			p.Total, err = s.Count(ctx, f) // last: whoever comes in between is counted, not listed
		}
		return p, err
	}
	places, total, err := s.places(ctx, f, o, cursor, limit+1)
	if err != nil {
		return p, err
	}
	p.Total = total
	if len(places) == 0 {
		return p, nil
	}
	ids := numbers(places[:min(len(places), limit)], func(p *place) int64 { return p.id })
	rest, _ := o.clause("", true)
	if err := s.each(ctx, Filter{Noise: true}, o, " AND s.id IN ("+ids+")"+rest, func(c *Client) bool {
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
	err = read(ctx, s, "reading clients", "SELECT "+keys[o.key()]+", s.id FROM sightings s WHERE "+where, args, func(r row) error {
		p := place{r.int(0), r.int(1)}
		total++
		if cursor == "" || order(p, from) > 0 {
			if first = append(first, p); len(first) >= 2*most {
				keep()
			}
		}
		return nil
	})
	keep()
	return first, total, err
}

// each calls do with the clients of a filter until it returns false, with their places in
// an order.
func (s *Store) each(ctx context.Context, f Filter, o Order, rest string, do func(*Client) bool) error {
	if err := s.readable(ctx); err != nil {
		return err
	}
	where, args := s.where(&f)
	texts := make(interned)
	return read(ctx, s, "reading clients", "SELECT "+clientColumns+", "+keys[o.key()]+" FROM sightings s WHERE "+where+rest, args, func(r row) error {
		c := texts.client(r)
		c.place, c.Remembered = r.int(placeColumn), s.candidates == nil
		if (f.Keep == nil || f.Keep(&c)) && !do(&c) {
			return errEnough
		}
		return nil
	})
}

// clause returns the end of a statement that begins behind a cursor.
func (o Order) clause(cursor string, few bool) (string, error) {
	e, than, desc := keys[o.key()], ">", ""
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
	b, _ := base64.RawURLEncoding.DecodeString(cursor)
	if _, err := fmt.Sscanf(string(b), string(o.key())+":%d.%d", &p.value, &p.id); err != nil || o.cursor(p) != cursor {
		return place{}, ErrCursor
	}
	return p, nil
}

func (o Order) cursor(last place) string {
	return base64.RawURLEncoding.EncodeToString(fmt.Appendf(nil, "%s:%d.%d", o.key(), last.value, last.id))
}

func (o Order) key() Key { return cmp.Or(o.By, ByFirstSeen) }

// String returns the order as the API has it: -last_seen is descending.
func (o Order) String() string { return text.Either(o.Descending, "-", "") + string(o.key()) }

// ParseOrder reads what String returns.
func ParseOrder(s string) (Order, error) {
	by, descending := strings.CutPrefix(s, "-")
	if keys[Key(by)] == "" {
		return Order{}, errors.New("use first_seen, last_seen, handshakes or client, with - before it for descending")
	}
	return Order{Key(by), descending}, nil
}

// addLogins adds logins, accounts and software, a thousand clients at a time.
func (s *Store) addLogins(ctx context.Context, list []Client) error {
	const atOnce = 1000
	for part := range slices.Chunk(list, atOnce) {
		logins := make(map[int64][]Identity)
		if err := read(ctx, s, "reading accounts", `SELECT owner, account, software FROM accounts WHERE owner IN (`+
			numbers(part, func(c *Client) int64 { return c.owner })+`) ORDER BY owner, account, software`, nil, func(r row) error {
			logins[r.int(0)] = append(logins[r.int(0)], Identity{Account: string(r.text(1)), Software: string(r.text(2))})
			return nil
		}); err != nil {
			return err
		}
		for i := range part {
			part[i].addLogins(logins[part[i].owner], s.Table())
		}
	}
	return nil
}

// numbers lists numbers as SQL does.
func numbers[T any](list []T, number func(*T) int64) string {
	var b []byte
	for i := range list {
		b = strconv.AppendInt(append(b, ','), number(&list[i]), 10)
	}
	return strings.TrimPrefix(string(b), ",")
}

// addLogins adds what is known of the client's address and fingerprint, by rows. Software
// of POP3, which has no ID, and of those that may be several programs is left out, and
// patterns of other listeners.
func (c *Client) addLogins(rows []Identity, t *programs.Table) {
	c.Accounts, c.Software, c.SpeaksLike, c.Advice, c.Logins = []string{}, []string{}, []string{}, []string{}, nil
	nameless := c.Listener.Protocol() != proxy.ProtocolIMAP || slices.ContainsFunc(rows, func(l Identity) bool { return l.Software == noID })
	all := make([]Identity, 0, len(rows))
	for _, l := range rows {
		pattern, is := strings.CutPrefix(l.Software, asPattern)
		if is && l.Account == "" && slices.ContainsFunc(rows, func(r Identity) bool { return strings.HasPrefix(r.Software, l.Software+" ") }) {
			continue // another time it has said more
		}
		if is || nameless {
			l.Software = ""
		}
		if is && strings.HasPrefix(pattern, string(c.Listener)+" ") {
			l.SpeaksLike = t.SpeaksLike(pattern)
		}
		c.Accounts, c.Software, c.SpeaksLike = appendNew(c.Accounts, l.Account), appendNew(c.Software, l.Software), appendNew(c.SpeaksLike, l.SpeaksLike)
		all = append(all, l)
	}
	slices.Sort(c.SpeaksLike)
	slices.SortFunc(all, func(a, b Identity) int {
		return cmp.Or(cmp.Compare(a.Account, b.Account), b.known()-a.known(), cmp.Compare(a.Software, b.Software), cmp.Compare(a.SpeaksLike, b.SpeaksLike))
	})
	var last Identity
	for _, l := range all { // of an account those of which most is known come first
		if l != last && (l.Account != last.Account || l.known() >= last.known()) {
			c.Logins, last = append(c.Logins, l), l
		}
	}
	var ja4 policy.JA4
	copy(ja4[:], c.JA4)
	if c.Library = t.Library(ja4); c.Remembered { // the advice is about older versions
		return
	}
	for _, l := range c.Logins {
		c.Advice = appendNew(c.Advice, t.Advise(l.Software, l.SpeaksLike, c.Library))
	}
	if len(c.Logins) == 0 {
		c.Advice = appendNew(c.Advice, t.Advise("", "", c.Library))
	}
}

// appendNew appends a text that is neither empty nor in the list.
func appendNew(list []string, s string) []string {
	if s == "" || slices.Contains(list, s) {
		return list
	}
	return append(list, s)
}

// HellosOf returns the hellos of clients, as far as they are kept.
func (s *Store) HellosOf(ctx context.Context, list []Client) (map[string]policy.Hello, error) {
	if len(list) == 0 {
		return nil, nil
	}
	return s.hellos(ctx, "WHERE ja4 IN (SELECT ja4 FROM sightings WHERE id IN ("+numbers(list, func(c *Client) int64 { return c.id })+"))")
}

// LaterHellos returns the hellos of TLS 1.2 and later, by their fingerprints.
func (s *Store) LaterHellos(ctx context.Context) (map[string]policy.Hello, error) {
	return s.hellos(ctx, "WHERE ja4 >= 't12'")
}

func (s *Store) hellos(ctx context.Context, where string) (map[string]policy.Hello, error) {
	all := make(map[string]policy.Hello)
	return all, read(ctx, s, "reading hellos", `SELECT ja4, hello FROM hellos `+where, nil, func(r row) error {
		var h policy.Hello
		err := json.Unmarshal(r.text(1), &h)
		if all[string(r.text(0))] = h; err != nil {
			return fmt.Errorf("of %s: %w", r.text(0), err)
		}
		return nil
	})
}

// Programs returns the programs of accounts, at whatever address and with whatever
// fingerprint they logged in, in order.
func (s *Store) Programs(ctx context.Context, accounts []string) (map[string][]string, error) {
	programs := make(map[string][]string)
	if len(accounts) == 0 {
		return programs, nil
	}
	args := append([]any{noID}, text.Each(accounts, func(a string) any { return storable(a) })...)
	return programs, read(ctx, s, "reading programs", `SELECT DISTINCT account, software FROM accounts
		WHERE folded <> '' AND software <> $1 AND account IN (`+marks(2, len(accounts))+`) ORDER BY account, software`, args,
		func(r row) error {
			account := string(r.text(0))
			programs[account] = append(programs[account], string(r.text(1)))
			return nil
		})
}

// AddDays fills in the days of a few clients, from a day in UTC on.
func (s *Store) AddDays(ctx context.Context, list []Client, first time.Time) error {
	if len(list) == 0 {
		return nil
	}
	places, last := make(map[int64]*Client), first
	for i := range list {
		list[i].Days = nil
		places[list[i].id] = &list[i]
		last = text.Later(last, list[i].Last)
	}
	ids := numbers(list, func(c *Client) int64 { return c.id })
	return read(ctx, s, "reading days", `SELECT sighting, day, observed, explained, rejected, failed FROM days
		WHERE sighting IN (`+ids+`) AND day IN (`+dayList(first, last.Unix()/secondsADay)+`) ORDER BY day`, nil,
		func(r row) error {
			c := places[r.int(0)]
			c.Days = append(c.Days, Day{r.int(1), countsOf(r, 2)})
			return nil
		})
}

// marks are those of n parameters from a number on.
func marks(first, n int) string {
	all := make([]string, n)
	for i := range all {
		all[i] = fmt.Sprintf("$%d", first+i)
	}
	return strings.Join(all, ", ")
}
