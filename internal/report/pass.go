package report

import (
	"cmp"
	"context"
	"slices"
	"time"

	"postern/internal/ledger"
	"postern/policy"
)

const (
	day = 24 * time.Hour

	// weekly is the shortest window with a trend by weeks.
	weekly = 28 * day
)

// pass reads the clients of a ledger once, and makes a report of them.
type pass struct {
	*Report
	*lists
	f        *Facts
	o        Options
	since    time.Time // to the second, as the ledger has times
	first    int64     // day of the trend
	snapshot policy.Snapshot
	places   map[place]*PlaceTotal
	byRule   map[*policy.Rule]*Exemption
	ends     *ends        // nil without letters
	answers  func() error // is called with the first network; nil is not

	left, tell, noise, mail *section
}

type place struct {
	version  policy.Version
	listener string
}

// begin starts the report with what is known before the ledger is read.
func begin(f *Facts, o Options, s *Style) *pass {
	if s.Format == Patterns {
		o.By, o.Noise = ByProgram, true
	}
	if o.By == "" {
		o.By = ByNetwork
		if keepsNames(f.Identity) {
			o.By = ByAccount
		}
	}
	since := f.Now.Add(-o.Since).UTC().Truncate(time.Second)
	p := &pass{f: f, o: o, since: since, snapshot: f.Policy.At(f.Now), places: make(map[place]*PlaceTotal), byRule: make(map[*policy.Rule]*Exemption), lists: newLists(f.Dir, f.budget, f.Now, s)}
	p.Report = &Report{
		Head: Head{Now: f.Now.UTC().Truncate(time.Second), Since: since, By: o.By, Identity: f.Identity, Began: f.Began.UTC().Truncate(time.Second),
			NoiseIncluded: o.Noise, Policy: Policy{f.PolicyFile, f.Policy.Floor().String(), f.Policy.Mode().String()}, Candidate: o.Candidate},
		Left: []Group{}, Tell: []Group{}, Exempted: []*Exemption{}, Noise: []Group{}, Mail: s.letters(), Guards: f.tripped, Advice: []string{}, Notes: []string{},
	}
	p.Totals.ByPlace, p.Trend.Periods = []*PlaceTotal{}, []Period{}
	p.Young = p.Began.After(p.Since)
	if b := f.Backlog; b.Stuck {
		p.Unwritten = &Unwritten{b.Clients, b.Since, b.Ledger}
	}
	p.beginTrend()
	p.beginSections()
	p.Clean()
	return p
}

// beginTrend makes the periods.
func (p *pass) beginTrend() {
	p.Trend.Days = 1
	if p.o.Since > weekly {
		p.Trend.Days = 7
	}
	today := p.f.Now.UTC().Truncate(day)
	back := max(p.o.Since, time.Duration(p.o.Days-1)*day)
	n := (int(today.Sub(p.f.Now.Add(-back).Truncate(day))/day) + p.Trend.Days) / p.Trend.Days
	n = min(n, maxPeriods)
	first := today.Add(day - time.Duration(n*p.Trend.Days)*day)
	p.first = first.Unix() / secondsADay
	for i := range n {
		p.Trend.Periods = append(p.Trend.Periods, Period{First: first.AddDate(0, 0, i*p.Trend.Days).Format(time.DateOnly)})
	}
}

const secondsADay = int64(day / time.Second)

