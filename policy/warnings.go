package policy

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"postern/internal/text"
)

// Site has the ports and names that rules can match, as far as they are known.
type Site struct {
	// Ports are those of the listeners; nil where they are not known.
	Ports []uint16
	// Names are the host names of the certificates, wildcards among them; nil
	// where they are not known.
	Names []string
	// Listeners are those that are open; nil where they are not known.
	Listeners []SiteListener
}

// SiteListener is one of ListenerNames and its ports.
type SiteListener struct {
	Name  string
	Ports []uint16
	// OldServer: there is one that clients can be passed through to.
	OldServer bool
}

// Warnings returns what is probably not meant in the policy, as of now: rules that
// never match, or no longer do; ports and names that no client can use; times at
// which the policy is relaxed; and candidates that remember nobody.
func (p *Policy) Warnings(now time.Time, site Site) []Problem {
	all := slices.Clone(p.doubts)
	const rsaKeyExchange = "the floor tls1.2-compat has RSA key exchange, which RFC 10015 forbids to servers since July 2026: go on to tls1.2 once nobody needs it"
	if p.floor == FloorTLS12Compat {
		all = append(all, Problem{Text: rsaKeyExchange})
	}
	lowest := slices.MinFunc(p.Floors(), Floor.Compare)
	for _, c := range p.Remembered() {
		if c.Floor.Compare(lowest) <= 0 {
			all = append(all, Problem{Text: fmt.Sprintf("candidate %q remembers nobody, since no floor here is below %s: give it a higher one", c.Name, c.Floor)})
		}
	}
	for _, r := range p.rules {
		warn := func(holds bool, words string) {
			if holds && words != "" {
				all = append(all, Problem{Line: r.Line, Rule: r.Name, Text: words})
			}
		}
		open := !r.ended(now)
		warn(true, p.uselessness(r, now))
		warn(open && r.OwnFloor && r.Floor == FloorTLS12Compat, rsaKeyExchange)
		warn(true, r.overlap(now))
		warn(r.From.After(now.AddDate(10, 0, 0)), "begins only in "+strconv.Itoa(r.From.Year())+": mend the year, if that is not meant")
		warn(r.Match != nil && len(r.Match) == 0, "match is empty, so it takes every legacy handshake: give it a key, or take it away")
		warn(r.Owner != "" && r.Until.IsZero(), "has an owner but no until: it is no exemption, since it never ends: add until")
		warn(open && r.PassThrough, p.stays(r, site))
		for _, c := range r.Match {
			for _, v := range c.Values {
				if c.Key.missing != nil {
					warn(true, c.Key.missing(site, v))
				}
			}
		}
	}
	slices.SortStableFunc(all, byPlace)
	// The past does not matter.
	for _, m := range p.Relaxations(now, endOfTime) {
		all = append(all, Problem{Text: "becomes milder at " + m.Time.UTC().Format(time.RFC3339) + ": " + m.Text})
	}
	return all
}

// stays names the listeners on which the rule cannot pass anybody through.
func (p *Policy) stays(r *Rule, s Site) string {
	var names []string
	for _, l := range s.Listeners {
		if !l.OldServer && p.like(r, l.Name).has(r.place) && r.Match.onPort(l.Ports) {
			names = append(names, l.Name)
		}
	}
	if names == nil {
		return ""
	}
	return "pass_through: no old server for " + strings.Join(names, ", ") + ", where its clients are served by Postern: set POSTERN_UPSTREAM_PASSTHROUGH_IMAPS or _POP3S and restart; " +
		"after STARTTLS nobody can be passed through"
}

// onPort reports whether the match takes one of the ports.
func (m Match) onPort(ports []uint16) bool {
	listed, ok := m.of("port")
	return !ok || slices.ContainsFunc(ports, func(p uint16) bool { return slices.Contains(listed, strconv.Itoa(int(p))) })
}

// overlapsLookedFor is how many windows of a schedule are compared with the next.
const overlapsLookedFor = 100

