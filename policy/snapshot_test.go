package policy

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"postern/internal/posterntest"
	"postern/internal/text"
)

// datedRule has dates, a schedule or both, near a time.
func datedRule(t *testing.T, r *rand.Rand, i int, near time.Time) *Rule {
	date := func() time.Time { return near.Add(time.Duration(r.Int64N(int64(60*time.Hour)) - int64(30*time.Hour))) }
	rule := &Rule{Name: fmt.Sprintf("rule %d", i), Mode: Modes[r.IntN(3)], Zone: time.UTC}
	if r.IntN(2) == 0 {
		rule.From = date()
	}
	if r.IntN(2) == 0 {
		if rule.Until = date(); !rule.From.Before(rule.Until) {
			rule.Until = rule.From.Add(time.Duration(1 + r.Int64N(int64(time.Hour))))
		}
	}
	if r.IntN(2) == 0 {
		cron := []string{"0 * * * *", "*/7 2-3 * * *", "* * * * *", "30 2 29 3 *", "0 0 * * *", "0 0 31 2 *", "15,45 */6 * * SUN"}[r.IntN(7)]
		open := []time.Duration{time.Second, 45 * time.Second, time.Minute, 7 * time.Minute, time.Hour, 25 * time.Hour}[r.IntN(6)]
		s, err := ParseSchedule(cron, zoneOf(t, []string{"UTC", "Europe/Berlin", "America/Santiago"}[r.IntN(3)]), open)
		if err != nil {
			t.Fatal(err)
		}
		rule.Schedule = s
	}
	return rule
}

func TestASnapshotHoldsUntilARuleComesOrGoes(t *testing.T) {
	r := rand.New(rand.NewPCG(20261125, 7))
	changed := 0
	for range 120 {
		at := instant(t, "2026-03-29T00:30:00Z").Add(time.Duration(r.Int64N(int64(6 * time.Hour)))).Truncate([]time.Duration{1, time.Second, time.Minute}[r.IntN(3)])
		rules := make([]*Rule, 1+r.IntN(6))
		for i := range rules {
			rules[i] = datedRule(t, r, i, at)
		}
		p := compiled(&Policy{floor: FloorTLS12, mode: Enforce, rules: rules})
		s := p.At(at)
		if !s.Until.After(at) || s.Until.After(at.Add(snapshotLife)) {
			t.Fatalf("made at %s it holds until %s", at, s.Until)
		}
		inForce := func(t time.Time) (set ruleSet) {
			for i := range p.rules {
				if p.rules[i].InForce(t) {
					set.add(i)
				}
			}
			return set
		}
		if s.inForce != inForce(at) {
			t.Fatalf("at %s: %v is in force, want %v", at, s.inForce, inForce(at))
		}
		step := max(s.Until.Sub(at)/997, 1)
		for now := at; now.Before(s.Until); now = now.Add(step) {
			if inForce(now) != s.inForce {
				t.Fatalf("made at %s to hold until %s, it is wrong at %s:\n%+v", at, s.Until, now, rules)
			}
		}
		if inForce(s.Until.Add(-1)) != s.inForce {
			t.Fatalf("made at %s to hold until %s, it is wrong just before", at, s.Until)
		}
		// Nor does it end where nothing changes, but for the dates of a rule that
		// its schedule keeps closed then.
		dated := false
		for i := range rules {
			dated = dated || s.Until.Equal(rules[i].From) || s.Until.Equal(rules[i].Until)
		}
		if s.Until.Before(at.Add(snapshotLife)) && !dated {
			changed++
			if inForce(s.Until) == s.inForce {
				t.Errorf("made at %s it ends at %s, where nothing changes:\n%+v", at, s.Until, rules)
			}
		}
	}
	if changed < 20 {
		t.Errorf("only %d of them ended for a change", changed)
	}
}

func TestASnapshotIsNotValidOutsideItsTime(t *testing.T) {
	p := policyOf(t, "rules:", "- {name: hourly, mode: observe, schedule: '0 * * * *', for: 10m}")
	at := instant(t, "2026-06-01T12:03:00Z")
	s := p.At(at)
	for _, tt := range []struct {
		at   string
		want bool
	}{
		{"2026-06-01T12:02:59.999999999Z", false}, // the clock was set back
		{"2026-06-01T12:03:00Z", true},
		{"2026-06-01T14:09:59.999+02:00", true},
		{"2026-06-01T12:10:00Z", false},
		{"2020-01-01T00:00:00Z", false},
		{"2036-01-01T00:00:00Z", false},
	} {
		if got := s.Valid(instant(t, tt.at)); got != tt.want {
			t.Errorf("at %s it is %v", tt.at, got)
		}
	}
	// What counts is the wall clock, not how long the process has run: a clock
	// that is set back an hour while the machine's own goes on.
	begun := time.Now()
	s = p.At(begun)
	if !s.Valid(begun) || s.Valid(begun.Round(0).Add(-time.Hour)) || s.Valid(begun.Add(snapshotLife)) {
		t.Error("a reading of the monotonic clock counts")
	}
	if (&Snapshot{}).Valid(at) {
		t.Error("one that was never made is valid")
	}
}

