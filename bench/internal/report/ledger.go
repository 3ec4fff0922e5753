package report

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Old is the name of the subject that a run with two binaries of Postern compares
// with.
const Old = "postern-old"

// costs is the measure of recording and writing, which has no ledger of its own.
const costs = "cost"

// ledgerTargets are judged for each ledger; those without a limit are shown.
var ledgerTargets = []Target{
	{Title: "page `/`", Key: "page_ms", Limit: 1. / 20, Against: Old, Unit: "ms", Format: "%.1f"},
	{Title: "`legacy-clients?limit=100`", Key: "list100_ms", Limit: 1. / 8, Against: Old, Unit: "ms", Format: "%.1f"},
	{Title: "`legacy-clients?limit=1000`", Key: "list1000_ms", Limit: 1. / 8, Against: Old, Unit: "ms", Format: "%.1f"},
	{Title: "… `&account=`", Key: "account_ms", Limit: 1. / 200, Against: Old, Unit: "ms", Format: "%.1f"},
	{Title: "… `&software=outlook`", Key: "software_ms", Limit: 1. / 8, Against: Old, Unit: "ms", Format: "%.1f"},
	{Title: "`report?format=text&by=domain`", Key: "domain_ms", Limit: 1. / 20, Against: Old, Unit: "ms", Format: "%.0f"},
	{Title: "`report`, JSON", Key: "json_ms", Limit: 1. / 10, Against: Old, Unit: "ms", Format: "%.0f"},
	{Title: "its first byte", Key: "json_first_ms", Limit: 500, Unit: "ms", Format: "%.0f"},
	{Title: "its size", Key: "json_mb", Shown: true, Unit: "MB", Format: "%.0f"},
	{Title: "a second one beside it", Key: "second_ms", Shown: true, Unit: "ms", Format: "%.0f"},
	{Title: "either of the two gets neither a report nor a time to come back", Key: "second_refused", Limit: 0, Worst: true, Format: "%.0f"},
	{Title: "memory while reporting, above idle, at the peak", Key: "above_mb", Limit: 64, Worst: true, Unit: "MB", Format: "%.0f"},
	{Title: "CPU of an idle ledger, its database's too, of a core", Key: "idle_cpu_pct", Limit: 1. / 10, Against: Old, Unit: "%", Format: "%.3f"},
	{Title: "of it the database", Key: "idle_db_pct", Shown: true, Unit: "%", Format: "%.3f"},
	{Title: "memory of an idle instance, at the peak", Key: "idle_peak_mb", Limit: 32, Unit: "MB", Format: "%.0f"},
	{Title: "the same at the end", Key: "idle_mb", Shown: true, Unit: "MB", Format: "%.0f"},
	{Title: "login p99 with reports in a loop, by without", Key: "busy_p99_ms", Of: "quiet_p99_ms", Than: "without", Limit: 1.2, Unit: "ms", Format: "%.1f"},
	{Title: "logins that failed meanwhile", Key: "logins_failed", Limit: 0, Worst: true, Format: "%.0f"},
	{Title: "start to the first greeting", Key: "serve_ms", Shown: true, Unit: "ms", Format: "%.0f"},
	{Title: "start to all clients, with the migration", Key: "start_s", Shown: true, Unit: "s", Format: "%.1f"},
	{Title: "logins that failed meanwhile", Key: "start_failed", Limit: 0, Worst: true, Format: "%.0f"},
	{Title: "their p99", Key: "start_p99_ms", Shown: true, Unit: "ms", Format: "%.1f"},
	{Title: "answers with some of the clients meanwhile", Key: "start_partial", Limit: 0, Worst: true, Format: "%.0f"},
}

