package policy

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"time"

	"go.yaml.in/yaml/v3"

	"postern/internal/text"
)

// Guard takes a rule, or the mode of the policy, back where it hurts: when within
// Within more than Clients distinct clients that had logged in before have been refused
// or told why. It stays tripped until somebody releases it.
type Guard struct {
	Clients int           // more of them trip it
	Within  time.Duration // how long a refusal counts
	// Then is the mode from there on for everybody that the rule takes; with Hold the
	// mode stays, and the share of the rule stops growing.
	Then Mode
	Hold bool
}

// String returns what the guard does, as in observe or hold.
func (g *Guard) String() string {
	if g.Hold {
		return "hold"
	}
	return g.Then.String()
}

// PolicyGuard is the name of the guard of the policy's own mode, among those of rules.
// No rule can have it.
const PolicyGuard = "(policy)"

// GuardState is a guard, and what is known of it. Its JSON is that of the API.
type GuardState struct {
	Rule string `json:"rule"`
	// Clients, Within and Then are as in the policy.
	Clients int    `json:"clients"`
	Within  string `json:"within"`
	Then    string `json:"then"`
	// Seen is how many clients count now: distinct ones that had logged in, refused or
	// told why within that time.
	Seen int `json:"seen"`
	// Tripped is since when; zero where it has not. What was before Released does not
	// count.
	Tripped  time.Time `json:"tripped,omitzero"`
	Released time.Time `json:"released,omitzero"`
	Guard    *Guard    `json:"-"`
}

// watch adds what a rule, or the policy itself, has of guard and grace.
func (p *Policy) watch(name string, g *Guard, grace time.Duration) {
	if g != nil {
		p.guards = append(p.guards, GuardState{Rule: name, Clients: g.Clients, Within: text.Duration(g.Within), Then: g.String(), Guard: g})
	}
	if g != nil || grace > 0 {
		p.watched[name] = true
	}
}

// Guards returns the guards, as they are where it was made by Guarded. They are not to be
// changed.
func (p *Policy) Guards() []GuardState { return p.guards }

// Watches reports whether it matters whom a rule, or by an empty name the mode of the
// policy, refuses or tells why: there is a guard or a grace.
func (p *Policy) Watches(rule string) bool { return p.watched[cmp.Or(rule, PolicyGuard)] }

// WatchesAny reports whether there is any guard or grace.
func (p *Policy) WatchesAny() bool { return len(p.watched) > 0 }

// A Graced function reports whether a rule that refuses a client tells it why instead at
// that time: the client is known to have logged in, and the grace of the rule is not over.
type Graced func(r *Rule, client netip.Addr, t time.Time) bool

// Guarded returns the policy of a file as it is with its guards in some states, and with
// who is asked where a rule with a grace refuses; nil grants none. States of guards that it
// has not are passed over.
func (p *Policy) Guarded(states []GuardState, graced Graced) *Policy {
	q := *p
	q.graced, q.guards, q.rules = graced, slices.Clone(p.guards), slices.Clone(p.rules)
	for i := range q.guards {
		g := &q.guards[i]
		for _, s := range states {
			if s.Rule == g.Rule {
				g.Seen, g.Tripped, g.Released = s.Seen, s.Tripped, s.Released
			}
		}
		if rule := p.Rule(g.Rule); !g.Tripped.IsZero() && rule != nil {
			q.rules[rule.place] = rule.taken(g.Tripped)
		} else if !g.Tripped.IsZero() {
			q.mode = g.Guard.Then
		}
	}
	return &q
}

// taken returns the rule as it is since its guard has tripped.
func (r *Rule) taken(t time.Time) *Rule {
	c := *r
	if c.Mode = r.Guard.Then; r.Guard.Hold {
		held := r.share(t)
		c.Mode, c.Share = r.Mode, &Share{From: held, To: held, Connection: r.Share.Connection}
	}
	return &c
}

const (
	maxGuardClients = 1_000_000
	maxWithin       = 30 * 24 * time.Hour
)

func (f *file) readGuard(n *yaml.Node) *Guard {
	g := &Guard{}
	f.mapping(n, "guard", map[string]field{
		"clients": scalar(f, "clients", &g.Clients, func(s string) (int, error) {
			if n, err := strconv.Atoi(s); err == nil && n >= 0 && n <= maxGuardClients {
				return n, nil
			}
			return 0, fmt.Errorf("%q is not a number from 0 to %d: more clients than that trip the guard", clip(s), maxGuardClients)
		}),
		"within": scalar(f, "within", &g.Within, func(s string) (time.Duration, error) {
			d, err := parseOpen(s)
			if err == nil && d > maxWithin {
				err = errors.New("longer than 30 days: a guard is for what a cut breaks at once")
			}
			return d, err
		}),
		"then": scalar(f, "then", &g.Then, func(s string) (m Mode, err error) {
			if g.Hold = s == "hold"; !g.Hold {
				if m, err = ParseMode(s); err != nil {
					err = fmt.Errorf("%w, hold", err)
				}
			}
			return m, err
		}),
	}, "clients", "within", "then")
	return g
}

// checkGuard adds what is wrong with a guard beside what it guards.
func (f *file) checkGuard(n *yaml.Node, g *Guard, mode Mode, share *Share) {
	switch {
	case g == nil:
	case mode == Observe:
		f.add(n, "a guard needs mode: enforce or explain: nobody is refused or told why in observe")
	case g.Hold && (share == nil || share.From >= share.To):
		f.add(n, "then: hold needs a share that grows: write then: explain or then: observe")
	case !g.Hold && g.Then <= mode:
		f.add(n, "then: %v is no more lenient than mode: %v: write then: observe", g.Then, mode)
	}
}
