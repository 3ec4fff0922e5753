package policy

import (
	"slices"
	"strings"
	"testing"
	"time"

	"postern/internal/posterntest"
)

func TestWhereAPolicyIsRelaxed(t *testing.T) {
	for _, tt := range []struct {
		name, text string
		want       []string // time and words
	}{
		{"nothing but cut-overs", "mode: observe\nrules: [{name: cut, mode: enforce, from: 2026-07-01T00:00:00Z}]", nil},
		{"a rule that ends", "mode: observe\nrules: [{name: cut, mode: enforce, from: 2026-07-01T00:00:00Z, until: 2026-08-01T00:00:00Z}]",
			[]string{`08-01 00:00 everybody else: enforce -> observe ("cut")`}},
		{"a gap between ramp and cut-over", `
mode: observe
rules:
  - {name: ramp, mode: explain, share: {from: 0%, to: 100%}, from: 2026-06-15T00:00:00Z, until: 2026-07-01T00:00:00Z}
  - {name: cut, mode: enforce, from: 2026-07-02T00:00:00Z}`,
			[]string{`07-01 00:00 everybody else: explain -> observe ("ramp")`}},
		{"a ramp that ends early", `
mode: observe
rules:
  - {name: ramp, mode: enforce, share: {from: 0%, to: 50%}, from: 2026-06-15T00:00:00Z, until: 2026-07-01T00:00:00Z}
  - {name: tell, mode: explain, from: 2026-07-01T00:00:00Z}`,
			[]string{`07-01 00:00 everybody else: enforce for 50 %, observe for 50 % -> explain ("ramp", "tell")`}},
		{"an exemption that begins", `
rules: [{name: scanners, mode: observe, match: {client: [10.0.0.0/8]}, owner: x, from: 2026-07-01T00:00:00Z, until: 2026-08-01T00:00:00Z}]`,
			[]string{`07-01 00:00 clients of rule "scanners": enforce -> observe`}},
		{"a share that shrinks", `
mode: observe
rules: [{name: less, mode: enforce, share: {from: 60%, to: 20%}, from: 2026-07-01T00:00:00Z, until: 2026-08-01T00:00:00Z}]`,
			[]string{
				`07-01 00:00 to 08-01 00:00 everybody else: enforce for 60 %, observe for 40 % -> enforce for 20 %, observe for 80 % ("less")`,
				`08-01 00:00 everybody else: enforce for 20 %, observe for 80 % -> observe ("less")`}},
		{"a more lenient share that grows", `
rules: [{name: more, mode: explain, share: {from: 0%, to: 20%}, from: 2026-05-01T00:00:00Z, until: 2026-07-01T00:00:00Z}]`,
			[]string{`06-01 00:00 to 07-01 00:00 everybody else: enforce for 89.84 %, explain for 10.16 % -> enforce for 80 %, explain for 20 % ("more")`}},
		{"schedules", `
mode: observe
rules: [{name: brown, mode: enforce, schedule: "0 * * * *", for: 10m, from: 2026-06-08T00:00:00Z, until: 2026-06-12T00:00:00Z}]`, nil},
		{"a schedule that ends as another rule begins", `
mode: observe
rules:
  - {name: brown, mode: enforce, schedule: "* * * * *", for: 10m, from: 2026-06-08T00:00:00Z, until: 2026-06-12T00:00:00Z}
  - {name: pop3, mode: explain, match: {listener: [pop3]}, from: 2026-06-12T00:00:00Z}`, nil},
		{"two listeners", `
mode: observe
rules: [{name: cut, mode: explain, match: {listener: [pop3, imap]}, until: 2026-08-01T00:00:00Z}]`,
			[]string{`08-01 00:00 everybody else on imap, pop3: explain -> observe ("cut")`}},
		{"clients that two rules are about", `
mode: observe
rules:
  - {name: old, mode: enforce, match: {version: [ssl3]}, until: 2026-08-01T00:00:00Z}
  - {name: all, mode: explain, until: 2026-09-01T00:00:00Z}`,
			[]string{`08-01 00:00 clients of rule "old": enforce -> explain`, `09-01 00:00 everybody else: explain -> observe ("all")`}},
		{"the same for others on another listener", `
mode: observe
rules:
  - {name: tell, mode: explain, match: {listener: [pop3]}, until: 2026-08-01T00:00:00Z}
  - {name: two, mode: explain, match: {port: [1993], listener: [imaps, imap]}, until: 2026-08-01T00:00:00Z}
  - {name: three, mode: explain, match: {port: [2993], listener: [imaps, imap]}, until: 2026-08-01T00:00:00Z}`,
			[]string{`08-01 00:00 everybody else on pop3: explain -> observe ("tell")`, `08-01 00:00 clients of rule "two": explain -> observe`,
				`08-01 00:00 clients of rule "three": explain -> observe`}},
		{"the beginning counts and the end does not", `
mode: observe
rules:
  - {name: first, mode: enforce, until: 2026-06-01T00:00:00Z}
  - {name: last, mode: explain, until: 2027-06-01T00:00:00Z}`,
			[]string{`06-01 00:00 everybody else: enforce -> explain ("first")`}},
		{"an ended exemption for nobody", "rules: [{name: nobody, mode: observe, match: {client: []}, from: 2026-07-01T00:00:00Z}]", nil},
	} {
		var got []string
		for _, m := range parsed(t, tt.text).Relaxations(moment(t, "2026-06-01 00:00"), moment(t, "2027-06-01 00:00")) {
			line := m.Time.Format("01-02 15:04 ")
			if !m.Until.IsZero() {
				line += "to " + m.Until.Format("01-02 15:04 ")
			}
			got = append(got, line+m.Text)
		}
		if !slices.Equal(got, tt.want) {
			t.Errorf("%s:\n got %s\nwant %s", tt.name, strings.Join(got, "\n     "), strings.Join(tt.want, "\n     "))
		}
	}
}

