package policy

import (
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"
	"time"
)

// policyOf compiles a policy file that must be right.
func policyOf(t testing.TB, lines ...string) *Policy {
	t.Helper()
	p, err := Parse([]byte(strings.Join(lines, "\n")))
	if err != nil {
		t.Fatalf("parsing a policy file: %v", err)
	}
	return p
}

// caller is who and what a decision in these tests is about.
type caller struct {
	client, listener, name string
	port                   uint16
	hello                  *Hello
	random                 uint64
}

// decide has the policy judge a legacy hello.
func decide(p *Policy, at time.Time, a caller) Verdict {
	h := old
	if a.hello != nil {
		h = *a.hello
	}
	h.ServerName = a.name
	place := ConnInfo{Keys: RSA, Listener: a.listener, Port: a.port}
	if a.client != "" {
		place.Client = netip.MustParseAddr(a.client)
	}
	return p.At(at).Decide(&h, place, at, a.random)
}

const manyClients = 100_000

func addr4(n uint32) netip.Addr {
	var b [4]byte
	binary.BigEndian.PutUint32(b[:], n)
	return netip.AddrFrom4(b)
}

func addr6(high, low uint64) netip.Addr {
	var b [16]byte
	binary.BigEndian.PutUint64(b[:8], high)
	binary.BigEndian.PutUint64(b[8:], low)
	return netip.AddrFrom16(b)
}

// crowds are clients of the kinds that there are.
func crowds() map[string]func(i int) netip.Addr {
	r := rand.New(rand.NewPCG(1, 2))
	random := make([]uint64, manyClients)
	for i := range random {
		random[i] = r.Uint64()
	}
	return map[string]func(i int) netip.Addr{
		"IPv4 addresses in a row":    func(i int) netip.Addr { return addr4(10<<24 + uint32(i)) },
		"random IPv4 addresses":      func(i int) netip.Addr { return addr4(uint32(random[i])) },
		"networks of 256":            func(i int) netip.Addr { return addr4(uint32(i) << 8) },
		"random IPv6 networks":       func(i int) netip.Addr { return addr6(0x2000<<48|random[i]>>3, random[i]) },
		"IPv6 networks of a /44":     func(i int) netip.Addr { return addr6(0x20010db800000000+uint64(i), 1) },
		"IPv6 /56 networks in a row": func(i int) netip.Addr { return addr6(0x20010db800000000+uint64(i)<<8, 1) },
	}
}

// shareOf is the part of a crowd that a rule takes, in percent.
func shareOf(r *Rule, crowd func(int) netip.Addr, t time.Time) float64 {
	taken := 0
	for i := range manyClients {
		if r.Share.takes(r, crowd(i), t, 0) {
			taken++
		}
	}
	return 100 * float64(taken) / manyClients
}

func TestAShareOfTheClientsIsWhatItSays(t *testing.T) {
	for name, crowd := range crowds() {
		for _, percent := range []float64{0, 1, 10, 50, 90, 100} {
			for _, ruleName := range []string{"ramp", "a", "brownout 2"} {
				p := policyOf(t, "rules:", fmt.Sprintf("- {name: %s, mode: explain, share: %g%%}", ruleName, percent))
				got := shareOf(p.Rule(ruleName), crowd, time.Time{})
				if math.Abs(got-percent) > 0.5 || (percent == 0 || percent == 100) && got != percent {
					t.Errorf("%s: %q takes %.2f %%, want %g %%", name, ruleName, got, percent)
				}
			}
		}
	}
}

func TestAClientOnceInIsNeverOutWhileTheShareGrows(t *testing.T) {
	p := policyOf(t, "rules:", "- {name: ramp, mode: explain, share: {from: 5%, to: 95%, by: client}, from: 2026-06-15T00:00:00Z, until: 2026-07-01T00:00:00Z}")
	ramp := p.Rule("ramp")
	for name, crowd := range crowds() {
		for i := range 2000 {
			in := false
			for at := ramp.From; at.Before(ramp.Until); at = at.Add(7 * time.Hour) {
				switch now := ramp.Share.takes(ramp, crowd(i), at, 0); {
				case in && !now:
					t.Fatalf("%s: %s is out again at %s", name, crowd(i), at)
				case now:
					in = true
				}
			}
		}
	}
	for at, want := range map[string]float64{
		"2026-06-14T23:59:59Z": 0, "2026-06-15T00:00:00Z": 0.05, "2026-06-19T00:00:00Z": 0.275, "2026-06-23T00:00:00Z": 0.5,
		"2026-06-23T00:00:00.5Z": 0.5 + 0.9*0.5/(16*86400), "2026-07-01T00:00:00Z": 0,
	} {
		if got := ramp.ShareAt(instant(t, at)); math.Abs(got-want) > 1e-9 {
			t.Errorf("the share at %s is %.12f, want %.12f", at, got, want)
		}
	}
	if got := ramp.ShareAt(instant(t, "2026-06-30T23:59:59Z")); got < 0.9499 || got > 0.95 {
		t.Errorf("the share in its last second is %f", got)
	}
}

