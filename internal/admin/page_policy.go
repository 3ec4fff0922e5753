package admin

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"postern/policy"
)

const (
	// changesShown bounds the policy changes on the page, out of changesRead:
	// repeated windows of a schedule share a row.
	changesShown = 6
	changesRead  = 500
)

// policyPart shows what the policy does now and next.
type policyPart struct {
	PolicyState
	Meets []meeting      // now
	Rules []*policy.Rule // in force
	Later int            // rules that are not in force now, and can be
	Next  []changeRow
}

// meeting is what old clients under no special rule meet on some listeners.
type meeting struct {
	Listeners string
	Parts     policy.Parts
}

// changeRow is a moment at which rules begin or end.
type changeRow struct {
	Time         time.Time
	Zone         *time.Location // of the last rule that is named
	Begun, Ended []string
	// On the page alone: Again counts further changes of this kind; AtLeast: there may
	// be more; Meets is what is met then.
	Again   int
	AtLeast bool
	Meets   []meeting
}

func policyPartOf(s PolicyState) policyPart {
	v := policyPart{PolicyState: s, Meets: meetings(s.Policy, s.Now, s.Listeners), Next: changeRows(s)}
	for _, r := range s.Policy.Rules() {
		switch {
		case r.InForce(s.Now):
			v.Rules = append(v.Rules, r)
		case r.Until.IsZero() || r.Until.After(s.Now):
			v.Later++
		}
	}
	return v
}

// changeRows returns the next changes. A schedule's repetition of an earlier row
// is counted there.
func changeRows(s PolicyState) []changeRow {
	p, until := s.Policy, s.Now.Add(changesWithin)
	changes := p.Changes(s.Now, until, changesRead)
	var rows []changeRow
	places := make(map[string]int) // of the rows, from 1 on
	for _, c := range changes {
		key := fmt.Sprintf("%q %q", c.Begun, c.Ended)
		if i := places[key]; i > 0 {
			rows[i-1].Again++
		} else if len(rows) < changesShown {
			rows = append(rows, changeRowOf(s, c.Time, c.Begun, c.Ended))
			places[key] = len(rows)
		}
	}
	if len(changes) < changesRead {
		return rows
	}
	// Windows have filled the list: find later changes by the dates.
	for i := range rows {
		rows[i].AtLeast = true
	}
	for _, m := range p.Timeline(changes[len(changes)-1].Time, until, s.Listeners).Moments {
		if begun, ended := turning(m); len(begun)+len(ended) > 0 && len(rows) < changesShown {
			rows = append(rows, changeRowOf(s, m.Time, begun, ended))
		}
	}
	return rows
}

// turning names the rules that begin and end at a moment.
func turning(m policy.Moment) (begun, ended []string) {
	names := make(map[policy.EventKind][]string)
	for _, e := range m.Events {
		names[e.Kind] = append(names[e.Kind], e.Rule.Name)
	}
	return names[policy.Begins], names[policy.Ends]
}

func changeRowOf(s PolicyState, t time.Time, begun, ended []string) changeRow {
	row := changeRow{Time: t, Begun: begun, Ended: ended, Meets: meetings(s.Policy, t, s.Listeners)}
	for _, name := range slices.Concat(ended, begun) {
		row.Zone = s.Policy.Rule(name).Zone
	}
	return row
}

// meetings groups listeners with the same treatment.
func meetings(p *policy.Policy, t time.Time, listeners []string) []meeting {
	var list []meeting
	for _, m := range p.Timeline(t, t, listeners).Meets {
		var open *policy.Rule
		if i := slices.IndexFunc(m.Layers, func(l policy.Layer) bool { return l.Rule.Schedule != nil && l.Rule.InForce(t) }); i >= 0 {
			open = m.Layers[i].Rule
		}
		list = append(list, meeting{strings.Join(m.Listeners, ", "), m.Parts(open)})
	}
	return list
}

// percent has a no-break space before the sign.
func percent(share float64) string { return strings.ReplaceAll(policy.Percent(share), " ", "\u00a0") }
