package report

import (
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"postern/internal/text"
	"postern/policy"
)

// date writes a time for people, in UTC.
func date(t time.Time) string { return text.Date(t.Truncate(time.Minute), nil) }

func day(t time.Time) string { return t.UTC().Format(time.DateOnly) }

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

// some lists as many as fit, and says how many more there are.
func some(list []string, columns int) string {
	all := strings.Join(list, ", ")
	if utf8.RuneCountInString(all) <= columns || len(list) < 2 {
		return text.Clip(all, columns, "...")
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
	return text.Clip(list[0], columns-len(more), "...") + more
}