func TestAWellMadePolicyIsNeverRelaxed(t *testing.T) {
	if got := example(t).Relaxations(moment(t, "2026-06-01 00:00"), moment(t, "2036-06-01 00:00")); len(got) != 0 {
		t.Errorf("got %v", got)
	}
}

func TestRelaxationsAreFoundQuicklyForManyRules(t *testing.T) {
	var b strings.Builder
	b.WriteString("rules:\n")
	begin := moment(t, "2026-06-01 00:00")
	for i := range maxNames {
		day := begin.AddDate(0, 0, i)
		b.WriteString("  - {name: r" + day.Format("0102") + ", mode: explain, match: {client: [10." + day.Format("1.2") + ".0/24]}, share: {from: 0%, to: 100%}, from: " +
			day.Format(time.RFC3339) + ", until: " + day.AddDate(0, 1, 0).Format(time.RFC3339) + "}\n")
	}
	p := parsed(t, b.String())
	began := posterntest.CPUTime()
	got := p.Relaxations(begin, begin.AddDate(10, 0, 0))
	if took := posterntest.CPUTime() - began; took > 5*time.Second || len(got) < maxNames {
		t.Errorf("%d found, took %v", len(got), took)
	}
}

// A client that reaches one floor and not the next meets less where the next one goes.
func TestAFloorThatGoesIsARelaxation(t *testing.T) {
	from, to := instant(t, "2026-01-01T00:00:00Z"), instant(t, "2027-01-01T00:00:00Z")
	for _, tt := range []struct {
		rules string
		want  []string
	}{
		{"{name: cut, mode: enforce, floor: tls1.3, from: 2026-03-01T00:00:00Z, until: 2026-07-01T00:00:00Z}",
			[]string{`everybody else below tls1.3: enforce -> observe ("cut")`}},
		{"{name: cut, mode: enforce, floor: tls1.3, from: 2026-03-01T00:00:00Z}", nil},
		{"{name: down, mode: enforce, floor: tls1.2-compat, from: 2026-07-01T00:00:00Z}",
			[]string{`everybody else below tls1.2: enforce -> observe ("down")`}},
	} {
		var got []string
		for _, x := range policyOf(t, "rules: ["+tt.rules+"]").Relaxations(from, to) {
			if !x.Time.Equal(instant(t, "2026-07-01T00:00:00Z")) {
				t.Errorf("%s: at %v", tt.rules, x.Time)
			}
			got = append(got, x.Text)
		}
		if !slices.Equal(got, tt.want) {
			t.Errorf("%s: %q, want %q", tt.rules, got, tt.want)
		}
	}
}
