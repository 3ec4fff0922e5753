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
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/dustin/go-humanize"
	"golang.org/x/sync/singleflight"

	"postern/internal/ledger"
	"postern/internal/report"
	"postern/internal/text"
	"postern/policy"
)

// Page serves / and /client.
type Page struct {
	// Clients are those of the API.
	Clients *Clients
	// Counts returns the distinct clients; nil before the first count.
	Counts func() *[]ledger.Distinct
	// Candidates returns the distinct clients of remembered candidates, by name.
	Candidates func() *map[string][4]int
	// Dropped returns how many sightings the ledger had no room for.
	Dropped func() uint64
	State   func() PolicyState
	// Readiness is that of /readyz.
	Readiness *Readiness
	// Report is the report of two weeks, with a trend of ChartDays, of a candidate's clients
	// or, where that is empty, of legacy ones.
	Report func(ctx context.Context, candidate string) (*report.Report, error)
	// Names: accounts are stored. Memory: the ledger ends with the process.
	Names, Memory bool
	Version       string

	standing     kept
	ofCandidates sync.Map // kept, by name
}

// ledgerTimeout bounds the page's wait for the ledger.
const ledgerTimeout = 10 * time.Second

var (
	//go:embed page.html
	pageHTML string
	//go:embed client.html
	clientHTML string
	//go:embed page.css
	pageCSS string

	// pageTemplate is parsed at the first request, as most processes never get one.
	pageTemplate = sync.OnceValue(func() *template.Template {
		t := template.New("page").Funcs(template.FuncMap{
			"class":  func(v any) string { return "v-" + strings.ReplaceAll(fmt.Sprint(v), ".", "") },
			"short":  func(v any) string { return text.Clip(fmt.Sprint(v), maxShown, "…") },
			"number": number, "days": text.Days, "tls": policy.Version.Name, "met": metWords, "ago": text.Ago,
			"windows": func() any { return ledger.Windows }, "shown": shown, "modes": func() []policy.Mode { return policy.Modes }, "ahead": text.Ahead, "date": text.CommaDate, "percent": percent,
		})
		return template.Must(template.Must(t.Parse(pageHTML)).Parse(clientHTML))
	})

	// pagePolicy forbids a browser to load or run anything, or to frame the page.
	// Only the style sheet and the page's own form are allowed.
	pagePolicy = "default-src 'none'; style-src 'sha256-" + sum(pageCSS) + "'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)

func sum(s string) string {
	b := sha256.Sum256([]byte(s))
	return base64.StdEncoding.EncodeToString(b[:])
}

// warmTries bounds the tries to read what takes long before the first page, for an
// hour: a ledger may not be there yet, or be brought up to date.
const warmTries = int(time.Hour / retryAfter)

// Handler shows where the deprecation stands, and each client, in HTML. It begins
// to read what takes long at once, so that the first page has it.
func (p *Page) Handler() http.Handler {
	p.standing.read = func(ctx context.Context) (*report.Report, error) { return p.Report(ctx, "") }
	go func() {
		for range warmTries {
			state, _ := p.state(context.Background(), p.Clients.Store)
			if standing, _ := p.standing.get(context.Background(), state); standing != nil {
				return
			}
			time.Sleep(retryAfter)
		}
	}()
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, r *http.Request) {
		p.answer(w, http.StatusOK, "page", p.view(r))
	})
	mux.HandleFunc("GET /client", func(w http.ResponseWriter, r *http.Request) {
		status, v := p.clientView(r)
		p.answer(w, status, "client", v)
	})
	return mux
}

// reports are those of a candidate's clients, or of legacy ones.
func (p *Page) reports(candidate string) *kept {
	if candidate == "" {
		return &p.standing
	}
	of, _ := p.ofCandidates.LoadOrStore(candidate, &kept{read: func(ctx context.Context) (*report.Report, error) { return p.Report(ctx, candidate) }})
	return of.(*kept)
}

