package admin

import (
	"bytes"
	"context"
	"crypto/sha256"
	_ "embed" // the page
	"encoding/base64"
	"html/template"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"time"

	"postern/internal/ledger"
	"postern/internal/text"
	"postern/policy"
)

// Page is what / shows.
type Page struct {
	Store *ledger.Store
	// Counts are the distinct clients, and when they were counted; the zero time
	// is not yet.
	Counts func() ([]ledger.Distinct, time.Time)
	// Dropped is how many sightings the ledger had no room for.
	Dropped func() uint64
	State   func() PolicyState
	// Readiness is what /readyz tells.
	Readiness *Readiness
	// Names: accounts are remembered; Memory: the ledger is gone at a restart.
	Names, Memory bool
	Version       string
	// Log is told where the ledger cannot be read.
	Log *slog.Logger

	trend trend
}

const (
	// clientsShown is how many clients stand on the page, and clientsFor how long
	// ago they may have been seen.
	clientsShown = 50
	clientsFor   = chartDays * day
	// namesShown is how many accounts, or programs, of each.
	namesShown = 3
	// ledgerTimeout bounds how long the page waits for the ledger.
	ledgerTimeout = 10 * time.Second
)

var (
	//go:embed page.html
	pageHTML string
	//go:embed page.css
	pageCSS string

	// pageTemplate is parsed when somebody looks: most gates are never looked at.
	pageTemplate = sync.OnceValue(func() *template.Template {
		return template.Must(template.New("page").Funcs(template.FuncMap{
			"class": class, "short": func(s string) string { return text.Clip(s, maxShown, "…") }, "number": number, "tls": tlsName,
		}).Parse(pageHTML))
	})

	// pagePolicy lets a browser load nothing, run nothing, and put the page into
	// no frame: what is on it is the style alone.
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

// pageView is what the template has.
type pageView struct {
	CSS     template.CSS
	Version string
	Now     string
	Floor   string
	Ready   bool
	State   []condition
	Alerts  []string

	Counted    bool
	Windows    []window
	ByVersion  countTable
	ByListener countTable

	ChartKnown bool
	Chart      chart

	ClientsKnown, Names, Memory bool
	Total                       int
	Clients                     []clientRow

	Policy policyPart
}

// condition is a line of /readyz.
type condition struct {
	Name, Word string
	Good       bool
}

func (p *Page) view(ctx context.Context) *pageView {
	ctx, cancel := context.WithTimeout(ctx, ledgerTimeout)
	defer cancel()
	s := p.State()
	v := &pageView{
		CSS: template.CSS(pageCSS), Version: p.Version, Now: s.Now.UTC().Format("2 Jan 2006, 15:04 UTC"),
		Floor: s.Policy.Floor().String(), Names: p.Names, Memory: p.Memory, Policy: policyPartOf(s),
	}
	p.viewState(v, s)
	p.viewCounts(v)
	if err := p.viewClients(ctx, v, s); err != nil {
		p.unread(ctx, v, err)
	} else {
		v.ClientsKnown = true
	}
	days, known, err := p.trend.get(ctx)
	if err != nil && v.ClientsKnown {
		p.unread(ctx, v, err)
	}
	if v.ChartKnown = known; known {
		v.Chart = newChart(days, s.Now)
	}
	return v
}

// unread tells of a ledger that could not be read.
func (p *Page) unread(ctx context.Context, v *pageView, err error) {
	v.Alerts = append(v.Alerts, "The "+unread+".")
	logUnread(ctx, p.Log, err)
}

// viewState is what is wrong, and what /readyz says.
func (p *Page) viewState(v *pageView, s PolicyState) {
	var report string
	v.Ready, report = p.Readiness.Report()
	for line := range strings.Lines(report) {
		// A name may be a URL, which has colons too.
		i := strings.LastIndex(line, ": ")
		name, word := line[:i], strings.TrimSpace(line[i+2:])
		v.State = append(v.State, condition{name, word, word == "ok" || word == "no"})
	}
	if len(s.Failed) > 0 {
		v.Alerts = append(v.Alerts, "The policy file has changed, and cannot be used; the policy below is the one before:")
		v.Alerts = append(v.Alerts, s.Failed...)
	}
	if n := p.Dropped(); n > 0 {
		v.Alerts = append(v.Alerts, number(int(n))+" sightings found no room in the ledger: there are more clients than it tells of.")
	}
}

// clientRow is a client in the table.
type clientRow struct {
	Client, Endpoint, Listener string
	Version, Reason            string
	Accounts, Software         []string
	More                       int // accounts that are not shown
	Login                      string
	LastSeen, LastSeenAt       string
	Met                        []met
	Mode                       string
	Rule, Owner, Until         string
}

// met is how often a client met something.
type met struct {
	Number int
	Word   string
}

// viewClients lists who is left.
func (p *Page) viewClients(ctx context.Context, v *pageView, s PolicyState) error {
	f := ledger.Filter{Since: s.Now.Add(-clientsFor)}
	total, err := p.Store.Count(ctx, f)
	if err != nil {
		return err
	}
	list, _, err := p.Store.Clients(ctx, f, "", clientsShown)
	if err != nil {
		return err
	}
	v.Total = total
	snapshot := s.Policy.At(s.Now)
	for i := range list {
		v.Clients = append(v.Clients, rowOf(&list[i], &snapshot, s.Now))
	}
	return nil
}

func rowOf(c *ledger.Client, s *policy.Snapshot, now time.Time) clientRow {
	r := clientRow{
		Client: c.Addr.String(), Endpoint: c.Endpoint.String(), Listener: string(c.Listener), Version: c.Version.String(), Reason: reasonWords[c.Reason],
		Accounts: c.Accounts[:min(len(c.Accounts), namesShown)], More: max(0, len(c.Accounts)-namesShown),
		Software: c.Software[:min(len(c.Software), namesShown)],
		Login:    loginWords[c.Login], LastSeen: text.Ago(now.Sub(c.Last)), LastSeenAt: c.Last.Format(time.RFC3339),
	}
	n := c.Counts
	for _, m := range []met{
		{int(n.Observed), "observed"}, {int(n.Explained), "explained"}, {int(n.Rejected), "rejected"}, {int(n.Failed), "failed"},
	} {
		if m.Number > 0 {
			r.Met = append(r.Met, m)
		}
	}
	mode := s.Mode
	if rule := taken(s, c, now); rule != nil {
		mode, r.Rule, r.Owner = rule.Mode, rule.Name, rule.Owner
		if !rule.Until.IsZero() {
			r.Until = rule.Until.In(rule.Zone).Format("2 Jan 2006")
		}
	}
	r.Mode = mode.String()
	return r
}

var (
	// reasonWords leave out what the version says.
	reasonWords = map[policy.Reason]string{
		policy.ReasonCipher: "ciphers too old", policy.ReasonFallback: "a retry", policy.ReasonSSL2Hello: "hello of SSL 2.0",
	}
	loginWords = map[ledger.Login]string{
		ledger.LoginOK: "logged in", ledger.LoginFailed: "never logged in", ledger.LoginUnknown: "not known",
	}
	modeWords = map[policy.Mode]string{
		policy.Enforce: "refused", policy.Explain: "told why, then closed", policy.Observe: "let in and counted",
	}
)
