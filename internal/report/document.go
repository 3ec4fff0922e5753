package report

import (
	"cmp"
	_ "embed"
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"text/template"
	"time"
	"unicode/utf8"

	"postern/internal/ledger"
	"postern/internal/text"
)

// document is what people read: text of so many columns, or Markdown for a ticket,
// which says the same in other forms.
type document struct {
	*output
	markdown bool
	width    int
}

func (o *output) document() *document {
	return &document{o, o.style.Format == Markdown, cmp.Or(o.style.Width, text.Width)}
}

//go:embed report.tmpl
var reportTemplate string

// report writes a report; with readiness a text has only the verdict, its reasons and
// the remaining clients.
func (d *document) report() {
	r := d.Report
	periods := r.Trend.Periods
	for len(periods) > 0 && periods[0].Clients == 0 { // which may be older than the ledger
		periods = periods[1:]
	}
	most := 1
	for _, p := range periods {
		most = max(most, p.Clients)
	}
	if len(periods) < 2 {
		periods = nil
	}
	groups := func(s *section) string { d.groups(s); return "" } // in its place, to the same writer
	t := template.Must(template.New("").Funcs(template.FuncMap{
		"wrap": func(words, indent string) string { return strings.Join(text.Wrap(words, indent, d.width), "\n") }, "unglued": text.Unglued,
		"title": func() string { return strings.TrimSuffix(r.Verdict(), ".") },
		"shown": func(s *section) bool { return s.count > 0 && !d.style.Summary }, "groups": groups,
		"exempted": func(e *Exemption) string { return groups(e.section) },
		"totals":   func() string { d.table(totalHeader, r.totalRows()); return "" },
		"number":   text.Number, "date": date, "ahead": func(t time.Time) string { return text.Ahead(t.Sub(r.Now)) }, "code": code,
		"bar": func(p Period) string { return p.bar(most, p == periods[len(periods)-1]) },
	}).Parse(reportTemplate))
	_ = t.ExecuteTemplate(d, string(d.style.Format), map[string]any{ // an error stays until Flush
		"R": r, "Left": d.left, "Tell": d.tell, "Noise": d.noise, "Ready": d.style.Ready, "Trend": periods, "Notes": d.notes(r),
		"By": strings.Replace(string(r.By), string(ByNetwork), "address", 1), "Each": text.Either(r.Trend.Days == 1, "day", "week"),
	})
}

// paragraph writes a paragraph; a text has all lines but the first indented.
func (d *document) paragraph(words, indent string) {
	if d.markdown {
		d.WriteString(text.Unglued(words) + "\n")
		return
	}
	for _, line := range text.Wrap(words, indent, d.width) {
		d.WriteString(line + "\n")
	}
}

// table writes a table.
func (d *document) table(header []string, rows [][]string) {
	if d.markdown {
		line := func(cells []string) { d.WriteString("| " + strings.Join(cells, " | ") + " |\n") }
		line(header)
		d.WriteString(strings.Repeat("|---", len(header)) + "|\n")
		for _, row := range rows {
			line(row)
		}
		return
	}
	cells := text.Each(rows, func(row []string) []text.Cell {
		return text.Each(row, func(s string) text.Cell { return text.Cell{Text: s} })
	})
	_ = text.WriteTable(d, false, header, cells) // its error stays until Flush
}

// tableRows bounds a table: of a longer list there are several, each as wide as
// its rows need.
const tableRows = 4096

// tables has write write a section, as far as it is shown, and the last row.
func tables[T any](d *document, s *section, shown int, last []T, write func([]T)) {
	var rows []T
	for line := range d.written(s, shown) {
		if len(rows) == tableRows {
			write(rows)
			rows = rows[:0]
			if _, err := d.Write(nil); err != nil {
				return // nobody reads any more
			}
		}
		rows = append(rows, *new(T))
		if err := json.Unmarshal(line, &rows[len(rows)-1]); err != nil {
			panic(err) // it is ours
		}
	}
	if shown >= s.count {
		rows = append(rows, last...)
	}
	write(rows)
}

