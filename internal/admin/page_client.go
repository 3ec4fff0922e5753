package admin

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"time"

	"postern/internal/ledger"
	"postern/internal/plan"
	"postern/internal/report"
	"postern/internal/text"
	"postern/policy"
)

const (
	// placesShown bounds the places of a client, daysShown how far its days go
	// back, and othersShown the other addresses of its network.
	placesShown = 100
	daysShown   = 90
	othersShown = 50
)

// clientPage is one address.
type clientPage struct {
	frame
	// Clients are legacy, or those of a candidate.
	Clients *Clients
	Address string
	// Problem is why there is nothing else.
	Problem string
	Guards  []policy.GuardState // of the policy

	Places []clientRow
	Total  int // of the places
	First  time.Time
	Last   time.Time
	Counts ledger.Counts
	Days   []ledger.Day // the last one first
	// Courses are what the policy does, by place; Offers what was offered, by
	// fingerprint.
	Courses []courseView
	Offers  []offerView
	// Others are addresses of the same Network, which is one of IPv6.
	Network    netip.Prefix
	Others     []netip.Addr
	OthersMore bool
}

// courseView is the course of a policy for some places.
type courseView struct {
	Places []*ledger.Client
	Turns  []turnView
}

type turnView struct {
	Time         time.Time
	Zone         *time.Location
	Met, Windows []partJSON
}

// offerView is a hello.
type offerView struct {
	JA4    string
	Hello  *policy.Hello // nil where it is not kept
	Floors []policy.Verdict
}

func (p *Page) clientView(r *http.Request) (status int, v *clientPage) {
	ctx, cancel := context.WithTimeout(r.Context(), ledgerTimeout)
	defer cancel()
	s := p.State()
	query := r.URL.Query()
	v = &clientPage{frame: p.frame(s), Guards: s.Policy.Guards()}
	v.Title, v.Candidate = "Client", query.Get("candidate")
	var unknown error
	if v.Clients, unknown = p.Clients.of(v.Candidate); unknown != nil {
		v.Candidate, v.Problem = "", "candidate: "+unknown.Error()
		return http.StatusBadRequest, v
	}
	addr, err := netip.ParseAddr(query.Get("address"))
	if err != nil || addr.Zone() != "" {
		v.Problem = "That is no address: the page of a client is /client?address=192.0.2.7, say."
		return http.StatusBadRequest, v
	}
	addr = addr.Unmap()
	v.Address = addr.String()
	v.Title = "Client " + v.Address
	if err := v.read(ctx, addr, s); err != nil {
		logUnread(ctx, p.Clients.Log, err)
		v.Problem = "The " + unread + "."
		return http.StatusServiceUnavailable, v
	}
	if len(v.Places) == 0 {
		came := text.Either(v.Candidate == "", "with old TLS", "with what this candidate would refuse and the floor accepts")
		v.Problem = "The ledger does not know this address: it has not come " + came + ", or is forgotten."
		return http.StatusNotFound, v
	}
	return http.StatusOK, v
}

// read fills in what the ledger knows of an address.
func (v *clientPage) read(ctx context.Context, addr netip.Addr, s PolicyState) error {
	c := v.Clients
	f := ledger.Filter{Network: netip.PrefixFrom(addr, addr.BitLen()), Noise: true}
	found, err := c.Store.Find(ctx, f, ledger.Order{By: ledger.ByLastSeen, Descending: true}, "", placesShown)
	if err == nil {
		v.Places, err = c.rows(ctx, found.Clients)
	}
	v.Total = found.Total
	places := found.Clients
	for _, p := range places {
		v.First, v.Last = text.Earlier(cmp.Or(v.First, p.First), p.First), text.Later(v.Last, p.Last)
		v.Counts.Add(p.Counts)
	}
	if err = cmp.Or(err, v.readDays(ctx, places, s.Now), v.readOthers(ctx, addr)); err != nil {
		return err
	}
	hellos, err := c.Store.HellosOf(ctx, places)
	refusals, failed := c.Store.Refusals(ctx, s.Policy, places)
	for i := range places {
		v.addCourse(&places[i], s, hellos, refusals)
		v.addOffer(&places[i], s.Now, hellos)
	}
	return cmp.Or(err, failed)
}

