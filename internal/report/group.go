package report

import (
	"cmp"
	"fmt"
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
	// Addresses, Accounts and Software hold the first 100 each, in order.
	Addresses []string `json:"addresses"`
	Accounts  []string `json:"accounts"`
	Software  []string `json:"software"`
	Versions  []string `json:"versions"`
	Listeners []string `json:"listeners"`
	Endpoints []string `json:"endpoints"`
	// Login is ok if one of the clients has logged in.
	Login      ledger.Login  `json:"login"`
	FirstSeen  time.Time     `json:"first_seen"`
	LastSeen   time.Time     `json:"last_seen"`
	Handshakes ledger.Counts `json:"handshakes"`
}

// maxListed bounds the lists of a group.
const maxListed = 100

// gathering is a group that is being made.
type gathering struct {
	Group
	networks, remaining networks
}

// groups groups the rows: most clients first, the unknown last.
func groups(rows []row, by By) []Group {
	found := make(map[string]*gathering)
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
	for _, g := range found {
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
	for _, l := range logins {
		g.Accounts, g.Software = append(g.Accounts, l.Account), append(g.Software, l.Software)
	}
	g.Addresses, g.Endpoints = append(g.Addresses, c.Addr.String()), append(g.Endpoints, c.Endpoint.String())
	g.Versions, g.Listeners = append(g.Versions, c.Version.String()), append(g.Listeners, string(c.Listener))
	if g.Login != ledger.LoginOK && (g.Login == "" || c.Login != ledger.LoginUnknown) {
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
	for _, list := range []*[]string{&g.Addresses, &g.Accounts, &g.Software, &g.Versions, &g.Listeners, &g.Endpoints} {
		slices.Sort(*list)
		distinct := slices.DeleteFunc(slices.Compact(*list), func(s string) bool { return s == "" })
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
		}
	}
}

// Resolve replaces hashed accounts by their names in known, and returns how many
// are missing there.
func (r *Report) Resolve(known map[string]string) (missing int) {
	unknown := make(map[string]bool)
	r.all(func(g *Group) { resolve(g, known, unknown) })
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
	if g.Login != ledger.LoginOK && g.Login != ledger.LoginFailed {
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
