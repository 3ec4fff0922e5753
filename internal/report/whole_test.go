package report

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"postern/internal/ledger"
	"postern/policy"
	"postern/proxy"
)

// manyClients are 20,000: some in networks of IPv6 that they share, with several
// rows, listeners and accounts; 11,000 accounts are of one domain.
func manyClients() []ledger.Client {
	var all []ledger.Client
	for i := range 20_000 {
		addr := fmt.Sprintf("11.%d.%d.%d", i>>16, i>>8&255, i&255)
		switch {
		case i%9 == 0:
			addr = fmt.Sprintf("2001:db8:%x::%x", i/90, i%90)
		case i%50 == 1:
			addr = fmt.Sprintf("10.20.%d.%d", i>>8&255, i&255)
		}
		var logins []ledger.Identity
		switch {
		case i%2 == 0:
			logins = append(logins, as(fmt.Sprintf("user%d@big.example.org", i%11_000), fmt.Sprintf("Mail %d", i%700)))
		case i%5 == 0:
			logins = append(logins, as(fmt.Sprintf("user%d@d%d.example.org", i, i%300), ""), as(fmt.Sprintf("other%d@big.example.org", i%3000), "Outlook 14.0"))
		case i%7 == 0:
			logins = append(logins, as(fmt.Sprintf("local%d", i), "Pine"))
		}
		version := []policy.Version{policy.TLS10, policy.TLS11, policy.SSL3}[i%3]
		c := came(addr, []proxy.Listener{"imaps", "pop3s", "imap"}[i%4%3], version, oldJA4, i%300, logins...)
		c.Endpoint.Name = []string{"", "imap.example.org", fmt.Sprintf("h%d.example.org", i%150)}[i%3]
		c.Noise = i%10 == 3
		if logins == nil {
			c.Login = ledger.Logins[i%len(ledger.Logins)]
		}
		if all = append(all, c); i%6 == 0 {
			c.Listener, c.Endpoint.Port = "pop3", 110
			all = append(all, c)
		}
	}
	return all
}

// counted is a group, counted without any thrift.
type counted struct{ clients, remaining, accounts, software, endpoints, addresses map[string]bool }

func (c *counted) see(l *ledger.Client, counts bool, logins []ledger.Identity) {
	network := l.Network()
	c.clients[network] = true
	if counts {
		c.remaining[network] = true
	}
	for _, login := range logins {
		c.accounts[login.Account], c.software[login.Software] = true, true
	}
	c.endpoints[l.Endpoint.String()], c.addresses[l.Addr.String()] = true, true
}

func (c *counted) distinct() Distinct {
	known := func(m map[string]bool) int {
		delete(m, "")
		return len(m)
	}
	return Distinct{Addresses: known(c.addresses), Accounts: known(c.accounts), Software: known(c.software), Endpoints: known(c.endpoints)}
}

// countAll counts the groups of a section.
func countAll(clients []ledger.Client, by By, section string) map[string]*counted {
	all := make(map[string]*counted)
	for i := range clients {
		c := &clients[i]
		is := "left"
		switch {
		case c.Noise:
			is = "noise"
		case netip.MustParsePrefix("10.20.0.0/16").Contains(c.Addr):
			is = "exempted"
		}
		if is != section {
			continue
		}
		parts := make(map[string][]ledger.Identity)
		for _, l := range c.Logins {
			name := map[By]string{ByAccount: l.Account, BySoftware: l.Software, ByNetwork: c.Network()}[by]
			if _, host, found := strings.Cut(l.Account, "@"); found && by == ByDomain {
				name = host
			}
			parts[name] = append(parts[name], l)
		}
		if by == ByNetwork {
			parts[c.Network()] = c.Logins
		}
		if len(parts) > 1 {
			delete(parts, "")
		} else if len(parts) == 0 {
			parts[""] = nil
		}
		for name, logins := range parts {
			if all[name] == nil {
				m := func() map[string]bool { return make(map[string]bool) }
				all[name] = &counted{m(), m(), m(), m(), m(), m()}
			}
			all[name].see(c, is == "left" && (c.Login == ledger.LoginOK || c.Login == ledger.LoginUnseen), logins)
		}
	}
	return all
}

