// Package report puts a ledger into words: how many legacy clients remain, who
// they are, whom to tell, and whether the floor can be enforced.
//
// [Read] gets the facts from a ledger. [Build] makes a [Report] of them, which is
// written as text, Markdown, CSV or JSON. [Judge] applies another policy to the
// same clients.
package report

import (
	"cmp"
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"time"

	"postern/internal/ledger"
	"postern/internal/text"
	"postern/policy"
)

// Report is the answer. Its JSON is stable.
type Report struct {
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
	Readiness     Readiness  `json:"readiness"`
	Totals        Totals     `json:"totals"`
	Trend         Trend      `json:"trend"`
	// Groups counts the groups of Left, Tell and Noise, also where these are cut.
	Groups Groups `json:"groups"`
	// Left are the clients under no running exemption.
	Left     []Group     `json:"left"`
	Exempted []Exemption `json:"exempted"`
	// Tell are the accounts behind the remaining clients; empty if Left is
	// grouped by account already.
	Tell []Group `json:"tell"`
	// Noise is empty unless requested; no other number includes it.
	Noise []Group `json:"noise"`
	// Mail is empty unless requested: the accounts to write to.
	Mail []Letter `json:"mail,omitempty"`
	// Notes say what the ledger cannot know.
	Notes []string `json:"notes"`
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

// Totals are distinct clients (IPv4 address or IPv6 /64) and handshakes in the
// window.
type Totals struct {
	Clients int `json:"clients"`
	Left    int `json:"left"`
	// Exempted are clients that are only seen under exemptions.
	Exempted int `json:"exempted"`
	// Noise are clients that are only seen as noise.
	Noise      int           `json:"noise"`
	Handshakes ledger.Counts `json:"handshakes"`
	ByPlace    []PlaceTotal  `json:"by_version_and_listener"`
}

// PlaceTotal is the total of one version on one listener.
type PlaceTotal struct {
	Version    string        `json:"version"`
	Listener   string        `json:"listener"`
	Clients    int           `json:"clients"`
	Handshakes ledger.Counts `json:"handshakes"`
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
}

// Exemption is a running exemption with its clients.
type Exemption struct {
	Rule    string    `json:"rule"`
	Owner   string    `json:"owner"`
	Until   time.Time `json:"until"`
	Mode    string    `json:"mode"`
	Clients int       `json:"clients"`
	Groups  []Group   `json:"groups"`
	// GroupsInAll counts Groups, also where these are cut.
	GroupsInAll int `json:"groups_in_all"`
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
	// Brief makes no groups, and reads less.
	Brief bool
}

// Facts are the input of a report.
type Facts struct {
	Now        time.Time
	Policy     *policy.Policy
	PolicyFile string
	Identity   string // LEDGER_IDENTITY
	// Memory: the ledger ends with the process.
	Memory bool
	// Backlog is what the ledger was not told.
	Backlog ledger.Backlog
	// Began is the beginning of the ledger; zero where that is not known.
	Began time.Time
	// Retention is the ledger's; 0 is unknown.
	Retention time.Duration
	// Clients include noise.
	Clients   []ledger.Client
	TrendDays int
	Trend     []ledger.Period
}

// weekly is the shortest window with a trend by weeks.
const weekly = 28 * 24 * time.Hour

// Read adds the ledger's data to the facts.
func (f *Facts) Read(ctx context.Context, store *ledger.Store, o Options) (err error) {
	since := f.Now.Add(-o.Since)
	if f.Began, err = store.Began(ctx); err != nil {
		return err
	}
	filter := ledger.Filter{Since: since, Noise: true}
	if o.Brief {
		f.Clients, err = store.Sightings(ctx, filter)
		return err
	}
	if f.Clients, err = store.ClientsSince(ctx, filter); err != nil {
		return err
	}
	f.TrendDays = 1
	if o.Since > weekly {
		f.TrendDays = 7
	}
	const day = 24 * time.Hour
	today := f.Now.Truncate(day)
	n := (int(today.Sub(since.Truncate(day))/day) + f.TrendDays) / f.TrendDays
	n = min(n, maxPeriods)
	first := today.Add(day - time.Duration(n*f.TrendDays)*day)
	periods, err := store.Trend(ctx, first, f.TrendDays)
	if err != nil {
		return err
	}
	f.Trend = make([]ledger.Period, n)
	for i := range f.Trend {
		f.Trend[i].First = first.AddDate(0, 0, i*f.TrendDays)
	}
	for _, p := range periods {
		if i := int(p.First.Sub(first)/day) / f.TrendDays; i < n { // a day ahead of our clock is nobody's
			f.Trend[i] = p
		}
	}
	return nil
}

// maxPeriods is ten years in weeks.
const maxPeriods = 522

// row is a client with its classification.
type row struct {
	*ledger.Client
	exemption *policy.Rule
	// counts: it must not remain.
	counts bool
}

// Build makes the report.
func Build(f Facts, o Options) *Report {
	if o.By == "" {
		o.By = ByNetwork
		if keepsNames(f.Identity) {
			o.By = ByAccount
		}
	}
	r := &Report{
		Now: f.Now.UTC().Truncate(time.Second), Since: f.Now.Add(-o.Since).UTC().Truncate(time.Second), By: o.By, Identity: f.Identity,
		NoiseIncluded: o.Noise, Policy: Policy{f.PolicyFile, f.Policy.Floor().String(), f.Policy.Mode().String()},
		Exempted: []Exemption{}, Tell: []Group{}, Noise: []Group{}, Notes: []string{},
	}
	r.Began = f.Began.UTC().Truncate(time.Second)
	r.Young = r.Began.After(r.Since)
	if b := f.Backlog; b.Stuck {
		r.Unwritten = &Unwritten{b.Clients, b.Since, b.Ledger}
	}
	snapshot := f.Policy.At(f.Now)
	var left, exempted, noise []row
	for i := range f.Clients {
		c := row{Client: &f.Clients[i]}
		if c.Noise {
			noise = append(noise, c)
			continue
		}
		if c.exemption = exemption(&snapshot, c.Client, f.Now); c.exemption != nil {
			exempted = append(exempted, c)
			continue
		}
		// At an old server nobody can see who logs in.
		c.counts = c.Login == ledger.LoginOK || c.Login == ledger.LoginUnseen || !keepsNames(f.Identity)
		left = append(left, c)
	}
	r.total(left, exempted, noise)
	r.trend(&f)
	if o.Brief {
		o.By = byNobody
	}
	r.Left = groups(left, o.By)
	if o.By != ByAccount && !o.Brief {
		r.Tell = slices.DeleteFunc(groups(left, ByAccount), func(g Group) bool { return g.Name == "" })
	}
	r.exempt(exempted, o.By)
	if o.Noise {
		r.Noise = groups(noise, o.By)
	}
	if o.Mail {
		r.Mail = letters(&f, slices.Concat(left, exempted))
	}
	r.judge(left, o)
	r.note(&f, o)
	r.Clean()
	return r
}

func keepsNames(identity string) bool { return identity == "hashed" || identity == "plain" }

// exemption returns the running exemption that certainly takes a client, or nil.
// A rule that refuses is no exemption, even with an owner.
func exemption(s *policy.Snapshot, c *ledger.Client, now time.Time) *policy.Rule {
	first := s.Outcomes(c.ForPolicy(), now)[0]
	if first.Part < 1 || first.Rule == nil || !first.Rule.Exemption() || first.Mode == policy.Enforce {
		return nil
	}
	return first.Rule
}

// networks is a set of distinct clients.
type networks map[netip.Prefix]bool

func (n networks) add(c row) { n[policy.ClientPrefix(c.Addr)] = true }

func networksOf(rows []row) networks {
	n := make(networks)
	for _, c := range rows {
		n.add(c)
	}
	return n
}

// without counts the networks that are not among the others.
func (n networks) without(others networks) (count int) {
	for network := range n {
		if !others[network] {
			count++
		}
	}
	return count
}

func handshakes(rows []row) (sum ledger.Counts) {
	for _, c := range rows {
		sum.Add(c.Since)
	}
	return sum
}

func (r *Report) total(left, exempted, noise []row) {
	rows := slices.Concat(left, exempted)
	all, remaining := networksOf(rows), networksOf(left)
	r.Totals = Totals{
		Clients: len(all), Left: len(remaining), Exempted: len(all) - len(remaining), Noise: networksOf(noise).without(all),
		Handshakes: handshakes(rows), ByPlace: []PlaceTotal{},
	}
	type place struct{ version, listener string }
	byPlace := make(map[place][]row)
	for _, c := range rows {
		k := place{c.Version.String(), string(c.Listener)}
		byPlace[k] = append(byPlace[k], c)
	}
	for k, rows := range byPlace {
		r.Totals.ByPlace = append(r.Totals.ByPlace, PlaceTotal{k.version, k.listener, len(networksOf(rows)), handshakes(rows)})
	}
	slices.SortFunc(r.Totals.ByPlace, func(a, b PlaceTotal) int {
		return cmp.Or(cmp.Compare(a.Version, b.Version), slices.Index(policy.ListenerNames, a.Listener)-slices.Index(policy.ListenerNames, b.Listener))
	})
}

func (r *Report) trend(f *Facts) {
	r.Trend = Trend{Days: f.TrendDays, Periods: []Period{}}
	for _, p := range f.Trend {
		r.Trend.Periods = append(r.Trend.Periods, Period{p.First.Format(time.DateOnly), p.Clients, p.Counts})
	}
}

// exempt lists exemptions, the first to end first.
func (r *Report) exempt(rows []row, by By) {
	byRule := make(map[*policy.Rule][]row)
	for _, c := range rows {
		byRule[c.exemption] = append(byRule[c.exemption], c)
	}
	for rule, list := range byRule {
		r.Exempted = append(r.Exempted, Exemption{
			Rule: rule.Name, Owner: rule.Owner, Until: rule.Until.UTC(), Mode: rule.Mode.String(),
			Clients: len(networksOf(list)), Groups: groups(list, by),
		})
	}
	slices.SortFunc(r.Exempted, func(a, b Exemption) int {
		return cmp.Or(a.Until.Compare(b.Until), cmp.Compare(a.Rule, b.Rule))
	})
}

// note adds notes on what the numbers leave out.
func (r *Report) note(f *Facts, o Options) {
	if !keepsNames(f.Identity) {
		r.Notes = append(r.Notes, "POSTERN_LEDGER_IDENTITY is off: accounts and programs are not known, and every address counts, "+
			"whether it has logged in or not.")
	}
	if n := r.Readiness.Unknown; n > 0 {
		r.Notes = append(r.Notes, "A client that is refused or told why cannot log in. Let it in for a while (observe), and you know.")
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

// title returns the title of a list of groups.
func (r *Report) title() string {
	s := "Remaining clients, by " + string(r.By)
	if r.By == ByNetwork {
		s = "Remaining clients, by address"
	}
	return s
}

// known returns the periods from the first with clients: earlier ones may be
// older than the ledger.
func (t *Trend) known() []Period {
	i := slices.IndexFunc(t.Periods, func(p Period) bool { return p.Clients > 0 })
	if i < 0 {
		return nil
	}
	return t.Periods[i:]
}

// totalHeader names the columns of totals.
var totalHeader = []string{"TLS", "listener", "clients", "let in", "told why", "refused", "broke off"}

// totalRows returns the totals as cells, the sum in the last row.
func (r *Report) totalRows() [][]string {
	row := func(version, listener string, clients int, h *ledger.Counts) []string {
		return []string{version, listener, strconv.Itoa(clients), fmt.Sprint(h.Observed), fmt.Sprint(h.Explained),
			fmt.Sprint(h.Rejected), fmt.Sprint(h.Failed)}
	}
	var rows [][]string
	for i := range r.Totals.ByPlace {
		p := &r.Totals.ByPlace[i]
		rows = append(rows, row(versions([]string{p.Version}), p.Listener, p.Clients, &p.Handshakes))
	}
	return append(rows, row("all", "all", r.Totals.Clients, &r.Totals.Handshakes))
}
