package ledger

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"postern/policy"
	"postern/proxy"
)

func (g *replica) wantLeft(want string) {
	g.t.Helper()
	if got := fmt.Sprint(addresses(g.clients(Filter{}))); got != want {
		g.t.Errorf("remaining clients %s, want %s", got, want)
	}
	for _, c := range g.clients(Filter{Noise: true}) {
		g.t.Logf("%v %s %+v login %s noise %v", c.Addr, c.JA4, c.Counts, c.Login, c.Noise)
	}
}

func TestAScannerIsNoise(t *testing.T) {
	each(t, func(t *testing.T, g *replica) {
		for i := range burstHellos {
			g.meet(hello("192.0.2.66", program(i), outcome(proxy.Observed)))
			g.later(7 * time.Second)
			if i == 3 {
				g.flush()
			}
		}
		g.meet(hello("192.0.2.7"))
		g.wantLeft("[192.0.2.7]")
		g.restart(nil)
		g.later(48 * time.Hour)
		g.meet(hello("192.0.2.66", program(100), outcome(proxy.Observed))) // a new way of the same scanner
		g.wantLeft("[192.0.2.7]")
	})
}

func TestAScannerOfVersionsIsNoise(t *testing.T) {
	g := newReplica(t, Memory)
	for _, v := range []policy.Version{policy.SSL2, policy.SSL3, policy.TLS10, policy.TLS11} {
		g.meet(hello("192.0.2.66", version(v), program(1)))
		g.meet(hello("192.0.2.66", version(v), program(2)))
	}
	g.wantLeft("[]")
}

// TestAnOfficeThatIsRefusedIsNoScanner: where nobody is let in, nobody can show
// by a login that there are people.
func TestAnOfficeThatIsRefusedIsNoScanner(t *testing.T) {
	each(t, func(t *testing.T, g *replica) {
		const programs = 24
		for i := range programs {
			for client, o := range map[string]proxy.Outcome{"192.0.2.7": proxy.Rejected, "192.0.2.8": proxy.Explained} {
				g.meet(hello(client, program(i), version([]policy.Version{policy.TLS10, policy.TLS11, policy.TLS12}[i%3]), outcome(o)))
			}
		}
		if list := g.clients(Filter{}); len(list) != 2*programs {
			t.Errorf("%d are left, want %d", len(list), 2*programs)
		}
	})
}

// TestAScannerThatIsRefusedIsNoise has one that tries every version with several
// hellos.
func TestAScannerThatIsRefusedIsNoise(t *testing.T) {
	each(t, func(t *testing.T, g *replica) {
		for i, v := range []policy.Version{policy.SSL2, policy.SSL3, policy.TLS10, policy.TLS11} {
			for _, client := range []string{"192.0.2.66", "192.0.2.7"} {
				g.meet(hello(client, version(v)))
				g.meet(hello(client, version(v), program(1)))
			}
			g.meet(hello("192.0.2.8", version(v))) // one of each is no scanner yet
			if i == 1 {
				g.flush()
			}
			g.later(time.Second)
		}
		g.session(hello("192.0.2.7", version(policy.TLS10)), "anna", "")
		g.wantLeft("[" + strings.Repeat("192.0.2.7 ", 8) + "192.0.2.8 192.0.2.8 192.0.2.8 192.0.2.8]")
	})
}

// comes has a client come a number of times, at intervals that it names.
func (g *replica) comes(n int, client string, interval func(i int) time.Duration, change ...func(*proxy.Handshake)) {
	for i := range n {
		g.meet(hello(client, change...))
		if i == n/2 {
			g.flush()
		}
		g.later(interval(i))
	}
}

func every(d time.Duration) func(int) time.Duration {
	return func(int) time.Duration { return d }
}

func TestAProbeAtASteadyBeatIsNoise(t *testing.T) {
	each(t, func(t *testing.T, g *replica) {
		ssl3 := version(policy.SSL3)
		g.comes(8, "192.0.2.66", every(2*time.Second), ssl3)                                       // HAProxy's ssl-hello-chk
		g.comes(14, "192.0.2.67", every(10*time.Second))                                           // a balancer
		g.comes(14, "192.0.2.68", every(5*time.Minute), outcome(proxy.Observed))                   // monitoring that is let in
		g.comes(8, "192.0.2.69", every(2*time.Second), ssl3, outcome(proxy.Observed), passed)      // to an old server
		g.comes(14, "192.0.2.70", func(i int) time.Duration { return time.Duration(9+i%3) * 1e9 }) // one that is late now and then
		g.comes(40, "192.0.2.7", every(5*time.Minute))                                             // a program that asks for mail, in vain
		g.comes(40, "192.0.2.8", func(i int) time.Duration { return time.Second << (i % 8) })      // one that backs off
		g.comes(40, "192.0.2.9", func(i int) time.Duration {                                       // a phone that reconnects
			return time.Duration(i%5*i%7+1) * 37 * time.Second
		})
		g.comes(5, "192.0.2.10", every(2*time.Second), ssl3)
		g.comes(40, "192.0.2.11", every(0), ssl3) // a loop
		g.wantLeft("[192.0.2.10 192.0.2.11 192.0.2.7 192.0.2.8 192.0.2.9]")
		// One that logs in is no probe, whatever its beat.
		g.comes(20, "192.0.2.12", every(5*time.Second), outcome(proxy.Observed))
		g.session(hello("192.0.2.12"), "anna", "")
		if list := g.clients(Filter{Account: "anna"}); len(list) != 1 || list[0].Noise {
			t.Errorf("%+v", list)
		}
	})
}

