package report

import (
	"cmp"
	"slices"
	"strings"
	"unicode/utf8"

	"postern/internal/ledger"
	"postern/internal/text"
	"postern/policy"
)

// all calls f for every group of the report.
func (r *Report) all(f func(*Group)) {
	lists := [][]Group{r.Left, r.Tell, r.Noise}
	for _, e := range r.Exempted {
		lists = append(lists, e.Groups)
	}
	for _, list := range lists {
		for i := range list {
			f(&list[i])
			for k := range list[i].Members {
				f(&list[i].Members[k])
			}
		}
	}
	for _, t := range r.Guards {
		for _, accounts := range t.By {
			f(&Group{Accounts: accounts})
		}
	}
}

// Resolve replaces hashed accounts by their names in known, and returns how many
// are missing there.
func (r *Report) Resolve(known map[string]string) (missing int) {
	unknown := make(map[string]bool)
	r.all(func(g *Group) { resolve(g, known, unknown) })
	for i := range r.Mail {
		r.Mail[i].Account = cmp.Or(known[r.Mail[i].Account], r.Mail[i].Account)
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
	g.Name = cmp.Or(known[g.Name], g.Name)
}

// Clean makes text from clients harmless: one line each, without control or
// invisible characters. Fields with a closed set of values get one of them.
func (r *Report) Clean() {
	r.all(clean)
	for _, s := range []*string{(*string)(&r.By), &r.Identity, &r.Policy.File, &r.Policy.Floor, &r.Policy.Mode} {
		*s = oneLine(*s)
	}
	for _, e := range r.Exempted {
		e.Rule, e.Owner, e.Mode = oneLine(e.Rule), oneLine(e.Owner), oneLine(e.Mode)
	}
	for _, p := range r.Totals.ByPlace {
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
	g.Name = inferred(g.Name)
	for _, list := range [][]string{g.Addresses, g.Accounts, g.Software, g.Endpoints} {
		cleanList(list, oneLine)
	}
	cleanList(g.SpeaksLike, inferred)
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
	known := slices.ContainsFunc(policy.Versions, func(v policy.Version) bool { return v.String() == s })
	return text.Either(known, s, "other")
}

func listenerWord(s string) string {
	return text.Either(slices.Contains(policy.ListenerNames, s), s, "other")
}

// maxText bounds each text from a client, in characters.
const maxText = 256

// inferred is for names of programs, all of them: many may speak alike.
func inferred(s string) string { return text.Clean(s, 16*maxText) }

func oneLine(s string) string {
	return text.Clip(text.Clean(s, utf8.UTFMax*maxText), maxText, "...")
}
