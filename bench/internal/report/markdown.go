package report

import (
	_ "embed"
	"strings"
	"text/template"
)

// page is docs/performance.md without its figures.
//
//go:embed performance.md.tmpl
var page string

// Page is what the template is filled with.
type Page struct {
	*Run
	// Findings is prose that stands in the report word for word.
	Findings string
	// Large is the run with large ledgers; nil if there was none.
	Large *Run
	// Plots are names of files beside the report.
	Plots []Plot
}

// Plot is a picture and what it shows.
type Plot struct{ File, Shows string }

// Markdown is the whole report, with what was found with large ledgers, if
// anything was.
func (r *Run) Markdown(findings string, plots []Plot, large *Run) (string, error) {
	t, err := template.New("performance.md").Parse(page)
	if err != nil {
		return "", err
	}
	var b strings.Builder
	err = t.Execute(&b, Page{Run: r, Findings: strings.TrimSpace(findings), Large: large, Plots: plots})
	return b.String(), err
}
