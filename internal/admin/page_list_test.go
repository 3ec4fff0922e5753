package admin

import (
	"encoding/csv"
	"fmt"
	"html"
	"maps"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"postern/internal/ledger"
	"postern/policy"
	"postern/proxy"
)

var rowAddress = regexp.MustCompile(`<a href="/client\?address=[^"]*">([^<]*)</a>`)

// found lists the addresses of the table, in order.
func found(page string) (list []string) {
	for _, m := range rowAddress.FindAllStringSubmatch(page, -1) {
		list = append(list, m[1])
	}
	return list
}

// linkOf returns where a link of the page leads to; empty where there is none.
func linkOf(page, words string) string {
	m := regexp.MustCompile(`<a (?:rel="[a-z]*" )?href="([^"]*)">` + words + `</a>`).FindStringSubmatch(page)
	if m == nil {
		return ""
	}
	path, _, _ := strings.Cut(html.UnescapeString(m[1]), "#") // as a browser asks for it
	return path
}

// What the page shows is what the API lists for the same parameters, all of it.
func TestThePageFindsWhoTheAPIFinds(t *testing.T) {
	b := village(t)
	p, api := b.page(t, someRules, nil), b.clients(t, someRules)
	h := p.Handler()
	for _, query := range []string{
		"version=tls1.1", "listener=imaps", "account=ANNA%40example.org", "software=outlook", "network=192.0.2.8%2F31", "outcome=rejected",
		"rule=ramp", "rule=(none)", "rule=by+connection", "since=2h", "since=2h&noise=include", "noise=include", "sort=-first_seen",
		"sort=-handshakes", "sort=handshakes", "sort=client", "sort=-client", "sort=last_seen&listener=imaps", "account=nobody", "since=14d",
		"version=tls1.2&listener=imaps&rule=ramp",
	} {
		asked := query
		if !strings.Contains(query, "since") {
			asked += "&since=30d" // the page's own
		}
		if !strings.Contains(query, "sort") {
			asked += "&sort=-first_seen"
		}
		answer, who := listed(t, api, asked)
		_, page := showAt(t, h, "/?"+query, 200)
		if got := strings.Join(found(page), " "); got != who {
			t.Errorf("%s: the page has %s, the API %s", query, got, who)
		}
		if answer.Total == 0 {
			says(t, page, "Nobody whom this filter finds.")
			continue
		}
		says(t, page, fmt.Sprintf("Showing 1–%d of %d rows", answer.Total, answer.Total))
		link := linkOf(page, "All "+number(answer.Total)+" as CSV")
		rows, err := csv.NewReader(get(api, strings.TrimPrefix(link, "/api/v1/legacy-clients?")).Body).ReadAll()
		if err != nil {
			t.Fatal(err)
		}
		var names []string
		for _, row := range rows[1:] {
			names = append(names, row[0])
		}
		if got := strings.Join(names, " "); got != who {
			t.Errorf("%s: the CSV at %s has %s, the page %s", query, link, got, who)
		}
	}
}

// A form sends its empty fields, too.
func TestAFormSentAsItIsKeepsTheList(t *testing.T) {
	b := newTestLedger(t)
	b.now = noon.Add(-40 * day)
	b.comes(named, 1, proxy.Observed)
	b.now = noon
	b.comes(nameless, 1, proxy.Observed)
	b.flush(t)
	h := b.page(t, someRules, nil).Handler()
	empty := "/?account=&software=&network=&version=&listener=&outcome=&rule=&since="
	for path, want := range map[string]string{"/": "192.0.2.8", empty + "30d": "192.0.2.8", empty: "192.0.2.8 192.0.2.7"} {
		_, page := showAt(t, h, path, 200)
		if got := strings.Join(found(page), " "); got != want {
			t.Errorf("%s: %s, want %s", path, got, want)
		}
	}
	_, page := showAt(t, h, empty+"&sort=client", 200)
	_, page = showAt(t, h, linkOf(page, "Handshakes"), 200)
	if got := found(page); len(got) != 2 {
		t.Errorf("the link to another order has lost the filter: %v", got)
	}
}

