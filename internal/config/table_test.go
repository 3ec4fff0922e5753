package config

import (
	"flag"
	"fmt"
	"os"
	"reflect"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "rewrite the table of variables in docs/reference.md")

const (
	reference  = "../../docs/reference.md"
	tableBegin = "<!-- variables -->"
	tableEnd   = "<!-- /variables -->"
)

func TestTableOfVariablesIsThatOfTheConfig(t *testing.T) {
	text, err := os.ReadFile(reference)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok1 := strings.Cut(string(text), tableBegin)
	table, after, ok2 := strings.Cut(rest, tableEnd)
	if !ok1 || !ok2 {
		t.Fatalf("%s has no lines %s and %s", reference, tableBegin, tableEnd)
	}
	want := "\n" + markdownTable()
	if table == want {
		return
	}
	if !*update {
		t.Fatalf("the table in %s has drifted (run the test with -update):\n%s\nwant\n%s", reference, table, want)
	}
	fresh := before + tableBegin + want + tableEnd + after
	if err := os.WriteFile(reference, []byte(fresh), 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestTablesHoldEveryVariable(t *testing.T) {
	var plain strings.Builder
	Table(&plain)
	markdown := markdownTable()
	fields := 0
	for f := range reflect.TypeFor[Config]().Fields() {
		if !f.IsExported() {
			continue
		}
		fields++
		name := Prefix + f.Tag.Get("env")
		if f.Tag.Get("env") == "" || f.Tag.Get("desc") == "" {
			t.Errorf("%s has no env or desc tag", f.Name)
		}
		if !strings.Contains(plain.String(), "  "+name+" ") || !strings.Contains(markdown, "| `"+name+"` |") {
			t.Errorf("%s is not in the tables", name)
		}
		def := f.Tag.Get("envDefault")
		if !strings.Contains(plain.String(), def) || !strings.Contains(markdown, def) {
			t.Errorf("the default of %s is not in the tables", name)
		}
	}
	if got := strings.Count(plain.String(), "\n"); got != fields {
		t.Errorf("plain table has %d lines for %d variables", got, fields)
	}
	if got := strings.Count(markdown, "\n"); got != fields+2 {
		t.Errorf("markdown table has %d lines for %d variables", got, fields)
	}
}

func TestPlainTableIsAligned(t *testing.T) {
	var plain strings.Builder
	Table(&plain)
	column := -1
	for line := range strings.Lines(plain.String()) {
		for _, v := range rows() {
			if name := "  " + v.name + " "; strings.HasPrefix(line, name) {
				at := strings.LastIndex(line, v.meaning)
				if column < 0 {
					column = at
				}
				if at != column || at < 0 {
					t.Errorf("meaning at column %d, not %d: %s", at, column, line)
				}
			}
		}
	}
}

// markdownTable returns the variables as the table of docs/reference.md.
func markdownTable() string {
	var b strings.Builder
	b.WriteString("| variable | default | meaning |\n|---|---|---|\n")
	for _, r := range rows() {
		def := r.def
		if def != "" {
			def = "`" + def + "`"
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s |\n", r.name, def, strings.ReplaceAll(r.meaning, "|", `\|`))
	}
	return b.String()
}
