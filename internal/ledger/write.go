package ledger

import (
	"cmp"
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"postern/internal/text"
	"postern/policy"
)

// networkNumber returns [policy.ClientPrefix] as a number. An IPv4 address and
// an IPv6 /64 never share one, as ffff::/16 is multicast.
func networkNumber(a netip.Addr) int64 {
	a = policy.ClientPrefix(a).Addr()
	b := a.As16()
	if a.Is4() {
		return -1<<48 | int64(binary.BigEndian.Uint32(b[12:]))
	}
	return int64(binary.BigEndian.Uint64(b[:8]))
}

// networkRange returns the first and the last number of a range of addresses.
func networkRange(p netip.Prefix) (first, last int64) {
	p = p.Masked()
	first = networkNumber(p.Addr())
	bits := min(p.Addr().BitLen(), 64)
	return first, first | (1<<max(0, bits-p.Bits()) - 1)
}

// ja4Text returns a fingerprint as it is stored; empty if there were too many.
func ja4Text(j policy.JA4) string {
	if j == (policy.JA4{}) {
		return ""
	}
	return text.Clean(j.String(), len(j))
}

// entryTexts are the texts of a sighting's row.
type entryTexts struct{ client, listener, name, version, reason, ja4 string }

// row returns the primary key of a sighting's row: a hash of its entry's key, so
// that every process knows it without a query.
func (k *entryKey) row() int64 {
	t := entryTexts{k.client.String(), string(k.listener), k.name, k.version.String(), k.reason.String(), ja4Text(k.ja4)}
	return t.row(networkNumber(k.client), int64(k.port))
}

func (t *entryTexts) row(network, port int64) int64 {
	return keyOf(network, binary.BigEndian.AppendUint16(nil, uint16(port)), t.client, t.listener, t.name, t.version, t.reason, t.ja4)
}

// bucketBits is how many bits of a key are a hash of the network, behind the sign.
const bucketBits = 16

// keyOf returns a key that begins with a hash of the network.
func keyOf(network int64, end []byte, texts ...string) int64 {
	b := make([]byte, 0, 256)
	for _, s := range texts {
		b = append(append(b, s...), 0)
	}
	sum := sha256.Sum256(append(b, end...))
	return int64((shardNumber(network)>>(64-bucketBits)<<(64-bucketBits) | binary.BigEndian.Uint64(sum[:8])>>bucketBits) >> 1)
}

// add writes a batch in one transaction.
func (s *Store) add(ctx context.Context, b *batch) error {
	if err := s.migrate(ctx); err != nil {
		return err
	}
	rows := make([]*sighting, len(b.sightings))
	for i := range b.sightings {
		rows[i] = &b.sightings[i]
	}
	// Sorted like the tables, so that each of their pages is changed once.
	slices.SortFunc(rows, func(a, b *sighting) int { return cmp.Or(cmp.Compare(a.day, b.day), cmp.Compare(a.id, b.id)) })
	return s.within(ctx, func(w *writer) {
		w.batch(b)
		for _, f := range policy.Floors {
			w.refusals(s, f, b.refusals) // of clients that had logged in before
		}
		rows = w.bounded(s, b, rows)
		for ofDay := range Runs(rows, func(r **sighting) int64 { return int64((*r).day) }) {
			w.sightings(s, ofDay)
		}
		w.adopt(s, rows, text.Either(b.named, "", " AND account = ''"))
		w.marks(rows)
		w.days(rows)
		w.hellos(b.hellos)
		w.logins(b.logins)
		w.accounts(w.ofKnown(s, b.accounts))
		w.scanners(b.suspects)
		w.negotiated(b.negotiated)
	})
}

// arrived reports whether a batch was committed although the answer was lost.
// The lock makes a connection that hangs in the commit end first.
func (s *Store) arrived(ctx context.Context, writerNumber, number int64) (bool, error) {
	var last int64
	err := s.within(ctx, func(w *writer) {
		last = w.number(`SELECT number FROM batches WHERE writer = $1`, writerNumber)
	})
	if err != nil && !errors.Is(err, errInDoubt) { // what only reads is in no doubt
		return false, fmt.Errorf("asking for the last batch: %w", err)
	}
	return last == number, nil
}

