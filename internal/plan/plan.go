// Package plan describes what a policy does: over time, and to one client.
package plan

import (
	"cmp"
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
	// From is included, Until is not.
	From, Until time.Time
	// Listeners lists the open listeners by name.
	Listeners []string
}

// relaxations returns those on open listeners.
func (p *Plan) relaxations() []policy.Relaxation {
	all := []policy.Relaxation{}
	for _, x := range p.Policy.Relaxations(p.From, p.Until) {
		x.Listeners = slices.DeleteFunc(slices.Clone(x.Listeners), func(l string) bool { return !slices.Contains(p.Listeners, l) })
		if len(x.Listeners) > 0 {
			all = append(all, x)
		}
	}
	return all
}

// exemptions returns the rules with an owner that have not ended yet, the first
// to end first.
func (p *Plan) exemptions() []*policy.Rule {
	all := slices.DeleteFunc(slices.Clone(p.Policy.Rules()), func(r *policy.Rule) bool {
		return !r.Exemption() || !p.From.Before(p.Policy.Ends(r))
	})
	slices.SortStableFunc(all, func(a, b *policy.Rule) int { return p.Policy.Ends(a).Compare(p.Policy.Ends(b)) })
	return all
}

// WriteText writes the plan for people, 100 columns wide.
func (p *Plan) WriteText(w io.Writer) error {
	tl := p.Policy.Timeline(p.From, p.Until, p.Listeners)
	relaxations := p.relaxations()
	var b strings.Builder
	fmt.Fprintf(&b, "%s, floor %v.\n", title(p.Source), p.Policy.Floor())
	fmt.Fprintf(&b, "What clients below the floor meet from %s to %s\n", text.Unglued(text.Date(p.From, time.UTC)), text.Unglued(text.Date(p.Until, time.UTC)))
	b.WriteString("(enforce: refused; explain: told why, then closed; observe: let in and counted):\n\n" + guards(p.Policy, p.From))
	b.WriteString(columns(p.moments(tl, relaxations)))
	b.WriteByte('\n')
	b.WriteString(columns(p.summary(tl, relaxations)))
	_, err := io.WriteString(w, b.String())
	return err
}

// guards says which have tripped or do not count yet, and what is the policy's own, which
// has no line of a rule.
func guards(p *policy.Policy, now time.Time) (words string) {
	for _, g := range p.Guards() {
		switch {
		case !g.Tripped.IsZero():
			words += lines("!! " + g.String())
		case g.Rule == policy.PolicyGuard, g.Released.After(now):
			words += lines(sentence("guard state", struct {
				policy.GuardState
				Waits bool
			}{g, g.Released.After(now)}))
		}
	}
	return words + text.Either(words != "", "\n", "")
}

func title(source string) string { return "Policy " + cmp.Or(source, "of the environment") }

// mark precedes lines that an operator should not miss.
const mark = "!! MILDER: "

// moments lists now and the times at which something changes.
func (p *Plan) moments(tl *policy.Timeline, relaxations []policy.Relaxation) []row {
	var rows []row
	var last []string
	now := policy.Moment{Time: tl.From, Events: tl.Running, Meets: tl.Meets}
	for i, m := range append([]policy.Moment{now}, tl.Moments...) {
		lines := text.Each(m.Events, eventWords)
		meets := p.meets(m.Meets)
		for _, line := range meets {
			if !slices.Contains(last, line) { // else nothing changes for the many
				lines = append(lines, line)
			}
		}
		last = meets
		for _, x := range relaxations {
			if x.Time.Equal(m.Time) {
				lines = append(lines, mark+relaxationWords(x))
			}
		}
		label := "now"
		switch {
		case i > 0:
			label = text.Date(m.Time, m.Events[0].Rule.Zone)
		case len(tl.Over) > 0:
			lines = append(lines, "over: "+strings.Join(text.Each(tl.Over, named), ", "))
		}
		rows = append(rows, rowsOf(label, lines)...)
	}
	return rows
}

// meets says what clients under no special rule meet, a line for each group of
// listeners.
func (p *Plan) meets(all []policy.Meeting) []string {
	some := slices.ContainsFunc(p.Policy.Rules(), func(r *policy.Rule) bool { return slices.ContainsFunc(r.Match, special) })
	who := text.Either(some, "everybody else", "everybody")
	return text.Each(all, func(m policy.Meeting) string {
		on := text.Either(len(all) > 1, " on "+strings.Join(m.Listeners, ", "), "")
		return fmt.Sprintf("=> %s%s: %s", who, on, meetingWords(m))
	})
}

// special reports whether a condition is about more than the listener.
func special(c policy.Condition) bool { return c.Key.Name != "listener" }

