package ledger

import (
	"fmt"
	"maps"
	"net/netip"
	"reflect"
	"slices"
	"testing"
	"time"

	"postern/policy"
	"postern/proxy"
)

const cutOver = `rules: [{name: cutover, mode: enforce, grace: 7d, guard: {clients: 1, within: 1h, then: observe}}]`

// rejected is the handshake of a client that a rule of the policy refuses, with TLS 1.2.
func rejected(p *policy.Policy, client string) *proxy.Handshake {
	h := let(p, client, gcm)
	h.Outcome, h.Version, h.Verdict.Rule, h.Verdict.Watched = proxy.Rejected, 0, "cutover", true
	return h
}

// TestARaisedFloorKnowsWhomACandidateHasRemembered: once a remembered candidate, or one above
// it, has become the floor, those that logged in before are clients that have logged in, by
// name, also where the policy has no candidate any more and after a restart.
func TestARaisedFloorKnowsWhomACandidateHasRemembered(t *testing.T) {
	for candidate, raised := range map[string]string{
		"tls1.3":      "floor: tls1.3\n" + cutOver,
		"tls1.2-aead": "floor: tls1.3\ncandidates: [{name: pq, floor: tls1.3-pq, remember: true}]\n" + cutOver,
		"tls1.3-pq":   "rules: [{name: cutover, mode: enforce, floor: tls1.3, grace: 7d, guard: {clients: 1, within: 1h, then: observe}}]",
	} {
		t.Run(candidate, func(t *testing.T) {
			each(t, func(t *testing.T, g *replica) {
				testRaised(t, g, remembering(t, "{name: next, floor: "+candidate+", remember: true}"), guardedBy(t, raised))
			})
		})
	}
}

func testRaised(t *testing.T, g *replica, before, p *policy.Policy) {
	g.Remember(before)
	g.login(let(before, "192.0.2.7", cbc), "anna", "Old Mail")
	g.login(let(before, "2001:db8::7", cbc), "bert", "Old Mail")
	tried := let(before, "192.0.2.9", cbc)
	g.meet(tried)
	g.Closed(&proxy.Closed{Conn: tried.Conn, FailedLogins: 2})
	g.meet(let(before, "192.0.2.10", cbc))
	reaches := modern(before) // the raised floor, and not tls1.3-pq
	reaches.Client = netip.MustParseAddrPort("192.0.2.11:4000")
	g.login(reaches, "mona", "New Mail")
	g.later(time.Hour)
	g.restart(plainIdentity)
	g.Remember(p)

	rule, addr := p.Rule("cutover"), netip.MustParseAddr
	g.check(p)
	for client, want := range map[string]bool{"192.0.2.7": true, "2001:db8::99": true, "192.0.2.9": false, "192.0.2.10": false, "192.0.2.11": false} {
		if got := g.Graced(rule, addr(client), g.now()); got != want {
			t.Errorf("%s: grace %v, want %v", client, got, want)
		}
	}
	cbcOnly := func(client string) *proxy.Handshake {
		h := rejected(p, client)
		h.Hello.CipherSuites = []uint16{cbc}
		h.JA4 = h.Hello.Fingerprint()
		return h
	}
	if n := g.Identify(cbcOnly("192.0.2.7")); n.Accounts != 1 || n.Account != "anna" || n.Software != "Old Mail" || n.Inferred {
		t.Errorf("before its first refusal: %+v", n)
	}
	for _, client := range []string{"192.0.2.7", "192.0.2.9", "192.0.2.10", "198.51.100.1"} {
		g.meet(cbcOnly(client))
	}
	if s := g.check(p)["cutover"]; s.Seen != 1 || !s.Tripped.IsZero() {
		t.Errorf("one client that had logged in: %+v", s)
	}
	g.meet(cbcOnly("2001:db8::99")) // which has another address now
	s := g.check(p)["cutover"]
	if s.Seen != 2 || !s.Tripped.Equal(g.now()) {
		t.Errorf("two clients that had logged in: %+v", s)
	}
	by, err := g.store.TrippedBy(t.Context(), &s)
	if want := map[string][]string{"192.0.2.7": {"anna"}, "2001:db8::/64": {"bert"}}; err != nil || !reflect.DeepEqual(by, want) {
		t.Errorf("%v, %v, want %v", by, err, want)
	}
	logins := make(map[string]string)
	for _, c := range g.clients(Filter{Noise: true}) {
		logins[c.Addr.String()] = fmt.Sprintf("%s %v %v%v", c.Login, c.Noise, c.Accounts, c.Software)
	}
	want := map[string]string{
		"192.0.2.7": "ok false [anna][Old Mail]", "2001:db8::99": "ok false [][]", "192.0.2.9": "failed true [][]",
		"192.0.2.10": "unknown false [][]", "198.51.100.1": "unknown false [][]",
	}
	if !maps.Equal(logins, want) {
		t.Errorf("%v, want %v", logins, want)
	}
	g.later(8 * 24 * time.Hour)
	g.check(p)
	if g.Graced(rule, addr("192.0.2.7"), g.now()) {
		t.Error("a grace of more than seven days")
	}
	for _, who := range []string{"anna", "2001:db8::99", "2001:db8::7"} {
		if _, err := g.store.Forget(t.Context(), who); err != nil {
			t.Fatal(err)
		}
	}
	g.restart(plainIdentity)
	if n := g.Identify(cbcOnly("192.0.2.7")); n.Accounts != 0 {
		t.Errorf("forgotten: %+v", n)
	}
	g.meet(cbcOnly("192.0.2.7"))
	for _, c := range g.clients(Filter{Noise: true}) {
		if len(c.Accounts) > 0 || c.Addr.Is6() {
			t.Errorf("forgotten: %+v", c)
		}
	}
}

