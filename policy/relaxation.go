package policy

import (
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"postern/internal/text"
)

// Parts are the parts of some clients that meet each mode; their sum is 1.
type Parts [3]float64

// slack is the difference up to which two parts are the same.
const slack = 1e-9

// MarshalJSON writes them by the name of the mode.
func (p Parts) MarshalJSON() ([]byte, error) {
	return json.Marshal(map[Mode]float64{Enforce: p[Enforce], Explain: p[Explain], Observe: p[Observe]})
}

// relaxes reports whether fewer are refused than before, or fewer are refused or
// told why.
func (p Parts) relaxes(before Parts) bool {
	return p[Enforce] < before[Enforce]-slack || p[Enforce]+p[Explain] < before[Enforce]+before[Explain]-slack
}

// String returns the parts in words, as in enforce for 25 %, observe for 75 %.
func (p Parts) String() string {
	var words []string
	for _, m := range Modes {
		switch {
		case p[m] > 1-slack:
			return m.String()
		case p[m] > slack:
			words = append(words, fmt.Sprintf("%v for %s", m, Percent(p[m])))
		}
	}
	return strings.Join(words, ", ")
}

// Percent writes a part of 1 for people, as in 12.5 %, with up to two
// decimals.
func Percent(part float64) string {
	return strconv.FormatFloat(math.Round(part*1e4)/100, 'f', -1, 64) + " %"
}

// Relaxation is a time at which some legacy clients meet less than before.
type Relaxation struct {
	Time time.Time `json:"time"`
	// Until is when a share stops shrinking; zero where it happens at once.
	Until time.Time `json:"until,omitzero"`
	// Rules are those that begin, end or change their share then.
	Rules []*Rule `json:"rules"`
	// Text is what happens, without the time.
	Text   string `json:"text"`
	Before Parts  `json:"before"`
	After  Parts  `json:"after"`
	// Of is the rule whose clients it happens to, on Listeners; nil where it
	// happens to all there that no rule for special clients takes.
	Of        *Rule    `json:"-"`
	Listeners []string `json:"-"`
	// Below is the floor that these clients do not reach, while they reach all that are
	// more lenient; all the same where rules have no floors of their own.
	Below Floor `json:"-"`

	floors bool // there are several
}

func (x *Relaxation) words() string {
	who := "everybody else"
	switch {
	case x.Of != nil:
		who = fmt.Sprintf("clients of rule %q", x.Of.Name)
	case len(x.Listeners) < len(ListenerNames):
		who += " on " + strings.Join(x.Listeners, ", ")
	}
	if x.floors {
		who += " below " + x.Below.String()
	}
	words := fmt.Sprintf("%s: %v -> %v", who, x.Before, x.After)
	if len(x.Rules) == 1 && x.Rules[0] == x.Of {
		return words
	}
	names := text.Each(x.Rules, func(r *Rule) string { return strconv.Quote(r.Name) })
	return words + " (" + strings.Join(names, ", ") + ")"
}

// Relaxations lists the times in [from, to) at which legacy clients meet less
// than before: because a rule begins or ends, or because a share shrinks.
// Windows of schedules open and close by design, so their rules are left aside.
// It asks for clients that no rule is special about, and for one of each rule's
// match.
func (p *Policy) Relaxations(from, to time.Time) []Relaxation {
	var all []Relaxation
	edges := p.edges(from.Round(0), func(r *Rule) []time.Time {
		if r.Schedule != nil {
			return nil
		}
		return r.dates()
	})
	groups := p.groups()
	for i, edge := range edges {
		if !edge.Before(to) {
			break
		}
		var end time.Time // of the time in which rules neither come nor go
		if i+1 < len(edges) {
			end = edges[i+1]
		}
		begin := len(all)
		for _, g := range groups {
			for _, f := range p.Floors() {
				for _, x := range p.relaxationsOf(g, f, edge, end) {
					if x.Time.Before(to) && !known(all[begin:], x) {
						all = append(all, x)
					}
				}
			}
		}
	}
	for i := range all {
		all[i].Text = all[i].words()
	}
	slices.SortStableFunc(all, func(a, b Relaxation) int { return a.Time.Compare(b.Time) })
	return all
}

