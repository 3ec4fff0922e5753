package report

import (
	"bytes"
	"slices"
	"strings"
	"testing"
	"time"

	"postern/internal/ledger"
	"postern/policy"
)

// ruled is a policy with one exemption for a match.
func ruled(t *testing.T, rules string) *policy.Policy {
	t.Helper()
	p, err := policy.Parse([]byte("floor: tls1.2\nmode: observe\nrules:\n" + rules))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

const dated = "    until: 2026-12-31T00:00:00Z\n    owner: it@example.org\n"

func anna() ledger.Client {
	return came("192.0.2.7", "imaps", policy.TLS10, oldJA4, 2, as("anna@example.org", "Outlook 14.0"))
}

func changed(change func(*ledger.Client)) []ledger.Client {
	c := anna()
	change(&c)
	return []ledger.Client{c}
}

// exempt is a rule with an owner and an end for a match.
func exempt(match string) string {
	return "  - name: x\n    mode: observe\n    match: {" + match + "}\n" + dated
}

func TestRemainingClientsBlockTheCut(t *testing.T) {
	for _, tt := range []struct {
		name, identity, rules string
		clients               []ledger.Client
		remaining, exempted   int
		notLoggedIn, unknown  int
	}{
		{"one that has logged in", "plain", "", []ledger.Client{anna()}, 1, 0, 0, 0},
		{"noise", "plain", "", changed(func(c *ledger.Client) { c.Noise = true }), 0, 0, 0, 0},
		{"noise where nobody is known", "off", "", changed(func(c *ledger.Client) { c.Noise = true }), 0, 0, 0, 0},
		{"nobody has logged in", "hashed", "", changed(func(c *ledger.Client) { c.Login = ledger.LoginUnknown }), 0, 0, 0, 1},
		{"let in, and not logged in", "hashed", "", changed(func(c *ledger.Client) { c.Login = ledger.LoginNone }), 0, 0, 1, 0},
		{"passed through", "plain", "", changed(func(c *ledger.Client) { c.Login, c.Logins = ledger.LoginUnseen, nil }), 1, 0, 0, 0},
		{"failed logins", "plain", "", changed(func(c *ledger.Client) { c.Login, c.Noise = ledger.LoginFailed, true }), 0, 0, 0, 0},
		{"logins are not kept", "off", "", changed(func(c *ledger.Client) { c.Login = ledger.LoginUnknown }), 1, 0, 0, 0},
		{"exempted by address", "plain", exempt("client: [192.0.2.0/24]"), []ledger.Client{anna()}, 0, 1, 0, 0},
		{"exempted by port", "plain", exempt("port: [993]"), []ledger.Client{anna()}, 0, 1, 0, 0},
		{"exempted by listener", "plain", exempt("listener: [imaps]"), []ledger.Client{anna()}, 0, 1, 0, 0},
		{"exempted by name", "plain", exempt(`server_name: ["*.example.org"]`), []ledger.Client{anna()}, 0, 1, 0, 0},
		{"exempted by version", "plain", exempt("version: [tls1.0]"), []ledger.Client{anna()}, 0, 1, 0, 0},
		{"exempted by fingerprint", "plain", exempt("ja4: [" + oldJA4 + "]"), []ledger.Client{anna()}, 0, 1, 0, 0},
		{"exempted elsewhere", "plain", exempt("port: [10993]"), []ledger.Client{anna()}, 1, 0, 0, 0},
		{"an exemption that is over", "plain", strings.Replace(exempt("port: [993]"), "2026-12-31", "2026-11-25", 1), []ledger.Client{anna()}, 1, 0, 0, 0},
		{"an exemption that is to come", "plain", exempt("port: [993]") + "    from: 2026-11-26T00:00:00Z\n", []ledger.Client{anna()}, 1, 0, 0, 0},
		{"a rule without an owner", "plain", strings.Replace(exempt("port: [993]"), "    owner: it@example.org\n", "", 1), []ledger.Client{anna()}, 1, 0, 0, 0},
		{"a rule without an end", "plain", strings.Replace(exempt("port: [993]"), "    until: 2026-12-31T00:00:00Z\n", "", 1), []ledger.Client{anna()}, 1, 0, 0, 0},
		{"a rule that refuses has an owner too", "plain", "  - name: brownout\n    mode: enforce\n" + dated, []ledger.Client{anna()}, 1, 0, 0, 0},
		{"an exemption behind another rule", "plain", "  - name: all\n    mode: explain\n" + exempt("port: [993]"), []ledger.Client{anna()}, 1, 0, 0, 0},
		{"an exemption behind a share of connections", "plain",
			"  - name: some\n    mode: enforce\n    share: {from: 5%, to: 5%, by: connection}\n    from: 2026-01-01T00:00:00Z\n    until: 2027-01-01T00:00:00Z\n" + exempt("port: [993]"),
			[]ledger.Client{anna()}, 1, 0, 0, 0},
		{"exempted at one place alone", "plain", exempt("port: [993]"),
			append(changed(func(c *ledger.Client) { c.Endpoint.Port = 995 }), anna()), 1, 0, 0, 0},
		{"an IPv6 network is one client", "plain", "", []ledger.Client{
			came("2001:db8::1", "imaps", policy.TLS10, oldJA4, 1, as("a", "")), came("2001:db8::2", "imaps", policy.TLS10, oldJA4, 1, as("b", ""))}, 1, 0, 0, 0},
		{"refused beside a login", "plain", "", append(changed(func(c *ledger.Client) { c.Login, c.JA4 = ledger.LoginUnknown, lostJA4 }), anna()), 1, 0, 0, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := policy.New(policy.FloorTLS12, policy.Observe)
			if tt.rules != "" {
				p = ruled(t, tt.rules)
			}
			f := facts{Facts{Now: sampleNow, Policy: p, Identity: tt.identity}, tt.clients}
			for limit := range 3 {
				r := build(t, f, Options{Since: fortnight, Max: limit})
				j := r.Readiness
				if j.Remaining != tt.remaining || r.Totals.Exempted != tt.exempted || j.NotLoggedIn != tt.notLoggedIn || j.Unknown != tt.unknown ||
					j.Ready != (tt.remaining <= limit && tt.unknown == 0) {
					t.Errorf("max %d: %+v, %d exempted; want %d, %d, %d, %d", limit, j, r.Totals.Exempted, tt.remaining, tt.exempted, tt.notLoggedIn, tt.unknown)
				}
				if sum := j.Remaining + j.Unknown + j.NotLoggedIn + r.Totals.Exempted; sum != r.Totals.Clients {
					t.Errorf("the parts come to %d of %d: %s", sum, r.Totals.Clients, r.Parts())
				}
				if tt.unknown > 0 && strings.Contains(strings.Join(j.Reasons, " ")+r.Verdict(), "nobody") {
					t.Errorf("it is not known, and yet it says %q %q", r.Verdict(), j.Reasons)
				}
				if r.Verdict()[:2] == "GO" != j.Ready || len(j.Reasons) == 0 {
					t.Errorf("%q %q", r.Verdict(), j.Reasons)
				}
			}
		})
	}
}

