package report

import (
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"postern/internal/text"
	"postern/policy"
)

// judge decides by what was counted whether old TLS can be cut.
func (r *Report) judge(o Options) {
	j := &r.Readiness
	j.Max, j.MaxUnknown = o.Max, o.MaxUnknown
	j.Ready = r.Unwritten == nil && j.Remaining <= j.Max && j.Unknown <= j.MaxUnknown
	j.Reasons = []string{r.first()}
	more := text.Either(j.Remaining > 0, " more", "")
	add := func(n int, format string, args ...any) {
		if n > 0 {
			j.Reasons = append(j.Reasons, fmt.Sprintf("%d%s "+format+".", append([]any{n, more}, args...)...))
		}
	}
	if n := r.Totals.Exempted; n > 0 {
		add(n, "%s exempted; the first exemption ends %s", be(n), date(r.Exempted[0].Until))
	}
	may := text.Either(j.MaxUnknown > 0, fmt.Sprintf("; up to %d may be such", j.MaxUnknown), "")
	add(j.Unknown, "%s never let in: it is not known who is behind%s", was(j.Unknown), may)
	add(j.NotLoggedIn, "%s not counted: let in, and not logged in", be(j.NotLoggedIn))
	if r.Young {
		j.Reasons = append(j.Reasons, fmt.Sprintf("The ledger began %s: it knows nothing of the time before.", date(r.Began)))
	}
	if r.Totals.Clients > 0 {
		j.Reasons = append(j.Reasons, r.Parts())
	}
	for i := range j.Reasons {
		j.Reasons[i] = text.Unglued(j.Reasons[i])
	}
}

// first is the decisive reason.
func (r *Report) first() string {
	j := &r.Readiness
	first := text.Number(j.Remaining, "client") + " came since " + date(r.Since)
	switch names := keepsNames(r.Identity); {
	case r.Unwritten != nil:
		return "The ledger " + r.Unwritten.Ledger + " cannot be written; the log of the instance says why."
	case j.Remaining == 0 && names:
		first = "No client that has logged in and is under no exemption came since " + date(r.Since)
	case j.Remaining == 0:
		first = "No client that is under no exemption came since " + date(r.Since)
	case names && j.PassedThrough == j.Remaining:
		first += fmt.Sprintf(", %s passed through to the old server, where no login is seen, and %s under no exemption", was(j.Remaining), be(j.Remaining))
	case names && j.PassedThrough > 0:
		first += fmt.Sprintf(", have logged in or were passed through (%d), and are under no exemption", j.PassedThrough)
	case names:
		first += fmt.Sprintf(", %s logged in, and %s under no exemption", have(j.Remaining), be(j.Remaining))
	default:
		first += " and " + be(j.Remaining) + " under no exemption"
	}
	if j.Max > 0 {
		first += fmt.Sprintf("; up to %d may be left", j.Max)
	}
	return first + "."
}

// Parts returns the number of all clients, and of what they consist.
func (r *Report) Parts() string {
	j := &r.Readiness
	var parts []string
	add := func(n int, words string) {
		if n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", n, words))
		}
	}
	add(j.Remaining, "in the way")
	add(r.Totals.Exempted, "exempted")
	add(j.Unknown, "never let in")
	add(j.NotLoggedIn, "not logged in")
	s := "In all " + text.Number(r.Totals.Clients, "client")
	if len(parts) > 0 {
		s += ": " + strings.Join(parts, ", ")
	}
	if n := r.Totals.Noise; n > 0 {
		s += fmt.Sprintf("; and %d as noise", n)
	}
	return s + "."
}

func (u *Unwritten) words() string {
	return text.Unglued(text.Number(u.Clients, "client") + " not written since " + date(u.Since))
}

// Verdict returns the answer in a few words.
func (r *Report) Verdict() string {
	j := &r.Readiness
	switch {
	case r.Unwritten != nil:
		return "NOT KNOWN: " + r.Unwritten.words() + "."
	case j.Ready && j.Remaining == 0:
		return "GO: " + r.nobody() + "."
	case j.Ready:
		return fmt.Sprintf("GO: %s with old TLS %s left, and up to %d may be.", text.Number(j.Remaining, "client"), be(j.Remaining), j.Max)
	case j.Remaining > j.Max && j.Max == 0:
		return fmt.Sprintf("NO-GO: %s with old TLS %s left.", text.Number(j.Remaining, "client"), be(j.Remaining))
	case j.Remaining > j.Max:
		return fmt.Sprintf("NO-GO: %s with old TLS are left, and only %d may be.", text.Number(j.Remaining, "client"), j.Max)
	}
	return fmt.Sprintf("NO-GO: %s with old TLS %s never let in: it is not known who is behind.",
		text.Number(j.Unknown, "client"), was(j.Unknown))
}

// nobody says that no client remains, and how sure that is.
func (r *Report) nobody() string {
	words := "nobody with old TLS is left"
	unknown := r.Readiness.Unknown
	if unknown > 0 {
		words = "no client that has logged in is left"
	} else if r.Young {
		words = "no client with old TLS is left"
	}
	if n := r.Totals.Exempted; n > 0 {
		words += fmt.Sprintf(" but %s with an exemption", text.Number(n, "client"))
	}
	if r.Young {
		words += ", as far as the ledger goes back: to " + date(r.Began)
	}
	if unknown > 0 {
		words += fmt.Sprintf("; %s %s never let in", text.Number(unknown, "other"), was(unknown))
	}
	return text.Unglued(words)
}

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
		return clipNames(all, columns)
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
	return clipNames(list[0], columns-len(more)) + more
}