// writer writes rows until the first error.
//
// SQLite gets one row at a time by a prepared statement. It has no context that
// can be canceled, as the driver starts a goroutine to watch one. That takes
// 4 µs for a small change and 15 µs for a new row. Many rows in one statement
// are no cheaper: the driver looks up each parameter by name, and parsing rows
// in one JSON parameter takes twice as long as the statement.
type writer struct {
	ctx context.Context
	tx  *sql.Tx
	d   dialect
	err error
	// prepared are the statements of SQLite, and n counts how often they were run.
	prepared map[string]*sql.Stmt
	n        int
}

// run runs a statement, and returns the number of changed rows. One without arguments,
// which may take long, ends with the context at once.
func (w *writer) run(statement string, args ...any) (changed int64) {
	if w.n++; w.n%256 == 0 && w.err == nil {
		w.err = w.ctx.Err()
	}
	if w.err != nil {
		return 0
	}
	var result sql.Result
	if w.d.columns || len(args) == 0 {
		result, w.err = w.tx.ExecContext(w.ctx, w.d.names.Replace(statement), args...)
	} else if stmt := w.prepare(statement); w.err == nil {
		result, w.err = stmt.ExecContext(context.WithoutCancel(w.ctx), args...)
	}
	if w.err == nil {
		changed, w.err = result.RowsAffected()
	}
	return changed
}

func (w *writer) runAll(statements []string) {
	for _, statement := range statements {
		w.run(statement)
	}
}

// prepare prepares a statement once in a transaction, at whose end it is closed.
func (w *writer) prepare(statement string) *sql.Stmt {
	stmt := w.prepared[statement]
	if stmt == nil {
		stmt, w.err = w.tx.PrepareContext(w.ctx, w.d.names.Replace(statement))
		w.prepared[statement] = stmt
	}
	return stmt
}

// number returns the answer to a query in the transaction.
func (w *writer) number(statement string, args ...any) (n int64) {
	if w.err == nil {
		n, w.err = number(w.ctx, w, "reading the ledger", statement, args...)
	}
	return n
}

// column is one that is computed by an expression, in which @name is the value of
// another column.
type column struct{ name, is string }

// rowsAtOnce is how many rows one statement takes.
const rowsAtOnce = 1000

// insert adds rows to a table: columns have the values that row appends to
// its argument, numbers or texts, and computed are computed there. The rest of the
// statement may begin with a condition on a row, in which @name is as in a column.
func insert[T any](w *writer, table string, columns []string, computed []column, list []T, rest string, row func(of T, to []any) []any) {
	if len(list) == 0 || w.err != nil {
		return
	}
	names, values, pairs := slices.Clone(columns), []string(nil), make([]string, 0, 2*len(columns))
	for i, v := range row(list[0], nil) {
		value := fmt.Sprintf("$%d", i+1)
		if w.d.columns {
			_, isText := v.(string)
			value = fmt.Sprintf("(n ->> %d)%s", i, text.Either(isText, "", "::bigint"))
		}
		values, pairs = append(values, value), append(pairs, "@"+columns[i], value)
	}
	for _, c := range computed {
		names, values = append(names, c.name), append(values, strings.NewReplacer(pairs...).Replace(c.is))
	}
	rest = strings.NewReplacer(pairs...).Replace(rest)
	statement := "INSERT INTO " + table + " (" + strings.Join(names, ", ") + ") "
	if w.d.columns {
		statement += "SELECT " + strings.Join(values, ", ") + " FROM jsonb_array_elements($1::jsonb) n " + rest
		for part := range slices.Chunk(list, rowsAtOnce) {
			rows, _ := json.Marshal(text.Each(part, func(of T) []any { return row(of, nil) })) // of numbers and texts
			w.run(statement, string(rows))
		}
		return
	}
	form := text.Either(strings.HasPrefix(rest, "WHERE"), "SELECT %s ", "VALUES (%s) ")
	statement += fmt.Sprintf(form, strings.Join(values, ", ")) + rest
	args := make([]any, 0, len(columns))
	for _, of := range list {
		w.run(statement, row(of, args[:0])...)
	}
}

