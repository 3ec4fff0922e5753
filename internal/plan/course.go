package plan

import (
	"slices"
	"time"

	"postern/policy"
)

// Turn is a time from which on a client meets something else.
type Turn struct {
	Time time.Time
	// Rule is one that begins, ends or comes to the client then; nil at first.
	Rule *policy.Rule
	// Outcomes are those of [policy.Snapshot.Outcomes] while no schedule is open,
	// and Windows those of rules with one, while it is.
	Outcomes, Windows []policy.Outcome
}

// Course lists what one client meets from a time on, and when that changes before
// another. A share of connections that grows is shown by quarters.
func Course(p *policy.Policy, c policy.Client, from, until time.Time) []Turn {
	dates := []Turn{{Time: from}}
	for _, m := range p.Timeline(from, until, nil).Moments {
		dates = append(dates, Turn{Time: m.Time, Rule: m.Events[0].Rule})
	}
	var course []Turn
	for i := 0; i < len(dates); i++ {
		next := until
		if i+1 < len(dates) {
			next = dates[i+1].Time
		}
		t := dates[i]
		for _, r := range p.Rules() {
			if at := r.Reaches(c.Client); at.After(t.Time) && at.Before(next) {
				next = at
				dates = slices.Insert(dates, i+1, Turn{Time: at, Rule: r})
			}
		}
		t.read(p, c, next)
		if n := len(course); n == 0 || !course[n-1].like(&t) {
			course = append(course, t)
		}
	}
	return course
}

// read finds what the client meets until the next turn.
func (t *Turn) read(p *policy.Policy, c policy.Client, next time.Time) {
	now := p.During(t.Time, nil)
	t.Outcomes = now.Outcomes(c, t.Time)
	for _, r := range p.Rules() {
		if r.Schedule == nil || !r.InForce(t.Time) && !r.Opens(t.Time, next) {
			continue
		}
		open := p.During(t.Time, r)
		for _, o := range open.Outcomes(c, t.Time) {
			if o.Rule == r {
				t.Windows = append(t.Windows, o)
			}
		}
	}
}

// like reports whether the client meets the same.
func (t *Turn) like(o *Turn) bool {
	return slices.Equal(t.Outcomes, o.Outcomes) && slices.Equal(t.Windows, o.Windows)
}