// costTargets are of the package's own benchmarks.
var costTargets = []Target{
	{Title: "recording", Measure: costs, Key: "Record_ns", Limit: 200, Unit: "ns", Format: "%.0f"},
	{Title: "recording", Measure: costs, Key: "Record_ns", Limit: 1.1, Against: Old, Unit: "ns", Format: "%.0f"},
	{Title: "recording, allocations", Measure: costs, Key: "Record_allocs", Limit: 0, Worst: true, Format: "%.0f"},
	{Title: "recording, many connections", Measure: costs, Key: "RecordFromManyConnections_ns", Limit: 1.1, Against: Old, Unit: "ns", Format: "%.0f"},
	{Title: "writing a batch, new rows, in memory", Measure: costs, Key: "Flush/memory/known=false_cpu", Limit: 1.1, Against: Old, Unit: "µs CPU/row", Format: "%.2f"},
	{Title: "writing a batch, known rows, in memory", Measure: costs, Key: "Flush/memory/known=true_cpu", Limit: 1.1, Against: Old, Unit: "µs CPU/row", Format: "%.2f"},
	{Title: "writing a batch, new rows, SQLite", Measure: costs, Key: "Flush/sqlite/known=false_cpu", Limit: 1.1, Against: Old, Unit: "µs CPU/row", Format: "%.2f"},
	{Title: "writing a batch, known rows, SQLite", Measure: costs, Key: "Flush/sqlite/known=true_cpu", Limit: 1.1, Against: Old, Unit: "µs CPU/row", Format: "%.2f"},
}

// Ledger is what a run of the measure "ledger" found, as Markdown: a table for
// each ledger, and what went wrong.
func (r *Run) Ledger() string {
	var out strings.Builder
	fmt.Fprintf(&out, "Figures are the lowest of %d rounds, or the worst where one is to be 0 or bounds memory; a target is met\n"+
		"by the ratio of the lowest or by the median of the ratios within each round. %s.\n", r.Rounds, r.Started)
	for _, name := range r.measures() {
		targets := ledgerTargets
		if name == costs {
			targets = costTargets
		}
		fmt.Fprintf(&out, "\n### %s\n\n%s", name, r.ledgerTable(name, targets))
		said := false
		item := func(format string, args ...any) {
			if !said {
				out.WriteByte('\n')
			}
			said = true
			fmt.Fprintf(&out, "- "+format+"\n", args...)
		}
		for _, rec := range r.Records {
			if rec.Measure != name {
				continue
			}
			if rec.Error != "" {
				item("%s, round %d: %s", rec.Subject, rec.Round, rec.Error)
			}
			for _, note := range slices.Sorted(maps.Keys(rec.Notes)) {
				item("%s, round %d, %s: %s", rec.Subject, rec.Round, note, rec.Notes[note])
			}
		}
	}
	return out.String()
}

// measures are the names of the measures, as they come first.
func (r *Run) measures() (names []string) {
	seen := map[string]bool{}
	for _, rec := range r.Records {
		if !seen[rec.Measure] {
			seen[rec.Measure] = true
			names = append(names, rec.Measure)
		}
	}
	return names
}

func (r *Run) ledgerTable(name string, targets []Target) string {
	head := []string{"asked", Old, Ours, "ratio of the lowest", "by round: median (min–max)", "target", "met"}
	var rows [][]string
	for _, t := range targets {
		t.Measure = name
		v := r.judge(t)
		mine, old := r.series(Ours, name, t.Key), r.series(Old, name, t.Key)
		if len(mine)+len(old) == 0 {
			continue
		}
		low, ok := mine.lowest()
		lowOld, okOld := old.lowest()
		ratio, rounds := show(low/lowOld, ok && okOld && lowOld > 0, ratioFormat(low/lowOld)), mine.over(old).spread(ratioFormat(low/lowOld))
		if t.Of != "" {
			ratio, rounds = v.Lowest, v.Median
		}
		title := t.Title
		if t.Unit != "" {
			title += ", " + t.Unit
		}
		wanted, met := v.Wanted, v.Answer()
		switch {
		case t.Shown:
			wanted, met = none, none
		case r.noted(name, t.Key):
			met = "**failed**"
		}
		rows = append(rows, []string{title, r.figure(t, Old), r.figure(t, Ours), ratio, rounds, wanted, met})
	}
	return table(head, rows)
}

// noted tells whether Postern has given no answer in one of the rounds.
func (r *Run) noted(name, key string) bool {
	question := strings.TrimSuffix(strings.TrimSuffix(key, "_ms"), "_first")
	return slices.ContainsFunc(r.Records, func(rec Record) bool {
		return rec.Measure == name && rec.Subject == Ours && rec.Notes[question] != ""
	})
}

// ratioFormat shows more digits of a small ratio.
func ratioFormat(ratio float64) string {
	switch {
	case ratio < 0.01:
		return "%.5f"
	case ratio < 0.2:
		return "%.4f"
	}
	return "%.2f"
}