func TestTheTenthIsPartOfTheHalf(t *testing.T) {
	tenth := policyOf(t, "rules:", "- {name: ramp, mode: explain, share: 10%}").Rule("ramp")
	half := policyOf(t, "mode: observe", "rules:", "- {name: other, mode: observe, share: 3%}", "- {name: ramp, mode: enforce, share: 50%}").Rule("ramp")
	for name, crowd := range crowds() {
		for i := range manyClients {
			if tenth.Share.takes(tenth, crowd(i), time.Time{}, 0) && !half.Share.takes(half, crowd(i), time.Time{}, 0) {
				t.Fatalf("%s: %s is in the tenth, not in the half", name, crowd(i))
			}
		}
	}
}

func TestAShareThatShrinksLetsClientsGo(t *testing.T) {
	p := policyOf(t, "rules:", "- {name: less, mode: observe, share: {from: 100%, to: 0%}, from: 2026-06-15T00:00:00Z, until: 2026-07-01T00:00:00Z}")
	r := p.Rule("less")
	if got := r.ShareAt(instant(t, "2026-06-27T00:00:00Z")); got != 0.25 {
		t.Errorf("three quarters of the way the share is %f", got)
	}
	for i := range 1000 {
		out := false
		for at := r.From; at.Before(r.Until); at = at.Add(6 * time.Hour) {
			now := r.Share.takes(r, addr4(uint32(i)), at, 0)
			if out && now {
				t.Fatalf("%s is in again at %s", addr4(uint32(i)), at)
			}
			out = !now
		}
	}
}

func TestOneClientIsAnIPv4AddressOrAnIPv6Network(t *testing.T) {
	for client, want := range map[string]string{
		"192.0.2.7":         "192.0.2.7/32",
		"192.0.2.8":         "192.0.2.8/32",
		"::ffff:192.0.2.7":  "192.0.2.7/32",
		"2001:db8:0:7::1":   "2001:db8:0:7::/64",
		"2001:db8:0:7:f::f": "2001:db8:0:7::/64",
		"2001:db8:0:8::1":   "2001:db8:0:8::/64",
		"fe80::1%eth0":      "fe80::/64",
	} {
		addr := netip.MustParseAddr(client)
		if got := ClientPrefix(addr); got.String() != want {
			t.Errorf("%s: got %v, want %s", client, got, want)
		}
		if n := testing.AllocsPerRun(10, func() { ClientPrefix(addr) }); n > 0 {
			t.Errorf("%s: %v allocations", client, n)
		}
	}
	if got := ClientPrefix(netip.Addr{}); got != (netip.Prefix{}) {
		t.Errorf("no address: got %v", got)
	}
}

func TestAClientIsItsNetwork(t *testing.T) {
	p := policyOf(t, "rules:", "- {name: half, mode: explain, share: 50%}")
	for i := range uint64(2000) {
		network := 0x20010db8_00000000 + i*0x9e37
		first := decide(p, time.Time{}, caller{client: addr6(network, 1).String()})
		for _, low := range []uint64{0, 2, 0xffff_ffff_ffff_ffff, i} {
			if got := decide(p, time.Time{}, caller{client: addr6(network, low).String()}); got.Rule != first.Rule {
				t.Fatalf("two addresses in %s/64 meet %q and %q", addr6(network, 0), first.Rule, got.Rule)
			}
		}
		v4 := addr4(uint32(network))
		plain, mapped := decide(p, time.Time{}, caller{client: v4.String()}), decide(p, time.Time{}, caller{client: "::ffff:" + v4.String()})
		if plain.Rule != mapped.Rule {
			t.Fatalf("%s meets %q, mapped %q", v4, plain.Rule, mapped.Rule)
		}
		zoned := decide(p, time.Time{}, caller{client: "fe80::1%eth0"})
		if unzoned := decide(p, time.Time{}, caller{client: "fe80::1"}); zoned.Rule != unzoned.Rule {
			t.Fatal("a zone changes the answer")
		}
	}
}