// beginSections makes the lists that are wanted, in the order in which they are
// written.
func (p *pass) beginSections() {
	s := p.style
	p.left, p.tell, p.noise, p.mail = p.sections[0], p.sections[0], p.sections[0], p.sections[0]
	// Exemptions, the first to end first.
	for _, r := range p.f.Policy.Rules() {
		if r.Exemption() && r.Mode != policy.Enforce {
			e := &Exemption{Rule: r.Name, Owner: r.Owner, Until: r.Until.UTC(), Mode: r.Mode.String(), Groups: []Group{}, section: p.sections[0]}
			p.rules = append(p.rules, e)
			e.number, p.byRule[r] = int64(len(p.rules)), e
		}
	}
	p.Exempted = append(p.Exempted, p.rules...)
	slices.SortFunc(p.Exempted, func(a, b *Exemption) int {
		return cmp.Or(a.Until.Compare(b.Until), cmp.Compare(a.Rule, b.Rule))
	})
	lists := !p.o.Brief && !s.only() && !(s.Summary && s.Format != JSON)
	if lists {
		p.left = p.section(s.left(p.By))
		if p.By != ByAccount && s.Format != CSV {
			p.tell = p.section(section{by: ByAccount, named: true})
		}
		for _, e := range p.Exempted {
			e.section = p.section(section{by: p.By, status: "exempted", exemption: e})
		}
		if p.o.Noise && !(s.Ready && s.Format == Text) {
			p.noise = p.section(section{by: p.By, status: "noise"})
		}
	}
	if p.o.Mail && (s.only() || lists && s.Format == JSON) {
		p.ends = newEnds(p.f)
		p.mail = p.section(section{by: ByAccount, named: true, letters: true})
	}
}

// left are the remaining clients, of which a text with the verdict lists those in the
// way alone.
func (s *Style) left(by By) section {
	left := section{by: by, status: "left"}
	if s.Ready && s.Format == Text {
		left.keep = inTheWay
	}
	return left
}

// inTheWay reports whether clients of a group are, or may be.
func inTheWay(g *Group) bool { return g.Remaining > 0 || g.Login == ledger.LoginUnknown }

// scan reads the ledger.
func (p *pass) scan(ctx context.Context) error {
	scope := ledger.Scope{Since: p.since, Days: p.since.Truncate(day), Logins: len(p.sections) > 1, Progress: p.f.Progress}
	if first := time.Unix(p.first*secondsADay, 0).UTC(); first.Before(p.since) {
		scope.Since, scope.Days = first, first
	}
	if err := p.lists.scan(ctx, p.f.Source, scope, p.network); err != nil {
		return err
	}
	p.arrange()
	p.judge(p.o)
	p.note(p.f, p.o)
	p.Report.Clean()
	return nil
}

// network counts the clients of one.
func (p *pass) network(clients []ledger.Client) error {
	if p.answers != nil {
		if err := p.answers(); err != nil {
			return err
		}
		p.answers = nil
	}
	var all seen
	for i := range clients {
		p.client(&clients[i], &all)
	}
	p.total(&all)
	return nil
}

// seen is what the clients of a network are.
type seen struct {
	noise, accepted, exempted, left       bool
	remaining, loggedIn, unknown, without bool
}

// client counts a row of the ledger.
func (p *pass) client(c *ledger.Client, all *seen) {
	handshakes := p.days(c)
	if c.Last.Before(p.since) {
		return // but for the trend
	}
	if c.Noise {
		all.noise = true
		p.enter(c, handshakes, false, nil, p.noise)
		return
	}
	if p.accepts(c) {
		all.accepted = true
		return
	}
	p.Totals.Handshakes.Add(handshakes)
	k := place{c.Version, string(c.Listener)}
	at := p.places[k]
	if at == nil {
		at = &PlaceTotal{Version: c.Version.String(), Listener: k.listener}
		p.places[k], p.Totals.ByPlace = at, append(p.Totals.ByPlace, at)
	}
	at.Handshakes.Add(handshakes)
	p.count(&at.Clients, &at.last)
	if e := p.exemption(c); e != nil {
		all.exempted = true
		p.count(&e.Clients, &e.last)
		p.enter(c, handshakes, false, e, e.section)
		return
	}
	all.left = true
	for _, a := range c.Advice {
		if at, found := slices.BinarySearch(p.Advice, a); !found {
			p.Advice = slices.Insert(p.Advice, at, a)
		}
	}
	// At an old server nobody can see who logs in.
	counts := c.Login == ledger.LoginOK || c.Login == ledger.LoginUnseen || !keepsNames(p.Identity)
	switch {
	case counts:
		all.remaining, all.loggedIn = true, all.loggedIn || c.Login != ledger.LoginUnseen
	case c.Login == ledger.LoginUnknown:
		all.unknown = true
	default:
		all.without = true
	}
	p.enter(c, handshakes, counts, nil, p.left, p.tell)
}

