package report

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"iter"
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

// only reports whether the letters are all that is written.
func (s *Style) only() bool { return s.Mail && s.Format != JSON }

// members reports whether the members of a group are written.
func (s *Style) members() bool { return s.Format == JSON || s.Format == CSV }

// contents are the lists of a report.
type contents struct {
	left, tell, noise list
	exempted          []list
	mail              iter.Seq[[]byte]
}

// contents are to be read in the order in which they are written.
func (p *pass) contents() (c contents) {
	of := func(s *section) list {
		if s == nil {
			return listOf(p.style, new(section), nil)
		}
		return p.list(s)
	}
	c.left, c.tell, c.noise, c.mail = of(p.left), of(p.tell), of(p.noise), of(p.mail).lines(named)
	for _, e := range p.exempted {
		c.exempted = append(c.exempted, of(e.section))
	}
	return c
}

// contents are those of a report in memory.
func (r *Report) contents(s *Style) (c contents) {
	left := r.Left
	if s.Ready && s.Format == Text {
		left = slices.DeleteFunc(slices.Clone(left), func(g Group) bool { return !inTheWay(&g) })
	}
	c.left, c.tell = listOf(s, &section{by: r.By, status: "left"}, left), listOf(s, &section{by: ByAccount}, r.Tell)
	c.noise = listOf(s, &section{by: r.By, status: "noise"}, r.Noise)
	for i := range r.Exempted {
		c.exempted = append(c.exempted, listOf(s, &section{by: r.By, status: "exempted", exemption: &r.Exempted[i]}, r.Exempted[i].Groups))
	}
	c.mail = func(yield func([]byte) bool) {
		for i := range r.Mail {
			if !yield(s.appendLetter(nil, &r.Mail[i])) {
				return
			}
		}
	}
	return c
}

// Write writes a report of the facts, and returns it without its lists. In JSON and
// CSV what is known from the start is written as soon as the ledger answers, so
// that the reader knows that more will come; an error may come behind that.
func (f *Facts) Write(ctx context.Context, w io.Writer, o Options, s Style) (*Report, error) {
	p := begin(f, o, &s)
	defer p.close()
	out := output{bufio.NewWriterSize(w, 64<<10), p.Report, &s}
	out.head()
	p.answers = out.Flush
	if err := p.scan(ctx); err != nil {
		return nil, err
	}
	out.rest(p.contents())
	return p.Report, cmp.Or(p.err, out.Flush())
}

// Write writes a report that is in memory.
func (r *Report) Write(w io.Writer, s Style) error {
	r.Clean()
	r.Groups = Groups{len(r.Left), len(r.Tell), len(r.Noise)}
	for i := range r.Exempted {
		r.Exempted[i].GroupsInAll = len(r.Exempted[i].Groups)
	}
	out := output{bufio.NewWriter(w), r, &s}
	out.head()
	out.rest(r.contents(&s))
	return out.Flush()
}

// Build makes a report in memory.
func Build(ctx context.Context, f Facts, o Options) (*Report, error) {
	p := begin(&f, o, &Style{Format: JSON})
	defer p.close()
	if err := p.scan(ctx); err != nil {
		return nil, err
	}
	c, r := p.contents(), p.Report
	var err error
	load := func(to *[]Group, l list) {
		if err == nil {
			*to, err = l.load()
		}
	}
	load(&r.Left, c.left)
	load(&r.Tell, c.tell)
	for i := range r.Exempted {
		load(&r.Exempted[i].Groups, c.exempted[i])
	}
	load(&r.Noise, c.noise)
	for line := range c.mail {
		var l Letter
		err = cmp.Or(err, json.Unmarshal(line, &l))
		r.Mail = append(r.Mail, l)
	}
	return r, cmp.Or(err, p.err)
}

// output writes a report. Its errors stay until Flush.
type output struct {
	*bufio.Writer
	r     *Report
	style *Style
}

// head writes what is known before the ledger is read.
func (o *output) head() {
	r := o.r
	switch {
	case o.style.Format == CSV && o.style.Mail:
		o.record(mailHeader)
	case o.style.Format == CSV:
		o.record(slices.Concat([]string{string(r.By), "status"}, groupHeader, []string{"rule", "owner", "until"}))
	case o.style.Format == JSON:
		o.WriteString("{\n  \"now\": ")
		o.value(r.Now)
		o.field("since", r.Since)
		o.field("by", r.By)
		o.field("identity", r.Identity)
		o.field("ledger_began", r.Began)
		o.field("younger_than_since", r.Young)
		if r.Unwritten != nil {
			o.field("unwritten", r.Unwritten)
		}
		o.field("noise_included", r.NoiseIncluded)
		o.field("policy", r.Policy)
	}
}

func (o *output) record(cells []string) { o.Write(appendRecord(nil, cells)) }

func (o *output) field(name string, v any) {
	o.WriteString(",\n  \"" + name + "\": ")
	o.value(v)
}

