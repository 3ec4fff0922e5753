package report

import (
	"bufio"
	"cmp"
	"encoding/json"
	"fmt"
	"iter"
	"slices"
	"strconv"
	"strings"

	"postern/internal/text"
)

// document is what people read: text of so many columns, or Markdown for a ticket,
// which says the same in other forms.
type document struct {
	*bufio.Writer
	markdown bool
	style    Style
	width    int
}

// report writes a report; with readiness only the verdict, its reasons and the
// remaining clients.
func (d *document) report(r *Report, c *contents) {
	readiness := d.style.Ready && !d.markdown
	d.verdict(r)
	if c.left.count > 0 && !d.style.Summary {
		d.section(r.title(), "")
		d.groups(&c.left, r.By)
	}
	if c.tell.count > 0 && !d.style.Summary {
		d.section("Whom to tell", "")
		d.groups(&c.tell, ByAccount)
	}
	if len(r.Exempted) > 0 {
		d.section("Exempted", ", and not among those left")
	}
	for i := range r.Exempted {
		d.exemption(&r.Exempted[i], r)
		d.groups(&c.exempted[i], r.By)
	}
	if !readiness {
		if c.noise.count > 0 && !d.style.Summary {
			d.section("Noise", ", which no number holds")
			d.groups(&c.noise, r.By)
		}
		d.trend(&r.Trend)
		if len(r.Totals.ByPlace) > 0 {
			d.section("Handshakes", " in that time, with those exempted")
			d.table(totalHeader, r.totalRows())
		}
	}
	d.WriteByte('\n')
	for _, n := range d.notes(r) {
		d.item(n, "")
	}
	if d.markdown {
		fmt.Fprintf(d, "\nFrom %s to %s.\n", text.Unglued(date(r.Since)), text.Unglued(date(r.Now)))
	}
}

// failed reports whether nobody reads any more.
func (d *document) failed() bool {
	_, err := d.Write(nil)
	return err != nil
}

func (d *document) verdict(r *Report) {
	if d.markdown {
		fmt.Fprintf(d, "## %s\n\n", strings.TrimSuffix(r.Verdict(), "."))
	} else {
		d.paragraph(r.Verdict(), "   ")
		d.WriteByte('\n')
	}
	for _, reason := range r.Readiness.Reasons {
		d.item(reason, "   ")
	}
}

