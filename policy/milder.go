package policy

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Parts is how many of some clients meet each mode, from 0 to 1; their sum is
// 1.
type Parts [3]float64

// slack is what two parts may differ by and still be the same.
const slack = 1e-9

// milder reports whether fewer are refused, or fewer are refused or told why.
func (p Parts) milder(than Parts) bool {
	return p[Enforce] < than[Enforce]-slack || p[Enforce]+p[Explain] < than[Enforce]+than[Explain]-slack
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
	Time time.Time
	// Until is when a share stops shrinking; zero where it happens at once.
	Until time.Time
	// Rules are those that begin, end or change their share then.
	Rules []*Rule
	// Of is the rule whose clients it happens to, on Listeners; nil where it
	// happens to all there that no rule for special clients takes.
	Of            *Rule
	Listeners     []string
	Before, After Parts
}

// String returns what happens, without the time.
func (m Relaxation) String() string {
	who := "everybody else"
	switch {
	case m.Of != nil:
		who = fmt.Sprintf("clients of rule %q", m.Of.Name)
	case len(m.Listeners) < len(ListenerNames):
		who += " on " + strings.Join(m.Listeners, ", ")
	}
	words := fmt.Sprintf("%s: %v -> %v", who, m.Before, m.After)
	if len(m.Rules) == 1 && m.Rules[0] == m.Of {
		return words
	}
	names := make([]string, len(m.Rules))
	for i, r := range m.Rules {
		names[i] = strconv.Quote(r.Name)
	}
	return words + " (" + strings.Join(names, ", ") + ")"
}

// Relaxations lists the times in [from, to) at which the policy becomes milder than
// before: because a rule begins or ends, or because a share shrinks. Windows of
// schedules open and close by design, so their rules are left aside. It asks
// for clients that no rule is special about, and for one of each rule's match.
func (p *Policy) Relaxations(from, to time.Time) []Relaxation {
	var all []Relaxation
	edges := p.edges(from.Round(0))
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
			for _, m := range p.milderFor(g, edge, end) {
				if m.Time.Before(to) && !known(all[begin:], m) {
					all = append(all, m)
				}
			}
		}
	}
	slices.SortStableFunc(all, func(a, b Relaxation) int { return a.Time.Compare(b.Time) })
	return all
}

// known reports whether the same is noted for the same clients, maybe on other
// listeners, or for all on that listener.
func known(others []Relaxation, m Relaxation) bool {
	for i := range others {
		o := &others[i]
		switch {
		case !o.Time.Equal(m.Time) || o.Before != m.Before || o.After != m.After:
		case o.Of == m.Of && slices.Equal(o.Rules, m.Rules):
			o.Listeners = slices.Concat(o.Listeners, m.Listeners)
			return true
		case o.Of == nil && slices.Contains(o.Listeners, m.Listeners[0]):
			return true
		}
	}
	return false
}

// edges are from, and when rules without a schedule begin and end after it.
func (p *Policy) edges(from time.Time) []time.Time {
	edges := []time.Time{from}
	for i := range p.rules {
		if r := &p.rules[i]; r.Schedule == nil {
			edges = append(edges, r.From, r.Until)
		}
	}
	edges = slices.DeleteFunc(edges, func(t time.Time) bool { return t.Before(from) })
	slices.SortFunc(edges, time.Time.Compare)
	return slices.CompactFunc(edges, time.Time.Equal)
}

// group are clients that match the same rules.
type group struct {
	rules     ruleSet
	of        *Rule
	listeners []string
}

// groups are everybody else on each listener, and one client for each rule.
func (p *Policy) groups() []group {
	var all []group
	for _, l := range ListenerNames {
		all = append(all, group{p.matched(nil, l), nil, []string{l}})
	}
	seen := make(map[ruleSet]int)
	for i := range p.rules {
		r := &p.rules[i]
		if r.Match == nil || r.Match.onlyListeners() || r.Schedule != nil {
			continue
		}
		for _, l := range ListenerNames {
			rules := p.matched(r.Match, l)
			if !rules.has(i) {
				continue
			}
			if n, ok := seen[rules]; ok {
				all[n].listeners = append(all[n].listeners, l)
				continue
			}
			seen[rules] = len(all)
			all = append(all, group{rules, r, []string{l}})
		}
	}
	return all
}