// TestEveryReplicaGivesTheSameAnswer pins positions: a change of the hash would
// decide anew on everybody in the middle of a ramp.
func TestEveryReplicaGivesTheSameAnswer(t *testing.T) {
	file := []string{"rules:", "- {name: ramp, mode: explain, share: 50%}", "- {name: Ramp 2, mode: explain, share: 50%}"}
	for _, tt := range []struct {
		client       string
		ramp, second string // share from which on it is in
	}{
		{"192.0.2.7", "0.003032333501", "0.518751850992"},
		{"::ffff:192.0.2.7", "0.003032333501", "0.518751850992"},
		{"10.20.0.1", "0.849261637097", "0.819303606452"},
		{"255.255.255.255", "0.664603476341", "0.650279025909"},
		{"2001:db8::1", "0.529408028354", "0.329148716618"},
		{"2001:db8:0:1::1", "0.976916327760", "0.675742416468"},
	} {
		for range 2 {
			p := policyOf(t, file...)
			for i, want := range []string{tt.ramp, tt.second} {
				r := p.Rules()[i]
				if got := fmt.Sprintf("%.12f", r.Share.position(r, netip.MustParseAddr(tt.client), 99)); got != want {
					t.Errorf("%s stands at %s in %q, want %s", tt.client, got, r.Name, want)
				}
			}
		}
	}
}

func TestRulesShuffleEachAnew(t *testing.T) {
	p := policyOf(t, "rules:", "- {name: a, mode: explain, share: 10%}", "- {name: b, mode: explain, share: 10%}", "- {name: c, mode: explain, share: 50%}")
	a, b, c := p.Rule("a"), p.Rule("b"), p.Rule("c")
	for name, crowd := range crowds() {
		var inA, inB, inAB, inAC int
		for i := range manyClients {
			takes := func(r *Rule) bool { return r.Share.takes(r, crowd(i), time.Time{}, 0) }
			if takes(b) {
				inB++
			}
			if takes(a) {
				inA++
				if takes(b) {
					inAB++
				}
				if takes(c) {
					inAC++
				}
			}
		}
		if got := 100 * float64(inAB) / manyClients; math.Abs(got-1) > 0.3 {
			t.Errorf("%s: two tenths have %.2f %% in common, want 1 %%", name, got)
		}
		if got := 100 * float64(inAC) / float64(inA); math.Abs(got-50) > 2.5 {
			t.Errorf("%s: a half takes %.1f %% of another rule's tenth", name, got)
		}
	}
}

func TestAShareOfTheConnectionsGoesByTheRandomValue(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	const dates = "from: 2026-01-01T00:00:00Z, until: 2027-01-01T00:00:00Z"
	at := instant(t, "2026-06-01T00:00:00Z")
	for _, percent := range []float64{0, 1, 10, 50, 90, 100} {
		p := policyOf(t, "rules:", fmt.Sprintf("- {name: some, mode: explain, share: {from: %g%%, to: %g%%, by: connection}, %s}", percent, percent, dates))
		taken := 0
		for range manyClients {
			if decide(p, at, caller{client: "192.0.2.7", random: r.Uint64()}).Rule != "" {
				taken++
			}
		}
		if got := 100 * float64(taken) / manyClients; math.Abs(got-percent) > 0.5 {
			t.Errorf("a rule for %g %% of the connections takes %.2f %%", percent, got)
		}
	}
	p := policyOf(t, "rules:",
		"- {name: first, mode: explain, share: {from: 50%, to: 50%, by: connection}, "+dates+"}",
		"- {name: second, mode: explain, share: {from: 50%, to: 50%, by: connection}, "+dates+"}")
	taken := make(map[string]float64)
	for range manyClients {
		taken[decide(p, at, caller{client: "192.0.2.7", random: r.Uint64()}).Rule] += 100.0 / manyClients
	}
	for rule, want := range map[string]float64{"first": 50, "second": 25, "": 25} {
		if math.Abs(taken[rule]-want) > 0.5 {
			t.Errorf("%q takes %.2f %% of the connections, want %g %%", rule, taken[rule], want)
		}
	}
}
