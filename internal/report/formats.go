package report

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"postern/internal/programs"
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
	// CycloneDX is version 1.6 of that, a cryptography bill of materials, of an Inventory.
	CycloneDX Format = "cyclonedx"
	// Patterns are those of a report by program whose programs are not known, as an
	// operator's file has them ([programs.Load]).
	Patterns Format = "patterns"
)

// ContentType returns the format's media type.
func (f Format) ContentType() string {
	return map[Format]string{
		Text: "text/plain; charset=utf-8", Markdown: "text/markdown; charset=utf-8",
		CSV: "text/csv; charset=utf-8; header=present", JSON: "application/json", CycloneDX: "application/vnd.cyclonedx+json; version=1.6", Patterns: "text/tab-separated-values; charset=utf-8",
	}[f]
}

// ParseFormat reads one of them.
func ParseFormat(s string) (Format, error) {
	if f := Format(s); f.ContentType() != "" {
		return f, nil
	}
	return "", fmt.Errorf("%.40q is none of text, markdown, csv, json, or cyclonedx for an inventory", s)
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
	// Inventory writes an Inventory, and nothing else.
	Inventory bool
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
	case s.Top == 0, s.Top == DefaultTop && s.Format != Text && s.Format != Markdown:
		return n
	case s.Top == DefaultTop:
		return min(n, Shown)
	}
	return min(n, s.Top)
}

// only reports whether the letters are all that is written.
func (s *Style) only() bool { return s.Mail && s.Format != JSON }

// letters are those of a report that has them in a section.
func (s *Style) letters() []Letter {
	return text.Either(s.Mail, []Letter{}, nil)
}

// members reports whether the members of a group are written.
func (s *Style) members() bool { return s.Format == JSON || s.Format == CSV }

// Write writes a report of the facts, and returns it without its lists. In JSON and
// CSV what is known from the start is written as soon as the ledger answers, so
// that the reader knows that more will come; an error may come behind that.
func (f *Facts) Write(ctx context.Context, w io.Writer, o Options, s Style) (*Report, error) {
	p := begin(f, o, &s)
	defer p.close()
	if s.Inventory {
		return p.Report, p.inventory(ctx, w)
	}
	out := output{bufio.NewWriterSize(w, 64<<10), p}
	out.head()
	p.answers = out.Flush
	if err := p.scan(ctx); err != nil {
		return nil, err
	}
	out.rest()
	return p.Report, cmp.Or(p.scratch.err, out.Flush())
}

// Write writes a report that is in memory.
func (r *Report) Write(w io.Writer, s Style) error {
	r.Clean()
	bare := *r // whose lists are in the sections
	p := &pass{Report: &bare, lists: newLists("", 0, r.Now, &s)}
	defer p.close()
	bare.Groups = Groups{len(r.Left), len(r.Tell), len(r.Noise)}
	p.left, p.tell = p.fill(s.left(r.By), &bare.Left), p.fill(section{by: ByAccount}, &bare.Tell)
	bare.Exempted = []*Exemption{}
	for _, e := range r.Exempted {
		e := *e
		e.GroupsInAll = len(e.Groups)
		e.section = p.fill(section{by: r.By, status: "exempted", exemption: &e}, &e.Groups)
		bare.Exempted = append(bare.Exempted, &e)
	}
	p.noise, p.mail = p.fill(section{by: r.By, status: "noise"}, &bare.Noise), p.section(section{letters: true})
	p.mail.count, p.mail.inMemory = len(r.Mail), encoded(r.Mail, func(l *Letter) []byte { return s.appendLetter(nil, l) })
	bare.Mail = s.letters()
	out := output{bufio.NewWriter(w), p}
	out.head()
	out.rest()
	return cmp.Or(p.scratch.err, out.Flush())
}

// Build makes a report in memory.
func Build(ctx context.Context, f Facts, o Options) (*Report, error) {
	var b bytes.Buffer
	if _, err := f.Write(ctx, &b, o, Style{Format: JSON, Top: DefaultTop, Mail: o.Mail}); err != nil {
		return nil, err
	}
	r := new(Report)
	return r, json.Unmarshal(b.Bytes(), r)
}

// output writes a report. Its errors stay until Flush.
type output struct {
	*bufio.Writer
	*pass
}