func checkGroups(t *testing.T, what string, list []Group, want map[string]*counted) {
	t.Helper()
	if len(list) != len(want) {
		t.Errorf("%s: %d groups, want %d", what, len(list), len(want))
	}
	for i := range list {
		g := &list[i]
		w := want[g.Name]
		if w == nil || g.Clients != len(w.clients) || g.Remaining != len(w.remaining) || g.Distinct != w.distinct() {
			t.Fatalf("%s: %q has %d clients, %d remaining, %+v; counted are %+v", what, g.Name, g.Clients, g.Remaining, g.Distinct, w)
		}
		for list, of := range map[*[]string]map[string]bool{&g.Accounts: w.accounts, &g.Software: w.software, &g.Endpoints: w.endpoints, &g.Addresses: w.addresses} {
			var sorted []string
			for s := range of {
				sorted = append(sorted, s)
			}
			if slices.Sort(sorted); !slices.Equal(*list, sorted[:min(len(sorted), maxListed)]) {
				t.Fatalf("%s: %q lists %q", what, g.Name, *list)
			}
		}
		if g.Name == "" && len(g.Members) != len(w.clients) {
			t.Errorf("%s: %d members of %d", what, len(g.Members), len(w.clients))
		}
		if i > 0 && g.Name != "" && (list[i-1].Clients < g.Clients || list[i-1].Clients == g.Clients && list[i-1].LastSeen.Before(g.LastSeen)) {
			t.Fatalf("%s: %q stands behind %q", what, g.Name, list[i-1].Name)
		}
	}
}

func written(t *testing.T, f facts, o Options, s Style) string {
	t.Helper()
	var b bytes.Buffer
	f.Source, o.Since = SourceOf(f.Clients), fortnight
	if _, err := f.Write(t.Context(), &b, o, s); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// TestEveryCountIsOfTheWhole has a memory that is far too small, and holds each
// figure against a count of its own.
func TestEveryCountIsOfTheWhole(t *testing.T) {
	f := sampleFacts(t)
	f.Clients, f.Dir, f.budget = manyClients(), t.TempDir(), 128<<10
	f.Policy = ruled(t, "  - name: warehouse\n    mode: observe\n    match: {client: [10.20.0.0/16]}\n"+dated)
	for _, by := range []By{ByAccount, ByDomain, ByNetwork, BySoftware} {
		left, noise, exempted := countAll(f.Clients, by, "left"), countAll(f.Clients, by, "noise"), countAll(f.Clients, by, "exempted")
		var r Report
		text := written(t, f, Options{By: by, Noise: true, Mail: true}, Style{Format: JSON, Top: DefaultTop, Mail: true})
		if err := json.Unmarshal([]byte(text), &r); err != nil {
			t.Fatal(err)
		}
		checkGroups(t, string(by)+" left", r.Left, left)
		checkGroups(t, string(by)+" noise", r.Noise, noise)
		checkGroups(t, string(by)+" exempted", r.Exempted[0].Groups, exempted)
		people := countAll(f.Clients, ByAccount, "left")
		delete(people, "")
		if by != ByAccount {
			checkGroups(t, string(by)+" tell", r.Tell, people)
		}
		checkTotals(t, &r, f.Clients)
		if all := r.Groups; all.Left != len(left) || all.Noise != len(noise) || by != ByAccount && all.Tell != len(people) || r.Exempted[0].GroupsInAll != len(exempted) {
			t.Errorf("groups: %+v", all)
		}
		for name := range countAll(f.Clients, ByAccount, "exempted") {
			people[name] = nil
		}
		delete(people, "")
		if len(r.Mail) != len(people) {
			t.Errorf("%d letters, want %d", len(r.Mail), len(people))
		}
		checkTables(t, f, by, left)
	}
	if files, err := os.ReadDir(f.Dir); err != nil || len(files) > 0 {
		t.Errorf("left behind: %v, %v", files, err)
	}
}

func checkTotals(t *testing.T, r *Report, clients []ledger.Client) {
	t.Helper()
	all, left, noise := make(map[string]bool), make(map[string]bool), make(map[string]bool)
	var handshakes ledger.Counts
	for i := range clients {
		c := &clients[i]
		if c.Noise {
			noise[c.Network()] = true
			continue
		}
		handshakes.Add(c.Days[0].Counts)
		if all[c.Network()] = true; !netip.MustParsePrefix("10.20.0.0/16").Contains(c.Addr) {
			left[c.Network()] = true
		}
	}
	for network := range all {
		delete(noise, network)
	}
	want := Totals{len(all), len(left), len(all) - len(left), len(noise), 0, handshakes, r.Totals.ByPlace}
	if got := r.Totals; fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("totals are %+v, want %+v", got, want)
	}
	var sum ledger.Counts
	for _, p := range r.Totals.ByPlace {
		sum.Add(p.Handshakes)
	}
	days := make(map[int64]map[string]bool)
	for i := range clients {
		if c := &clients[i]; !c.Noise {
			if days[c.Days[0].Number] == nil {
				days[c.Days[0].Number] = make(map[string]bool)
			}
			days[c.Days[0].Number][c.Network()] = true
		}
	}
	for _, p := range r.Trend.Periods {
		for day, networks := range days {
			if (ledger.Day{Number: day}).Date().Format("2006-01-02") == p.First && p.Clients != len(networks) {
				t.Errorf("on %s %d clients, want %d", p.First, p.Clients, len(networks))
			}
		}
	}
	if j := r.Readiness; sum != handshakes || j.Remaining+j.Unknown+j.NotLoggedIn+r.Totals.Exempted != r.Totals.Clients {
		t.Errorf("parts do not come to the whole: %+v %+v", sum, j)
	}
}

