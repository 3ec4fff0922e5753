package report

import (
	_ "embed"
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
	j.Reasons = sentences("reasons", r)
}

//go:embed verdict.tmpl
var verdictTemplate string

// sentence has the words of a template, glued for a text.
var sentence = text.Templates(verdictTemplate, map[string]any{
	"number": text.Number, "date": date, "be": be, "was": was, "have": have, "keepsNames": keepsNames, "days": text.Days,
})

// sentences are the lines of a template.
func sentences(name string, of any) []string {
	return strings.Split(strings.TrimSpace(text.Unglued(sentence(name, of))), "\n")
}

// Verdict returns the answer in a few words.
func (r *Report) Verdict() string { return text.Unglued(sentence("verdict", r)) }

// Parts returns the number of all clients, and of what they consist.
func (r *Report) Parts() string { return text.Unglued(sentence("parts", r)) }

// AcceptedNow says how many clients the floor in force accepts, which another one has
// refused; empty for none.
func (r *Report) AcceptedNow() string { return text.Unglued(sentence("accepted", r.Totals.Accepted)) }

// Who is what the clients have in common.
func (r *Report) Who() string {
	return text.Either(r.Candidate == "", "with old TLS", fmt.Sprintf("whom %q would refuse", r.Candidate))
}

// date writes a time for people, in UTC.
func date(t time.Time) string { return text.Date(t.Truncate(time.Minute), nil) }

func be(n int) string   { return text.Either(n == 1, "is", "are") }
func was(n int) string  { return text.Either(n == 1, "was", "were") }
func have(n int) string { return text.Either(n == 1, "has", "have") }

// versions are TLS versions as people write them.
func versions(labels []string) string {
	return strings.Join(text.Each(labels, func(l string) string {
		if v, err := policy.ParseVersion(l); err == nil {
			return v.Number()
		}
		return l
	}), ", ")
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
