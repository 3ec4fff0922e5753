package ledger

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"postern/policy"
	"postern/proxy"
)

func remembering(t testing.TB, candidates string) *policy.Policy {
	t.Helper()
	p, err := policy.Parse([]byte("candidates: [" + candidates + "]\n"))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

const (
	noAEAD  = "{name: no aead, floor: tls1.2-aead, remember: true}"
	noTLS13 = "{name: no tls 1.3, floor: tls1.3, remember: true}"
)

// let is the handshake of a client that the policy lets in, with TLS 1.2 and those suites.
func let(p *policy.Policy, client string, suites ...uint16) *proxy.Handshake {
	return hello(client, func(h *proxy.Handshake) {
		h.Hello = &policy.Hello{Versions: []uint16{0x303}, CipherSuites: suites, ServerName: "imap.example.org", Groups: []tls.CurveID{0x17},
			SignatureSchemes: []tls.SignatureScheme{0x403, 0x804}, Points: []uint8{0}}
		h.Verdict = p.At(noon).Decide(h.Hello, policy.ConnInfo{Keys: policy.ECDSAP256 | policy.RSA}, noon, 0)
		h.Outcome, h.Version, h.Legacy, h.Remembered = proxy.Accepted, policy.TLS12, h.Verdict.Legacy(), h.Verdict.Remembered
	})
}

const gcm, cbc = 0xc02b, 0xc009 // ECDHE-ECDSA with AES-128

// login adds a session in which the client logs in, to a handshake that was let in.
func (g *replica) login(h *proxy.Handshake, account, software string) {
	g.meet(h)
	g.Login(&proxy.Login{Conn: h.Conn, Account: account, Software: software})
	g.Closed(&proxy.Closed{Conn: h.Conn})
}

// of is a replica whose store is that of a candidate's floor, to read.
func (g *replica) of(f policy.Floor) *replica {
	return &replica{t: g.t, url: g.url, Recorder: g.Recorder, store: g.store.Candidate(f), clock: g.clock}
}

func TestCandidatesHaveLedgersOfTheirOwn(t *testing.T) {
	each(t, func(t *testing.T, g *replica) {
		p := remembering(t, noAEAD+", "+noTLS13+", {name: counted, floor: tls1.3-pq}")
		g.Remember(p)
		aead, tls13 := g.of(policy.FloorTLS12AEAD), g.of(policy.FloorTLS13)
		g.login(let(p, "192.0.2.7", cbc), "anna", "Outlook 16")
		g.login(let(p, "192.0.2.8", gcm), "bert", "'; DROP TABLE tls1_3_sightings; -- sightings\x00\xff")
		g.login(let(p, "2001:db8::8", gcm), "\x1fnobody", "\x1b[31m")
		g.session(hello("192.0.2.9"), "dora", "Old Mail")
		failed := let(p, "192.0.2.10", gcm)
		failed.Outcome = proxy.Failed
		g.meet(failed)

		if c := g.only(Filter{}); c.Addr.String() != "192.0.2.9" || c.Remembered {
			t.Errorf("legacy: %+v", c)
		}
		c := aead.only(Filter{})
		if c.Addr.String() != "192.0.2.7" || c.Reason != policy.ReasonCipher || c.Version != policy.TLS12 || !c.Remembered || c.Login != LoginOK ||
			c.Counts != (Counts{Observed: 1}) || !slices.Equal(c.Accounts, []string{"anna"}) || !slices.Equal(c.Software, []string{"Outlook 16"}) || len(c.Advice) > 0 {
			t.Errorf("without AEAD: %+v", c)
		}
		list := tls13.clients(Filter{})
		if got := addresses(list); !slices.Equal(got, []string{"192.0.2.7", "192.0.2.8", "2001:db8::8"}) {
			t.Errorf("without TLS 1.3: %v", got)
		}
		if list := tls13.clients(Filter{Account: "bert"}); len(list) != 1 || !strings.HasPrefix(list[0].Software[0], "'; DROP TABLE tls1_3_sightings; -- sightings") {
			t.Errorf("a forged name: %+v", list)
		}
		if list := tls13.clients(Filter{Noise: true, Network: netip.MustParsePrefix("192.0.2.10/32")}); len(list) != 1 || !list[0].Noise || list[0].Counts.Failed != 1 {
			t.Errorf("one that broke off: %+v", list)
		}
		for _, r := range []*replica{g, aead, tls13} {
			want := map[*replica]int{g: 1, aead: 1, tls13: 3}[r]
			distinct, _, err := r.store.Distinct(t.Context(), g.now())
			i := slices.IndexFunc(distinct, func(d Distinct) bool { return d.Listener == Any && d.Version == Any })
			if err != nil || i < 0 || distinct[i].ByWindow != [4]int{want, want, want, want} {
				t.Errorf("%v, %v: want %d", distinct, err, want)
			}
		}
		hellos, err := g.store.Hellos(t.Context())
		if err != nil || len(hellos) != 3 {
			t.Errorf("%d hellos, %v", len(hellos), err)
		}
		if _, err := g.store.Candidate(policy.FloorTLS13PQ).Began(t.Context()); !errors.Is(err, errNotRemembered) {
			t.Errorf("one that is not remembered: %v", err)
		}
	})
}

// A scan of both meets each network once, with clients of both.
func TestAScanHasTheClientsOfACandidateToo(t *testing.T) {
	each(t, func(t *testing.T, g *replica) {
		p := remembering(t, noTLS13)
		scan := func() (networks, clients, remembered int) {
			seen := make(map[string]bool)
			if err := g.store.Scan(t.Context(), Scope{With: g.store.Candidate(policy.FloorTLS13), Logins: true, Days: noon.AddDate(0, 0, -1)}, func(list []Client) error {
				if seen[list[0].Network()] {
					t.Errorf("%s comes twice", list[0].Network())
				}
				seen[list[0].Network()] = true
				for _, c := range list {
					clients++
					if c.Remembered {
						remembered++
					}
					if len(c.Days) != 1 || len(c.Accounts) != 1 || c.Accounts[0] != c.Addr.String() {
						t.Errorf("%+v", c)
					}
				}
				return nil
			}); err != nil {
				t.Fatal(err)
			}
			return len(seen), clients, remembered
		}
		const n = 300
		for i := range n {
			a := fmt.Sprintf("10.0.%d.%d", i/100, i%100)
			g.session(hello(a), a, "")
		}
		g.flush()
		if networks, clients, _ := scan(); networks != n || clients != n {
			t.Errorf("%d networks, %d clients before anybody is remembered", networks, clients)
		}
		g.Remember(p)
		for i := n / 2; i < n+n/2; i++ {
			a := fmt.Sprintf("10.0.%d.%d", i/100, i%100)
			g.login(let(p, a, gcm), a, "")
		}
		g.flush()
		if networks, clients, remembered := scan(); networks != n+n/2 || clients != 2*n || remembered != n {
			t.Errorf("%d networks, %d clients, %d of them remembered", networks, clients, remembered)
		}
	})
}

// A full ledger goes on to count those whom it knows, and no others; those are counted as
// dropped, and nothing of them is kept.
func TestTheLedgerOfACandidateIsBounded(t *testing.T) {
	each(t, func(t *testing.T, g *replica) {
		p := remembering(t, noTLS13)
		g.Remember(p)
		tls13 := g.of(policy.FloorTLS13)
		if tls13.store.most != 1_000_000 {
			t.Errorf("%d are remembered, want a million", tls13.store.most)
		}
		tls13.store.most = 3
		for i := range 5 {
			g.login(let(p, fmt.Sprintf("192.0.2.%d", i), gcm), fmt.Sprintf("user%d", i), "Mail")
		}
		list := tls13.clients(Filter{})
		if len(list) != 3 || g.Dropped() != 2 {
			t.Fatalf("%d clients, %d dropped: %v", len(list), g.Dropped(), addresses(list))
		}
		g.restart(plainIdentity) // which knows none of them
		if tls13 = g.of(policy.FloorTLS13); g.url == Memory {
			tls13.store.sized = time.Time{}
		}
		g.Remember(p)
		tls13.store.most = 3
		for i := range 5 {
			g.login(let(p, fmt.Sprintf("192.0.2.%d", i), gcm), fmt.Sprintf("user%d", i), "Other")
		}
		for _, c := range tls13.clients(Filter{}) {
			if c.Counts.Observed != 2 || len(c.Software) != 2 {
				t.Errorf("%+v", c)
			}
		}
		if n := g.Dropped(); n != 2 {
			t.Errorf("%d dropped after a restart", n)
		}
		accounts, err := number(t.Context(), tls13.store, "counting", `SELECT count(DISTINCT account) FROM accounts`)
		if err != nil || accounts != 3 {
			t.Errorf("%d accounts, %v", accounts, err)
		}
		if _, err := g.store.Forget(t.Context(), list[0].Addr.String()); err != nil {
			t.Fatal(err)
		}
		tls13.store.sized = time.Time{} // a minute later
		g.login(let(p, "192.0.2.200", gcm), "zoe", "Mail")
		if n := len(tls13.clients(Filter{})); n != 3 || g.Dropped() != 2 {
			t.Errorf("%d clients, %d dropped, after one was erased", n, g.Dropped())
		}
	})
}

func TestCandidatesForget(t *testing.T) {
	each(t, func(t *testing.T, g *replica) {
		p := remembering(t, noAEAD+", "+noTLS13)
		g.Remember(p)
		tls13 := g.of(policy.FloorTLS13)
		g.login(let(p, "192.0.2.7", cbc), "anna", "Mail")
		g.login(let(p, "192.0.2.8", gcm), "bert", "Mail")
		g.flush()
		g.login(let(p, "192.0.2.7", cbc), "anna", "Mail") // waits to be written
		other := g.another()                              // as the command does, beside a running instance
		for _, who := range []string{"192.0.2.7", "bert"} {
			if n, err := other.store.Forget(t.Context(), who); err != nil || n == 0 {
				t.Errorf("%s: %d rows, %v", who, n, err)
			}
		}
		if g.url == Memory { // where both have one store, and the recorder has forgotten too
			if c := tls13.only(Filter{}); c.Addr.String() != "192.0.2.8" || len(c.Accounts) > 0 {
				t.Errorf("%+v", c)
			}
		}
		if n, err := number(t.Context(), g.store.Candidate(policy.FloorTLS12AEAD), "counting", `SELECT count(*) FROM accounts`); err != nil || n != 0 {
			t.Errorf("%d accounts, %v", n, err)
		}
		g.later(91 * 24 * time.Hour)
		if err := g.store.Prune(t.Context(), g.now().Add(-90*24*time.Hour)); err != nil {
			t.Fatal(err)
		}
		if list := tls13.clients(Filter{Noise: true}); g.url == Memory && len(list) > 0 {
			t.Errorf("after the retention: %v", addresses(list))
		}
	})
}

// Replicas of one ledger remember for each other, whichever knows a candidate first.
func TestReplicasRememberTogether(t *testing.T) {
	for _, kind := range []string{"sqlite", "postgres"} {
		t.Run(kind, func(t *testing.T) {
			g := newReplica(t, newURL(t, kind))
			other := g.another()
			p := remembering(t, noTLS13)
			g.Remember(p)
			other.Remember(p)
			g.login(let(p, "192.0.2.7", gcm), "anna", "Mail")
			other.login(let(p, "192.0.2.7", gcm), "anna", "Mail")
			other.login(let(p, "192.0.2.8", gcm), "bert", "Mail")
			other.flush()
			list := g.of(policy.FloorTLS13).clients(Filter{})
			if got := addresses(list); !slices.Equal(got, []string{"192.0.2.7", "192.0.2.8"}) {
				t.Fatalf("%v", got)
			}
			for _, c := range list {
				if want := map[string]int64{"192.0.2.7": 2, "192.0.2.8": 1}[c.Addr.String()]; c.Counts.Observed != want {
					t.Errorf("%+v, want %d", c, want)
				}
			}
			there, err := OpenReadOnly(t.Context(), g.url)
			if err != nil {
				t.Fatal(err)
			}
			defer there.Close()
			if n, err := there.Candidate(policy.FloorTLS13).Count(t.Context(), Filter{}); err != nil || n != 2 {
				t.Errorf("%d to a reader, %v", n, err)
			}
			if _, err := there.Candidate(policy.FloorTLS12AEAD).Count(t.Context(), Filter{}); !errors.Is(err, errNotRemembered) {
				t.Errorf("what nobody remembers: %v", err)
			}
		})
	}
}

// A candidate that comes by another policy is remembered from then on; one that goes is
// no longer.
func TestAnotherPolicyRemembersOthers(t *testing.T) {
	g := newReplica(t, Memory)
	before, after := remembering(t, noTLS13), remembering(t, noAEAD)
	g.Remember(before)
	g.login(let(before, "192.0.2.7", cbc), "anna", "")
	g.Remember(after)
	g.login(let(after, "192.0.2.8", cbc), "bert", "")
	if c := g.of(policy.FloorTLS13).only(Filter{}); c.Addr.String() != "192.0.2.7" {
		t.Errorf("%+v", c)
	}
	if c := g.of(policy.FloorTLS12AEAD).only(Filter{}); c.Addr.String() != "192.0.2.8" {
		t.Errorf("%+v", c)
	}
	without := NewRecorder(Options{Store: g.store, Log: silent, Now: g.now})
	without.Remember(before)
	h := let(before, "192.0.2.9", gcm)
	without.Handshake(h)
	without.Login(&proxy.Login{Conn: h.Conn, Account: "zoe", Software: "Mail"})
	if err := without.Flush(context.Background()); err != nil {
		t.Fatal(err)
	}
	if list := g.of(policy.FloorTLS13).clients(Filter{}); len(list) != 2 || len(list[1].Accounts) > 0 {
		t.Errorf("with identity off: %+v", list)
	}
}

func TestRememberingAllocatesNothing(t *testing.T) {
	g := newReplica(t, Memory)
	p := remembering(t, noAEAD+", "+noTLS13)
	g.Remember(p)
	for name, h := range map[string]*proxy.Handshake{"refused by one": let(p, "192.0.2.7", gcm), "refused by two": let(p, "192.0.2.8", cbc), "refused by none": modern(p)} {
		g.meet(h)
		if n := testing.AllocsPerRun(1000, func() { g.meet(h) }); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
	if n := len(g.of(policy.FloorTLS13).clients(Filter{})); n != 2 {
		t.Errorf("%d clients, want 2", n)
	}
}

func modern(p *policy.Policy) *proxy.Handshake {
	h := let(p, "192.0.2.9", 0x1301)
	h.Hello.Versions = []uint16{0x304, 0x303}
	h.Verdict = p.At(noon).Decide(h.Hello, policy.ConnInfo{Keys: policy.ECDSAP256}, noon, 0)
	h.Legacy, h.Remembered = h.Verdict.Legacy(), h.Verdict.Remembered
	return h
}

// BenchmarkRemember is what a handshake costs that a candidate refuses, with its
// fingerprint, and one that none does.
func BenchmarkRemember(b *testing.B) {
	g := newReplica(b, Memory)
	p := remembering(b, noTLS13)
	g.Remember(p)
	g.Recorder.now = time.Now
	for name, h := range map[string]*proxy.Handshake{"refused": let(p, "192.0.2.7", gcm), "none": modern(p)} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if h.Remembered != 0 {
					h.JA4 = h.Hello.Fingerprint()
				}
				g.meet(h)
			}
		})
	}
}

