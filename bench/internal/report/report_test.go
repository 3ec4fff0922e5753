package report

import (
	"errors"
	"flag"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write golden files")

// sample is a run with figures that are made up.
func sample(t *testing.T) *Run {
	t.Helper()
	run, err := ReadFile("testdata/run.json")
	if err != nil {
		t.Fatal(err)
	}
	return run
}

func TestTheReport(t *testing.T) {
	large, err := ReadFile("testdata/ledger.json")
	if err != nil {
		t.Fatal(err)
	}
	got, err := sample(t).Markdown("## Findings\n\nProse with {{braces}}.\n", []Plot{{"performance-cpu.svg", "CPU time"}}, large)
	if err != nil {
		t.Fatal(err)
	}
	const golden = "testdata/performance.md"
	if *update {
		if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("the report is not %s; run with -update and look at the difference:\n%s", golden, got)
	}
	if strings.Contains(got, "\n\n\n") {
		t.Error("two empty lines in the report")
	}
}

// TestTheDocumentationIsTheReport fails after a change that bench/run -render
// would bring into the documentation.
func TestTheDocumentationIsTheReport(t *testing.T) {
	const docs = "../../../docs/"
	run, err := ReadFile(docs + "performance.json")
	if err != nil {
		t.Fatal(err)
	}
	findings, err := os.ReadFile("../../findings.md")
	if err != nil {
		t.Fatal(err)
	}
	md, err := os.ReadFile(docs + "performance.md")
	if err != nil {
		t.Fatal(err)
	}
	large, err := ReadFile(docs + "performance-ledger.json")
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	want, err := run.Markdown(string(findings), plotsIn(string(md)), large)
	if err != nil {
		t.Fatal(err)
	}
	if string(md) != want {
		t.Error("docs/performance.md is not what its figures and its prose make: bench/run -render")
	}
	for _, p := range plotsIn(string(md)) {
		if _, err := os.Stat(docs + p.File); err != nil {
			t.Error(err)
		}
	}
}

// plotsIn finds the pictures that a report shows.
func plotsIn(md string) []Plot {
	var out []Plot
	for line := range strings.Lines(md) {
		shows, file, ok := strings.Cut(strings.TrimSpace(line), "](")
		if ok && strings.HasPrefix(shows, "![") {
			out = append(out, Plot{File: strings.TrimSuffix(file, ")"), Shows: shows[2:]})
		}
	}
	return out
}

// verdict finds a verdict by measure, figure and peer.
func verdict(t *testing.T, run *Run, meas, key, against string) Verdict {
	t.Helper()
	i := slices.IndexFunc(run.Verdicts(), func(v Verdict) bool { return v.Measure == meas && v.Key == key && v.Against == against })
	if i < 0 {
		t.Fatalf("no target for %s %s %s", meas, key, against)
	}
	return run.Verdicts()[i]
}

func TestTargets(t *testing.T) {
	run := sample(t)
	for _, want := range []struct {
		measure, key, against  string
		answer, lowest, median string
	}{
		{"session", "cpu_ms", "haproxy", "yes", "0.74", "0.74 (0.74–0.89)"},
		{"full13", "cpu_ms", "nginx-stream", "**no**", "1.07", "1.07 (1.07–1.07)"},
		{"full12rsa", "cpu_ms", "haproxy", "yes", "2.10", "2.10 (2.10–2.10)"},
		{"idle", "pss_kb", "haproxy", "**no**", "0.98", "0.98 (0.98–0.98)"},
		{"idle", "after_mb", "", "yes", "1.64", "1.64 (1.64–1.64)"},
		{"idle", "hs_cpu_ms", "", "yes", "1.02", "1.02 (1.02–1.02)"},
		{"idle", "idle_cpu_pct", "", "yes", "0.10", "0.10 (0.10–0.11)"},
		{"used", "down_kb", "", "yes", "18.2", "19.1 (18.2–20.0)"},
		{"storm", "failed", "", "yes", "0", "0 (0–0)"},
		{"bulkpop3", "cpu_s_gb", "haproxy", "not measured", "–", "–"},
	} {
		v := verdict(t, run, want.measure, want.key, want.against)
		if v.Answer() != want.answer || v.Lowest != want.lowest || v.Median != want.median {
			t.Errorf("%s %s %s: %s, by lowest %s, by round %s", want.measure, want.key, want.against, v.Answer(), v.Lowest, v.Median)
		}
	}
}

func TestATargetIsMetByTheLowestOrTheMedian(t *testing.T) {
	run := &Run{Records: []Record{
		{Round: 1, Subject: "haproxy", Measure: "session", Values: map[string]float64{"cpu_ms": 1}},
		{Round: 2, Subject: "haproxy", Measure: "session", Values: map[string]float64{"cpu_ms": 2}},
		{Round: 3, Subject: "haproxy", Measure: "session", Values: map[string]float64{"cpu_ms": 2}},
		{Round: 1, Subject: Ours, Measure: "session", Values: map[string]float64{"cpu_ms": 0.9}},
		{Round: 2, Subject: Ours, Measure: "session", Values: map[string]float64{"cpu_ms": 1}},
		{Round: 3, Subject: Ours, Measure: "session", Values: map[string]float64{"cpu_ms": 1}},
	}}
	if v := verdict(t, run, "session", "cpu_ms", "haproxy"); v.Answer() != "yes, by the median" {
		t.Errorf("%s, by lowest %s, by round %s", v.Answer(), v.Lowest, v.Median)
	}
}

func TestOneFailureInOneRoundIsAFailure(t *testing.T) {
	run := sample(t)
	for i, rec := range run.Records {
		if rec.Subject == Ours && rec.Measure == "storm" && rec.Round == 2 {
			run.Records[i].Values["failed"] = 1
		}
	}
	if v := verdict(t, run, "storm", "failed", ""); v.Answer() != "**no**" {
		t.Errorf("%s, by round %s", v.Answer(), v.Median)
	}
}

func TestFailedMeasuresAreReported(t *testing.T) {
	run := sample(t)
	run.Records = append(run.Records, Record{Round: 2, Subject: Ours, Measure: "bulk", Error: "postern has ended"})
	md, err := run.Markdown("", nil, nil)
	if err != nil || !strings.Contains(md, "\n- bulk, round 2: postern has ended\n") {
		t.Errorf("%v, a report without it", err)
	}
}

func TestLossesAreBeyondNoise(t *testing.T) {
	var got []string
	for _, l := range sample(t).Losses() {
		got = append(got, l.Measure+" "+l.Figure+": "+strings.Join(l.Better, ", "))
	}
	want := []string{
		"full13 CPU ms/conn: nginx-mail 0.324 (1.32 times)",
		"resume13 CPU ms/conn: nginx-mail 0.295 (1.16 times)",
		"full12rsa CPU ms/conn: nginx-stream 0.567 (2.31 times), nginx-mail 0.595 (2.20 times), haproxy 0.624 (2.10 times), " +
			"dovecot 0.625 (2.10 times), stunnel 0.841 (1.56 times)",
		"used after 1 MB up too: haproxy 17.3 (2.20 times)",
	}
	for _, w := range want {
		if !slices.Contains(got, w) {
			t.Errorf("missing: %s", w)
		}
	}
	for _, g := range got {
		if strings.HasPrefix(g, "rtt") || strings.Contains(g, "naive") {
			t.Errorf("noise, or no peer: %s", g)
		}
	}
}

func TestFiguresAreReadAsTheyWereWritten(t *testing.T) {
	for _, run := range []*Run{sample(t), {Rounds: 1, IdleSteps: []int{5}}} {
		path := filepath.Join(t.TempDir(), "new", "run.json")
		if err := run.WriteFile(path); err != nil {
			t.Fatal(err)
		}
		if got, err := ReadFile(path); err != nil || !reflect.DeepEqual(got, run) {
			t.Errorf("%d records, not the %d that were written, %v", len(got.Records), len(run.Records), err)
		}
	}
}

func TestRoundsThatLackAFigureAreLeftOut(t *testing.T) {
	q := series{1: 2, 2: 3, 3: 8}.over(series{1: 4, 3: 4, 4: 1})
	if m, ok := q.median(); !ok || m != 1.25 || len(q) != 2 {
		t.Errorf("%v, median %v", q, m)
	}
	if s := (series{}).spread("%.1f"); s != none {
		t.Errorf("nothing: %q", s)
	}
}
