package admin

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	_ "embed" // the page
	"encoding/base64"
	"fmt"
	"html/template"
	"log/slog"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"postern/internal/ledger"
	"postern/internal/report"
	"postern/internal/text"
	"postern/policy"
	"postern/proxy"
)

// Page serves /.
type Page struct {
	Store *ledger.Store
	// Counts returns the distinct clients, and when they were counted; the zero
	// time before the first count.
	Counts func() ([]ledger.Distinct, time.Time)
	// Dropped returns how many sightings the ledger had no room for.
	Dropped func() uint64
	State   func() PolicyState
	// Readiness is that of /readyz.
	Readiness *Readiness
	// Report is the report of two weeks; OldServer is as in Clients.
	Report    func(context.Context) (*report.Report, error)
	OldServer func(proxy.Listener) bool
	// Names: accounts are stored. Memory: the ledger ends with the process.
	Names, Memory bool
	Version       string
	// Log gets the errors of the ledger.
	Log *slog.Logger

	trend    kept[[]ledger.Period]
	standing kept[*report.Report]
}

const (
	// clientsShown bounds the clients on the page, and clientsFor how long ago
	// they were seen.
	clientsShown = 50
	clientsFor   = chartDays * day
	// namesShown bounds the accounts and the programs of each.
	namesShown = 3
	// ledgerTimeout bounds the page's wait for the ledger.
	ledgerTimeout = 10 * time.Second
)

var (
	//go:embed page.html
	pageHTML string
	//go:embed page.css
	pageCSS string

	// pageTemplate is parsed at the first request, as most processes never get one.
	pageTemplate = sync.OnceValue(func() *template.Template {
		return template.Must(template.New("page").Funcs(template.FuncMap{
			"class":  func(v any) string { return "v-" + strings.ReplaceAll(fmt.Sprint(v), ".", "") },
			"short":  func(v any) string { return text.Clip(fmt.Sprint(v), maxShown, "…") },
			"number": number, "tls": tlsName, "reason": func(r policy.Reason) string { return reasonWords[r] },
			"login": func(l ledger.Login) string { return loginWords[l] }, "met": metWords, "ago": text.Ago,
			"ahead": text.Ahead, "date": text.CommaDate, "percent": percent,
			"meets": func(m report.Meeting) string { return cmp.Or(meetingWords[m], string(m)) },
		}).Parse(pageHTML))
	})

	// pagePolicy forbids a browser to load or run anything, or to frame the
	// page. Only the style sheet is allowed.
	pagePolicy = "default-src 'none'; style-src 'sha256-" + sum(pageCSS) + "'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)

func sum(s string) string {
	b := sha256.Sum256([]byte(s))
	return base64.StdEncoding.EncodeToString(b[:])
}

// Handler shows where the deprecation stands, in HTML.
func (p *Page) Handler() http.Handler {
	p.trend.read = func(ctx context.Context) ([]ledger.Period, error) {
		return p.Store.Days(ctx, chartSince(p.State().Now))
	}
	p.standing.read = p.Report
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", pagePolicy)
		h.Set("X-Frame-Options", "DENY")
		h.Set("Referrer-Policy", "no-referrer")
		var b bytes.Buffer
		if err := pageTemplate().Execute(&b, p.view(r.Context())); err != nil {
			p.Log.Error("writing the page failed", "error", err.Error())
			writeText(w, http.StatusInternalServerError, "the page cannot be written; the log says why\n")
			return
		}
		h.Set("Content-Type", "text/html; charset=utf-8")
		_, _ = w.Write(b.Bytes()) // the client may be gone
	})
}

// pageView is the data of the template.
type pageView struct {
	*Page
	CSS        template.CSS
	At         time.Time
	Floor      policy.Floor
	Ready      bool
	Conditions []Condition
	Alerts     []string
	Unwritten  int
	// Standing is the report of the last two weeks; nil where that is not known.
	Standing *report.Report

	Counted               bool
	Windows               [4]window
	ByVersion, ByListener []countRow

	ChartKnown bool
	Chart      chart

	ClientsKnown bool
	Total        int
	Clients      []clientRow

	Policy policyPart
}

func (p *Page) view(ctx context.Context) *pageView {
	ctx, cancel := context.WithTimeout(ctx, ledgerTimeout)
	defer cancel()
	s := p.State()
	v := &pageView{Page: p, CSS: template.CSS(pageCSS), At: s.Now.UTC(), Floor: s.Policy.Floor(), Policy: policyPartOf(s)}
	v.Ready, v.Conditions = p.Readiness.Conditions()
	if len(s.Failed) > 0 {
		v.Alerts = append(v.Alerts, "The policy file has changed, and cannot be used; the policy below is the one before:")
		v.Alerts = append(v.Alerts, s.Failed...)
	}
	if n := p.Dropped(); n > 0 {
		v.Alerts = append(v.Alerts, number(int(n))+" sightings found no room in the ledger: there are more clients than it tells of.")
	}
	if b := p.Readiness.backlog(); b.Stuck {
		v.Unwritten = b.Clients
		v.Alerts = append(v.Alerts, "The ledger cannot be written: "+b.String()+". None of the numbers below has them; the log says why.")
	}
	v.count()
	err := v.readClients(ctx, s)
	v.ClientsKnown = err == nil
	days, known, trendErr := p.trend.get(ctx)
	v.ChartKnown = known
	standing, known, standingErr := p.standing.get(ctx)
	if known {
		v.Standing = standing
	}
	if err = cmp.Or(err, trendErr, standingErr); err != nil {
		v.Alerts = append(v.Alerts, "The "+unread+".")
		logUnread(ctx, p.Log, err)
	}
	if v.ChartKnown {
		v.Chart = newChart(days, s.Now)
	}
	return v
}

