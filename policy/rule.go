package policy

import (
	"time"

	"postern/internal/text"
)

// Rule says what meets some legacy handshakes for some time. The first rule of
// a policy that is in force and matches decides.
type Rule struct {
	Name string
	Mode Mode
	// PassThrough: with Observe, a client goes to the old server also where
	// crypto/tls could serve it.
	PassThrough bool
	// Match narrows the rule down; nil takes every legacy handshake.
	Match Match
	// Share narrows it down further, to a part of the clients or connections;
	// nil is all of them.
	Share *Share
	// From and Until bound the time in which the rule is in force: From is in
	// it, Until is not. Zero is no bound.
	From, Until time.Time
	// Schedule has the rule come and go within that time; nil is always.
	Schedule *Schedule
	// Zone is the time zone that people read the rule's dates in.
	Zone *time.Location
	// Owner answers for an exemption.
	Owner string
	// Line of the policy file on which the rule begins.
	Line int

	// place of the rule in its policy.
	place int
	// shuffle sets its share apart from those of other rules.
	shuffle [2]uint64
}

// MarshalText is the name.
func (r *Rule) MarshalText() ([]byte, error) { return []byte(r.Name), nil }

// Exemption reports whether the rule is a dated debt with an owner.
func (r *Rule) Exemption() bool { return r.Owner != "" && !r.Until.IsZero() }

// InForce reports whether the rule can take a handshake at that time.
func (r *Rule) InForce(t time.Time) bool {
	return r.within(t) && (r.Schedule == nil || r.Schedule.running(t))
}

// within reports whether t lies between the rule's dates.
func (r *Rule) within(t time.Time) bool { return !t.Before(r.From) && !r.ended(t) }

// withinBefore reports whether the moment right before t does.
func (r *Rule) withinBefore(t time.Time) bool {
	return r.From.Before(t) && (r.Until.IsZero() || !r.Until.Before(t))
}

// ended reports whether the rule will not be in force any more.
func (r *Rule) ended(t time.Time) bool { return !r.Until.IsZero() && !t.Before(r.Until) }

// always reports whether the rule, while between its dates, takes everything
// that it matches.
func (r *Rule) always() bool {
	return r.Schedule == nil && (r.Share == nil || r.Share.From == 1 && r.Share.To == 1)
}

// never reports whether the rule's share is nobody at any time.
func (r *Rule) never() bool { return r.Share != nil && r.Share.From == 0 && r.Share.To == 0 }

// dates are when the rule begins and ends; zero is never.
func (r *Rule) dates() []time.Time { return []time.Time{r.From, r.Until} }

// searched is how far ahead the next window is looked for: 29 February comes at
// least once in eight years.
const searched = 9 * 366 * 24 * time.Hour

// opens is when the next window of the rule's schedule opens at t or later;
// zero where none does.
func (r *Rule) opens(t time.Time) time.Time {
	t = text.Later(t, r.From)
	next, _ := r.Schedule.next(t, r.UpTo(t.Add(searched)))
	return next
}

// UpTo is a time, or the end of the rule where that is earlier.
func (r *Rule) UpTo(t time.Time) time.Time {
	if r.Until.IsZero() {
		return t
	}
	return text.Earlier(t, r.Until)
}

// Opens reports whether a window of the rule's schedule opens in [from, to).
func (r *Rule) Opens(from, to time.Time) bool {
	next := r.opens(from.Round(0))
	return !next.IsZero() && next.Before(to)
}