// groups writes tables of groups. Markdown shortens only long lists.
func (d *document) groups(s *section) {
	by, shown := s.by, d.style.bound(s.count)
	if shown == 0 {
		return
	}
	var nameless []Group
	if s.nameless.row != 0 {
		nameless = []Group{s.nameless.Group}
	}
	tables(d, s, shown, nameless, func(list []Group) {
		rows := d.rows(list, columnsOf(list, by), by)
		d.WriteByte('\n')
		d.table(rows[0], rows[1:])
	})
	if more := s.count - shown; more > 0 && d.markdown {
		fmt.Fprintf(d, "\nand %d more\n", more)
	} else if more > 0 {
		fmt.Fprintf(d, "and %d more; -top 0 or -format csv has them all\n", more)
	}
	if nameless == nil || d.markdown {
		return
	}
	words := text.Either(s.nameless.Elsewhere, "The same clients, also without a known ", "Without a known ") + by.heading()
	d.WriteByte('\n')
	d.paragraph(words+": "+some(s.nameless.Addresses, s.nameless.Distinct.Addresses, 3*d.width), "   ")
}

// letters writes them as tables.
func (d *document) letters() {
	tables(d, d.mail, math.MaxInt, nil, func(letters []Letter) {
		rows := func(widest int) [][]string {
			rows := [][]string{{"account", "left", "until", "owner", "programs", "TLS"}}
			for i := range letters {
				rows = append(rows, letters[i].row(d.markdown, widest))
			}
			return rows
		}
		table := rows(max(d.room(rows(0), 4), 18)) // 4 is programs
		d.table(table[0], table[1:])
	})
}

// barWidth is the length of a trend's longest bar.
const barWidth = 50

// bar is the line of a period in a text.
func (p Period) bar(most int, last bool) string {
	bar := strings.Repeat("#", (p.Clients*min(barWidth, most)+most-1)/most)
	line := fmt.Sprintf("%s  %*d  %s", p.First, len(strconv.Itoa(most)), p.Clients, bar)
	return strings.TrimRight(line, " ") + text.Either(last, "  so far", "")
}

// notes returns the notes.
func (d *document) notes(r *Report) []string {
	file := text.Either(d.markdown && r.Policy.File != "", code(r.Policy.File), cmp.Or(r.Policy.File, "of the environment"))
	unless := text.Either(r.Policy.File != "", " where no rule says otherwise", "")
	notes := []string{fmt.Sprintf("Policy %s: floor %s, mode %s%s.", file, r.Policy.Floor, r.Policy.Mode, unless)}
	if n := r.Totals.Noise; n > 0 && !r.NoiseIncluded {
		notes = append(notes, fmt.Sprintf("Left out as noise (scanners, probes, fallback retries, failed logins alone): %s.", text.Number(n, "client")))
	}
	if r.Totals.Clients > 0 {
		notes = append(notes, "A client is an IPv4 address or an IPv6 /64, however many accounts share it.")
	}
	return append(notes, r.Notes...)
}

// code writes a stranger's text as a code span, in which Markdown has no links,
// mentions, HTML or emphasis. It replaces characters that would end the span or
// a table cell, and angle brackets, as some renderers pass them through.
func code(s string) string {
	s = strings.NewReplacer("`", "'", "|", "¦", "<", "‹", ">", "›").Replace(s)
	return "`" + cmp.Or(s, " ") + "`"
}

// listedCodes is how many values a cell holds.
const listedCodes = 5

// codes lists some of n values, the first of which are in the list.
func codes(list []string, n int) string {
	words := cmp.Or(strings.Join(text.Each(list[:min(len(list), listedCodes)], code), ", "), "-")
	if more := n - min(len(list), listedCodes); more > 0 {
		words += fmt.Sprintf(" and %d more", more)
	}
	return words
}

// column is one of a table of groups: text, a list that is cut to the column's width, or else a
// number.
type column struct {
	heading string
	text    func(*Group) string
	items   func(*Group) []string
	// count is how many items there are, of which the list may lack some.
	count func(*Group) int
	// share is a list's part of the width that is still free, in tenths.
	share int
}