// known reports whether the same is noted for the same clients, maybe on other
// listeners, or for all on that listener.
func known(others []Relaxation, x Relaxation) bool {
	for i := range others {
		o := &others[i]
		switch {
		case !o.Time.Equal(x.Time) || o.Below != x.Below || o.Before != x.Before || o.After != x.After:
		case o.Of == x.Of && slices.Equal(o.Rules, x.Rules):
			o.Listeners = slices.Concat(o.Listeners, x.Listeners)
			return true
		case o.Of == nil && slices.Contains(o.Listeners, x.Listeners[0]):
			return true
		}
	}
	return false
}

// group are clients that match the same rules.
type group struct {
	rules     ruleSet
	of        *Rule
	listeners []string
}

// groups are everybody else on each listener, and one client for each rule that
// has no schedule.
func (p *Policy) groups() []group {
	var all []group
	for _, l := range ListenerNames {
		all = append(all, group{p.everybody(l), nil, []string{l}})
	}
	for _, r := range p.rules {
		for i, l := range ListenerNames {
			rules := p.like(r, l)
			if !rules.has(r.place) || r.Schedule != nil || all[i].rules.has(r.place) {
				continue
			}
			same := slices.IndexFunc(all, func(g group) bool { return g.of != nil && g.rules == rules })
			if same >= 0 {
				all[same].listeners = append(all[same].listeners, l)
			} else {
				all = append(all, group{rules, r, []string{l}})
			}
		}
	}
	return all
}

// samples is how often changing shares are looked at between two edges.
const samples = 8

// relaxationsOf finds where clients of a group below a floor meet less than before: at the
// edge, and from there until end while its rules stay. Shares multiply, so what is left of
// them may fall and rise in between.
func (p *Policy) relaxationsOf(g group, below Floor, edge, end time.Time) (all []Relaxation) {
	unscheduled := g.rules
	unscheduled.drop(&p.scheduled)
	rules := func(keep func(*Rule) bool) []*Rule {
		return slices.DeleteFunc(slices.Clone(p.rules), func(r *Rule) bool { return !unscheduled.has(r.place) || !keep(r) })
	}
	// By the rules that are within their dates a moment before t, or at t.
	at := func(t time.Time, before time.Duration) Parts {
		return p.parts(p.only(unscheduled, func(r *Rule) bool { return r.within(t.Add(-before)) }), t, nil, below)
	}
	x := Relaxation{Time: edge, Of: g.of, Listeners: g.listeners, Below: below, floors: len(p.Floors()) > 1}
	x.Before, x.After = at(edge, 1), at(edge, 0)
	if x.After.relaxes(x.Before) {
		x.Rules = rules(func(r *Rule) bool { return r.From.Equal(edge) || r.Until.Equal(edge) })
		all = append(all, x)
	}
	x.Until, x.Rules = edge, rules(func(r *Rule) bool { return r.Share.Changes() && r.within(edge) })
	for left := samples - 1; left >= 0 && len(x.Rules) > 0; left-- {
		x.Time, x.Until = x.Until, end.Add(-end.Sub(edge)/samples*time.Duration(left))
		x.Before, x.After = x.After, at(x.Until, 1)
		switch n := len(all); {
		case !x.After.relaxes(x.Before):
		case n > 0 && all[n-1].Until.Equal(x.Time): // it goes on
			all[n-1].Until, all[n-1].After = x.Until, x.After
		default:
			all = append(all, x)
		}
	}
	return all
}

// parts is what clients meet at t that match those rules, while the schedule of
// one rule is open and those of others are not; nil is none. They reach the floors that
// are more lenient than below: one of these lets them in.
func (p *Policy) parts(set ruleSet, t time.Time, open *Rule, below Floor) (parts Parts) {
	for o := range p.outcomes(set, ruleSet{}, func(r *Rule) float64 {
		if r.Schedule != nil && r != open {
			return 0
		}
		return r.share(t)
	}) {
		if slices.Index(Floors, o.Floor) < slices.Index(Floors, below) {
			o.Mode = Observe
		}
		parts[o.Mode] += o.Part
	}
	return parts
}