// head writes what is known before the ledger is read.
func (o *output) head() {
	switch {
	case o.style.Format == CSV && o.style.Mail:
		o.record(mailHeader)
	case o.style.Format == CSV:
		o.record(slices.Concat([]string{string(o.By), "status"}, groupHeader, []string{"rule", "owner", "until"}, inferredHeader))
	case o.style.Format == Patterns:
		o.WriteString("# Write the names in the place of " + programs.Unnamed + ": pattern, names, versions, last seen, clients.\n")
	case o.style.Format == JSON:
		o.Write(o.headJSON())
	}
}

// headJSON is what the JSON of a report begins with.
func (r *Report) headJSON() []byte { return bytes.TrimSuffix(indented(r.Head), []byte("\n}")) }

func (o *output) record(cells []string) { o.Write(text.AppendRecord(nil, cells)) }

// indented returns the JSON of a value.
func indented(v any) []byte { return must(json.MarshalIndent(v, "", "  ")) }

// must returns the JSON of a value that is known to have one.
func must(b []byte, err error) []byte {
	if err != nil {
		panic(err)
	}
	return b
}

// rest writes what stands behind the head.
func (o *output) rest() {
	switch {
	case o.style.Format == JSON:
		o.restOfJSON()
	case o.style.Format == CSV && o.style.Mail:
		o.groups(o.mail)
	case o.style.Format == CSV, o.style.Format == Patterns:
		o.groups(o.left)
		for _, e := range o.Exempted {
			o.groups(e.section)
		}
		o.groups(o.noise)
	case o.style.Mail:
		o.document().letters()
	default:
		o.document().report()
	}
}

func (o *output) restOfJSON() {
	lists := []list{{"left", o.left}, {"tell", o.tell}}
	for _, e := range o.Exempted {
		lists = append(lists, list{"groups", e.section})
	}
	lists = append(lists, list{"noise", o.noise})
	if o.style.Mail {
		lists = append(lists, list{"mail", o.mail})
	}
	o.object(bytes.TrimPrefix(indented(o.Report), o.headJSON()), lists)
}

// list is one in JSON, whose groups are those of a section.
type list struct {
	name string
	*section
}

// object writes JSON with some lists, which are empty there, and in this order.
func (o *output) object(json []byte, lists []list) {
	for _, l := range lists {
		before, after, _ := bytes.Cut(json, []byte(`"`+l.name+`": []`))
		o.Write(append(before, `"`+l.name+`": `...))
		o.groups(l.section)
		json = after
	}
	o.Write(append(json, '\n'))
}

// groups writes a section in JSON or CSV.
func (o *output) groups(s *section) {
	isJSON, separator := o.style.Format == JSON, "\n    "
	if isJSON {
		o.WriteByte('[')
	}
	shown := o.style.bound(s.count)
	if s.letters {
		shown = s.count
	}
	for line := range o.written(s, shown) {
		if isJSON {
			o.WriteString(separator)
			separator = ",\n    "
		}
		if _, err := o.Write(line); err != nil {
			break
		}
	}
	switch g := &s.nameless; {
	case g.row == 0 || shown < s.count:
	case isJSON:
		b := appendGroup([]byte(separator), &g.Group)
		o.Write(b[:len(b)-1])
		if g.Clients > 1 {
			o.WriteString(`, "members": `)
			o.groups(s.members)
		}
		o.WriteByte('}')
	default:
		o.groups(s.members)
	}
	if isJSON {
		o.WriteByte(']')
	}
}

// groupHeader and inferredHeader name the fields of a group.
var groupHeader = []string{"clients", "remaining", "login", "accounts", "software", "versions", "listeners", "endpoints", "addresses",
	"first_seen", "last_seen", "observed", "explained", "rejected", "failed",
	"accounts_in_all", "software_in_all", "endpoints_in_all", "addresses_in_all"}

var inferredHeader = []string{"speaks_like", "speaks_like_in_all", "library", "advice"}

func (g *Group) fields() []string {
	list := func(s []string) string { return strings.Join(s, "; ") }
	h := &g.Handshakes
	return []string{
		strconv.Itoa(g.Clients), strconv.Itoa(g.Remaining), string(g.Login), list(g.Accounts), list(g.Software), list(g.Versions),
		list(g.Listeners), list(g.Endpoints), list(g.Addresses), g.FirstSeen.Format(time.RFC3339), g.LastSeen.Format(time.RFC3339),
		fmt.Sprint(h.Observed), fmt.Sprint(h.Explained), fmt.Sprint(h.Rejected), fmt.Sprint(h.Failed),
		strconv.Itoa(g.Distinct.Accounts), strconv.Itoa(g.Distinct.Software), strconv.Itoa(g.Distinct.Endpoints), strconv.Itoa(g.Distinct.Addresses),
		list(g.SpeaksLike), strconv.Itoa(g.Distinct.SpeaksLike), list(g.Library), list(g.Advice),
	}
}

