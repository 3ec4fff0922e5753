package report

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"sort"
	"strconv"
	"strings"
	"time"

	"postern/internal/ledger"
	"postern/internal/programs"
	"postern/internal/text"
	"postern/policy"
)

// Letter is an account to write to, before its clients are refused.
type Letter struct {
	Account string `json:"account"`
	// DaysLeft are whole days until Until, at which the first of its clients is
	// no longer let in: 0 if that is so now, -1 if the policy has no date for it.
	DaysLeft int        `json:"days_left"`
	Until    *time.Time `json:"until"`
	// ToldWhyUntil is until when the clients are told why from then on, by the grace of a rule
	// that refuses them afterwards: at least, where it has not begun; zero for none.
	ToldWhyUntil time.Time `json:"told_why_until,omitzero"`
	// Rule and Owner are those of the exemption that ends then; else empty.
	Rule     string   `json:"rule"`
	Owner    string   `json:"owner"`
	Software []string `json:"software"`
	// SoftwareInAll is how many there are; Software has the first 100.
	SoftwareInAll int       `json:"software_in_all"`
	Versions      []string  `json:"versions"`
	Clients       int       `json:"clients"`
	LastSeen      time.Time `json:"last_seen"`
	// SpeaksLike and Advice are as in Group.
	SpeaksLike []string `json:"speaks_like"`
	Advice     []string `json:"advice"`
}

// ends finds when a policy no longer lets clients in.
type ends struct {
	policy *policy.Policy
	dates  []time.Time
	// at are the policy at the dates, and before just before them.
	at, before []policy.Snapshot
	graceEnds  func(*policy.Rule, netip.Addr) time.Time
}

func newEnds(f *Facts) *ends {
	e := &ends{policy: f.Policy, dates: f.Policy.Dates(f.Now), graceEnds: f.graceEnds}
	for _, t := range e.dates {
		e.at, e.before = append(e.at, f.Policy.At(t)), append(e.before, f.Policy.At(t.Add(-time.Second)))
	}
	return e
}

// of finds the first time at which the policy may not let the client in; 0 if there
// is none. Between two dates only a share changes, and a share that grows keeps
// whom it has. The windows of a schedule come and go, and are no end.
func (e *ends) of(c *ledger.Client) int64 {
	client := c.ForPolicy()
	refused := func(s *policy.Snapshot, t time.Time) bool {
		return slices.ContainsFunc(s.Outcomes(client, t), func(o policy.Outcome) bool {
			return o.Mode != policy.Observe && (o.Rule == nil || o.Rule.Schedule == nil)
		})
	}
	for i, t := range e.dates {
		if refused(&e.at[i], t) {
			return t.Unix()
		}
		if next := i + 1; next < len(e.dates) && refused(&e.before[next], e.dates[next].Add(-time.Second)) {
			seconds := sort.Search(int(e.dates[next].Sub(t)/time.Second), func(n int) bool {
				t := t.Add(time.Duration(n) * time.Second)
				s := e.policy.At(t)
				return refused(&s, t)
			})
			return t.Add(time.Duration(seconds) * time.Second).Unix()
		}
	}
	return 0
}

// told is until when a rule with a grace tells the client why that refuses it from a time
// on; 0 without a grace.
func (e *ends) told(c *ledger.Client, from int64) int64 {
	t := time.Unix(from, 0)
	s := e.policy.At(t)
	for _, o := range s.Outcomes(c.ForPolicy(), t) {
		if r := o.Rule; r != nil && r.Grace > 0 && o.Mode == policy.Enforce {
			if end := cmp.Or(e.graceEnds(r, c.Addr), t.Add(r.Grace)); end.After(t) {
				return end.Unix()
			}
		}
	}
	return 0
}

// letter returns the letter to an account.
func (l *lists) letter(g *gathering) *Letter {
	letter := &Letter{
		Account: g.Name, DaysLeft: -1, Software: g.Software, SoftwareInAll: g.Distinct.Software, Versions: g.Versions,
		Clients: g.Clients, LastSeen: g.LastSeen, SpeaksLike: g.SpeaksLike, Advice: g.Advice,
		ToldWhyUntil: text.Either(g.told != 0, time.Unix(g.told, 0).UTC(), time.Time{}),
	}
	if g.until != 0 {
		letter.Until = new(time.Unix(g.until, 0).UTC())
		letter.DaysLeft = int(letter.Until.Sub(l.now) / day)
	}
	if g.rule > 0 {
		letter.Rule, letter.Owner = l.rules[g.rule-1].Rule, l.rules[g.rule-1].Owner
	}
	return letter
}

func (l *Letter) clean() {
	for _, s := range []*string{&l.Account, &l.Rule, &l.Owner} {
		*s = oneLine(*s)
	}
	cleanList(l.Software, oneLine)
	cleanList(l.SpeaksLike, inferred)
	cleanList(l.Versions, versionWord)
}

var mailHeader = []string{"account", "days_left", "until", "owner", "rule", "software", "versions", "clients", "last_seen", "software_in_all",
	"speaks_like", "advice", "told_why_until"}

// cells are in the order of the header.
func (l *Letter) cells() []string {
	days, until, told := "", "", text.Either(l.ToldWhyUntil.IsZero(), "", l.ToldWhyUntil.Format(time.RFC3339))
	if l.Until != nil {
		days, until = strconv.Itoa(l.DaysLeft), l.Until.Format(time.RFC3339)
	}
	return []string{l.Account, days, until, l.Owner, l.Rule, strings.Join(l.Software, "; "), strings.Join(l.Versions, "; "),
		strconv.Itoa(l.Clients), l.LastSeen.Format(time.RFC3339), strconv.Itoa(l.SoftwareInAll),
		strings.Join(l.SpeaksLike, "; "), strings.Join(l.Advice, "; "), told}
}

// row is the letter in a table for people, whose widest inferred name is so long.
func (l *Letter) row(markdown bool, widest int) []string {
	days, until := "no date", "-"
	if l.Until != nil {
		days, until = text.Number(l.DaysLeft, "day"), l.Until.Format(time.DateOnly)
	}
	if !l.ToldWhyUntil.IsZero() && l.DaysLeft == 0 {
		days, until = "told why", l.ToldWhyUntil.Format(time.DateOnly)
	}
	used := cmp.Or(strings.Join(l.Software, ", "), "-")
	if i := slices.IndexFunc(l.SpeaksLike, func(s string) bool { return !programs.IsPattern(s) }); i >= 0 && len(l.Software) == 0 {
		used = clipNames(inferredName(l.SpeaksLike[i]), widest)
	}
	if more := l.SoftwareInAll - len(l.Software); more > 0 {
		used += fmt.Sprintf(" and %d more", more)
	}
	row := []string{l.Account, days, until, cmp.Or(l.Owner, "-"), used, versions(l.Versions)}
	if markdown {
		row[0], row[3], row[4] = code(row[0]), code(row[3]), code(row[4])
	}
	return row
}