// overlap says that the windows of the rule's schedule run into each other, which
// may make one long window of them.
func (r *Rule) overlap(now time.Time) string {
	if r.Schedule == nil || r.ended(now) {
		return ""
	}
	// Where the clocks go back, a minute comes twice: that is no overlap.
	s := *r.Schedule
	s.Zone = time.UTC
	from, until := text.Later(now, r.From), r.UpTo(endOfTime)
	for range overlapsLookedFor {
		limit := text.Earlier(until, from.Add(searched))
		t := s.next(from, limit)
		if !t.Before(limit) {
			return ""
		}
		from = text.Earlier(until, t.Add(s.For))
		if s.next(t.Add(time.Minute), from).Before(from) {
			return "its windows overlap: the next opens while one is open still; look at the fields of schedule (the first is the minute, the second the hour), or set for to less"
		}
	}
	return ""
}

// endOfTime is later than any date in a policy.
var endOfTime = time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC)

// uselessness says why a rule takes nothing from now on, if so.
func (p *Policy) uselessness(r *Rule, now time.Time) string {
	switch {
	case r.ended(now) && r.Exemption():
		return fmt.Sprintf("the exemption ran out at %s; its owner is %s: set a later until, or remove the rule", r.Until.Format(time.RFC3339), r.Owner)
	case r.ended(now):
		return "ended at " + r.Until.Format(time.RFC3339) + ": set a later until, or remove the rule"
	case r.Match.empty() != "":
		return "never matches: the list of " + r.Match.empty() + " is empty: fill it, or take the key away"
	case r.never():
		return "takes nobody: its share is 0%: give it more, or remove the rule"
	case r.Schedule != nil && !r.Schedule.running(text.Later(now, r.From)) && r.opens(now).IsZero():
		return "its schedule never comes: mend its days and months, or remove the rule"
	}
	switch first := p.overtaker(r); {
	case first == nil:
	case !text.Later(now, r.From).Before(first.From):
		return fmt.Sprintf("never matches: the rule %q in line %d comes first and takes all of it: put it before that rule", first.Name, first.Line)
	case first.From.Before(r.Until):
		return fmt.Sprintf("matches no more from %s on, before its until: the rule %q in line %d comes first and takes all of it then: put it before that rule",
			first.From.Format(time.RFC3339), first.Name, first.Line)
	}
	return ""
}

// overtaker is the first to begin of the rules that come before r and take all of it
// then; nil if none does.
func (p *Policy) overtaker(r *Rule) (first *Rule) {
	for _, o := range p.rules[:r.place] {
		if o.shadows(r) && (first == nil || o.From.Before(first.From)) {
			first = o
		}
	}
	return first
}

// Ends is when an exemption ends: at its until, or before that where a rule that
// comes first takes all of it.
func (p *Policy) Ends(r *Rule) time.Time {
	if first := p.overtaker(r); first != nil {
		return text.Earlier(first.From, r.Until)
	}
	return r.Until
}

// shadows reports whether r, which comes first, takes all that o would take
// once it has begun.
func (r *Rule) shadows(o *Rule) bool {
	return r.always() && (r.Until.IsZero() || !o.Until.IsZero() && !r.Until.Before(o.Until)) && r.Match.covers(o.Match)
}

// Problem is one thing that is wrong with a policy file, or that is allowed but
// probably not meant: a warning, which may depend on the clock.
type Problem struct {
	// Line and Column are where, from 1 on; 0 where there is no such place. A
	// warning has no column.
	Line   int `json:"line,omitempty"`
	Column int `json:"-"`
	// Rule or Candidate is the name of the one that it is about; both are empty
	// where it is about none, or one without a name.
	Rule      string `json:"rule,omitempty"`
	Candidate string `json:"-"`
	Text      string `json:"warning"`
}

// String returns line:column: rule: text.
func (p Problem) String() string {
	s := p.Text
	switch {
	case p.Rule != "":
		s = fmt.Sprintf("rule %q: %s", p.Rule, s)
	case p.Candidate != "":
		s = fmt.Sprintf("candidate %q: %s", p.Candidate, s)
	}
	switch {
	case p.Column > 0:
		return fmt.Sprintf("%d:%d: %s", p.Line, p.Column, s)
	case p.Line > 0:
		return fmt.Sprintf("%d: %s", p.Line, s)
	}
	return s
}

// Problems is all that is wrong with a policy file, by line.
type Problems []Problem

// Error returns the problems, one a line.
func (p Problems) Error() string {
	return strings.Join(text.Each(p, Problem.String), "\n")
}

// byPlace is the order in which problems are listed.
func byPlace(a, b Problem) int {
	return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
}
