package admin

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"postern/internal/ledger"
	"postern/internal/report"
	"postern/policy"
	"postern/proxy"
)

// page is one over a ledger; edit may be nil.
func (b *testLedger) page(t testing.TB, rules string, edit func(*Page, *PolicyState)) *Page {
	t.Helper()
	counts, _, err := b.Distinct(t.Context(), b.now)
	if err != nil {
		t.Fatal(err)
	}
	ready := readinessOf(proxy.ProtocolIMAP)
	ready.UpstreamGreeted("imap://127.0.0.1:10143")
	ready.UpstreamState("imap://127.0.0.1:10143", nil)
	state := PolicyState{Policy: policyOf(t, rules), File: "/etc/postern/policy.yaml", Now: b.now, Listeners: policy.ListenerNames}
	p := &Page{
		Clients: b.api(state.Policy), Counts: func() *[]ledger.Distinct { return &counts }, Dropped: func() uint64 { return 0 },
		Readiness: ready, Names: true, Version: "v1.2.3",
		Report: func(ctx context.Context, candidate string) (*report.Report, error) {
			f, o := report.Facts{Now: b.now, Policy: state.Policy, Identity: "plain", Backlog: ready.Ledger()}, report.Options{Since: 14 * day, Days: ChartDays, Brief: true, Candidate: candidate}
			if err := f.Of(ctx, b.Store, o); err != nil {
				return nil, err
			}
			f.Began = time.Time{}
			return report.Build(ctx, f, o)
		},
	}
	if edit != nil {
		edit(p, &state)
	}
	p.State = func() PolicyState { return state }
	return p
}

// show shows a page that does not put off what takes long to read.
func show(t testing.TB, p *Page) (*httptest.ResponseRecorder, string) {
	t.Helper()
	h := p.Handler()
	p.standing.wait(t)
	return showAt(t, h, "/", 200)
}

// wait waits until it is known, or cannot be read.
func (k *kept) wait(t testing.TB) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(time.Millisecond) {
		k.mu.Lock()
		done := k.report != nil || k.err != nil
		k.mu.Unlock()
		if done {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal("nothing was read")
		}
	}
}

// showAt shows a page at a path.
func showAt(t testing.TB, h http.Handler, path string, status int) (*httptest.ResponseRecorder, string) {
	t.Helper()
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest("GET", path, nil))
	if w.Code != status {
		t.Fatalf("%s: status %d: %s", path, w.Code, w.Body)
	}
	wellFormed(t, w.Body.Bytes())
	return w, w.Body.String()
}

// void elements of HTML have no end.
var void = []string{"meta", "input"}

// wellFormed reads the page tag by tag: each that opens is closed.
func wellFormed(t testing.TB, page []byte) {
	t.Helper()
	d := xml.NewDecoder(bytes.NewReader(page))
	d.Strict = false
	d.AutoClose = void
	d.Entity = xml.HTMLEntity
	var open []string
	for {
		token, err := d.RawToken()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		switch e := token.(type) {
		case xml.StartElement:
			if !slices.Contains(void, e.Name.Local) {
				open = append(open, e.Name.Local)
			}
		case xml.EndElement:
			if len(open) == 0 || open[len(open)-1] != e.Name.Local {
				t.Fatalf("</%s> closes %v", e.Name.Local, open)
			}
			open = open[:len(open)-1]
		}
	}
	if len(open) > 0 {
		t.Errorf("not closed: %v", open)
	}
}

var tags = regexp.MustCompile(`<[^>]*>`)

// visible is what somebody reads on it.
func visible(page string) string {
	_, body, _ := strings.Cut(page, "<body>")
	return strings.Join(strings.Fields(tags.ReplaceAllString(body, " ")), " ")
}

func says(t *testing.T, page string, wanted ...string) {
	t.Helper()
	for _, want := range wanted {
		if !strings.Contains(visible(page), want) {
			t.Errorf("the page does not say %q, but\n%s", want, visible(page))
		}
	}
}

