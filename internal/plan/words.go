package plan

import (
	_ "embed"
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
	rows := text.Each(lines, func(l string) row { return row{words: l} })
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
		if utf8.RuneCountInString(label) > left-2 {
			b.WriteString(label + "\n")
			label = ""
		}
		b.WriteString(wrap(text.Glued(fmt.Sprintf("%-*s", left, label))+r.words, left))
	}
	return b.String()
}

// wrap breaks words into lines; those after the first begin behind the columns on the
// left, and are indented.
func wrap(words string, left int) string {
	words = strings.ReplaceAll(words, " %", text.Glued(" %"))
	return strings.Join(text.Wrap(words, strings.Repeat(" ", left)+"   ", text.Width), "\n") + "\n"
}

// lines wraps a sentence.
func lines(words string) string { return wrap(words, 0) }

// named quotes a rule's name.
func named(r *policy.Rule) string { return quoted(r.Name) }

func quoted(s string) string { return text.Glued(strconv.Quote(s)) }

//go:embed plan.tmpl
var sentences string

// sentence has the words of a template.
var sentence = text.Templates(sentences, map[string]any{
	"date": text.Date, "days": text.Days, "duration": text.Duration, "percent": policy.Percent,
	"named": named, "number": text.Number, "quoted": quoted, "match": matchWords, "sharers": sharers, "stands": stands,
})

// eventWords describes an event of a rule.
func eventWords(e policy.Event) string { return sentence("event", e) }

// sharers are what the share of a rule is of.
func sharers(r *policy.Rule) string {
	return text.Either(r.Share != nil && r.Share.Connection, "connections", "clients")
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
func matchWords(m policy.Match) string {
	return strings.Join(text.Each(m, policy.Condition.String), ", ")
}
