package plan

import (
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"postern/internal/text"
	"postern/policy"
)

func TestADateAndANameStayOnOneLine(t *testing.T) {
	when := time.Date(2026, 6, 8, 0, 0, 0, 0, time.UTC)
	for n := range 90 {
		got := columns([]row{{text.Date(when, nil), strings.Repeat("x ", n) + text.Date(when, time.UTC) + " 5 % end"}})
		if strings.Count(got, "Mon 8 Jun 2026 00:00 UTC") != 2 || strings.Count(got, "5 %") != 1 || strings.Contains(got, "\u00a0") {
			t.Errorf("broken:\n%s", got)
		}
		for line := range strings.Lines(got) {
			if utf8.RuneCountInString(line) > text.Width+1 || strings.HasSuffix(line, " \n") {
				t.Errorf("line of %d: %q", utf8.RuneCountInString(line), line)
			}
		}
	}
}

func TestALongLabelStandsOnItsOwnLine(t *testing.T) {
	label := strings.Repeat("n", widestLabel+1)
	got := columns([]row{{label, "words"}, {"short", "more words"}, {"", "further"}})
	if want := label + "\n       words\nshort  more words\n       further\n"; got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestSharesThatDifferAreWrittenSo(t *testing.T) {
	for _, tt := range []struct {
		a, b float64
		x, y string
	}{
		{0.613, 0.43, "61.3 %", "43 %"}, {0.25, 0.25, "25 %", "25 %"}, {0.250001, 0.25, "25.0001 %", "25.0000 %"}, {0.1234567, 0, "12.35 %", "0 %"},
	} {
		if x, y := apart(tt.a, tt.b); x != tt.x || y != tt.y {
			t.Errorf("%v and %v: %s, %s; want %s, %s", tt.a, tt.b, x, y, tt.x, tt.y)
		}
	}
}

func TestAShareWithAFloorOfItsOwnLeavesTheOthersIn(t *testing.T) {
	p, err := policy.Parse([]byte("rules: [{name: half, mode: enforce, floor: tls1.3, share: 50%}]"))
	if err != nil {
		t.Fatal(err)
	}
	q := &Question{Source: "p.yaml", Policy: p, Time: time.Date(2026, 6, 1, 0, 0, 0, 0, time.UTC), Client: policy.Client{Version: policy.TLS12}}
	said := strings.Join(strings.Fields(strings.ReplaceAll(written(t, q), "\u00a0", " ")), " ")
	for _, want := range []string{`50 %: it is refused with a TLS alert (enforce), by rule "half" in line 1, whose floor is tls1.3.`,
		"50 %: tls1.2 reaches the floor tls1.2, so it is let in."} {
		if !strings.Contains(said, want) {
			t.Errorf("%s is not in %s", want, said)
		}
	}
	if q.Policy, err = policy.Parse([]byte("rules: [{name: half, mode: enforce, floor: tls1.3, share: 50%}, {name: rest, mode: enforce, grace: 7d}]")); err != nil {
		t.Fatal(err)
	}
	if strings.Contains(written(t, q), "first refusal") {
		t.Errorf("a client that reaches the floor has no use for a grace: %s", written(t, q))
	}
	if q.Client.Version = policy.TLS13; !strings.Contains(written(t, q), "reaches the floor: such") {
		t.Errorf("TLS 1.3: %s", written(t, q))
	}
}

// TestAPlanSaysWhatAGraceAndAGuardDoNow: while the grace of a client lasts, it is told why,
// and once the guard has tripped there is neither.
func TestAPlanSaysWhatAGraceAndAGuardDoNow(t *testing.T) {
	p, err := policy.Parse([]byte("rules: [{name: cut, mode: enforce, grace: 7d, guard: {clients: 1, within: 1h, then: explain}}]"))
	if err != nil {
		t.Fatal(err)
	}
	now := time.Date(2026, 6, 1, 0, 0, 0, 0, time.UTC)
	tripped := p.Guarded([]policy.GuardState{{Rule: "cut", Tripped: now}}, nil)
	first := map[string]time.Time{"cut": now.Add(-time.Hour)}
	for _, tt := range []struct {
		policy     *policy.Policy
		version    policy.Version
		at         time.Time
		text, json string
	}{
		{p, policy.TLS10, now, "It is told why, then closed (explain), until Sun 7 Jun 2026 23:00 UTC, and refused from then on", `"mode": "explain", "rule": "cut", "part": 1, "floor": "tls1.2", "grace_until"`},
		{p, policy.SSL3, now, "but nobody can be told anything in ssl3: it is refused", `"mode": "explain"`},
		{p, policy.TLS10, now.Add(8 * 24 * time.Hour), "its grace ended Sun 7 Jun 2026 23:00 UTC", `"meets": [ { "mode": "enforce"`},
		{tripped, policy.TLS10, now, `It is told why, then closed (explain), by rule "cut"`, `"meets": [ { "mode": "explain", "rule": "cut", "part": 1, "floor": "tls1.2" }`},
	} {
		q := &Question{Policy: tt.policy, Time: tt.at, Client: policy.Client{Version: tt.version}, FirstRefused: first}
		var b strings.Builder
		if err := q.WriteJSON(&b); err != nil {
			t.Fatal(err)
		}
		for said, want := range map[string]string{written(t, q): tt.text, b.String(): tt.json} {
			if said = strings.Join(strings.Fields(strings.ReplaceAll(said, "\u00a0", " ")), " "); !strings.Contains(said, want) {
				t.Errorf("%s is not in %s", want, said)
			}
		}
	}
	for p, want := range map[*policy.Policy]bool{p: true, tripped: false} {
		var b strings.Builder
		if err := (&Plan{Policy: p, From: now, Until: now.Add(time.Hour)}).WriteText(&b); err != nil {
			t.Fatal(err)
		}
		if strings.Contains(b.String(), "clients that had logged in") != want {
			t.Errorf("%v: %s", want, b.String())
		}
	}
}

func written(t *testing.T, q *Question) string {
	t.Helper()
	var b strings.Builder
	if err := q.WriteText(&b); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// TestAPlanShowsEachGuardAsItIs: the policy's own, one that counts nothing yet, and none of
// a rule whose guard has tripped already.
func TestAPlanShowsEachGuardAsItIs(t *testing.T) {
	p, err := policy.Parse([]byte(`mode: enforce
guard: {clients: 2, within: 1h, then: observe}
rules: [{name: ramp, mode: enforce, share: {from: 0%, to: 100%}, from: 2026-06-01T00:00:00Z, until: 2026-06-30T00:00:00Z, guard: {clients: 1, within: 1h, then: hold}}]`))
	if err != nil {
		t.Fatal(err)
	}
	now := time.Date(2026, 6, 2, 0, 0, 0, 0, time.UTC)
	const (
		own            = "The policy's own mode has a guard: observe once more than 2 clients that had logged in have met it within 1h."
		ofRamp         = "guard: hold once more than 1 client that had logged in has met it within 1h"
		tripped, waits = `!! The guard of "ramp" tripped`, `The guard of "ramp" is let go: it counts nothing before Wed 3 Jun 2026 00:00 UTC.`
		ownWaits       = own + " It counts nothing before Wed 3 Jun 2026 00:00 UTC."
	)
	for _, tt := range []struct {
		states     []policy.GuardState
		has, lacks []string
	}{
		{nil, []string{own, ofRamp}, []string{"!!", "counts nothing"}},
		{[]policy.GuardState{{Rule: "ramp", Tripped: now}}, []string{own, tripped}, []string{ofRamp, waits}},
		{[]policy.GuardState{{Rule: "ramp", Released: now.AddDate(0, 0, 1)}}, []string{own, ofRamp, waits}, []string{tripped}},
		{[]policy.GuardState{{Rule: policy.PolicyGuard, Released: now.AddDate(0, 0, 1)}}, []string{ownWaits}, []string{waits}},
		{[]policy.GuardState{{Rule: policy.PolicyGuard, Released: now}}, []string{own}, []string{"counts nothing"}},
		{[]policy.GuardState{{Rule: policy.PolicyGuard, Tripped: now}}, []string{`!! The guard of "(policy)" tripped`}, []string{own}},
	} {
		var b strings.Builder
		if err := (&Plan{Policy: p.Guarded(tt.states, nil), From: now, Until: now.Add(time.Hour)}).WriteText(&b); err != nil {
			t.Fatal(err)
		}
		said := strings.Join(strings.Fields(strings.ReplaceAll(b.String(), "\u00a0", " ")), " ")
		for _, want := range tt.has {
			if !strings.Contains(said, want) {
				t.Errorf("%+v: %q is missing in\n%s", tt.states, want, b.String())
			}
		}
		for _, no := range tt.lacks {
			if strings.Contains(said, no) {
				t.Errorf("%+v: %q is in\n%s", tt.states, no, b.String())
			}
		}
	}
}