func TestThePageSaysWhereTheDeprecationStands(t *testing.T) {
	b := village(t)
	_, page := show(t, b.page(t, someRules, nil))
	says(t, page,
		"Mail clients below tls1.2", "16 Jun 2026, 12:00 UTC", "ready",
		"NO-GO: 1 client with old TLS is left. In all 4 clients: 1 in the way, 1 exempted, 2 not logged in; and 1 as noise.",
		"0 in the last hour 3 in 24 hours 4 in 7 days 4 in 30 days",
		"Version 1h 24h 7d 30d SSL 3.0 0 1 1 1 TLS 1.0 0 1 1 1 TLS 1.1 0 1 1 1 TLS 1.2 0 0 1 1",
		"Listener 1h 24h 7d 30d imaps 0 1 2 2 imap 0 1 1 1 pop3 0 1 1 1",
		"Showing 1–4 of 4 rows All 4 as CSV", "Clients: a row for each address, fingerprint and place",
		"192.0.2.7 TLS 1.0 anna@example.org anton@example.org "+outlook+" imaps imap.example.org:993 10 days ago 90 minutes ago 12 observed 1 failed observe by warehouse scanners until 31 Dec 2026 facilities@example.org",
		"192.0.2.8 TLS 1.1 bert@example.org pop3 CAPA STLS TLS AUTH:other (by how it speaks) pop3 :110 9 days ago 90 minutes ago 1 observed 2 explained explain by by connection until 1 Jul 2026 by ramp until 17 Jun 2026",
		"2001:db8::6 SSL 3.0 not logged in not known imap :143 8 days ago 90 minutes ago 1 observed 3 rejected refused, cannot be served by by connection until 1 Jul 2026",
		"192.0.2.9 TLS 1.2 ciphers too old",
		"Now explain for 75 %, observe for 25 % on imaps, pop3s, imap, pop3",
		"Next in 24 hours : ramp ends",
		"ramp , 50 % of them until Wed 17 Jun 2026, 12:00 UTC, in 24 hours",
		"in 197 days Thu 31 Dec 2026, 00:00 UTC warehouse scanners ends.",
		"Warnings", "line 6 over : ",
		"upstream imap ok", "Postern v1.2.3",
	)
	if strings.Contains(page, "192.0.2.10") {
		t.Error("noise is among those who are left")
	}
	for _, link := range []string{"/api/v1/legacy-clients", "/api/v1/legacy-clients?format=csv", "/api/v1/policy", "/metrics", "/readyz"} {
		if !strings.Contains(page, `href="`+link+`"`) {
			t.Errorf("no link to %s", link)
		}
	}
}

func TestThePageNamesFloorsOfRules(t *testing.T) {
	b := newTestLedger(t)
	_, page := show(t, b.page(t, "rules: [{name: early, mode: enforce, floor: tls1.3, match: {port: [993]}}]", nil))
	says(t, page, "Mail clients below tls1.2 or the floor of a rule", "No client below tls1.2 or the floor of a rule has come")
}

func TestThePageOfAnEmptyLedgerIsFriendly(t *testing.T) {
	b := newTestLedger(t)
	p := b.page(t, "mode: enforce\nfloor: tls1.2\n", func(p *Page, s *PolicyState) { p.Names, p.Memory, s.File = false, true, "" })
	_, page := show(t, p)
	says(t, page, "0 in the last hour 0 in 24 hours", "No client below tls1.2 has come in the last 30 days.", "openssl s_client",
		"Nobody, in the last 30 days.", "enforce refused on imaps, pop3s, imap, pop3", "no change ahead", "Nothing changes by itself",
		"POSTERN_LEDGER_IDENTITY", "gone at a restart")
	p.Counts = func() *[]ledger.Distinct { return nil }
	_, page = show(t, p)
	says(t, page, "They are being counted")
}

