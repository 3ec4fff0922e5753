package admin

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"postern/internal/text"
	"postern/policy"
	"postern/proxy"
)

// someRules have an exemption, and a ramp that has come half of its way at noon.
const someRules = `
floor: tls1.2
mode: observe
rules:
  - {name: warehouse scanners, mode: observe, match: {client: [192.0.2.7]}, until: 2026-12-31T01:00:00+01:00, owner: facilities@example.org}
  - {name: over, mode: enforce, until: 2026-01-01T00:00:00Z}
  - {name: by connection, mode: explain, share: {from: 50%, to: 50%, by: connection}, from: 2026-06-01T00:00:00Z, until: 2026-07-01T00:00:00Z}
  - {name: ramp, mode: explain, share: {from: 0%, to: 100%, by: client}, from: 2026-06-15T12:00:00Z, until: 2026-06-17T12:00:00Z}
`

func policyOf(t testing.TB, text string) *policy.Policy {
	t.Helper()
	p, err := policy.Parse([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// clients is the API over a ledger.
func (b *testLedger) clients(t testing.TB, rules string) http.Handler {
	return b.api(policyOf(t, rules))
}

func (b *testLedger) api(p *policy.Policy) *Clients {
	return &Clients{
		Store: b.Store, Policy: func() *policy.Policy { return p }, Now: func() time.Time { return b.now },
		Log: slog.New(slog.DiscardHandler), Backlog: b.Backlog, OldServer: func(proxy.Listener) bool { return false },
	}
}

func get(h http.Handler, query string) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest("GET", "/api/v1/legacy-clients?"+query, nil))
	return w
}

// listed asks for JSON, and returns who is in it.
func listed(t *testing.T, h http.Handler, query string) (answer clientsJSON, who string) {
	t.Helper()
	w := get(h, query)
	if w.Code != 200 {
		t.Fatalf("%s: status %d: %s", query, w.Code, w.Body)
	}
	if err := json.Unmarshal(w.Body.Bytes(), &answer); err != nil {
		t.Fatalf("%s: %v", query, err)
	}
	var names []string
	for _, c := range answer.Clients {
		names = append(names, c.Addr.String())
	}
	return answer, strings.Join(names, " ")
}

var (
	named    = visitor{client: "192.0.2.7", name: "imap.example.org", listener: proxy.IMAPS, port: 993, version: policy.TLS10}
	nameless = visitor{client: "192.0.2.8", listener: proxy.POP3, port: 110, version: policy.TLS11}
	sixth    = visitor{client: "2001:db8::6", listener: proxy.IMAP, port: 143, version: policy.SSL3}
	modern   = visitor{client: "192.0.2.9", listener: proxy.IMAPS, port: 993, version: policy.TLS12, reason: policy.ReasonCipher}
	retry    = visitor{client: "192.0.2.10", listener: proxy.IMAPS, port: 993, version: policy.TLS11, reason: policy.ReasonFallback}
)

// village is a ledger with a few clients, in the order in which they came.
func village(t testing.TB) *testLedger {
	b := newTestLedger(t)
	for i, v := range []visitor{named, nameless, sixth, modern, retry} {
		b.now = noon.Add(time.Duration(i-10) * day)
		b.comes(v, 1, proxy.Observed)
		b.flush(t)
	}
	b.now = noon.Add(-90 * time.Minute)
	b.comes(named, 11, proxy.Observed)
	b.comes(named, 1, proxy.Failed)
	b.comes(nameless, 2, proxy.Explained)
	b.comes(sixth, 3, proxy.Rejected)
	b.logsIn(named, "anna@example.org", "Outlook 14.0")
	b.logsIn(named, "Anton@example.org", "Outlook 14.0")
	b.speaks(nameless, "bert@example.org", "pop3 CAPA STLS TLS AUTH:other")
	b.flush(t)
	b.now = noon
	return b
}

func TestClientsAsJSON(t *testing.T) {
	w := get(village(t).clients(t, someRules), "noise=include")
	if got := w.Header().Get("Content-Type"); w.Code != 200 || got != "application/json" {
		t.Errorf("status %d, type %q", w.Code, got)
	}
	golden(t, "clients.json", w.Body.String())
}

func TestClientsAsCSV(t *testing.T) {
	w := get(village(t).clients(t, someRules), "noise=include&format=csv")
	if got := w.Header().Get("Content-Type"); w.Code != 200 || got != "text/csv; charset=utf-8; header=present" {
		t.Errorf("status %d, type %q", w.Code, got)
	}
	golden(t, "clients.csv", w.Body.String())
}

func TestAnEmptyLedgerIsAnEmptyList(t *testing.T) {
	h := newTestLedger(t).clients(t, "mode: observe\nfloor: tls1.2\n")
	want := "{\n  \"total\": 0,\n  \"next_cursor\": \"\",\n  \"clients\": []\n}\n"
	if diff := cmp.Diff(want, get(h, "").Body.String()); diff != "" {
		t.Error(diff)
	}
	if got, want := get(h, "format=csv").Body.String(), strings.Join(clientsHeader, ",")+"\r\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestClientsAreFiltered(t *testing.T) {
	h := village(t).clients(t, someRules)
	for query, want := range map[string]string{
		"":                                      "192.0.2.7 192.0.2.8 2001:db8::6 192.0.2.9",
		"noise=include":                         "192.0.2.7 192.0.2.8 2001:db8::6 192.0.2.9 192.0.2.10",
		"version=tls1.1":                        "192.0.2.8",
		"listener=imaps":                        "192.0.2.7 192.0.2.9",
		"listener=imaps&version=tls1.2":         "192.0.2.9",
		"account=ANNA@example.org":              "192.0.2.7",
		"account=anna":                          "",
		"software=outlook":                      "192.0.2.7",
		"software=%25":                          "",
		"network=192.0.2.9":                     "192.0.2.9",
		"network=192.0.2.8/31":                  "192.0.2.8 192.0.2.9",
		"network=::ffff:192.0.2.8/127":          "192.0.2.8 192.0.2.9",
		"network=2001:db8::/64":                 "2001:db8::6",
		"network=2001:db8::6":                   "2001:db8::6",
		"network=2001:db8::7":                   "",
		"network=2000::/3":                      "2001:db8::6",
		"outcome=explained":                     "192.0.2.8",
		"outcome=rejected":                      "2001:db8::6",
		"outcome=failed":                        "192.0.2.7",
		"rule=warehouse+scanners":               "192.0.2.7",
		"rule=ramp":                             "192.0.2.8 192.0.2.9",
		"rule=ramp&noise=include&limit=2":       "192.0.2.8 192.0.2.9 192.0.2.10",
		"rule=by+connection":                    "192.0.2.8 2001:db8::6 192.0.2.9",
		"rule=over":                             "",
		"rule=(none)":                           "2001:db8::6",
		"sort=first_seen":                       "192.0.2.7 192.0.2.8 2001:db8::6 192.0.2.9",
		"sort=-first_seen":                      "192.0.2.9 2001:db8::6 192.0.2.8 192.0.2.7",
		"sort=-handshakes":                      "192.0.2.7 2001:db8::6 192.0.2.8 192.0.2.9",
		"sort=handshakes":                       "192.0.2.9 192.0.2.8 2001:db8::6 192.0.2.7",
		"sort=client":                           "192.0.2.7 192.0.2.8 192.0.2.9 2001:db8::6",
		"sort=-client&listener=imaps":           "192.0.2.9 192.0.2.7",
		"sort=last_seen&listener=imaps&limit=1": "192.0.2.9 192.0.2.7",
		"since=2h":                              "192.0.2.7 192.0.2.8 2001:db8::6",
		"since=1h":                              "",
		"since=14d":                             "192.0.2.7 192.0.2.8 2001:db8::6 192.0.2.9",
		"since=2026-06-16T12:00:00%2B02:00":     "192.0.2.7 192.0.2.8 2001:db8::6",
		"format=json&limit=1000&cursor=":        "192.0.2.7 192.0.2.8 2001:db8::6 192.0.2.9",
	} {
		answer, who := listed(t, h, query)
		for cursor := answer.NextCursor; cursor != ""; { // the other pages
			next, names := listed(t, h, query+"&cursor="+cursor)
			who += " " + names
			cursor = next.NextCursor
		}
		if who != want || answer.Total != len(strings.Fields(want)) {
			t.Errorf("%s: %s, total %d; want %s", query, who, answer.Total, want)
		}
		if strings.Contains(query, "format") || strings.Contains(query, "limit") {
			continue
		}
		rows, err := csv.NewReader(get(h, query+"&format=csv").Body).ReadAll()
		if err != nil {
			t.Fatal(err)
		}
		var names []string
		for _, row := range rows[1:] {
			names = append(names, row[0])
		}
		if got := strings.Join(names, " "); got != who {
			t.Errorf("%s: as CSV %s, as JSON %s", query, got, who)
		}
	}
}

// The database narrows a rule's clients down, and loses none.
func TestClientsOfARuleAreThoseThatItTakes(t *testing.T) {
	const rules = `
mode: observe
rules:
  - {name: network, mode: enforce, match: {client: [192.0.2.8/31]}}
  - {name: one address, mode: enforce, match: {client: ["2001:db8::6"]}}
  - {name: version, mode: enforce, match: {version: [tls1.0], listener: [imaps]}}
  - {name: many, mode: enforce, match: {listener: [imap, imaps], client: [192.0.2.10, 192.0.2.11]}}
  - {name: narrow, mode: enforce, match: {client: ["2001:db8::/96"]}}
`
	h := village(t).clients(t, rules)
	for query, want := range map[string]string{
		"rule=network":                       "192.0.2.8 192.0.2.9",
		"rule=network&version=tls1.1":        "192.0.2.8",
		"rule=network&network=192.0.2.9":     "192.0.2.9",
		"rule=network&network=192.0.2.7":     "",
		"rule=one+address":                   "2001:db8::6",
		"rule=version":                       "192.0.2.7",
		"rule=version&version=tls1.1":        "",
		"rule=version&listener=pop3":         "",
		"rule=many&noise=include":            "192.0.2.10",
		"rule=narrow":                        "",
		"rule=(none)&noise=include":          "",
		"rule=network&outcome=observed":      "192.0.2.8 192.0.2.9",
		"rule=network&noise=include&limit=1": "192.0.2.8",
	} {
		if _, who := listed(t, h, query); who != want {
			t.Errorf("%s: %s, want %s", query, who, want)
		}
	}
}

func TestABadQueryIsExplained(t *testing.T) {
	h := village(t).clients(t, someRules)
	for query, want := range map[string]string{
		"versoin=tls1.0":                         "versoin: no such parameter; there are account, candidate, cursor, format, limit, listener, network, noise, outcome, rule, since, software, sort, version",
		"version=tls9":                           `version: no such version "tls9": use ssl2, ssl3, tls1.0, tls1.1, tls1.2, tls1.3`,
		"version=":                               `version: no such version "": use `,
		"listener=smtp":                          `listener: no such listener "smtp": use `,
		"account=":                               "account: not a text on one line",
		"account=%00":                            "account: not a text on one line",
		"software=%ff":                           "software: not a text on one line",
		"since=yesterday":                        "since: neither a date nor a duration: write a date as 2026-11-01, or how far to look back as 36h or 30d",
		"since=-14d":                             "since: neither",
		"noise=no":                               "noise: use include",
		"network=":                               "network: not an address or a CIDR: write one such as 192.0.2.7, 10.0.0.0/8 or 2001:db8::/32",
		"network=fe80::1%25eth0":                 "network: not an address or a CIDR",
		"network=2001:db8::/65":                  "network: a network of IPv6 is a /64 or larger, without multicast, or a single address",
		"network=::/0":                           "network: a network of IPv6 is",
		"outcome=accepted":                       "outcome: use observed, explained, rejected or failed",
		"rule=":                                  `rule: no such rule "": use (none), warehouse scanners, over, by connection, ramp`,
		"rule=Ramp":                              `rule: no such rule "Ramp": use (none), warehouse`,
		"sort=":                                  "sort: use first_seen, last_seen, handshakes or client, with - before it for descending",
		"sort=-version":                          "sort: use first_seen",
		"sort=client&cursor=Zmlyc3Rfc2VlbjoxLjE": "cursor: not a cursor of an earlier answer",
		"format=xml":                             "format: use json or csv",
		"limit=0":                                "limit: not a number from 1 to 1000",
		"limit=1001":                             "limit: not a number from 1 to 1000",
		"limit=ten":                              "limit: not a number from 1 to 1000",
		"limit=1&limit=2":                        "limit: given more than once",
		"cursor=abc":                             "cursor: not a cursor of an earlier answer",
		"format=csv&cursor=abc":                  "cursor: not a cursor of an earlier answer",
		"version=%zz":                            "the query is not of the form name=value",
		strings.Repeat("x", 10000):               strings.Repeat("x", 59) + "…: no such parameter",
		"%3Cscript%3E=1":                         "<script>: no such parameter",
		"listener=imaps;version=ssl":             "the query is not of the form name=value",
	} {
		w := get(h, query)
		var answer map[string]string
		if err := json.Unmarshal(w.Body.Bytes(), &answer); err != nil || len(answer) != 1 {
			t.Errorf("%.60s: not an error in JSON: %v: %s", query, err, w.Body)
		}
		if got := w.Header().Get("Content-Type"); w.Code != 400 || got != "application/json" {
			t.Errorf("%.60s: status %d, type %q", query, w.Code, got)
		}
		if !strings.HasPrefix(answer["error"], want) || strings.Contains(w.Body.String(), "<script>") {
			t.Errorf("%.60s: %q, want %q", query, answer["error"], want)
		}
	}
}

// crowd fills a ledger with so many clients.
func crowd(t testing.TB, n int) *testLedger {
	b := newTestLedger(t)
	v := named
	for i := range n {
		v.client = netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}).String()
		b.comes(v, 1, proxy.Rejected)
		if i%20_000 == 0 {
			b.now = b.now.Add(time.Second)
			b.flush(t)
		}
	}
	b.flush(t)
	return b
}

