package policy

import (
	"net/netip"
	"strings"
	"testing"
	"time"
)

func TestAGuardThatCannotHelpIsAProblem(t *testing.T) {
	for _, tt := range []struct{ name, rule, want string }{
		{"of observe", "mode: observe, guard: {clients: 1, within: 1h, then: observe}", "a guard needs mode: enforce or explain"},
		{"that enforces all the same", "mode: enforce, guard: {clients: 1, within: 1h, then: enforce}", "then: enforce is no more lenient than mode: enforce: write then: explain or then: observe"},
		{"that relaxes nothing", "mode: explain, guard: {clients: 1, within: 1h, then: explain}", "then: explain is no more lenient than mode: explain"},
		{"that holds no ramp", "mode: explain, guard: {clients: 1, within: 1h, then: hold}", "then: hold needs a share that grows"},
		{"that holds a shrinking share", "mode: explain, share: {from: 9%, to: 1%}, from: 2026-06-01T00:00:00Z, until: 2026-07-01T00:00:00Z, guard: {clients: 1, within: 1h, then: hold}",
			"then: hold needs a share that grows"},
		{"without keys", "mode: enforce, guard: {}", "guard has no clients: add clients: and its value"},
		{"below zero", "mode: enforce, guard: {clients: -1, within: 1h, then: observe}", `clients: "-1" is not a number from 0 on: more clients than that trip the guard`},
		{"of two years", "mode: enforce, guard: {clients: 1, within: 730d, then: observe}", "within: longer than a year"},
		{"with a word", "mode: enforce, guard: {clients: 1, within: 1h, then: stop}", `then: no such mode "stop": use one of enforce, explain, observe, hold`},
		{"that is a word", "mode: enforce, guard: observe", `guard is "observe", not a mapping`},
		{"grace of explain", "mode: explain, grace: 7d", "grace needs mode: enforce"},
		{"grace without a unit", "mode: enforce, grace: 7", "grace: "},
	} {
		_, err := Parse([]byte("rules:\n  - {name: r, " + tt.rule + "}\n"))
		if err == nil || !strings.Contains(err.Error(), tt.want) || !strings.Contains(err.Error(), `rule "r"`) {
			t.Errorf("%s: %v, want %q", tt.name, err, tt.want)
		}
		if err != nil && strings.Contains(err.Error(), "lenient") && !strings.Contains(tt.want, "lenient") {
			t.Errorf("%s: of a mode that the file does not have: %v", tt.name, err)
		}
	}
	if _, err := Parse([]byte("mode: enforce\nguard: {clients: 1, within: 1h, then: hold}\n")); err == nil || !strings.Contains(err.Error(), "2:1: then: hold needs") {
		t.Errorf("of the policy: %v", err)
	}
}

const guardedFile = `
mode: enforce
guard: {clients: 3, within: 30m, then: explain}
rules:
  - {name: ramp, mode: explain, share: {from: 0%, to: 100%}, from: 2026-06-01T00:00:00Z, until: 2026-06-11T00:00:00Z, guard: {clients: 5, within: 1h, then: hold}}
  - {name: cutover, mode: enforce, match: {port: [993]}, guard: {clients: 20, within: 1h, then: observe}}
`

