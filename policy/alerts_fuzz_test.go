package policy_test

import (
	"crypto/tls"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"postern/policy"
)

// A hello may have faults that are no matter of the floor: no usable
// compression, point formats or key shares, early data, ALPN that is not ours,
// and more. Here every alert of crypto/tls must be either the one of the
// verdict or the one of such a fault, and nothing else may be refused.

// FuzzEveryAlertHasItsReason makes hellos, faults and all, of arbitrary bytes.
func FuzzEveryAlertHasItsReason(f *testing.F) {
	for _, s := range seeds {
		for floor := range byte(len(policy.Floors)) {
			f.Add(floor, byte(s.keys), s.legacyVersion, s.versions, s.suites, s.groups, s.shares, s.schemes, s.points, uint16(s.quirks))
		}
	}
	f.Fuzz(func(t *testing.T, floor, keys byte, legacyVersion uint16, versions, suites, groups, shares, schemes, points []byte, quirks uint16) {
		raw := rawOffer{
			policy.KeyTypes(keys), legacyVersion, versions, suites, groups, shares, schemes, points, quirk(quirks),
		}
		holdToVerdict(t, policy.Floors[int(floor)%len(policy.Floors)], raw.keySet(), raw.offer(), nil)
	})
}

// TestEveryAlertHasItsReason is the same with a fixed seed.
func TestEveryAlertHasItsReason(t *testing.T) {
	const hellos = 8000 // for each floor
	for i, floor := range policy.Floors {
		t.Run(floor.String(), func(t *testing.T) {
			t.Parallel()
			random := rand.New(rand.NewPCG(5246, uint64(i)))
			met := make(census)
			for range hellos {
				raw := randomOffer(random)
				holdToVerdict(t, floor, raw.keySet(), raw.offer(), met)
				if t.Failed() {
					return
				}
			}
			for _, what := range expectedIn(floor) {
				if met[what] < 5 {
					t.Errorf("%q came %d times in %d hellos, which says too little", what, met[what], hellos)
				}
			}
		})
	}
}

// census counts what hellos met, so that a test knows that it saw everything.
type census map[string]int

func (c census) count(what string, a answer) {
	if c != nil {
		c[what+": "+a.String()]++
	}
}

// expectedIn lists what must turn up in a test of thousands of hellos.
func expectedIn(floor policy.Floor) []string {
	all := []string{
		"unreadable: alert 50",
		"none: a ServerHello", "none: alert 40", "none: alert 47", "none: alert 70", "none: alert 109", "none: alert 110", "none: alert 120",
		"version: alert 70", "fallback: alert 70", "cipher: alert 40", "cipher: alert 47", "cipher: alert 120",
		"observed: a ServerHello", "observed: alert 47", "observed: alert 120",
		"beyond help: alert 40", "beyond help: alert 70",
	}
	if floor.MinVersion() < policy.TLS13 {
		all = append(all, "none: alert 86", "cipher: alert 109")
	}
	return all
}

// holdToVerdict compares what the policy says of a hello with what crypto/tls
// does, under the floor and under the lenient configuration.
func holdToVerdict(t *testing.T, floor policy.Floor, keys policy.KeyTypes, o *offer, met census) {
	t.Helper()
	enforce := proxy{snapshot: policy.Snapshot{Floor: floor, Mode: policy.Enforce}, keys: keys}
	a := enforce.ask(t, o)
	describe := func() string { return fmt.Sprintf("floor %s, keys %05b, %s", floor, keys, o) }
	if !a.judged {
		if !o.malformed() || a.alert != alertDecodeError {
			t.Fatalf("%s: never judged, %s", describe(), a)
		}
		met.count("unreadable", a)
		return
	}
	v := a.verdict
	if want := expected(v, o, negotiated(&a.hello, floor.MinVersion())); !slices.Contains(want, a.outcome()) {
		t.Fatalf("%s: reason %q, but %s; want one of %v", describe(), v.Reason, a, want)
	}
	met.count(label(v.Reason), a)
	if v.Serve != policy.Enforce {
		t.Fatalf("%s: mode enforce serves it in mode %s", describe(), v.Serve)
	}

	for _, mode := range []policy.Mode{policy.Explain, policy.Observe} {
		again := policy.Snapshot{Floor: floor, Mode: mode}.Decide(&a.hello, policy.ConnInfo{Keys: keys}, time.Time{}, 0)
		if again.Reason != v.Reason || again.Version != v.Version || again.Serve != policy.Enforce && again.Serve != mode {
			t.Fatalf("%s: %+v in mode enforce, %+v in mode %s", describe(), v, again, mode)
		}
	}
	if v.Legacy() {
		holdToServe(t, floor, keys, o, met)
	}
}