// TestALowerFloorDoesNotKnowWhomItLetsIn: that others behind an address have logged in, whom
// the floor lets in, says nothing of who it refuses there.
func TestALowerFloorDoesNotKnowWhomItLetsIn(t *testing.T) {
	each(t, func(t *testing.T, g *replica) {
		p := guardedBy(t, "candidates: ["+noTLS13+"]\n"+cutOver)
		g.Remember(p)
		g.login(let(p, "192.0.2.7", gcm), "anna", "Mail")
		g.flush()
		g.meet(hello("192.0.2.7", byRule("cutover")))
		if s := g.check(p)["cutover"]; s.Seen != 0 || g.Graced(p.Rule("cutover"), netip.MustParseAddr("192.0.2.7"), g.now()) {
			t.Errorf("%+v", s)
		}
		if c := g.only(Filter{}); c.Login != LoginUnknown || len(c.Accounts) > 0 {
			t.Errorf("%+v", c)
		}
	})
}

// TestALoginBetweenTwoBrownoutsIsKnownInTheSecond: the first has written the client already.
func TestALoginBetweenTwoBrownoutsIsKnownInTheSecond(t *testing.T) {
	each(t, func(t *testing.T, g *replica) {
		floor, raised := remembering(t, noTLS13), guardedBy(t, "floor: tls1.3\n"+cutOver)
		g.Remember(floor)
		g.meet(rejected(raised, "192.0.2.7"))
		g.flush()
		g.later(15 * time.Minute)
		g.login(let(floor, "192.0.2.7", gcm), "anna", "Mail")
		g.flush()
		g.later(15 * time.Minute)
		g.meet(rejected(raised, "192.0.2.7"))
		if s := g.check(raised)["cutover"]; s.Seen != 1 {
			t.Errorf("%+v", s)
		}
		if c := g.only(Filter{}); c.Login != LoginOK || !slices.Equal(c.Accounts, []string{"anna"}) || c.Counts.Rejected != 2 {
			t.Errorf("%+v", c)
		}
	})
}

// TestWhatIsRememberedNoMoreGoes after the retention, and an empty ledger is no harm.
func TestWhatIsRememberedNoMoreGoes(t *testing.T) {
	each(t, func(t *testing.T, g *replica) {
		before, p := remembering(t, noTLS13), guardedBy(t, "floor: tls1.3\n"+cutOver)
		g.Remember(before)
		g.login(let(before, "192.0.2.7", gcm), "anna", "Mail")
		g.restart(plainIdentity)
		g.Remember(p)
		g.later(91 * 24 * time.Hour)
		if err := g.store.Prune(t.Context(), g.now().Add(-90*24*time.Hour)); err != nil {
			t.Fatal(err)
		}
		g.meet(rejected(p, "192.0.2.7"))
		if s := g.check(p)["cutover"]; s.Seen != 0 || g.Graced(p.Rule("cutover"), netip.MustParseAddr("192.0.2.7"), g.now()) {
			t.Errorf("%+v", s)
		}
		if c := g.only(Filter{}); c.Login != LoginUnknown || len(c.Accounts) > 0 {
			t.Errorf("%+v", c)
		}
	})
}

// Where accounts are kept no longer, none comes from what a candidate has remembered.
func TestNoAccountIsTakenOverOnceIdentityIsOff(t *testing.T) {
	each(t, func(t *testing.T, g *replica) {
		g.Remember(remembering(t, noTLS13))
		g.login(let(remembering(t, noTLS13), "192.0.2.7", cbc), "anna", "Old Mail")
		g.restart(nil)
		p := guardedBy(t, "floor: tls1.3\n"+cutOver)
		g.Remember(p)
		h := rejected(p, "192.0.2.7")
		h.Hello.CipherSuites = []uint16{cbc}
		h.JA4 = h.Hello.Fingerprint()
		g.meet(h)
		if c := g.only(Filter{}); len(c.Accounts) != 0 || c.Login != "ok" {
			t.Errorf("%+v", c)
		}
	})
}