func (c *column) cell(g *Group) string {
	if c.text == nil {
		return strconv.Itoa(c.count(g))
	}
	return c.text(g)
}

// notKnown stands for the name of a group without one.
const notKnown = "(not known)"

// columnsOf returns the columns that are not empty.
func columnsOf(list []Group, by By) []column {
	accounts := column{heading: "accounts", count: func(g *Group) int { return g.Distinct.Accounts }}
	programs := column{heading: "programs", count: func(g *Group) int { return cmp.Or(g.Distinct.Software, g.Distinct.SpeaksLike) }, share: 10,
		items: saidOrInferred}
	of := column{heading: "clients", count: func(g *Group) int { return g.Clients }}
	if by == ByNetwork {
		accounts.items = func(g *Group) []string { return g.Accounts }
		accounts.share = 8
		of = column{heading: "listener", text: func(g *Group) string { return strings.Join(g.Listeners, ", ") }}
	}
	return slices.DeleteFunc([]column{
		{heading: by.heading(), text: func(g *Group) string { return cmp.Or(g.Name, notKnown) }}, accounts, programs,
		{heading: "TLS", text: func(g *Group) string { return versions(g.Versions) }}, of,
		{heading: "last seen", text: func(g *Group) string { return g.LastSeen.UTC().Format(time.DateOnly) }}, {text: func(g *Group) string { return remarks[g.Login] }},
	}, func(c column) bool {
		return c.heading == by.heading()+"s" || !slices.ContainsFunc(list, func(g Group) bool {
			return c.text != nil && c.text(&g) != "" || c.text == nil && c.count(&g) > 0
		})
	})
}

// saidOrInferred are programs by the names that they have said or, where there are none,
// by how they speak.
func saidOrInferred(g *Group) []string {
	if len(g.Software) > 0 {
		return g.Software
	}
	return text.Each(g.SpeaksLike, inferredName)
}

func (by By) heading() string {
	return cmp.Or(map[By]string{ByNetwork: "client", BySoftware: "program"}[by], string(by))
}

// remarks set a group apart from those that have logged in.
var remarks = map[ledger.Login]string{
	ledger.LoginUnknown: "never let in", ledger.LoginNone: "no login", ledger.LoginUnseen: "passed through", ledger.LoginFailed: "logins failed",
}

// The widest name in so many columns, and the narrowest list.
const (
	widestName = 40
	leastList  = 12
)

// rows returns the headings, and groups as cells. In a text they are cut to its width.
func (d *document) rows(list []Group, columns []column, by By) [][]string {
	rows := make([][]string, 1+len(list))
	widestName := widestName + max(0, d.width-text.Width)
	for k, c := range columns {
		rows[0] = append(rows[0], c.heading)
		for i := range list {
			g, cell := &list[i], ""
			switch {
			case c.items != nil && d.markdown:
				cell = codes(c.items(g), c.count(g))
			case c.items != nil: // below
			case !d.markdown:
				cell = clipNames(c.cell(g), widestName)
			case k > 0:
				cell = c.cell(g)
			case g.Name == "" && by != ByNetwork:
				cell = notKnown + ": " + codes(g.Addresses, g.Distinct.Addresses)
			default:
				cell = code(c.cell(g))
			}
			rows[1+i] = append(rows[1+i], cell)
		}
	}
	for k, c := range columns {
		if c.items == nil || d.markdown {
			continue
		}
		widest := max(d.room(rows, k)*c.share/10, leastList)
		for i := range list {
			rows[1+i][k] = cmp.Or(some(c.items(&list[i]), c.count(&list[i]), widest), "-")
		}
	}
	return rows
}

// room returns how many columns of a text a table leaves to one of its own.
func (d *document) room(table [][]string, own int) int {
	room, widths := d.width, make([]int, len(table[0]))
	for _, row := range table {
		for k, cell := range row {
			if n := utf8.RuneCountInString(cell) + 2; k != own && n > widths[k] {
				room -= n - widths[k]
				widths[k] = n
			}
		}
	}
	return room
}
