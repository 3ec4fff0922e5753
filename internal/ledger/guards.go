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
	"postern/policy"
)

// refusal is a client, as networkNumber, and a rule with a guard or a grace that has
// refused it or told it why, by its floor.
type refusal struct {
	rule    string
	network int64
	floor   policy.Floor
}

const (
	// listEvery is how often it is read who has logged in, or less often where that takes long: a 20th
	// of the time.
	listEvery  = 3 * time.Second
	listedPart = 20
	// overlap is how far the clocks of replicas may be apart, in seconds.
	overlap = 60
)

// clients are the networks that have logged in below floors, in their order, and when they
// were refused.
type clients struct {
	loggedIn map[policy.Floor][]int64
	refused  Refusals
}

// Graced is a [policy.Graced].
func (r *Recorder) Graced(rule *policy.Rule, client netip.Addr, t time.Time) bool {
	all, network := r.clients.Load(), networkNumber(client)
	end := all.refused.GraceEnds(rule, client)
	_, known := slices.BinarySearch(all.loggedIn[rule.Floor], network)
	return known && (end.IsZero() || t.Before(end))
}

// Refusals are when rules with a grace refused clients first, or told them why, in seconds
// since 1970, whatever the floor.
type Refusals map[refusal]int64

// GraceEnds returns when the grace of a client ends; zero where it has not begun.
func (r Refusals) GraceEnds(rule *policy.Rule, client netip.Addr) time.Time {
	first := timeOf(r[refusal{rule: rule.Name, network: networkNumber(client)}])
	return text.Either(first.IsZero(), first, first.Add(rule.Grace))
}

// Refusals returns those of some clients, or of all for nil.
func (s *Store) Refusals(ctx context.Context, p *policy.Policy, list []Client) (Refusals, error) {
	all, where, args := make(Refusals), "", []any{}
	for _, r := range p.Rules() {
		if r.Grace > 0 {
			args = append(args, r.Name)
		}
	}
	if list != nil {
		where = fmt.Sprintf(" AND network IN (%s)", numbers(list, func(c *Client) int64 { return c.network }))
	}
	if len(args) == 0 {
		return all, nil
	}
	err := read(ctx, s, "reading refusals", "SELECT rule, network, first_seen FROM refusals WHERE rule IN ("+marks(1, len(args))+")"+where, args, func(r row) error {
		all[refusal{rule: string(r.text(0)), network: r.int(1)}] = r.int(2)
		return nil
	})
	return all, text.Either(noTable(err), nil, err)
}

// Guards returns the guards of a policy as all replicas have them, and has those trip that
// have met too many clients. After an error, all stays as it is; the log says so. It must
// not be called twice at once.
func (r *Recorder) Guards(ctx context.Context, p *policy.Policy) (states []policy.GuardState, err error) {
	if !p.Watches() {
		return nil, nil
	}
	within, cancel := context.WithTimeout(ctx, flushTimeout)
	defer cancel()
	now := r.now().UTC().Truncate(time.Second)
	if err = r.store.migrate(within); err == nil {
		states, err = r.store.Guards(within, p, now)
	}
	for _, g := range states {
		// One that was tripped by a clock ahead of this trips now: a share would grow until then.
		if err == nil && (g.Tripped.IsZero() && g.Seen > g.Clients || g.Tripped.After(now)) {
			if err = r.store.trip(within, &g, now); err == nil { // unless it was released meanwhile
				states, err = r.store.Guards(within, p, now)
			}
		}
	}
	if err == nil {
		r.queue.know(states)
	}
	r.sayBlind(ctx, &r.guardsAway, err)
	return states, err
}

// sayBlind logs the first of several errors.
func (r *Recorder) sayBlind(ctx context.Context, away *bool, err error) {
	if err != nil && !*away && !errors.Is(ctx.Err(), context.Canceled) {
		r.log.Error("the ledger cannot be asked, guards and graces stay as they are", "ledger", r.store.name, "error", oneLine{err})
	}
	*away = err != nil
}

// Graces keeps up with the clients that have logged in, if a policy has graces and it is time
// for that. Guards do not wait for so many rows, nor does a second call.
func (r *Recorder) Graces(ctx context.Context, p *policy.Policy) {
	if !r.listing.TryLock() {
		return
	}
	defer r.listing.Unlock()
	begun, due, all := time.Now(), false, &clients{loggedIn: make(map[policy.Floor][]int64)}
	for _, rule := range p.Rules() {
		if rule.Grace > 0 {
			all.loggedIn[rule.Floor] = nil
			_, listed := r.clients.Load().loggedIn[rule.Floor]
			due = due || !listed || !begun.Before(r.listDue)
		}
	}
	if !due {
		return
	}
	within, cancel := context.WithTimeout(ctx, flushTimeout)
	defer cancel()
	err := cmp.Or(r.store.migrate(within), r.store.ofCandidates(within, func(*Store) error { return nil }))
	for f := range all.loggedIn {
		for c, condition := range r.store.below(f) {
			if err == nil { // many rows are read in less time than a database makes them distinct
				err = read(within, c, "reading who has logged in", `SELECT s.network FROM sightings s WHERE `+condition, nil, func(row row) error {
					all.loggedIn[f] = append(all.loggedIn[f], row.int(0))
					return nil
				})
			}
		}
		slices.Sort(all.loggedIn[f])
		all.loggedIn[f] = slices.Clip(slices.Compact(all.loggedIn[f]))
	}
	if err == nil {
		all.refused, err = r.store.Refusals(within, p, nil)
	}
	if err == nil {
		r.clients.Store(all)
		r.listDue = time.Now().Add(max(listEvery, listedPart*time.Since(begun)))
	}
	r.sayBlind(ctx, &r.gracesAway, err)
}

