package policy

import (
	"crypto/sha256"
	"encoding/binary"
	"net/netip"
	"time"

	"postern/internal/text"
)

// Rule says what meets some legacy handshakes for some time. The first rule of
// a policy that is in force and matches decides.
type Rule struct {
	Name string
	Mode Mode
	// Floor is what a handshake that it takes must reach: that of the policy, unless
	// OwnFloor.
	Floor    Floor
	OwnFloor bool
	// PassThrough: with Observe, a client goes to the old server also where
	// crypto/tls could serve it.
	PassThrough bool
	// Guard takes the rule back where it hurts; nil does not.
	Guard *Guard
	// Grace has Enforce tell a client why, which is known to have logged in, for so long
	// from its first refusal on.
	Grace time.Duration
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

// OwnFloorName is the name of the rule's own floor; empty where it has none.
func (r *Rule) OwnFloorName() string {
	return text.Either(r.OwnFloor, r.Floor.String(), "")
}

// Exemption reports whether the rule is a dated debt with an owner.
func (r *Rule) Exemption() bool { return r.Owner != "" && !r.Until.IsZero() }

// InForce reports whether the rule can take a handshake at that time.
func (r *Rule) InForce(t time.Time) bool {
	return r.within(t) && (r.Schedule == nil || r.Schedule.running(t))
}

// within reports whether t lies between the rule's dates.
func (r *Rule) within(t time.Time) bool { return !t.Before(r.From) && !r.ended(t) }

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
	limit := r.UpTo(t.Add(searched))
	if next := r.Schedule.next(t, limit); next.Before(limit) {
		return next
	}
	return time.Time{}
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

// Share is the part of the clients or of the connections that a rule takes.
// Between the rule's two dates it goes from From to To in a straight line.
type Share struct {
	From, To float64 // 0 to 1
	// Connection has a random value decide for every connection. Otherwise a
	// client, as [ClientPrefix] has it, gets the same answer each time.
	Connection bool
}

// Changes reports whether the share depends on the time.
func (s *Share) Changes() bool { return s != nil && s.From != s.To }

// ShareAt is the part of matching handshakes that the rule takes at that time,
// 0 to 1; 0 where it is not in force.
func (r *Rule) ShareAt(t time.Time) float64 {
	if !r.InForce(t) {
		return 0
	}
	return r.share(t)
}

// share is the part that the rule takes at a time within its dates, while its
// schedule is open.
func (r *Rule) share(t time.Time) float64 {
	switch s := r.Share; {
	case s == nil:
		return 1
	case s.From == s.To:
		return s.From
	default:
		// Sub would saturate after 292 years.
		passed := float64(t.Unix()-r.From.Unix()) + float64(t.Nanosecond()-r.From.Nanosecond())/1e9
		whole := float64(r.Until.Unix()-r.From.Unix()) + float64(r.Until.Nanosecond()-r.From.Nanosecond())/1e9
		return s.From + (s.To-s.From)*min(max(passed/whole, 0), 1)
	}
}

// reaches is when a growing share comes to a part.
func (s *Share) reaches(r *Rule, part float64) time.Time {
	whole := float64(r.Until.Unix() - r.From.Unix())
	seconds := whole * (part - s.From) / (s.To - s.From)
	return time.Unix(r.From.Unix()+int64(seconds)+1, 0).UTC()
}

// Reaches is when the rule's share comes to a client as it grows, or leaves it as
// it shrinks; zero where it does not.
func (r *Rule) Reaches(client netip.Addr) time.Time {
	s := r.Share
	if !s.Changes() || s.Connection || !client.IsValid() {
		return time.Time{}
	}
	part := s.position(r, client, 0)
	if part < min(s.From, s.To) || part >= max(s.From, s.To) {
		return time.Time{}
	}
	return s.reaches(r, part)
}

// takes reports whether the share at that time has the client, or the
// connection, in it. For a client that depends on nothing but the rule's name,
// its address and the share: it is the same on every replica and after a
// restart, and a client that is in stays in while the share grows.
func (s *Share) takes(r *Rule, client netip.Addr, t time.Time, random uint64) bool {
	share := r.share(t)
	return share >= 1 || share > 0 && s.position(r, client, random) < share
}

// position is where a client or connection stands between 0 and 1: a share
// takes those below it.
func (s *Share) position(r *Rule, client netip.Addr, random uint64) float64 {
	x := random
	if !s.Connection {
		x = clientNumber(client)
	}
	// Every rule shuffles anew: the tenth that one takes is not the tenth that
	// another takes.
	x = mix(mix(x^r.shuffle[0]) + r.shuffle[1])
	return float64(x>>11) / (1 << 53)
}

// ClientPrefix returns the network that counts as one client: the address itself
// for IPv4, also if it is mapped into IPv6, and the /64 for IPv6, without a zone.
// It returns the zero Prefix for the zero Addr. It does not allocate.
func ClientPrefix(client netip.Addr) netip.Prefix {
	client = client.Unmap().WithZone("")
	p, _ := client.Prefix(min(client.BitLen(), 64)) // no error: it has as many bits
	return p
}

// clientNumber is the client as a number.
func clientNumber(client netip.Addr) uint64 {
	client = ClientPrefix(client).Addr()
	b := client.As16()
	if client.Is4() {
		return uint64(binary.BigEndian.Uint32(b[12:]))
	}
	return binary.BigEndian.Uint64(b[:8])
}

// shuffleOf makes a rule's own numbers out of its name.
func shuffleOf(name string) [2]uint64 {
	sum := sha256.Sum256([]byte(name))
	return [2]uint64{binary.BigEndian.Uint64(sum[:8]), binary.BigEndian.Uint64(sum[8:16])}
}

// mix is the finalizer of MurmurHash3: every bit of x decides on every bit of
// the result, and no two x have the same.
func mix(x uint64) uint64 {
	x ^= x >> 33
	x *= 0xff51afd7ed558ccd
	x ^= x >> 33
	x *= 0xc4ceb9fe1a85ec53
	return x ^ x>>33
}
