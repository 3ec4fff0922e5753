package admin

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"net/url"
	"slices"
	"strconv"
	"time"

	"postern/internal/ledger"
	"postern/internal/text"
	"postern/policy"
)

const (
	// clientsShown bounds the clients on a page, and namesShown the accounts and
	// the programs of each.
	clientsShown = 50
	namesShown   = 3
	// maxValue bounds the value of a field, in bytes.
	maxValue = 255
	// shownSince and shownSort are the filter and the order of a page without: of
	// those whom an index finds at once.
	shownSince, shownSort = "30d", "-first_seen"
)

// listView is the part of the page that finds clients.
type listView struct {
	Known  bool
	Fields []field
	// Problems are those of parameters without a field.
	Problems []string
	Heads    map[string]head // by what they sort by
	Rows     []clientRow
	// From and To number the rows, out of Total.
	From, To, Total int
	// The links to other pages are empty where there are none.
	First, Back, Next, CSV string
	// Filtered: the page has a filter of its own.
	Filtered, Noise bool
	Sort            string
	// Candidate is whose clients they are; empty for legacy ones.
	Candidate string
}

// field is one of the filter's.
type field struct {
	Name, Label, Value, Hint string
	Wrong                    error
	// Options are the values to choose from; nil for any text.
	Options []string
}

// head is that of a column by which Link sorts; Sort says how it is sorted now.
type head struct{ Name, Link, Sort string }

// clientRow is a client in the table.
type clientRow struct {
	clientJSON
	// ByAccount are programs of the shown accounts that are known from elsewhere.
	ByAccount []string
	At        time.Time // now
}

// shown are the first of some names.
func shown(names []string) []string { return names[:min(len(names), namesShown)] }

// More is the number of accounts that are not shown.
func (r clientRow) More() int { return len(r.Accounts) - len(shown(r.Accounts)) }

// readList reads the query, and the clients that it is for.
func (v *pageView) readList(ctx context.Context, raw string, s PolicyState) error {
	values, err := url.ParseQuery(raw)
	l := &v.List
	if err != nil {
		l.Problems = append(l.Problems, "The address of this page cannot be read; nothing of it is used.")
		values = nil
	}
	asked := url.Values{"since": {shownSince}, "sort": {shownSort}}
	maps.Copy(asked, values)
	from, _ := strconv.Atoi(asked.Get("from"))
	for key, given := range asked {
		if key == "from" || key == "refresh" || slices.Equal(given, []string{""}) { // a form has all of its fields
			delete(asked, key)
		}
	}
	q, wrong := v.Clients.parse(asked)
	clients, _ := v.Clients.of(q.candidate)
	q.limit, q.csv = clientsShown, false
	l.fields(asked, wrong, s.Policy)
	l.links(asked, q.order)
	if len(wrong) > 0 || len(l.Problems) > 0 {
		return nil
	}
	l.Candidate = q.candidate
	found, err := clients.Store.Find(ctx, q.filter, q.order, q.cursor, q.limit)
	if errors.Is(err, ledger.ErrCursor) {
		l.Problems = []string{"This is no page of the list: the first one is under “Filter”."}
		return nil
	}
	if err == nil {
		l.Rows, err = clients.rows(ctx, found.Clients)
	}
	if err != nil {
		return err
	}
	l.Known, l.Total = true, found.Total
	l.From = max(from, 1)
	l.To = l.From + len(l.Rows) - 1
	if found.Next != "" {
		l.Next = pageLink(asked, "cursor", found.Next, "from", strconv.Itoa(l.To+1))
	}
	if q.cursor != "" {
		l.First = pageLink(asked)
		l.Back, err = clients.backLink(ctx, q, asked, l.From)
	}
	return err
}

// backLink leads to the page before that of a query. A cursor stands at the last
// client of the page before; against the order, the client in front of that page
// is as many further as a page has.
func (c *Clients) backLink(ctx context.Context, q clientsQuery, asked url.Values, from int) (string, error) {
	q.order.Descending = !q.order.Descending
	_, cursor, err := c.Store.Clients(ctx, q.filter, q.order, q.cursor, clientsShown)
	if cursor == "" {
		return pageLink(asked), err
	}
	return pageLink(asked, "cursor", cursor, "from", strconv.Itoa(max(from-clientsShown, 1))), err
}

