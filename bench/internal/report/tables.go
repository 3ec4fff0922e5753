package report

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"postern/bench/internal/measure"
)

// table is a table in Markdown.
func table(head []string, rows [][]string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "| %s |\n|%s\n", strings.Join(head, " | "), strings.Repeat("---|", len(head)))
	for _, row := range rows {
		fmt.Fprintf(&b, "| %s |\n", strings.Join(row, " | "))
	}
	return b.String()
}

// TargetTable has a row for each target.
func (r *Run) TargetTable() string {
	head := []string{"", "target"}
	shown := []string{Ours, "haproxy", "nginx-mail", "nginx-stream"}
	head = append(head, shown...)
	head = append(head, "by lowest", "by round: median (min–max)", "met")
	var rows [][]string
	for _, v := range r.Verdicts() {
		title := v.Title
		if v.Idle {
			title += fmt.Sprintf(" at %d", r.IdleSteps[len(r.IdleSteps)-1])
		}
		if v.Unit != "" && !v.Flat {
			title += ", " + v.Unit
		}
		row := []string{title, v.Wanted}
		for _, name := range shown {
			f := v.Figures[name]
			if f == "" {
				f = none
			}
			row = append(row, f)
		}
		rows = append(rows, append(row, v.Lowest, v.Median, v.Answer()))
	}
	return table(head, rows)
}

// Missed lists the targets that are not met.
func (r *Run) Missed() []Verdict {
	return slices.DeleteFunc(r.Verdicts(), func(v Verdict) bool { return v.Met || !v.Measured })
}

// Unmeasured lists the targets for which figures are missing.
func (r *Run) Unmeasured() []Verdict {
	return slices.DeleteFunc(r.Verdicts(), func(v Verdict) bool { return v.Measured })
}

// SummaryTable has a row for each figure that is compared, with the lowest of
// the rounds for each subject.
func (r *Run) SummaryTable() string {
	head := []string{""}
	var names []string
	for _, s := range r.Subjects {
		if !s.Direct {
			names = append(names, s.Name)
		}
	}
	head = append(head, names...)
	var rows [][]string
	for _, m := range measure.All() {
		for _, c := range r.columns(m) {
			if !c.Ratio || !r.has(m.Name) {
				continue
			}
			row := []string{m.Name + ", " + c.Title}
			base, okBase := r.series("haproxy", m.Name, c.Key).lowest()
			for _, name := range names {
				v, ok := r.series(name, m.Name, c.Key).lowest()
				cell := show(v, ok, c.Format)
				if name == Ours && ok && okBase && base > 0 {
					cell += fmt.Sprintf(" (%.2f)", v/base)
				}
				row = append(row, cell)
			}
			rows = append(rows, row)
		}
	}
	return table(head, rows)
}

// has tells whether a measure was run at all.
func (r *Run) has(meas string) bool {
	return slices.ContainsFunc(r.Records, func(rec Record) bool { return rec.Measure == meas })
}

// Section is one measure in the report.
type Section struct {
	Name, Title, Table string
	Notes              []string
}

// Sections are the measures that were run.
func (r *Run) Sections() []Section {
	var out []Section
	for _, m := range measure.All() {
		if r.has(m.Name) {
			out = append(out, Section{m.Name, m.Title, r.measureTable(m), r.notes(m.Name)})
		}
	}
	return out
}

// measureTable has a row for each subject: the lowest of the rounds, or the
// highest where more is better, and the ratio to haproxy within each round.
func (r *Run) measureTable(m *measure.Measure) string {
	columns := r.columns(m)
	head := []string{""}
	for _, c := range columns {
		head = append(head, c.Title)
		if c.Ratio {
			head = append(head, "× haproxy")
		}
		if c.OverDirect {
			head = append(head, "over direct")
		}
	}
	var rows [][]string
	for _, s := range r.Subjects {
		row, seen := []string{s.Name}, false
		for _, c := range columns {
			figures := r.series(s.Name, m.Name, c.Key)
			v, ok := figures.best(c.Higher)
			if c.Key == "failed" {
				v, ok = figures.highest()
			}
			seen = seen || ok
			row = append(row, show(v, ok, c.Format))
			if c.Ratio {
				row = append(row, r.overHaproxy(s.Name, m.Name, c.Key))
			}
			if c.OverDirect {
				d, ok := figures.minus(r.series("direct", m.Name, c.Key)).median()
				row = append(row, show(d, ok && !s.Direct, "%+.0f"))
			}
		}
		if seen {
			rows = append(rows, row)
		}
	}
	return table(head, rows)
}

// overHaproxy is a cell with the ratio to haproxy within each round.
func (r *Run) overHaproxy(subject, meas, key string) string {
	if subject == "haproxy" {
		return "1"
	}
	return r.series(subject, meas, key).over(r.series("haproxy", meas, key)).spread("%.2f")
}

// SubjectTable says how each subject was set up.
func (r *Run) SubjectTable() string {
	var rows [][]string
	for _, s := range r.Subjects {
		rows = append(rows, []string{s.Name, s.Version, s.Note, s.Size})
	}
	return table([]string{"", "version", "set up as", "installed"}, rows)
}

// LimitTable is what the machine can do.
func (r *Run) LimitTable() string {
	var rows [][]string
	for _, f := range r.Limits {
		rows = append(rows, []string{f.Name, f.Go, f.OpenSSL})
	}
	return table([]string{"", "Go", "OpenSSL"}, rows)
}

// notes lists what else was seen, with the subjects it was seen at; of notes
// that differ between rounds, the first.
func (r *Run) notes(meas string) []string {
	who := map[string][]string{}
	for _, s := range r.Subjects {
		said := map[string]bool{}
		for _, rec := range r.Records {
			if rec.Subject != s.Name || rec.Measure != meas {
				continue
			}
			if rec.Error != "" {
				note := fmt.Sprintf("FAILED in round %d: %s", rec.Round, rec.Error)
				who[note] = append(who[note], s.Name)
			}
			for _, k := range slices.Sorted(maps.Keys(rec.Notes)) {
				text := strings.TrimSpace(rec.Notes[k])
				if text == "" || said[k] {
					continue
				}
				said[k] = true
				note := fmt.Sprintf("%s: %s", k, code(text))
				who[note] = append(who[note], s.Name)
			}
		}
	}
	var out []string
	for _, note := range slices.Sorted(maps.Keys(who)) {
		out = append(out, fmt.Sprintf("%s (%s)", note, strings.Join(who[note], ", ")))
	}
	return out
}

// code makes code of lines of text that may hold anything but a backquote.
func code(text string) string {
	const longest = 600
	text = strings.ReplaceAll(text, "`", "'")
	if len(text) > longest {
		text = strings.ToValidUTF8(text[:longest], "") + " ..."
	}
	return "`" + strings.ReplaceAll(text, "\n", "` / `") + "`"
}