// A policy may be read again while clients come, and while the ledger is written.
func TestACandidateMayComeWhileClientsDo(t *testing.T) {
	g := newReplica(t, newURL(t, "sqlite"))
	policies := []*policy.Policy{remembering(t, noTLS13), remembering(t, noAEAD), remembering(t, noAEAD+", "+noTLS13)}
	var meeting sync.WaitGroup
	for i := range 4 {
		meeting.Go(func() {
			for n := range 200 {
				g.login(let(policies[2], fmt.Sprintf("10.%d.0.%d", i, n), cbc), "anna", "Mail")
			}
		})
	}
	meeting.Go(func() {
		for n := range 6 {
			g.Remember(policies[n%3])
			g.Backlog()
			if err := g.Flush(t.Context()); err != nil {
				t.Error(err)
			}
		}
	})
	meeting.Wait()
	g.login(let(policies[2], "192.0.2.7", cbc), "anna", "Mail")
	for _, f := range []policy.Floor{policy.FloorTLS12AEAD, policy.FloorTLS13} {
		if n := len(g.of(f).clients(Filter{})); n == 0 || n > 801 {
			t.Errorf("%s: %d clients", f, n)
		}
	}
}

// A ledger of an earlier version gets the tables of candidates, also behind PgBouncer.
func TestAnOlderLedgerRemembersCandidates(t *testing.T) {
	for _, kind := range []string{"sqlite", "postgres", "pgbouncer"} {
		t.Run(kind, func(t *testing.T) {
			url := newURL(t, kind)
			oldLedger(t, url)
			g := newReplica(t, url)
			before, err := g.store.Count(t.Context(), Filter{Noise: true})
			if err != nil || before == 0 {
				t.Fatalf("%d clients, %v", before, err)
			}
			p := remembering(t, noTLS13)
			g.Remember(p)
			g.login(let(p, "192.0.2.7", gcm), "anna", "Mail")
			if c := g.of(policy.FloorTLS13).only(Filter{}); c.Addr.String() != "192.0.2.7" {
				t.Errorf("%+v", c)
			}
			if after, err := g.store.Count(t.Context(), Filter{Noise: true}); err != nil || after != before {
				t.Errorf("%d old clients, %v, want %d", after, err, before)
			}
		})
	}
}

// Where the database is away when a candidate comes, its tables are made once it is back.
func TestACandidateMayComeBeforeTheDatabase(t *testing.T) {
	g := newReplica(t, newURL(t, "postgres"))
	g.flush()
	if err := pg(t).Stop(); err != nil {
		t.Fatal(err)
	}
	p := remembering(t, noTLS13)
	g.Remember(p)
	g.login(let(p, "192.0.2.7", gcm), "anna", "")
	if g.briefly(time.Second) == nil || g.Backlog().Clients != 1 {
		t.Errorf("it was written to a database that is away; %+v", g.Backlog())
	}
	if err := pg(t).Start(); err != nil {
		t.Fatal(err)
	}
	tls13 := g.of(policy.FloorTLS13)
	wait(t, "the tables", func() bool {
		for _, o := range g.remembered {
			o.refresh(t.Context())
		}
		n, err := tls13.store.Count(t.Context(), Filter{})
		return err == nil && n == 0
	})
	wait(t, "the database", func() bool { return g.briefly(10*time.Second) == nil })
	if c := tls13.only(Filter{}); c.Accounts[0] != "anna" {
		t.Errorf("%+v", c)
	}
}