// checkTables looks for the same in what people read, and in CSV.
func checkTables(t *testing.T, f facts, by By, left map[string]*counted) {
	t.Helper()
	more := fmt.Sprintf("\nand %d more", len(left)-7)
	for _, format := range []Format{Text, Markdown} {
		text := written(t, f, Options{By: by}, Style{Format: format, Top: 7, Width: 250})
		if !strings.Contains(text, more) {
			t.Errorf("%s by %s does not say %q:\n%.2500s", format, by, more, text)
		}
		if big := left["big.example.org"]; by == ByDomain {
			line := fmt.Sprintf(`\nbig\.example\.org +%d +Mail 0, .* and \d+ more +\S.* +%d +2026-11-25\n`, big.distinct().Accounts, len(big.clients))
			if format == Markdown {
				line = fmt.Sprintf("\n\\| `big.example.org` \\| %d \\| .* and %d more \\| .* \\| %d \\| 2026-11-25", big.distinct().Accounts, big.distinct().Software-listedCodes, len(big.clients))
			}
			if !regexp.MustCompile(line).MatchString(text) {
				t.Errorf("%s does not have %s:\n%.2500s", format, line, text)
			}
		}
	}
	all := written(t, f, Options{By: by}, Style{Format: Text, Top: 0})
	if strings.Contains(all, "\nand ") || strings.Count(all, "\n") < len(left) {
		t.Errorf("by %s: not all of %d are in %d lines", by, len(left), strings.Count(all, "\n"))
	}
	rows, err := csv.NewReader(strings.NewReader(written(t, f, Options{By: by}, Style{Format: CSV, Top: DefaultTop}))).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	lines, nameless := 0, 0
	for _, row := range rows[1:] {
		switch {
		case row[1] != "left":
		case row[0] == "":
			nameless++
		default:
			lines++
			w := left[row[0]]
			d := w.distinct()
			if got, want := fmt.Sprint(row[2:4], row[17:21]), fmt.Sprint([]int{len(w.clients), len(w.remaining)}, []int{d.Accounts, d.Software, d.Endpoints, d.Addresses}); got != want {
				t.Fatalf("CSV has %s of %s, want %s", got, row[0], want)
			}
		}
	}
	if w := left[""]; w != nil && nameless != len(w.clients) || w == nil && (nameless > 0 || lines != len(left)) || w != nil && lines != len(left)-1 {
		t.Errorf("by %s: CSV has %d lines and %d without a name", by, lines, nameless)
	}
}
