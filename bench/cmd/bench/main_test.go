package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"postern/bench/internal/measure"
	"postern/bench/internal/report"
)

func TestOnlyAWholeRunGoesIntoTheDocumentation(t *testing.T) {
	for _, test := range []struct {
		args  []string
		whole bool
	}{
		{[]string{"-docs", "d"}, true},
		{[]string{"-docs", "d", "-repeat", "7", "-idle-repeat", "3"}, true},
		{nil, false},
		{[]string{"-docs", "d", "-quick"}, false},
		{[]string{"-docs", "d", "-subjects", "postern"}, false},
		{[]string{"-docs", "d", "-measures", "rtt,bulk"}, false},
		{[]string{"-docs", "d", "-profile", "p"}, false},
	} {
		o, err := parse(test.args)
		if err != nil || o.whole() != test.whole {
			t.Errorf("%q: whole %v, %v", test.args, o.whole(), err)
		}
	}
}

func TestDefaults(t *testing.T) {
	o, err := parse(nil)
	if err != nil || o.repeat != 5 || o.idleRepeat != 5 || !slices.Equal(o.steps, []int{100, 1000, 5000}) {
		t.Errorf("%+v, %v", o, err)
	}
	o, err = parse([]string{"-quick"})
	if err != nil || o.repeat != 1 || !slices.Equal(o.steps, []int{1000}) {
		t.Errorf("-quick: %+v, %v", o, err)
	}
}

func TestWhatIsWritten(t *testing.T) {
	run, err := report.ReadFile("../../internal/report/testdata/run.json")
	if err != nil {
		t.Fatal(err)
	}
	docs := filepath.Join(t.TempDir(), "docs")
	o, err := parse([]string{"-docs", docs, "-findings", "../../findings.md", "-md", filepath.Join(t.TempDir(), "report.md")})
	if err != nil {
		t.Fatal(err)
	}
	if err := write(o, run, false); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(docs); err == nil {
		t.Error("a run that was interrupted is in the documentation")
	}
	if err := write(o, run, true); err != nil {
		t.Fatal(err)
	}
	before, err := os.ReadFile(filepath.Join(docs, "performance.md"))
	if err != nil || !strings.Contains(string(before), "](performance-cpu.svg)") {
		t.Errorf("no plot in the report, %v", err)
	}
	if err := render(o); err != nil {
		t.Fatal(err)
	}
	after, err := os.ReadFile(filepath.Join(docs, "performance.md"))
	if err != nil || string(after) != string(before) {
		t.Errorf("made again from its figures, the report is another, %v", err)
	}
}

func TestWhatMakesNoSense(t *testing.T) {
	for _, args := range [][]string{
		{"-subjects", "haproxy,nobody"},
		{"-measures", "nothing"},
		{"-idle", "100,50"},
		{"-idle", "many"},
		{"-pgo", "default.pgo"},
		{"run"},
	} {
		if _, err := parse(args); err == nil {
			t.Errorf("%q was taken", args)
		}
	}
}

func TestRemainingWork(t *testing.T) {
	o, err := parse([]string{"-subjects", "direct,postern", "-measures", "rtt,idle", "-repeat", "3", "-idle-repeat", "1"})
	if err != nil {
		t.Fatal(err)
	}
	l := newLeft(o)
	if l.total != 7 { // direct does not idle, postern does once
		t.Errorf("%d to do", l.total)
	}
	for _, m := range measure.All() {
		if m.Name == "rtt" {
			l.done(m, 10*time.Second)
		}
	}
	if got := l.String(); got != "[1/7, 1m35s left]" {
		t.Error(got)
	}
}
