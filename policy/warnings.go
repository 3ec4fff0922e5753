package policy

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"
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
		for _, text := range slices.Concat(p.uselessness(i, now), r.oddities(), site.absent(r.Match)) {
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
	case r.Match != nil && r.Match.emptyKey() != "":
		return []string{"never matches: the list of " + r.Match.emptyKey() + " is empty"}
	case r.Share != nil && r.Share.From == 0 && r.Share.To == 0:
		return []string{"takes nobody: its share is 0%"}
	case r.Schedule != nil && !r.Schedule.opensWithin(r.remaining(now)):
		return []string{"its schedule never comes"}
	}
	for j := range p.rules[:i] {
		if earlier := &p.rules[j]; earlier.shadows(r, now) {
			return []string{fmt.Sprintf("never matches: the rule %q in line %d comes first and takes all of it", earlier.Name, earlier.Line)}
		}
	}
	return nil
}

// emptyKey names a key that is set and lists nothing.
func (m *Match) emptyKey() string {
	switch {
	case m.Clients != nil && len(m.Clients) == 0:
		return "client"
	case m.Listeners != nil && len(m.Listeners) == 0:
		return "listener"
	case m.Ports != nil && len(m.Ports) == 0:
		return "port"
	case m.ServerNames != nil && len(m.ServerNames) == 0:
		return "server_name"
	case m.Versions != nil && len(m.Versions) == 0:
		return "version"
	case m.JA4s != nil && len(m.JA4s) == 0:
		return "ja4"
	}
	return ""
}

// oddities says what is odd about a rule at any time.
func (r *Rule) oddities() (texts []string) {
	if r.Match != nil && r.takesAll() {
		texts = append(texts, "match is empty, so it takes every legacy handshake")
	}
	if r.Owner != "" && r.Until.IsZero() {
		texts = append(texts, "has an owner but no until: it is no exemption, since it never ends")
	}
	return texts
}

// scheduleHorizon is how far ahead an opening is looked for: 29 February may be
// eight years away.
const scheduleHorizon = 9 * 366 * 24 * time.Hour

// remaining is the time that a rule still has.
func (r *Rule) remaining(now time.Time) (from, until time.Time) {
	from = now
	if r.From.After(now) {
		from = r.From
	}
	until = from.Add(scheduleHorizon)
	if !r.Until.IsZero() {
		until = earlier(until, r.Until)
	}
	return from, until
}

func (s *Schedule) opensWithin(from, until time.Time) bool {
	if s.running(from) {
		return true
	}
	_, ok := s.next(from, until)
	return ok
}

// shadows reports whether r, which comes first, takes all that o would take
// from now on.
func (r *Rule) shadows(o *Rule, now time.Time) bool {
	begin := now
	if o.From.After(now) {
		begin = o.From
	}
	return r.always() && !begin.Before(r.From) &&
		(r.Until.IsZero() || !o.Until.IsZero() && !r.Until.Before(o.Until)) &&
		r.Match.covers(o.Match)
}

// covers reports whether m matches all that o matches.
func (m *Match) covers(o *Match) bool {
	if m == nil {
		return true
	}
	if o == nil {
		o = &Match{}
	}
	equal := func(a, b string) bool { return a == b }
	return coverAll(m.Clients, o.Clients, func(a, b netip.Prefix) bool { return a.Bits() <= b.Bits() && a.Contains(b.Addr()) }) &&
		coverAll(m.Listeners, o.Listeners, equal) &&
		coverAll(m.Ports, o.Ports, func(a, b uint16) bool { return a == b }) &&
		coverAll(m.ServerNames, o.ServerNames, func(a, b string) bool { return a == b || coversName(a, b) }) &&
		coverAll(m.Versions, o.Versions, func(a, b Version) bool { return a == b }) &&
		coverAll(m.JA4s, o.JA4s, equal)
}

// coverAll reports whether each value is covered by one of the others; nil is
// any value.
func coverAll[T any](by, values []T, covers func(a, b T) bool) bool {
	if by == nil {
		return true
	}
	return values != nil && !slices.ContainsFunc(values, func(v T) bool {
		return !slices.ContainsFunc(by, func(b T) bool { return covers(b, v) })
	})
}

// absent says which of the ports and names in a match nobody can come to.
func (s Site) absent(m *Match) (texts []string) {
	if m == nil {
		return nil
	}
	for _, port := range m.Ports {
		if s.Ports != nil && !slices.Contains(s.Ports, port) {
			texts = append(texts, fmt.Sprintf("no listener has the port %d", port))
		}
	}
	for _, name := range m.ServerNames {
		covered := func(host string) bool {
			host = lowerASCII(strings.TrimSuffix(host, "."))
			return host == name || coversName(host, name) || coversName(name, host)
		}
		if s.Names != nil && !slices.ContainsFunc(s.Names, covered) {
			texts = append(texts, "no certificate covers the name "+name)
		}
	}
	return texts
}
