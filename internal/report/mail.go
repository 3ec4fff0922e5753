package report

import (
	"cmp"
	"slices"
	"sort"
	"strconv"
	"strings"
	"time"

	"postern/policy"
)

// Letter is an account to write to, before its clients are refused.
type Letter struct {
	Account string `json:"account"`
	// DaysLeft are whole days until Until, at which the first of its clients is
	// no longer let in: 0 if that is so now, -1 if the policy has no date for it.
	DaysLeft int        `json:"days_left"`
	Until    *time.Time `json:"until"`
	// Rule and Owner are those of the exemption that ends then; else empty.
	Rule     string    `json:"rule"`
	Owner    string    `json:"owner"`
	Software []string  `json:"software"`
	Versions []string  `json:"versions"`
	Clients  int       `json:"clients"`
	LastSeen time.Time `json:"last_seen"`
}

// letters returns a letter for each account that has logged in, by owner of the
// exemption, then the first to be refused.
func letters(f *Facts, rows []row) []Letter {
	dates := f.Policy.Dates(f.Now)
	soonest := make(map[string]Letter)
	for _, c := range rows {
		l := ends(f, c, dates)
		for account := range parts(c, ByAccount) {
			if s, known := soonest[account]; !known || l.sooner(&s) {
				soonest[account] = l
			}
		}
	}
	all := []Letter{}
	for _, g := range groups(rows, ByAccount) {
		if l := soonest[g.Name]; g.Name != "" {
			l.Account, l.Software, l.Versions, l.Clients, l.LastSeen = g.Name, g.Software, g.Versions, g.Clients, g.LastSeen
			all = append(all, l)
		}
	}
	slices.SortFunc(all, func(a, b Letter) int {
		switch {
		case a.Owner != b.Owner:
			return cmp.Compare(a.Owner, b.Owner)
		case a.sooner(&b):
			return -1
		case b.sooner(&a):
			return 1
		}
		return cmp.Compare(a.Account, b.Account)
	})
	return all
}

// ends finds the first time at which the policy may not let the client in. Between
// two dates only a share changes, and a share that grows keeps whom it has. The
// windows of a schedule come and go, and are no end.
func ends(f *Facts, c row, dates []time.Time) Letter {
	l := Letter{DaysLeft: -1}
	refused := func(t time.Time) bool {
		snapshot := f.Policy.At(t)
		return slices.ContainsFunc(snapshot.Outcomes(c.ForPolicy(), t), func(o policy.Outcome) bool {
			return o.Mode != policy.Observe && (o.Rule == nil || o.Rule.Schedule == nil)
		})
	}
	for i, t := range dates {
		if !refused(t) {
			if i == len(dates)-1 || !refused(dates[i+1].Add(-time.Second)) {
				continue
			}
			seconds := sort.Search(int(dates[i+1].Sub(t)/time.Second), func(n int) bool { return refused(t.Add(time.Duration(n) * time.Second)) })
			t = t.Add(time.Duration(seconds) * time.Second)
		}
		l.Until = new(t.UTC().Truncate(time.Second))
		break
	}
	if e := c.exemption; e != nil { // which promises nothing beyond its end
		l.Rule, l.Owner = e.Name, e.Owner
		if l.Until == nil || e.Until.Before(*l.Until) {
			l.Until = new(e.Until.UTC())
		}
	}
	if l.Until != nil {
		const day = 24 * time.Hour
		l.DaysLeft = int(l.Until.Sub(f.Now) / day)
	}
	return l
}

// sooner reports whether it ends before another one.
func (l *Letter) sooner(o *Letter) bool {
	return l.Until != nil && (o.Until == nil || l.Until.Before(*o.Until))
}

func (l *Letter) clean() {
	for _, s := range []*string{&l.Account, &l.Rule, &l.Owner} {
		*s = oneLine(*s)
	}
	cleanList(l.Software, oneLine)
	cleanList(l.Versions, versionWord)
}

var mailHeader = []string{"account", "days_left", "until", "owner", "rule", "software", "versions", "clients", "last_seen"}

// mailRecords returns a line for each letter.
func (r *Report) mailRecords() [][]string {
	rows := [][]string{mailHeader}
	for i := range r.Mail {
		l := &r.Mail[i]
		days, until := "", ""
		if l.Until != nil {
			days, until = strconv.Itoa(l.DaysLeft), l.Until.Format(time.RFC3339)
		}
		rows = append(rows, []string{l.Account, days, until, l.Owner, l.Rule, strings.Join(l.Software, "; "), strings.Join(l.Versions, "; "),
			strconv.Itoa(l.Clients), l.LastSeen.Format(time.RFC3339)})
	}
	return rows
}

// mail writes the letters as a table.
func (d *document) mail(r *Report) {
	var rows [][]string
	for _, l := range r.Mail {
		days, until := "no date", "-"
		if l.Until != nil {
			days, until = number(l.DaysLeft, "day"), day(*l.Until)
		}
		row := []string{l.Account, days, until, cmp.Or(l.Owner, "-"), cmp.Or(strings.Join(l.Software, ", "), "-"), versions(l.Versions)}
		if d.markdown {
			row[0], row[3], row[4] = code(row[0]), code(row[3]), code(row[4])
		}
		rows = append(rows, row)
	}
	d.plainTable([]string{"account", "left", "until", "owner", "programs", "TLS"}, rows)
}
