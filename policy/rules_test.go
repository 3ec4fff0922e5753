package policy

import (
	"errors"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"
)

func examplePolicy(t testing.TB) *Policy {
	t.Helper()
	data, err := os.ReadFile("testdata/example.yaml")
	if err != nil {
		t.Fatal(err)
	}
	return policyOf(t, string(data))
}

func TestTheExamplePolicyThroughItsLife(t *testing.T) {
	p := examplePolicy(t)
	if p.Floor() != FloorTLS12 || p.Mode() != Observe || len(p.Rules()) != 6 || len(p.Candidates()) != 2 {
		t.Fatalf("floor %s, mode %s, %d rules, %d candidates", p.Floor(), p.Mode(), len(p.Rules()), len(p.Candidates()))
	}
	if r := p.Rule("warehouse scanners"); !r.Exemption() || r.Owner != "facilities@example.org" || r.Line != 4 {
		t.Errorf("an exemption is %+v", r)
	}
	anybody := caller{client: "192.0.2.7", listener: "imaps", port: 993}
	from := func(client string) caller { return caller{client: client, listener: "imap", port: 143} }
	named := func(name string) caller { return caller{client: "192.0.2.7", listener: "imaps", port: 993, name: name} }
	on := func(port uint16) caller { return caller{client: "192.0.2.7", listener: "imaps", port: port} }
	late := caller{client: "2001:db8:0:1::1"} // 0.977 in the ramp
	for _, tt := range []struct {
		who  string
		a    caller
		at   string
		mode Mode
		rule string
	}{
		{"anybody before", anybody, "2026-06-01T00:00:00Z", Observe, ""},
		{"an exempted IPv4 client", from("10.20.255.255"), "2026-08-01T00:00:00Z", Observe, "warehouse scanners"},
		{"an IPv4-mapped one", from("::ffff:10.20.0.1"), "2026-08-01T00:00:00Z", Observe, "warehouse scanners"},
		{"an exempted IPv6 client", from("2001:db8:20:ffff::1"), "2026-08-01T00:00:00Z", Observe, "warehouse scanners"},
		{"its neighbour", from("10.21.0.0"), "2026-08-01T00:00:00Z", Enforce, "cutover"},
		{"its IPv6 neighbour", from("2001:db8:21::1"), "2026-08-01T00:00:00Z", Enforce, "cutover"},
		{"an IPv4-compatible address", from("::10.20.0.1"), "2026-08-01T00:00:00Z", Enforce, "cutover"},
		{"the exemption in its last moment", from("10.20.0.1"), "2026-12-30T23:59:59.999999999Z", Observe, "warehouse scanners"},
		{"the exemption has ended", from("10.20.0.1"), "2026-12-31T00:00:00Z", Enforce, "cutover"},
		{"an exempted client in a brownout", from("10.20.0.1"), "2026-06-08T08:00:00Z", Observe, "warehouse scanners"},
		{"opt-in by name", named("imap-legacy.example.org"), "2026-08-01T00:00:00Z", Observe, "legacy endpoint by name"},
		{"in capitals", named("IMAP-Legacy.Example.ORG"), "2026-08-01T00:00:00Z", Observe, "legacy endpoint by name"},
		{"another name", named("imap.example.org"), "2026-08-01T00:00:00Z", Enforce, "cutover"},
		{"a name below it", named("a.imap-legacy.example.org"), "2026-08-01T00:00:00Z", Enforce, "cutover"},
		{"opt-in by port", on(10993), "2026-08-01T00:00:00Z", Observe, "legacy endpoint by port"},
		{"another port", on(993), "2026-08-01T00:00:00Z", Enforce, "cutover"},
		{"the hour strikes before the brownouts", anybody, "2026-06-07T23:00:00Z", Observe, ""},
		{"the first brownout", anybody, "2026-06-08T00:00:00Z", Enforce, "brownouts"},
		{"in a brownout", anybody, "2026-06-09T14:09:59Z", Enforce, "brownouts"},
		{"after a brownout", anybody, "2026-06-09T14:10:00Z", Observe, ""},
		{"the last brownout", anybody, "2026-06-11T23:09:59Z", Enforce, "brownouts"},
		{"the hour strikes after the brownouts", anybody, "2026-06-12T00:00:00Z", Observe, ""},
		{"the ramp begins with nobody", anybody, "2026-06-15T00:00:00Z", Observe, ""},
		{"0.3 % in, at one hour and a half", anybody, "2026-06-15T01:30:00Z", Explain, "ramp"},
		{"who is last in the ramp", late, "2026-06-30T12:00:00Z", Observe, ""},
		{"in the last hours", late, "2026-06-30T18:00:00Z", Explain, "ramp"},
		{"the ramp's last moment", late, "2026-06-30T23:59:59Z", Explain, "ramp"},
		{"the cut-over", anybody, "2026-07-01T00:00:00Z", Enforce, "cutover"},
		{"years later", anybody, "2036-07-01T00:00:00Z", Enforce, "cutover"},
	} {
		v := decide(p, instant(t, tt.at), tt.a)
		if v.Mode != tt.mode || v.Rule != tt.rule || v.Reason != ReasonVersion {
			t.Errorf("%s: %s by %q (%s), want %s by %q", tt.who, v.Mode, v.Rule, v.Reason, tt.mode, tt.rule)
		}
		tt.a.hello = &modern
		if v := decide(p, instant(t, tt.at), tt.a); v.Legacy() || v.Rule != "" || v.Serve != Enforce {
			t.Errorf("%s, with a modern program: %+v", tt.who, v)
		}
	}
}

