package ledger

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"
)

// Window is a time in which distinct clients are counted.
type Window struct {
	Label string
	For   time.Duration
}

// Windows are all of them.
var Windows = []Window{{"1h", time.Hour}, {"24h", 24 * time.Hour}, {"7d", 7 * 24 * time.Hour}, {"30d", longestWindow}}

const longestWindow = 30 * 24 * time.Hour

// Any stands for every listener or version in a Distinct.
const Any = "any"

// Distinct is a number of distinct clients, noise left out.
type Distinct struct {
	Listener, Version string
	// ByWindow is in the order of Windows.
	ByWindow [4]int
}

// tally holds how long before a time the networks were last seen, by group.
type tally struct {
	at    time.Time
	state string // of the ledger
	// seen counts networks by minutes before at, rounded up, up to the longest
	// window. So at, and whole minutes later, the numbers are exact.
	seen   [][]uint32
	groups []group          // of seen
	parts  map[group][4]int // indexes of seen
	last   []int64          // when one network was last seen, in each group
}

// group identifies one number of distinct clients.
type group struct{ listener, version string }

// lastSeen is when a sighting of a network was last seen.
type lastSeen struct {
	network, at int64
	group
}

// Distinct counts the distinct clients before now, by listener and version, each
// also for any of them. Numbers of zero are left out. While nobody writes to the
// ledger, its rows are read once, and the numbers are those of the last whole minute
// since. Of several replicas one counts for all of them, and the numbers may be as
// old as the time that it returns with them, which is zero before the first count.
func (s *Store) Distinct(ctx context.Context, now time.Time) (list []Distinct, at time.Time, err error) {
	s.counting.Lock()
	defer s.counting.Unlock()
	state, err := s.State(ctx)
	if err = cmp.Or(s.readable(ctx), err); err != nil {
		return nil, now, err
	}
	if s.columns {
		return s.distinctOfAll(ctx, now, state)
	}
	return s.distinct(ctx, now, state)
}

func (s *Store) distinct(ctx context.Context, now time.Time, state string) (list []Distinct, at time.Time, err error) {
	t := s.tally
	if t == nil || t.state != state || now.Before(t.at) {
		if t, err = s.count(ctx, now); err != nil {
			return nil, now, err
		}
		t.state, s.tally = state, t
	}
	at = t.at.Add(now.Sub(t.at).Truncate(time.Minute))
	return t.distinct(at), at, nil
}

// count reads all rows of the longest window.
func (s *Store) count(ctx context.Context, now time.Time) (*tally, error) {
	t := &tally{at: now, parts: make(map[group][4]int)}
	oldest := now.Add(-longestWindow).Unix()
	return t, chunks(ctx, s, func(ctx context.Context, r reader, first, last int64) (list []lastSeen, n int, err error) {
		texts := make(interned)
		list = make([]lastSeen, 0, 2*chunkRows)
		err = r.rows(ctx, `SELECT network, last_seen, listener, version FROM sightings WHERE id BETWEEN $1 AND $2 AND +noise = 0 AND last_seen >= $3`,
			func(r row) {
				list = append(list, lastSeen{r.int(0), r.int(1), group{texts.get(r.text(2)), texts.get(r.text(3))}})
			}, first, last, oldest)
		return list, len(list), err
	}, func(list []lastSeen, _ float64) error {
		t.add(list)
		return nil
	})
}

// add adds what is known of some networks.
func (t *tally) add(list []lastSeen) {
	slices.SortFunc(list, func(a, b lastSeen) int { return cmp.Compare(a.network, b.network) })
	for sightings := range Runs(list, func(l *lastSeen) int64 { return l.network }) {
		clear(t.last)
		for i := range sightings {
			for _, of := range t.groupsOf(sightings[i].group) {
				t.last[of] = max(t.last[of], sightings[i].at)
			}
		}
		for of, at := range t.last {
			if at > 0 {
				t.seen[of][max(0, t.at.Unix()-at+59)/60]++
			}
		}
	}
}

// groupsOf returns the groups of which a group is a part, as indexes of seen.
func (t *tally) groupsOf(g group) [4]int {
	all, known := t.parts[g]
	if !known {
		for i, part := range [...]group{g, {g.listener, Any}, {Any, g.version}, {Any, Any}} {
			if all[i] = slices.Index(t.groups, part); all[i] < 0 {
				all[i] = len(t.groups)
				t.groups, t.last = append(t.groups, part), append(t.last, 0)
				t.seen = append(t.seen, make([]uint32, longestWindow/time.Minute+1))
			}
		}
		t.parts[g] = all
	}
	return all
}

// distinct returns the numbers at a time some whole minutes after the tally's.
func (t *tally) distinct(at time.Time) []Distinct {
	all := make([]Distinct, 0, len(t.seen))
	for i, seen := range t.seen {
		d := Distinct{Listener: t.groups[i].listener, Version: t.groups[i].version}
		for i, w := range Windows {
			for _, n := range seen[:max(0, (w.For-at.Sub(t.at))/time.Minute+1)] {
				d.ByWindow[i] += int(n)
			}
		}
		if d.ByWindow != [4]int{} {
			all = append(all, d)
		}
	}
	slices.SortFunc(all, func(a, b Distinct) int {
		return cmp.Or(cmp.Compare(a.Listener, b.Listener), cmp.Compare(a.Version, b.Version))
	})
	return all
}

const (
	// countLease is how long a replica may count, in seconds. If nothing is written,
	// another takes over takenAfter seconds after its time.
	countLease, takenAfter = 60, 120
	// CountRest is how many times as long as a count took nobody counts.
	CountRest = 50
	// itsTime is PostgreSQL's clock, in seconds since 1970: those of replicas may differ.
	itsTime = "CAST(extract(epoch FROM clock_timestamp()) AS BIGINT)"
)

// distinctOfAll returns what one replica has counted for all of them.
func (s *Store) distinctOfAll(ctx context.Context, now time.Time, state string) (list []Distinct, at time.Time, err error) {
	var mine int64
	err = s.within(ctx, func(w *writer) {
		mine = w.run(`UPDATE counted SET owner = $1, due = `+itsTime+` + $2 WHERE due <= `+itsTime+`
			AND (owner = $1 OR due <= `+itsTime+` - $3 OR state <> $4)`, s.owner, countLease, takenAfter, state)
	})
	if err == nil && mine == 1 {
		begun := time.Now()
		if list, at, err = s.distinct(ctx, now, state); err != nil {
			return nil, now, err
		}
		figures, _ := json.Marshal(list) // of texts and numbers
		rest := int64(CountRest * time.Since(begun) / time.Second)
		return list, at, s.within(ctx, func(w *writer) {
			w.run(`UPDATE counted SET at = $1, figures = $2, due = `+itsTime+` + $3, state = $4 WHERE owner = $5`,
				at.Unix(), string(figures), rest, state, s.owner)
		})
	}
	const doing = "reading what another replica has counted"
	if err != nil {
		return nil, now, fmt.Errorf("%s: %w", doing, err)
	}
	var seconds int64
	if err := read(ctx, s, doing, `SELECT at, figures FROM counted`, nil, func(r row) error {
		seconds = r.int(0)
		return json.Unmarshal(r.text(1), &list)
	}); err != nil {
		return nil, now, err
	}
	if seconds == 0 { // it is at it
		return nil, time.Time{}, nil
	}
	return list, time.Unix(seconds, 0).UTC(), nil
}