func TestAWrongFilterIsSaidBesideIt(t *testing.T) {
	h := village(t).page(t, someRules, nil).Handler()
	_, page := showAt(t, h, "/?network=2001:db8::/80&since=yesterday&rule=gone&version=tls9&color=red&limit=5000", 200)
	says(t, page, "a network of IPv6 is a /64 or larger", "neither a date nor a duration", `no such rule &#34;gone&#34;: use (none), warehouse scanners`,
		`no such version &#34;tls9&#34;`, "color: no such parameter", "limit: not a number", "Nothing is listed until the filter is mended.",
		"4 in 30 days", "Rules in force")
	for _, want := range []string{`value="2001:db8::/80"`, `value="yesterday"`, "<option selected>gone</option>", `aria-invalid="true"`} {
		if !strings.Contains(page, want) {
			t.Errorf("no %s on the page", want)
		}
	}
	if strings.Contains(page, "192.0.2.7<") {
		t.Error("clients are listed")
	}
	for _, path := range []string{"/?cursor=abc", "/?account=%ff", "/?account=a;b", "/?account=a&account=b"} {
		_, page := showAt(t, h, path, 200)
		if len(found(page)) > 0 {
			t.Errorf("%s lists clients", path)
		}
	}
}

func TestPagesLeadForthAndBack(t *testing.T) {
	const n = 234
	b := newTestLedger(t)
	v := named
	for i := range n {
		v.client = fmt.Sprintf("10.0.%d.%d", i/200, i%200)
		b.comes(v, 1+i%7, []proxy.Outcome{proxy.Observed, proxy.Rejected}[i%2])
	}
	b.flush(t)
	h := b.page(t, someRules, nil).Handler()
	for query, want := range map[string]int{
		"/": n, "/?sort=-handshakes": n, "/?sort=-client&noise=include": n, "/?outcome=observed&sort=last_seen": n / 2, "/?rule=by+connection&sort=client": n,
	} {
		var pages [][]string
		var all []string
		path := query
		_, page := showAt(t, h, path, 200)
		for {
			list := found(page)
			says(t, page, fmt.Sprintf("Showing %d–%d of %d rows", len(all)+1, len(all)+len(list), want))
			pages, all = append(pages, list), append(all, list...)
			if path = linkOf(page, "Next"); path == "" {
				break
			}
			_, page = showAt(t, h, path, 200)
		}
		if unique := slices.Compact(slices.Sorted(slices.Values(all))); len(all) != want || len(unique) != want {
			t.Errorf("%s: %d rows, %d of them different, want %d", query, len(all), len(unique), want)
		}
		at := len(all) - len(pages[len(pages)-1])
		for _, before := range slices.Backward(pages[:len(pages)-1]) {
			_, page = showAt(t, h, linkOf(page, "Previous"), 200)
			at -= len(before)
			if diff := cmp.Diff(before, found(page)); diff != "" {
				t.Errorf("%s: back at %d: %s", query, at, diff)
			}
			says(t, page, fmt.Sprintf("Showing %d–%d of %d rows", at+1, at+len(before), want))
			if filtered := strings.Contains(query, "noise=") || strings.Contains(query, "outcome=") || strings.Contains(query, "rule="); (linkOf(page, "No filter") != "") != filtered {
				t.Errorf("%s: the way to no filter is missing, or leads nowhere", query)
			}
		}
		if linkOf(page, "Previous") != "" {
			t.Errorf("%s: something is before the first page", query)
		}
	}
}

// The heads of columns say how the list is sorted, and lead to the other order.
func TestColumnsAreSortedByTheirHeads(t *testing.T) {
	h := village(t).page(t, someRules, nil).Handler()
	_, page := showAt(t, h, "/?listener=imaps", 200)
	if strings.Count(page, "aria-sort=") != 1 || !strings.Contains(page, `aria-sort="descending" class="sort"><a href="/?listener=imaps&amp;since=30d&amp;sort=first_seen#who">First seen</a>`) {
		t.Error("the list is not by first_seen, or does not say so")
	}
	_, page = showAt(t, h, linkOf(page, "Handshakes"), 200)
	if strings.Count(page, "aria-sort=") != 1 || !strings.Contains(page, `aria-sort="descending" class="sort"><a href="/?listener=imaps&amp;since=30d&amp;sort=handshakes#who">`) {
		t.Error("the list is not by handshakes, or does not say so")
	}
	if got := strings.Join(found(page), " "); got != "192.0.2.7 192.0.2.9" {
		t.Errorf("by handshakes: %s", got)
	}
}