func TestAWildcardIsOneLabel(t *testing.T) {
	p := policyOf(t, "rules:",
		"- {name: wild, mode: observe, match: {server_name: ['*.Old.example.org', '*.example.net']}}",
		"- {name: exact, mode: explain, match: {server_name: [a.old.example.org, old.example.org.]}}")
	for name, want := range map[string]string{
		"a.old.example.org":      "wild",
		"A.OLD.EXAMPLE.ORG":      "wild",
		"*.old.example.org":      "wild",
		"old.example.org":        "exact",
		"b.a.old.example.org":    "",
		".old.example.org":       "",
		"xold.example.org":       "",
		"example.net":            "",
		"a.example.net":          "wild",
		"a.example.net.":         "",
		"a.b.example.net":        "",
		"":                       "",
		".":                      "",
		"\u212A.example.net":     "wild", // no letter of ours, but a label
		"a.example.\u017Fet":     "",
		strings.Repeat("a", 300): "",
		strings.Repeat("a", 300) + ".example.net": "",
	} {
		if got := decide(p, time.Time{}, caller{client: "192.0.2.7", name: name}).Rule; got != want {
			t.Errorf("%q: rule %q, want %q", name, got, want)
		}
	}
}

func TestAllKeysOfARuleMustHoldAnyValueOfAKey(t *testing.T) {
	ja4 := old.JA4()
	p := policyOf(t, "rules:",
		"- name: all",
		"  mode: observe",
		"  match: {client: [192.0.2.0/24, 198.51.100.1], listener: [imaps, pop3s], port: [993, 995], server_name: [a.example.org, '*.example.net'], version: [ssl3, tls1.0], ja4: ["+
			strings.Replace(ja4, "i", "d", 1)+", t10d000000_000000000000_000000000000, "+ja4+"]}")
	named := with(old, func(h *Hello) { h.Extensions = []uint16{0} })
	if named.JA4() == ja4 {
		t.Fatal("the name extension does not show in the fingerprint")
	}
	right := caller{client: "192.0.2.7", listener: "imaps", port: 993, name: "a.example.org"}
	for _, tt := range []struct {
		what   string
		change func(*caller)
		want   string
	}{
		{"everything", func(*caller) {}, "all"},
		{"another value of each", func(a *caller) {
			*a = caller{client: "::ffff:198.51.100.1", listener: "pop3s", port: 995, name: "X.example.NET"}
		}, "all"},
		{"another client", func(a *caller) { a.client = "198.51.100.2" }, ""},
		{"another listener", func(a *caller) { a.listener = "imap" }, ""},
		{"another port", func(a *caller) { a.port = 143 }, ""},
		{"another name", func(a *caller) { a.name = "b.example.org" }, ""},
		{"no name", func(a *caller) { a.name = "" }, ""},
		{"another version", func(a *caller) { h := with(old, func(h *Hello) { h.Versions = []uint16{0x0302} }); a.hello = &h }, ""},
		{"another fingerprint", func(a *caller) { h := with(old, func(h *Hello) { h.CipherSuites = []uint16{5} }); a.hello = &h }, ""},
	} {
		a := right
		tt.change(&a)
		if got := decide(p, time.Time{}, a).Rule; got != tt.want {
			t.Errorf("%s: rule %q, want %q", tt.what, got, tt.want)
		}
	}
}