func TestARuleIsInForceFromItsFirstToBeforeItsLastMoment(t *testing.T) {
	p := policyOf(t, "rules:",
		"- {name: cut, mode: observe, from: 2026-06-01T12:05:00Z, until: 2026-06-01T14:05:00Z, schedule: '0 * * * *', for: 10m}")
	r := p.Rule("cut")
	for at, want := range map[string]bool{
		"2026-06-01T12:04:59.9Z": false, // its window is open, its time has not come
		"2026-06-01T12:05:00Z":   true,
		"2026-06-01T12:09:59.9Z": true,
		"2026-06-01T12:10:00Z":   false,
		"2026-06-01T13:00:00Z":   true,
		"2026-06-01T14:04:59.9Z": true,
		"2026-06-01T14:05:00Z":   false,
		"2026-06-01T15:00:00Z":   false,
	} {
		if got := r.InForce(instant(t, at)); got != want {
			t.Errorf("at %s it is %v", at, got)
		}
	}
}

// TestNoLegacyClientIsServedWherePolicyAllowsNone holds MayServeLegacy against decisions.
func TestNoLegacyClientIsServedWherePolicyAllowsNone(t *testing.T) {
	r := rand.New(rand.NewPCG(20261125, 8))
	near := instant(t, "2026-06-01T12:00:00Z")
	var may, mayNot int
	for range 400 {
		rules := make([]*Rule, 1+r.IntN(5))
		for i := range rules {
			rules[i] = &Rule{Name: fmt.Sprint(i), Mode: Modes[r.IntN(3)*r.IntN(2)]}
			if r.IntN(2) == 0 {
				rules[i].From = near.Add(time.Duration(r.IntN(20)-10) * time.Hour)
			}
			if r.IntN(2) == 0 {
				rules[i].Until = text.Later(rules[i].From, near).Add(time.Duration(1+r.IntN(10)) * time.Hour)
			}
			if r.IntN(5) == 0 {
				rules[i].Match = Match{{keyNamed("listener"), []string{"imaps"}}}
			}
		}
		p := compiled(&Policy{floor: FloorTLS12, mode: Modes[r.IntN(3)*r.IntN(2)], rules: rules})
		want := false
		for hour := range 40 {
			now := near.Add(time.Duration(hour) * time.Hour)
			for _, listener := range ListenerNames[:2] {
				want = want || decide(p, now, caller{client: "192.0.2.7", listener: listener}).Mode != Enforce
			}
		}
		if want {
			may++
		} else {
			mayNot++
		}
		if got := p.MayServeLegacy(near); got != want {
			t.Fatalf("it is %v, decisions say %v: default %s\n%+v", got, want, p.Mode(), rules)
		}
	}
	if may < 50 || mayNot < 50 {
		t.Errorf("%d policies may, %d may not: too few to say anything", may, mayNot)
	}
}

// manyRules is a policy file of 200 rules of a kind.
func manyRules(rule string) string {
	var b strings.Builder
	b.WriteString("rules:\n")
	for i := range maxNames {
		fmt.Fprintf(&b, "- {name: r%d, mode: observe, %s}\n", i, rule)
	}
	return b.String()
}

// costlyRules take long to find an edge for.
var costlyRules = map[string]string{
	"never":               `schedule: "0 0 31 2 *", for: 366d, timezone: Europe/Berlin`,
	"leap years":          `schedule: "0 0 29 2 *", for: 366d, timezone: America/New_York`,
	"always for a year":   `schedule: "* * * * *", for: 366d, timezone: Europe/Berlin`,
	"always, by minute":   `schedule: "* * * * *", for: 1m, timezone: Europe/Berlin`,
	"always, overlapping": `schedule: "*/2 * * * *", for: 125s`,
	"hourly":              `schedule: "0 * * * *", for: 10m, timezone: Europe/Berlin`,
}

func TestManyCostlySchedulesAreNoTrouble(t *testing.T) {
	at := instant(t, "2026-11-25T12:00:30Z")
	for name, rule := range costlyRules {
		p := policyOf(t, manyRules(rule))
		begun := posterntest.CPUTime()
		s := p.At(at)
		// It takes 30 ms at most; the bound is for the race detector.
		if took := posterntest.CPUTime() - begun; took > 2*time.Second {
			t.Errorf("%s: a snapshot takes %s", name, took)
		}
		if !s.Until.After(at) {
			t.Errorf("%s: it holds until %s", name, s.Until)
		}
	}
}

func BenchmarkAt(b *testing.B) {
	at := time.Date(2026, 11, 25, 12, 0, 30, 0, time.UTC)
	for name, rule := range costlyRules {
		b.Run(name, func(b *testing.B) {
			p := policyOf(b, manyRules(rule))
			for b.Loop() {
				p.At(at)
			}
		})
	}
}