func TestPagesListEachClientOnce(t *testing.T) {
	const n = 240
	b := crowd(t, n)
	h := b.clients(t, someRules)
	for _, limit := range []int{7, 80, 100, 1000} {
		seen := make(map[string]int)
		cursor, pages := "", 0
		for more := true; more; more = cursor != "" {
			answer, _ := listed(t, h, fmt.Sprintf("limit=%d&cursor=%s", limit, cursor))
			if answer.Total != n || len(answer.Clients) > limit {
				t.Fatalf("limit %d: total %d, %d on a page", limit, answer.Total, len(answer.Clients))
			}
			for _, c := range answer.Clients {
				seen[c.Addr.String()]++
			}
			cursor = answer.NextCursor
			pages++
			if pages == 2 { // somebody comes again
				b.comes(visitor{client: "10.0.0.1", listener: named.listener, name: named.name, port: 993, version: policy.TLS10}, 1, proxy.Rejected)
				b.flush(t)
			}
		}
		if len(seen) != n || pages != (n+limit-1)/limit {
			t.Errorf("limit %d: %d clients on %d pages", limit, len(seen), pages)
		}
		for c, times := range seen {
			if times != 1 {
				t.Errorf("limit %d: %s stands there %d times", limit, c, times)
			}
		}
	}
	answer, _ := listed(t, h, "")
	if len(answer.Clients) != defaultLimit {
		t.Errorf("%d clients without a limit", len(answer.Clients))
	}
}