func TestThePageSaysWhatIsWrong(t *testing.T) {
	b := village(t)
	p := b.page(t, someRules, func(p *Page, s *PolicyState) {
		s.Failed = []string{"/etc/postern/policy.yaml:3:1: no such key"}
		p.Dropped = func() uint64 { return 12345 }
		p.Readiness.UpstreamState("imap://127.0.0.1:10143", errRefused)
	})
	_, page := show(t, p)
	says(t, page, "the policy below is the one before: /etc/postern/policy.yaml:3:1: no such key", "12,345 sightings found no room",
		"upstream imap://127.0.0.1:10143 does not answer now")
	p.Readiness.Draining()
	h := p.Handler()
	_, page = showAt(t, h, "/", 200)
	says(t, page, "NO-GO")
	b.Store.Close()
	if _, page = showAt(t, h, "/", 200); strings.Contains(page, "NO-GO") {
		t.Error("a verdict stands there that nobody can know")
	}
	_, page = show(t, b.pageAfter(p))
	says(t, page, "not ready", "The ledger cannot be read now", "12,345", "draining yes", "3 in 24 hours")
}

// pageAfter is the page anew, with nothing kept.
func (b *testLedger) pageAfter(p *Page) *Page {
	return &Page{
		Clients: p.Clients, Counts: p.Counts, Dropped: p.Dropped, State: p.State, Readiness: p.Readiness, Report: p.Report, Version: p.Version,
	}
}

// A browser is to load nothing and run nothing, whoever has written what.
func TestForgedTextDoesNoHarmOnThePage(t *testing.T) {
	b := newTestLedger(t)
	for i, s := range []string{
		"<script>alert(1)</script>", `"><img src=x onerror=alert(1)>`, "</style><b>", "{{.Policy}}", "javascript:alert(1)",
		"\x1b[31mred\r\nX: y", "\u202egro.elpmaxe", strings.Repeat("x", 64<<10), "\xff\xfe", "<!--", "&lt;b&gt;",
	} {
		v := named
		v.client, v.name = fmt.Sprintf("198.51.100.%d", i+1), s
		b.comes(v, 1, proxy.Observed)
		b.logsIn(v, s, s)
	}
	b.flush(t)
	w, page := show(t, b.page(t, someRules, nil))
	says(t, page, "&lt;script&gt;alert(1)&lt;/script&gt;", "&lt;!--", "&amp;lt;b&amp;gt;", strings.Repeat("x", maxShown-1)+"…")
	for _, bad := range []string{"<script", "<img", "<b>x", "http://", "https://", "//", "\x1b", "\u202e", "onerror=alert(1)>", strings.Repeat("x", 300), "style="} {
		if strings.Contains(page, bad) {
			t.Errorf("the page has %.20q", bad)
		}
	}
	style := page[strings.Index(page, "<style>")+len("<style>") : strings.Index(page, "</style>")]
	sum := sha256.Sum256([]byte(style))
	header := map[string]string{
		"Content-Security-Policy": "default-src 'none'; style-src 'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) +
			"'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
		"X-Frame-Options": "DENY", "Referrer-Policy": "no-referrer", "Content-Type": "text/html; charset=utf-8",
	}
	for name, want := range header {
		if got := w.Header().Get(name); got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
}

func TestManyClientsAreCut(t *testing.T) {
	_, page := show(t, crowd(t, 1034).page(t, someRules, nil))
	says(t, page, "Showing 1–50 of 1,034 rows", "1,034 in 30 days")
	if n := strings.Count(page, `<th role="rowheader"`); n != clientsShown {
		t.Errorf("%d clients", n)
	}
}

// Windows of a schedule would push everything else off the page.
func TestWindowsOfAScheduleAreListedOnce(t *testing.T) {
	const brownouts = `
mode: observe
floor: tls1.2
rules:
  - {name: brownouts, mode: enforce, schedule: "*/5 * * * *", for: 1m, from: 2026-06-16T00:00:00Z, until: 2026-08-01T00:00:00Z}
  - {name: cutover, mode: enforce, from: 2026-08-01T00:00:00Z}
`
	b := newTestLedger(t)
	b.now = noon.Add(30 * time.Second)
	_, page := show(t, b.page(t, brownouts, nil))
	says(t, page, "Now enforce refused on", "brownouts ends. And again by its schedule, at least 249 times. Then observe",
		"brownouts begins. And again by its schedule, at least 249 times. Then enforce", "Sat 1 Aug 2026, 00:00 UTC cutover begins. brownouts ends.")
}

func TestWhatIsKeptIsReadOnceAState(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var reads atomic.Int32
		fail := atomic.Bool{}
		want := new(report.Report)
		k := &kept{read: func(context.Context) (*report.Report, error) {
			reads.Add(1)
			if fail.Load() {
				return nil, errors.New("away")
			}
			return want, nil
		}}
		var all sync.WaitGroup
		for range 20 {
			all.Go(func() {
				if got, err := k.get(t.Context(), "one"); err != nil || got != want {
					t.Errorf("%v %v", got, err)
				}
			})
		}
		all.Wait()
		due := func() { k.mu.Lock(); k.until = time.Time{}; k.mu.Unlock() }
		due()
		_, _ = k.get(t.Context(), "one")
		if n := reads.Load(); n != 1 {
			t.Errorf("read %d times in one state", n)
		}
		fail.Store(true)
		if got, err := k.get(t.Context(), "two"); err == nil || got != want {
			t.Errorf("after a failure: %v %v", got, err)
		}
		_, _ = k.get(t.Context(), "two") // it rests
		fail.Store(false)
		due()
		if _, err := k.get(t.Context(), "two"); err != nil || reads.Load() != 3 {
			t.Errorf("after %d readings: %v", reads.Load(), err)
		}
		slow := &kept{read: func(ctx context.Context) (*report.Report, error) { <-t.Context().Done(); return nil, ctx.Err() }}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if got, _ := slow.get(ctx, ""); got != nil {
			t.Error("known before it is read")
		}
	})
}

