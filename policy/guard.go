package policy

import (
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
	// Then is the mode from there on for everybody that the rule takes, or hold: the mode
	// stays, and the share of the rule stops growing.
	Then Mode
}

// hold is what a guard may do beside the modes.
const hold = Observe + 1

// PolicyGuard is the name of the guard of the policy's own mode, among those of rules.
// No rule can have it.
const PolicyGuard = "(policy)"

// GuardState is a guard, and what is known of it. Its JSON is that of the API.
type GuardState struct {
	Rule string `json:"rule"`
	// Mode is that of the rule, or of the policy, while it has not tripped.
	Mode string `json:"mode"`
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
	// Floor is that below which clients count.
	Floor Floor `json:"-"`
}

// String says how the guard is.
func (g *GuardState) String() string {
	if !g.Tripped.IsZero() {
		return fmt.Sprintf("The guard of %q tripped on %s: %s until it is released (postern guard -release %[1]q).", g.Rule, text.Date(g.Tripped, nil), g.Then)
	}
	words := fmt.Sprintf("The guard of %q has met %s within %s; more than %d trip it: %s.", g.Rule, text.Number(g.Seen, "known client"), g.Within, g.Clients, g.Then)
	if !g.Released.IsZero() {
		words += " What was before " + text.Date(g.Released, nil) + " does not count."
	}
	return words
}

// watch adds a guard, if there is one.
func (p *Policy) watch(name string, floor Floor, mode Mode, g *Guard) {
	if g != nil {
		p.guards = append(p.guards, GuardState{Rule: name, Mode: mode.String(), Clients: g.Clients, Within: text.Duration(g.Within), Then: g.Then.String(), Guard: g, Floor: floor})
	}
}

// Guards returns the guards, as they are where it was made by Guarded. They are not to be
// changed.
func (p *Policy) Guards() []GuardState { return p.guards }

// Watches reports whether there is any guard or grace.
func (p *Policy) Watches() bool {
	return len(p.guards) > 0 || slices.ContainsFunc(p.rules, (*Rule).watched)
}

// watched reports whether it matters whom the rule refuses or tells why.
func (r *Rule) watched() bool { return r.Guard != nil || r.Grace > 0 }

// A Graced function reports whether a rule that refuses a client tells it why instead at
// that time: the client is known to have logged in, and the grace of the rule is not over.
type Graced func(r *Rule, client netip.Addr, t time.Time) bool

// grant has a client told why while the grace of a rule that refuses it lasts.
func (p *Policy) grant(o *Outcome, client netip.Addr, t time.Time) {
	if o.Mode == Enforce && o.Rule != nil && o.Rule.Grace > 0 && p.graced != nil && p.graced(o.Rule, client, t) {
		o.Mode, o.Graced = Explain, true
	}
}

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
		switch rule := p.Rule(g.Rule); {
		case g.Tripped.IsZero():
		case rule == nil:
			q.mode = g.Guard.Then
		default:
			taken := *rule
			if taken.Mode = g.Guard.Then; taken.Mode == hold {
				held := rule.share(g.Tripped)
				taken.Mode, taken.Share = rule.Mode, &Share{From: held, To: held, Connection: rule.Share.Connection}
			}
			q.rules[rule.place] = &taken
		}
	}
	return &q
}

func (f *file) readGuard(n *yaml.Node) *Guard {
	g := &Guard{Then: hold + 1} // until it is read: nothing else is wrong with it
	f.mapping(n, "guard", map[string]field{
		"clients": scalar(f, "clients", &g.Clients, func(s string) (int, error) {
			n, err := strconv.ParseUint(s, 10, 31)
			if err != nil {
				err = fmt.Errorf("%q is not a number from 0 on: more clients than that trip the guard", clip(s))
			}
			return int(n), err
		}),
		"within": scalar(f, "within", &g.Within, parseOpen),
		"then": scalar(f, "then", &g.Then, func(s string) (Mode, error) {
			return oneOf("mode", "one of ", append(slices.Clone(Modes), hold), s)
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
	case g.Then == hold && (share == nil || share.From >= share.To):
		f.add(n, "then: hold needs a share that grows: write then: explain or then: observe")
	case g.Then <= mode:
		f.add(n, "then: %v is no more lenient than mode: %v: write then: %s", g.Then, mode, text.Either(mode == Enforce, "explain or then: observe", "observe"))
	}
}
