package policy

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"postern/internal/text"
)

// Policy is a compiled policy: the rules of now and later.
type Policy struct {
	floor      Floor
	mode       Mode
	rules      []*Rule
	candidates []Candidate
	guard      *Guard // of its own mode
	graced     Graced
	// explainText is what explain says to clients whose version is too old; empty
	// where the file does not say.
	explainText string
	source      []byte    // what Parse has read; nil for that of New
	doubts      []Problem // about how the file is written
	judged      []Floor   // those of the candidates, each once
	remembered  FloorSet  // those of the remembered ones
	guards      []GuardState
	keys        []index // as Keys
	// all are all rules, scheduled those with a schedule, ownFloor those with one.
	all, scheduled, ownFloor ruleSet
}

// Candidate is a floor that judges every hello beside the real one. It is counted
// and never applied.
type Candidate struct {
	Name  string `json:"name"`
	Floor Floor  `json:"floor"`
	// Remember: the ledger has those whom it would refuse.
	Remember bool `json:"remember"`
}

// String is the name.
func (c Candidate) String() string { return c.Name }

// New makes the policy that POLICY_FLOOR and POLICY_MODE describe, without
// rules.
func New(floor Floor, mode Mode) *Policy { return compiled(&Policy{floor: floor, mode: mode}) }

// MarshalJSON has the bytes of a file that [Parse] makes the same policy of, in whatever
// encoding they are.
func (p *Policy) MarshalJSON() ([]byte, error) {
	file := p.source
	if file == nil {
		file = fmt.Appendf(nil, "floor: %s\nmode: %s\n", p.floor, p.mode)
	}
	return json.Marshal(file)
}

// UnmarshalJSON is [Parse].
func (p *Policy) UnmarshalJSON(text []byte) error {
	var file []byte
	if err := json.Unmarshal(text, &file); err != nil {
		return err
	}
	parsed, err := Parse(file)
	if err == nil {
		*p = *parsed
	}
	return err
}

// compiled has p with what follows from its rules and candidates.
func compiled(p *Policy) *Policy {
	p.keys = text.Each(Keys, func(k *Key) index { return indexOf(k, p.rules) })
	p.watch(PolicyGuard, p.floor, p.mode, p.guard)
	for i, r := range p.rules {
		r.place, r.shuffle = i, shuffleOf(r.Name)
		p.all.add(i)
		if r.Schedule != nil {
			p.scheduled.add(i)
		}
		if r.OwnFloor {
			p.ownFloor.add(i)
		} else {
			r.Floor = p.floor
		}
		p.watch(r.Name, r.Floor, r.Mode, r.Guard)
	}
	for _, c := range p.Remembered() {
		p.remembered |= 1 << c.Floor
	}
	p.judged = slices.DeleteFunc(slices.Clone(Floors), func(f Floor) bool {
		return !slices.ContainsFunc(p.candidates, func(c Candidate) bool { return c.Floor == f })
	})
	return p
}

// Floor is what a handshake must reach that no rule with a floor of its own takes.
func (p *Policy) Floor() Floor { return p.floor }

// Floors lists the floors of the policy and of its rules, each once.
func (p *Policy) Floors() []Floor {
	all := []Floor{p.floor}
	for _, r := range p.rules {
		if !slices.Contains(all, r.Floor) {
			all = append(all, r.Floor)
		}
	}
	return all
}

// Mode is what meets a legacy handshake that no rule takes.
func (p *Policy) Mode() Mode { return p.mode }

// Rules lists the rules, in the order in which they are asked. They are not to
// be changed.
func (p *Policy) Rules() []*Rule { return p.rules }

// RuleNames lists their names.
func (p *Policy) RuleNames() []string { return p.names(p.all) }

// Candidates lists the floors that are judged beside the real one. They are not
// to be changed.
func (p *Policy) Candidates() []Candidate { return p.candidates }

// Remembered lists the candidates that the ledger remembers.
func (p *Policy) Remembered() []Candidate {
	return slices.DeleteFunc(slices.Clone(p.candidates), func(c Candidate) bool { return !c.Remember })
}

// NotRemembered is the error where no remembered candidate has a name.
type NotRemembered struct{ error }

// RememberedFloor returns the floor of a remembered candidate.
func (p *Policy) RememberedFloor(name string) (Floor, error) {
	c, err := oneOf("remembered candidate", "", p.Remembered(), name)
	if err != nil && len(p.Remembered()) == 0 {
		err = fmt.Errorf("the policy remembers no candidate %q: write remember: true to one under candidates", clip(name))
	}
	if err != nil {
		err = NotRemembered{err}
	}
	return c.Floor, err
}