func (o *output) value(v any) {
	b, err := json.MarshalIndent(v, "  ", "  ")
	if err != nil {
		panic(err) // all values are known to have a JSON
	}
	o.Write(b)
}

// rest writes what stands behind the head.
func (o *output) rest(c contents) {
	switch {
	case o.style.Format == JSON:
		o.restOfJSON(c)
	case o.style.Format == CSV && o.style.Mail:
		o.lines(c.mail, -1, "")
	case o.style.Format == CSV:
		o.groups(c.left)
		for _, l := range c.exempted {
			o.groups(l)
		}
		o.groups(c.noise)
	default:
		d := &document{Writer: o.Writer, markdown: o.style.Format == Markdown, style: *o.style, width: cmp.Or(o.style.Width, text.Width)}
		if o.style.Mail {
			d.mail(c.mail)
		} else {
			d.report(o.r, &c)
		}
	}
}

func (o *output) restOfJSON(c contents) {
	r := o.r
	o.field("readiness", r.Readiness)
	o.field("totals", r.Totals)
	o.field("trend", r.Trend)
	o.field("groups", r.Groups)
	o.WriteString(",\n  \"left\": ")
	o.groups(c.left)
	o.WriteString(",\n  \"tell\": ")
	o.groups(c.tell)
	o.WriteString(",\n  \"exempted\": [")
	for i := range r.Exempted {
		e := &r.Exempted[i]
		l := line(separator(i))
		l = append(l, '{')
		l.text("rule", e.Rule)
		l.text("owner", e.Owner)
		l.time("until", e.Until)
		l.text("mode", e.Mode)
		l.number("clients", int64(e.Clients))
		l.number("groups_in_all", int64(e.GroupsInAll))
		l.key("groups")
		o.Write(l)
		o.groups(c.exempted[i])
		o.WriteString("}")
	}
	o.WriteString("],\n  \"noise\": ")
	o.groups(c.noise)
	if o.style.Mail {
		o.WriteString(",\n  \"mail\": [")
		o.lines(c.mail, -1, "\n    ")
		o.WriteString("]")
	}
	o.field("notes", r.Notes)
	o.WriteString("\n}\n")
}

func separator(i int) string {
	if i > 0 {
		return ",\n    "
	}
	return "\n    "
}

// lines writes at most so many lines, in JSON behind separators.
func (o *output) lines(all iter.Seq[[]byte], most int, separator string) (n int) {
	for line := range all {
		if n == most {
			break
		}
		if n > 0 && separator != "" {
			o.WriteByte(',')
		}
		o.WriteString(separator)
		if _, err := o.Write(line); err != nil {
			break
		}
		n++
	}
	return n
}

// groups writes a list in JSON or CSV.
func (o *output) groups(l list) {
	isJSON, separator := o.style.Format == JSON, ""
	if isJSON {
		separator = "\n    "
		o.WriteByte('[')
	}
	shown := o.style.bound(l.count)
	n := o.lines(l.lines(named), shown, separator)
	switch g := l.nameless; {
	case g == nil || n == shown:
	case isJSON:
		if n > 0 {
			o.WriteByte(',')
		}
		b := appendGroup([]byte(separator), g)
		o.Write(b[:len(b)-1])
		if g.Clients > 1 {
			o.WriteString(`, "members": [`)
			o.lines(l.lines(members), o.style.bound(g.Clients), "\n      ")
			o.WriteByte(']')
		}
		o.WriteByte('}')
	default:
		o.lines(l.lines(members), o.style.bound(g.Clients), "")
	}
	if isJSON {
		o.WriteByte(']')
	}
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

// appendGroup appends a group of a section as it is written.
func (s *Style) appendGroup(b []byte, of *section, g *Group, member bool) []byte {
	if s.Format != CSV {
		return appendGroup(b, g)
	}
	name := g.Name
	if member { // of a group without one
		name = ""
	}
	more := []string{"", "", ""}
	if e := of.exemption; e != nil {
		more = []string{oneLine(e.Rule), oneLine(e.Owner), e.Until.Format(time.RFC3339)}
	}
	return appendRecord(b, slices.Concat([]string{name, of.status}, g.fields(), more))
}

func (s *Style) appendLetter(b []byte, l *Letter) []byte {
	if s.Format == CSV {
		return appendRecord(b, l.cells())
	}
	return appendLetter(b, l)
}

// appendRecord appends a line of RFC 4180, and guards cells that a spreadsheet
// would take for formulas.
func appendRecord(b []byte, cells []string) []byte {
	for i, cell := range cells {
		if i > 0 {
			b = append(b, ',')
		}
		if cell = text.CSV(cell); strings.ContainsAny(cell, "\",\r\n") {
			cell = `"` + strings.ReplaceAll(cell, `"`, `""`) + `"`
		}
		b = append(b, cell...)
	}
	return append(b, "\r\n"...)
}
