package policy

import (
	"math"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"
)

func randomIPv4(random *rand.Rand) netip.Addr {
	n := random.Uint32()
	return netip.AddrFrom4([4]byte{192, byte(n >> 16), byte(n >> 8), byte(n)})
}

// asked is a policy whose rules have every key, schedules and shares of both
// kinds.
const asked = `
mode: observe
rules:
  - {name: net, mode: enforce, match: {client: [192.0.0.0/9, "2001:db8::/32"], version: [tls1.0, tls1.1]}, share: 50%}
  - {name: listener, mode: explain, match: {listener: [imap, pop3]}, from: 2026-06-10T00:00:00Z, until: 2026-06-20T00:00:00Z}
  - {name: port, mode: observe, match: {port: [10993], version: [ssl3]}}
  - {name: server, mode: explain, match: {server_name: ["*.example.org", mail.example.com]}, schedule: "*/20 * * * *", for: 7m}
  - {name: fingerprint, mode: enforce, match: {ja4: [JA4]}, until: 2026-06-15T00:00:00Z}
  - {name: some, mode: enforce, share: {from: 80%, to: 10%, by: connection}, from: 2026-06-05T00:00:00Z, until: 2026-06-25T00:00:00Z}
  - {name: ramp, mode: explain, share: {from: 0%, to: 100%}, from: 2026-06-01T00:00:00Z, until: 2026-07-01T00:00:00Z}
  - {name: cutover, mode: enforce, from: 2026-07-01T00:00:00Z}
`

func TestAnExplanationAgreesWithDecide(t *testing.T) {
	hellos := []Hello{old}
	for _, v := range []uint16{0x0300, 0x0302, 0x0303} {
		hellos = append(hellos, with(old, func(h *Hello) { h.Versions = []uint16{v} }))
	}
	p := parsed(t, strings.Replace(asked, "JA4", hellos[2].JA4(), 1))
	random := rand.New(rand.NewPCG(5, 6))
	taken := make(map[string]int)
	answers := make(map[Answer]int)
	for range 20000 {
		h := hellos[random.IntN(len(hellos))]
		h.ServerName = []string{"", "a.example.org", "MAIL.example.com", "example.org"}[random.IntN(4)]
		at := ConnInfo{Keys: RSA, Listener: ListenerNames[random.IntN(4)], Port: []uint16{993, 10993}[random.IntN(2)], Client: randomIPv4(random)}
		if random.IntN(4) == 0 {
			at.Client = netip.AddrFrom16([16]byte{0x20, 1, 0xd, 0xb8, byte(random.IntN(2)), byte(random.Uint32())})
		}
		when := moment(t, "2026-05-25 00:00").Add(time.Duration(random.Int64N(int64(45 * 24 * time.Hour))))
		value := random.Uint64()
		now := p.At(when)
		want := now.Decide(&h, at, when, value)
		client := Client{ConnInfo: at, Version: h.Version(), ServerName: h.ServerName, JA4: h.Fingerprint()}
		// Which of the connections a share takes is left open.
		takes := func(r *Rule) bool { return r.Share == nil || r.Share.takes(r, at.Client, when, value) }
		outcomes, whole := now.Outcomes(client, when), 0.0
		for _, o := range slices.Backward(outcomes) {
			whole += o.Part
		}
		outcome := outcomes[slices.IndexFunc(outcomes, func(o Outcome) bool { return o.Rule == nil || takes(o.Rule) })]
		if outcome.Rule != p.Rule(want.Rule) || outcome.Mode != want.Mode || math.Abs(whole-1) > slack {
			t.Fatalf("%+v at %v: outcomes %+v, decided by %q", at, when, outcomes, want.Rule)
		}
		got, mode := "", p.Mode()
		for _, s := range slices.Backward(p.Explain(client, when)) {
			answers[s.Answer]++
			if s.Answer == Takes || s.Answer == TakesSome && takes(s.Rule) {
				got, mode = s.Rule.Name, s.Rule.Mode
			}
		}
		if got != want.Rule || mode != want.Mode {
			t.Fatalf("%+v at %v: explained by %q, decided by %q", at, when, got, want.Rule)
		}
		taken[got]++
	}
	for _, r := range p.Rules() {
		if taken[r.Name] == 0 {
			t.Errorf("rule %s never took one", r.Name)
		}
	}
	if len(answers) != 8 {
		t.Errorf("answers: %v", answers)
	}
}