func (p *Page) answer(w http.ResponseWriter, status int, name string, view any) {
	h := w.Header()
	h.Set("Content-Security-Policy", pagePolicy)
	h.Set("X-Frame-Options", "DENY")
	h.Set("Referrer-Policy", "no-referrer")
	var b bytes.Buffer
	if err := pageTemplate().ExecuteTemplate(&b, name, view); err != nil {
		p.Clients.Log.Error("writing the page failed", "error", err.Error())
		writeText(w, http.StatusInternalServerError, "the page cannot be written; the log says why\n")
		return
	}
	h.Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(status)
	_, _ = w.Write(b.Bytes()) // the client may be gone
}

// state is a text that changes whenever the report does: with the
// ledger, the day, and the rules in force. Where the ledger cannot be read, it is
// another one, too.
func (p *Page) state(ctx context.Context, store *ledger.Store) (string, error) {
	written, err := store.State(ctx)
	s := p.State()
	snapshot, b := s.Policy.At(s.Now), p.Readiness.Ledger()
	stuck := text.Either(b.Stuck, b.String(), "")
	return fmt.Sprintf("%s %v %s %p %q %s", written, err, s.Now.UTC().Format(time.DateOnly), s.Policy, snapshot.InForce(), stuck), err
}

// frame is what all pages have.
type frame struct {
	*Page
	CSS   template.CSS
	At    time.Time
	Floor policy.Floor
	// RuleFloors: a rule has another one.
	RuleFloors bool

	Ready      bool
	Conditions []Condition
	Title      string
	// Candidate is whose clients are shown; empty for legacy ones.
	Candidate string
	// Refresh: the page looks again every minute.
	Refresh bool
}

func (p *Page) frame(s PolicyState) frame {
	ready, conditions := p.Readiness.Conditions()
	return frame{
		Page: p, CSS: template.CSS(pageCSS), At: s.Now.UTC(), Floor: s.Policy.Floor(), RuleFloors: len(s.Policy.Floors()) > 1,
		Ready: ready, Conditions: conditions,
	}
}

// pageView is the data of the template.
type pageView struct {
	frame
	Alerts    []string
	Unwritten int
	// Standing is the report of the last two weeks; nil where that is not known.
	Standing *report.Report

	// All are the distinct clients, by window.
	Counted               bool
	All                   [4]int
	ByVersion, ByListener []countRow
	ByCandidate           []countRow

	// Chart is nil where the days are not known.
	Chart *chart

	List listView

	Policy policyPart
}

func (p *Page) view(r *http.Request) *pageView {
	ctx, cancel := context.WithTimeout(r.Context(), ledgerTimeout)
	defer cancel()
	s := p.State()
	v := &pageView{frame: p.frame(s), Policy: policyPartOf(s)}
	if len(s.Failed) > 0 {
		v.Alerts = append([]string{"The policy file has changed, and cannot be used; the policy below is the one before:"}, s.Failed...)
	}
	if n := p.Dropped(); n > 0 {
		v.Alerts = append(v.Alerts, number(int(n))+" sightings found no room in the ledger: there are more clients than it tells of.")
	}
	if b := p.Readiness.Ledger(); b.Stuck {
		v.Unwritten = b.Clients
		v.Alerts = append(v.Alerts, "The ledger cannot be written: "+b.String()+". None of the numbers below has them; the log says why.")
	}
	v.Candidate = r.URL.Query().Get("candidate")
	clients, wrong := p.Clients.of(v.Candidate)
	if wrong != nil { // which the list says
		v.Candidate = ""
	}
	v.count()
	v.Title = text.Either(v.Candidate == "", "Old clients", "Clients whom "+text.Quote(v.Candidate, maxShown)+" would refuse")
	if v.Counted {
		v.Title += " in 7 days: " + number(v.All[2])
	}
	state, stateErr := p.state(ctx, clients.Store)
	standing, standingErr := p.reports(v.Candidate).get(ctx, state)
	if charted := s; standing != nil {
		if v.Candidate != "" { // which the policy lets in
			charted.Policy = policy.New(v.Floor, policy.Observe)
		}
		v.Chart = newChart(standing.Trend.Periods, charted)
	}
	if cmp.Or(stateErr, standingErr) == nil { // an old go might be none now
		v.Standing = standing
	}
	v.Refresh = r.URL.RawQuery == "refresh=1m" || !v.Counted || standing == nil
	err := v.readList(ctx, r.URL.RawQuery, s)
	if err = cmp.Or(err, stateErr, standingErr); err != nil {
		v.Alerts = append(v.Alerts, "The "+unread+".")
		logUnread(ctx, p.Clients.Log, err)
	}
	return v
}