// passed has the client passed through.
func passed(h *proxy.Handshake) { h.Outcome, h.Version = proxy.Observed, policy.NoVersion }

// TestAClientThatWasPassedThroughIsNoNoise: what it does at the old server is not
// seen.
func TestAClientThatWasPassedThroughIsNoNoise(t *testing.T) {
	each(t, func(t *testing.T, g *replica) {
		h := hello("192.0.2.7", passed)
		g.meet(h)
		g.flush()
		g.meet(hello("192.0.2.7"))
		g.Closed(&proxy.Closed{Conn: h.Conn, FailedLogins: 1}) // as another of its sessions may have
		for i := range 2 * burstHellos {
			g.meet(hello("192.0.2.8", program(i), passed))
		}
		// A program may ask for mail at a steady beat, and stand beside a probe.
		g.comes(40, "192.0.2.9", every(30*time.Second), passed)
		g.comes(40, "192.0.2.10", every(5*time.Minute), version(policy.SSL3), passed)
		g.meet(hello("192.0.2.11", passed))
		g.comes(20, "192.0.2.11", every(5*time.Second), program(1), outcome(proxy.Observed))
		list := g.clients(Filter{})
		if len(list) != 4+2*burstHellos {
			t.Errorf("%d are left", len(list))
		}
		for _, c := range list {
			if c.Login != LoginUnseen {
				t.Errorf("%+v", c)
			}
		}
		g.restart(nil)
		if c := g.clients(Filter{})[0]; c.Login != LoginUnseen {
			t.Errorf("%+v", c)
		}
	})
}

func TestSevenProgramsOrEightInAMinuteAreNoScanner(t *testing.T) {
	each(t, func(t *testing.T, g *replica) {
		for i := range burstHellos {
			if i < burstHellos-1 {
				g.meet(hello("192.0.2.7", program(i)))
			}
			g.meet(hello("192.0.2.8", program(i)))
			// The same hello again and again, for other names, is one program.
			g.meet(hello("192.0.2.9", program(1), serverName(fmt.Sprintf("imap%d.example.org", i))))
			g.later(9 * time.Second)
		}
		if list := g.clients(Filter{}); len(list) != 3*burstHellos-1 {
			t.Errorf("%d are left", len(list))
		}
	})
}

// TestAnOfficeIsNoNoise has more programs behind one address than a scanner has
// hellos, which come back all at once when the proxy was away.
func TestAnOfficeIsNoNoise(t *testing.T) {
	each(t, func(t *testing.T, g *replica) {
		const programs = 20
		for i := range programs {
			g.meet(hello("192.0.2.7", program(i)))
			g.flush()
			g.later(time.Minute)
		}
		for range 3 {
			g.restart(nil)
			for i := range programs {
				g.meet(hello("192.0.2.7", program(i)))
			}
			g.flush()
			g.later(24 * time.Hour)
		}
		if list := g.clients(Filter{}); len(list) != programs {
			t.Errorf("%d are left, want %d", len(list), programs)
		}
	})
}

func TestAnAddressWithALoginIsNoScanner(t *testing.T) {
	each(t, func(t *testing.T, g *replica) {
		for i := range 2 * burstHellos { // the whole office in the first minute
			g.meet(hello("192.0.2.7", program(i), outcome(proxy.Observed)))
		}
		g.wantLeft("[]")
		g.session(hello("192.0.2.7", program(3)), "anna", "")
		if list := g.clients(Filter{}); len(list) != 2*burstHellos {
			t.Errorf("%d are left after a login", len(list))
		}
		g.meet(hello("192.0.2.7", program(100)))
		if list := g.clients(Filter{}); len(list) != 2*burstHellos+1 {
			t.Errorf("%d are left after a login and one more program", len(list))
		}
	})
}

func TestAProbeIsNoise(t *testing.T) {
	each(t, func(t *testing.T, g *replica) {
		for range 5 {
			g.meet(hello("192.0.2.66", outcome(proxy.Failed)))
			g.meet(hello("192.0.2.7", outcome(proxy.Failed)))
		}
		g.wantLeft("[]")
		g.meet(hello("192.0.2.7", outcome(proxy.Explained))) // one that got through makes it a client
		g.wantLeft("[192.0.2.7]")
	})
}

