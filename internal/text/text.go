// Package text reads and writes text for people: durations and networks, text
// for terminals and spreadsheets, and strangers' text made harmless.
package text

import (
	"fmt"
	"strings"
	"unicode/utf8"
)

// Width is the most columns of a line.
const Width = 100

const glue = "\u00a0"

// Glued keeps words together on one line, as those of a date or of a name.
func Glued(s string) string { return strings.ReplaceAll(s, " ", glue) }

// Unglued undoes Glued.
func Unglued(s string) string { return strings.ReplaceAll(s, glue, " ") }

// Either is yes if that is so, else no.
func Either(so bool, yes, no string) string {
	if so {
		return yes
	}
	return no
}

// Number is a number of things.
func Number(n int, thing string) string {
	return fmt.Sprintf("%d %s", n, Either(n == 1, thing, thing+"s"))
}

// Wrap breaks text into lines of so many columns, between words that are not
// glued; all but the first are indented. The lines are unglued.
func Wrap(text, indent string, columns int) []string {
	var lines []string
	line := ""
	for word := range strings.SplitSeq(text, " ") {
		switch {
		case word == "":
			continue
		case line == "":
			line = word
		case utf8.RuneCountInString(line)+1+utf8.RuneCountInString(word) > columns:
			lines = append(lines, Unglued(line))
			line = indent + word
		default:
			line += " " + word
		}
	}
	return append(lines, Unglued(line))
}
