package ledger

import (
	"cmp"
	"context"
	"database/sql"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"postern/internal/text"
	"postern/policy"
)

// Client is one address with one way of doing TLS at one place.
type Client struct {
	Addr     netip.Addr
	Network  string // what is counted as one client: the address, or its IPv6 /64
	Listener string
	Name     string // the server name that it asked for; empty where it sent none
	Port     uint16 // local
	Version  string
	Reason   string
	JA4      string
	First    time.Time
	Last     time.Time
	Counts   Counts
	Login    Login
	Noise    bool
	// Accounts and Software are what it has logged in as and with, in order.
	Accounts, Software []string
}

// Endpoint is what the client came to: name and port.
func (c *Client) Endpoint() string { return net.JoinHostPort(c.Name, strconv.Itoa(int(c.Port))) }

// Login is how the logins of a client have ended.
type Login string

const (
	LoginOK      Login = "ok"      // one was accepted
	LoginFailed  Login = "failed"  // there were some, and none was accepted
	LoginUnknown Login = "unknown" // there was none that the gate could see
)

// Filter narrows down which clients are wanted; the zero Filter is all of them
// but noise.
type Filter struct {
	Version, Listener string
	// Account is one whole name, Software a part of one; neither goes by case.
	Account, Software string
	// Since leaves out those that were not seen since then.
	Since time.Time
	// Noise asks for noise too.
	Noise bool
}

// where is the condition of a filter.
func (f *Filter) where() (condition string, args []any) {
	parts := []string{"1 = 1"}
	add := func(format string, value any) {
		if s, ok := value.(string); ok {
			value = asked(s)
		}
		args = append(args, value)
		parts = append(parts, fmt.Sprintf(format, len(args)))
	}
	if f.Version != "" {
		add("s.version = $%d", f.Version)
	}
	if f.Listener != "" {
		add("s.listener = $%d", f.Listener)
	}
	if !f.Since.IsZero() {
		add("s.last_seen >= $%d", f.Since.Unix())
	}
	if !f.Noise {
		parts = append(parts, "NOT "+noise)
	}
	const account = "EXISTS (SELECT 1 FROM accounts a WHERE a.client = s.client AND a.ja4 = s.ja4 AND "
	if f.Account != "" {
		args = append(args, asked(f.Account)) // a hash may have capitals
		add(account+fmt.Sprintf("a.account IN ($%d, $%%d))", len(args)), strings.ToLower(f.Account))
	}
	if f.Software != "" {
		like := strings.NewReplacer(`!`, `!!`, `%`, `!%`, `_`, `!_`).Replace(strings.ToLower(text.Clean(f.Software, maxSoftware)))
		add(account+"a.folded LIKE $%d ESCAPE '!')", "%"+like+"%")
	}
	return strings.Join(parts, " AND "), args
}

// asked is a text that PostgreSQL lets one ask for; there is none like those that
// it refuses.
func asked(s string) string {
	return strings.ToValidUTF8(strings.ReplaceAll(s, "\x00", "\ufffd"), "\ufffd")
}

// Count is how many clients there are.
func (s *Store) Count(ctx context.Context, f Filter) (n int, err error) {
	where, args := f.where()
	err = s.db.QueryRowContext(ctx, "SELECT count(*)"+" FROM sightings s WHERE "+where, args...).Scan(&n)
	if err != nil {
		return 0, fmt.Errorf("counting clients: %w", err)
	}
	return n, nil
}

// ErrCursor is the error of a cursor that is none.
var ErrCursor = errors.New("not a cursor of an earlier answer")

