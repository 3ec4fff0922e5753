// Package prose sets text for people who read it in a terminal.
package prose

import (
	"fmt"
	"strings"
	"time"
	"unicode/utf8"
)

// Width is how many columns a line may have.
const Width = 100

const glue = "\u00a0"

// Glued keeps words together on one line, as those of a date or of a name.
func Glued(s string) string { return strings.ReplaceAll(s, " ", glue) }

// Plain is text as it is printed.
func Plain(s string) string { return strings.ReplaceAll(s, glue, " ") }

// Wrap breaks text into lines of so many columns; those after the first are
// indented. It is plain then.
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
			lines = append(lines, Plain(line))
			line = indent + word
		default:
			line += " " + word
		}
	}
	return append(lines, Plain(line))
}

// Date writes a time, with the day of the week and the zone, for Wrap to keep
// together; nil is UTC.
func Date(t time.Time, zone *time.Location) string {
	form := "Mon 2 Jan 2006 15:04 MST"
	if t.Second() != 0 {
		form = "Mon 2 Jan 2006 15:04:05 MST"
	}
	if zone == nil {
		zone = time.UTC
	}
	return Glued(t.In(zone).Format(form))
}

// Ahead says how far away something is.
func Ahead(d time.Duration) string {
	const day = 24 * time.Hour
	switch {
	case d >= 2*day:
		return fmt.Sprintf("in %d days", d/day)
	case d >= 2*time.Hour:
		return fmt.Sprintf("in %d hours", d/time.Hour)
	}
	return fmt.Sprintf("in %d minutes", d/time.Minute)
}