func TestClientsThatAreNotWrittenAreNoGo(t *testing.T) {
	f := facts{Facts: Facts{Now: sampleNow, Policy: policy.New(policy.FloorTLS12, policy.Observe), Identity: "plain", Backlog: ledger.Backlog{Clients: 1}}}
	if r := build(t, f, Options{Since: fortnight}); !r.Readiness.Ready || r.Unwritten != nil {
		t.Errorf("one that was seen just now: %q, %+v", r.Verdict(), r.Unwritten)
	}
	f.Backlog.Stuck = true
	for limit := range 3 {
		if r := build(t, f, Options{Since: fortnight, Max: limit, MaxUnknown: limit}); r.Readiness.Ready || !strings.HasPrefix(r.Verdict(), "NOT KNOWN: 1 client not written") {
			t.Errorf("%q, %+v", r.Verdict(), r.Readiness)
		}
	}
}

func TestGroups(t *testing.T) {
	names := func(list []Group) (all []string) {
		for _, g := range list {
			all = append(all, g.Name)
		}
		return all
	}
	for by, want := range map[By][]string{
		ByAccount:  {"bert@example.org", "anna@example.org", "carla@sales.example.org", "dora@sales.example.org", "erik@example.net", ""},
		ByDomain:   {"example.org", "sales.example.org", "example.net", ""},
		ByNetwork:  {"192.0.2.7", "203.0.113.77", "198.51.100.20", "192.0.2.8", "2001:db8:1::/64", "192.0.2.9"},
		BySoftware: {"K-9 Mail 4.2", "Outlook 14.0", "Thunderbird 2.0", "fetchmail 6.3", ""},
	} {
		if got := names(build(t, sampleFacts(t), Options{Since: fortnight, By: by}).Left); !slices.Equal(got, want) {
			t.Errorf("by %s: %q, want %q", by, got, want)
		}
	}
}

