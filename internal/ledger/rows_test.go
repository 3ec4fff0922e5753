package ledger

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"postern/policy"
	"postern/proxy"
)

func TestSightingsOfOneClientAddUp(t *testing.T) {
	each(t, func(t *testing.T, g *replica) {
		for _, o := range []proxy.Outcome{proxy.Rejected, proxy.Rejected, proxy.Observed, proxy.Explained, proxy.Failed} {
			g.meet(hello("192.0.2.7", outcome(o)))
		}
		g.flush()
		g.later(time.Hour)
		g.meet(hello("192.0.2.7"))
		g.restart(nil)
		g.later(time.Hour)
		g.meet(hello("192.0.2.7", outcome(proxy.Failed)))
		g.flush()
		g.later(time.Minute)
		g.meet(hello("192.0.2.7", serverName("IMAP.Example.Org"))) // names do not go by case
		c := g.only(Filter{})
		want := Client{
			Addr: hello("192.0.2.7").Client.Addr(), Listener: "imaps", Endpoint: Endpoint{"imap.example.org", 993}, Version: policy.TLS10,
			Reason: policy.ReasonVersion, JA4: hello("192.0.2.7").JA4.String(), First: noon, Last: noon.Add(2*time.Hour + time.Minute),
			Counts: Counts{Observed: 1, Explained: 1, Rejected: 4, Failed: 2}, Login: LoginNone,
		}
		want.id, want.owner, want.network, want.place = c.id, c.owner, c.network, c.place
		if fmt.Sprintf("%+v", c) != fmt.Sprintf("%+v", want) {
			t.Errorf("got  %+v\nwant %+v", c, want)
		}
		if e := c.Endpoint.String(); e != "imap.example.org:993" {
			t.Errorf("endpoint %q", e)
		}
	})
}

func TestEachWayOfDoingTLSIsARowOfItsOwn(t *testing.T) {
	each(t, func(t *testing.T, g *replica) {
		for _, change := range []func(*proxy.Handshake){
			func(*proxy.Handshake) {}, serverName("mail.example.org"), serverName(""), listener(proxy.IMAP, 143), listener(proxy.IMAPS, 10993),
			version(policy.TLS11), reason(policy.ReasonCipher), program(1),
		} {
			g.meet(hello("192.0.2.7", change))
			g.meet(hello("192.0.2.7", change))
		}
		g.meet(hello("192.0.2.8"))
		g.meet(hello("2001:db8::8"))
		all := g.clients(Filter{Noise: true})
		if len(all) != 10 {
			t.Errorf("%d rows, want 10", len(all))
		}
		for _, c := range all {
			if want := int64(2); c.Addr.String() == "192.0.2.7" && c.Counts.Rejected != want {
				t.Errorf("%+v: want %d", c, want)
			}
		}
	})
}

func TestModernHandshakesAreNotRemembered(t *testing.T) {
	g := newReplica(t, Memory)
	g.meet(hello("192.0.2.7", reason(policy.NotLegacy)))
	g.meet(&proxy.Handshake{Conn: &proxy.Conn{}, Outcome: proxy.Failed})
	g.Login(&proxy.Login{Conn: &proxy.Conn{}, Account: "anna"})
	g.Closed(&proxy.Closed{Conn: &proxy.Conn{}, FailedLogins: 3})
	if list := g.clients(Filter{Noise: true}); len(list) != 0 {
		t.Errorf("%+v", list)
	}
}

func TestReplicasWriteOneLedgerAtTheSameTime(t *testing.T) {
	for _, kind := range []string{"sqlite", "postgres"} {
		t.Run(kind, func(t *testing.T) { writeTogether(t, newReplica(t, newURL(t, kind))) })
	}
}

