package ledger

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"time"

	"postern/policy"
	"postern/proxy"
)

// refusal is a client, as networkNumber, and a rule that has refused it or told it why.
type refusal struct {
	rule    string
	network int64
}

func refusalOf(rule string, client netip.Addr) refusal {
	return refusal{cmp.Or(rule, policy.PolicyGuard), networkNumber(client)}
}

// refusals are those by rules with a guard or a grace, of clients that had logged in
// before.
type refusals struct {
	mu     sync.RWMutex
	policy *policy.Policy
	// known are the clients that have logged in, and first is when they were refused
	// first, in seconds since 1970, as the store last said. due is when it is to say again.
	known map[int64]bool
	first map[refusal]int64
	due   time.Time
	// pending wait to be written, or for the next list of those known: when the client was
	// refused first and last.
	pending map[refusal]span
	failed  bool
}

const (
	// listEvery is how often known is read, or less often where that takes long: a 20th
	// of the time.
	listEvery  = 3 * time.Second
	listedPart = 20
	// overlap is how far the clocks of replicas may be apart, in seconds.
	overlap = 60
)

// Watch has the refusals recorded by those rules of a policy that have a guard or a
// grace.
func (r *Recorder) Watch(p *policy.Policy) {
	q := &r.refusals
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.policy = p; q.pending == nil {
		q.pending = make(map[refusal]span)
	}
}

// watched is the policy; nil where nothing of it is to be recorded.
func (q *refusals) watched() *policy.Policy {
	q.mu.RLock()
	defer q.mu.RUnlock()
	if q.policy == nil || !q.policy.WatchesAny() {
		return nil
	}
	return q.policy
}