// An account's program is often known from another device, or from another port.
func TestAProgramThatTheAccountUsesElsewhereIsShownAsSuch(t *testing.T) {
	b := newTestLedger(t)
	b.comes(named, 1, proxy.Observed)
	b.logsIn(named, "anna@example.org", "Outlook 14.0")
	b.comes(nameless, 1, proxy.Observed)
	b.logsIn(nameless, "anna@example.org", "")
	b.comes(modern, 1, proxy.Observed)
	b.logsIn(modern, "bert@example.org", "")
	b.flush(t)
	_, page := show(t, b.page(t, someRules, nil))
	says(t, page, "192.0.2.7 TLS 1.0 anna@example.org "+outlook+" imaps", "192.0.2.8 TLS 1.1 anna@example.org Outlook 14.0 (by account) pop3",
		"bert@example.org not known")
	answer, _ := listed(t, b.clients(t, someRules), "listener=pop3")
	if got := answer.Clients[0].Software; len(got) != 0 {
		t.Errorf("software in the API is %v, which this fingerprint has not said", got)
	}
}

// Numbers of a large ledger are those of queries of its own.
func TestTheNumbersOfALargeLedger(t *testing.T) {
	b := newTestLedger(t)
	const n = 20_000
	days := make([]map[string]bool, ChartDays)
	for i := range days {
		days[i] = make(map[string]bool)
	}
	want := make(map[string]int)
	for i := range n {
		v := visitor{
			client: fmt.Sprintf("10.%d.%d.%d", i>>16, i>>8&255, i&255), name: "imap.example.org", port: 993,
			listener: []proxy.Listener{proxy.IMAPS, proxy.POP3S, proxy.IMAP}[i%3], version: []policy.Version{policy.TLS10, policy.TLS11, policy.SSL3}[i%7%3],
		}
		if i%5 == 0 { // some addresses of each of these networks
			v.client = fmt.Sprintf("2001:db8:%x::%x", i/20, i)
		}
		if i%11 == 0 {
			v.reason = policy.ReasonFallback
		} else {
			want["version="+v.version.String()]++
			want["listener="+string(v.listener)]++
			want["sort=client"]++
		}
		for _, ago := range []int{i % 29, i % 13} {
			b.now = noon.AddDate(0, 0, -ago)
			b.comes(v, 1, proxy.Rejected)
			if v.reason != policy.ReasonFallback {
				days[ChartDays-1-ago][networkOf(v.client)] = true
			}
		}
		if i%1000 == 999 { // a write may take 30 seconds, also on a busy machine
			b.now = noon
			b.flush(t)
		}
	}
	b.now = noon
	p := b.page(t, someRules, nil)
	h := p.Handler()
	for _, query := range slices.Sorted(maps.Keys(want)) {
		_, page := showAt(t, h, "/?"+query, 200)
		says(t, page, fmt.Sprintf("Showing 1–50 of %s rows", number(want[query])))
	}
	p.standing.wait(t)
	for i, got := range p.standing.report.Trend.Periods {
		if got.Clients != len(days[i]) {
			t.Errorf("day %d: %d clients, want %d", i, got.Clients, len(days[i]))
		}
	}
}

func networkOf(client string) string {
	c := visitor{client: client}.conn()
	return (&ledger.Client{Addr: c.Client.Addr()}).Network()
}

// A filter's texts come from whoever has made the link.
func TestAForgedFilterDoesNoHarm(t *testing.T) {
	h := village(t).page(t, someRules, nil).Handler()
	for _, forged := range []string{
		"<script>alert(1)</script>", `"><img src=x onerror=alert(1)>`, `" autofocus onfocus="alert(1)`, "javascript:alert(1)", "\u202egro", strings.Repeat("x", 9000),
	} {
		for _, key := range []string{"account", "software", "network", "since", "version", "rule", "sort", "cursor", "from", "noise", forged} {
			_, page := showAt(t, h, "/?"+url.QueryEscape(key)+"="+url.QueryEscape(forged), 200)
			text := regexp.MustCompile(`href="[^"]*"`).ReplaceAllString(page, "") // links repeat the query
			for _, bad := range []string{"<script", "<img", `onfocus="`, "\u202e", strings.Repeat("x", 300)} {
				if strings.Contains(text, bad) {
					t.Errorf("%.20s=%.40q: the page has %.20q", key, forged, bad)
				}
			}
			if strings.Contains(page, `href="javascript`) {
				t.Errorf("%.20s=%.40q: a link runs it", key, forged)
			}
		}
	}
}
