package report

import (
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"postern/internal/ledger"
	"postern/internal/text"
)

// shown is how many groups a table for people has.
const shown = 50

// Verdict is the answer in a few words.
func (r *Report) Verdict() string {
	j := &r.Readiness
	switch {
	case j.Ready && j.Remaining == 0:
		if n := r.Totals.Exempted; n > 0 {
			return fmt.Sprintf("GO: nobody with old TLS is left but %s with an exemption.", number(n, "client"))
		}
		return "GO: nobody with old TLS is left."
	case j.Ready:
		return fmt.Sprintf("GO: %s with old TLS %s left, and up to %d may be.", number(j.Remaining, "client"), be(j.Remaining), j.Max)
	case j.Max == 0:
		return fmt.Sprintf("NO-GO: %s with old TLS %s left.", number(j.Remaining, "client"), be(j.Remaining))
	}
	return fmt.Sprintf("NO-GO: %s with old TLS are left, and only %d may be.", number(j.Remaining, "client"), j.Max)
}

// WriteText writes the report for people, 100 columns wide.
func (r *Report) WriteText(w io.Writer) error {
	r.Clean()
	var b strings.Builder
	b.WriteString(r.Verdict() + "\n\n")
	b.WriteString(r.reasons())
	r.writeLeft(&b, r.Left)
	r.writeExempted(&b)
	r.writeNoise(&b)
	r.writeTrend(&b)
	r.writeTotals(&b)
	r.writeNotes(&b)
	_, err := io.WriteString(w, b.String())
	return err
}

// WriteReadiness writes whether it can be cut, why, and who is in the way.
func (r *Report) WriteReadiness(w io.Writer) error {
	r.Clean()
	var b strings.Builder
	b.WriteString(r.Verdict() + "\n\n")
	b.WriteString(r.reasons())
	r.writeLeft(&b, slices.DeleteFunc(slices.Clone(r.Left), func(g Group) bool { return g.Remaining == 0 }))
	r.writeExempted(&b)
	r.writeNotes(&b)
	_, err := io.WriteString(w, b.String())
	return err
}

func (r *Report) reasons() string {
	var b strings.Builder
	for _, reason := range r.Readiness.Reasons {
		b.WriteString(wrap(reason, "   ", text.Width))
	}
	return b.String()
}

// title is what a list of groups is.
func (r *Report) title() string {
	s := "Clients left, by " + string(r.By)
	if r.By == ByNetwork {
		s = "Clients left, by address"
	}
	return s
}

func (r *Report) writeLeft(b *strings.Builder, left []Group) {
	if len(left) == 0 {
		return
	}
	fmt.Fprintf(b, "\n%s:\n\n", r.title())
	writeGroups(b, left, r.By)
	if len(r.Tell) > 0 {
		b.WriteString("\nWhom to tell:\n\n")
		writeGroups(b, r.Tell, ByAccount)
	}
}

// unnamed is the group of what is not known, or nil.
func unnamed(list []Group) *Group {
	if n := len(list) - 1; n >= 0 && list[n].Name == "" {
		return &list[n]
	}
	return nil
}

// writeGroups writes a table of groups.
func writeGroups(b *strings.Builder, list []Group, by By) {
	t := tableOf(list, by)
	_ = text.WriteTable(b, false, t.header(), cells(t.rows(text.Width))) // a Builder takes all
	if more := len(list) - shown; more > 0 {
		fmt.Fprintf(b, "and %d more; -format csv has them all\n", more)
	}
	if g := unnamed(list); g != nil && by != ByNetwork {
		words := "Without a known " + by.heading()
		if within(g, list[:len(list)-1]) {
			words = "The same clients, also without a known " + by.heading()
		}
		b.WriteString("\n" + wrap(words+": "+some(g.Addresses, 3*text.Width), "   ", text.Width))
	}
}

// within reports whether all addresses of a group are in others, as far as they
// are listed: its clients come in several ways, and are not to be added up.
func within(g *Group, others []Group) bool {
	return !slices.ContainsFunc(g.Addresses, func(addr string) bool {
		return !slices.ContainsFunc(others, func(o Group) bool { return slices.Contains(o.Addresses, addr) })
	})
}

func cells(rows [][]string) [][]text.Cell {
	all := make([][]text.Cell, len(rows))
	for i, row := range rows {
		for _, s := range row {
			all[i] = append(all[i], text.Cell{Text: s})
		}
	}
	return all
}

