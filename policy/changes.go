package policy

import "time"

// Change is a moment at which rules come into force or go out of it.
type Change struct {
	Time time.Time
	// Begun and Ended are the rules' names, in the order of the policy.
	Begun, Ended []string
	// Now is what is in force from then on.
	Now Snapshot
}

// Changes lists what comes after a time and before another: the first changes,
// so many at most. Windows of schedules are among them.
func (p *Policy) Changes(after, before time.Time, most int) []Change {
	var all []Change
	last := p.At(after)
	for len(all) < most && last.Until.Before(before) {
		now := p.At(last.Until)
		if begun, ended := now.Since(&last); len(begun)+len(ended) > 0 {
			all = append(all, Change{Time: last.Until, Begun: begun, Ended: ended, Now: now})
		}
		last = now
	}
	return all
}

// Since lists the rules that have come into force, and gone out of it, since an
// earlier snapshot of the same policy, by name.
func (s *Snapshot) Since(last *Snapshot) (begun, ended []string) {
	return s.policy.names(s.inForce.without(&last.inForce)), s.policy.names(last.inForce.without(&s.inForce))
}

// InForce lists the rules that are in force, by name, in their order.
func (s *Snapshot) InForce() []string { return s.policy.names(s.inForce) }

func (p *Policy) names(set ruleSet) []string {
	names := []string{}
	for i := set.first(); i >= 0; i = set.first() {
		names = append(names, p.rules[i].Name)
	}
	return names
}
