package policy

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"postern/internal/text"
)

// The pools are small, so that rules overlap and handshakes hit them.
var (
	poolClients = strings.Fields(`0.0.0.0/0 ::/0 10.0.0.0/8 10.20.0.0/16 10.20.30.0/24 10.20.30.40/32 10.20.30.41 10.128.0.0/9 192.0.2.0/25 192.0.2.0/24
		2001:db8::/32 2001:db8:20::/48 2001:db8:20:1::/64 2001:db8:20:1::7 ::ffff:10.20.0.0/112 ::ffff:0:0/96 ::ffff:0:0/95 ::10.20.0.0/112 fe80::/10 128.0.0.0/1`)
	poolAddresses = strings.Fields(`10.20.30.40 10.20.30.41 10.20.31.1 10.200.0.1 192.0.2.7 192.0.2.200 203.0.113.1 ::ffff:10.20.30.40 ::ffff:192.0.2.7
		2001:db8:20:1::7 2001:db8:20:1::8 2001:db8:20:2::1 2001:db8:21::1 ::10.20.0.1 fe80::1%eth0 :: 255.255.255.255`)
	poolPatterns = strings.Fields("*.example.org a.example.org b.a.example.org *.a.example.org example.org org *.org x.example.net")
	poolNames    = append(strings.Fields("a.example.org A.Example.Org c.example.org b.a.example.org c.a.example.org example.org org x.org *.example.org .example.org x.example.net a.example.org."),
		"", ".", strings.Repeat("a", 63)+".example.org", strings.Repeat("a", 250)+".example.org")
	poolHellos = []Hello{old,
		with(old, func(h *Hello) { h.Versions = []uint16{0x0302} }),
		with(old, func(h *Hello) { h.Versions = []uint16{0x0300} }),
		with(modern, func(h *Hello) { h.Versions = []uint16{0x0303}; h.CipherSuites = []uint16{0x000a} }),
		{SSL2Format: true, Versions: []uint16{2}}}
)

// poolValues are what rules list, as a policy file has it.
var poolValues = map[string][]string{
	"client": poolClients, "listener": ListenerNames, "port": {"993", "995", "143", "10993"}, "server_name": poolPatterns,
	"version": {"ssl2", "ssl3", "tls1.0", "tls1.1", "tls1.2"},
	"ja4":     {poolHellos[0].JA4(), poolHellos[1].JA4(), poolHellos[3].JA4(), "t10d000000_000000000000_000000000000"},
}

// matches says the same as the tables, one value at a time.
func matches(t *testing.T, m Match, h *Hello, at ConnInfo) bool {
	holds := func(key, value string) bool {
		switch key {
		case "client":
			p, err := text.ParsePrefix(value)
			if err != nil {
				t.Fatal(err)
			}
			return p.Contains(at.Client.Unmap().WithZone(""))
		case "listener":
			return value == at.Listener
		case "port":
			return value == fmt.Sprint(at.Port)
		case "server_name":
			return len(h.ServerName) <= maxServerName && coversName(value, string(lowerASCII([]byte(h.ServerName))))
		case "version":
			return value == h.Version().String()
		case "ja4":
			return value == h.JA4()
		}
		t.Fatalf("unknown key %q", key)
		return false
	}
	for _, c := range m {
		if !slices.ContainsFunc(c.Values, func(value string) bool { return holds(c.Key.Name, value) }) {
			return false
		}
	}
	return true
}

// some are a few values out of a pool: sometimes none, sometimes not restricted.
func some(r *rand.Rand, pool []string) []string {
	if r.IntN(2) == 0 {
		return nil
	}
	picked := []string{}
	for range r.IntN(4) {
		picked = append(picked, pool[r.IntN(len(pool))])
	}
	return picked
}

func keyNamed(name string) *Key {
	return Keys[slices.IndexFunc(Keys, func(k *Key) bool { return k.Name == name })]
}