const addCounts = `observed = %[1]s.observed + excluded.observed, explained = %[1]s.explained + excluded.explained,
	rejected = %[1]s.rejected + excluded.rejected, failed = %[1]s.failed + excluded.failed`

// widen makes the times of a row include those of the new one.
const widen = `first_seen = CASE WHEN excluded.first_seen < %[1]s.first_seen THEN excluded.first_seen ELSE %[1]s.first_seen END,
	last_seen = CASE WHEN excluded.last_seen > %[1]s.last_seen THEN excluded.last_seen ELSE %[1]s.last_seen END`

// moreLogins are those of a row, or those that are known by now of its client.
const moreLogins = `, login_ok = CASE WHEN excluded.login_ok > %[1]s.login_ok THEN excluded.login_ok ELSE %[1]s.login_ok END,
	login_failed = CASE WHEN excluded.login_failed > %[1]s.login_failed THEN excluded.login_failed ELSE %[1]s.login_failed END`

// batch writes the batch's number, in case the answer to the commit is lost.
func (w *writer) batch(b *batch) {
	w.run(`INSERT INTO batches VALUES ($1, $2, $3)
		ON CONFLICT (writer) DO UPDATE SET number = excluded.number, written = excluded.written`, b.writer, b.number, time.Now().Unix())
}

// sightings writes those of one day: one statement may not have two rows of one id.
func (w *writer) sightings(s *Store, rows []*sighting) {
	if !w.d.columns {
		rows = w.known(rows)
	}
	computed, update := []column{s.login("login_ok"), s.login("login_failed")}, ", owner = excluded.owner"
	if computed = append(computed, inherited...); w.d.columns { // it generates the day, and a replica of an earlier version may have written no owner
		computed = computed[:len(computed)-1]
	} else {
		update = ", last_day = max(last_day, excluded.last_day)"
	}
	insert(w, "sightings", sightingColumns, computed, rows,
		"ON CONFLICT (id) DO UPDATE SET "+fmt.Sprintf(addCounts+", "+widen+moreLogins, "sightings")+update,
		func(r *sighting, to []any) []any {
			return append(to, r.id, r.client.String(), networkNumber(r.client), string(r.listener), r.name, int64(r.port),
				r.version.String(), r.reason.String(), ja4Text(r.ja4), r.first, r.last,
				r.counts.Observed, r.counts.Explained, r.counts.Rejected, r.counts.Failed, ownerOf(r.client.String(), ja4Text(r.ja4)))
		})
}

var sightingColumns = []string{"id", "client", "network", "listener", "name", "port", "version", "reason", "ja4", "first_seen", "last_seen",
	"observed", "explained", "rejected", "failed", "owner"}

// inherited are further columns that a new row computes, or copies from others of its client.
var inherited = []column{
	{"added", "@first_seen"},
	{"scanner", fmt.Sprintf("COALESCE((SELECT max(s.scanner & %d) FROM sightings s WHERE "+ofAddress+"), 0)", marksOfAddress,
		"@client", fmt.Sprintf("@owner >> %[1]d << %[1]d", ja4KeyBits), fmt.Sprintf("@owner | %d", 1<<ja4KeyBits-1))},
	{"last_day", "@last_seen / 86400"},
}

// known updates the existing rows, and returns the missing ones: they are new,
// or were erased meanwhile.
func (w *writer) known(rows []*sighting) (fresh []*sighting) {
	const update = `UPDATE sightings SET last_seen = max(last_seen, ?), observed = observed + ?, explained = explained + ?,
		rejected = rejected + ?, failed = failed + ? WHERE id = ?`
	for _, r := range rows {
		if !r.written || w.run(update, r.last, r.counts.Observed, r.counts.Explained, r.counts.Rejected, r.counts.Failed, r.id) == 0 {
			fresh = append(fresh, r)
		}
	}
	return fresh
}

var dayColumns = []string{"day", "sighting", "observed", "explained", "rejected", "failed"}

