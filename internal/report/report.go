// Package report puts a ledger into words: how many legacy clients remain, who
// they are, whom to tell, and whether the floor can be enforced.
//
// [Facts] say where the clients are, and what else there is to know. [Facts.Write]
// writes a report of them as text, Markdown, CSV or JSON, as it goes, in memory
// that does not grow with the ledger: it reads the clients once, network by
// network, counts what there is to count, and sorts what each contributes to the
// groups, on disk where it is much. [Build] reads such a report into memory, and
// [Report.Write] writes one from there. [Judge] applies another policy to the same
// clients.
package report

import (
	"cmp"
	"context"
	_ "embed"
	"encoding/json"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"postern/internal/ledger"
	"postern/internal/text"
	"postern/policy"
)

// Report is the answer. Its JSON is stable.
type Report struct {
	Head
	Readiness Readiness `json:"readiness"`
	Totals    Totals    `json:"totals"`
	Trend     Trend     `json:"trend"`
	// Groups counts the groups of Left, Tell and Noise, also where these are cut.
	Groups Groups `json:"groups"`
	// Left are the clients under no running exemption.
	Left []Group `json:"left"`
	// Tell are the accounts behind the remaining clients; empty if Left is
	// grouped by account already.
	Tell     []Group      `json:"tell"`
	Exempted []*Exemption `json:"exempted"`
	// Noise is empty unless requested; no other number includes it.
	Noise []Group `json:"noise"`
	// Mail is empty unless requested: the accounts to write to.
	Mail []Letter `json:"mail,omitzero"`
	// Guards are those that have tripped.
	Guards []*Tripped `json:"guards_tripped,omitempty"`
	// Advice is what to do about the programs and libraries of those left, a line each.
	Advice []string `json:"advice"`
	// Notes say what the ledger cannot know.
	Notes []string `json:"notes"`
}

// Head is what is known before the ledger is read.
type Head struct {
	Now time.Time `json:"now"`
	// Since is the beginning of the window; the trend has its own.
	Since time.Time `json:"since"`
	By    By        `json:"by"`
	// Identity is how the ledger stores names: off, hashed or plain.
	Identity string `json:"identity"`
	// Began is the beginning of the ledger. Young: it does not reach back to
	// Since.
	Began time.Time `json:"ledger_began"`
	Young bool      `json:"younger_than_since"`
	// Unwritten are clients that the ledger cannot be told of; nil if there are
	// none.
	Unwritten     *Unwritten `json:"unwritten,omitempty"`
	NoiseIncluded bool       `json:"noise_included"`
	Policy        Policy     `json:"policy"`
	// Candidate is whom the clients would be refused by; they are legacy if it is empty.
	Candidate string `json:"candidate,omitempty"`
}

// Groups counts groups.
type Groups struct {
	Left  int `json:"left"`
	Tell  int `json:"tell"`
	Noise int `json:"noise"`
}

// Policy is the policy in force.
type Policy struct {
	File  string `json:"file,omitempty"`
	Floor string `json:"floor"`
	Mode  string `json:"mode"`
}

// Unwritten are clients that are not in the ledger, since it cannot be written.
type Unwritten struct {
	Clients int       `json:"clients"`
	Since   time.Time `json:"since"`
	Ledger  string    `json:"ledger"`
}

// Readiness is whether no more clients remain than may. Remaining, Unknown,
// NotLoggedIn and the exempted clients of Totals are all clients, each once.
type Readiness struct {
	Ready     bool `json:"ready"`
	Max       int  `json:"max"`
	Remaining int  `json:"remaining"`
	// PassedThrough are those of the remaining that an old server has: nobody
	// sees whether they log in.
	PassedThrough int `json:"passed_through"`
	// MaxUnknown is how many may be Unknown: clients that were never let in, so
	// that they may be in use or not. Always 0 if no identity is kept.
	MaxUnknown int `json:"max_unknown"`
	Unknown    int `json:"unknown"`
	// NotLoggedIn are clients that do not count: they were let in, and have not
	// logged in. Always 0 if no identity is kept.
	NotLoggedIn int `json:"not_logged_in"`
	// Reasons are sentences, the decisive one first.
	Reasons []string `json:"reasons"`
}