// Clients lists clients in the order in which they were first seen, from a
// cursor on: limit of them at most, where that is not 0. Next is the cursor of
// what follows; empty at the end. One that is seen again meanwhile stays in its
// place.
func (s *Store) Clients(ctx context.Context, f Filter, cursor string, limit int) (list []Client, next string, err error) {
	where, args := f.where()
	if cursor != "" {
		added, id, err := parseCursor(cursor)
		if err != nil {
			return nil, "", err
		}
		args = append(args, added, id)
		where += fmt.Sprintf(" AND (s.added, s.id) > ($%d, $%d)", len(args)-1, len(args))
	}
	query := `SELECT s.added, s.id, s.client, s.listener, s.name, s.port, s.version, s.reason, s.ja4, s.first_seen, s.last_seen,
		s.observed, s.explained, s.rejected, s.failed, s.login_ok, s.login_failed,
		CASE WHEN ` + noise + ` THEN 1 ELSE 0 END FROM sightings s WHERE ` + where + " ORDER BY s.added, s.id"
	if limit > 0 {
		query += fmt.Sprintf(" LIMIT %d", limit+1) // one more tells whether there is more
	}
	rows, err := s.db.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, "", fmt.Errorf("reading clients: %w", err)
	}
	defer rows.Close()
	var added, id int64
	for rows.Next() {
		if limit > 0 && len(list) == limit {
			next = formatCursor(added, id)
			break
		}
		var c Client
		var addr string
		var first, seen, ok, failed, isNoise int64
		if err := rows.Scan(&added, &id, &addr, &c.Listener, &c.Name, &c.Port, &c.Version, &c.Reason, &c.JA4, &first, &seen,
			&c.Counts.Observed, &c.Counts.Explained, &c.Counts.Rejected, &c.Counts.Failed, &ok, &failed, &isNoise); err != nil {
			return nil, "", fmt.Errorf("reading clients: %w", err)
		}
		c.Addr, _ = netip.ParseAddr(addr)
		c.Network = Network(c.Addr)
		c.First, c.Last = time.Unix(first, 0).UTC(), time.Unix(seen, 0).UTC()
		c.Login, c.Noise = loginOf(ok, failed), isNoise == 1
		list = append(list, c)
	}
	if err := rows.Err(); err != nil {
		return nil, "", fmt.Errorf("reading clients: %w", err)
	}
	rows.Close()
	return list, next, s.nameClients(ctx, list)
}

