package admin

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"postern/internal/text"
	"postern/policy"
)

const (
	// changesShown is how many changes of the policy stand on the page, out of
	// changesRead: windows of a schedule are told once.
	changesShown = 6
	changesRead  = 500
)

// policyPart is what the policy does now and next.
type policyPart struct {
	File       string
	Floor      string
	Now        []meeting
	Rules      []ruleRow
	Later      int // rules that are not in force now, and can be
	Next       []changeRow
	Warnings   []warningJSON
	Candidates []candidateJSON
}

// meeting is what old clients meet on some listeners that no rule for special
// clients takes.
type meeting struct {
	Listeners string
	Parts     []modePart
}

// modePart is a mode, and what that is, or how many meet it where not all do.
type modePart struct{ Mode, Words string }

// ruleRow is a rule in force.
type ruleRow struct {
	Name, Mode string
	Share      string // empty: all that it matches
	Until, In  string
	Owner      string
}

// changeRow is a moment at which rules come or go.
type changeRow struct {
	Time, In     string
	Begun, Ended []string
	// Again is how often the same comes again, AtLeast that it may be oftener.
	Again   int
	AtLeast bool
	Meets   []meeting
}

func policyPartOf(s PolicyState) policyPart {
	p, now := s.Policy, s.Now
	v := policyPart{File: s.File, Floor: p.Floor().String(), Now: meetings(p, now, s.Listeners), Next: changeRows(s)}
	for i := range p.Rules() {
		switch r := &p.Rules()[i]; {
		case r.InForce(now):
			v.Rules = append(v.Rules, ruleRowOf(r, now))
		case r.Until.IsZero() || r.Until.After(now):
			v.Later++
		}
	}
	for _, w := range p.Warnings(now, s.Site) {
		v.Warnings = append(v.Warnings, warningJSON{w.Line, w.Rule, w.Text})
	}
	for _, c := range p.Candidates() {
		v.Candidates = append(v.Candidates, candidateJSON{c.Name, c.Floor.String()})
	}
	return v
}

// changeRows are the next changes. One in which a schedule does again what it
// has done in a row above is counted there.
func changeRows(s PolicyState) []changeRow {
	p, until := s.Policy, s.Now.Add(changesWithin)
	changes := p.Changes(s.Now, until, changesRead)
	var rows []changeRow
	told := make(map[string]int) // place of the row, and 1
	for _, c := range changes {
		key := fmt.Sprintf("%q %q", c.Begun, c.Ended)
		if i := told[key]; i > 0 {
			rows[i-1].Again++
		} else if len(rows) < changesShown {
			rows = append(rows, changeRowOf(s, c.Time, c.Begun, c.Ended))
			told[key] = len(rows)
		}
	}
	if len(changes) < changesRead {
		return rows
	}
	// Windows alone have filled the list: what comes after them goes by dates.
	for i := range rows {
		rows[i].AtLeast = true
	}
	for _, m := range p.Timeline(changes[len(changes)-1].Time, until, s.Listeners).Moments {
		names := make(map[policy.EventKind][]string)
		for _, e := range m.Events {
			names[e.Kind] = append(names[e.Kind], e.Rule.Name)
		}
		begun, ended := names[policy.Begins], names[policy.Ends]
		if len(begun)+len(ended) > 0 && len(rows) < changesShown {
			rows = append(rows, changeRowOf(s, m.Time, begun, ended))
		}
	}
	return rows
}

func changeRowOf(s PolicyState, t time.Time, begun, ended []string) changeRow {
	var zone *time.Location // of the last rule that is named
	for _, name := range slices.Concat(ended, begun) {
		zone = s.Policy.Rule(name).Zone
	}
	return changeRow{
		Time: text.CommaDate(t, zone), In: text.Ahead(t.Sub(s.Now)), Begun: begun, Ended: ended, Meets: meetings(s.Policy, t, s.Listeners),
	}
}

// meetings puts listeners together where the same happens.
func meetings(p *policy.Policy, t time.Time, listeners []string) []meeting {
	var list []meeting
	for _, m := range p.Timeline(t, t, listeners).Meets {
		var open *policy.Rule
		for _, l := range m.Layers {
			if l.Rule.Schedule != nil && l.Rule.InForce(t) {
				open = l.Rule
				break
			}
		}
		parts := m.Parts(open)
		v := meeting{Listeners: strings.Join(m.Listeners, ", ")}
		for _, mode := range policy.Modes {
			switch share := parts[mode]; {
			case share >= 1:
				v.Parts = append(v.Parts, modePart{mode.String(), modeWords[mode]})
			case share > 0:
				v.Parts = append(v.Parts, modePart{mode.String(), "for " + percent(share)})
			}
		}
		list = append(list, v)
	}
	return list
}

func ruleRowOf(r *policy.Rule, now time.Time) ruleRow {
	v := ruleRow{Name: r.Name, Mode: r.Mode.String(), Owner: r.Owner}
	if r.Share != nil {
		v.Share = percent(r.ShareAt(now))
	}
	if !r.Until.IsZero() {
		v.Until, v.In = text.CommaDate(r.Until, r.Zone), text.Ahead(r.Until.Sub(now))
	}
	return v
}

// percent does not break before the sign.
func percent(share float64) string { return strings.ReplaceAll(policy.Percent(share), " ", "\u00a0") }