// Trailer is a field behind the body of a report over HTTP: what Outcome returns.
// IdentityHeader is one before it, with Report.Identity.
const (
	Trailer        = "Postern-Report"
	IdentityHeader = "Postern-Identity"
)

// Outcome is JSON of what decides, which a Report reads.
func (r *Report) Outcome() string {
	readiness := r.Readiness
	readiness.Reasons = nil
	return string(must(json.Marshal(struct {
		Unwritten *Unwritten `json:"unwritten,omitempty"`
		Readiness Readiness  `json:"readiness"`
	}{r.Unwritten, readiness})))
}

// Totals are distinct clients (IPv4 address or IPv6 /64) and handshakes in the
// window.
type Totals struct {
	Clients int `json:"clients"`
	Left    int `json:"left"`
	// Exempted are clients that are only seen under exemptions.
	Exempted int `json:"exempted"`
	// Noise are clients that are only seen as noise.
	Noise int `json:"noise"`
	// Accepted are clients that were refused once, by another floor, and reach the one in
	// force: no other number but those of the trend includes them.
	Accepted   int           `json:"accepted"`
	Handshakes ledger.Counts `json:"handshakes"`
	ByPlace    []*PlaceTotal `json:"by_version_and_listener"`
}

// PlaceTotal is the total of one version on one listener.
type PlaceTotal struct {
	Version    string        `json:"version"`
	Listener   string        `json:"listener"`
	Clients    int           `json:"clients"`
	Handshakes ledger.Counts `json:"handshakes"`

	last int64 // the network that was counted last
}

// Trend is clients over time, also those that have stayed away since.
type Trend struct {
	Days    int      `json:"days_each"`
	Periods []Period `json:"periods"`
}

// Period is some days of a trend.
type Period struct {
	First      string        `json:"first_day"`
	Clients    int           `json:"clients"`
	Handshakes ledger.Counts `json:"handshakes"`

	last int64 // as in PlaceTotal
}

// Exemption is a running exemption with its clients.
type Exemption struct {
	Rule    string    `json:"rule"`
	Owner   string    `json:"owner"`
	Until   time.Time `json:"until"`
	Mode    string    `json:"mode"`
	Clients int       `json:"clients"`
	// GroupsInAll counts Groups, also where these are cut.
	GroupsInAll int     `json:"groups_in_all"`
	Groups      []Group `json:"groups"`

	number  int64 // in lists.rules, from 1
	section *section
	last    int64 // as in PlaceTotal
}

// Options select the contents of a report.
type Options struct {
	Since time.Duration
	// By is empty for accounts if they are known, or else networks.
	By    By
	Noise bool
	// Max is the number of clients that may remain, and MaxUnknown that of
	// clients that were never let in.
	Max, MaxUnknown int
	// Mail lists the accounts to write to.
	Mail bool
	// Days is how far the trend goes back at least.
	Days int
	// Brief makes no groups.
	Brief bool
	// Candidate is a remembered one of the policy, whose clients are meant; empty for
	// legacy ones.
	Candidate string
}

// Facts are the input of a report.
type Facts struct {
	Now        time.Time
	Policy     *policy.Policy
	PolicyFile string
	Identity   string // LEDGER_IDENTITY
	// Memory: the ledger ends with the process.
	Memory bool
	// Backlog is what the ledger was not told, and Programs the operator's file of them.
	Backlog  ledger.Backlog
	Programs []byte
	// Began is the beginning of the ledger; zero where that is not known.
	Began time.Time
	// Retention is the ledger's; 0 is unknown.
	Retention time.Duration
	// Hellos are those of legacy clients that may reach a floor, by their fingerprints.
	Hellos map[string]policy.Hello `json:"-"`
	// Source has the clients, and Negotiated what handshakes have agreed on since a time.
	Source     Source                                                        `json:"-"`
	Negotiated func(context.Context, time.Time) ([]ledger.Negotiated, error) `json:"-"`
	// Dir is where what does not fit into memory is written, to files without a
	// name; empty is os.TempDir.
	Dir string
	// Progress is as in ledger.Scope.
	Progress func(done float64) `json:"-"`

	budget int // of bytes in memory; 0 for sortBudget
	// tripped are the guards that have, and graceEnds is [ledger.Refusals.GraceEnds].
	tripped   []*Tripped
	graceEnds func(*policy.Rule, netip.Addr) time.Time
}