// appendGroup appends a group of a section as it is written.
func (s *Style) appendGroup(b []byte, of *section, g *Group) []byte {
	switch {
	case s.Format == Patterns && !slices.Contains(g.SpeaksLike, g.Name): // but a name that is said, or known
		return b
	case s.Format == Patterns:
		return fmt.Appendf(b, "%s\t%s\t\t%s\t%s, %s\n", g.Name, programs.Unnamed, g.LastSeen.Format(time.DateOnly),
			text.Number(g.Clients, "client"), of.status)
	case s.Format != CSV:
		return appendGroup(b, g)
	}
	name := g.Name
	if of.member { // of a group without one
		name = ""
	}
	more := []string{"", "", ""}
	if e := of.exemption; e != nil {
		more = []string{oneLine(e.Rule), oneLine(e.Owner), e.Until.Format(time.RFC3339)}
	}
	fields := g.fields()
	if of.answer { // only a report says how many clients remain
		return text.AppendRecord(b, slices.Concat([]string{name, of.status}, fields[:1], fields[2:]))
	}
	n := len(groupHeader)
	return text.AppendRecord(b, slices.Concat([]string{name, of.status}, fields[:n], more, fields[n:]))
}

func (s *Style) appendLetter(b []byte, l *Letter) []byte {
	if s.Format == CSV {
		return text.AppendRecord(b, l.cells())
	}
	return append(b, must(json.Marshal(l))...)
}

// line is a JSON object on one line, as encoding/json would write it; that takes
// too long for a million groups. It begins with a brace.
type line []byte

func (l line) key(name string) line {
	if l[len(l)-1] != '{' {
		l = append(l, ", "...)
	}
	return append(append(append(l, '"'), name...), `": `...)
}

func (l line) number(name string, n int64) line { return strconv.AppendInt(l.key(name), n, 10) }

func (l line) time(name string, t time.Time) line {
	return append(t.AppendFormat(append(l.key(name), '"'), time.RFC3339), '"')
}

func (l line) text(name, s string) line { return l.key(name).quote(s) }

func (l line) quote(s string) line {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c > '~' || c == '"' || c == '\\' || c == '<' || c == '>' || c == '&' {
			quoted, _ := json.Marshal(s) // every text has a JSON
			return append(l, quoted...)
		}
	}
	return append(append(append(l, '"'), s...), '"')
}

func (l line) texts(name string, list []string) line {
	l = append(l.key(name), '[')
	for i, s := range list {
		if i > 0 {
			l = append(l, ", "...)
		}
		l = l.quote(s)
	}
	return append(l, ']')
}

// appendGroup appends a group without its members.
func appendGroup(b []byte, g *Group) []byte {
	l := line(append(b, '{')).text("name", g.Name).number("clients", int64(g.Clients))
	if g.Remaining > 0 {
		l = l.number("remaining", int64(g.Remaining))
	}
	l = l.texts("addresses", g.Addresses).texts("accounts", g.Accounts).texts("software", g.Software)
	l = l.texts("speaks_like", g.SpeaksLike).texts("library", g.Library).texts("advice", g.Advice)
	l = l.texts("versions", g.Versions).texts("listeners", g.Listeners).texts("endpoints", g.Endpoints)
	d := &g.Distinct
	l = append(l.key("distinct"), '{').number("addresses", int64(d.Addresses)).number("accounts", int64(d.Accounts))
	l = l.number("software", int64(d.Software)).number("speaks_like", int64(d.SpeaksLike))
	l = append(l.number("endpoints", int64(d.Endpoints)), '}')
	if g.Elsewhere {
		l = append(l.key("elsewhere"), "true"...)
	}
	l = l.text("login", string(g.Login)).time("first_seen", g.FirstSeen).time("last_seen", g.LastSeen)
	h := &g.Handshakes
	l = append(l.key("handshakes"), '{').number("observed", h.Observed).number("explained", h.Explained)
	return append(l.number("rejected", h.Rejected).number("failed", h.Failed), "}}"...)
}
