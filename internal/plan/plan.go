// Package plan tells people what a policy does: over time, and to one client.
package plan

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"postern/internal/text"
	"postern/policy"
)

// Plan is what a policy does from one time to another.
type Plan struct {
	// Source is the file that the policy comes from; empty is the environment.
	Source string
	Policy *policy.Policy
	// From is in it, Until is not.
	From, Until time.Time
	// Listeners that there are, by name.
	Listeners []string
}

// relaxations are those that anybody can notice here.
func (p *Plan) relaxations() []policy.Relaxation {
	var all []policy.Relaxation
	for _, m := range p.Policy.Relaxations(p.From, p.Until) {
		m.Listeners = slices.DeleteFunc(slices.Clone(m.Listeners), func(l string) bool { return !slices.Contains(p.Listeners, l) })
		if len(m.Listeners) > 0 {
			all = append(all, m)
		}
	}
	return all
}

// exemptions are the rules with an owner that have not ended yet, the first to
// end in front.
func (p *Plan) exemptions() []*policy.Rule {
	var all []*policy.Rule
	rules := p.Policy.Rules()
	for i := range rules {
		if r := &rules[i]; r.Exemption() && p.From.Before(r.Until) {
			all = append(all, r)
		}
	}
	slices.SortStableFunc(all, func(a, b *policy.Rule) int { return a.Until.Compare(b.Until) })
	return all
}

// WriteText writes the plan for people, 100 columns wide.
func (p *Plan) WriteText(w io.Writer) error {
	tl := p.Policy.Timeline(p.From, p.Until, p.Listeners)
	relaxations := p.relaxations()
	var b strings.Builder
	fmt.Fprintf(&b, "%s, floor %v.\n", title(p.Source), p.Policy.Floor())
	fmt.Fprintf(&b, "What clients below the floor meet from %s to %s\n", text.Unglued(text.Date(p.From, time.UTC)), text.Unglued(text.Date(p.Until, time.UTC)))
	b.WriteString("(enforce: refused; explain: told why, then closed; observe: let in and counted):\n\n")
	b.WriteString(columns(append(p.nowRows(tl, relaxations), p.momentRows(tl, relaxations)...)))
	b.WriteByte('\n')
	b.WriteString(columns(p.summary(tl, relaxations)))
	_, err := io.WriteString(w, b.String())
	return err
}

func title(source string) string {
	if source == "" {
		return "Policy of the environment"
	}
	return "Policy " + source
}

func (p *Plan) nowRows(tl *policy.Timeline, relaxations []policy.Relaxation) []row {
	var lines []string
	for _, e := range tl.Running {
		lines = append(lines, eventWords(e))
	}
	lines = append(lines, p.meets(tl.Meets)...)
	lines = append(lines, marked(relaxations, tl.From)...)
	if len(tl.Over) > 0 {
		lines = append(lines, "over: "+ruleNames(tl.Over))
	}
	return rowsOf("now", lines)
}

func (p *Plan) momentRows(tl *policy.Timeline, relaxations []policy.Relaxation) []row {
	var rows []row
	last := p.meets(tl.Meets)
	for _, m := range tl.Moments {
		var lines []string
		for _, e := range m.Events {
			lines = append(lines, eventWords(e))
		}
		// Where nothing changes for the many, it is not said again.
		meets := p.meets(m.Meets)
		for _, line := range meets {
			if !slices.Contains(last, line) {
				lines = append(lines, line)
			}
		}
		last = meets
		lines = append(lines, marked(relaxations, m.Time)...)
		rows = append(rows, rowsOf(text.Date(m.Time, m.Events[0].Rule.Zone), lines)...)
	}
	return rows
}

// mark stands before what an operator should not miss.
const mark = "!! MILDER: "

// marked says what becomes milder at that time.
func marked(relaxations []policy.Relaxation, at time.Time) []string {
	var lines []string
	for _, m := range relaxations {
		if m.Time.Equal(at) {
			lines = append(lines, mark+relaxationWords(m))
		}
	}
	return lines
}

// meets says what those meet that no special rule takes, a line for each group
// of listeners.
func (p *Plan) meets(all []policy.Meeting) []string {
	who := "everybody"
	if slices.ContainsFunc(p.Policy.Rules(), func(r policy.Rule) bool { return slices.ContainsFunc(r.Match, special) }) {
		who = "everybody else"
	}
	var lines []string
	for _, m := range all {
		on := ""
		if len(all) > 1 {
			on = " on " + strings.Join(m.Listeners, ", ")
		}
		lines = append(lines, fmt.Sprintf("=> %s%s: %s", who, on, meetingWords(m)))
	}
	return lines
}

// special is a condition for more than a listener.
func special(c policy.Condition) bool { return c.Key.Name != "listener" }

// summary is what is open at the end.
func (p *Plan) summary(tl *policy.Timeline, relaxations []policy.Relaxation) []row {
	var rows []row
	switch {
	case len(tl.Moments) > 0:
		rows = append(rows, p.nextRow("next", &tl.Moments[0]))
	default:
		rows = append(rows, row{"next", "nothing changes before " + text.Date(tl.Until, time.UTC)})
	}
	if tl.Next != nil {
		rows = append(rows, p.nextRow("after this plan", tl.Next))
	}
	var open []string
	for _, r := range p.exemptions() {
		open = append(open, fmt.Sprintf("%s until %s, %s; owner %s", named(r), text.Date(r.Until, r.Zone), text.Ahead(r.Until.Sub(p.From)), r.Owner))
	}
	if open == nil {
		open = []string{"none"}
	}
	rows = append(rows, rowsOf("exemptions open", open)...)
	label, relaxed := "milder than before", []string(nil)
	for _, m := range relaxations {
		label = "!! milder than before"
		relaxed = append(relaxed, text.Date(m.Time, m.Rules[0].Zone)+": "+relaxationWords(m))
	}
	if relaxed == nil {
		relaxed = []string{"nowhere"}
	}
	return append(rows, rowsOf(label, relaxed)...)
}

func (p *Plan) nextRow(label string, m *policy.Moment) row {
	words := texts(m.Events, func(e policy.Event) string {
		if e.Kind == policy.Begins {
			return named(e.Rule) + " begins"
		}
		return eventWords(e)
	})
	return row{label, fmt.Sprintf("%s, %s: %s", text.Date(m.Time, m.Events[0].Rule.Zone), text.Ahead(m.Time.Sub(p.From)), strings.Join(words, ", "))}
}