// Source calls each once for every network with its clients in the scope, as
// [ledger.Store.Scan] does.
type Source func(ctx context.Context, scope ledger.Scope, each func([]ledger.Client) error) error

// SourceOf returns a source of clients in memory. They have all logins and days.
func SourceOf(clients []ledger.Client) Source {
	return func(ctx context.Context, scope ledger.Scope, each func([]ledger.Client) error) error {
		list := slices.DeleteFunc(slices.Clone(clients), func(c ledger.Client) bool { return c.Last.Before(scope.Since) })
		network := func(c *ledger.Client) netip.Addr { return policy.ClientPrefix(c.Addr).Addr() }
		slices.SortStableFunc(list, func(a, b ledger.Client) int { return network(&a).Compare(network(&b)) })
		for ofNetwork := range ledger.Runs(list, network) {
			if err := each(ofNetwork); err != nil {
				return err
			}
		}
		return ctx.Err()
	}
}

// Of has the facts come from a ledger, which knows the guards of the policy, of what the
// options ask for.
func (f *Facts) Of(ctx context.Context, store *ledger.Store, o Options) (err error) {
	of := store
	if o.Candidate != "" {
		floor, err := f.Policy.RememberedFloor(o.Candidate)
		if err != nil {
			return err
		}
		of = store.Candidate(floor)
	}
	f.Source, f.Negotiated = of.Scan, store.Negotiated
	if f.Began, err = of.Began(ctx); err == nil && of == store {
		f.Hellos, err = store.LaterHellos(ctx)
	}
	refusals, failed := store.Refusals(ctx, f.Policy, nil)
	f.graceEnds = refusals.GraceEnds
	return cmp.Or(err, failed, f.guards(ctx, store))
}

// maxPeriods is ten years in weeks.
const maxPeriods = 522

func keepsNames(identity string) bool { return identity == "hashed" || identity == "plain" }

// note adds notes on what the numbers leave out.
func (r *Report) note(f *Facts, o Options) {
	if !keepsNames(f.Identity) {
		r.Notes = append(r.Notes, "POSTERN_LEDGER_IDENTITY is off: accounts, and what programs say of themselves, are not known, and every address counts, "+
			"whether it has logged in or not.")
	}
	if n := r.Readiness.Unknown; n > 0 {
		r.Notes = append(r.Notes, "A client that is refused or told why cannot log in. Let it in for a while (observe), and you know.")
	}
	for _, rule := range f.Policy.Rules() {
		if o.Candidate == "" && rule.Grace > 0 && rule.Mode == policy.Enforce && rule.InForce(f.Now) {
			r.Notes = append(r.Notes, fmt.Sprintf("Rule %q has a grace: a client that had logged in is told why for %s from its first refusal on, and refused after that.",
				oneLine(rule.Name), text.Days(rule.Grace)))
		}
	}
	if f.Memory {
		r.Notes = append(r.Notes, "The ledger is in memory (POSTERN_LEDGER_URL): it knows nothing from before Postern was started.")
	}
	if f.Retention > 0 && o.Since > f.Retention {
		r.Notes = append(r.Notes, Forgets(f.Retention))
	}
}

// Forgets is the note on a window that is longer than the ledger's memory.
func Forgets(retention time.Duration) string {
	return "The ledger forgets clients that have stayed away for " + text.Days(retention) + " (POSTERN_LEDGER_RETENTION)."
}

// totalHeader names the columns of totals.
var totalHeader = []string{"TLS", "listener", "clients", "let in", "told why", "refused", "broke off"}

// totalRows returns the totals as cells, the sum in the last row.
func (r *Report) totalRows() [][]string {
	row := func(version, listener string, clients int, h *ledger.Counts) []string {
		return []string{version, listener, strconv.Itoa(clients), fmt.Sprint(h.Observed), fmt.Sprint(h.Explained),
			fmt.Sprint(h.Rejected), fmt.Sprint(h.Failed)}
	}
	rows := text.Each(r.Totals.ByPlace, func(p *PlaceTotal) []string {
		return row(versions([]string{p.Version}), p.Listener, p.Clients, &p.Handshakes)
	})
	return append(rows, row("all", "all", r.Totals.Clients, &r.Totals.Handshakes))
}

