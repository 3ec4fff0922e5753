package admin

import (
	"encoding/csv"
	"testing"
	"time"

	"postern/policy"
	"postern/proxy"
)

// While a grace lasts, page, client page and API say that the client is told why, and until
// when; a client of which no login is known has none.
func TestAGraceIsWhatAClientMeets(t *testing.T) {
	b := newTestLedger(t)
	const rules = "floor: tls1.2\nmode: observe\nrules:\n  - {name: cut, mode: enforce, grace: 7d}\n"
	later := visitor{client: "192.0.2.21", listener: proxy.IMAPS, port: 993, version: policy.TLS10}
	b.now = noon.Add(-30 * day)
	for _, v := range []visitor{named, later} {
		b.comes(v, 1, proxy.Observed)
		b.logsIn(v, v.client+"@example.org", "")
	}
	b.comes(nameless, 1, proxy.Observed)
	b.flush(t)
	b.now = noon.Add(-2 * day)
	for _, v := range []visitor{named, nameless} {
		c := v.conn()
		c.Accepted = b.now
		b.Handshake(&proxy.Handshake{Conn: c, Hello: v.hello(), Outcome: proxy.Explained,
			Verdict: policy.Verdict{Version: v.version, Reason: policy.ReasonVersion, Rule: "cut", Watched: true}})
	}
	b.flush(t)
	b.Graces(t.Context(), policyOf(t, rules))
	page := func() *Page {
		return b.page(t, rules, func(p *Page, s *PolicyState) {
			s.Policy = s.Policy.Guarded(nil, b.Graced)
			p.Clients = b.api(s.Policy)
		})
	}
	b.now = noon
	p := page()
	ends := noon.Add(5 * day)
	for client, want := range map[string]struct {
		meets, row, course string
		ends               time.Time
	}{
		named.client:    {"explain", "explain until Sun 21 Jun 2026, 12:00 UTC, then refused by cut", "Now explain until Sun 21 Jun 2026, 12:00 UTC, then refused by cut in 5 days Sun 21 Jun 2026, 12:00 UTC enforce by cut Nothing else", ends},
		later.client:    {"explain", "explain until 7 days after its first refusal, then refused by cut", "Now explain until 7 days after its first refusal, then refused by cut Nothing else", time.Time{}},
		nameless.client: {"enforce", "enforce by cut", "Now enforce by cut Nothing else", time.Time{}},
	} {
		_, body := showAt(t, p.Handler(), "/?network="+client+"&since=90d", 200)
		says(t, body, want.row+" Policy", "enforce cut , after a grace of 7 days for each client that had logged in")
		_, body = showAt(t, p.Handler(), "/client?address="+client, 200)
		says(t, body, want.row, want.course)
		answer, _ := listed(t, p.Clients, "network="+client)
		c := answer.Clients[0]
		if string(c.Meets) != want.meets || !c.Ends.Equal(want.ends) || (c.Grace == "168h") != (want.meets == "explain") {
			t.Errorf("%s meets %s, %q until %s", client, c.Meets, c.Grace, c.Ends)
		}
		rows, err := csv.NewReader(get(p.Clients, "format=csv&network="+client).Body).ReadAll()
		if err != nil {
			t.Fatal(err)
		}
		if last := rows[1][len(rows[1])-1]; rows[0][len(rows[0])-1] != "grace_until" || (last == "2026-06-21T12:00:00Z") != (client == named.client) {
			t.Errorf("%s: CSV has %q", client, last)
		}
	}
	b.now = ends
	_, body := showAt(t, page().Handler(), "/client?address="+named.client, 200)
	says(t, body, "Now enforce by cut Nothing else")
}