// days counts the handshakes of a client in the trend, and returns those since
// the beginning of the window.
func (p *pass) days(c *ledger.Client) (since ledger.Counts) {
	for i := range c.Days {
		d := &c.Days[i]
		if d.Number >= max(p.since.Unix(), 0)/secondsADay {
			since.Add(d.Counts)
		}
		if c.Noise || d.Number < p.first {
			continue
		}
		// A day ahead of our clock is nobody's.
		if i := int(d.Number-p.first) / p.Trend.Days; i < len(p.Trend.Periods) {
			t := &p.Trend.Periods[i]
			t.Handshakes.Add(d.Counts)
			p.count(&t.Clients, &t.last)
		}
	}
	return since
}

// enter puts a row, which may have an exemption, into some lists.
func (p *pass) enter(c *ledger.Client, handshakes ledger.Counts, counts bool, e *Exemption, sections ...*section) {
	if len(p.sections) == 1 {
		return
	}
	p.row++
	v := visitOf(p.net, p.row, c, handshakes)
	if counts {
		v.counts = 1
	}
	for _, s := range sections {
		p.put(s, &v, c.Logins)
	}
	if p.ends == nil || c.Noise || len(c.Logins) == 0 {
		return
	}
	v.until, v.rule, v.told = p.ends.of(c), 0, 0
	if e != nil && (v.until == 0 || e.Until.Unix() < v.until) { // which promises nothing beyond its end
		v.until = e.Until.Unix()
	}
	if v.until != 0 {
		v.told = p.ends.told(c, v.until)
	}
	if e != nil {
		v.rule = e.number
	}
	p.put(p.mail, &v, c.Logins)
}

// exemption returns the running exemption that certainly takes a client, or nil.
// A rule that refuses is no exemption, even with an owner.
func (p *pass) exemption(c *ledger.Client) *Exemption {
	if len(p.byRule) == 0 {
		return nil
	}
	first := p.snapshot.Outcomes(c.ForPolicy(), p.f.Now)[0]
	if first.Part < 1 {
		return nil
	}
	return p.byRule[first.Rule]
}

// accepts reports whether the floor in force takes a legacy client, which another one did
// not.
func (p *pass) accepts(c *ledger.Client) bool {
	if _, known := p.f.Hellos[c.JA4]; !known {
		return false
	}
	return !slices.ContainsFunc(p.snapshot.Outcomes(c.ForPolicy(), p.f.Now), func(o policy.Outcome) bool {
		return Meets(c, o, p.f.Hellos, false) != Accepted
	})
}

// total counts a network.
func (p *pass) total(all *seen) {
	one := func(n *int, is bool) {
		if is {
			*n++
		}
	}
	t, j := &p.Totals, &p.Readiness
	one(&t.Clients, all.left || all.exempted)
	one(&t.Left, all.left)
	one(&t.Exempted, all.exempted && !all.left)
	one(&t.Accepted, all.accepted && !all.left && !all.exempted)
	one(&t.Noise, all.noise && !all.left && !all.exempted && !all.accepted)
	one(&j.Remaining, all.remaining)
	one(&j.PassedThrough, all.remaining && !all.loggedIn)
	one(&j.Unknown, all.unknown && !all.remaining)
	one(&j.NotLoggedIn, all.without && !all.remaining && !all.unknown)
}

// arrange brings what was counted into order.
func (p *pass) arrange() {
	slices.SortFunc(p.Totals.ByPlace, func(a, b *PlaceTotal) int {
		return cmp.Or(cmp.Compare(a.Version, b.Version), slices.Index(policy.ListenerNames, a.Listener)-slices.Index(policy.ListenerNames, b.Listener))
	})
	p.Exempted = slices.DeleteFunc(p.Exempted, func(e *Exemption) bool { return e.Clients == 0 })
	for _, e := range p.Exempted {
		e.GroupsInAll = e.section.count
	}
	p.Groups = Groups{p.left.count, p.tell.count, p.noise.count}
}