func TestCSVHasAllClientsUnlessLimited(t *testing.T) {
	h := crowd(t, 1050).clients(t, someRules)
	rows := func(query string) ([][]string, http.Header) {
		w := get(h, query)
		all, err := csv.NewReader(w.Body).ReadAll()
		if err != nil {
			t.Fatal(err)
		}
		return all, w.Header()
	}
	all, header := rows("format=csv")
	if len(all) != 1051 || header.Get("Link") != "" {
		t.Errorf("%d rows, link %q", len(all), header.Get("Link"))
	}
	first, header := rows("format=csv&limit=5&listener=imaps")
	link := header.Get("Link")
	if len(first) != 6 || !strings.HasPrefix(link, "</api/v1/legacy-clients?cursor=") || !strings.HasSuffix(link, `>; rel="next"`) {
		t.Fatalf("%d rows, link %q", len(first), link)
	}
	u, err := url.Parse(link[1:strings.Index(link, ">")])
	if err != nil {
		t.Fatal(err)
	}
	second, _ := rows(u.RawQuery)
	if diff := cmp.Diff(all[6:11], second[1:]); diff != "" {
		t.Errorf("the next page is not what follows: %s", diff)
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest("HEAD", "/api/v1/legacy-clients?format=csv", nil))
	if w.Code != 200 || w.Body.Len() > 0 {
		t.Errorf("HEAD: status %d, %d bytes", w.Code, w.Body.Len())
	}
}