// window is a headline number.
type window struct {
	Label, Words string
	Clients      int
}

// countRow has the numbers of one kind of clients, by window.
type countRow struct {
	Name    any // a version, or a listener
	Clients [4]int
}

var windowWords = map[string]string{"1h": "in the last hour", "24h": "in 24 hours", "7d": "in 7 days", "30d": "in 30 days"}

// count fills in the numbers of remaining clients: all of them for the headline,
// and by version and listener.
func (v *pageView) count() {
	counts, at := v.Counts()
	v.Counted = !at.IsZero()
	byKind := make(map[[2]string][4]int)
	for _, d := range counts {
		byKind[[2]string{d.Listener, d.Version}] = d.ByWindow
	}
	for i, w := range ledger.Windows {
		v.Windows[i] = window{w.Label, windowWords[w.Label], byKind[[2]string{ledger.Any, ledger.Any}][i]}
	}
	for _, version := range policy.Versions {
		if n := byKind[[2]string{ledger.Any, version.String()}]; n != [4]int{} {
			v.ByVersion = append(v.ByVersion, countRow{version, n})
		}
	}
	for _, listener := range policy.ListenerNames {
		if n := byKind[[2]string{listener, ledger.Any}]; n != [4]int{} {
			v.ByListener = append(v.ByListener, countRow{listener, n})
		}
	}
}

// clientRow is a client in the table.
type clientRow struct {
	*ledger.Client
	Meets report.Meeting
	Rule  *policy.Rule // that takes it; nil where none does
	// Names and Programs are the shown accounts and software, and More is the
	// number of the other accounts.
	Names, Programs []string
	More            int
}

// readClients lists the remaining clients.
func (v *pageView) readClients(ctx context.Context, s PolicyState) error {
	f := ledger.Filter{Since: s.Now.Add(-clientsFor)}
	total, err := v.Store.Count(ctx, f)
	if err != nil {
		return err
	}
	list, _, err := v.Store.Clients(ctx, f, ledger.Order{}, "", clientsShown)
	if err != nil {
		return err
	}
	hellos, err := v.Store.HellosOf(ctx, list)
	if err != nil {
		return err
	}
	v.Total = total
	snapshot := s.Policy.At(s.Now)
	for i := range list {
		c := &list[i]
		outcomes := snapshot.Outcomes(c.ForPolicy(), s.Now)
		last := outcomes[len(outcomes)-1]
		r := clientRow{Client: c, Rule: last.Rule, Meets: report.Meets(c, last, hellos, v.OldServer != nil && v.OldServer(c.Listener))}
		r.Names, r.Programs = c.Accounts[:min(len(c.Accounts), namesShown)], c.Software[:min(len(c.Software), namesShown)]
		r.More = len(c.Accounts) - len(r.Names)
		v.Clients = append(v.Clients, r)
	}
	return nil
}

// metWords says what a client has met, and how often.
func metWords(n ledger.Counts) (words []string) {
	for i, count := range []int64{n.Observed, n.Explained, n.Rejected, n.Failed} {
		if count > 0 {
			words = append(words, number(int(count))+" "+[]string{"observed", "explained", "rejected", "failed"}[i])
		}
	}
	return words
}

// tlsName returns a version as people write it.
func tlsName(v policy.Version) string {
	label := v.String()
	if number, found := strings.CutPrefix(label, "tls"); found {
		return "TLS " + number
	}
	return "SSL " + strings.TrimPrefix(label, "ssl")
}

// number writes a number with commas between thousands.
func number(n int) string {
	s := strconv.Itoa(n)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

var (
	// reasonWords leave out what the version says.
	reasonWords = map[policy.Reason]string{
		policy.ReasonCipher: "ciphers too old", policy.ReasonFallback: "a retry", policy.ReasonSSL2Hello: "hello of SSL 2.0",
		policy.ReasonMalformed: "hello that Go does not read",
	}
	loginWords = map[ledger.Login]string{
		ledger.LoginOK: "logged in", ledger.LoginFailed: "never logged in", ledger.LoginNone: "not logged in",
		ledger.LoginUnknown: "never let in", ledger.LoginUnseen: "passed through",
	}
	meetingWords = map[report.Meeting]string{
		report.PassedThrough: "passed through", report.CannotBeServed: "refused, cannot be served",
	}
	modeWords = map[policy.Mode]string{
		policy.Enforce: "refused", policy.Explain: "told why, then closed", policy.Observe: "let in and counted",
	}
)