// section begins a part; the title is longer in a text.
func (d *document) section(title, more string) {
	if d.markdown {
		fmt.Fprintf(d, "\n### %s\n", title)
	} else {
		fmt.Fprintf(d, "\n%s%s:\n", title, more)
	}
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

// item writes one of several sentences.
func (d *document) item(words, indent string) {
	if d.markdown {
		words = "- " + words
	}
	d.paragraph(words, indent)
}

// table writes a table behind an empty line.
func (d *document) table(header []string, rows [][]string) {
	d.WriteByte('\n')
	d.plainTable(header, rows)
}

// plainTable writes a table.
func (d *document) plainTable(header []string, rows [][]string) {
	if d.markdown {
		line := func(cells []string) { d.WriteString("| " + strings.Join(cells, " | ") + " |\n") }
		line(header)
		d.WriteString(strings.Repeat("|---", len(header)) + "|\n")
		for _, row := range rows {
			line(row)
		}
		return
	}
	cells := make([][]text.Cell, len(rows))
	for i, row := range rows {
		for _, s := range row {
			cells[i] = append(cells[i], text.Cell{Text: s})
		}
	}
	_ = text.WriteTable(d, false, header, cells) // its error stays until Flush
}

// tableRows bounds a table: of a longer list there are several, each as wide as
// its rows need.
const tableRows = 4096

// groups writes tables of groups. Markdown shortens only long lists.
func (d *document) groups(l *list, by By) {
	shown := d.style.bound(l.count)
	if shown == 0 {
		return
	}
	var rows []Group
	write := func() {
		if t := tableOf(rows, by); d.markdown {
			d.table(t.header(), t.markdownRows(by))
		} else {
			d.table(t.header(), t.rows(d.width))
		}
		rows = rows[:0]
	}
	n := 0
	for line := range l.lines(named) {
		if n == shown {
			break
		}
		if len(rows) == tableRows {
			write()
			if d.failed() {
				return
			}
		}
		var g Group
		if err := json.Unmarshal(line, &g); err != nil {
			panic(err) // it is ours
		}
		rows = append(rows, g)
		n++
	}
	if n < shown && l.nameless != nil {
		rows = append(rows, *l.nameless)
	}
	write()
	if more := l.count - shown; more > 0 && d.markdown {
		fmt.Fprintf(d, "\nand %d more\n", more)
	} else if more > 0 {
		fmt.Fprintf(d, "and %d more; -top 0 or -format csv has them all\n", more)
	}
	if l.nameless == nil || d.markdown {
		return
	}
	words := "Without a known " + by.heading()
	if l.nameless.Elsewhere {
		words = "The same clients, also without a known " + by.heading()
	}
	d.WriteByte('\n')
	d.paragraph(words+": "+some(l.nameless.Addresses, l.nameless.Distinct.Addresses, 3*d.width), "   ")
}

// exemption writes the owner, end and number of clients of an exemption.
func (d *document) exemption(e *Exemption, r *Report) {
	rule, owner := strconv.Quote(e.Rule), e.Owner
	if d.markdown {
		rule, owner = code(e.Rule), code(e.Owner)
	}
	d.WriteByte('\n')
	d.paragraph(fmt.Sprintf("%s, %s: until %s, %s; owner %s", rule, number(e.Clients, "client"), date(e.Until), text.Ahead(e.Until.Sub(r.Now)), owner), "   ")
}

// mail writes the letters as tables.
func (d *document) mail(letters iter.Seq[[]byte]) {
	header := []string{"account", "left", "until", "owner", "programs", "TLS"}
	var rows [][]string
	for line := range letters {
		var l Letter
		if err := json.Unmarshal(line, &l); err != nil {
			panic(err) // it is ours
		}
		if rows = append(rows, l.row(d.markdown)); len(rows) == tableRows {
			d.plainTable(header, rows)
			rows = rows[:0]
			if d.failed() {
				return
			}
		}
	}
	d.plainTable(header, rows)
}

// barWidth is the length of a trend's longest bar.
const barWidth = 50

func (d *document) trend(t *Trend) {
	periods := t.known()
	if len(periods) < 2 {
		return
	}
	each := "week"
	if t.Days == 1 {
		each = "day"
	}
	d.section("Clients a "+each, ", with those exempted, in UTC")
	if d.markdown {
		var rows [][]string
		for _, p := range periods {
			rows = append(rows, []string{p.First, strconv.Itoa(p.Clients)})
		}
		d.table([]string{"from", "clients"}, rows)
		return
	}
	most := max(1, slices.MaxFunc(periods, func(a, b Period) int { return cmp.Compare(a.Clients, b.Clients) }).Clients)
	d.WriteByte('\n')
	for i, p := range periods {
		bar := strings.Repeat("#", (p.Clients*min(barWidth, most)+most-1)/most)
		line := strings.TrimRight(fmt.Sprintf("%s  %*d  %s", p.First, len(strconv.Itoa(most)), p.Clients, bar), " ")
		if i == len(periods)-1 {
			line += "  so far"
		}
		d.WriteString(line + "\n")
	}
}

// notes writes the notes.
func (d *document) notes(r *Report) []string {
	file := cmp.Or(r.Policy.File, "of the environment")
	if d.markdown && r.Policy.File != "" {
		file = code(r.Policy.File)
	}
	unless := ""
	if r.Policy.File != "" {
		unless = " where no rule says otherwise"
	}
	notes := []string{fmt.Sprintf("Policy %s: floor %s, mode %s%s.", file, r.Policy.Floor, r.Policy.Mode, unless)}
	if n := r.Totals.Noise; n > 0 && !r.NoiseIncluded {
		notes = append(notes, fmt.Sprintf("Left out as noise (scanners, probes, fallback retries, failed logins alone): %s.", number(n, "client")))
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
	var all []string
	for _, s := range list[:min(len(list), listedCodes)] {
		all = append(all, code(s))
	}
	words := cmp.Or(strings.Join(all, ", "), "-")
	if more := n - min(len(list), listedCodes); more > 0 {
		words += fmt.Sprintf(" and %d more", more)
	}
	return words
}
