package report

import (
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"postern/policy"
)

// width is how many columns a line of text may have.
const width = 100

// glue keeps the words of a date on one line.
const glue = "\u00a0"

// wrap breaks a text into lines of so many columns; all after the first are
// indented.
func wrap(text, indent string, columns int) string {
	var b strings.Builder
	n := 0
	for word := range strings.FieldsFuncSeq(text, func(r rune) bool { return r == ' ' }) {
		size := utf8.RuneCountInString(word)
		switch {
		case n == 0:
		case n+1+size > columns:
			b.WriteString("\n" + indent)
			n = len(indent)
		default:
			b.WriteByte(' ')
			n++
		}
		b.WriteString(word)
		n += size
	}
	return plain(b.String()) + "\n"
}

// plain is text without glue.
func plain(s string) string { return strings.ReplaceAll(s, glue, " ") }

// date writes a time for people, in UTC.
func date(t time.Time) string {
	form := "Mon 2 Jan 2006 15:04 UTC"
	return strings.ReplaceAll(t.UTC().Format(form), " ", glue)
}

// ahead says how far away something is.
func ahead(d time.Duration) string {
	const day = 24 * time.Hour
	switch {
	case d >= 2*day:
		return fmt.Sprintf("in %d days", d/day)
	case d >= 2*time.Hour:
		return fmt.Sprintf("in %d hours", d/time.Hour)
	}
	return fmt.Sprintf("in %d minutes", d/time.Minute)
}

// days writes a window.
func days(d time.Duration) string {
	const day = 24 * time.Hour
	switch {
	case d == day:
		return "24 hours"
	case d%day == 0:
		return fmt.Sprintf("%d days", d/day)
	}
	s := d.String()
	s = strings.TrimSuffix(s, "0s")
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// number is a number of things.
func number(n int, thing string) string {
	if n == 1 {
		return "1 " + thing
	}
	return fmt.Sprintf("%d %ss", n, thing)
}

func be(n int) string {
	if n == 1 {
		return "is"
	}
	return "are"
}

func have(n int) string {
	if n == 1 {
		return "has"
	}
	return "have"
}

// versions are TLS versions as people write them.
func versions(labels []string) string {
	var names []string
	for _, l := range labels {
		if v, err := policy.ParseVersion(l); err == nil {
			l = v.Number()
		}
		names = append(names, l)
	}
	return strings.Join(names, ", ")
}

// some lists as many as there is room for, and says how many more there are.
func some(list []string, columns int) string {
	all := strings.Join(list, ", ")
	if utf8.RuneCountInString(all) <= columns || len(list) < 2 {
		return clip(all, columns)
	}
	for n := len(list) - 1; n > 1; n-- {
		s := fmt.Sprintf("%s and %d more", strings.Join(list[:n], ", "), len(list)-n)
		if utf8.RuneCountInString(s) <= columns {
			return s
		}
	}
	const least = 8 // of a name, to say anything
	more := fmt.Sprintf(" and %d more", len(list)-1)
	if columns-len(more) < least {
		return fmt.Sprintf("%d of them", len(list))
	}
	return clip(list[0], columns-len(more)) + more
}