// pageLink is the link to the first page of a query, with some parameters more.
func pageLink(asked url.Values, more ...string) string {
	asked = maps.Clone(asked)
	delete(asked, "cursor")
	for i := 0; i < len(more); i += 2 {
		asked.Set(more[i], more[i+1])
	}
	if !asked.Has("since") {
		asked.Set("since", "") // all, not what a page without a filter has
	}
	return "/?" + asked.Encode() + "#who"
}

// fields fills in the filter.
func (l *listView) fields(asked url.Values, wrong map[string]error, p *policy.Policy) {
	versions := text.Each(policy.Versions[:len(policy.Versions)-1], policy.Version.String)
	l.Fields = []field{
		{Name: "account", Label: "Account", Hint: "the whole name"},
		{Name: "software", Label: "Program", Hint: "a part of its name"},
		{Name: "network", Label: "Address", Hint: "or a network: 192.0.2.0/24"},
		{Name: "since", Label: "Seen since", Hint: "7d, 36h or 2026-06-01"},
		{Name: "version", Label: "Offers", Options: versions},
		{Name: "listener", Label: "Came to", Options: policy.ListenerNames},
		{Name: "outcome", Label: "Has met", Options: outcomes},
		{Name: "rule", Label: "Rule now", Options: ruleNames(p)},
	}
	for i := range l.Fields {
		f := &l.Fields[i]
		f.Value, f.Wrong = text.Clean(asked.Get(f.Name), maxValue), wrong[f.Name]
		if f.Options != nil && f.Value != "" && !slices.Contains(f.Options, f.Value) {
			f.Options = append(slices.Clip(f.Options), f.Value)
		}
	}
	for _, key := range slices.Sorted(maps.Keys(wrong)) {
		if !slices.ContainsFunc(l.Fields, func(f field) bool { return f.Name == key }) {
			l.Problems = append(l.Problems, text.Clean(key, maxShown)+": "+wrong[key].Error())
		}
	}
	l.Noise = asked.Get("noise") != ""
	if wrong["sort"] == nil {
		l.Sort = asked.Get("sort")
	}
	l.Filtered = l.Noise || asked.Get("since") != shownSince || slices.ContainsFunc(l.Fields, func(f field) bool { return f.Value != "" && f.Name != "since" })
}

// links fills in the links for the order, and for the CSV of the same clients.
func (l *listView) links(asked url.Values, order ledger.Order) {
	l.Heads = make(map[string]head)
	for by, name := range map[ledger.Key]string{
		ledger.ByClient: "Client", ledger.ByFirstSeen: "First seen", ledger.ByLastSeen: "Last seen", ledger.ByHandshakes: "Handshakes",
	} {
		h, o := head{Name: name}, ledger.Order{By: by, Descending: by != ledger.ByClient}
		if cmp.Or(order.By, ledger.ByFirstSeen) == by {
			o.Descending = !order.Descending
			h.Sort = text.Either(o.Descending, "ascending", "descending")
		}
		h.Link = pageLink(asked, "sort", o.String())
		l.Heads[string(by)] = h
	}
	all := maps.Clone(asked)
	delete(all, "cursor")
	all.Set("format", "csv")
	l.CSV = "/api/v1/legacy-clients?" + all.Encode()
}

// rows finds what clients meet, and what is known of the accounts elsewhere.
func (c *Clients) rows(ctx context.Context, list []ledger.Client) ([]clientRow, error) {
	views, err := c.views(ctx, list)
	if err != nil {
		return nil, err
	}
	var accounts []string
	for _, client := range views {
		if len(client.Software) == 0 {
			accounts = append(accounts, shown(client.Accounts)...)
		}
	}
	slices.Sort(accounts)
	programs, err := c.Store.Programs(ctx, slices.Compact(accounts))
	rows := make([]clientRow, len(list))
	for i, client := range views {
		rows[i] = clientRow{clientJSON: client, At: c.Now()}
		for _, name := range shown(client.Accounts) {
			rows[i].ByAccount = append(rows[i].ByAccount, programs[name]...)
		}
		slices.Sort(rows[i].ByAccount)
		rows[i].ByAccount = slices.Compact(rows[i].ByAccount)
	}
	return rows, err
}
