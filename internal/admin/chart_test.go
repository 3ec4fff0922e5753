package admin

import (
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"postern/internal/report"
	"postern/policy"
)

func TestTheChartCountsEachClientOnceADay(t *testing.T) {
	b := village(t)
	_, page := show(t, b.page(t, someRules, nil))
	for _, want := range []string{"<title>6 Jun: 1</title>", "<title>16 Jun: 3</title>", "the highest is 3, on 16 Jun."} {
		if !strings.Contains(page, want) {
			t.Errorf("no %s in\n%s", want, page)
		}
	}
	says(t, page, "4 2 0", "Day (UTC) Clients 18 May 0", "10 Jun 0", "16 Jun 3", "1 2 3 4")
	facts := report.Facts{Now: noon.Add(-6 * day), Policy: policyOf(t, someRules), Source: b.Scan}
	r, err := report.Build(t.Context(), facts, report.Options{Since: 14 * day, Days: ChartDays, Brief: true})
	if err != nil {
		t.Fatal(err)
	}
	if days := r.Trend.Periods; len(days) != ChartDays || days[ChartDays-1].Clients != 0 || days[ChartDays-2].Clients != 1 {
		t.Errorf("noise is among them, or days after the last: %v", days)
	}
}

// noDays are those up to noon, without a client.
func noDays() (days []report.Period) {
	for i := range ChartDays {
		days = append(days, report.Period{First: noon.AddDate(0, 0, i+1-ChartDays).Format(time.DateOnly)})
	}
	return days
}

// What is drawn behind the days is where the policy has it.
func TestTheChartShowsThePolicy(t *testing.T) {
	const rules = `
mode: observe
rules:
  - {name: special, mode: observe, match: {client: [192.0.2.7]}, until: 2026-06-20T00:00:00Z}
  - {name: brownouts, mode: enforce, schedule: "0 9 * * 1", for: 10m, from: 2026-05-25T00:00:00Z, until: 2026-06-10T00:00:00Z}
  - {name: ramp, mode: explain, share: {from: 0%, to: 50%}, from: 2026-06-01T00:00:00Z, until: 2026-07-01T00:00:00Z}
  - {name: cutover, mode: enforce, match: {listener: [imaps, imap, pop3s, pop3]}, from: 2026-07-01T00:00:00Z}
  - {name: far, mode: enforce, from: 2027-07-01T00:00:00Z}
`
	b := newTestLedger(t)
	_, page := show(t, b.page(t, rules, nil))
	c := newChart(noDays(), PolicyState{Policy: policyOf(t, rules), Now: noon})
	// From 18 May to the end of 2 July: the last date within 90 days is 1 July.
	if c.Width != 460 || len(c.Bands) != 2 || len(c.Marks) != 1 {
		t.Fatalf("%d wide, %d bands, %d marks", c.Width, len(c.Bands), len(c.Marks))
	}
	for i, want := range []string{"M440 100V0L460 0V100Z", "M140 100V100L440 50V100Z"} {
		if c.Bands[i].Path != want {
			t.Errorf("band %s is %s, want %s", c.Bands[i].Rule.Name, c.Bands[i].Path, want)
		}
	}
	if want := "M72 0h6v5h-6zM142 0h6v5h-6zM212 0h6v5h-6z"; c.Marks[0].Path != want { // three Mondays
		t.Errorf("marks at %s, want %s", c.Marks[0].Path, want)
	}
	says(t, page, "Mon 25 May 2026, 00:00 UTC brownouts begins.", "Mon 1 Jun 2026, 00:00 UTC ramp begins.", "Wed 10 Jun 2026, 00:00 UTC brownouts ends.",
		"Sat 20 Jun 2026, 00:00 UTC special ends.", "Wed 1 Jul 2026, 00:00 UTC cutover begins. ramp ends.")
	if strings.Contains(strings.Split(visible(page), "The numbers")[0], "far begins") {
		t.Error("a date behind the chart's end is on it")
	}
}

func TestFlagsDoNotCollide(t *testing.T) {
	var rules strings.Builder
	rules.WriteString("mode: observe\nrules:\n")
	for i := range 150 {
		at := noon.Add(time.Duration(i*i%89)*day - 28*day).Add(time.Duration(i) * time.Minute)
		fmt.Fprintf(&rules, "  - {name: r%d, mode: enforce, match: {port: [%d]}, from: %s}\n", i, i+1, at.Format(time.RFC3339))
	}
	c := newChart(noDays(), PolicyState{Policy: policyOf(t, rules.String()), Now: noon})
	names := 0
	for i, f := range c.Flags {
		for _, e := range f.Events {
			names += len(e.Begun)
		}
		for _, o := range c.Flags[:i] {
			if f.Y == o.Y && math.Abs(f.X-o.X) < flagGap {
				t.Errorf("flags %d and %d are at %.1f %% and %.1f %% of one row", o.Number, f.Number, o.X, f.X)
			}
		}
		if f.X < 0 || f.X > 100 || f.Y > c.Height {
			t.Errorf("flag %d is off the chart: %+v", f.Number, f)
		}
	}
	if names != 150 {
		t.Errorf("%d of 150 rules have a flag", names)
	}
}

func TestAChartEndsTodayWithoutDates(t *testing.T) {
	c := newChart(noDays(), PolicyState{Policy: policy.New(policy.FloorTLS12, policy.Observe), Now: noon})
	if c.Width != 10*ChartDays || c.End != "" || c.Ticks[0] != 2 {
		t.Errorf("%+v", c)
	}
}
