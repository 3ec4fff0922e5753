package policy

import (
	"fmt"
	"postern/internal/text"
	"slices"
	"time"
)

// Policy is the compiled whole: what is in force now and later.
type Policy struct {
	floor      Floor
	mode       Mode
	rules      []Rule
	candidates []Candidate
	judged     []Floor // those of the candidates, each once
	tables     *tables
}

// Candidate is a floor that every hello is judged by beside the real one, to be
// counted and never applied.
type Candidate struct {
	Name  string
	Floor Floor
}

// New makes the policy that POLICY_FLOOR and POLICY_MODE describe, without
// rules.
func New(floor Floor, mode Mode) *Policy { return newPolicy(floor, mode, nil, nil) }

func newPolicy(floor Floor, mode Mode, rules []Rule, candidates []Candidate) *Policy {
	for i := range rules {
		rules[i].shuffle = shuffleOf(rules[i].Name)
	}
	p := &Policy{floor: floor, mode: mode, rules: rules, candidates: candidates, tables: compile(rules)}
	for _, c := range candidates {
		if !slices.Contains(p.judged, c.Floor) {
			p.judged = append(p.judged, c.Floor)
		}
	}
	return p
}

// Floor is what a handshake must reach.
func (p *Policy) Floor() Floor { return p.floor }

// Mode is what meets a legacy handshake that no rule takes.
func (p *Policy) Mode() Mode { return p.mode }

// Rules lists the rules, in the order in which they are asked. They are not to
// be changed.
func (p *Policy) Rules() []Rule { return p.rules }

// Candidates lists the floors that are judged beside the real one. They are not
// to be changed.
func (p *Policy) Candidates() []Candidate { return p.candidates }

// Rule returns the rule of that name, or nil.
func (p *Policy) Rule(name string) *Rule {
	for i := range p.rules {
		if p.rules[i].Name == name {
			return &p.rules[i]
		}
	}
	return nil
}

// MayServeLegacy reports whether any handshake below the floor can be let in
// or completed under this policy, at that time or later. Where it cannot, no
// lenient configuration may exist. A schedule counts as one that opens.
func (p *Policy) MayServeLegacy(t time.Time) bool {
	return slices.ContainsFunc(ListenerNames, func(listener string) bool {
		for i := range p.rules {
			r := &p.rules[i]
			if r.Mode != Enforce && r.takesAny(listener) && p.reaches(i, listener, later(t, r.From), r.Until) {
				return true
			}
		}
		return p.mode != Enforce && p.reaches(len(p.rules), listener, t, time.Time{})
	})
}

// reaches reports whether between two times, of which the second may be none,
// anybody on a listener gets past the first n rules without being refused.
func (p *Policy) reaches(n int, listener string, from, until time.Time) bool {
	for until.IsZero() || from.Before(until) {
		i := slices.IndexFunc(p.rules[:n], func(r Rule) bool { return r.refusesAll(listener, from) })
		switch {
		case i < 0:
			return true
		case p.rules[i].Until.IsZero():
			return false
		}
		from = p.rules[i].Until
	}
	return false
}

// Snapshot is what is in force of a policy. It is valid from the time that it
// was made for until a rule comes or goes.
type Snapshot struct {
	// Floor is what a handshake must reach.
	Floor Floor
	// Mode is what meets a legacy handshake that no rule takes.
	Mode Mode
	// Until is when another snapshot is to be made.
	Until time.Time

	since   time.Time
	policy  *Policy
	inForce ruleSet
}

// snapshotLife bounds how far ahead a snapshot looks for the next change.
const snapshotLife = 24 * time.Hour

// At returns what is in force at that time. It is cheap, but not for the hot
// path.
func (p *Policy) At(t time.Time) Snapshot {
	// The reading of the monotonic clock is dropped: rules go by the wall clock,
	// also when that is set.
	t = t.Round(0)
	s := Snapshot{Floor: p.floor, Mode: p.mode, Until: t.Add(snapshotLife), since: t, policy: p}
	for i := range p.rules {
		r := &p.rules[i]
		if r.InForce(t) {
			s.inForce.add(i)
		}
		s.Until = r.edge(t, s.Until)
	}
	return s
}

// Valid reports whether the snapshot says what is in force at that time.
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
		return earlier(r.From, limit)
	}
	if !r.Until.IsZero() {
		limit = earlier(limit, r.Until)
	}
	if r.Schedule != nil {
		limit = r.Schedule.edge(t, limit)
	}
	return limit
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

// ModeFor is what meets a legacy handshake on a listener that no rule with a
// share, or with a match of more than the listener, takes.
func (s *Snapshot) ModeFor(listener string) Mode {
	set := s.inForce
	for i := set.first(); i >= 0; i = set.first() {
		r := &s.policy.rules[i]
		if r.Share == nil && (r.Match == nil || r.Match.onlyListeners() && r.Match.mismatch(NoVersion, "", nil, &ConnInfo{Listener: listener}) == "") {
			return r.Mode
		}
	}
	return s.Mode
}

// ParseMode returns the mode of that name.
func ParseMode(s string) (Mode, error) {
	for _, m := range Modes {
		if m.String() == s {
			return m, nil
		}
	}
	return 0, fmt.Errorf("no such mode %q: use one of %s", clip(s), joinStringers(Modes))
}

// shown is how much of a stranger's text stands in an error, in characters.
const shown = 80 + len("...")

func clip(s string) string { return text.Clip(s, shown, "...") }