// Tripped is a guard that has tripped, and the clients that did it: networks, with their
// accounts.
type Tripped struct {
	policy.GuardState
	By map[string][]string `json:"by"`
}

// mostWho bounds what a text says of the clients, in characters.
const mostWho = 2000

// Words says which clients tripped the guard.
func (t *Tripped) Words() string {
	who := text.Each(slices.Sorted(maps.Keys(t.By)), func(client string) string {
		return strings.Join(append([]string{client}, t.By[client]...), " ")
	})
	if len(who) == 0 { // they are forgotten, or have not come for longer than the ledger remembers
		return t.String()
	}
	return fmt.Sprintf("%v It had met %s: %s.", &t.GuardState, text.Number(len(who), "known client"), some(who, len(who), mostWho))
}

// guards reads which guards have tripped, and who did it.
func (f *Facts) guards(ctx context.Context, store *ledger.Store) error {
	states, err := store.Guards(ctx, f.Policy, f.Now)
	f.Policy = f.Policy.Guarded(states, nil)
	for _, g := range states {
		if err != nil || g.Tripped.IsZero() {
			continue
		}
		t := &Tripped{GuardState: g}
		t.By, err = store.TrippedBy(ctx, &g)
		f.tripped = append(f.tripped, t)
	}
	return err
}

// judge decides by what was counted whether old TLS can be cut.
func (r *Report) judge(o Options) {
	j := &r.Readiness
	j.Max, j.MaxUnknown = o.Max, o.MaxUnknown
	j.Ready = r.Unwritten == nil && j.Remaining <= j.Max && j.Unknown <= j.MaxUnknown
	j.Reasons = sentences("reasons", r)
}

//go:embed verdict.tmpl
var verdictTemplate string

// sentence has the words of a template, glued for a text.
var sentence = text.Templates(verdictTemplate, map[string]any{
	"number": text.Number, "date": date, "be": be, "was": was, "have": have, "keepsNames": keepsNames, "days": text.Days,
})

// sentences are the lines of a template.
func sentences(name string, of any) []string {
	return strings.Split(strings.TrimSpace(text.Unglued(sentence(name, of))), "\n")
}

// Verdict returns the answer in a few words.
func (r *Report) Verdict() string { return text.Unglued(sentence("verdict", r)) }

// Parts returns the number of all clients, and of what they consist.
func (r *Report) Parts() string { return text.Unglued(sentence("parts", r)) }

// AcceptedNow says how many clients the floor in force accepts, which another one has
// refused; empty for none.
func (r *Report) AcceptedNow() string { return text.Unglued(sentence("accepted", r.Totals.Accepted)) }

// Who is what the clients have in common.
func (r *Report) Who() string {
	return text.Either(r.Candidate == "", "with old TLS", fmt.Sprintf("whom %q would refuse", r.Candidate))
}

// date writes a time for people, in UTC.
func date(t time.Time) string { return text.Date(t.Truncate(time.Minute), nil) }

func be(n int) string   { return text.Either(n == 1, "is", "are") }
func was(n int) string  { return text.Either(n == 1, "was", "were") }
func have(n int) string { return text.Either(n == 1, "has", "have") }

// versions are TLS versions as people write them.
func versions(labels []string) string {
	return strings.Join(text.Each(labels, func(l string) string {
		if v, err := policy.ParseVersion(l); err == nil {
			return v.Number()
		}
		return l
	}), ", ")
}

// some lists as many of n as fit, the first of which are in the list, and says how
// many more there are.
func some(list []string, n, columns int) string {
	if all := strings.Join(list, ", "); n < 2 || n == len(list) && utf8.RuneCountInString(all) <= columns {
		return clipNames(all, columns)
	}
	for k := min(len(list), n-1); k > 1; k-- {
		s := fmt.Sprintf("%s and %d more", strings.Join(list[:k], ", "), n-k)
		if utf8.RuneCountInString(s) <= columns {
			return s
		}
	}
	const least = 8 // of a name, to say anything
	more := fmt.Sprintf(" and %d more", n-1)
	if columns-len(more) < least {
		return fmt.Sprintf("%d of them", n)
	}
	return clipNames(list[0], columns-len(more)) + more
}
