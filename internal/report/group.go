package report

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"postern/internal/ledger"
	"postern/internal/text"
	"postern/policy"
)

// By is the criterion for groups of clients.
type By string

// The criteria. A network counts as one client: an IPv4 address or an IPv6 /64.
const (
	ByAccount  By = "account"
	ByDomain   By = "domain"
	ByNetwork  By = "network"
	BySoftware By = "software"

	byNobody By = "nobody" // there are no groups
)

// ParseBy reads one of them; an empty text stays empty.
func ParseBy(s string) (By, error) {
	if by := By(s); slices.Contains([]By{"", ByAccount, ByDomain, ByNetwork, BySoftware}, by) {
		return by, nil
	}
	return "", fmt.Errorf("%.40q is none of account, domain, network, software", s)
}

// Group is some clients together.
type Group struct {
	// Name is the account, domain, network or program; empty if unknown.
	Name string `json:"name"`
	// Clients are distinct; Remaining are those of them that must not remain.
	Clients   int `json:"clients"`
	Remaining int `json:"remaining,omitempty"`
	// Addresses, Accounts, Software and Endpoints hold the first 100 each, in
	// order. Distinct is how many there are.
	Addresses []string `json:"addresses"`
	Accounts  []string `json:"accounts"`
	Software  []string `json:"software"`
	Versions  []string `json:"versions"`
	Listeners []string `json:"listeners"`
	Endpoints []string `json:"endpoints"`
	Distinct  Distinct `json:"distinct"`
	// Members are the clients of a group without a name, each as a group: their
	// addresses are all that is known of them.
	Members []Group `json:"members,omitempty"`
	// Elsewhere: all clients of a group without a name are in others, too. Such
	// groups overlap, and must not be added up.
	Elsewhere bool `json:"elsewhere,omitempty"`
	// Login is ok if one of the clients has logged in, else the word that leaves
	// most open.
	Login      ledger.Login  `json:"login"`
	FirstSeen  time.Time     `json:"first_seen"`
	LastSeen   time.Time     `json:"last_seen"`
	Handshakes ledger.Counts `json:"handshakes"`
}

// Distinct counts what a group lists.
type Distinct struct {
	Addresses int `json:"addresses"`
	Accounts  int `json:"accounts"`
	Software  int `json:"software"`
	Endpoints int `json:"endpoints"`
}

// maxListed bounds the lists of a group.
const maxListed = 100

// gathering is a group that is being made.
type gathering struct {
	Group
	networks, remaining networks
	rows                []row // of a group without a name
}

// groups groups the rows: most clients first, the unknown last.
func groups(rows []row, by By) []Group {
	found := make(map[string]*gathering)
	if by == byNobody {
		rows = nil
	}
	for _, c := range rows {
		for name, logins := range parts(c, by) {
			g := found[name]
			if g == nil {
				g = &gathering{Group: Group{Name: name}, networks: networks{}, remaining: networks{}}
				found[name] = g
			}
			g.add(c, logins)
		}
	}
	all := make([]Group, 0, len(found))
	for name, g := range found {
		if name == "" && by != ByNetwork && len(g.networks) > 1 {
			g.Members = groups(g.rows, ByNetwork)
		}
		g.Elsewhere = name == "" && g.networks.without(named(found)) == 0
		all = append(all, g.done())
	}
	slices.SortFunc(all, func(a, b Group) int {
		switch {
		case a.Name == "":
			return 1
		case b.Name == "":
			return -1
		}
		return cmp.Or(cmp.Compare(b.Clients, a.Clients), b.LastSeen.Compare(a.LastSeen), cmp.Compare(a.Name, b.Name))
	})
	return all
}

// named returns the clients of the groups that have a name.
func named(found map[string]*gathering) networks {
	all := make(networks)
	for name, g := range found {
		if name != "" {
			maps.Copy(all, g.networks)
		}
	}
	return all
}

// parts returns the groups of a row, with its logins in each.
func parts(c row, by By) map[string][]ledger.Identity {
	all := make(map[string][]ledger.Identity)
	if by == ByNetwork {
		all[c.Network()] = c.Logins
		return all
	}
	for _, l := range c.Logins {
		name := l.Account
		switch by {
		case ByDomain:
			name = domain(l.Account)
		case BySoftware:
			name = l.Software
		}
		all[name] = append(all[name], l)
	}
	if len(all) == 0 {
		all[""] = nil
	}
	if len(all) > 1 {
		delete(all, "") // something is known
	}
	return all
}

func domain(account string) string {
	if at := strings.LastIndexByte(account, '@'); at >= 0 {
		return strings.ToLower(account[at+1:])
	}
	return ""
}

