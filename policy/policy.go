package policy

import "fmt"

// Policy is the compiled whole: what is in force now and later.
type Policy struct {
	floor Floor
	mode  Mode
}

// New makes the policy that POLICY_FLOOR and POLICY_MODE describe.
func New(floor Floor, mode Mode) *Policy {
	return &Policy{floor: floor, mode: mode}
}

// MayServeLegacy reports whether any handshake below the floor can be let in
// or completed under this policy, at any time. Where it cannot, no lenient
// configuration may exist.
func (p *Policy) MayServeLegacy() bool { return p.mode != Enforce }

// Snapshot returns what is in force.
func (p *Policy) Snapshot() Snapshot { return Snapshot{Floor: p.floor, Mode: p.mode} }

// Snapshot is a policy at one moment.
type Snapshot struct {
	Floor Floor
	Mode  Mode
}

// ParseMode returns the mode of that name.
func ParseMode(s string) (Mode, error) {
	for _, m := range Modes {
		if m.String() == s {
			return m, nil
		}
	}
	return 0, fmt.Errorf("no such mode %q: use one of %s", s, joinStringers(Modes))
}