func TestTheFirstRuleThatMatchesDecides(t *testing.T) {
	at := instant(t, "2026-06-01T00:00:00Z")
	p := policyOf(t, "mode: enforce", "rules:",
		"- {name: ended, mode: observe, until: 2026-06-01T00:00:00Z}",
		"- {name: not begun, mode: observe, from: 2026-06-01T00:00:01Z}",
		"- {name: closed, mode: observe, schedule: '1 * * * *', for: 59m}",
		"- {name: nobody, mode: observe, share: 0%}",
		"- {name: nothing, mode: observe, match: {client: []}}",
		"- {name: another client, mode: observe, match: {client: [192.0.2.0/24]}}",
		"- {name: wide, mode: explain, match: {client: [10.0.0.0/8]}}",
		"- {name: narrow, mode: observe, match: {client: [10.20.0.0/16]}}",
		"- {name: everybody, mode: explain, match: {}}",
		"- {name: never, mode: observe}")
	for client, want := range map[string]string{
		"10.20.0.1": "wide", "10.0.0.1": "wide", "192.0.2.7": "another client", "198.51.100.1": "everybody", "2001:db8::1": "everybody",
	} {
		if got := decide(p, at, caller{client: client}); got.Rule != want {
			t.Errorf("%s: %q, want %q", client, got.Rule, want)
		}
	}
	if got := p.At(at).Decide(&old, ConnInfo{Keys: RSA}, at, 0); got.Rule != "everybody" {
		t.Errorf("a client without an address: %q", got.Rule)
	}
}

func TestWhatTheModeMetricSays(t *testing.T) {
	p := policyOf(t, "mode: observe", "rules:",
		"- {name: some, mode: enforce, share: 100%}",
		"- {name: few, mode: enforce, match: {listener: [imap], port: [143]}}",
		"- {name: none, mode: enforce, match: {listener: []}}",
		"- {name: pop, mode: explain, match: {listener: [pop3, pop3s]}, from: 2026-06-01T00:00:00Z, until: 2026-08-01T00:00:00Z}",
		"- {name: night, mode: enforce, match: {}, schedule: '0 0 * * *', for: 1h}",
		"- {name: cut, mode: explain, from: 2026-07-01T00:00:00Z}")
	for _, tt := range []struct {
		at   string
		want [4]Mode // by ListenerNames: imaps, pop3s, imap, pop3
	}{
		{"2026-05-31T12:00:00Z", [4]Mode{Observe, Observe, Observe, Observe}},
		{"2026-05-31T00:30:00Z", [4]Mode{Enforce, Enforce, Enforce, Enforce}},
		{"2026-06-01T00:30:00Z", [4]Mode{Enforce, Explain, Enforce, Explain}},
		{"2026-06-01T01:00:00Z", [4]Mode{Observe, Explain, Observe, Explain}},
		{"2026-07-01T01:00:00Z", [4]Mode{Explain, Explain, Explain, Explain}},
	} {
		s := p.At(instant(t, tt.at))
		for i, listener := range ListenerNames {
			if got := s.ModeFor(listener); got != tt.want[i] {
				t.Errorf("%s on %s: %s, want %s", tt.at, listener, got, tt.want[i])
			}
		}
	}
	if got := (&Snapshot{Mode: Explain}).ModeFor("imaps"); got != Explain {
		t.Errorf("without a policy: %s", got)
	}
}

