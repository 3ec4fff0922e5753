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

func be(n int) string   { return text.Either(n == 1, "is", "are") }
func was(n int) string  { return text.Either(n == 1, "was", "were") }
func have(n int) string { return text.Either(n == 1, "has", "have") }

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

// some lists as many of n as fit, the first of which are in the list, and says how
// many more there are.
func some(list []string, n, columns int) string {
	if all := strings.Join(list, ", "); n < 2 || n == len(list) && utf8.RuneCountInString(all) <= columns {
		return text.Clip(all, columns, "...")
	}
	for k := min(len(list), n-1); k > 1; k-- {
		s := fmt.Sprintf("%s and %d more", strings.Join(list[:k], ", "), n-k)
		if utf8.RuneCountInString(s) <= columns {
			return s
		}
	}
	const least = 8 // of a name, to say anything
	more := fmt.Sprintf(" and %d more", n-1)
	if columns-len(more) < least {
		return fmt.Sprintf("%d of them", n)
	}
	return text.Clip(list[0], columns-len(more), "...") + more
}