func loginOf(ok, failed int64) Login {
	switch {
	case ok > 0:
		return LoginOK
	case failed > 0:
		return LoginFailed
	}
	return LoginUnknown
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

// namesAtOnce is how many clients are asked for by address; for more of them all
// accounts are read.
const namesAtOnce = 1000

// nameClients adds accounts and software.
func (s *Store) nameClients(ctx context.Context, list []Client) error {
	if len(list) == 0 {
		return nil
	}
	query, args := `SELECT client, ja4, account, software FROM accounts`, []any(nil)
	if len(list) <= namesAtOnce {
		marks := make([]string, len(list))
		for i := range list {
			marks[i] = fmt.Sprintf("$%d", i+1)
			args = append(args, list[i].Addr.String())
		}
		query += " WHERE client IN (" + strings.Join(marks, ",") + ")"
	}
	rows, err := s.db.QueryContext(ctx, query+" ORDER BY account, software", args...)
	if err != nil {
		return fmt.Errorf("reading accounts: %w", err)
	}
	defer rows.Close()
	type key struct{ client, ja4 string }
	accounts, software := make(map[key][]string), make(map[key][]string)
	for rows.Next() {
		var k key
		var account, program string
		if err := rows.Scan(&k.client, &k.ja4, &account, &program); err != nil {
			return fmt.Errorf("reading accounts: %w", err)
		}
		accounts[k] = appendNew(accounts[k], account)
		software[k] = appendNew(software[k], program)
	}
	for i := range list {
		k := key{list[i].Addr.String(), list[i].JA4}
		list[i].Accounts, list[i].Software = accounts[k], software[k]
	}
	return rows.Err()
}

// appendNew appends what is not there yet, and not empty.
func appendNew(list []string, s string) []string {
	for _, have := range list {
		if have == s {
			return list
		}
	}
	if s == "" {
		return list
	}
	return append(list, s)
}

// Windows are those in which distinct clients are counted, by label.
var Windows = []struct {
	Label string
	For   time.Duration
}{{"1h", time.Hour}, {"24h", 24 * time.Hour}, {"7d", 7 * 24 * time.Hour}, {"30d", 30 * 24 * time.Hour}}

// Any stands for every listener or version in a Distinct.
const Any = "any"

// Distinct is a number of distinct clients, noise left out.
type Distinct struct {
	Listener, Version string
	// ByWindow is in the order of Windows.
	ByWindow [4]int
}

// Distinct counts the distinct clients before now, by listener and version, each
// also for any of them; where there is none, there is no element.
//
// The rows are read once and counted here: that takes a tenth of what it takes
// a database to tell the distinct ones for every combination.
func (s *Store) Distinct(ctx context.Context, now time.Time) ([]Distinct, error) {
	oldest := now.Add(-Windows[len(Windows)-1].For).Unix()
	rows, err := s.db.QueryContext(ctx, "SELECT s.network, s.last_seen, s.listener, s.version FROM sightings s WHERE s.last_seen >= $1 AND NOT "+noise, oldest)
	if err != nil {
		return nil, fmt.Errorf("counting distinct clients: %w", err)
	}
	defer rows.Close()
	var list []lastSeen
	var g group
	var listener, version sql.RawBytes
	for rows.Next() {
		l := lastSeen{}
		if err := rows.Scan(&l.network, &l.at, &listener, &version); err != nil {
			return nil, fmt.Errorf("counting distinct clients: %w", err)
		}
		if string(listener) != g.listener || string(version) != g.version {
			g = group{string(listener), string(version)}
		}
		l.group = g
		list = append(list, l)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("counting distinct clients: %w", err)
	}
	return distinct(list, now), nil
}

// group is one of the rows in a Distinct.
type group struct{ listener, version string }

// lastSeen is when a network was seen in a group.
type lastSeen struct {
	network, at int64
	group
}

func distinct(list []lastSeen, now time.Time) []Distinct {
	slices.SortFunc(list, func(a, b lastSeen) int { return cmp.Compare(a.network, b.network) })
	counts := make(map[group]*Distinct)
	count := func(l lastSeen) {
		d := counts[l.group]
		if d == nil {
			d = &Distinct{Listener: l.listener, Version: l.version}
			counts[l.group] = d
		}
		for i, w := range Windows {
			if l.at >= now.Add(-w.For).Unix() {
				d.ByWindow[i]++
			}
		}
	}
	var one []lastSeen // of one network, in each group
	for i, l := range list {
		for _, g := range [...]group{l.group, {l.listener, Any}, {Any, l.version}, {Any, Any}} {
			at := slices.IndexFunc(one, func(o lastSeen) bool { return o.group == g })
			if at < 0 {
				one = append(one, lastSeen{l.network, l.at, g})
				continue
			}
			one[at].at = max(one[at].at, l.at)
		}
		if i == len(list)-1 || list[i+1].network != l.network {
			for _, o := range one {
				count(o)
			}
			one = one[:0]
		}
	}
	all := make([]Distinct, 0, len(counts))
	for _, d := range counts {
		all = append(all, *d)
	}
	slices.SortFunc(all, func(a, b Distinct) int {
		return cmp.Or(cmp.Compare(a.Listener, b.Listener), cmp.Compare(a.Version, b.Version))
	})
	return all
}

// Day is what was seen on one day, in UTC, noise left out.
type Day struct {
	Day     time.Time
	Version string
	Clients int // distinct
	Counts  Counts
}

// Days tells the trend since a time, by day and version.
func (s *Store) Days(ctx context.Context, since time.Time) ([]Day, error) {
	rows, err := s.db.QueryContext(ctx, `SELECT d.day, s.version, count(DISTINCT s.network),
		sum(d.observed), sum(d.explained), sum(d.rejected), sum(d.failed)
		FROM days d JOIN sightings s ON s.id = d.sighting
		WHERE d.day >= $1 AND NOT `+noise+` GROUP BY d.day, s.version ORDER BY d.day, s.version`, since.Unix()/secondsADay)
	if err != nil {
		return nil, fmt.Errorf("reading days: %w", err)
	}
	defer rows.Close()
	var all []Day
	for rows.Next() {
		var d Day
		var day int64
		if err := rows.Scan(&day, &d.Version, &d.Clients, &d.Counts.Observed, &d.Counts.Explained, &d.Counts.Rejected, &d.Counts.Failed); err != nil {
			return nil, fmt.Errorf("reading days: %w", err)
		}
		d.Day = time.Unix(day*secondsADay, 0).UTC()
		all = append(all, d)
	}
	return all, rows.Err()
}

// Hellos returns the hello behind each fingerprint.
func (s *Store) Hellos(ctx context.Context) (map[string]policy.Hello, error) {
	rows, err := s.db.QueryContext(ctx, `SELECT ja4, hello FROM hellos`)
	if err != nil {
		return nil, fmt.Errorf("reading hellos: %w", err)
	}
	defer rows.Close()
	all := make(map[string]policy.Hello)
	for rows.Next() {
		var ja4, text string
		if err := rows.Scan(&ja4, &text); err != nil {
			return nil, fmt.Errorf("reading hellos: %w", err)
		}
		var h policy.Hello
		if err := json.Unmarshal([]byte(text), &h); err != nil {
			return nil, fmt.Errorf("reading the hello of %s: %w", ja4, err)
		}
		all[ja4] = h
	}
	return all, rows.Err()
}

// accountsSince lists the accounts that have logged in since a time, the last
// ones first.
func (s *Store) accountsSince(ctx context.Context, since int64) ([]accountSeen, error) {
	rows, err := s.db.QueryContext(ctx, `SELECT client, ja4, account, software, first_seen, last_seen FROM accounts
		WHERE last_seen >= $1 ORDER BY last_seen DESC LIMIT $2`, since, maxKnown)
	if err != nil {
		return nil, fmt.Errorf("reading accounts: %w", err)
	}
	defer rows.Close()
	var all []accountSeen
	for rows.Next() {
		var a accountSeen
		var client, ja4 string
		if err := rows.Scan(&client, &ja4, &a.account, &a.software, &a.first, &a.last); err != nil {
			return nil, fmt.Errorf("reading accounts: %w", err)
		}
		a.client, _ = netip.ParseAddr(client)
		copy(a.ja4[:], ja4)
		all = append(all, a)
	}
	return all, rows.Err()
}

// fingerprints lists those whose hellos are kept.
func (s *Store) fingerprints(ctx context.Context) (map[policy.JA4]bool, error) {
	rows, err := s.db.QueryContext(ctx, `SELECT ja4 FROM hellos`)
	if err != nil {
		return nil, fmt.Errorf("reading hellos: %w", err)
	}
	defer rows.Close()
	known := make(map[policy.JA4]bool)
	for rows.Next() {
		var s string
		if err := rows.Scan(&s); err != nil {
			return nil, fmt.Errorf("reading hellos: %w", err)
		}
		var ja4 policy.JA4
		copy(ja4[:], s)
		known[ja4] = true
	}
	return known, rows.Err()
}

// stamp tells whether accounts have changed.
type stamp struct{ n, sum int64 }

func (s *Store) accountsStamp(ctx context.Context) (t stamp, err error) {
	err = s.db.QueryRowContext(ctx, `SELECT count(*), CAST(COALESCE(sum(last_seen), 0) AS BIGINT) FROM accounts`).Scan(&t.n, &t.sum)
	if err != nil {
		return stamp{}, fmt.Errorf("reading accounts: %w", err)
	}
	return t, nil
}
