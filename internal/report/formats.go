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

// Write writes the report. With readiness alone, a text has only the verdict;
// the other formats are the same.
func (r *Report) Write(w io.Writer, f Format, readiness bool) error {
	r.Clean()
	switch f {
	case JSON:
		return writeJSON(w, r)
	case CSV:
		return writeCSV(w, r.records())
	}
	d := &document{markdown: f == Markdown}
	d.report(r, readiness && !d.markdown)
	_, err := io.WriteString(w, d.String())
	return err
}

func writeJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(v)
}

// records returns a line for each group: the remaining and the exempted clients,
// and noise if requested.
func (r *Report) records() [][]string {
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
	return rows
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