func TestListsAreBounded(t *testing.T) {
	f := sampleFacts(t)
	f.Clients = nil
	for i := range 300 {
		c := came("192.0.2.7", "imaps", policy.TLS10, oldJA4, 1, as("anna@example.org", "Outlook 14.0"))
		a := c.Addr.As4()
		a[2], a[3] = byte(i/200), byte(i%200)
		c.Addr = addrOf(a)
		f.Clients = append(f.Clients, c)
	}
	r := build(t, f, Options{Since: fortnight})
	if g := r.Left[0]; g.Clients != 300 || len(g.Addresses) != maxListed {
		t.Errorf("%d clients, %d addresses", g.Clients, len(g.Addresses))
	}
	r = build(t, f, Options{Since: fortnight, By: ByNetwork})
	var b bytes.Buffer
	if err := r.Write(&b, Style{Format: Text, Top: DefaultTop}); err != nil || !strings.Contains(b.String(), "\nand 250 more; -top 0 or -format csv has them all\n") {
		t.Errorf("%v\n%s", err, b.String())
	}
}

func TestHashedAccountsAreResolved(t *testing.T) {
	key := []byte("0123456789abcdef")
	hashed := func(account string) string { return ledger.HashAccount(key, account) }
	f := sampleFacts(t)
	f.Identity = "hashed"
	for i := range f.Clients {
		for k := range f.Clients[i].Logins {
			f.Clients[i].Logins[k].Account = hashed(f.Clients[i].Logins[k].Account)
		}
	}
	known := make(map[string]string)
	for _, a := range ReadAccounts("\ufeff# people\r\nanna@example.org\r\n\n bert@example.org \nscan-to-mail@example.org") {
		known[hashed(a)] = a
	}
	for _, by := range []By{ByAccount, ByDomain, ByNetwork, BySoftware} {
		r := build(t, f, Options{Since: fortnight, By: by})
		if n := r.Resolve(known); n != 4 { // carla, dora, erik, chair
			t.Errorf("by %s: %d are not known", by, n)
		}
		var b bytes.Buffer
		if err := r.Write(&b, Style{Format: JSON, Top: DefaultTop}); err != nil {
			t.Fatal(err)
		}
		for _, a := range []string{"anna@example.org", "bert@example.org", "scan-to-mail@example.org"} {
			if !strings.Contains(b.String(), `"`+a+`"`) || strings.Contains(b.String(), hashed(a)) {
				t.Errorf("by %s: %s is not resolved", by, a)
			}
		}
		if (by == ByAccount) != (len(r.Tell) == 0) || by != ByAccount && r.Tell[0].Name != "bert@example.org" {
			t.Errorf("by %s: told are %+v", by, r.Tell)
		}
	}
}

func TestALongWindowGoesByWeeks(t *testing.T) {
	for _, tt := range []struct {
		since   time.Duration
		n, days int
		first   string
	}{
		{time.Minute, 1, 1, "2026-11-25"},
		{24 * time.Hour, 2, 1, "2026-11-24"},
		{fortnight, 15, 1, "2026-11-11"},
		{28 * 24 * time.Hour, 29, 1, "2026-10-28"},
		{30 * 24 * time.Hour, 5, 7, "2026-10-22"},
		{longestWindow, maxPeriods, 7, "2016-11-24"},
	} {
		trend := build(t, facts{Facts: Facts{Now: sampleNow, Policy: samplePolicy(t)}}, Options{Since: tt.since}).Trend
		if n := len(trend.Periods); n != tt.n || trend.Days != tt.days || trend.Periods[0].First != tt.first ||
			trend.Periods[n-1].First != sampleNow.AddDate(0, 0, 1-tt.days).Format(time.DateOnly) {
			t.Errorf("%v: %+v", tt.since, trend)
		}
	}
}
