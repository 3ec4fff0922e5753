package docs

import (
	"regexp"
	"slices"
	"strings"
	"testing"
)

const testHelpers = "internal/posterntest internal/dovecot internal/postgrestest internal/debian13"

var packageRow = regexp.MustCompile("(?m)^\\| `([a-z/]+)` \\|")

// The table of packages in CONTRIBUTING has all of them, and is sorted: each
// imports only packages below it.
func TestPackagesImportOnlyThoseBelowThem(t *testing.T) {
	_, section, _ := strings.Cut(read(t, "CONTRIBUTING.md"), "\n## The packages\n")
	section, _, _ = strings.Cut(section, "\nBeside the packages:\n")
	var rows []string
	for _, m := range packageRow.FindAllStringSubmatch(section, -1) {
		rows = append(rows, m[1])
	}
	out := shell(t, `go list -f '{{.ImportPath}} {{join .Imports " "}}' ./cmd/... ./internal/... ./metrics/... ./policy/... ./proxy/...`, "")
	packages := 0
	for line := range strings.Lines(out) {
		name, imports, _ := strings.Cut(strings.TrimSpace(line), " ")
		name = strings.TrimPrefix(name, "postern/")
		if slices.Contains(strings.Fields(testHelpers), name) {
			continue
		}
		packages++
		at := slices.Index(rows, name)
		if at < 0 {
			t.Errorf("%s has no row", name)
			continue
		}
		for path := range strings.FieldsSeq(imports) {
			imported, ours := strings.CutPrefix(path, "postern/")
			if ours && !slices.Contains(rows[at+1:], imported) {
				t.Errorf("%s imports %s, which is not below it", name, imported)
			}
		}
	}
	if len(rows) != packages {
		t.Errorf("the table has %d rows for %d packages", len(rows), packages)
	}
}
