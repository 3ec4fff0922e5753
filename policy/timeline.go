package policy

import (
	"slices"
	"time"
)

// Timeline lists the changes of a policy from one time to another. Its JSON is that of
// a plan.
type Timeline struct {
	// From is included, Until is not.
	From  time.Time `json:"from"`
	Until time.Time `json:"until"`
	// Running are the rules that are between their dates at From, and Over those
	// that have ended by then, as the policy lists them.
	Over    []*Rule `json:"over"`
	Running []Event `json:"running"`
	// Meets is what legacy clients meet at From that no rule for special
	// clients takes.
	Meets []Meeting `json:"meets"`
	// Moments are when a rule begins, ends or reaches a part of its share, after
	// From.
	Moments []Moment `json:"moments"`
	// Next is the first such moment at Until or later; nil where there is none.
	Next *Moment `json:"next"`
}

// Moment is a time at which rules begin, end or reach a part of their share.
type Moment struct {
	Time   time.Time `json:"time"`
	Events []Event   `json:"events"`
	// Meets is as in Timeline, from that time on.
	Meets []Meeting `json:"meets"`
}

// Event is something that happens to one rule at some time.
type Event struct {
	Rule *Rule     `json:"rule"`
	Kind EventKind `json:"event"`
	Mode Mode      `json:"mode"`
	// Share is the part that the rule takes of what it matches, at that time; at
	// its end, before that time. For a rule with a schedule, while it is open.
	Share float64   `json:"share"`
	Until time.Time `json:"until,omitzero"`
	// Windows are those that come from then on; nil for a rule without a
	// schedule and at its end.
	Windows     *Windows `json:"windows,omitempty"`
	PassThrough bool     `json:"pass_through,omitempty"`
	// Floor is the name of the rule's own.
	Floor string `json:"floor,omitempty"`
}

// EventKind is what happens to a rule.
type EventKind string

// The kinds.
const (
	// Runs: it has begun before.
	Runs EventKind = "runs"
	// Ends: it is never in force again.
	Ends EventKind = "ends"
	// Begins: it is in force, or the windows of its schedule may open.
	Begins EventKind = "begins"
	// Reaches: its share has come another quarter of its way.
	Reaches EventKind = "reaches"
)

// listed is the order of events at one time.
var listed = []EventKind{Ends, Begins, Reaches}

// Meeting is what legacy clients meet on some listeners that no rule takes
// whose match is more than a listener.
type Meeting struct {
	Listeners []string `json:"listeners"`
	// Layers are the rules that take a part of them or come and go, in the order
	// in which they are asked; those that make no difference are left out. The
	// part of one with a schedule is what it takes while that is open.
	Layers []Layer `json:"layers"`
	// Rest is what all others meet.
	Rest Mode `json:"rest"`

	policy *Policy
	rules  ruleSet // those for everybody on the listeners, between their dates
	at     time.Time
}

// Layer is an outcome of a rule.
type Layer struct {
	Outcome
	Schedule *Schedule `json:"schedule,omitempty"`
}

// Parts is what the clients meet while a rule of the layers has its schedule
// open; nil is no such rule. Schedules of others are closed.
func (m *Meeting) Parts(open *Rule) Parts { return m.policy.parts(m.rules, m.at, open, Floors[0]) }

// Timeline lists the changes from one time to another for clients on the
// listeners. The work is bounded by the rules and the days in between, however
// often a schedule opens.
func (p *Policy) Timeline(from, until time.Time, listeners []string) *Timeline {
	from, until = from.Round(0), until.Round(0)
	tl := &Timeline{From: from, Until: until, Over: []*Rule{}, Running: []Event{}, Meets: p.meets(from, listeners), Moments: []Moment{}}
	for _, r := range p.rules {
		switch {
		case r.ended(from):
			tl.Over = append(tl.Over, r)
		case r.within(from):
			tl.Running = append(tl.Running, r.event(Runs, from, until))
		}
	}
	for _, t := range p.edges(from, (*Rule).milestones)[1:] {
		m := Moment{Time: t, Meets: p.meets(t, listeners)}
		for _, r := range p.rules {
			if kind, ok := r.happens(t); ok {
				m.Events = append(m.Events, r.event(kind, t, until))
			}
		}
		slices.SortStableFunc(m.Events, func(a, b Event) int { return slices.Index(listed, a.Kind) - slices.Index(listed, b.Kind) })
		if !t.Before(until) {
			tl.Next = &m
			break
		}
		tl.Moments = append(tl.Moments, m)
	}
	return tl
}

// happens is what happens to the rule at exactly that time.
func (r *Rule) happens(t time.Time) (EventKind, bool) {
	switch {
	case !r.Until.IsZero() && r.Until.Equal(t):
		return Ends, true
	case r.From.Equal(t):
		return Begins, true
	}
	return Reaches, r.within(t) && slices.ContainsFunc(r.milestones(), t.Equal)
}

func (r *Rule) event(kind EventKind, t, limit time.Time) Event {
	e := Event{Rule: r, Kind: kind, Mode: r.Mode, Share: r.share(t), Until: r.Until, PassThrough: r.PassThrough, Floor: r.OwnFloorName()}
	if r.Schedule != nil && kind != Ends {
		e.Windows = r.windows(t, limit)
	}
	return e
}

// meets groups the listeners by what clients meet there.
func (p *Policy) meets(t time.Time, listeners []string) []Meeting {
	all := []Meeting{}
	for _, name := range listeners {
		m := p.meeting(t, name)
		same := slices.IndexFunc(all, func(o Meeting) bool { return o.Rest == m.Rest && slices.Equal(o.Layers, m.Layers) })
		if same >= 0 {
			all[same].Listeners = append(all[same].Listeners, name)
		} else {
			all = append(all, m)
		}
	}
	return all
}

func (p *Policy) meeting(t time.Time, listener string) Meeting {
	rules := p.only(p.everybody(listener), func(r *Rule) bool { return r.within(t) })
	m := Meeting{Listeners: []string{listener}, Layers: []Layer{}, policy: p, rules: rules, at: t}
	for o := range p.outcomes(rules, p.scheduled, func(r *Rule) float64 { return r.share(t) }) {
		if o.Rule == nil || o.Rule.always() {
			m.Rest = o.Mode
			break
		}
		if o.Part > 0 || o.Rule.Share.Changes() {
			m.Layers = append(m.Layers, Layer{o, o.Rule.Schedule})
		}
	}
	for n := len(m.Layers); n > 0 && m.Layers[n-1].Rule.Mode == m.Rest; n-- {
		m.Layers = m.Layers[:n-1]
	}
	return m
}