// summary lists what is open at the end.
func (p *Plan) summary(tl *policy.Timeline, relaxations []policy.Relaxation) []row {
	rows := []row{{"next", "nothing changes before " + text.Date(tl.Until, time.UTC)}}
	if len(tl.Moments) > 0 {
		rows[0] = p.nextRow("next", &tl.Moments[0])
	}
	if tl.Next != nil {
		rows = append(rows, p.nextRow("after this plan", tl.Next))
	}
	open := text.Each(p.exemptions(), func(r *policy.Rule) string {
		return fmt.Sprintf("%s until %s, %s; owner %s", named(r), text.Date(p.Policy.Ends(r), r.Zone), text.Ahead(p.Policy.Ends(r).Sub(p.From)), r.Owner)
	})
	if len(open) == 0 {
		open = []string{"none"}
	}
	rows = append(rows, rowsOf("exemptions open", open)...)
	if len(relaxations) == 0 {
		return append(rows, row{"milder than before", "nowhere"})
	}
	return append(rows, rowsOf("!! milder than before", text.Each(relaxations, func(x policy.Relaxation) string {
		return text.Date(x.Time, x.Rules[0].Zone) + ": " + relaxationWords(x)
	}))...)
}

func (p *Plan) nextRow(label string, m *policy.Moment) row {
	words := text.Each(m.Events, func(e policy.Event) string {
		if e.Kind == policy.Begins {
			return named(e.Rule) + " begins"
		}
		return eventWords(e)
	})
	return row{label, fmt.Sprintf("%s, %s: %s", text.Date(m.Time, m.Events[0].Rule.Zone), text.Ahead(m.Time.Sub(p.From)), strings.Join(words, ", "))}
}

// The JSON forms. Times are RFC 3339 in UTC; shares and parts go from 0 to 1.
type (
	planJSON struct {
		Policy string              `json:"policy"`
		Floor  string              `json:"floor"`
		Guards []policy.GuardState `json:"guards,omitempty"`
		*policy.Timeline
		Exemptions  []exemptionJSON     `json:"exemptions"`
		Relaxations []policy.Relaxation `json:"milder"`
	}
	exemptionJSON struct {
		Rule  string    `json:"rule"`
		Owner string    `json:"owner"`
		Until time.Time `json:"until"`
	}
	questionJSON struct {
		Policy string       `json:"policy"`
		Floor  policy.Floor `json:"floor"`
		Time   time.Time    `json:"time"`
		policy.Client
		Rules []stepJSON    `json:"rules"`
		Meets []outcomeJSON `json:"meets"`
	}
	stepJSON struct {
		Rule string      `json:"rule"`
		Mode policy.Mode `json:"mode"`
		policy.Step
		Text string `json:"text"`
	}
	outcomeJSON struct {
		Mode string  `json:"mode"`
		Rule string  `json:"rule"`
		Part float64 `json:"part"`
		// PassThrough: to the old server, also where Postern could serve.
		PassThrough bool   `json:"pass_through,omitempty"`
		Floor       string `json:"floor"`
		// GraceUntil is when the grace of the client ends, where it has begun.
		GraceUntil time.Time `json:"grace_until,omitzero"`
	}
)

// WriteJSON writes the plan for programs.
func (p *Plan) WriteJSON(w io.Writer) error {
	return text.WriteJSON(w, planJSON{
		Policy: p.Source, Floor: p.Policy.Floor().String(), Guards: p.Policy.Guards(), Timeline: p.Policy.Timeline(p.From, p.Until, p.Listeners),
		Exemptions: text.Each(p.exemptions(), func(r *policy.Rule) exemptionJSON {
			return exemptionJSON{r.Name, r.Owner, p.Policy.Ends(r)}
		}),
		Relaxations: p.relaxations(),
	})
}

// WriteJSON explains the decision for programs.
func (q *Question) WriteJSON(w io.Writer) error {
	steps := q.Policy.Explain(q.Client, q.Time)
	return text.WriteJSON(w, questionJSON{
		Policy: q.Source, Floor: q.Policy.Floor(), Time: q.Time.UTC(), Client: q.Client,
		Rules: text.Each(steps, func(s policy.Step) stepJSON {
			return stepJSON{s.Rule.Name, s.Rule.Mode, s, text.Unglued(q.stepWords(s))}
		}),
		Meets: text.Each(q.outcomes(), func(o policy.Outcome) outcomeJSON {
			j := outcomeJSON{Mode: o.Mode.String(), Part: o.Part, Floor: o.Floor.String(), GraceUntil: q.graceUntil(o.Rule)}
			if o.Rule != nil {
				j.Rule, j.PassThrough = o.Rule.Name, o.Rule.PassThrough
			}
			return j
		}),
	})
}

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
// another, also as its graces end. A share of connections that grows is shown by quarters.
func Course(p *policy.Policy, c policy.Client, from, until time.Time, graceEnds func(*policy.Rule) time.Time) []Turn {
	turn := func(m policy.Moment) Turn { return Turn{Time: m.Time, Rule: m.Events[0].Rule} }
	dates := append([]Turn{{Time: from}}, text.Each(p.Timeline(from, until, nil).Moments, turn)...)
	var course []Turn
	for i := 0; i < len(dates); i++ {
		next := until
		if i+1 < len(dates) {
			next = dates[i+1].Time
		}
		t := dates[i]
		for _, r := range p.Rules() {
			for _, at := range []time.Time{r.Reaches(c.Client), graceEnds(r)} {
				if at.After(t.Time) && at.Before(next) {
					next = at
					dates = slices.Insert(dates, i+1, Turn{Time: at, Rule: r})
				}
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