func known(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}

func day(t time.Time) string { return t.UTC().Format(time.DateOnly) }

func (r *Report) writeExempted(b *strings.Builder) {
	if len(r.Exempted) == 0 {
		return
	}
	b.WriteString("\nExempted, and not among those left:\n")
	for _, e := range r.Exempted {
		b.WriteString("\n" + wrap(e.words(r.Now), "   ", text.Width) + "\n")
		writeGroups(b, e.Groups, r.By)
	}
}

func (r *Report) writeNoise(b *strings.Builder) {
	if len(r.Noise) == 0 {
		return
	}
	b.WriteString("\nNoise, which no number holds:\n\n")
	writeGroups(b, r.Noise, r.By)
}

// words say whose exemption it is, and until when.
func (e *Exemption) words(now time.Time) string {
	return fmt.Sprintf("%q, %s: until %s, %s; owner %s", e.Rule, number(e.Clients, "client"), date(e.Until), text.Ahead(e.Until.Sub(now)), e.Owner)
}

// bars is how long the longest bar of a trend is.
const bars = 50

func (r *Report) writeTrend(b *strings.Builder) {
	if len(r.Trend.told()) < 2 {
		return
	}
	fmt.Fprintf(b, "\nClients a %s, with those exempted, in UTC:\n\n", r.Trend.each())
	most := 1
	periods := r.Trend.told()
	for _, p := range periods {
		most = max(most, p.Clients)
	}
	size := len(strconv.Itoa(most))
	for i, p := range periods {
		bar := strings.Repeat("#", (p.Clients*min(bars, most)+most-1)/most)
		line := fmt.Sprintf("%s  %*d  %s", p.First, size, p.Clients, bar)
		if i == len(periods)-1 {
			line = strings.TrimRight(line, " ") + "  so far"
		}
		b.WriteString(strings.TrimRight(line, " ") + "\n")
	}
}

// told are the periods from the first in which anybody came: what is before may
// only be older than the ledger.
func (t *Trend) told() []Period {
	i := slices.IndexFunc(t.Periods, func(p Period) bool { return p.Clients > 0 })
	if i < 0 {
		return nil
	}
	return t.Periods[i:]
}

func (t *Trend) each() string {
	if t.Days == 1 {
		return "day"
	}
	return "week"
}

// totalHeader names the columns of totals.
var totalHeader = []string{"TLS", "listener", "clients", "let in", "told why", "refused", "broke off"}

func (r *Report) writeTotals(b *strings.Builder) {
	if len(r.Totals.ByPlace) == 0 {
		return
	}
	b.WriteString("\nHandshakes in that time, with those exempted:\n\n")
	_ = text.WriteTable(b, false, totalHeader, cells(r.totalRows()))
}

// totalRows are the totals as they are shown, the sum in the last row.
func (r *Report) totalRows() [][]string {
	row := func(version, listener string, clients int, h *ledger.Counts) []string {
		return []string{version, listener, strconv.Itoa(clients), fmt.Sprint(h.Observed), fmt.Sprint(h.Explained),
			fmt.Sprint(h.Rejected), fmt.Sprint(h.Failed)}
	}
	var rows [][]string
	for i := range r.Totals.ByPlace {
		p := &r.Totals.ByPlace[i]
		rows = append(rows, row(versions([]string{p.Version}), p.Listener, p.Clients, &p.Handshakes))
	}
	return append(rows, row("all", "all", r.Totals.Clients, &r.Totals.Handshakes))
}

func (r *Report) writeNotes(b *strings.Builder) {
	for i, n := range r.notes() {
		if i == 0 {
			b.WriteByte('\n')
		}
		b.WriteString(wrap(n, "", text.Width))
	}
}

// notes are what else is to be known.
func (r *Report) notes() []string {
	file := known(r.Policy.File, "of the environment")
	notes := []string{fmt.Sprintf("Policy %s: floor %s, mode %s.", file, r.Policy.Floor, r.Policy.Mode)}
	if n := r.Totals.Noise; n > 0 && !r.NoiseIncluded {
		notes = append(notes, fmt.Sprintf("Left out as noise (scanners, probes, fallback retries, failed logins alone): %s.", number(n, "client")))
	}
	return append(notes, r.Notes...)
}