// readDays adds up the days of the places.
func (v *clientPage) readDays(ctx context.Context, places []ledger.Client, now time.Time) error {
	err := v.Clients.Store.AddDays(ctx, places, now.Add(-daysShown*day))
	for _, c := range places {
		for _, d := range c.Days {
			i := slices.IndexFunc(v.Days, func(o ledger.Day) bool { return o.Number == d.Number })
			if i < 0 {
				v.Days, i = append(v.Days, ledger.Day{Number: d.Number}), len(v.Days)
			}
			v.Days[i].Counts.Add(d.Counts)
		}
	}
	slices.SortFunc(v.Days, func(a, b ledger.Day) int { return int(b.Number - a.Number) })
	return err
}

// readOthers lists the other addresses of an IPv6 network, which is one client.
func (v *clientPage) readOthers(ctx context.Context, addr netip.Addr) error {
	if v.Network = policy.ClientPrefix(addr); addr.Is4() {
		return nil
	}
	list, _, err := v.Clients.Store.Clients(ctx, ledger.Filter{Network: v.Network, Noise: true}, ledger.Order{By: ledger.ByLastSeen, Descending: true}, "", maxLimit)
	for _, c := range list {
		if c.Addr != addr && !slices.Contains(v.Others, c.Addr) {
			v.Others = append(v.Others, c.Addr)
		}
	}
	v.OthersMore = len(v.Others) > othersShown || len(list) == maxLimit
	v.Others = v.Others[:min(len(v.Others), othersShown)]
	return err
}

// addCourse adds what the policy does with a client at a place.
func (v *clientPage) addCourse(c *ledger.Client, s PolicyState, hellos map[string]policy.Hello, refusals ledger.Refusals) {
	var turns []turnView
	ends := func(r *policy.Rule) time.Time { return refusals.GraceEnds(r, c.Addr) }
	for _, t := range plan.Course(s.Policy, c.ForPolicy(), s.Now, s.Now.Add(changesWithin), ends) {
		view := v.Clients.view(c, t.Outcomes, hellos, refusals)
		turn := turnView{Time: t.Time, Met: view.Met}
		if view.Parts == nil { // all of its connections meet the same
			last := view.Met[len(view.Met)-1]
			last.Part = 1
			turn.Met = []partJSON{last}
		}
		if t.Rule != nil {
			turn.Zone = t.Rule.Zone
		}
		for _, o := range t.Windows {
			turn.Windows = append(turn.Windows, v.Clients.view(c, []policy.Outcome{o}, hellos, refusals).Met...)
		}
		if n := len(turns); n == 0 || !slices.Equal(turns[n-1].Met, turn.Met) || !slices.Equal(turns[n-1].Windows, turn.Windows) {
			turns = append(turns, turn)
		}
	}
	same := func(o courseView) bool { return fmt.Sprint(o.Turns) == fmt.Sprint(turns) }
	i := slices.IndexFunc(v.Courses, same)
	if i < 0 {
		v.Courses, i = append(v.Courses, courseView{Turns: turns}), len(v.Courses)
	}
	v.Courses[i].Places = append(v.Courses[i].Places, c)
}

// addOffer adds the hello of a client, and which floors refuse it.
func (v *clientPage) addOffer(c *ledger.Client, now time.Time, hellos map[string]policy.Hello) {
	if slices.ContainsFunc(v.Offers, func(o offerView) bool { return o.JA4 == c.JA4 }) {
		return
	}
	o := offerView{JA4: c.JA4}
	if h, known := hellos[c.JA4]; known {
		h.Unreadable = c.Reason == policy.ReasonMalformed
		o.Hello = &h
		o.Floors = text.Each(policy.Floors, func(f policy.Floor) policy.Verdict {
			return policy.New(f, policy.Enforce).At(now).Decide(&h, policy.ConnInfo{Keys: report.KeysAssumed}, now, 0)
		})
	}
	v.Offers = append(v.Offers, o)
}