// ExplainText is what a client is told whose version is too old, with {version}
// and {floor} to be filled in; empty where the policy does not say.
func (p *Policy) ExplainText() string { return p.explainText }

// explainBytes bounds the filled-in text, which shares a line of 512 bytes
// (RFC 2449, Section 4) with the words around it.
const explainBytes = 400

// CheckExplainText returns the problem with a text for mail programs. Braces are
// only for placeholders: {5} at the end of an IMAP line would announce a literal.
func CheckExplainText(s string) error {
	filled := strings.NewReplacer("{version}", "1.0", "{floor}", "1.2").Replace(s)
	switch {
	case strings.TrimSpace(s) == "":
		return errors.New("holds nothing to read: write a text, or take it away")
	case strings.ContainsAny(s, "\r\n"):
		return errors.New("it holds a line end: put it in quotes on one line")
	case strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r > '~' }):
		return errors.New("not one line of printable ASCII: write it without letters such as \u00e4 or \u00e9")
	case strings.ContainsAny(filled, "{}"):
		return errors.New("use braces in {version} and {floor} alone")
	case len(filled) > explainBytes:
		return errors.New("longer than 400 bytes when {version} and {floor} are filled in: shorten it")
	}
	return nil
}

// Rule returns the rule of that name, or nil.
func (p *Policy) Rule(name string) *Rule {
	if i := slices.IndexFunc(p.rules, func(r *Rule) bool { return r.Name == name }); i >= 0 {
		return p.rules[i]
	}
	return nil
}

// everybody returns the rules that take clients on a listener whatever else they
// are.
func (p *Policy) everybody(listener string) ruleSet {
	return p.matching(p.all, &Client{ConnInfo: ConnInfo{Listener: listener}}, nil)
}

// like returns the rules that take a client which the rule takes, as far as that
// is possible on the listener.
func (p *Policy) like(r *Rule, listener string) ruleSet {
	c := r.Match.sample()
	c.Listener = listener
	return p.matching(p.all, &c, nil)
}

// only returns the rules of a set that are to be kept.
func (p *Policy) only(set ruleSet, keep func(*Rule) bool) (kept ruleSet) {
	for i := set.first(); i >= 0; i = set.first() {
		if keep(p.rules[i]) {
			kept.add(i)
		}
	}
	return kept
}

// MayServeLegacy reports whether any handshake below the floor can be let in
// or completed under this policy, at that time or later. Where it cannot, no
// lenient configuration may exist. A schedule counts as one that opens.
func (p *Policy) MayServeLegacy(t time.Time) bool {
	dates := p.Dates(t)
	return slices.ContainsFunc(ListenerNames, func(listener string) bool {
		everybody := p.everybody(listener)
		reached := p.only(p.all, func(r *Rule) bool { return !r.never() && p.like(r, listener).has(r.place) })
		// Whatever a rule leaves to those after it, it is not nothing.
		share := func(r *Rule) float64 {
			if r.always() && everybody.has(r.place) {
				return 1
			}
			return 0.5
		}
		for _, at := range dates {
			running := p.only(reached, func(r *Rule) bool { return r.within(at) })
			for o := range p.outcomes(running, ruleSet{}, share) {
				if o.Part > 0 && p.mayServe(o) {
					return true
				}
			}
		}
		return false
	})
}

// mayServe reports whether an outcome lets anybody in, or tells it why, now or once its
// guard has tripped.
func (p *Policy) mayServe(o Outcome) bool {
	guard := p.guard
	if o.Rule != nil {
		guard = o.Rule.Guard
	}
	return o.Mode != Enforce || guard != nil && guard.Then != hold || o.Rule != nil && o.Rule.Grace > 0
}

// ParseMode returns the mode of that name.
func ParseMode(s string) (Mode, error) { return oneOf("mode", "one of ", Modes, s) }

// oneOf returns the value that has that name.
func oneOf[T any](what, use string, values []T, name string) (T, error) {
	names := text.Each(values, func(v T) string { return fmt.Sprint(v) })
	if i := slices.Index(names, name); i >= 0 {
		return values[i], nil
	}
	var none T
	return none, fmt.Errorf("no such %s %q: use %s%s", what, clip(name), use, strings.Join(names, ", "))
}

// shown bounds a stranger's text in an error, in characters.
const shown = 80 + len("...")

func clip(s string) string { return text.Clip(s, shown, "...") }