func randomRule(r *rand.Rand, i int, at time.Time) *Rule {
	rule := &Rule{Name: fmt.Sprintf("rule %d", i), Mode: Modes[r.IntN(3)], Zone: time.UTC}
	if r.IntN(5) > 0 {
		rule.Match = Match{}
		for _, k := range Keys {
			if values := some(r, poolValues[k.Name]); values != nil && (k.Name != "ja4" || r.IntN(3) == 0) {
				for i := range values {
					values[i], _ = k.parse(values[i])
				}
				rule.Match = append(rule.Match, Condition{k, values})
			}
		}
	}
	switch r.IntN(4) {
	case 0:
		rule.Share = &Share{From: r.Float64(), Connection: r.IntN(2) == 0}
		rule.Share.To = rule.Share.From
	case 1:
		rule.Share = &Share{From: r.Float64(), To: r.Float64(), Connection: r.IntN(2) == 0}
		rule.From, rule.Until = at.Add(-time.Duration(r.IntN(100))*time.Hour), at.Add(time.Duration(r.IntN(100))*time.Hour+time.Second)
	}
	if r.IntN(6) == 0 {
		rule.Until = at.Add(time.Duration(r.IntN(3)-1) * time.Second) // sometimes now
	}
	return rule
}

// TestTablesDecideAsARuleByRuleWalk holds the look-ups of the hot path against
// the rules asked one by one.
func TestTablesDecideAsARuleByRuleWalk(t *testing.T) {
	r := rand.New(rand.NewPCG(20261125, 6))
	at := instant(t, "2026-06-01T12:00:00Z")
	var taken, byJA4, byName int
	for range 400 {
		rules := make([]*Rule, 1+r.IntN(maxNames))
		for i := range rules {
			rules[i] = randomRule(r, i, at)
		}
		if r.IntN(2) == 0 {
			for _, rule := range rules {
				rule.Floor, rule.OwnFloor = Floors[r.IntN(len(Floors))], r.IntN(4) == 0
			}
		}
		p := compiled(&Policy{floor: FloorTLS12, mode: Modes[r.IntN(3)], rules: rules})
		s := p.At(at)
		for range 200 {
			h := poolHellos[r.IntN(len(poolHellos))]
			h.ServerName = poolNames[r.IntN(len(poolNames))]
			place := ConnInfo{Keys: RSA, Listener: ListenerNames[r.IntN(4)], Port: []uint16{993, 995, 143, 10993, 1}[r.IntN(5)],
				Client: netip.MustParseAddr(poolAddresses[r.IntN(len(poolAddresses))])}
			value := r.Uint64()
			want, wantMode, wantFloor := "", p.Mode(), p.Floor()
			for _, rule := range rules {
				if rule.InForce(at) && matches(t, rule.Match, &h, place) &&
					(rule.Share == nil || rule.Share.takes(rule, place.Client, at, value)) {
					if wantFloor = rule.Floor; !refused(wantFloor, &h) {
						break
					}
					want, wantMode = rule.Name, rule.Mode
					taken++
					if _, has := rule.Match.of("ja4"); has {
						byJA4++
					}
					if _, has := rule.Match.of("server_name"); has {
						byName++
					}
					break
				}
			}
			v := s.Decide(&h, place, at, value)
			if v.Rule != want || v.Mode != wantMode || v.Floor != wantFloor || v.Legacy() != refused(wantFloor, &h) {
				t.Fatalf("%s %q at %+v: %q %s, want %q %s\n%+v", h.Version(), h.ServerName, place, v.Rule, v.Floor, want, wantFloor, p.Rule(want))
			}
		}
	}
	if taken < 10000 || byJA4 < 300 || byName < 1000 {
		t.Errorf("%d decisions by a rule, %d with a fingerprint, %d with a name: too few to say anything", taken, byJA4, byName)
	}
}

func refused(f Floor, h *Hello) bool {
	reason, _, _ := f.judge(h, RSA)
	return reason != NotLegacy
}

func TestANetworkKnowsTheRulesAroundIt(t *testing.T) {
	p := policyOf(t, "rules:",
		"- {name: exact, mode: observe, match: {client: [10.20.30.40/32, '2001:db8::1']}, share: 0%}",
		"- {name: middle, mode: observe, match: {client: [10.20.0.0/16, '2001:db8::/48']}, share: 0%}",
		"- {name: outer, mode: observe, match: {client: [0.0.0.0/0, '2001:db8::/32']}}")
	for client, want := range map[string]string{
		"10.20.30.40": "outer", "10.20.0.1": "outer", "192.0.2.7": "outer", "2001:db8::1": "outer", "2001:db8:1::": "outer", "2001:db9::": "",
		"::ffff:10.20.30.40": "outer",
	} {
		if got := decide(p, time.Time{}, caller{client: client}).Rule; got != want {
			t.Errorf("%s: %q, want %q", client, got, want)
		}
	}
}