func TestFromWhenOnNobodyCanBeServedBelowTheFloor(t *testing.T) {
	const june, july, august = "2026-06-01T00:00:00Z", "2026-07-01T00:00:00Z", "2026-08-01T00:00:00Z"
	for _, tt := range []struct {
		what  string
		lines []string
		// june, july, august: whether anybody can be served, then or later
		want [3]bool
	}{
		{"no rules, enforce", []string{"mode: enforce"}, [3]bool{false, false, false}},
		{"no rules, observe", []string{"mode: observe"}, [3]bool{true, true, true}},
		{"a cut-over", []string{"mode: observe", "rules:",
			"- {name: cut, mode: enforce, from: " + july + "}"}, [3]bool{true, false, false}},
		{"a cut-over with an end", []string{"mode: observe", "rules:",
			"- {name: cut, mode: enforce, from: " + july + ", until: " + august + "}"}, [3]bool{true, true, true}},
		{"two cut-overs without a gap", []string{"mode: observe", "rules:",
			"- {name: cut, mode: enforce, from: " + july + ", until: " + august + "}", "- {name: cut for good, mode: enforce, from: " + august + "}"}, [3]bool{true, false, false}},
		{"the same, upside down", []string{"mode: observe", "rules:",
			"- {name: cut for good, mode: enforce, from: " + august + "}", "- {name: cut, mode: enforce, from: " + july + ", until: " + august + "}"}, [3]bool{true, false, false}},
		{"an exemption before the cut-over", []string{"mode: observe", "rules:",
			"- {name: debt, mode: observe, owner: me, match: {client: [192.0.2.7]}, until: " + august + "}",
			"- {name: cut, mode: enforce, from: " + july + "}"}, [3]bool{true, true, false}},
		{"an exemption behind the cut-over", []string{"mode: enforce", "rules:",
			"- {name: cut, mode: enforce, from: " + july + "}",
			"- {name: debt, mode: observe, owner: me, match: {client: [192.0.2.7]}, until: " + august + "}"}, [3]bool{true, false, false}},
		{"an explanation to come", []string{"mode: enforce", "rules:",
			"- {name: words, mode: explain, from: " + july + ", until: " + august + "}"}, [3]bool{true, true, false}},
		{"an explanation to come, behind what is closed by then", []string{"mode: enforce", "rules:",
			"- {name: cut, mode: enforce, from: " + july + "}",
			"- {name: words, mode: explain, from: " + august + "}"}, [3]bool{false, false, false}},
		{"a cut-over for some", []string{"mode: observe", "rules:",
			"- {name: cut, mode: enforce, match: {listener: [imaps]}}"}, [3]bool{true, true, true}},
		{"a cut-over for each listener", []string{"mode: observe", "rules:",
			"- {name: cut, mode: enforce, match: {listener: [pop3, imap, imaps, pop3s]}}"}, [3]bool{false, false, false}},
		{"a cut-over for nobody", []string{"mode: observe", "rules:",
			"- {name: cut, mode: enforce, match: {listener: []}}"}, [3]bool{true, true, true}},
		{"a cut-over with an empty match", []string{"mode: observe", "rules:",
			"- {name: cut, mode: enforce, match: {}}"}, [3]bool{false, false, false}},
		{"a cut-over for nearly all", []string{"mode: observe", "rules:",
			"- {name: cut, mode: enforce, share: 99.999%}"}, [3]bool{true, true, true}},
		{"a cut-over for 100 %", []string{"mode: observe", "rules:",
			"- {name: cut, mode: enforce, share: 100%}"}, [3]bool{false, false, false}},
		{"a cut-over that grows", []string{"mode: observe", "rules:",
			"- {name: cut, mode: enforce, share: {from: 0%, to: 100%}, from: " + june + ", until: " + july + "}", "- {name: done, mode: enforce, from: " + july + "}"}, [3]bool{true, false, false}},
		{"brownouts alone", []string{"mode: observe", "rules:",
			"- {name: brownouts, mode: enforce, schedule: '* * * * *', for: 1m}"}, [3]bool{true, true, true}},
		{"explaining brownouts", []string{"mode: enforce", "rules:",
			"- {name: brownouts, mode: explain, schedule: '0 * * * *', for: 1m, until: " + july + "}"}, [3]bool{true, false, false}},
		{"a lenient rule for nobody", []string{"mode: enforce", "rules:",
			"- {name: nothing, mode: observe, match: {client: []}}", "- {name: nobody, mode: observe, share: 0%}"}, [3]bool{false, false, false}},
	} {
		p := policyOf(t, tt.lines...)
		for i, at := range []string{june, july, august} {
			if got := p.MayServeLegacy(instant(t, at)); got != tt.want[i] {
				t.Errorf("%s: at %s it is %v", tt.what, at, got)
			}
		}
		if tt.want[0] && !tt.want[1] && !p.MayServeLegacy(instant(t, july).Add(-1)) {
			t.Errorf("%s: it ends before its time", tt.what)
		}
	}
}

