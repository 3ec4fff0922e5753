package plots

import (
	"encoding/xml"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"postern/bench/internal/report"
)

// sample is a run with figures that are made up.
func sample(t *testing.T) *report.Run {
	t.Helper()
	run, err := report.ReadFile("../report/testdata/run.json")
	if err != nil {
		t.Fatal(err)
	}
	return run
}

func TestPlotsAreWellFormedAndNameEverybody(t *testing.T) {
	dir := t.TempDir()
	plots, err := Write(sample(t), dir)
	if err != nil || len(plots) != 3 {
		t.Fatalf("%d plots, %v", len(plots), err)
	}
	for _, p := range plots {
		b, err := os.ReadFile(filepath.Join(dir, p.File))
		if err != nil {
			t.Fatal(err)
		}
		for d := xml.NewDecoder(strings.NewReader(string(b))); ; {
			if _, err := d.Token(); errors.Is(err, io.EOF) {
				break
			} else if err != nil {
				t.Fatalf("%s: %v", p.File, err)
			}
		}
		for _, name := range []string{">postern<", "haproxy", "nginx-stream", "dovecot", "sans-serif"} {
			if !strings.Contains(string(b), name) {
				t.Errorf("%s does not have %s", p.File, name)
			}
		}
	}
}

func TestARunOfPosternAloneHasNoRatios(t *testing.T) {
	run := sample(t)
	run.Subjects = run.Subjects[len(run.Subjects)-1:]
	var alone []report.Record
	for _, rec := range run.Records {
		if rec.Subject == report.Ours {
			alone = append(alone, rec)
		}
	}
	run.Records = alone
	plots, err := Write(run, t.TempDir())
	if err != nil || len(plots) != 2 {
		t.Errorf("%v, %v", plots, err)
	}
}
