package policy

import (
	"cmp"
	"fmt"
	"slices"
	"time"
)

// Warning is something about a policy that is allowed, but probably not meant.
// Unlike a Problem it may depend on the clock.
type Warning struct {
	// Line of the policy file; 0 where there is none.
	Line int
	// Rule is the name of the rule that it is about; empty where it is about
	// none or several.
	Rule string
	Text string
}

// String returns line: rule: text.
func (w Warning) String() string {
	s := w.Text
	if w.Rule != "" {
		s = fmt.Sprintf("rule %q: %s", w.Rule, s)
	}
	if w.Line > 0 {
		s = fmt.Sprintf("%d: %s", w.Line, s)
	}
	return s
}

// Site is what there is for rules to match, as far as it is known.
type Site struct {
	// Ports are those of the listeners; nil where they are not known.
	Ports []uint16
	// Names are the host names of the certificates, wildcards among them; nil
	// where they are not known.
	Names []string
}

// Warnings says what of the policy, as of now, is probably not meant: rules that
// never match, or no more; ports and names that nobody can come to; and times at
// which the policy becomes milder than before.
func (p *Policy) Warnings(now time.Time, site Site) []Warning {
	var all []Warning
	for i := range p.rules {
		r := &p.rules[i]
		texts := append(p.uselessness(i, now), r.oddities()...)
		for _, c := range r.Match {
			texts = append(texts, c.missing(site)...)
		}
		for _, text := range texts {
			all = append(all, Warning{Line: r.Line, Rule: r.Name, Text: text})
		}
	}
	slices.SortStableFunc(all, func(a, b Warning) int { return cmp.Compare(a.Line, b.Line) })
	// What has been is known: from now on.
	for _, m := range p.Relaxations(now, endOfTime) {
		all = append(all, Warning{Text: "becomes milder at " + m.Time.UTC().Format(time.RFC3339) + ": " + m.String()})
	}
	return all
}

// endOfTime is later than any date in a policy.
var endOfTime = time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC)

// uselessness says why a rule takes nothing from now on, if so.
func (p *Policy) uselessness(i int, now time.Time) []string {
	r := &p.rules[i]
	switch {
	case r.ended(now) && r.Exemption():
		return []string{fmt.Sprintf("the exemption ran out at %s; its owner is %s", r.Until.Format(time.RFC3339), r.Owner)}
	case r.ended(now):
		return []string{"ended at " + r.Until.Format(time.RFC3339)}
	case r.Match.empty() != "":
		return []string{"never matches: the list of " + r.Match.empty() + " is empty"}
	case r.never():
		return []string{"takes nobody: its share is 0%"}
	case r.Schedule != nil && !r.Schedule.running(later(now, r.From)) && r.opens(now).IsZero():
		return []string{"its schedule never comes"}
	}
	for j := range p.rules[:i] {
		if earlier := &p.rules[j]; earlier.shadows(r, now) {
			return []string{fmt.Sprintf("never matches: the rule %q in line %d comes first and takes all of it", earlier.Name, earlier.Line)}
		}
	}
	return nil
}

// oddities says what is odd about a rule at any time.
func (r *Rule) oddities() (texts []string) {
	if r.Match != nil && len(r.Match) == 0 {
		texts = append(texts, "match is empty, so it takes every legacy handshake")
	}
	if r.Owner != "" && r.Until.IsZero() {
		texts = append(texts, "has an owner but no until: it is no exemption, since it never ends")
	}
	return texts
}

// shadows reports whether r, which comes first, takes all that o would take
// from now on.
func (r *Rule) shadows(o *Rule, now time.Time) bool {
	return r.always() && !later(now, o.From).Before(r.From) &&
		(r.Until.IsZero() || !o.Until.IsZero() && !r.Until.Before(o.Until)) &&
		r.Match.covers(o.Match)
}

// missing says which of the values nobody can have at a site.
func (c Condition) missing(site Site) (texts []string) {
	for _, v := range c.Values {
		if c.Key.missing == nil {
			break
		}
		if text := c.Key.missing(site, v); text != "" {
			texts = append(texts, text)
		}
	}
	return texts
}
