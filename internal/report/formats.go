package report

import (
	"encoding/csv"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"postern/internal/text"
)

// Format is how a report is written.
type Format string

// The formats.
const (
	Text     Format = "text"
	Markdown Format = "markdown"
	CSV      Format = "csv"
	JSON     Format = "json"
)

// ContentType is what the format is over HTTP.
func (f Format) ContentType() string {
	return map[Format]string{
		Text: "text/plain; charset=utf-8", Markdown: "text/markdown; charset=utf-8",
		CSV: "text/csv; charset=utf-8; header=present", JSON: "application/json",
	}[f]
}

// ParseFormat reads one of them.
func ParseFormat(s string) (Format, error) {
	if f := Format(s); f.ContentType() != "" {
		return f, nil
	}
	return "", fmt.Errorf("%.40q is none of text, markdown, csv, json", s)
}

// Write writes the report. With readiness alone a text holds no more than
// whether it can be cut; the other formats are the same.
func (r *Report) Write(w io.Writer, f Format, readiness bool) error {
	switch {
	case f == JSON:
		return r.WriteJSON(w)
	case f == CSV:
		return r.WriteCSV(w)
	case f == Markdown:
		return r.WriteMarkdown(w)
	case readiness:
		return r.WriteReadiness(w)
	}
	return r.WriteText(w)
}

// WriteJSON writes the report for programs.
func (r *Report) WriteJSON(w io.Writer) error {
	r.Clean()
	return writeJSON(w, r)
}

func writeJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(v)
}

// WriteCSV writes a line for each group: those left, those exempted, and noise
// where it was asked for.
func (r *Report) WriteCSV(w io.Writer) error {
	r.Clean()
	rows := [][]string{slices.Concat([]string{string(r.By), "status"}, groupHeader, []string{"rule", "owner", "until"})}
	add := func(list []Group, status string, more ...string) {
		for i := range list {
			rows = append(rows, slices.Concat([]string{list[i].Name, status}, list[i].fields(), more))
		}
	}
	add(r.Left, "left", "", "", "")
	for _, e := range r.Exempted {
		add(e.Groups, "exempted", e.Rule, e.Owner, e.Until.Format(time.RFC3339))
	}
	add(r.Noise, "noise", "", "", "")
	return writeCSV(w, rows)
}

// groupHeader names the fields of a group.
var groupHeader = []string{"clients", "remaining", "login", "accounts", "software", "versions", "listeners", "endpoints", "addresses",
	"first_seen", "last_seen", "observed", "explained", "rejected", "failed"}

func (g *Group) fields() []string {
	list := func(s []string) string { return strings.Join(s, "; ") }
	h := &g.Handshakes
	return []string{
		strconv.Itoa(g.Clients), strconv.Itoa(g.Remaining), string(g.Login), list(g.Accounts), list(g.Software), list(g.Versions),
		list(g.Listeners), list(g.Endpoints), list(g.Addresses), g.FirstSeen.Format(time.RFC3339), g.LastSeen.Format(time.RFC3339),
		fmt.Sprint(h.Observed), fmt.Sprint(h.Explained), fmt.Sprint(h.Rejected), fmt.Sprint(h.Failed),
	}
}

// writeCSV writes RFC 4180, with what a spreadsheet would take for a formula
// made text.
func writeCSV(w io.Writer, rows [][]string) error {
	out := csv.NewWriter(w)
	out.UseCRLF = true // RFC 4180, Section 2
	for _, row := range rows {
		for i := range row {
			row[i] = text.CSV(row[i])
		}
	}
	return out.WriteAll(rows)
}

// WriteMarkdown writes the report for a ticket.
func (r *Report) WriteMarkdown(w io.Writer) error {
	r.Clean()
	var b strings.Builder
	fmt.Fprintf(&b, "## %s\n\n- %s\n", strings.TrimSuffix(r.Verdict(), "."), strings.Join(r.Readiness.Reasons, "\n- "))
	if len(r.Left) > 0 {
		fmt.Fprintf(&b, "\n### %s\n\n", r.title())
		markdownGroups(&b, r.Left, r.By)
	}
	if len(r.Tell) > 0 {
		b.WriteString("\n### Whom to tell\n\n")
		markdownGroups(&b, r.Tell, ByAccount)
	}
	r.markdownExempted(&b)
	if len(r.Noise) > 0 {
		b.WriteString("\n### Noise\n\n")
		markdownGroups(&b, r.Noise, r.By)
	}
	r.markdownNumbers(&b)
	_, err := io.WriteString(w, b.String())
	return err
}