func (w *writer) days(rows []*sighting) {
	insert(w, "days", dayColumns, nil, rows, "ON CONFLICT (day, sighting) DO UPDATE SET "+fmt.Sprintf(addCounts, "days"),
		func(r *sighting, to []any) []any {
			return append(to, int64(r.day), r.id, r.counts.Observed, r.counts.Explained, r.counts.Rejected, r.counts.Failed)
		})
}

func (w *writer) hellos(list map[policy.JA4]string) {
	if len(list) == 0 {
		return
	}
	kept := found(w, "reading hellos", `SELECT ja4 FROM hellos`, nil, func(r row) (ja4 policy.JA4) {
		copy(ja4[:], r.text(0))
		return ja4
	})
	missing := maps.Clone(list)
	for _, ja4 := range kept {
		delete(missing, ja4)
	}
	fresh := slices.Collect(maps.Keys(missing))
	fresh = fresh[:min(len(fresh), max(0, maxHellos-len(kept)))]
	insert(w, "hellos", []string{"ja4", "hello"}, nil, fresh, "ON CONFLICT (ja4) DO NOTHING", func(ja4 policy.JA4, to []any) []any {
		return append(to, ja4Text(ja4), list[ja4])
	})
}

// logins updates all rows of the client, as a login decides for each of them
// whether it is noise. An address with a login is no scanner.
func (w *writer) logins(counts map[clientKey]loginCount) {
	clear := fmt.Sprintf(`UPDATE sightings SET scanner = scanner & ~%[1]d WHERE `+isAddress+` AND (scanner & %[1]d) <> 0`, marksOfAddress)
	for k, c := range counts {
		client, ja4 := k.client.String(), ja4Text(k.ja4)
		w.run(`UPDATE sightings SET login_ok = login_ok + $1, login_failed = login_failed + $2
			WHERE client = $3 AND ja4 = $4 AND owner IN ($5, 0)`, c.ok, c.failed, client, ja4, ownerOf(client, ja4))
		if c.ok > 0 {
			w.run(clear, addressArgs(k.client)...)
		}
	}
}

// marks adds what the hellos of a client say of it.
func (w *writer) marks(rows []*sighting) {
	// The first hellos of one that resumes sessions look otherwise.
	others := fmt.Sprintf(`UPDATE sightings SET scanner = scanner | %[1]d WHERE `+isAddress+
		` AND port = $4 AND observed > 0 AND (scanner & %[2]d) = 0`, markProbe, markProbe|markPassed)
	for _, r := range rows {
		if r.marks != 0 && w.run(`UPDATE sightings SET scanner = scanner | $1 WHERE id = $2 AND (scanner & $1) <> $1`, r.marks, r.id) > 0 &&
			r.marks&markProbe != 0 {
			w.run(others, append(addressArgs(r.client), int64(r.port))...)
		}
	}
}

// ofAddress is the condition on rows of an address, its first key and its last. Rows
// of an earlier version may have no owner yet.
const ofAddress = `client = %s AND (owner BETWEEN %s AND %s OR owner = 0)`

// ja4KeyBits is how many bits of an owner are a hash of the fingerprint, behind those
// of the network and of the address: a network may have many addresses.
const ja4KeyBits = 32

// isAddress is ofAddress for the first parameters, which are those that addressArgs
// returns.
var isAddress = fmt.Sprintf(ofAddress, "$1", "$2", "$3")

func addressArgs(client netip.Addr) []any {
	first := ownerOf(client.String(), "") >> ja4KeyBits << ja4KeyBits
	return []any{client.String(), first, first | (1<<ja4KeyBits - 1)}
}

// ownerOf returns the key of an address and a fingerprint.
func ownerOf(client, ja4 string) int64 {
	const mask = 1<<ja4KeyBits - 1
	network := networkOf(client)
	return keyOf(network, nil, client)&^mask | keyOf(network, nil, client, ja4)&mask
}

// networkOf returns the number of an address as the ledger has it.
func networkOf(client string) int64 {
	a, _ := netip.ParseAddr(client) // else 0
	return networkNumber(a)
}

var accountColumns = []string{"client", "ja4", "account", "software", "folded", "first_seen", "last_seen", "owner"}

