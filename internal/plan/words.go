package plan

import (
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"

	"postern/internal/text"
	"postern/policy"
)

// row is a label, and words that may go on in the lines below.
type row struct{ label, words string }

// rowsOf gives the first line, which there must be, the label.
func rowsOf(label string, lines []string) []row {
	rows := each(lines, func(l string) row { return row{words: l} })
	rows[0].label = label
	return rows
}

// widestLabel is the width up to which a label shares a line with its words.
const widestLabel = 36

// columns writes rows with their words below each other.
func columns(rows []row) string {
	left := 0
	for _, r := range rows {
		if n := utf8.RuneCountInString(r.label); n <= widestLabel {
			left = max(left, n+2)
		}
	}
	var b strings.Builder
	for _, r := range rows {
		label := text.Unglued(r.label)
		for i, line := range wrap(r.words, text.Width-left) {
			if i == 0 && utf8.RuneCountInString(label) > left-2 {
				b.WriteString(label + "\n")
				label = ""
			}
			b.WriteString(label + strings.Repeat(" ", left-utf8.RuneCountInString(label)) + line + "\n")
			label = ""
		}
	}
	return b.String()
}

// wrap breaks words into lines; those after the first are indented.
func wrap(words string, columns int) []string {
	return text.Wrap(strings.ReplaceAll(words, " %", text.Glued(" %")), "   ", columns)
}

// lines wraps a sentence.
func lines(words string) string { return strings.Join(wrap(words, text.Width), "\n") + "\n" }

// named quotes a rule's name.
func named(r *policy.Rule) string { return text.Glued(strconv.Quote(r.Name)) }

// eventWords describes an event of a rule.
func eventWords(e policy.Event) string {
	r := e.Rule
	name := named(r)
	switch e.Kind {
	case policy.Reaches:
		return name + " reaches " + policy.Percent(e.Share)
	case policy.Ends:
		if r.Share != nil {
			return name + " ends, at " + policy.Percent(e.Share)
		}
		return name + " ends"
	case policy.Begins:
		name += " begins"
	}
	words := fmt.Sprintf("%s: %v", name, r.Mode)
	if r.OwnFloor {
		words += " below " + r.Floor.String()
	}
	if r.PassThrough {
		words += " (at the old server)"
	}
	if r.Share != nil {
		words += shareWords(r, e.Share)
	}
	if m := matchWords(r.Match); m != "" {
		words += ", for " + m
	}
	if e.Windows != nil {
		words += windowWords(r, e)
	}
	if !r.Until.IsZero() && !r.Share.Changes() {
		words += "; until " + text.Date(r.Until, r.Zone)
	}
	if r.Grace > 0 {
		words += "; clients that had logged in are told why for " + text.Days(r.Grace) + " first"
	}
	if g := r.Guard; g != nil {
		words += fmt.Sprintf("; guard: %v once more than %d clients that had logged in have met it within %s", g.Then, g.Clients, text.Days(g.Within))
	}
	if r.Owner != "" {
		words += "; owner " + r.Owner
	}
	return words
}

// sharers are what the share of a rule is of.
func sharers(r *policy.Rule) string {
	return text.Either(r.Share != nil && r.Share.Connection, "connections", "clients")
}

// shareWords describes a rule with a share.
func shareWords(r *policy.Rule, now float64) string {
	words := fmt.Sprintf(" for %s of %s", policy.Percent(now), sharers(r))
	if r.Share.Changes() {
		way := text.Either(r.Share.To < r.Share.From, "shrinking", "growing")
		words += fmt.Sprintf(", %s to %s by %s", way, policy.Percent(r.Share.To), text.Date(r.Until, r.Zone))
	}
	return words
}

// windowWords sums up the windows of a schedule.
func windowWords(r *policy.Rule, e policy.Event) string {
	w := e.Windows
	words := text.Either(r.Share != nil, ",", "")
	words += fmt.Sprintf(" for %s at %s (%s)", text.Duration(r.Schedule.For), text.Glued(strconv.Quote(r.Schedule.Cron)), r.Schedule.Zone)
	switch {
	case w.Open && !w.Closes.IsZero():
		words += ", open now until " + text.Date(w.Closes, r.Zone)
	case w.Open:
		words += ", open now"
	}
	first, more := "the first ", ""
	if e.Kind == policy.Runs {
		first, more = "the next ", " more"
	}
	words += ", "
	switch w.Count {
	case 0:
		words += "no" + more + " window"
	case 1:
		words += "one" + more + " window, " + text.Date(w.First, r.Zone)
	default:
		words += fmt.Sprintf("%d%s windows: %s%s, the last %s", w.Count, more, first, text.Date(w.First, r.Zone), text.Date(w.Last, r.Zone))
	}
	if !r.Until.Equal(w.Until) {
		words += " in the time of this plan"
	}
	return words
}

// meetingWords describes what clients meet.
func meetingWords(m policy.Meeting) string {
	words := m.Parts(nil).String()
	for _, l := range m.Layers {
		if l.Rule.Schedule == nil {
			continue
		}
		if open := m.Parts(l.Rule).String(); open != m.Parts(nil).String() {
			words += fmt.Sprintf("; in the windows of %s: %s", named(l.Rule), open)
		}
	}
	return words
}

// relaxationWords describes how a policy relaxes.
func relaxationWords(m policy.Relaxation) string {
	if m.Until.IsZero() {
		return m.Text
	}
	return m.Text + ", bit by bit until " + text.Date(m.Until, m.Rules[0].Zone)
}

// matchWords lists the conditions of a rule; empty if there are none.
func matchWords(m policy.Match) string { return strings.Join(each(m, policy.Condition.String), ", ") }