// countRow has the numbers of one kind of clients, by window.
type countRow struct {
	Name    any // a version, a listener, or a candidate
	Clients [4]int
}

// count fills in the numbers of remaining clients: all of them for the headline,
// and by version and listener.
func (v *pageView) count() {
	counts := v.Counts()
	if v.Counted = counts != nil; !v.Counted {
		return
	}
	byKind := make(map[[2]string][4]int)
	for _, d := range *counts {
		byKind[[2]string{d.Listener, d.Version}] = d.ByWindow
	}
	v.All = byKind[[2]string{ledger.Any, ledger.Any}]
	v.ByCandidate = text.Each(v.Policy.Policy.Remembered(), func(c policy.Candidate) countRow { return countRow{c, (*v.Candidates())[c.Name]} })
	if v.Candidate != "" {
		v.All = (*v.Candidates())[v.Candidate]
		return
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

// metWords says what a client has met, and how often.
func metWords(n ledger.Counts) (words []string) {
	for i, count := range []int64{n.Observed, n.Explained, n.Rejected, n.Failed} {
		if count > 0 {
			words = append(words, number(int(count))+" "+[]string{"observed", "explained", "rejected", "failed"}[i])
		}
	}
	return words
}

// number writes a number with commas between thousands.
func number(n int) string { return humanize.Comma(int64(n)) }

const (
	// keptWait is how long the page waits for what was never read, freshWait for
	// what is known already, overdueWait for what nobody has asked for in a while, and
	// keptTimeout how long reading may take.
	keptWait    = 250 * time.Millisecond
	freshWait   = 40 * time.Millisecond
	overdueWait = 3 * time.Second
	keptTimeout = 2 * time.Minute
	// overdueAfter is how long what is known may be shown once it could be read again:
	// an old go might be none now.
	overdueAfter = 5 * time.Second
	// It is read again after keptRest times as long as reading took, and after an
	// error not before retryAfter.
	keptRest   = 20
	retryAfter = 5 * time.Second
)

// kept keeps a report, so that pages at once, and pages that are asked for again and
// again, cost the ledger one query. Safe for concurrent use.
type kept struct {
	read func(context.Context) (*report.Report, error)

	mu      sync.Mutex
	report  *report.Report // nil before the first
	state   string         // that it was read in
	err     error          // of the last time
	until   time.Time      // it is not read again
	reading singleflight.Group
}

// get returns what was read last; where reading has failed, or takes too long,
// what was read a moment earlier, or nothing. It has it read where the state is another one.
func (k *kept) get(ctx context.Context, state string) (*report.Report, error) {
	if due, limit := k.due(state); due {
		ctx, cancel := context.WithTimeout(ctx, limit)
		defer cancel()
		select {
		case <-k.reading.DoChan("", func() (any, error) { k.refresh(state); return nil, nil }):
		case <-ctx.Done():
		}
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.state != state && k.overdue() {
		return nil, k.err
	}
	return k.report, k.err
}

func (k *kept) overdue() bool { return time.Since(k.until) > overdueAfter }

// due reports whether it is to be read, and how long to wait for that.
func (k *kept) due(state string) (due bool, limit time.Duration) {
	k.mu.Lock()
	defer k.mu.Unlock()
	switch {
	case k.report == nil:
		limit = keptWait
	case k.overdue():
		limit = overdueWait
	default:
		limit = freshWait
	}
	return (k.report == nil || k.err != nil || k.state != state) && time.Now().After(k.until), limit
}

// refresh outlives the request, since the next one profits.
func (k *kept) refresh(state string) {
	if due, _ := k.due(state); !due { // another has just ended
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), keptTimeout)
	defer cancel()
	begun := time.Now()
	r, err := k.read(ctx)
	rest := keptRest * time.Since(begun)
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.err = err; err == nil {
		k.report, k.state = r, state
	} else {
		rest = max(rest, retryAfter)
	}
	k.until = time.Now().Add(rest)
}