// TestWhatIsOldIsNotShownAsNew: the first who looks after a while waits for what is true
// now, and gets nothing rather than a go of long ago.
func TestWhatIsOldIsNotShownAsNew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var took, n atomic.Int64
		k := &kept{read: func(context.Context) (*report.Report, error) {
			time.Sleep(time.Duration(took.Load()))
			r := new(report.Report)
			r.Totals.Clients = int(n.Add(1))
			return r, nil
		}}
		for i, step := range []struct {
			pause, took time.Duration
			want        int // 0: nothing
		}{
			{0, 0, 1},
			{time.Second, time.Second, 1}, // a moment ago
			{time.Hour, time.Second, 3},
			{time.Hour, 4 * time.Second, 0},
			{2 * time.Second, 0, 4},
		} {
			time.Sleep(step.pause)
			took.Store(int64(step.took))
			got, err := k.get(t.Context(), string(rune(i)))
			if (got == nil) != (step.want == 0) || got != nil && got.Totals.Clients != step.want || err != nil {
				t.Errorf("step %d: %v, %v", i, got, err)
			}
		}
	})
}

// The first page has what takes long to read, as nobody waits for it before.
func TestThePageIsReadyBeforeItIsAskedFor(t *testing.T) {
	p := village(t).page(t, someRules, nil)
	p.Handler()
	if p.standing.wait(t); p.standing.report == nil {
		t.Error(p.standing.err)
	}
}

