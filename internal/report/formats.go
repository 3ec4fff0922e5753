package report

import (
	"cmp"
	"encoding/csv"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"postern/internal/text"
)

// Format is the format of a report.
type Format string

// The formats.
const (
	Text     Format = "text"
	Markdown Format = "markdown"
	CSV      Format = "csv"
	JSON     Format = "json"
)

// ContentType returns the format's media type.
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

// Style is how a report is written.
type Style struct {
	Format Format
	// Ready: a text has only the verdict; the other formats are the same.
	Ready bool
	// Top bounds each list; 0 for all, DefaultTop for as many as people read.
	Top int
	// Summary leaves the lists out.
	Summary bool
	// Mail writes the accounts to write to, and nothing else.
	Mail bool
	// Width is the most columns of a text; 0 for [text.Width].
	Width int
}

// DefaultTop bounds the lists in text and Markdown alone.
const DefaultTop = -1

// Shown bounds the groups in a table for people, unless they ask for others.
const Shown = 50

// bound returns how many of n a list shows.
func (s *Style) bound(n int) int {
	switch {
	case s.Summary:
		return 0
	case s.Top == 0, s.Top == DefaultTop && (s.Format == CSV || s.Format == JSON):
		return n
	case s.Top == DefaultTop:
		return min(n, Shown)
	}
	return min(n, s.Top)
}

// Write writes the report.
func (r *Report) Write(w io.Writer, s Style) error {
	r.Clean()
	switch s.Format {
	case JSON:
		return text.WriteJSON(w, r.cut(&s))
	case CSV:
		if s.Mail {
			return writeCSV(w, r.mailRecords())
		}
		return writeCSV(w, r.cut(&s).records())
	}
	d := &document{markdown: s.Format == Markdown, style: s, width: cmp.Or(s.Width, text.Width)}
	if s.Mail {
		d.mail(r)
	} else {
		d.report(r, s.Ready && !d.markdown)
	}
	_, err := io.WriteString(w, d.String())
	return err
}

// cut returns the report with its lists cut, and with how long they are.
func (r *Report) cut(s *Style) *Report {
	c := *r
	c.Groups = Groups{len(r.Left), len(r.Tell), len(r.Noise)}
	c.Left, c.Tell, c.Noise = r.Left[:s.bound(len(r.Left))], r.Tell[:s.bound(len(r.Tell))], r.Noise[:s.bound(len(r.Noise))]
	c.Exempted = slices.Clone(r.Exempted)
	for i := range c.Exempted {
		e := &c.Exempted[i]
		e.GroupsInAll, e.Groups = len(e.Groups), e.Groups[:s.bound(len(e.Groups))]
	}
	return &c
}

// records returns a line for each group: the remaining and the exempted clients,
// and noise if requested. A group without a name has a line for each client.
func (r *Report) records() [][]string {
	rows := [][]string{slices.Concat([]string{string(r.By), "status"}, groupHeader, []string{"rule", "owner", "until"})}
	add := func(list []Group, status string, more ...string) {
		for _, g := range list {
			lines := []Group{g}
			if len(g.Members) > 0 {
				lines = g.Members
			}
			for k := range lines {
				rows = append(rows, slices.Concat([]string{g.Name, status}, lines[k].fields(), more))
			}
		}
	}
	add(r.Left, "left", "", "", "")
	for _, e := range r.Exempted {
		add(e.Groups, "exempted", e.Rule, e.Owner, e.Until.Format(time.RFC3339))
	}
	add(r.Noise, "noise", "", "", "")
	return rows
}

// groupHeader names the fields of a group.
var groupHeader = []string{"clients", "remaining", "login", "accounts", "software", "versions", "listeners", "endpoints", "addresses",
	"first_seen", "last_seen", "observed", "explained", "rejected", "failed",
	"accounts_in_all", "software_in_all", "endpoints_in_all", "addresses_in_all"}

func (g *Group) fields() []string {
	list := func(s []string) string { return strings.Join(s, "; ") }
	h := &g.Handshakes
	return []string{
		strconv.Itoa(g.Clients), strconv.Itoa(g.Remaining), string(g.Login), list(g.Accounts), list(g.Software), list(g.Versions),
		list(g.Listeners), list(g.Endpoints), list(g.Addresses), g.FirstSeen.Format(time.RFC3339), g.LastSeen.Format(time.RFC3339),
		fmt.Sprint(h.Observed), fmt.Sprint(h.Explained), fmt.Sprint(h.Rejected), fmt.Sprint(h.Failed),
		strconv.Itoa(g.Distinct.Accounts), strconv.Itoa(g.Distinct.Software), strconv.Itoa(g.Distinct.Endpoints), strconv.Itoa(g.Distinct.Addresses),
	}
}

// writeCSV writes RFC 4180, and guards cells that a spreadsheet would take for
// formulas.
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