// A file that is not whole must not look like one that is.
func TestACSVThatBreaksOffIsNoWholeAnswer(t *testing.T) {
	b := crowd(t, 1050)
	h := b.clients(t, someRules)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h.ServeHTTP(&closing{w, b}, r)
	}))
	defer s.Close()
	s.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, 0)
	resp, err := http.Get(s.URL + "?format=csv")
	if err != nil {
		return // broken off before the header
	}
	defer resp.Body.Close()
	if _, err := csv.NewReader(resp.Body).ReadAll(); err == nil {
		t.Error("the answer ends as if it were whole")
	}
}

// closing takes the ledger away at the first write.
type closing struct {
	http.ResponseWriter
	b *testLedger
}

func (c *closing) Write(p []byte) (int, error) {
	c.b.Store.Close()
	return c.ResponseWriter.Write(p)
}

func (c *closing) Unwrap() http.ResponseWriter { return c.ResponseWriter }

func TestALedgerThatCannotBeReadIsSaid(t *testing.T) {
	b := village(t)
	h := b.clients(t, someRules)
	b.Store.Close()
	for _, query := range []string{"", "format=csv"} {
		w := get(h, query)
		if w.Code != 503 || !strings.Contains(w.Body.String(), `"error": "the ledger cannot be read now`) {
			t.Errorf("%s: status %d: %s", query, w.Code, w.Body)
		}
	}
}

