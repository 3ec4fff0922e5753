package policy

import (
	"fmt"
	"strings"
	"time"
)

// Client is what the rules ask of a legacy handshake.
type Client struct {
	ConnInfo
	Version    Version
	ServerName string // empty: it sends none
	JA4        string // empty: not known
	// Dice decide for rules that take a share of connections; nil leaves that
	// open.
	Dice *uint64
}

// Step is what one rule says to a handshake.
type Step struct {
	Rule   *Rule
	Answer Answer
	// Key is the key of the match that does not hold.
	Key string
	// Time is when a rule begins or has ended; when the next window opens, and
	// when a growing share will have the client, or zero where that never
	// happens.
	Time time.Time
	// Position is where the client or connection stands, Share the part that the
	// rule takes now, both from 0 to 1.
	Position, Share float64
}

// Answer is what a rule makes of a handshake.
type Answer uint8

// The answers.
const (
	// Takes: the rule decides.
	Takes Answer = iota
	// NotAsked: another one has decided before.
	NotAsked
	// BeginsLater and HasEnded: the time is not between its dates.
	BeginsLater
	HasEnded
	// BetweenWindows: its schedule is not open.
	BetweenWindows
	// NoMatch: a key of its match does not hold.
	NoMatch
	// OutsideShare: it takes others.
	OutsideShare
	// TakesSome: it takes a share, and who is in it is left open, for want of
	// dice or of an address.
	TakesSome
)

// String returns the answer's name.
func (a Answer) String() string {
	return [...]string{"takes", "not_asked", "begins_later", "has_ended", "between_windows", "no_match", "outside_share", "takes_some"}[a]
}

// Explain says rule by rule how a legacy handshake is decided on at a time, as
// [Snapshot.Decide] does it. Which mode it meets is that of the rule that takes
// it, or the policy's own.
func (p *Policy) Explain(c *Client, t time.Time) []Step {
	t = t.Round(0)
	steps := make([]Step, len(p.rules))
	taken := false
	for i := range p.rules {
		s := &steps[i]
		s.Rule = &p.rules[i]
		if taken {
			s.Answer = NotAsked
			continue
		}
		s.ask(c, t)
		taken = s.Answer == Takes
	}
	return steps
}

// Taken returns the rule that takes a legacy handshake at a time for which the
// snapshot is valid, as [Policy.Explain] finds it; nil where none does. A rule
// whose share is left open is passed over.
func (s *Snapshot) Taken(c *Client, t time.Time) *Rule {
	t = t.Round(0)
	set := s.inForce
	for i := set.first(); i >= 0; i = set.first() {
		step := Step{Rule: &s.policy.rules[i]}
		if step.ask(c, t); step.Answer == Takes {
			return step.Rule
		}
	}
	return nil
}

// searched is how far ahead the next window is looked for: 29 February comes at
// least once in eight years.
const searched = 9 * 366 * 24 * time.Hour

// ask has the rule answer.
func (s *Step) ask(c *Client, t time.Time) {
	r := s.Rule
	s.Key = r.Match.mismatch(c.Version, c.ServerName, func() string { return c.JA4 }, &c.ConnInfo)
	switch {
	case r.ended(t):
		s.Answer, s.Key, s.Time = HasEnded, "", r.Until
	case s.Key != "":
		s.Answer = NoMatch
	case !r.within(t):
		s.Answer, s.Time = BeginsLater, r.From
	case !r.InForce(t):
		limit := t.Add(searched)
		if !r.Until.IsZero() {
			limit = earlier(limit, r.Until)
		}
		s.Answer = BetweenWindows
		s.Time, _ = r.Schedule.next(t, limit)
	case r.Share != nil:
		s.askShare(c, t)
	}
}

func (s *Step) askShare(c *Client, t time.Time) {
	r := s.Rule
	s.Share = r.Share.at(r, t)
	open := c.Dice == nil
	if !r.Share.Connection {
		open = !c.Client.IsValid()
	}
	if open {
		switch {
		case s.Share <= 0:
			s.Answer = OutsideShare
		case s.Share < 1:
			s.Answer = TakesSome
		}
		return
	}
	var dice uint64
	if c.Dice != nil {
		dice = *c.Dice
	}
	s.Position = r.Share.position(r, c.Client, dice)
	if s.Position < s.Share {
		return
	}
	s.Answer = OutsideShare
	if !r.Share.Connection && r.Share.To > s.Position {
		s.Time = r.Share.reaches(r, s.Position)
	}
}

// reaches is when a growing share comes to a part.
func (s *Share) reaches(r *Rule, part float64) time.Time {
	whole := float64(r.Until.Unix() - r.From.Unix())
	seconds := whole * (part - s.From) / (s.To - s.From)
	return time.Unix(r.From.Unix()+int64(seconds)+1, 0).UTC()
}

// ParseVersion, ParseListener, ParseServerName and ParseJA4 read what stands
// under the keys of a match; here a name has no *.
func ParseVersion(s string) (Version, error) { return parseVersion(s) }

// ParseListener is explained at [ParseVersion].
func ParseListener(s string) (string, error) { return parseListener(s) }

// ParseJA4 is explained at [ParseVersion].
func ParseJA4(s string) (string, error) { return parseJA4(s) }

// ParseServerName is explained at [ParseVersion].
func ParseServerName(s string) (string, error) {
	if strings.HasPrefix(s, "*.") {
		return "", fmt.Errorf("%q is no name that a client sends", clip(s))
	}
	return parseServerName(s)
}