// Guards returns the guards of a policy as they are at a time.
func (s *Store) Guards(ctx context.Context, p *policy.Policy, t time.Time) ([]policy.GuardState, error) {
	all, most, rows, args := slices.Clone(p.Guards()), 0, []string{}, []any{t.Unix() + overlap}
	for i := range all {
		g := &all[i]
		g.Seen, g.Tripped, g.Released = 0, time.Time{}, time.Time{}
		most, args = max(most, g.Clients+1), append(args, g.Rule, t.Add(-g.Guard.Within).Unix())
		rows = append(rows, fmt.Sprintf("(CAST($%d AS TEXT), CAST($%d AS BIGINT))", len(args)-1, len(args)))
	}
	if len(all) == 0 {
		return all, nil
	}
	// What a clock wrote that was ahead does not count. More than would trip a guard are not counted.
	err := read(ctx, s, "reading guards", fmt.Sprintf(`WITH asked (rule, since) AS (VALUES %s)
		SELECT a.rule, COALESCE(g.tripped, 0), COALESCE(g.released, 0), (SELECT count(*) FROM (SELECT 1 FROM refusals r WHERE r.rule = a.rule
			AND r.last_seen > a.since AND r.last_seen <= $1 AND r.last_seen > COALESCE(g.released, 0) LIMIT %d) counted)
		FROM asked a LEFT JOIN guards g ON g.rule = a.rule`, strings.Join(rows, ", "), most), args, func(r row) error {
		g := &all[slices.IndexFunc(all, func(g policy.GuardState) bool { return g.Rule == string(r.text(0)) })]
		g.Tripped, g.Released, g.Seen = timeOf(r.int(1)), timeOf(r.int(2)), min(int(r.int(3)), g.Clients+1)
		return nil
	})
	return all, text.Either(noTable(err), nil, err) // an earlier version has made the ledger
}

// trip has a guard trip, unless it has before that time, or was released meanwhile, and
// keeps who did it: later refusals of the same clients change when they were last refused.
func (s *Store) trip(ctx context.Context, g *policy.GuardState, t time.Time) error {
	since := text.Later(t.Add(-g.Guard.Within), g.Released).Unix()
	return s.within(ctx, func(w *writer) {
		if w.run(`INSERT INTO guards VALUES ($1, $2, 0) ON CONFLICT (rule) DO UPDATE SET tripped = excluded.tripped
			WHERE guards.released = $3 AND (guards.tripped = 0 OR guards.tripped > excluded.tripped)`,
			g.Rule, t.Unix(), max(0, g.Released.Unix())) > 0 && g.Tripped.IsZero() {
			w.run(fmt.Sprintf(`INSERT INTO tripped_by SELECT rule, network, bucket, $3 FROM refusals WHERE rule = $1
				AND last_seen > $2 AND last_seen - %d <= $3 ON CONFLICT DO NOTHING`, overlap), g.Rule, since, t.Unix())
		}
	})
}

// timeOf is zero for 0.
func timeOf(seconds int64) time.Time {
	return text.Either(seconds > 0, time.Unix(seconds, 0).UTC(), time.Time{})
}

// Release lets a guard go: refusals up to a time do not count any more, nor any that the
// ledger has by now, whatever clock wrote them. Its error is ErrAway.
func (s *Store) Release(ctx context.Context, rule string, until time.Time) error {
	err := s.within(ctx, func(w *writer) {
		w.run(`INSERT INTO guards VALUES ($1, 0, $2) ON CONFLICT (rule) DO UPDATE SET tripped = 0, released = excluded.released`, rule, until.Unix())
		w.run(`UPDATE refusals SET last_seen = $2 WHERE rule = $1 AND last_seen > $2`, rule, until.Unix())
		w.run(`DELETE FROM tripped_by WHERE rule = $1`, rule)
	})
	if err != nil {
		return fmt.Errorf("%w: releasing the guard of %q: %w", ErrAway, rule, oneLine{err})
	}
	return nil
}

// TrippedBy returns the clients that have tripped a guard, by network, with their accounts.
func (s *Store) TrippedBy(ctx context.Context, g *policy.GuardState) (map[string][]string, error) {
	all := make(map[string][]string)
	err := s.ofCandidates(ctx, func(*Store) error { return nil })
	for c, condition := range s.below(g.Floor) {
		err = cmp.Or(err, read(ctx, c, "reading who has tripped a guard", `SELECT DISTINCT s.client, COALESCE(a.account, '') FROM tripped_by t
			JOIN sightings s ON `+fmt.Sprintf(ofNetwork, "t.bucket", "t.network")+` AND `+condition+` LEFT JOIN accounts a ON a.owner = s.owner
			WHERE t.rule = $1 ORDER BY 2`, []any{g.Rule}, func(r row) error {
			addr, err := netip.ParseAddr(string(r.text(0)))
			network := (&Client{Addr: addr}).Network()
			all[network] = appendNew(append([]string{}, all[network]...), string(r.text(1))) // which JSON has as a list in any case
			return err
		}))
	}
	return all, text.Either(noTable(err), nil, err)
}

// FirstRefused returns when rules with a guard or a grace refused a client first, or told it
// why, by their names.
func (s *Store) FirstRefused(ctx context.Context, client netip.Addr) (map[string]time.Time, error) {
	first := make(map[string]time.Time)
	err := read(ctx, s, "reading refusals", `SELECT rule, first_seen FROM refusals WHERE network = $1`, []any{networkNumber(client)}, func(r row) error {
		first[string(r.text(0))] = timeOf(r.int(1))
		return nil
	})
	return first, text.Either(noTable(err), nil, err)
}