func TestARuleHasAFloorOfItsOwn(t *testing.T) {
	tls12 := with(modern, func(h *Hello) { h.Versions = []uint16{0x0303}; h.CipherSuites = []uint16{0xc013} })
	p := policyOf(t, "floor: tls1.2-aead", "mode: observe", "rules:",
		"- {name: early, mode: enforce, floor: tls1.3, match: {port: [10993]}}",
		"- {name: late, mode: explain, floor: tls1.2, match: {port: [10995]}}",
		"- {name: until july, mode: enforce, floor: tls1.3-pq, match: {port: [10143]}, until: 2026-07-01T00:00:00Z}",
		"- {name: exempt, mode: observe, match: {client: [192.0.2.0/24]}}",
		"- {name: rest, mode: explain, floor: tls1.3}")
	june := instant(t, "2026-06-01T12:00:00Z")
	for _, tt := range []struct {
		hello  *Hello
		port   uint16
		client string
		at     time.Time
		floor  Floor
		reason Reason
		mode   Mode
		rule   string
	}{
		{&modern, 10993, "198.51.100.7", june, FloorTLS13, NotLegacy, Observe, ""},
		{&tls12, 10993, "192.0.2.7", june, FloorTLS13, ReasonVersion, Enforce, "early"},
		{&tls12, 10995, "198.51.100.7", june, FloorTLS12, NotLegacy, Observe, ""},
		{&old, 10995, "198.51.100.7", june, FloorTLS12, ReasonVersion, Explain, "late"},
		{&modern, 10143, "192.0.2.7", june, FloorTLS13PQ, ReasonCipher, Enforce, "until july"},
		{&modern, 10143, "192.0.2.7", june.AddDate(0, 2, 0), FloorTLS12AEAD, NotLegacy, Observe, ""},
		// Where a rule without a floor comes first, the policy's is the one.
		{&tls12, 993, "192.0.2.7", june, FloorTLS12AEAD, ReasonCipher, Observe, "exempt"},
		{&tls12, 993, "198.51.100.7", june, FloorTLS13, ReasonVersion, Explain, "rest"},
	} {
		v := decide(p, tt.at, caller{client: tt.client, port: tt.port, hello: tt.hello})
		if v.Floor != tt.floor || v.Reason != tt.reason || v.Mode != tt.mode || v.Rule != tt.rule {
			t.Errorf("%s from %s at port %d: floor %s, reason %q, %s by %q, want %s, %q, %s by %q",
				tt.hello.Version(), tt.client, tt.port, v.Floor, v.Reason, v.Mode, v.Rule, tt.floor, tt.reason, tt.mode, tt.rule)
		}
	}
	if got := p.Floors(); !slices.Equal(got, []Floor{FloorTLS12AEAD, FloorTLS13, FloorTLS12, FloorTLS13PQ}) {
		t.Errorf("floors %v", got)
	}
	now := p.At(june)
	for port, want := range map[uint16]Floor{10993: FloorTLS13, 993: FloorTLS12AEAD} {
		c := Client{ConnInfo: ConnInfo{Client: netip.MustParseAddr("192.0.2.7"), Port: port}}
		if got := now.Outcomes(c, june); len(got) != 1 || got[0].Floor != want {
			t.Errorf("port %d: %+v, want the floor %s", port, got, want)
		}
	}
}