func TestAFallbackRetryIsNoise(t *testing.T) {
	each(t, func(t *testing.T, g *replica) {
		g.meet(hello("192.0.2.7", reason(policy.ReasonFallback)))
		g.wantLeft("[]")
		g.meet(hello("192.0.2.7"))
		g.wantLeft("[192.0.2.7]")
	})
}

func TestAClientWhoseLoginsAllFailedIsNoise(t *testing.T) {
	each(t, func(t *testing.T, g *replica) {
		observed := func(client string, failed int) *proxy.Handshake {
			h := hello(client, outcome(proxy.Observed))
			g.meet(h)
			g.flush()
			g.Closed(&proxy.Closed{Conn: h.Conn, FailedLogins: failed})
			g.flush()
			return h
		}
		observed("192.0.2.66", 2)
		observed("192.0.2.7", 1)
		h := observed("192.0.2.7", 0)
		g.Login(&proxy.Login{Conn: h.Conn})
		observed("192.0.2.8", 0)
		g.wantLeft("[192.0.2.7 192.0.2.8]")
		logins := map[string]Login{"192.0.2.66": LoginFailed, "192.0.2.7": LoginOK, "192.0.2.8": LoginNone}
		for _, c := range g.clients(Filter{Noise: true}) {
			if c.Login != logins[c.Addr.String()] || c.Noise != (c.Addr.String() == "192.0.2.66") {
				t.Errorf("%+v", c)
			}
		}
		g.restart(nil)
		// The same program at another port is the same guesser, or is not.
		g.meet(hello("192.0.2.66", listener(proxy.POP3S, 995)))
		g.meet(hello("192.0.2.7", listener(proxy.POP3S, 995)))
		g.wantLeft("[192.0.2.7 192.0.2.7 192.0.2.8]")
	})
}

// TestRandomHellosFillNoDatabase has one address that never says the same twice.
func TestRandomHellosFillNoDatabase(t *testing.T) {
	each(t, func(t *testing.T, g *replica) {
		const n = 400
		for i := range n {
			g.meet(hello("192.0.2.66", program(i), serverName(fmt.Sprintf("n%d.example.org", i))))
			g.meet(hello(fmt.Sprintf("2001:db8::%x", i+1), program(i)))
			if i == n/2 {
				g.flush()
			}
		}
		g.meet(hello("192.0.2.66", program(1), serverName("n1.example.org"))) // known from before
		g.meet(hello("192.0.2.7"))
		rows, sum := make(map[string]int), make(map[string]int64)
		for _, c := range g.clients(Filter{Noise: true}) {
			rows[c.Network()]++
			sum[c.Network()] += c.Counts.Rejected
			if aggregate := c.JA4 == ""; aggregate != (c.Endpoint.Name == "") || aggregate && c.Counts.Rejected != n-maxVariants {
				t.Errorf("%+v", c)
			}
		}
		if want := fmt.Sprint(map[string]int{"192.0.2.66": maxVariants + 1, "192.0.2.7": 1, "2001:db8::/64": n}); fmt.Sprint(rows) != want {
			t.Errorf("rows %v, want %s", rows, want)
		}
		if sum["192.0.2.66"] != n+1 || sum["2001:db8::/64"] != n {
			t.Errorf("sightings %v", sum)
		}
	})
}

func TestANetworkOfRandomAddressesIsOneInTheEnd(t *testing.T) {
	g := newReplica(t, Memory)
	const more = 500
	for i := range maxVariantsOfNetwork + more {
		g.meet(hello(fmt.Sprintf("2001:db8::%x", i+1), serverName("")))
	}
	list := g.clients(Filter{Noise: true})
	if last := list[len(list)-1]; len(list) != maxVariantsOfNetwork+1 {
		t.Errorf("%d rows, the last one %+v", len(list), last)
	}
	for _, c := range list {
		if c.Addr.String() == "2001:db8::" && (c.Counts.Rejected != more || c.JA4 != "") {
			t.Errorf("%+v", c)
		}
	}
	g.later(24 * time.Hour) // another day, another thousand
	g.meet(hello("2001:db8::ffff"))
	if got := len(g.clients(Filter{Noise: true})); got != len(list)+1 {
		t.Errorf("%d rows on the next day, %d before", got, len(list))
	}
}

// TestManyProgramsBehindOneAddressKeepTheirNames: what is added up still knows
// who has logged in.
func TestManyProgramsBehindOneAddressKeepTheirNames(t *testing.T) {
	g := newReplica(t, Memory)
	for i := range maxVariants + 20 {
		g.session(hello("192.0.2.7", program(i)), fmt.Sprintf("u%d", i), "")
	}
	list := g.clients(Filter{})
	if len(list) != maxVariants+1 {
		t.Fatalf("%d rows", len(list))
	}
	for _, c := range list {
		want := 1
		if c.JA4 == "" {
			want = 20
		}
		if len(c.Accounts) != want || c.Login != LoginOK {
			t.Errorf("%+v: want %d accounts", c, want)
		}
	}
}