func TestAnExplanationSaysWhyAndUntilWhen(t *testing.T) {
	p := example(t)
	client := netip.MustParseAddr("192.0.2.7")
	ask := func(at string) []Step {
		return p.Explain(Client{ConnInfo: ConnInfo{Listener: "imaps", Port: 993, Client: client}, Version: TLS10}, moment(t, at))
	}
	answers := func(steps []Step) (all []Answer) {
		for _, s := range steps {
			all = append(all, s.Answer)
		}
		return all
	}

	steps := ask("2026-06-09 10:30")
	if want := []Answer{NoMatch, NoMatch, NoMatch, BetweenWindows, BeginsLater, BeginsLater}; !slices.Equal(answers(steps), want) {
		t.Errorf("between windows: %v, want %v", answers(steps), want)
	}
	if steps[0].Key != "client" || steps[1].Key != "server_name" || steps[2].Key != "port" {
		t.Errorf("keys %q, %q, %q", steps[0].Key, steps[1].Key, steps[2].Key)
	}
	if !steps[3].Time.Equal(moment(t, "2026-06-09 11:00")) || !steps[4].Time.Equal(moment(t, "2026-06-15 00:00")) {
		t.Errorf("next window %v, ramp %v", steps[3].Time, steps[4].Time)
	}
	if steps = ask("2026-06-09 10:05"); steps[3].Answer != Takes || steps[4].Answer != NotAsked {
		t.Errorf("in a window: %v", answers(steps))
	}
	// After the last window there is none, though the schedule has more.
	if steps = ask("2026-06-11 23:30"); steps[3].Answer != BetweenWindows || !steps[3].Time.IsZero() {
		t.Errorf("after the last window: %+v", steps[3])
	}

	steps = ask("2026-06-15 00:00")
	if want := []Answer{NoMatch, NoMatch, NoMatch, HasEnded, OutsideShare, BeginsLater}; !slices.Equal(answers(steps), want) {
		t.Errorf("outside the share: %v, want %v", answers(steps), want)
	}
	turn := steps[4].Time
	before := p.Explain(Client{ConnInfo: ConnInfo{Client: client}}, turn.Add(-2*time.Second))[4]
	after := p.Explain(Client{ConnInfo: ConnInfo{Client: client}}, turn)[4]
	if before.Answer != OutsideShare || after.Answer != Takes || after.Position != steps[4].Position {
		t.Errorf("its turn is %v, but %+v, then %+v", turn, before, after)
	}
}

func TestWithoutAnAddressAShareIsLeftOpen(t *testing.T) {
	p := example(t)
	for at, want := range map[string]Answer{"2026-06-15 00:00": OutsideShare, "2026-06-20 00:00": TakesSome} {
		if got := p.Explain(Client{ConnInfo: ConnInfo{Listener: "imaps"}}, moment(t, at))[4]; got.Answer != want {
			t.Errorf("%s: %+v, want %v", at, got, want)
		}
	}
	p = parsed(t, "rules: [{name: few, mode: observe, share: {from: 5%, to: 5%, by: connection}, from: 2026-06-01T00:00:00Z, until: 2026-07-01T00:00:00Z}]")
	if got := p.Explain(Client{ConnInfo: ConnInfo{Client: netip.MustParseAddr("::1")}}, moment(t, "2026-06-02 00:00"))[0]; got.Answer != TakesSome || got.Share != 0.05 {
		t.Errorf("by connection: %+v", got)
	}
}