// Remembered has the floors of remembered candidates alone, and of those who reach the
// floor alone; it changes nothing else, and costs no memory.
func TestRememberedCandidatesMarkWhomTheyRefuse(t *testing.T) {
	tls12 := with(modern, func(h *Hello) { h.Versions = []uint16{0x0303}; h.CipherSuites = []uint16{0xc013} })
	broken := with(old, func(h *Hello) { h.Unreadable = true })
	p := policyOf(t, "floor: tls1.2", "mode: observe", "candidates:", "- {name: aead, floor: tls1.2-aead, remember: true}",
		"- {name: counted, floor: tls1.3-pq, remember: false}", "- {name: tls13, floor: tls1.3, remember: true}")
	if got := p.Remembered(); len(got) != 2 || got[0].Name != "aead" || got[1].Name != "tls13" || len(p.Candidates()) != 3 {
		t.Errorf("remembered: %v of %v", got, p.Candidates())
	}
	for name, tt := range map[string]struct {
		hello Hello
		want  FloorSet
	}{
		"modern": {modern, 0}, "TLS 1.2 with CBC": {tls12, 1<<FloorTLS12AEAD | 1<<FloorTLS13}, "TLS 1.0": {old, 0}, "broken": {broken, 0},
		"TLS 1.2 with GCM": {with(tls12, func(h *Hello) { h.CipherSuites = []uint16{0xc02f} }), 1 << FloorTLS13},
	} {
		c := caller{client: "192.0.2.7", hello: &tt.hello}
		v := decide(p, time.Time{}, c)
		if v.Remembered != tt.want {
			t.Errorf("%s: %b, want %b", name, v.Remembered, tt.want)
		}
		if plain := decide(policyOf(t, "floor: tls1.2", "mode: observe"), time.Time{}, c); v.Mode != plain.Mode || v.Serve != plain.Serve || v.Reason != plain.Reason {
			t.Errorf("%s: remembering changes the verdict", name)
		}
		snapshot, now := p.At(time.Time{}), time.Time{}
		if n := testing.AllocsPerRun(100, func() { snapshot.Decide(c.hello, ConnInfo{Keys: RSA}, now, 0) }); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
	if f, err := p.RememberedFloor("tls13"); f != FloorTLS13 || err != nil {
		t.Errorf("%s, %v", f, err)
	}
	if _, err := p.RememberedFloor("counted"); !errors.As(err, new(NotRemembered)) || err.Error() != `no such remembered candidate "counted": use aead, tls13` {
		t.Errorf("%v", err)
	}
	none := policyOf(t, "floor: tls1.2", "mode: observe")
	if _, err := none.RememberedFloor("x"); !errors.As(err, new(NotRemembered)) || !strings.HasPrefix(err.Error(), `the policy remembers no candidate "x": write remember: true`) {
		t.Errorf("%v", err)
	}
}

func TestCandidatesAreJudgedBesideTheFloor(t *testing.T) {
	tls12 := with(modern, func(h *Hello) { h.Versions = []uint16{0x0303}; h.CipherSuites = []uint16{0xc013} })
	for _, tt := range []struct {
		name  string
		hello Hello
		// real, then for the floors named
		real, compat, aead, tls13 Reason
	}{
		{"modern", modern, NotLegacy, NotLegacy, NotLegacy, NotLegacy},
		{"TLS 1.2 with CBC", tls12, NotLegacy, NotLegacy, ReasonCipher, ReasonVersion},
		{"TLS 1.0", old, ReasonVersion, ReasonVersion, ReasonVersion, ReasonVersion},
	} {
		p := policyOf(t, "floor: tls1.2", "candidates:", "- {name: compat, floor: tls1.2-compat}", "- {name: aead, floor: tls1.2-aead}",
			"- {name: again, floor: tls1.2-aead}", "- {name: tls13, floor: tls1.3}")
		v := decide(p, time.Time{}, caller{client: "192.0.2.7", hello: &tt.hello})
		if v.Reason != tt.real || v.RefusedBy(FloorTLS12Compat) != tt.compat || v.RefusedBy(FloorTLS12AEAD) != tt.aead || v.RefusedBy(FloorTLS13) != tt.tls13 {
			t.Errorf("%s: %q; candidates %q, %q, %q", tt.name, v.Reason, v.RefusedBy(FloorTLS12Compat), v.RefusedBy(FloorTLS12AEAD), v.RefusedBy(FloorTLS13))
		}
		if got := v.RefusedBy(FloorTLS12); got != NotLegacy {
			t.Errorf("%s: a floor that no candidate names: %q", tt.name, got)
		}
		plain := decide(policyOf(t, "floor: tls1.2"), time.Time{}, caller{client: "192.0.2.7", hello: &tt.hello})
		if v.Mode != plain.Mode || v.Serve != plain.Serve || v.Reason != plain.Reason || v.Floor != plain.Floor {
			t.Errorf("%s: candidates change the verdict", tt.name)
		}
	}
}