// A spreadsheet obeys what begins like a formula.
func TestForgedTextDoesNoHarmInJSONAndCSV(t *testing.T) {
	b := newTestLedger(t)
	forged := []string{
		"=cmd|' /C calc'!A0", "+1+1", "-2+3", "@SUM(A1)", "\t=1", "\r=1", "<script>alert(1)</script>", "a\r\nb,c\"d",
		"\x1b[31mred", "\u202egro.elpmaxe", strings.Repeat("x", 64<<10), "\xff\xfe", "a; =b",
	}
	for i, text := range forged {
		v := named
		v.client, v.name = fmt.Sprintf("198.51.100.%d", i+1), text
		b.comes(v, 1, proxy.Observed)
		b.logsIn(v, text, text)
	}
	b.flush(t)
	h := b.clients(t, someRules)
	if w := get(h, ""); strings.ContainsAny(w.Body.String(), "<>\x1b\u202e") || w.Body.Len() > 32<<10 {
		t.Errorf("%d bytes of JSON: %.2000s", w.Body.Len(), w.Body)
	}
	w := get(h, "format=csv")
	rows, err := csv.NewReader(w.Body).ReadAll()
	if err != nil || len(rows) != len(forged)+1 {
		t.Fatalf("%d rows: %v", len(rows), err)
	}
	for _, row := range rows {
		for i, cell := range row {
			if cell != "" && strings.ContainsRune("=+-@\t\r\n", rune(cell[0])) || strings.ContainsAny(cell, "\x1b\r\n\u202e") || len(cell) > 300 {
				t.Errorf("%s of %s is %.80q", rows[0][i], row[0], cell)
			}
		}
	}
	for _, cell := range forged[:6] {
		if got, err := csv.NewReader(bytes.NewReader(text.AppendRecord(nil, []string{cell}))).Read(); err != nil || got[0] != "'"+cell {
			t.Errorf("%q becomes %q: %v", cell, got, err)
		}
	}
}

// BenchmarkAPage is to stay under 200 ms a page.
func BenchmarkAPage(b *testing.B) {
	h := crowd(b, 50_000).clients(b, someRules)
	for name, query := range map[string]string{"default": "", "thousand": "limit=1000", "filtered": "version=tls1.0&since=30d"} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				if w := get(h, query); w.Code != 200 {
					b.Fatal(w.Code)
				}
			}
		})
	}
	b.Run("csv", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			get(h, "format=csv")
		}
	})
}
