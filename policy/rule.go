package policy

import (
	"net/netip"
	"slices"
	"time"
)

// Rule says what meets some legacy handshakes for some time. The first rule of
// a policy that is in force and matches decides.
type Rule struct {
	Name string
	Mode Mode
	// Match narrows the rule down; nil takes every legacy handshake.
	Match *Match
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

	// shuffle sets its share apart from those of other rules.
	shuffle [2]uint64
}

// Exemption reports whether the rule is a dated debt with an owner.
func (r *Rule) Exemption() bool { return r.Owner != "" && !r.Until.IsZero() }

// Match is what a handshake must have for a rule to take it: one of the values
// of every key that is set. A key that is nil takes anything; one that is set
// but empty takes nothing.
type Match struct {
	Clients     []netip.Prefix
	Listeners   []string
	Ports       []uint16
	ServerNames []string // lower case; *.example.org stands for one label more
	Versions    []Version
	JA4s        []string
}

// Share is the part of the clients or of the connections that a rule takes.
// Between the rule's two dates it goes from From to To in a straight line.
type Share struct {
	From, To float64 // 0 to 1
	// Connection throws dice for every connection. Otherwise a client, which is
	// an IPv4 address or an IPv6 /64, gets the same answer each time.
	Connection bool
}

// ListenerNames lists the values that the key listener can have.
var ListenerNames = []string{"imaps", "pop3s", "imap", "pop3"}

// ja4Bytes are the fingerprints as a hello gives them; nil as they are.
func (m *Match) ja4Bytes() []JA4 {
	if m.JA4s == nil {
		return nil
	}
	list := make([]JA4, len(m.JA4s))
	for i, s := range m.JA4s {
		copy(list[i][:], s)
	}
	return list
}

// within reports whether t lies between the rule's dates.
func (r *Rule) within(t time.Time) bool {
	return !t.Before(r.From) && (r.Until.IsZero() || t.Before(r.Until))
}

// ended reports whether the rule will not be in force any more.
func (r *Rule) ended(t time.Time) bool { return !r.Until.IsZero() && !t.Before(r.Until) }

// InForce reports whether the rule can take a handshake at that time.
func (r *Rule) InForce(t time.Time) bool {
	return r.within(t) && (r.Schedule == nil || r.Schedule.running(t))
}

// ShareAt is the part of matching handshakes that the rule takes at that time,
// 0 to 1; 0 where it is not in force.
func (r *Rule) ShareAt(t time.Time) float64 {
	switch {
	case !r.InForce(t):
		return 0
	case r.Share == nil:
		return 1
	}
	return r.Share.at(r, t)
}

// at is the share at a time within the rule's dates.
func (s *Share) at(r *Rule, t time.Time) float64 {
	if s.From == s.To {
		return s.From
	}
	// Sub would saturate after 292 years.
	passed := float64(t.Unix()-r.From.Unix()) + float64(t.Nanosecond()-r.From.Nanosecond())/1e9
	whole := float64(r.Until.Unix()-r.From.Unix()) + float64(r.Until.Nanosecond()-r.From.Nanosecond())/1e9
	return s.From + (s.To-s.From)*min(max(passed/whole, 0), 1)
}

// always reports whether the rule, while between its dates, takes everything
// that it matches.
func (r *Rule) always() bool {
	return r.Schedule == nil && (r.Share == nil || r.Share.From == 1 && r.Share.To == 1)
}

// takesAll reports whether it matches every legacy handshake.
func (r *Rule) takesAll() bool {
	return r.Match == nil || r.Match.onlyListeners() && r.Match.Listeners == nil
}

// takesAny reports whether there is anything on a listener that the rule takes
// while it is in force.
func (r *Rule) takesAny(listener string) bool {
	if m := r.Match; m != nil && (m.emptyKey() != "" || m.Listeners != nil && !slices.Contains(m.Listeners, listener)) {
		return false
	}
	return r.Share == nil || r.Share.From > 0 || r.Share.To > 0
}

// refusesAll reports whether nobody on a listener gets past the rule at that
// time.
func (r *Rule) refusesAll(listener string, t time.Time) bool {
	return r.Mode == Enforce && r.always() && r.within(t) && r.forEverybodyAt(listener)
}

// onlyListeners reports whether no other key is set.
func (m *Match) onlyListeners() bool {
	return m.Clients == nil && m.Ports == nil && m.ServerNames == nil && m.Versions == nil && m.JA4s == nil
}
