package policy

import (
	"iter"
	"slices"
	"time"
)

// Outcome is the treatment of some or all of a group of legacy clients.
type Outcome struct {
	// Rule decides; nil is the policy's own mode and floor.
	Rule  *Rule `json:"rule"`
	Mode  Mode  `json:"mode"`
	Floor Floor `json:"-"`
	// Part is the part of the clients, from 0 to 1.
	Part float64 `json:"part"`
	// Graced: the mode is Explain for the grace of the rule, and Enforce from then on.
	Graced bool `json:"-"`
}

// outcomes is the one place where rules are evaluated: the first match wins,
// with shares. The rules of a set are asked in their order, and each takes its
// share, from 0 to 1, of what those before it have left. All of them are
// yielded, also with a part of 0; the policy's own mode, for what is left, comes
// last. What the rules set aside take is left for the others nevertheless.
func (p *Policy) outcomes(set, aside ruleSet, share func(*Rule) float64) iter.Seq[Outcome] {
	return func(yield func(Outcome) bool) {
		left := 1.0
		for i := set.first(); i >= 0; i = set.first() {
			r := p.rules[i]
			part := left * share(r)
			if !aside.has(i) {
				left -= part
			}
			if !yield(Outcome{r, r.Mode, r.Floor, part, false}) {
				return
			}
		}
		yield(Outcome{nil, p.mode, p.floor, left, false})
	}
}

// matching returns the rules of a set that have the client in their match. A
// hello, which may be nil, is hashed only where a rule asks for its fingerprint.
func (p *Policy) matching(set ruleSet, c *Client, h *Hello) ruleSet {
	for i := range p.keys {
		k := &p.keys[i]
		if !set.meets(&k.restricted) {
			continue
		}
		if h != nil && k.key.hashed {
			c.JA4 = h.Fingerprint()
		}
		others := k.restricted
		others.drop(k.find(*c))
		set.drop(&others)
	}
	return set
}

// outcome returns the outcome of one hello. For a share of connections the random
// value decides.
func (s *Snapshot) outcome(h *Hello, at ConnInfo, version Version, t time.Time, random uint64) (first Outcome) {
	c := Client{ConnInfo: at, ServerName: h.ServerName, Version: version}
	takes := func(r *Rule) float64 {
		if r.Share == nil || r.Share.takes(r, c.Client, t, random) {
			return 1
		}
		return 0
	}
	for o := range s.policy.outcomes(s.policy.matching(s.inForce, &c, h), ruleSet{}, takes) {
		if first = o; o.Part > 0 {
			break
		}
	}
	return first
}

// Outcomes returns what a legacy client meets at a time for which the snapshot
// is valid. It is one outcome, or several where it is left open whether a share
// has the client in it; the last is that of a client in none of these shares.
func (s *Snapshot) Outcomes(c Client, t time.Time) []Outcome {
	t = t.Round(0)
	share := func(r *Rule) float64 {
		if r.Share == nil {
			return 1
		}
		return (&Step{Rule: r}).askShare(c, t)
	}
	var all []Outcome
	for o := range s.policy.outcomes(s.policy.matching(s.inForce, &c, nil), ruleSet{}, share) {
		if o.Part > 0 {
			s.policy.grant(&o, c.Client, t)
			all = append(all, o)
		}
	}
	return all
}

// Step is one rule's answer to a handshake.
type Step struct {
	Rule   *Rule  `json:"-"`
	Answer Answer `json:"answer"`
	// Key is the first key that does not match.
	Key string `json:"key,omitempty"`
	// Time is when a rule begins or has ended; when the next window opens, and
	// when a growing share will have the client, or zero where that never
	// happens.
	Time time.Time `json:"time,omitzero"`
	// Position is where the client stands, Share the part that the rule takes
	// now, both from 0 to 1.
	Position float64 `json:"position,omitempty"`
	Share    float64 `json:"share,omitempty"`
}

// Answer is a rule's answer to a handshake.
type Answer string

// The answers.
const (
	// Takes: the rule decides.
	Takes Answer = "takes"
	// NotAsked: an earlier rule has decided.
	NotAsked Answer = "not_asked"
	// BeginsLater and HasEnded: the time is not between its dates.
	BeginsLater Answer = "begins_later"
	HasEnded    Answer = "has_ended"
	// BetweenWindows: its schedule is not open.
	BetweenWindows Answer = "between_windows"
	// NoMatch: a key of its match does not hold.
	NoMatch Answer = "no_match"
	// OutsideShare: it takes others.
	OutsideShare Answer = "outside_share"
	// TakesSome: it takes a share, and who is in it is left open: it is one of
	// connections, or the address is not known.
	TakesSome Answer = "takes_some"
)

// Explain explains, rule by rule, the [Snapshot.Outcomes] of a legacy client at a
// time.
func (p *Policy) Explain(c Client, t time.Time) []Step {
	t = t.Round(0)
	steps := make([]Step, len(p.rules))
	for _, k := range slices.Backward(p.keys) { // the first of several mismatches stays
		mismatched := k.restricted
		mismatched.drop(k.find(c))
		for i := mismatched.first(); i >= 0; i = mismatched.first() {
			steps[i].Key = k.key.Name
		}
	}
	taken := false
	for i, r := range p.rules {
		s := &steps[i]
		s.Rule, s.Answer = r, Takes
		if taken {
			s.Answer, s.Key = NotAsked, ""
			continue
		}
		s.ask(c, t)
		taken = s.Answer == Takes
	}
	return steps
}

// ask has the rule answer.
func (s *Step) ask(c Client, t time.Time) {
	switch r := s.Rule; {
	case r.ended(t):
		s.Answer, s.Key, s.Time = HasEnded, "", r.Until
	case s.Key != "":
		s.Answer = NoMatch
	case !r.within(t):
		s.Answer, s.Time = BeginsLater, r.From
	case !r.InForce(t):
		s.Answer, s.Time = BetweenWindows, r.opens(t)
	case r.Share != nil:
		s.askShare(c, t)
	}
}

// askShare finds where the client stands in the rule's share, and returns how
// much of such clients the rule takes, from 0 to 1.
func (s *Step) askShare(c Client, t time.Time) float64 {
	r := s.Rule
	s.Share = r.share(t)
	open := r.Share.Connection || !c.Client.IsValid()
	if !open {
		s.Position = r.Share.position(r, c.Client, 0)
	}
	switch {
	case open && s.Share > 0 && s.Share < 1:
		s.Answer = TakesSome
		return s.Share
	case s.Position < s.Share:
		return 1
	}
	s.Answer = OutsideShare
	if !open && r.Share.To > s.Position {
		s.Time = r.Share.reaches(r, s.Position)
	}
	return 0
}
