package report

import (
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"postern/internal/prose"
	"postern/policy"
)

// wrap breaks a text into lines; all after the first are indented.
func wrap(text, indent string, columns int) string {
	return strings.Join(prose.Wrap(text, indent, columns), "\n") + "\n"
}

// date writes a time for people, in UTC.
func date(t time.Time) string { return prose.Date(t.Truncate(time.Minute), nil) }

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
