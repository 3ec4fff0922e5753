package report

import (
	"cmp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"postern/internal/ledger"
	"postern/internal/text"
)

// groupTable is a table of groups for people.
type groupTable struct {
	list    []Group
	columns []column
}

// column is one of them: text, a list that is cut to the column's width, or else a
// number.
type column struct {
	heading string
	text    func(*Group) string
	items   func(*Group) []string
	// count is how many items there are, of which the list may lack some.
	count func(*Group) int
	// share is a list's part of the free width, in tenths.
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

// tableOf returns a table without empty columns.
func tableOf(list []Group, by By) *groupTable {
	accounts := column{heading: "accounts", count: func(g *Group) int { return g.Distinct.Accounts }}
	programs := column{heading: "programs", count: func(g *Group) int { return g.Distinct.Software }, share: 10,
		items: func(g *Group) []string { return g.Software }}
	of := column{heading: "clients", count: func(g *Group) int { return g.Clients }}
	if by == ByNetwork {
		accounts.items = func(g *Group) []string { return g.Accounts }
		accounts.share, programs.share = 6, 4
		of = column{heading: "listener", text: func(g *Group) string { return strings.Join(g.Listeners, ", ") }}
	}
	return &groupTable{list, slices.DeleteFunc([]column{
		{heading: by.heading(), text: func(g *Group) string { return cmp.Or(g.Name, notKnown) }}, accounts, programs,
		{heading: "TLS", text: func(g *Group) string { return versions(g.Versions) }}, of,
		{heading: "last seen", text: func(g *Group) string { return g.LastSeen.UTC().Format(time.DateOnly) }}, {text: func(g *Group) string { return remarks[g.Login] }},
	}, func(c column) bool {
		return c.heading == by.heading()+"s" || !slices.ContainsFunc(list, func(g Group) bool {
			return c.text != nil && c.text(&g) != "" || c.text == nil && c.count(&g) > 0
		})
	})}
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

// rows returns the groups as text of so many columns.
func (t *groupTable) rows(width int) [][]string {
	rows := make([][]string, len(t.list))
	room := width
	widestName := widestName + max(0, width-text.Width)
	for k, c := range t.columns {
		widest := utf8.RuneCountInString(c.heading)
		for i := range t.list {
			cell := ""
			if c.items == nil {
				cell = text.Clip(c.cell(&t.list[i]), widestName, "...")
			}
			widest = max(widest, utf8.RuneCountInString(cell))
			rows[i] = append(rows[i], cell)
		}
		if c.items == nil {
			room -= widest
		}
		if k > 0 {
			room -= 2
		}
	}
	for k, c := range t.columns {
		for i := range t.list {
			if c.items != nil {
				rows[i][k] = cmp.Or(some(c.items(&t.list[i]), c.count(&t.list[i]), max(room*c.share/10, leastList)), "-")
			}
		}
	}
	return rows
}

// markdownRows returns the groups as Markdown cells.
func (t *groupTable) markdownRows(by By) (rows [][]string) {
	for i := range t.list {
		var row []string
		for k, c := range t.columns {
			switch g := &t.list[i]; {
			case k == 0 && g.Name == "" && by != ByNetwork:
				row = append(row, notKnown+": "+codes(g.Addresses, g.Distinct.Addresses))
			case k == 0:
				row = append(row, code(cmp.Or(g.Name, notKnown)))
			case c.items != nil:
				row = append(row, codes(c.items(g), c.count(g)))
			default:
				row = append(row, c.cell(g))
			}
		}
		rows = append(rows, row)
	}
	return rows
}