var sameAccount = " ON CONFLICT (client, ja4, account, software) DO UPDATE SET " + fmt.Sprintf(widen, "accounts") + ", owner = excluded.owner"

func (w *writer) accounts(seen map[accountKey]span) {
	insert(w, "accounts", accountColumns, nil, slices.Collect(maps.Keys(seen)), sameAccount,
		func(k accountKey, to []any) []any {
			s, client, ja4, folded := seen[k], k.client.String(), ja4Text(k.ja4), strings.ToLower(k.software)
			if strings.HasPrefix(folded, asPattern) { // which nobody looks for as a program
				folded = ""
			}
			return append(to, client, ja4, k.account, k.software, folded, s.first, s.last, ownerOf(client, ja4))
		})
}

// bucketOf is the first key that a sighting of a network may have, and inBucket how far the
// last one is from it.
func bucketOf(network int64) int64 { return keyOf(network, nil) &^ inBucket }

const inBucket = 1<<(63-bucketBits) - 1

// ofNetwork is the condition on sightings s of a network, with its bucket.
var ofNetwork = fmt.Sprintf("s.id BETWEEN %%[1]s AND %%[1]s + %d AND s.network = %%[2]s", inBucket)

// refusals writes those by a floor of clients that have logged in, first and last. A first
// one that lies ahead is of a clock that was. Where a guard was released of which this
// process did not know yet, they are from before that.
func (w *writer) refusals(s *Store, f policy.Floor, seen map[refusal]refused) {
	list, released := slices.DeleteFunc(slices.Collect(maps.Keys(seen)), func(k refusal) bool { return k.floor != f }), make(map[string]int64)
	if len(list) > 0 && w.err == nil {
		w.err = read(w.ctx, w, "reading releases", `SELECT rule, released FROM guards`, nil, func(r row) error {
			released[string(r.text(0))] = r.int(1)
			return nil
		})
	}
	var logins []string
	for c, condition := range s.below(f) {
		logins = append(logins, c.names.Replace("(SELECT count(*) FROM sightings s WHERE "+fmt.Sprintf(ofNetwork, "@bucket", "@network")+" AND "+condition+")"))
	}
	insert(w, "refusals", []string{"rule", "network", "bucket", "first_seen", "last_seen"}, nil, list,
		"WHERE "+strings.Join(logins, " + ")+` > 0 ON CONFLICT (rule, network) DO UPDATE SET
		last_seen = excluded.last_seen, first_seen = CASE WHEN excluded.last_seen < refusals.first_seen THEN excluded.first_seen ELSE refusals.first_seen END`,
		func(k refusal, to []any) []any {
			s := seen[k]
			if s.known && s.released != released[k.rule] {
				s.last = min(s.last, released[k.rule])
			}
			return append(to, k.rule, k.network, bucketOf(k.network), s.first, s.last)
		})
}

// scanners marks the scanners among the addresses. Only the database knows when
// their hellos were first seen: this process may have started later.
func (w *writer) scanners(suspects []netip.Addr) {
	slices.SortFunc(suspects, netip.Addr.Compare)
	for _, a := range slices.Compact(suspects) {
		if marks := scanMarks(w.firstHellos(a)); marks != 0 {
			w.run(`UPDATE sightings SET scanner = scanner | $4 WHERE `+isAddress+` AND (scanner & $4) <> $4`, append(addressArgs(a), marks)...)
		}
	}
}

// firstHellos returns when each hello of an address was first seen; empty if the
// address has a login.
func (w *writer) firstHellos(a netip.Addr) []firstHello {
	return found(w, "looking for scanners", `SELECT min(first_seen), version FROM sightings
		WHERE `+isAddress+` AND NOT EXISTS (SELECT 1 FROM sightings WHERE `+isAddress+` AND login_ok > 0)
		GROUP BY ja4, version`, addressArgs(a), func(r row) firstHello { return firstHello{r.int(0), versions[string(r.text(1))]} })
}

// found returns all rows of a query in the transaction, as query does.
func found[T any](w *writer, doing, statement string, args []any, scan func(row) T) (all []T) {
	if w.err == nil {
		all, w.err = query(w.ctx, w, doing, statement, args, scan)
	}
	return all
}
