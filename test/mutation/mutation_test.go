package main

import (
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

const sample = `package sample

var table = map[string]int{"a": limit}

func (c *conn) decide(a, b int) (int, bool) {
	if a < b && c.known(a) || b == 70 {
		defer c.note(a)
		return a, true
	}
	switch {
	case a == 3:
		c.count++
	}
	c.last = b
	return b, false
}

func declares() {
	x := 1
	_ = x
}
`

func mutateSample(t *testing.T, mutants ...mutant) (string, error) {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "sample.go"), []byte(sample), 0o600); err != nil {
		t.Fatal(err)
	}
	files, err := readPackage(dir)
	if err != nil {
		t.Fatal(err)
	}
	for i, m := range mutants {
		if err := m.addTo(files, i+1); err != nil {
			return "", err
		}
	}
	text := files[0].mutated()
	if _, err := parser.ParseFile(token.NewFileSet(), "sample.go", text, 0); err != nil {
		t.Errorf("%v in\n%s", err, text)
	}
	return string(text), nil
}

func TestOperationsChangeOnePlace(t *testing.T) {
	const fn = "p conn.decide"
	for want, m := range map[string]mutant{
		"if ((a < b && c.known(a) || b == 70) && !mutantLives(1)) {":             {in: fn, at: condition("", 1), do: never},
		"case ((a == 3) != mutantLives(1)):":                                     {in: fn, at: condition("3", 1), do: negated},
		"a < b && ((c.known(a)) || mutantLives(1)) || b":                         {in: fn, at: part("", 2), do: always},
		"if ((a < b) != (mutantLives(1) && (a) == (b))) &&":                      {in: fn, at: comparison("", 1), do: boundary},
		"b == mutantValue(mutantLives(1), 71, 70) {":                             {in: fn, at: word("70", 1), do: becomes("71")},
		"if !mutantLives(1) { defer c.note(a) }":                                 {in: fn, at: call("note", 1), do: skipped},
		"if !mutantLives(1) { c.count++ }":                                       {in: fn, at: assignment("count", 1), do: skipped},
		"if mutantLives(1) { return 0, true }; return b, false":                  {in: fn, at: returned("", 2), do: first("return 0, true")},
		"(int, bool) {if mutantLives(1) { return a, b }; ":                       {in: fn, at: body, do: first("return a, b")},
		"c.last = mutantValue(mutantLives(1), a, b)":                             {in: fn, at: value("last", 1), do: becomes("a")},
		"c.note(mutantValue(mutantLives(1), b, a))":                              {in: fn, at: argument(1, "note", 1), do: becomes("b")},
		`var table = map[string]int{"a": mutantValue(mutantLives(1), 0, limit)}`: {in: "p table", at: word("limit", 1), do: becomes("0")},
	} {
		text, err := mutateSample(t, m)
		if err != nil || !strings.Contains(text, want) {
			t.Errorf("%v, no %q in\n%s", err, want, text)
		}
	}
}

func TestMutantsMayLieWithinEachOther(t *testing.T) {
	const fn = "p conn.decide"
	text, err := mutateSample(t,
		mutant{in: fn, at: word("b", 2), do: becomes("1")},
		mutant{in: fn, at: comparison("", 1), do: boundary},
		mutant{in: fn, at: part("", 1), do: never},
		mutant{in: fn, at: condition("", 1), do: always},
		mutant{in: fn, at: condition("", 1), do: skipped},
		mutant{in: fn, at: call("note", 1), do: first("a = b")},
		mutant{in: fn, at: call("note", 1), do: skipped})
	if err != nil || strings.Count(text, "mutantLives") != 7 {
		t.Errorf("%v, in\n%s", err, text)
	}
}

func TestAMutantWithoutAPlaceIsNamed(t *testing.T) {
	for want, m := range map[string]mutant{
		"p conn.judge (x): it is gone":           {breaks: "x", in: "p conn.judge", at: body, do: first("")},
		"the place is not there":                 {in: "p conn.decide", at: call("note", 2), do: skipped},
		"the place is no comparison":             {in: "p conn.decide", at: call("note", 1), do: boundary},
		"the statement declares a variable: x :": {in: "p declares", at: value("x", 1), do: skipped},
	} {
		if _, err := mutateSample(t, m); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
}

// Whether each is caught only a run of the command tells.
func TestEveryMutantHasAPlaceAndATest(t *testing.T) {
	const most = 100
	if len(mutants) > most {
		t.Errorf("%d mutants, want %d at most: those that break a promise", len(mutants), most)
	}
	if _, err := mutateAll("../..", mutants); err != nil {
		t.Error(err)
	}
	for _, m := range mutants {
		if !regexp.MustCompile(`^[a-z0-9/]+ (Test|Fuzz)\S`).MatchString(m.seen) {
			t.Errorf("%s: %q is no package and test", m.breaks, m.seen)
		}
	}
}
