package probe

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"postern/internal/text"
	"postern/policy"
)

// Below reports whether something that the listener takes is below the floor.
func (l *Listener) Below(f policy.Floor) bool {
	return slices.ContainsFunc(l.Results, func(r Result) bool { return r.under(f) })
}

func (r Result) under(f policy.Floor) bool {
	return r.Taken && r.Offer != fallback && !slices.Contains(r.reaches, f)
}

// conclude finds the floor, and sums the results up for another.
func (l *Listener) conclude(floor policy.Floor) {
	if l.Summary = l.Error; l.Error != "" {
		return
	}
	reached := ": below every floor"
	l.Floor = "none"
	for _, f := range policy.Floors {
		if !l.Below(f) {
			l.Floor = f.String()
			reached = ": " + l.Floor
		}
	}
	if l.Incomplete && l.Floor != "none" {
		l.Floor, reached = "", reached+" at most"
	}
	if len(l.taken()) == 0 {
		reached = ", and takes no version"
	}
	var parts []string
	say := func(so bool, words string) {
		if so {
			parts = append(parts, words)
		}
	}
	list := func(verb string, which func(Result) bool, behind string) {
		var titles []string
		for _, r := range l.Results {
			switch {
			case which(r) && r.isVersion(): // the newest is asked for first
				titles = slices.Insert(titles, 0, r.title)
			case which(r):
				titles = append(titles, r.title)
			}
		}
		say(len(titles) > 0, verb+" "+and(titles)+behind)
	}
	away := slices.IndexFunc(l.Results, func(r Result) bool { return r.Refusal != "" })
	takes := func(offer string) bool {
		return slices.ContainsFunc(l.Results, func(r Result) bool { return r.Offer == offer && r.Taken })
	}
	pq := takes(hybrid) && !takes(policy.TLS13.String())
	list("refuses", func(r Result) bool {
		return r.isVersion() && !r.Taken && !r.Unknown && !(pq && r.version == policy.TLS13)
	}, "")
	list("does not answer", func(r Result) bool { return r.Unknown && r.Answer != noTime }, "")
	list("leaves no time for", func(r Result) bool { return r.Answer == noTime }, " (see -timeout)")
	list("takes", func(r Result) bool { return r.under(floor) && r.Refusal == "" }, "")
	if away >= 0 {
		list("takes", func(r Result) bool { return r.Refusal != "" }, ", but turns their clients away: "+l.Results[away].Refusal)
	}
	list("does not heed the signal of a", func(r Result) bool { return r.Offer == fallback && r.Taken }, "")
	say(takes(hybrid), text.Either(pq, "takes TLS 1.3 with hybrid groups alone", "knows hybrid groups"))
	say(l.Login != nil && *l.Login, "offers login before TLS")
	say(l.Injected != nil, text.Either(l.Injected != nil && *l.Injected, "obeys inside TLS a command that came before it", "obeys nothing that came before TLS"))
	l.Summary = strings.Join(parts, "; ") + reached
}

// and joins a list, in which TLS stands once.
func and(list []string) string {
	s := strings.Join(list, ", ")
	if i := strings.LastIndex(s, ", "); i >= 0 {
		s = s[:i] + " and" + s[i+1:]
	}
	first := strings.Index(s, "TLS 1") + 1
	return s[:first] + strings.ReplaceAll(s[first:], "TLS 1", "1")
}

// Write writes a table for each listener, and at the end their summaries and certificates.
func Write(w io.Writer, color bool, all []*Listener, floor policy.Floor) error {
	var lines []string
	seen := make(map[string][]string) // where, by certificate
	for _, l := range all {
		rows := text.Each(l.Results, func(r Result) []text.Cell {
			return []text.Cell{{Text: r.title}, {Text: r.verdict() + r.Answer, Color: r.color(floor)}}
		})
		if len(rows) > 0 {
			if err := text.WriteTable(w, color, []string{l.name, ""}, append(rows, nil)); err != nil {
				return err
			}
		}
		lines = append(lines, l.name+": "+l.Summary)
		for _, c := range l.Chains {
			seen[c.String()] = append(seen[c.String()], l.Addr())
		}
	}
	chains := text.Each(slices.Sorted(maps.Keys(seen)), func(c string) string { return c + "; seen at " + strings.Join(seen[c], ", ") })
	for _, line := range append(lines, chains...) {
		if _, err := fmt.Fprintln(w, strings.Join(text.Wrap(line, "  ", text.Width), "\n")); err != nil {
			return err
		}
	}
	return nil
}

// verdict stands before the answer.
func (r Result) verdict() string {
	return text.Either(r.Taken, "taken: ", text.Either(r.Unknown, "", "refused: "))
}

func (r Result) color(floor policy.Floor) text.Color {
	switch {
	case r.under(floor):
		return text.Red
	case r.Unknown, r.Taken && r.Offer == fallback:
		return text.Yellow
	case r.Taken:
		return text.Green
	}
	return ""
}
