package ledger

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"

	"postern/internal/posterntest"
	"postern/policy"
	"postern/proxy"
)

// byRule makes a handshake one that a rule has decided on which has a guard or a grace.
func byRule(name string) func(*proxy.Handshake) {
	return func(h *proxy.Handshake) { h.Verdict.Rule, h.Verdict.Watched = name, name != "plain" }
}

func guardedBy(t *testing.T, text string) *policy.Policy {
	t.Helper()
	p, err := policy.Parse([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// check writes what waits, reads who has logged in, and returns the guards by rule.
func (g *replica) check(p *policy.Policy) map[string]policy.GuardState {
	g.t.Helper()
	g.listDue = time.Time{} // as if it had been a while
	g.flush()
	g.Graces(context.Background(), p)
	states, err := g.Guards(context.Background(), p)
	if err != nil {
		g.t.Fatal(err)
	}
	all := make(map[string]policy.GuardState)
	for _, s := range states {
		all[s.Rule] = s
	}
	return all
}

const twoGuards = `
mode: enforce
guard: {clients: 2, within: 30m, then: observe}
rules:
  - {name: cutover, mode: enforce, match: {listener: [imaps]}, guard: {clients: 3, within: 1h, then: observe}}
  - {name: plain, mode: enforce, match: {listener: [pop3s]}}
`

// known has clients log in, three hours ago.
func (g *replica) known(n int) (addresses []string) {
	for i := range n {
		addresses = append(addresses, fmt.Sprintf("192.0.2.%d", 1+i))
		g.session(hello(addresses[i]), "anna", "")
	}
	g.flush()
	g.later(3 * time.Hour)
	return addresses
}

func TestGuardsCountClientsThatHadLoggedIn(t *testing.T) {
	each(t, func(t *testing.T, g *replica) {
		p := guardedBy(t, twoGuards)
		clients := append(g.known(4), "2001:db8::1", "2001:db8::2")
		g.session(hello("2001:db8::3"), "anna", "") // the same network, which is one client
		g.flush()
		const many = 10_000
		for i := range many { // scanners, and others who never logged in
			g.meet(hello(fmt.Sprintf("198.51.%d.%d", i/200, i%200), byRule("cutover")))
			if i%1000 == 0 {
				g.flush()
			}
		}
		for range many {
			g.meet(hello(clients[0], byRule("cutover")))
		}
		for _, c := range clients {
			g.meet(hello(c, byRule("plain")))                            // has no guard
			g.meet(hello(c, byRule("cutover"), outcome(proxy.Observed))) // was let in
			g.meet(hello(c, byRule("cutover"), outcome(proxy.Failed)))   // has left
		}
		g.meet(hello(clients[1], byRule("cutover"), outcome(proxy.Explained)))
		g.meet(hello(clients[4], byRule("cutover")))
		g.meet(hello(clients[5], byRule("cutover")))
		if s := g.check(p)["cutover"]; s.Seen != 3 || !s.Tripped.IsZero() {
			t.Errorf("three clients: %+v", s)
		}
		g.meet(hello(clients[2], byRule("cutover")))
		for _, c := range clients[:3] { // the policy's own mode has a guard, too
			g.meet(hello(c, byRule("")))
		}
		all := g.check(p)
		if s := all["cutover"]; s.Seen != 4 || !s.Tripped.Equal(g.now()) {
			t.Errorf("four clients: %+v", s)
		}
		if s := all[policy.PolicyGuard]; s.Seen != 3 || !s.Tripped.Equal(g.now()) {
			t.Errorf("two guards at once: %+v", all)
		}
		cutover := all["cutover"]
		by, err := g.store.TrippedBy(t.Context(), &cutover)
		anna := []string{"anna"}
		if want := map[string][]string{"192.0.2.1": anna, "192.0.2.2": anna, "192.0.2.3": anna, "2001:db8::/64": anna}; err != nil || !reflect.DeepEqual(by, want) {
			t.Errorf("%v, %v, want %v", by, err, want)
		}
		since := g.now()
		g.later(48 * time.Hour) // it stays, also for another replica and after a restart
		if s := g.another().check(p)["cutover"]; s.Seen != 0 || !s.Tripped.Equal(since) {
			t.Errorf("two days later, elsewhere: %+v", s)
		}
		if err := g.store.Release(t.Context(), "cutover", g.now()); err != nil {
			t.Fatal(err)
		}
		all = g.check(p)
		if s := all["cutover"]; !s.Tripped.IsZero() || all[policy.PolicyGuard].Tripped.IsZero() {
			t.Errorf("one is released: %+v", all)
		}
	})
}

// TestAGateThatIsKilledInTheMiddle has written refusals, and not yet had the guard trip:
// another one does.
func TestAGateThatIsKilledInTheMiddle(t *testing.T) {
	for _, kind := range []string{"sqlite", "postgres"} {
		t.Run(kind, func(t *testing.T) {
			g := newReplica(t, newURL(t, kind))
			p := guardedBy(t, twoGuards)
			clients := g.known(4)
			g.check(p)
			for _, c := range clients {
				g.meet(hello(c, byRule("cutover")))
			}
			g.flush()
			if s := g.another().check(p)["cutover"]; s.Seen != 4 || !s.Tripped.Equal(g.now()) {
				t.Errorf("%+v", s)
			}
		})
	}
}

// TestAShareIsHeldByTheClockThatIsRight: a gate whose clock is ahead trips a guard, and no
// share grows until then. A guard that was released meanwhile stays so.
func TestAShareIsHeldByTheClockThatIsRight(t *testing.T) {
	each(t, func(t *testing.T, g *replica) {
		p := guardedBy(t, `rules: [{name: ramp, mode: explain, share: {from: 0%, to: 100%}, from: 2026-06-01T00:00:00Z,
			until: 2026-06-11T00:00:00Z, guard: {clients: 0, within: 1h, then: hold}}]`)
		g.known(1)
		right := g.now()
		g.later(5 * 24 * time.Hour)
		ahead := g.now()
		g.check(p)
		g.meet(hello("192.0.2.1", byRule("ramp"), outcome(proxy.Explained)))
		if s := g.check(p)["ramp"]; !s.Tripped.Equal(ahead) {
			t.Errorf("by the clock that is ahead: %+v", s)
		}
		g.at(right)
		other := g.another()
		for _, at := range []time.Time{right, ahead, right} {
			g.at(at)
			s := other.check(p)["ramp"]
			if !s.Tripped.Equal(right) {
				t.Errorf("at %v: %+v", at, s)
			}
			held := p.Guarded([]policy.GuardState{s}, nil).Rule("ramp").ShareAt(ahead)
			if want := p.Rule("ramp").ShareAt(right); held != want {
				t.Errorf("at %v: a share of %v, want %v", at, held, want)
			}
		}
		stale, err := g.store.Guards(t.Context(), p, right)
		if err != nil {
			t.Fatal(err)
		}
		if err := g.store.Release(t.Context(), "ramp", right); err != nil {
			t.Fatal(err)
		}
		if err := g.store.trip(t.Context(), &stale[0], right); err != nil {
			t.Fatal(err)
		}
		if s := g.check(p)["ramp"]; !s.Tripped.IsZero() {
			t.Errorf("released meanwhile: %+v", s)
		}
	})
}

func TestAReleasedGuardBeginsAnew(t *testing.T) {
	each(t, func(t *testing.T, g *replica) {
		p := guardedBy(t, twoGuards)
		clients := g.known(9)
		refuse := func(some []string) {
			for _, c := range some {
				g.meet(hello(c, byRule("cutover")))
			}
		}
		refuse(clients[:4])
		if s := g.check(p)["cutover"]; s.Tripped.IsZero() {
			t.Fatalf("%+v", s)
		}
		until := g.now().Add(time.Hour)
		if err := g.store.Release(t.Context(), "cutover", until); err != nil {
			t.Fatal(err)
		}
		g.later(10 * time.Minute)
		refuse(clients)
		if s := g.check(p)["cutover"]; s.Seen != 0 || !s.Tripped.IsZero() || !s.Released.Equal(until) {
			t.Errorf("while nothing counts: %+v", s)
		}
		g.later(time.Hour)
		refuse(clients[5:8])
		if s := g.check(p)["cutover"]; s.Seen != 3 || !s.Tripped.IsZero() {
			t.Errorf("three of afterwards: %+v", s)
		}
		g.later(40 * time.Minute)
		refuse(clients[8:])
		if s := g.check(p)["cutover"]; s.Seen != 4 || s.Tripped.IsZero() {
			t.Errorf("a fourth: %+v", s)
		}
		if err := g.store.Release(t.Context(), "cutover", g.now()); err != nil {
			t.Fatal(err)
		}
		for i := range 8 { // one an hour never makes four within one
			g.later(59 * time.Minute)
			refuse(clients[i : i+1])
			if s := g.check(p)["cutover"]; s.Seen > 2 || !s.Tripped.IsZero() {
				t.Fatalf("a client an hour: %+v", s)
			}
		}
	})
}

// TestAGraceSurvivesAClockThatJumps ahead and back: it lasts as long as it should.
func TestAGraceSurvivesAClockThatJumps(t *testing.T) {
	each(t, func(t *testing.T, g *replica) {
		p := guardedBy(t, "rules: [{name: cutover, mode: enforce, grace: 7d}]")
		g.known(1)
		g.check(p)
		right := g.now()
		for _, at := range []time.Time{right.Add(30 * 24 * time.Hour), right} {
			g.at(at)
			g.meet(hello("192.0.2.1", byRule("cutover"), outcome(proxy.Explained)))
			g.check(p)
		}
		g.later(8 * 24 * time.Hour)
		g.check(p)
		other := g.another()
		other.check(p)
		for _, r := range []*replica{g, other} {
			if r.Graced(p.Rule("cutover"), netip.MustParseAddr("192.0.2.1"), g.now()) {
				t.Error("a grace of more than seven days")
			}
		}
	})
}

// A clock that jumps ahead and back leaves no refusals in the future that count.
func TestAClockThatJumpsTripsNoGuard(t *testing.T) {
	each(t, func(t *testing.T, g *replica) {
		p := guardedBy(t, twoGuards)
		clients := g.known(4)
		right := g.now()
		g.later(30 * 24 * time.Hour)
		for _, c := range clients[:3] {
			g.meet(hello(c, byRule("cutover")))
		}
		g.check(p)
		g.at(right)
		g.meet(hello(clients[3], byRule("cutover")))
		if s := g.check(p)["cutover"]; s.Seen != 1 || !s.Tripped.IsZero() {
			t.Errorf("%+v", s)
		}
		g.later(24 * time.Hour)
		if s := g.check(p)["cutover"]; s.Seen != 0 {
			t.Errorf("a day later: %+v", s)
		}
	})
}

func TestAGraceBeginsWithTheFirstRefusal(t *testing.T) {
	each(t, func(t *testing.T, g *replica) {
		p := guardedBy(t, "rules: [{name: cutover, mode: enforce, grace: 7d}]")
		rule := p.Rule("cutover")
		known, stranger := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("198.51.100.9")
		g.known(1)
		graced := func(g *replica, client netip.Addr) bool { return g.Graced(rule, client, g.now()) }
		if graced(g, known) {
			t.Error("before the ledger was asked")
		}
		g.check(p)
		if !graced(g, known) || graced(g, stranger) {
			t.Errorf("known %v, stranger %v", graced(g, known), graced(g, stranger))
		}
		if n := testing.AllocsPerRun(100, func() { graced(g, known) }); n != 0 {
			t.Errorf("%v allocations", n)
		}
		first := g.now()
		g.meet(hello("192.0.2.1", byRule("cutover"), outcome(proxy.Explained)))
		g.meet(hello("198.51.100.9", byRule("cutover")))
		g.check(p)
		g.later(6 * 24 * time.Hour)
		g.meet(hello("192.0.2.1", byRule("cutover"), outcome(proxy.Explained)))
		g.check(p)
		other := g.another()
		other.check(p)
		for _, r := range []*replica{g, other} {
			if !graced(r, known) || graced(r, stranger) {
				t.Errorf("on the sixth day: known %v, stranger %v", graced(r, known), graced(r, stranger))
			}
		}
		g.later(24 * time.Hour)
		for _, r := range []*replica{g, other} {
			if graced(r, known) {
				t.Error("on the seventh day")
			}
		}
		since, err := g.store.FirstRefused(t.Context(), known)
		if err != nil || len(since) != 1 || !since["cutover"].Equal(first) {
			t.Errorf("%v, %v, want %v", since, err, first)
		}
		if _, err := g.store.Forget(t.Context(), "192.0.2.1"); err != nil {
			t.Fatal(err)
		}
		if since, err := g.store.FirstRefused(t.Context(), known); err != nil || len(since) != 0 {
			t.Errorf("once it is forgotten: %v, %v", since, err)
		}
	})
}

// What waits is kept while the ledger is away, and the handshakes do not wait for it.
func TestRefusalsAreKeptWhileTheLedgerIsAway(t *testing.T) {
	g := newReplica(t, newURL(t, "sqlite"))
	p := guardedBy(t, twoGuards)
	clients := g.known(4)
	for _, c := range clients {
		g.meet(hello(c, byRule("cutover")))
	}
	ended, cancel := context.WithCancel(context.Background())
	cancel()
	if err := g.Flush(ended); err == nil {
		t.Fatal("written")
	}
	if states, err := g.Guards(ended, p); err == nil {
		t.Fatalf("%+v", states)
	}
	if s := g.check(p)["cutover"]; s.Seen != 4 || s.Tripped.IsZero() {
		t.Errorf("%+v", s)
	}
	if err := g.store.Prune(t.Context(), g.now().Add(time.Second)); err != nil {
		t.Fatal(err)
	}
	if s := g.check(p)["cutover"]; s.Seen != 0 || s.Tripped.IsZero() {
		t.Errorf("pruned: %+v", s)
	}
}

// TestLoginsAreKnownElsewhere: a login that another replica has written before a refusal
// counts, however shortly before; and who is forgotten has neither.
func TestLoginsAreKnownElsewhere(t *testing.T) {
	for _, kind := range []string{"sqlite", "postgres"} {
		t.Run(kind, func(t *testing.T) {
			a := newReplica(t, newURL(t, kind))
			p := guardedBy(t, "rules: [{name: cutover, mode: enforce, grace: 7d, guard: {clients: 0, within: 1h, then: observe}}]")
			b := a.another()
			b.check(p)
			a.session(hello("192.0.2.1"), "anna", "")
			a.flush()
			b.meet(hello("192.0.2.1", byRule("cutover")))
			b.meet(hello("198.51.100.9", byRule("cutover")))
			if s := b.check(p)["cutover"]; s.Seen != 1 || s.Tripped.IsZero() {
				t.Errorf("%+v", s)
			}
			if n := len(b.queue.refusals); n != 0 {
				t.Errorf("%d refusals wait", n)
			}
			client := netip.MustParseAddr("192.0.2.1")
			if !b.Graced(p.Rule("cutover"), client, b.now()) {
				t.Error("no grace")
			}
			b.meet(hello("192.0.2.1", byRule("cutover")))
			if _, err := b.store.Forget(t.Context(), "192.0.2.1"); err != nil {
				t.Fatal(err)
			}
			a.check(p)
			if s := b.check(p)["cutover"]; s.Seen != 0 {
				t.Errorf("what was forgotten is back: %+v", s)
			}
			for name, g := range map[string]*replica{"here": b, "elsewhere": a} {
				if g.Graced(p.Rule("cutover"), client, b.now()) {
					t.Errorf("forgotten, and known %s", name)
				}
			}
		})
	}
}

// TestALedgerOfAnEarlierVersionHasNoGuards: commands that read it say so, and an instance
// of this version makes the tables.
func TestALedgerOfAnEarlierVersionHasNoGuards(t *testing.T) {
	for _, kind := range []string{"sqlite", "postgres"} {
		t.Run(kind, func(t *testing.T) {
			g := newReplica(t, newURL(t, kind))
			clients := g.known(4)
			for _, table := range []string{"refusals", "guards", "tripped_by"} {
				if _, err := g.store.db.Exec("DROP TABLE " + table); err != nil {
					t.Fatal(err)
				}
			}
			p := guardedBy(t, twoGuards)
			reader, err := OpenReadOnly(t.Context(), g.url)
			if err != nil {
				t.Fatal(err)
			}
			defer reader.Close()
			states, err := reader.Guards(t.Context(), p, g.now())
			if err != nil || len(states) != 2 || states[1].Rule != "cutover" || states[1].Clients != 3 {
				t.Errorf("%+v, %v", states, err)
			}
			if first, err := reader.FirstRefused(t.Context(), netip.MustParseAddr("192.0.2.1")); err != nil || len(first) != 0 {
				t.Errorf("%v, %v", first, err)
			}
			if by, err := reader.TrippedBy(t.Context(), &states[1]); err != nil || len(by) != 0 {
				t.Errorf("%v, %v", by, err)
			}
			g.restart(plainIdentity)
			g.check(p)
			for _, c := range clients {
				g.meet(hello(c, byRule("cutover")))
			}
			if err := g.Close(t.Context()); err != nil { // which writes what waits
				t.Fatal(err)
			}
			if states, err := reader.Guards(t.Context(), p, g.now()); err != nil || states[1].Seen != 4 || !states[1].Tripped.IsZero() {
				t.Errorf("%+v, %v", states, err)
			}
			g.restart(plainIdentity) // before it could trip the guard
			if s := g.check(p)["cutover"]; s.Seen != 4 || s.Tripped.IsZero() {
				t.Errorf("%+v", s)
			}
		})
	}
}

// TestGuardsDoNotWaitForGraces: who has logged in may take long to read, and guards follow
// within seconds all the same. No more clients are counted than trip one.
func TestGuardsDoNotWaitForGraces(t *testing.T) {
	g := newReplica(t, newURL(t, "postgres"))
	p := guardedBy(t, "rules: [{name: cutover, mode: enforce, grace: 7d, guard: {clients: 3, within: 1h, then: explain}}]")
	for _, c := range g.known(9) {
		g.meet(hello(c, byRule("cutover")))
	}
	g.flush()
	slow, err := g.store.db.Begin()
	if err != nil {
		t.Fatal(err)
	}
	defer slow.Rollback()
	if _, err := slow.Exec("LOCK TABLE sightings"); err != nil {
		t.Fatal(err)
	}
	posterntest.Within(t, "looking at guards", 5*time.Second, func() time.Duration {
		begun := time.Now()
		states, err := g.Guards(t.Context(), p)
		if err != nil || states[0].Seen != 4 || states[0].Tripped.IsZero() {
			t.Errorf("%+v, %v", states, err)
		}
		return time.Since(begun)
	})
}

// TestTheLogSaysThatGuardsAreBlind once, while the ledger does not answer.
func TestTheLogSaysThatGuardsAreBlind(t *testing.T) {
	g := newReplica(t, newURL(t, "sqlite"))
	var log strings.Builder
	g.log = slog.New(slog.NewTextHandler(&log, nil))
	p := guardedBy(t, twoGuards)
	late, cancel := context.WithTimeout(t.Context(), 0)
	defer cancel()
	for range 3 {
		if _, err := g.Guards(late, p); err == nil {
			t.Fatal("it answers")
		}
	}
	for range 3 {
		if _, err := g.Guards(t.Context(), p); err != nil {
			t.Fatal(err)
		}
	}
	if n := strings.Count(log.String(), "guards and graces stay as they are"); n != 1 {
		t.Error(log.String())
	}
}