func writeTogether(t *testing.T, first *replica) {
	const replicas, rounds, clients = 3, 5, 151 // a prime, so that each order meets all
	all := []*replica{first}
	for len(all) < replicas {
		all = append(all, first.another())
	}
	var group sync.WaitGroup
	for n, g := range all {
		group.Go(func() {
			for round := range rounds {
				for i := range clients {
					// Each in another order, and each with clients of its own.
					c := (i*(2*n+1) + round) % clients
					g.session(hello(fmt.Sprintf("10.0.0.%d", c)), fmt.Sprintf("u%d", c), "P")
					g.meet(hello(fmt.Sprintf("10.1.%d.%d", n, c)))
				}
				// SQLite lets writers wait in no order, so that one may wait too
				// long; then it tries again.
				err := g.Flush(context.Background())
				for tries := 0; err != nil && tries < 5 && !g.store.columns; tries++ {
					err = g.Flush(context.Background())
				}
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	group.Wait()
	list := first.clients(Filter{Noise: true})
	if len(list) != clients+replicas*clients {
		t.Errorf("%d clients", len(list))
	}
	for _, c := range list {
		want := Counts{Rejected: rounds}
		if c.Addr.As4()[1] == 0 {
			want = Counts{Observed: replicas * rounds}
			if c.Login != LoginOK || !slices.Equal(c.Accounts, []string{fmt.Sprintf("u%d", c.Addr.As4()[3])}) {
				t.Errorf("%+v", c)
			}
		}
		if c.Counts != want {
			t.Errorf("%v: %+v, want %+v", c.Addr, c.Counts, want)
		}
	}
	days := first.days(noon.Add(-time.Hour))
	if len(days) != 1 || days[0].Counts != (Counts{Observed: clients * replicas * rounds, Rejected: clients * replicas * rounds}) {
		t.Errorf("days %+v", days)
	}
}

func TestADayEndsAtMidnightUTC(t *testing.T) {
	each(t, func(t *testing.T, g *replica) {
		midnight := time.Date(2026, 6, 2, 0, 0, 0, 0, time.UTC)
		g.at(midnight.Add(-time.Second))
		g.meet(hello("192.0.2.7"))
		g.meet(hello("192.0.2.8", version(policy.TLS11), outcome(proxy.Observed)))
		g.meet(hello("192.0.2.66", outcome(proxy.Failed))) // noise
		g.at(midnight)
		g.meet(hello("192.0.2.7")) // both days of one client in one batch
		g.meet(hello("192.0.2.9"))
		g.flush()
		g.meet(hello("192.0.2.9"))
		g.flush()
		days := g.days(midnight.Add(-time.Hour))
		want := []period{
			{midnight.AddDate(0, 0, -1), policy.TLS10, 1, Counts{Rejected: 1}},
			{midnight.AddDate(0, 0, -1), policy.TLS11, 1, Counts{Observed: 1}},
			{midnight, policy.TLS10, 2, Counts{Rejected: 3}},
		}
		if !slices.Equal(days, want) {
			t.Errorf("got  %+v\nwant %+v", days, want)
		}
		if days := g.days(midnight); !slices.Equal(days, want[2:]) {
			t.Errorf("since midnight %+v", days)
		}
		if list := g.clients(Filter{}); len(list) != 3 || list[0].First.After(list[2].First) {
			t.Errorf("not in the order in which they were seen: %+v", list)
		}
		both := map[string]Counts{"192.0.2.7": {Rejected: 2}, "192.0.2.8": {Observed: 1}, "192.0.2.9": {Rejected: 2}}
		for _, c := range g.clients(Filter{}) {
			if want := both[c.Addr.String()]; c.Counts != want {
				t.Errorf("%s: %+v in both days, want %+v", c.Addr, c.Counts, want)
			}
		}
	})
}

func TestFilters(t *testing.T) {
	each(t, func(t *testing.T, g *replica) {
		g.session(hello("192.0.2.1"), "Anna@Example.org", "Outlook 14.0")
		g.session(hello("192.0.2.2", version(policy.TLS11)), "bert@example.org", "100% Mail_Är")
		g.session(hello("192.0.2.2", version(policy.TLS11)), "anna@example.org", "Outlook 14.0")
		g.later(time.Hour)
		g.session(hello("192.0.2.3", listener(proxy.POP3S, 995)), "ÄNNA@example.org", "")
		g.meet(hello("192.0.2.4", reason(policy.ReasonFallback)))
		for _, c := range []struct {
			f    Filter
			want string
		}{
			{Filter{}, "[192.0.2.1 192.0.2.2 192.0.2.3]"},
			{Filter{Noise: true}, "[192.0.2.1 192.0.2.2 192.0.2.3 192.0.2.4]"},
			{Filter{Version: policy.TLS11}, "[192.0.2.2]"},
			{Filter{Listener: "pop3s"}, "[192.0.2.3]"},
			{Filter{Listener: "pop3s", Version: policy.TLS11}, "[]"},
			{Filter{Account: "ANNA@example.org"}, "[192.0.2.1 192.0.2.2]"},
			{Filter{Account: "änna@example.org"}, "[192.0.2.3]"},
			{Filter{Account: "anna"}, "[]"},
			{Filter{Account: "anna@example.org", Version: policy.TLS10, Software: "outlook"}, "[192.0.2.1]"},
			{Filter{Software: "outLOOK"}, "[192.0.2.1 192.0.2.2]"},
			{Filter{Software: "0% m"}, "[192.0.2.2]"},
			{Filter{Software: "l_är"}, "[192.0.2.2]"},
			{Filter{Software: "l_Ä"}, "[192.0.2.2]"},
			{Filter{Software: "k_1"}, "[]"},
			{Filter{Software: "'; --"}, "[]"},
			{Filter{Since: noon.Add(time.Hour)}, "[192.0.2.3]"},
			{Filter{Since: noon.Add(time.Hour + time.Second)}, "[]"},
		} {
			if got := fmt.Sprint(addresses(g.clients(c.f))); got != c.want {
				t.Errorf("%+v: %s, want %s", c.f, got, c.want)
			}
		}
	})
}

func TestDistinctClients(t *testing.T) {
	each(t, func(t *testing.T, g *replica) {
		now := noon
		see := func(ago time.Duration, client string, change ...func(*proxy.Handshake)) {
			g.at(now.Add(-ago))
			g.meet(hello(client, change...))
			g.flush()
		}
		const day = 24 * time.Hour
		see(31*day, "192.0.2.99")
		see(30*day-time.Second, "192.0.2.5")
		see(6*day, "192.0.2.4", version(policy.TLS11))
		see(2*day, "192.0.2.3")
		see(2*day, "192.0.2.3", listener(proxy.POP3S, 995)) // one client at two listeners
		see(time.Hour+time.Second, "192.0.2.2")
		see(time.Minute, "192.0.2.1")
		see(time.Minute, "192.0.2.1", serverName("other.example.org"))
		see(time.Minute, "192.0.2.1", version(policy.TLS11))
		see(time.Minute, "2001:db8:1:2::1")
		see(time.Minute, "2001:db8:1:2::2")
		see(time.Minute, "2001:db8:1:2:ffff::2")
		see(time.Minute, "2001:db8:1:3::1")
		see(time.Minute, "192.0.2.66", outcome(proxy.Failed)) // noise
		see(time.Minute, "192.0.2.67", reason(policy.ReasonFallback))
		g.at(now)
		g.restart(nil)
		got, _, err := g.store.Distinct(t.Context(), now)
		if err != nil {
			t.Fatal(err)
		}
		want := []Distinct{
			{"any", "any", [4]int{3, 4, 6, 7}},
			{"any", "tls1.0", [4]int{3, 4, 5, 6}},
			{"any", "tls1.1", [4]int{1, 1, 2, 2}},
			{"imaps", "any", [4]int{3, 4, 6, 7}},
			{"imaps", "tls1.0", [4]int{3, 4, 5, 6}},
			{"imaps", "tls1.1", [4]int{1, 1, 2, 2}},
			{"pop3s", "any", [4]int{0, 0, 1, 1}},
			{"pop3s", "tls1.0", [4]int{0, 0, 1, 1}},
		}
		if !slices.Equal(got, want) {
			t.Errorf("got  %+v\nwant %+v", got, want)
		}
	})
}

func TestTheHelloBehindAFingerprintIsKept(t *testing.T) {
	each(t, func(t *testing.T, g *replica) {
		h := hello("192.0.2.7", func(h *proxy.Handshake) {
			h.Hello.Groups, h.Hello.SSL2Ciphers, h.Hello.ALPN = append(h.Hello.Groups, 23), []uint32{0x10080}, []string{"imap"}
		})
		g.meet(h)
		g.restart(nil)
		g.meet(h)
		g.flush()
		all, err := g.store.Hellos(t.Context())
		if err != nil || len(all) != 1 {
			t.Fatalf("%+v, %v", all, err)
		}
		want := *h.Hello
		want.ServerName, want.ALPN = "", nil // what is not judged is not kept
		if got := all[h.JA4.String()]; fmt.Sprintf("%+v", got) != fmt.Sprintf("%+v", want) {
			t.Errorf("got  %+v\nwant %+v", got, want)
		}
	})
}

func TestTenThousandHellosAreKeptAndNoMore(t *testing.T) {
	each(t, func(t *testing.T, g *replica) {
		note := func(from, n int) {
			for i := range n {
				ja4 := policy.JA4{}
				copy(ja4[:], fmt.Sprintf("t10i020000_%012d_000000000000", from+i))
				g.queue.addHello(ja4, &policy.Hello{Versions: []uint16{0x301}})
			}
		}
		note(0, maxHellos-10)
		other := g
		if g.url != Memory {
			other = g.another()
		}
		g.restart(nil)
		note(maxHellos-20, 100) // ten are known, ten find room
		g.flush()
		other.queue.addHello(policy.JA4{'x'}, &policy.Hello{})
		other.flush() // it does not know that there is no room
		all, err := g.store.Hellos(t.Context())
		if err != nil || len(all) != maxHellos {
			t.Errorf("%d hellos, %v", len(all), err)
		}
	})
}

func TestClientsNotSeenForLongArePruned(t *testing.T) {
	each(t, func(t *testing.T, g *replica) {
		g.session(hello("192.0.2.1", program(1)), "old@example.org", "")
		g.session(hello("192.0.2.2", program(2)), "anna@example.org", "")
		g.later(91 * 24 * time.Hour)
		g.session(hello("192.0.2.2", program(2)), "anna@example.org", "")
		g.flush()
		if err := g.store.Prune(t.Context(), g.now().AddDate(0, 0, -90)); err != nil {
			t.Fatal(err)
		}
		c := g.only(Filter{Noise: true})
		if c.Addr.String() != "192.0.2.2" || c.Counts.Observed != 2 || !c.First.Equal(noon) {
			t.Errorf("%+v", c)
		}
		if list := g.clients(Filter{Account: "old@example.org"}); len(list) != 0 {
			t.Errorf("%+v", list)
		}
		days := g.days(noon.AddDate(0, 0, -1))
		if len(days) != 1 || days[0].Counts.Observed != 1 {
			t.Errorf("days %+v", days)
		}
		hellos, err := g.store.Hellos(t.Context())
		if err != nil || len(hellos) != 1 {
			t.Errorf("%d hellos, %v", len(hellos), err)
		}
		// The one that went comes back whole, hello and all.
		g.refresh(t.Context())
		g.meet(hello("192.0.2.1", program(1)))
		if list := g.clients(Filter{}); len(list) != 2 {
			t.Errorf("%+v", list)
		}
		if hellos, err := g.store.Hellos(t.Context()); err != nil || len(hellos) != 2 {
			t.Errorf("%d hellos, %v", len(hellos), err)
		}
	})
}

func TestHandshakesDuringAWriteAreWrittenNext(t *testing.T) {
	g := newReplica(t, Memory)
	g.meet(hello("192.0.2.7"))
	b := &batch{}
	for i := range g.shards {
		g.shards[i].gather(b)
	}
	g.meet(hello("192.0.2.7", outcome(proxy.Observed)))
	if err := g.commit(t.Context(), b); err != nil {
		t.Fatal(err)
	}
	if c := g.only(Filter{}); c.Counts != (Counts{Rejected: 1, Observed: 1}) {
		t.Errorf("%+v", c)
	}
}

// TestManyClientsArePrunedInPieces, between which others are recorded.
func TestManyClientsArePrunedInPieces(t *testing.T) {
	each(t, func(t *testing.T, g *replica) {
		const old = pruneRows + pruneRows/2
		for i := range old {
			h := hello("192.0.2.1", program(i%9))
			h.Client = nthClient(i)
			g.meet(h)
		}
		g.flush()
		g.later(91 * 24 * time.Hour)
		done := make(chan error)
		go func() { done <- g.store.Prune(t.Context(), g.now().AddDate(0, 0, -90)) }()
		recorded := 0
		for pruning := true; pruning; recorded++ {
			select {
			case err := <-done:
				if pruning = false; err != nil {
					t.Fatal(err)
				}
			default:
			}
			g.meet(hello(fmt.Sprintf("2001:db8:%x::1", recorded), program(1)))
			g.flush()
		}
		if n, err := g.store.Count(t.Context(), Filter{Noise: true}); n != recorded || err != nil || recorded < 2 {
			t.Errorf("%d clients, %d recorded, %v", n, recorded, err)
		}
		hellos, err := g.store.Hellos(t.Context())
		if err != nil || len(hellos) != 1 {
			t.Errorf("%d hellos, %v", len(hellos), err)
		}
		var days int
		if err := g.store.db.QueryRow(`SELECT count(*) FROM days`).Scan(&days); err != nil || days != recorded {
			t.Errorf("%d days, %v", days, err)
		}
	})
}

// TestAClientThatWasPrunedComesBack although its recorder has written it before.
func TestAClientThatWasPrunedComesBack(t *testing.T) {
	each(t, func(t *testing.T, g *replica) {
		g.meet(hello("192.0.2.7"))
		g.flush()
		if err := g.store.Prune(t.Context(), g.now().Add(time.Second)); err != nil {
			t.Fatal(err)
		}
		if list := g.clients(Filter{}); len(list) != 0 {
			t.Errorf("%+v", list)
		}
		g.later(time.Minute)
		g.meet(hello("192.0.2.7"))
		if c := g.only(Filter{}); c.Counts != (Counts{Rejected: 1}) || !c.First.Equal(g.now()) {
			t.Errorf("%+v", c)
		}
	})
}

// TestClientsAreListedAsTheyWereFirstSeen and stay in their place when they are
// seen again, so that no page misses one.
func TestClientsAreListedAsTheyWereFirstSeen(t *testing.T) {
	each(t, func(t *testing.T, g *replica) {
		for i := range 10 {
			g.meet(hello(fmt.Sprintf("192.0.2.%d", i)))
			g.later(time.Minute)
		}
		g.meet(hello("192.0.2.0"))
		g.flush()
		cursor := ""
		for i := range 5 {
			list, next, err := g.store.Clients(t.Context(), Filter{}, Order{}, cursor, 2)
			if err != nil || len(list) != 2 || (next == "") != (i == 4) {
				t.Fatalf("%+v, %q, %v", list, next, err)
			}
			for n, c := range list {
				if want := fmt.Sprintf("192.0.2.%d", 2*i+n); c.Addr.String() != want {
					t.Errorf("%v in the place of %s", c.Addr, want)
				}
			}
			cursor = next
			g.meet(hello(fmt.Sprintf("192.0.2.%d", 9-i)))
			g.flush()
		}
		for _, cursor := range []string{"x", "YQ", "MS4", "!", "MS4y.", "MQ"} {
			if _, _, err := g.store.Clients(t.Context(), Filter{}, Order{}, cursor, 2); !errors.Is(err, ErrCursor) {
				t.Errorf("cursor %q: %v", cursor, err)
			}
		}
	})
}

// TestACommitInDoubtIsAskedFor before anything is written again.
func TestACommitInDoubtIsAskedFor(t *testing.T) {
	each(t, func(t *testing.T, g *replica) {
		for _, arrives := range []bool{true, false} {
			g.meet(hello("192.0.2.7"))
			b := &batch{}
			for i := range g.shards {
				g.shards[i].gather(b)
			}
			g.number++
			b.writer, b.number = g.writer, g.number
			if arrives {
				if err := g.store.add(t.Context(), b); err != nil {
					t.Fatal(err)
				}
			}
			g.inDoubt = b
			g.flush()
		}
		if c := g.only(Filter{}); c.Counts != (Counts{Rejected: 2}) || g.pending.Load() != 0 {
			t.Errorf("%+v, %d pending", c, g.pending.Load())
		}
	})
}

func TestANetworkIsAnAddressOrA64(t *testing.T) {
	for addr, want := range map[string]string{"192.0.2.7": "192.0.2.7", "::ffff:192.0.2.7": "192.0.2.7", "2001:db8:1:2:3::4": "2001:db8:1:2::/64"} {
		c := Client{Addr: netip.MustParseAddr(addr)}
		if got := c.Network(); got != want {
			t.Errorf("%s: got %s, want %s", addr, got, want)
		}
	}
}

// TestNobodyTellsOfACountThatHasNotEnded: a replica that waits for the first count
// knows no figures, not that there are no clients.
func TestNobodyTellsOfACountThatHasNotEnded(t *testing.T) {
	s := openStore(t, newURL(t, "postgres"))
	if _, err := s.db.Exec(`UPDATE counted SET owner = 1, due = $1`, time.Now().Unix()+countLease); err != nil {
		t.Fatal(err)
	}
	if list, at, err := s.Distinct(t.Context(), noon.Add(time.Second)); len(list) > 0 || !at.IsZero() || err != nil {
		t.Errorf("counted %v at %v: %v", list, at, err)
	}
}