func TestATrippedGuardChangesWhatClientsMeet(t *testing.T) {
	p := parsed(t, guardedFile)
	third := time.Date(2026, 6, 4, 0, 0, 0, 0, time.UTC)
	tripped := p.Guarded([]GuardState{{Rule: "ramp", Tripped: third}, {Rule: "cutover", Tripped: third}, {Rule: PolicyGuard, Tripped: third}, {Rule: "other", Tripped: third}}, nil)
	at := time.Date(2026, 6, 10, 0, 0, 0, 0, time.UTC)
	meets := func(p *Policy, port uint16) (mode Mode, part float64) {
		s := p.At(at)
		all := s.Outcomes(Client{ConnInfo: ConnInfo{Port: port}, Version: TLS10}, at)
		return all[len(all)-1].Mode, all[0].Part
	}
	for _, tt := range []struct {
		name string
		p    *Policy
		port uint16
		mode Mode
		ramp float64
	}{
		{"the rule", p, 993, Enforce, 0.9}, {"the policy", p, 995, Enforce, 0.9},
		{"the rule, tripped", tripped, 993, Observe, 0.3}, {"the policy, tripped", tripped, 995, Explain, 0.3},
		{"the file once more", p.Guarded(nil, nil), 993, Enforce, 0.9},
	} {
		if mode, part := meets(tt.p, tt.port); mode != tt.mode || part != tt.ramp {
			t.Errorf("%s: %v, ramp %v, want %v, %v", tt.name, mode, part, tt.mode, tt.ramp)
		}
	}
	for i, g := range tripped.Guards() {
		if !g.Tripped.Equal(third) || !p.Guards()[i].Tripped.IsZero() {
			t.Errorf("%+v, %+v", g, p.Guards()[i])
		}
	}
	if len(tripped.Guards()) != 3 || p.Rule("cutover").Mode != Enforce {
		t.Error("the policy itself has changed")
	}
}

// A lenient configuration has to be there before the guard trips, or the grace is asked.
func TestAGuardOrAGraceMayServeLegacyClients(t *testing.T) {
	for text, want := range map[string]bool{
		"mode: enforce": false,
		"mode: enforce\nguard: {clients: 1, within: 1h, then: observe}":                                                                                                      true,
		"rules: [{name: r, mode: enforce, guard: {clients: 1, within: 1h, then: explain}}]":                                                                                  true,
		"rules: [{name: r, mode: enforce, grace: 7d}]":                                                                                                                       true,
		"rules: [{name: r, mode: enforce, grace: 7d, until: 2026-01-01T00:00:00Z}]":                                                                                          false,
		"rules: [{name: a, mode: enforce}, {name: r, mode: enforce, grace: 7d}]":                                                                                             false,
		"rules: [{name: r, mode: enforce, share: {from: 0%, to: 9%}, from: 2026-07-01T00:00:00Z, until: 2026-08-01T00:00:00Z, guard: {clients: 1, within: 1h, then: hold}}]": false,
	} {
		if got := parsed(t, text).MayServeLegacy(time.Date(2026, 6, 1, 0, 0, 0, 0, time.UTC)); got != want {
			t.Errorf("%s: %v", text, got)
		}
	}
}

func TestAGraceIsAskedForEachDecision(t *testing.T) {
	p := parsed(t, "rules: [{name: cutover, mode: enforce, grace: 7d}]")
	known := netip.MustParseAddr("192.0.2.7")
	s := p.At(time.Time{})
	place := func(a netip.Addr) ConnInfo { return ConnInfo{Client: a, Keys: RSA | ECDSAP256, Listener: "imaps"} }
	if v := s.Decide(&old, place(known), time.Time{}, 0); v.Mode != Enforce {
		t.Errorf("nobody grants a grace: %v", v.Mode)
	}
	s = p.Guarded(nil, func(r *Rule, client netip.Addr, _ time.Time) bool { return r.Name == "cutover" && client == known }).At(time.Time{})
	if v := s.Decide(&old, place(known), time.Time{}, 0); v.Mode != Explain || v.Serve != Explain || v.Rule != "cutover" {
		t.Errorf("a known client: %+v", v)
	}
	if v := s.Decide(&old, place(netip.MustParseAddr("192.0.2.8")), time.Time{}, 0); v.Mode != Enforce || v.Serve != Enforce {
		t.Errorf("a stranger: %+v", v)
	}
	if v := s.Decide(&modern, place(known), time.Time{}, 0); v.Legacy() {
		t.Errorf("a modern client: %+v", v)
	}
	if n := testing.AllocsPerRun(100, func() { s.Decide(&old, place(known), time.Time{}, 0) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
