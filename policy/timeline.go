package policy

import (
	"slices"
	"time"
)

// Timeline is what changes under a policy from one time to another.
type Timeline struct {
	// From is in it, Until is not.
	From, Until time.Time
	// Running are the rules that are between their dates at From, and Over those
	// that have ended by then, as the policy lists them.
	Running []Event
	Over    []*Rule
	// Meets is what legacy clients meet at From that no rule for special
	// clients takes.
	Meets []Meeting
	// Moments are when a rule begins, ends or reaches a part of its share, after
	// From.
	Moments []Moment
	// Next is the first such moment at Until or later; nil where there is none.
	Next *Moment
}

// Moment is a time at which rules begin, end or reach a part of their share.
type Moment struct {
	Time   time.Time
	Events []Event
	// Meets is as in Timeline, from that time on.
	Meets []Meeting
}

// Event is what becomes of one rule at some time.
type Event struct {
	Rule *Rule
	Kind EventKind
	// Share is the part that the rule takes of what it matches, at that time; at
	// its end, before that time. For a rule with a schedule, while it is open.
	Share float64
	// Windows are those that come from then on; nil for a rule without a
	// schedule and at its end.
	Windows *Windows
}

// EventKind is what happens to a rule.
type EventKind uint8

// The kinds, in the order in which they are told.
const (
	// Runs: it has begun before.
	Runs EventKind = iota
	// Ends: it is never in force again.
	Ends
	// Begins: it is in force, or the windows of its schedule may open.
	Begins
	// Reaches: its share has come another quarter of its way.
	Reaches
)

// String returns the kind's name.
func (k EventKind) String() string {
	return [...]string{"runs", "ends", "begins", "reaches"}[k]
}

// Meeting is what legacy clients meet on some listeners that no rule takes
// whose match is more than a listener.
type Meeting struct {
	Listeners []string
	// Layers are the rules that take a part of them or come and go, in the order
	// in which they are asked; those that make no difference are left out.
	Layers []Layer
	// Rest is what all others meet.
	Rest Mode
}

// Layer is a rule that takes some of the clients, or all of them at times.
type Layer struct {
	Rule *Rule
	// Part is how many of all of them it takes, 0 to 1; where it has a schedule,
	// while that is open.
	Part float64
}

// Parts is what the clients meet while a rule of the layers has its schedule
// open; nil is no such rule. Schedules of others are closed.
func (m *Meeting) Parts(open *Rule) (parts Parts) {
	left, whole := 1.0, 1.0 // of whole the layers have their part
	for _, l := range m.Layers {
		share := 0.0
		if whole > 0 {
			share = l.Part / whole
		}
		if l.Rule.Schedule == nil {
			whole -= l.Part
		} else if l.Rule != open {
			continue
		}
		parts[l.Rule.Mode] += left * share
		left -= left * share
	}
	parts[m.Rest] += left
	return parts
}

// quarters are the parts of its way at which a share is told.
const quarters = 4

// Timeline tells what changes from one time to another for clients on the
// listeners. The work is bounded by the rules and the days in between, however
// often a schedule opens.
func (p *Policy) Timeline(from, until time.Time, listeners []string) *Timeline {
	from, until = from.Round(0), until.Round(0)
	tl := &Timeline{From: from, Until: until, Meets: p.meets(from, listeners)}
	for i := range p.rules {
		r := &p.rules[i]
		switch {
		case r.ended(from):
			tl.Over = append(tl.Over, r)
		case r.within(from):
			tl.Running = append(tl.Running, r.event(Runs, from, until))
		}
	}
	for _, t := range p.moments(from) {
		m := Moment{Time: t, Meets: p.meets(t, listeners)}
		for i := range p.rules {
			if kind, ok := p.rules[i].happens(t); ok {
				m.Events = append(m.Events, p.rules[i].event(kind, t, until))
			}
		}
		slices.SortStableFunc(m.Events, func(a, b Event) int { return int(a.Kind) - int(b.Kind) })
		if !t.Before(until) {
			tl.Next = &m
			break
		}
		tl.Moments = append(tl.Moments, m)
	}
	return tl
}

// moments are the times after from at which something happens to a rule.
func (p *Policy) moments(from time.Time) []time.Time {
	var times []time.Time
	for i := range p.rules {
		r := &p.rules[i]
		times = append(times, r.From, r.Until)
		for k := 1; k < quarters && r.Share.Changes(); k++ {
			times = append(times, r.onItsWay(k))
		}
	}
	times = slices.DeleteFunc(times, func(t time.Time) bool { return !t.After(from) })
	slices.SortFunc(times, time.Time.Compare)
	return slices.CompactFunc(times, time.Time.Equal)
}

// Changes reports whether the share depends on the time.
func (s *Share) Changes() bool { return s != nil && s.From != s.To }

// onItsWay is when a share that changes has come so many quarters of its way.
func (r *Rule) onItsWay(quarter int) time.Time {
	// Seconds: a Duration would end after 292 years.
	seconds := (r.Until.Unix() - r.From.Unix()) * int64(quarter) / quarters
	return time.Unix(r.From.Unix()+seconds, 0).UTC()
}

// happens is what happens to the rule at exactly that time.
func (r *Rule) happens(t time.Time) (EventKind, bool) {
	switch {
	case !r.Until.IsZero() && r.Until.Equal(t):
		return Ends, true
	case r.From.Equal(t):
		return Begins, true
	}
	for k := 1; k < quarters && r.Share.Changes(); k++ {
		if r.onItsWay(k).Equal(t) && r.within(t) {
			return Reaches, true
		}
	}
	return 0, false
}

func (r *Rule) event(kind EventKind, t, limit time.Time) Event {
	e := Event{Rule: r, Kind: kind, Share: 1}
	if r.Share != nil {
		e.Share = r.Share.at(r, t)
	}
	if r.Schedule != nil && kind != Ends {
		e.Windows = r.windows(t, limit)
	}
	return e
}

// meets groups the listeners by what clients meet there.
func (p *Policy) meets(t time.Time, listeners []string) []Meeting {
	var all []Meeting
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
	m := Meeting{Listeners: []string{listener}, Rest: p.mode}
	left := 1.0
	for i := range p.rules {
		r := &p.rules[i]
		if !r.within(t) || !r.forEverybodyAt(listener) {
			continue
		}
		if r.always() {
			m.Rest = r.Mode
			break
		}
		part := left
		if r.Share != nil {
			part *= r.Share.at(r, t)
		}
		if part > 0 || r.Share.Changes() {
			m.Layers = append(m.Layers, Layer{r, part})
		}
		if r.Schedule == nil {
			left -= part
		}
	}
	for n := len(m.Layers); n > 0 && m.Layers[n-1].Rule.Mode == m.Rest; n-- {
		m.Layers = m.Layers[:n-1]
	}
	return m
}

// forEverybodyAt reports whether the rule asks for nothing but a listener, and
// has that one.
func (r *Rule) forEverybodyAt(listener string) bool {
	return r.Match == nil || r.Match.onlyListeners() && (r.Match.Listeners == nil || slices.Contains(r.Match.Listeners, listener))
}
