package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestEveryDefectFitsTheCode finds a stale defect without planting any.
func TestEveryDefectFitsTheCode(t *testing.T) {
	names := make(map[string]bool)
	for _, m := range all() {
		text, err := os.ReadFile(filepath.Join("..", "..", m.file))
		if err != nil {
			t.Errorf("%s: %v", m.name, err)
			continue
		}
		if _, err := m.planted(text); err != nil {
			t.Errorf("%s: %v", m.name, err)
		}
		if names[m.name] {
			t.Errorf("%s: the name is used twice", m.name)
		}
		names[m.name] = true
		if _, err := os.Stat(filepath.Join("..", "..", m.seen.pkg)); err != nil {
			t.Errorf("%s: its test: %v", m.name, err)
		}
		for part := range strings.SplitSeq(m.seen.run, "/") {
			if _, err := regexp.Compile(part); err != nil {
				t.Errorf("%s: its test: %v", m.name, err)
			}
		}
	}
	if len(names) < 20 {
		t.Errorf("only %d defects", len(names))
	}
}

func TestADefectThatDoesNotFitIsStale(t *testing.T) {
	const text = "one two two\n"
	for _, c := range []struct {
		old, new, want string
	}{
		{"one", "three", "three two two\n"},
		{"two", "three", ""}, // stands there twice
		{"four", "three", ""},
		{"one", "one", ""},
	} {
		got, err := mutant{file: "f", old: c.old, new: c.new}.planted([]byte(text))
		if string(got) != c.want || (err == nil) != (c.want != "") {
			t.Errorf("%s to %s: %q, %v, want %q", c.old, c.new, got, err, c.want)
		}
	}
}

func TestThePlantedFileIsNotTheOneInTheTree(t *testing.T) {
	root, dir := t.TempDir(), t.TempDir()
	path := filepath.Join(root, "f.go")
	if err := os.WriteFile(path, []byte("old"), 0o600); err != nil {
		t.Fatal(err)
	}
	overlay, err := mutant{file: "f.go", old: "old", new: "new"}.plant(root, dir)
	if err != nil {
		t.Fatal(err)
	}
	read := func(path string) string {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Error(err)
		}
		return string(text)
	}
	changed := filepath.Join(dir, "f.go")
	if got, want := read(overlay), `{"Replace":{"`+path+`":"`+changed+`"}}`; got != want {
		t.Errorf("overlay %s, want %s", got, want)
	}
	if read(path) != "old" || read(changed) != "new" {
		t.Errorf("in the tree %q, planted %q", read(path), read(changed))
	}
}

func TestVerdictOfATest(t *testing.T) {
	exit := errors.New("exit status 1")
	for _, c := range []struct {
		output string
		err    error
		want   status
	}{
		{"--- PASS: TestX (0.00s)\nPASS\n", nil, isSurvivor},
		{"    x_test.go:1: no\n--- FAIL: TestX (0.00s)\nFAIL\n", exit, isCaught},
		{"=== RUN TestX\npanic: test timed out after 8s\n", exit, isCaught},
		{"=== RUN TestX\npanic: runtime error: index out of range\n", exit, isCaught},
		{"=== RUN TestX\n", context.DeadlineExceeded, isCaught},
		{"=== RUN TestX\n", context.Canceled, isNoResult},
		{"flag provided but not defined\n", exit, isNoResult},
	} {
		if got, detail := verdict([]byte(c.output), c.err); got != c.want {
			t.Errorf("%q, %v: %s (%s), want %s", c.output, c.err, got, detail, c.want)
		}
	}
}

func TestAPatternThatMatchesNothingIsNoBaseline(t *testing.T) {
	const output = "=== RUN   TestX\n=== RUN   TestX/a_b\n--- PASS: TestX (0.00s)\n"
	for pattern, want := range map[string]bool{"^TestX$": true, "^TestX$/^a b$": true, "^TestX$/^a b$/^c$": false} {
		if got := ran([]byte(output), pattern); got != want {
			t.Errorf("%s: %v, want %v", pattern, got, want)
		}
	}
	if ran([]byte("testing: warning: no tests to run\nPASS\n"), "^TestY$") {
		t.Error("no test is taken for one")
	}
}

// The parts of a run are all of it, and no defect is in two.
func TestThePartsAreTheWhole(t *testing.T) {
	seen := make(map[string]int)
	for _, text := range []string{"0/4", "1/4", "2/4", "3/4"} {
		chosen, err := part(all(), text)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range chosen {
			seen[m.name]++
		}
	}
	for _, m := range all() {
		if seen[m.name] != 1 {
			t.Errorf("%q is tried %d times", m.name, seen[m.name])
		}
	}
	for _, text := range []string{"4/4", "-1/4", "1", "a/b", "0/0"} {
		if _, err := part(all(), text); err == nil {
			t.Errorf("%q is a part", text)
		}
	}
}