func (g *gathering) add(c row, logins []ledger.Identity) {
	g.networks.add(c)
	if c.counts {
		g.remaining.add(c)
	}
	if g.Name == "" {
		g.rows = append(g.rows, c)
	}
	for _, l := range logins {
		g.Accounts, g.Software = append(g.Accounts, l.Account), append(g.Software, l.Software)
	}
	g.Addresses, g.Endpoints = append(g.Addresses, c.Addr.String()), append(g.Endpoints, c.Endpoint.String())
	g.Versions, g.Listeners = append(g.Versions, c.Version.String()), append(g.Listeners, string(c.Listener))
	if g.Login == "" || slices.Index(ledger.Logins, c.Login) < slices.Index(ledger.Logins, g.Login) {
		g.Login = c.Login
	}
	if g.FirstSeen.IsZero() || c.First.Before(g.FirstSeen) {
		g.FirstSeen = c.First
	}
	if c.Last.After(g.LastSeen) {
		g.LastSeen = c.Last
	}
	g.Handshakes.Add(c.Since)
}

func (g *gathering) done() Group {
	g.Clients, g.Remaining = len(g.networks), len(g.remaining)
	var n int // of the few versions and listeners
	for list, count := range map[*[]string]*int{
		&g.Addresses: &g.Distinct.Addresses, &g.Accounts: &g.Distinct.Accounts, &g.Software: &g.Distinct.Software,
		&g.Endpoints: &g.Distinct.Endpoints, &g.Versions: &n, &g.Listeners: &n,
	} {
		slices.Sort(*list)
		distinct := slices.DeleteFunc(slices.Compact(*list), func(s string) bool { return s == "" })
		*count = len(distinct)
		*list = append([]string{}, distinct[:min(len(distinct), maxListed)]...)
	}
	return g.Group
}

// all calls f for every group of the report.
func (r *Report) all(f func(*Group)) {
	lists := [][]Group{r.Left, r.Tell, r.Noise}
	for i := range r.Exempted {
		lists = append(lists, r.Exempted[i].Groups)
	}
	for _, list := range lists {
		for i := range list {
			f(&list[i])
			for k := range list[i].Members {
				f(&list[i].Members[k])
			}
		}
	}
}

// Resolve replaces hashed accounts by their names in known, and returns how many
// are missing there.
func (r *Report) Resolve(known map[string]string) (missing int) {
	unknown := make(map[string]bool)
	r.all(func(g *Group) { resolve(g, known, unknown) })
	for i := range r.Mail {
		if plain, ok := known[r.Mail[i].Account]; ok {
			r.Mail[i].Account = plain
		}
	}
	return len(unknown)
}

func resolve(g *Group, known map[string]string, unknown map[string]bool) {
	for i, account := range g.Accounts {
		if plain, ok := known[account]; ok {
			g.Accounts[i] = plain
		} else if strings.HasPrefix(account, "h:") {
			unknown[account] = true
		}
	}
	slices.Sort(g.Accounts)
	if plain, ok := known[g.Name]; ok {
		g.Name = plain
	}
}

// Clean makes text from clients harmless: one line each, without control or
// invisible characters. Fields with a closed set of values get one of them.
func (r *Report) Clean() {
	r.all(clean)
	for _, s := range []*string{(*string)(&r.By), &r.Identity, &r.Policy.File, &r.Policy.Floor, &r.Policy.Mode} {
		*s = oneLine(*s)
	}
	for i := range r.Exempted {
		e := &r.Exempted[i]
		e.Rule, e.Owner, e.Mode = oneLine(e.Rule), oneLine(e.Owner), oneLine(e.Mode)
	}
	for i := range r.Totals.ByPlace {
		p := &r.Totals.ByPlace[i]
		p.Version, p.Listener = versionWord(p.Version), listenerWord(p.Listener)
	}
	for i := range r.Trend.Periods {
		r.Trend.Periods[i].First = oneLine(r.Trend.Periods[i].First)
	}
	for i := range r.Mail {
		r.Mail[i].clean()
	}
	if r.Unwritten != nil {
		r.Unwritten.Ledger = oneLine(r.Unwritten.Ledger)
	}
	cleanList(r.Readiness.Reasons, oneLine)
	cleanList(r.Notes, oneLine)
}

func clean(g *Group) {
	g.Name = oneLine(g.Name)
	for _, list := range [][]string{g.Addresses, g.Accounts, g.Software, g.Endpoints} {
		cleanList(list, oneLine)
	}
	cleanList(g.Versions, versionWord)
	cleanList(g.Listeners, listenerWord)
	g.Versions, g.Listeners = slices.Compact(g.Versions), slices.Compact(g.Listeners)
	if !slices.Contains(ledger.Logins, g.Login) {
		g.Login = ledger.LoginUnknown
	}
}

func cleanList(list []string, clean func(string) string) {
	for i := range list {
		list[i] = clean(list[i])
	}
}

func versionWord(s string) string {
	if slices.ContainsFunc(policy.Versions, func(v policy.Version) bool { return v.String() == s }) {
		return s
	}
	return "other"
}

func listenerWord(s string) string {
	if slices.Contains(policy.ListenerNames, s) {
		return s
	}
	return "other"
}

// maxText bounds each text from a client, in characters.
const maxText = 256

func oneLine(s string) string {
	return text.Clip(text.Clean(s, utf8.UTFMax*maxText), maxText, "...")
}