func (r *Report) markdownExempted(b *strings.Builder) {
	if len(r.Exempted) > 0 {
		b.WriteString("\n### Exempted\n")
	}
	for _, e := range r.Exempted {
		fmt.Fprintf(b, "\n%s, %s: until %s, %s; owner %s\n\n", code(e.Rule), number(e.Clients, "client"), text.Unglued(date(e.Until)),
			text.Ahead(e.Until.Sub(r.Now)), code(e.Owner))
		markdownGroups(b, e.Groups, r.By)
	}
}

func (r *Report) markdownNumbers(b *strings.Builder) {
	if periods := r.Trend.told(); len(periods) > 1 {
		fmt.Fprintf(b, "\n### Clients a %s\n\n", r.Trend.each())
		markdownTable(b, []string{"from", "clients"}, func(yield func([]string)) {
			for _, p := range periods {
				yield([]string{p.First, strconv.Itoa(p.Clients)})
			}
		})
	}
	if len(r.Totals.ByPlace) > 0 {
		b.WriteString("\n### Handshakes\n\n")
		markdownTable(b, totalHeader, func(yield func([]string)) {
			for _, row := range r.totalRows() {
				yield(row)
			}
		})
	}
	b.WriteByte('\n')
	notes := r.notes()
	if r.Policy.File != "" {
		notes[0] = fmt.Sprintf("Policy %s: floor %s, mode %s.", code(r.Policy.File), r.Policy.Floor, r.Policy.Mode)
	}
	for _, n := range notes {
		b.WriteString("- " + n + "\n")
	}
	fmt.Fprintf(b, "\nFrom %s to %s.\n", text.Unglued(date(r.Since)), text.Unglued(date(r.Now)))
}

// markdownGroups writes the same columns as the text, with nothing shortened
// but long lists.
func markdownGroups(b *strings.Builder, list []Group, by By) {
	t := tableOf(list, by)
	markdownTable(b, t.header(), func(yield func([]string)) {
		for i := range t.list {
			yield(t.markdownRow(&t.list[i], by))
		}
	})
	if more := len(list) - shown; more > 0 {
		fmt.Fprintf(b, "\nand %d more\n", more)
	}
}

func (t *groupTable) markdownRow(g *Group, by By) []string {
	var row []string
	for k, c := range t.columns {
		switch {
		case k == 0 && g.Name == "" && by != ByNetwork:
			row = append(row, notKnown+": "+codes(g.Addresses))
		case k == 0:
			row = append(row, code(known(g.Name, notKnown)))
		case c.items != nil:
			row = append(row, codes(c.items(g)))
		default:
			row = append(row, c.text(g))
		}
	}
	return row
}

func markdownTable(b *strings.Builder, header []string, rows func(yield func([]string))) {
	line := func(cells []string) { b.WriteString("| " + strings.Join(cells, " | ") + " |\n") }
	line(header)
	b.WriteString(strings.Repeat("|---", len(header)) + "|\n")
	rows(line)
}

// code is a stranger's text as a code span, in which Markdown has no links,
// mentions, HTML or emphasis. What would end it, or a cell of a table, is
// replaced, and so are angle brackets, for who renders that differently.
func code(s string) string {
	s = strings.NewReplacer("`", "'", "|", "¦", "<", "‹", ">", "›").Replace(s)
	return "`" + known(s, " ") + "`"
}

// listedCodes is how many values a cell holds.
const listedCodes = 5

func codes(list []string) string {
	var all []string
	for _, s := range list[:min(len(list), listedCodes)] {
		all = append(all, code(s))
	}
	words := known(strings.Join(all, ", "), "-")
	if more := len(list) - listedCodes; more > 0 {
		words += fmt.Sprintf(" and %d more", more)
	}
	return words
}