// matched are the rules that a client matches which has the first value of each
// key of m.
func (p *Policy) matched(m *Match, listener string) (set ruleSet) {
	at := ConnInfo{Listener: listener}
	var version Version
	var name, ja4 string
	if m != nil {
		if len(m.Clients) > 0 {
			at.Client = m.Clients[0].Addr()
		}
		if len(m.Ports) > 0 {
			at.Port = m.Ports[0]
		}
		if len(m.Versions) > 0 {
			version = m.Versions[0]
		}
		if len(m.ServerNames) > 0 {
			name = strings.Replace(m.ServerNames[0], "*", "any", 1)
		}
		if len(m.JA4s) > 0 {
			ja4 = m.JA4s[0]
		}
	}
	for i := range p.rules {
		if p.rules[i].Match.mismatch(version, name, func() string { return ja4 }, &at) == "" {
			set.add(i)
		}
	}
	return set
}

// milderFor finds where a group meets less than before: at the edge, and from
// there until end while its rules stay.
func (p *Policy) milderFor(g group, edge, end time.Time) []Relaxation {
	var all []Relaxation
	before, after := p.parts(g.rules, edge, true), p.parts(g.rules, edge, false)
	if after.milder(before) {
		all = append(all, Relaxation{Time: edge, Rules: p.concerned(g.rules, func(r *Rule) bool {
			return r.From.Equal(edge) || r.Until.Equal(edge)
		}), Of: g.of, Listeners: g.listeners, Before: before, After: after})
	}
	changing := p.concerned(g.rules, func(r *Rule) bool { return r.Share.Changes() && r.within(edge) })
	if len(changing) == 0 {
		return all
	}
	// Shares multiply, so what is left of them may fall and rise in between.
	falls := false
	last, lastTime := after, edge
	step := end.Sub(edge) / samples
	for k := 1; k <= samples; k++ {
		t := edge.Add(time.Duration(k) * step)
		if k == samples {
			t = end
		}
		now := p.parts(g.rules, t, true)
		switch milder := now.milder(last); {
		case milder && falls:
			all[len(all)-1].Until, all[len(all)-1].After = t, now
		case milder:
			all = append(all, Relaxation{Time: lastTime, Until: t, Rules: changing, Of: g.of, Listeners: g.listeners, Before: last, After: now})
			falls = true
		default:
			falls = false
		}
		last, lastTime = now, t
	}
	return all
}

// samples is how often changing shares are looked at between two edges.
const samples = 8

// concerned are the rules of the set, without those with a schedule, for which
// f holds.
func (p *Policy) concerned(set ruleSet, f func(*Rule) bool) (rules []*Rule) {
	for i := set.first(); i >= 0; i = set.first() {
		if r := &p.rules[i]; r.Schedule == nil && f(r) {
			rules = append(rules, r)
		}
	}
	return rules
}

// parts is what clients meet that match those rules: at t, or right before it.
func (p *Policy) parts(set ruleSet, t time.Time, before bool) (parts Parts) {
	left := 1.0
	for i := set.first(); i >= 0 && left > 0; i = set.first() {
		r := &p.rules[i]
		inForce := r.within(t)
		if before {
			inForce = r.From.Before(t) && (r.Until.IsZero() || !r.Until.Before(t))
		}
		if r.Schedule != nil || !inForce {
			continue
		}
		part := left
		if r.Share != nil {
			part *= r.Share.at(r, t)
		}
		parts[r.Mode] += part
		left -= part
	}
	parts[p.mode] += left
	return parts
}
