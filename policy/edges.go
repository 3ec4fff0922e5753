package policy

import (
	"slices"
	"time"

	"postern/internal/text"
)

// quarters are the parts of a share's change that a timeline mentions.
const quarters = 4

// milestones returns the rule's dates, and the times at which a changing share has
// come another quarter of its way.
func (r *Rule) milestones() []time.Time {
	times := r.dates()
	for k := int64(1); k < quarters && r.Share.Changes(); k++ {
		// Seconds: a Duration would end after 292 years.
		seconds := (r.Until.Unix() - r.From.Unix()) * k / quarters
		times = append(times, time.Unix(r.From.Unix()+seconds, 0).UTC())
	}
	return times
}

// edges returns a time and what the rules have later, in order, each once.
func (p *Policy) edges(from time.Time, of func(*Rule) []time.Time) []time.Time {
	edges := []time.Time{from}
	for _, r := range p.rules {
		for _, t := range of(r) {
			if t.After(from) {
				edges = append(edges, t)
			}
		}
	}
	slices.SortFunc(edges, time.Time.Compare)
	return slices.CompactFunc(edges, time.Time.Equal)
}

// Dates returns a time and the dates of rules after it, in order, each once.
func (p *Policy) Dates(from time.Time) []time.Time { return p.edges(from, (*Rule).dates) }

// Snapshot is the part of a policy that is in force. It is valid from its time
// until a rule comes or goes.
type Snapshot struct {
	// Floor is what a handshake must reach that no rule with a floor of its own takes.
	Floor Floor
	// Mode is for a legacy handshake that no rule takes.
	Mode Mode
	// Until is the time to make the next snapshot.
	Until time.Time

	since   time.Time
	policy  *Policy
	inForce ruleSet
	// ownFloor: there is a rule in force with a floor of its own.
	ownFloor bool
}

// snapshotLife bounds how far ahead a snapshot looks for the next change.
const snapshotLife = 24 * time.Hour

// At returns what is in force at that time. It is cheap, but not for the hot
// path.
func (p *Policy) At(t time.Time) Snapshot {
	// The reading of the monotonic clock is dropped: rules go by the wall clock,
	// also when that is set.
	t = t.Round(0)
	until := t.Add(snapshotLife)
	for _, r := range p.rules {
		until = r.edge(t, until)
	}
	return p.snapshot(t, until, func(r *Rule) bool { return r.InForce(t) })
}

// During returns what is in force at that time while the schedule of one rule is
// open, and those of others are closed; nil is no rule. It is valid at that time
// alone.
func (p *Policy) During(t time.Time, open *Rule) Snapshot {
	t = t.Round(0)
	return p.snapshot(t, t.Add(1), func(r *Rule) bool { return r.within(t) && (r.Schedule == nil || r == open) })
}

func (p *Policy) snapshot(t, until time.Time, inForce func(*Rule) bool) Snapshot {
	s := Snapshot{Floor: p.floor, Mode: p.mode, Until: until, since: t, policy: p, inForce: p.only(p.all, inForce)}
	s.ownFloor = s.inForce.meets(&p.ownFloor)
	return s
}

// Valid reports whether the snapshot is valid at that time.
func (s *Snapshot) Valid(t time.Time) bool {
	t = t.Round(0)
	return !t.Before(s.since) && t.Before(s.Until)
}

// edge is the first moment after t at which the rule comes into force or goes
// out of it, or limit.
func (r *Rule) edge(t, limit time.Time) time.Time {
	switch {
	case r.ended(t):
		return limit
	case t.Before(r.From):
		// Even where a schedule keeps it closed then.
		return text.Earlier(r.From, limit)
	}
	limit = r.UpTo(limit)
	if r.Schedule != nil {
		limit = r.Schedule.edge(t, limit)
	}
	return limit
}

// ModeFor returns the mode for a legacy handshake on a listener that is taken by
// no rule with a share, or with a match of more than the listener.
func (s *Snapshot) ModeFor(listener string) Mode {
	if s.inForce == (ruleSet{}) {
		return s.Mode
	}
	at := &Client{ConnInfo: ConnInfo{Listener: listener}}
	for o := range s.policy.outcomes(s.policy.matching(s.inForce, at, nil), ruleSet{}, func(*Rule) float64 { return 1 }) {
		if o.Rule == nil || o.Rule.Share == nil {
			return o.Mode
		}
	}
	return s.Mode
}

// Change is a moment at which rules come into force or go out of it.
type Change struct {
	Time time.Time `json:"time"`
	// Begun and Ended are the rules' names, in the order of the policy.
	Begun []string `json:"begun"`
	Ended []string `json:"ended"`
	// Now is in force from then on.
	Now Snapshot `json:"-"`
}

// Changes lists the first changes after a time and before another, so many at
// most. They include windows of schedules.
func (p *Policy) Changes(after, before time.Time, most int) []Change {
	var all []Change
	last := p.At(after)
	for len(all) < most && last.Until.Before(before) {
		now := p.At(last.Until)
		if begun, ended := now.Since(&last); len(begun)+len(ended) > 0 {
			all = append(all, Change{last.Until.UTC(), begun, ended, now})
		}
		last = now
	}
	return all
}

// Since lists the rules that have come into force, and gone out of it, since an
// earlier snapshot of the same policy, by name.
func (s *Snapshot) Since(last *Snapshot) (begun, ended []string) {
	come, gone := s.inForce, last.inForce
	come.drop(&last.inForce)
	gone.drop(&s.inForce)
	return s.policy.names(come), s.policy.names(gone)
}

// InForce lists the rules that are in force, by name, in their order.
func (s *Snapshot) InForce() []string { return s.policy.names(s.inForce) }

func (p *Policy) names(set ruleSet) []string {
	names := []string{}
	for i := set.first(); i >= 0; i = set.first() {
		names = append(names, p.rules[i].Name)
	}
	return names
}