// crowdedFile has 100 rules and 1,000 networks, with what the extra lines add to
// each rule. A rule that takes anything comes last.
func crowdedFile(extra func(i int) string) string {
	var b strings.Builder
	b.WriteString("mode: observe\nrules:\n")
	for i := range 99 {
		fmt.Fprintf(&b, "- name: rule %d\n  mode: observe\n  match:\n    client: [", i)
		for j := range 10 {
			fmt.Fprintf(&b, "10.%d.%d.0/24, ", i, j)
		}
		b.WriteString("10.0.0.0/8]\n")
		b.WriteString(extra(i))
	}
	b.WriteString("- {name: the rest, mode: enforce}\ncandidates:\n- {name: aead, floor: tls1.2-aead}\n- {name: tls13, floor: tls1.3}\n")
	return b.String()
}

// crowds of rules, by what they ask for beside the network.
var crowdedRules = map[string]func(i int) string{
	"nets": func(int) string { return "    port: [1]\n" },
	"names": func(i int) string {
		return fmt.Sprintf("    server_name: [n%d.example.org, '*.n%d.example.org']\n", i, i)
	},
	"ja4":    func(i int) string { return fmt.Sprintf("    ja4: [t10d2306%02d_44099cda8a52_195413a0cc0f]\n", i) },
	"shares": func(int) string { return "  share: 0%\n" },
	"floors": func(int) string { return "    listener: [pop3]\n  floor: tls1.3\n" },
	"guards": func(int) string {
		return "    listener: [pop3]\n  floor: tls1.3\n  grace: 7d\n  guard: {clients: 20, within: 1h, then: observe}\n"
	},
	"everything": func(i int) string {
		return "    ja4: [t10d230600_44099cda8a52_195413a0cc0f]\n    version: [tls1.0]\n    listener: [imaps]\n  share: 1%\n"
	},
}

func crowdedDecision(t testing.TB, kind string, h *Hello) func() Verdict {
	file := crowdedFile(crowdedRules[kind])
	if kind == "guards" {
		file = strings.ReplaceAll(file, "  mode: observe\n", "  mode: enforce\n")
	}
	p := policyOf(t, file)
	at := time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC)
	s := p.Guarded(nil, func(*Rule, netip.Addr, time.Time) bool { return true }).At(at)
	place := ConnInfo{Keys: RSA | ECDSAP256, Listener: "imaps", Port: 993, Client: netip.MustParseAddr("::ffff:10.50.5.5")}
	return func() Verdict { return s.Decide(h, place, at, 1<<63) }
}

func TestADecisionWithManyRulesDoesNotAllocate(t *testing.T) {
	named := with(old, func(h *Hello) { h.ServerName = "A.n100.Example.org" })
	for kind := range crowdedRules {
		for name, h := range map[string]*Hello{"old": &old, "named": &named, "modern": &modern} {
			decision := crowdedDecision(t, kind, h)
			if v := decision(); v.Legacy() && v.Rule != "the rest" {
				t.Errorf("%s, %s: decided by %q", kind, name, v.Rule)
			}
			if n := testing.AllocsPerRun(100, func() { decision() }); n != 0 {
				t.Errorf("%s, %s: %v allocations", kind, name, n)
			}
		}
	}
}

func BenchmarkDecideWithRules(b *testing.B) {
	named := with(old, func(h *Hello) { h.ServerName = "a.n100.example.org" })
	for _, kind := range []string{"nets", "names", "ja4", "shares", "floors", "guards", "everything"} {
		b.Run(kind, func(b *testing.B) {
			decision := crowdedDecision(b, kind, &named)
			b.ReportAllocs()
			for b.Loop() {
				decision()
			}
		})
	}
	b.Run("candidates", func(b *testing.B) {
		p := policyOf(b, namesFile(maxNames))
		s := p.At(time.Time{})
		b.ReportAllocs()
		for b.Loop() {
			s.Decide(&modern, ConnInfo{Keys: RSA | ECDSAP256}, time.Time{}, 0)
		}
	})
}