// add records a handshake that was refused or told why; false where there is no room.
func (q *refusals) add(h *proxy.Handshake, now int64) bool {
	if h.Outcome != proxy.Rejected && h.Outcome != proxy.Explained {
		return true
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.policy == nil || !q.policy.Watches(h.Verdict.Rule) {
		return true
	}
	k := refusalOf(h.Verdict.Rule, h.Client.Addr())
	known, most := q.known[k.network], maxPending
	if known { // who is not delayed by strangers
		most *= 2
	}
	s, waits := q.pending[k]
	switch {
	case !waits && len(q.pending) >= most:
		return !known
	case !waits:
		s.first = now
	}
	q.pending[k] = span{s.first, now}
	return true
}

// Graced is a [policy.Graced].
func (r *Recorder) Graced(rule *policy.Rule, client netip.Addr, t time.Time) bool {
	q, k := &r.refusals, refusalOf(rule.Name, client)
	q.mu.RLock()
	defer q.mu.RUnlock()
	first, begun := q.first[k]
	return q.known[k.network] && (!begun || t.Unix()-first < int64(rule.Grace/time.Second))
}

// erase forgets a client.
func (q *refusals) erase(client netip.Addr) {
	q.mu.Lock()
	defer q.mu.Unlock()
	network := networkNumber(client)
	delete(q.known, network)
	maps.DeleteFunc(q.pending, func(k refusal, _ span) bool { return k.network == network })
}

// Exchange writes the refusals since the last time, has guards trip, and reads what other
// replicas have written. It returns the guards of the policy, or an error, after which
// all stays as it is; the log says so. It must not be called twice at once.
func (r *Recorder) Exchange(ctx context.Context) ([]policy.GuardState, error) {
	q := &r.refusals
	p := q.watched()
	if p == nil {
		return nil, nil
	}
	within, cancel := context.WithTimeout(ctx, flushTimeout)
	defer cancel()
	now := r.now()
	listed, err := q.load(within, r.store)
	if err == nil {
		err = r.writeRefusals(within, p, listed, now.Unix())
	}
	var states []policy.GuardState
	if err == nil {
		states, err = r.store.Guards(within, p, now)
	}
	switch failed := err != nil; {
	case errors.Is(ctx.Err(), context.Canceled): // at the end
	case failed && !q.failed:
		r.log.Error("the ledger cannot be asked, guards and graces stay as they are", "ledger", r.store.name, "error", oneLine{err})
		q.failed = true
	case !failed && q.failed:
		r.log.Info("the ledger is asked for guards and graces again", "ledger", r.store.name)
		q.failed = false
	}
	return states, err
}

// load reads, if it is time for that, who has logged in, and since when they are refused.
// It holds no lock while it reads.
func (q *refusals) load(ctx context.Context, s *Store) (listed bool, err error) {
	begun := time.Now()
	if begun.Before(q.due) {
		return false, nil
	}
	known, first := make(map[int64]bool, len(q.known)), make(map[refusal]int64, len(q.first))
	if err = s.migrate(ctx); err == nil {
		err = read(ctx, s.db, "reading who has logged in", `SELECT DISTINCT network FROM sightings WHERE login_ok > 0`, nil, func(r row) error {
			known[r.int(0)] = true
			return nil
		})
	}
	if err == nil {
		err = read(ctx, s.db, "reading refusals", `SELECT rule, network, first_seen FROM refusals`, nil, func(r row) error {
			first[refusal{string(r.text(0)), r.int(1)}] = r.int(2)
			return nil
		})
	}
	if err != nil {
		return false, err
	}
	q.due = time.Now().Add(max(listEvery, listedPart*time.Since(begun)))
	q.mu.Lock()
	defer q.mu.Unlock()
	q.known, q.first = known, first
	return true, nil
}

// writeRefusals writes those of clients that have logged in, and has guards trip; strangers
// are dropped once those have been listed. Nothing can be erased meanwhile, which would come
// back.
func (r *Recorder) writeRefusals(ctx context.Context, p *policy.Policy, listed bool, now int64) error {
	q := &r.refusals
	r.store.writing.Lock()
	defer r.store.writing.Unlock()
	made := make(map[refusal]span)
	q.mu.Lock()
	for k, s := range q.pending {
		if q.known[k.network] {
			made[k] = s
		} else if listed && (s.last < now || s.last > now+overlap) {
			delete(q.pending, k)
		}
	}
	q.mu.Unlock()
	if len(made) == 0 {
		return nil
	}
	list := slices.Collect(maps.Keys(made))
	err := r.store.within(ctx, func(w *writer) {
		w.insert("refusals", []string{"rule", "network", "first_seen", "last_seen"}, nil, len(list), `ON CONFLICT (rule, network) DO UPDATE SET
			last_seen = excluded.last_seen, first_seen = CASE WHEN excluded.last_seen < refusals.first_seen THEN excluded.first_seen ELSE refusals.first_seen END`,
			func(i int, to []any) []any {
				k := list[i]
				return append(to, k.rule, k.network, made[k].first, made[k].last)
			})
		for _, g := range p.Guards() {
			w.run(`INSERT INTO guards SELECT CAST($1 AS TEXT), CAST($2 AS BIGINT), 0 WHERE (`+refused+`) > $5
				ON CONFLICT (rule) DO UPDATE SET tripped = excluded.tripped WHERE guards.tripped = 0`,
				g.Rule, now, now-int64(g.Guard.Within/time.Second), now+overlap, int64(g.Clients))
		}
	})
	if err != nil {
		return fmt.Errorf("writing refusals: %w", err)
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	maps.DeleteFunc(q.pending, func(k refusal, s span) bool { return made[k] == s })
	return nil
}

// refused counts the clients that a rule ($1) has refused between two times ($3, $4), and
// since it was released. What a clock wrote that was ahead does not count.
const refused = `SELECT count(*) FROM refusals r WHERE r.rule = $1 AND r.last_seen > $3 AND r.last_seen <= $4
	AND r.last_seen > COALESCE((SELECT g.released FROM guards g WHERE g.rule = $1), 0)`

// Guards returns the guards of a policy as they are at a time.
func (s *Store) Guards(ctx context.Context, p *policy.Policy, t time.Time) ([]policy.GuardState, error) {
	all := slices.Clone(p.Guards())
	for i := range all {
		g := &all[i]
		g.Seen, g.Tripped, g.Released = 0, time.Time{}, time.Time{}
		err := read(ctx, s.db, "reading guards", `SELECT (`+refused+`), COALESCE(max(tripped), 0), COALESCE(max(released), 0) FROM guards WHERE rule = $2`,
			[]any{g.Rule, g.Rule, t.Add(-g.Guard.Within).Unix(), t.Unix() + overlap}, func(r row) error {
				g.Seen, g.Tripped, g.Released = int(r.int(0)), timeOf(r.int(1)), timeOf(r.int(2))
				return nil
			})
		if err != nil && !noTable(err) { // an earlier version has made the ledger
			return nil, err
		}
	}
	return all, nil
}

func timeOf(seconds int64) (t time.Time) {
	if seconds > 0 {
		t = time.Unix(seconds, 0).UTC()
	}
	return t
}

// Refusals returns since when rules with a guard or a grace have refused a client or told
// it why, by their names.
func (s *Store) Refusals(ctx context.Context, client netip.Addr) (map[string]time.Time, error) {
	first := make(map[string]time.Time)
	err := read(ctx, s.db, "reading refusals", `SELECT rule, first_seen FROM refusals WHERE network = $1`, []any{networkNumber(client)}, func(r row) error {
		first[string(r.text(0))] = timeOf(r.int(1))
		return nil
	})
	if noTable(err) {
		return first, nil
	}
	return first, err
}

// Release lets a guard go: refusals up to a time do not count any more. Its error is
// ErrAway.
func (s *Store) Release(ctx context.Context, rule string, until time.Time) error {
	err := s.within(ctx, func(w *writer) {
		w.run(`INSERT INTO guards VALUES ($1, 0, $2) ON CONFLICT (rule) DO UPDATE SET tripped = 0, released = excluded.released`, rule, until.Unix())
	})
	if err != nil {
		return fmt.Errorf("%w: releasing the guard of %q: %w", ErrAway, rule, oneLine{err})
	}
	return nil
}