// holdToServe lets the lenient configuration answer a legacy hello: it must
// serve what the verdict says it does, and nothing else.
func holdToServe(t *testing.T, floor policy.Floor, keys policy.KeyTypes, o *offer, met census) {
	t.Helper()
	observe := proxy{snapshot: policy.Snapshot{Floor: floor, Mode: policy.Observe}, keys: keys, lenient: true}
	a := observe.ask(t, o)
	faults := o.faults(negotiated(&a.hello, policy.TLS10))
	switch {
	case a.verdict.Serve == policy.Observe:
		met.count("observed", a)
		if a.served != (len(faults) == 0) || !a.served && !slices.Contains(faults, a.alert) {
			t.Fatalf("floor %s, keys %05b, %s: to be observed, but %s", floor, keys, o, a)
		}
	case o.fallsBack():
		met.count("falls back", a)
		if a.served && !o.hides() {
			t.Fatalf("floor %s, keys %05b, %s: falls back, but %s", floor, keys, o, a)
		}
	default:
		met.count("beyond help", a)
		want := append(faults, alertHandshakeFailure)
		if negotiated(&a.hello, policy.TLS10) == policy.NoVersion {
			want = []alert{alertProtocolVersion}
		}
		if a.served || !slices.Contains(want, a.alert) {
			t.Fatalf("floor %s, keys %05b, %s: not to be served, but %s", floor, keys, o, a)
		}
	}
}

// outcome is the alert, or noAlert for a hello that was served.
func (a answer) outcome() alert {
	if a.served {
		return noAlert
	}
	return a.alert
}

// expected lists the outcomes that the verdict on a hello allows.
func expected(v policy.Verdict, o *offer, version policy.Version) []alert {
	faults := o.faults(version)
	switch {
	case v.Reason == policy.ReasonVersion, v.Reason == policy.ReasonFallback, v.Version == policy.NoVersion:
		return []alert{alertProtocolVersion}
	case v.Reason == policy.ReasonCipher:
		// It is found before a fallback is.
		faults = slices.DeleteFunc(faults, func(a alert) bool { return a == alertInappropriateFallback })
		return append(faults, alertHandshakeFailure)
	case version != policy.TLS13 && o.hides():
		// Taken for a fallback, for which no signature is looked at.
		return append(faults, noAlert, alertHandshakeFailure)
	case len(faults) > 0:
		return faults
	}
	return []alert{noAlert}
}

// negotiated is the version that a server from lowest on takes.
func negotiated(h *policy.Hello, lowest policy.Version) policy.Version {
	for _, v := range []policy.Version{policy.TLS13, policy.TLS12, policy.TLS11, policy.TLS10} {
		if v >= lowest && slices.Contains(h.Versions, uint16(v)) {
			return v
		}
	}
	return policy.NoVersion
}

func label(r policy.Reason) string {
	if r == policy.NotLegacy {
		return "none"
	}
	return r.String()
}

// randomOffer makes an offer that is mostly plausible: one of two has no
// oddity, and the lists are short enough to lack something.
func randomOffer(random *rand.Rand) rawOffer {
	bytes := func(most int) []byte {
		b := make([]byte, random.IntN(most+1))
		for i := range b {
			b[i] = byte(random.IntN(0xff))
		}
		return b
	}
	raw := rawOffer{
		keys:          policy.KeyTypes(random.IntN(32)),
		legacyVersion: tls.VersionTLS12,
		versions:      bytes(3), suites: bytes(10), groups: bytes(5), shares: bytes(2), schemes: bytes(6),
	}
	if random.IntN(3) == 0 {
		raw.legacyVersion = []uint16{0x0002, 0x0300, 0x0301, 0x0302, 0x0304, 0x0400}[random.IntN(6)]
	}
	if random.IntN(4) == 0 {
		raw.points = bytes(2)
	}
	switch random.IntN(4) {
	case 0:
		raw.versions = nil
	case 1:
		raw.versions = []byte{0, 1} // TLS 1.3 and 1.2
	}
	for range []int{0, 0, 1, 2}[random.IntN(4)] {
		raw.quirks |= 1 << random.IntN(quirkCount)
	}
	return raw
}