// What is on the page is what the API tells.
func TestThePageHasTheRulesOfTheAPI(t *testing.T) {
	page := question{path: "/"}
	with := func(edit func(*question)) question {
		q := page
		edit(&q)
		return q
	}
	token := with(func(q *question) { q.authorization = bearer(password) })
	guess := with(func(q *question) { q.authorization = basic("me", wrong) })
	evil := with(func(q *question) { q.host = "evil.example" })
	local := newPort(t, "127.0.0.1:9993", "")
	local.expect(t, "on loopback", page, 200)
	local.expect(t, "under another name", evil, 421)
	local.expect(t, "another page", with(func(q *question) { q.path = "/index.html" }), 404)
	local.expect(t, "POST", with(func(q *question) { q.method = "POST" }), 405)
	newPort(t, "0.0.0.0:9993", "").expect(t, "off loopback without a token set", page, 404)
	remote := newPort(t, "0.0.0.0:9993", password)
	remote.expect(t, "off loopback", page, 401)
	remote.expect(t, "under another name", evil, 421)
	remote.expect(t, "with the token", token, 200)
	remote.expect(t, "the API", question{path: "/api/v1/legacy-clients"}, 401)
	for range maxWrong {
		remote.expect(t, "a guess", guess, 401)
	}
	remote.expect(t, "after ten guesses", token, 429)
	remote.expect(t, "the API after ten guesses", question{path: "/api/v1/legacy-clients", authorization: bearer(password)}, 429)
}

func TestThePageSaysThatAGuardHasTripped(t *testing.T) {
	b := newTestLedger(t)
	b.comes(named, 1, proxy.Observed)
	b.flush(t)
	const rules = `
guard: {clients: 3, within: 1h, then: observe}
rules:
  - {name: cut over, mode: enforce, guard: {clients: 20, within: 1h, then: observe}, match: {client: [192.0.2.0/24]}}
  - {name: ramp, mode: enforce, share: {from: 0%, to: 100%}, from: 2026-06-01T00:00:00Z, until: 2026-07-01T00:00:00Z, guard: {clients: 50, within: 1d, then: hold}}`
	state := func(states ...policy.GuardState) *Page {
		return b.page(t, rules, func(_ *Page, s *PolicyState) { s.Policy = s.Policy.Guarded(states, nil) })
	}
	const release = `postern guard -release &#34;cut over&#34;`
	cut := policy.GuardState{Rule: "cut over", Seen: 21, Tripped: b.now.Add(-time.Hour)}
	p := state(cut, policy.GuardState{Rule: "ramp", Seen: 7, Released: b.now.Add(time.Hour)}, policy.GuardState{Rule: "(policy)", Seen: 3})
	_, body := show(t, p)
	says(t, body,
		"on imaps, pop3s, imap, pop3 The guard of cut over tripped Tue 16 Jun 2026, 11:00 UTC : observe for all whom the rule takes, until "+release+" Next",
		"Guard of cut over tripped Tue 16 Jun 2026, 11:00 UTC : observe until "+release,
		"Guard of ramp has met 7 known clients within 24h; more than 50 trip it; nothing counts before ",
		"Guard of the policy has met 3 known clients within 1h; more than 3 trip it")
	const now = "Now observe by cut over The guard of cut over tripped Tue 16 Jun 2026, 11:00 UTC : observe for all whom the rule takes, until " + release + " Nothing else"
	if _, client := showAt(t, p.Handler(), "/client?address=192.0.2.7", 200); !strings.Contains(visible(client), now) {
		t.Errorf("the client's page says %s", visible(client))
	}
	for _, calm := range []*Page{state(), state(policy.GuardState{Rule: "ramp", Seen: 51, Tripped: b.now.Add(-time.Hour)})} {
		if _, client := showAt(t, calm.Handler(), "/client?address=192.0.2.7", 200); strings.Contains(client, "tripped") {
			t.Error("the guard of another rule is named to a client")
		}
	}
	_, body = show(t, state(policy.GuardState{Rule: "ramp", Seen: 51, Tripped: b.now.Add(-time.Hour)}, policy.GuardState{Rule: "(policy)", Tripped: b.now.Add(-time.Hour)}))
	says(t, body, "The guard of the policy tripped Tue 16 Jun 2026, 11:00 UTC : observe for all whom the policy takes, until postern guard -release &#34;(policy)&#34;",
		"The guard of ramp tripped Tue 16 Jun 2026, 11:00 UTC : the share has stopped growing, until postern guard -release &#34;ramp&#34;")
}
