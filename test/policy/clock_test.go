package policy

import (
	"crypto/tls"
	"fmt"
	"testing"
	"time"

	"postern/internal/posterntest"
)

// How long the rules of a test wait, how long its ramp takes, and how long its
// cut lasts: on a machine that takes too few scrapes in these times, a multiple of them.
const (
	untilBegin = 8 * time.Second
	rampTime   = 16 * time.Second
	cutTime    = 6 * time.Second
	longest    = 4
)

// Modes and shares are those of now at every scrape, and the log says when
// rules come and go, while nobody comes.
func TestRulesComeAndGoWithoutTraffic(t *testing.T) {
	t.Parallel()
	for n := time.Duration(1); ; n *= 2 {
		seen := rulesComeAndGo(t, n)
		if t.Failed() || seen["before"] > 0 && seen["cut"] > 1 && seen["after"] > 0 {
			return
		}
		if n == longest {
			t.Fatalf("scrapes by phase: %v", seen)
		}
	}
}

// rulesComeAndGo returns how many scrapes there were in each phase.
func rulesComeAndGo(t *testing.T, n time.Duration) map[string]int {
	t.Helper()
	g := start(t, "mode: observe\n", nil)
	begin := time.Now().Add(n * untilBegin)
	end, full := begin.Add(n*cutTime), begin.Add(n*rampTime)
	stamp := func(at time.Time) string { return at.UTC().Format(time.RFC3339Nano) }
	g.replaceNow(t, fmt.Sprintf(`
floor: tls1.2-aead
mode: observe
rules:
  - {name: ramp, mode: explain, share: {from: 0%%, to: 100%%}, from: %s, until: %s}
  - {name: pop first, mode: enforce, match: {listener: [pop3s]}, from: %s}
  - {name: cut, mode: enforce, from: %s, until: %s}
`, stamp(begin), stamp(full), stamp(begin), stamp(begin), stamp(end)), "tls1.2-aead")
	ramp := func(at time.Time) float64 {
		if at.Before(begin) || !at.Before(full) {
			return 0
		}
		return float64(at.Sub(begin)) / float64(n*rampTime)
	}
	seen := make(map[string]int)
	for last := -1.0; time.Now().Before(end.Add(time.Second)); time.Sleep(250 * time.Millisecond) {
		asked := time.Now()
		m := g.Metrics(t)
		answered := time.Now()
		ratio := m.Value(share, "rule=ramp")
		const rounding = 1e-6
		if ratio < ramp(asked)-rounding || ratio > ramp(answered)+rounding {
			t.Errorf("share %v, want %v to %v", ratio, ramp(asked), ramp(answered))
		}
		if asked.After(begin) {
			if ratio <= last {
				t.Errorf("share %v after %v: it does not grow", ratio, last)
			}
			last = ratio
		}
		phase, imaps, pop3s := "before", "observe", "observe"
		switch {
		case answered.Before(begin):
		case asked.After(begin) && answered.Before(end):
			phase, imaps, pop3s = "cut", "enforce", "enforce"
		case asked.After(end):
			phase, imaps, pop3s = "after", "observe", "enforce"
		default:
			continue // it may have been either
		}
		seen[phase]++
		checkModes(t, phase, m, map[string]string{"imaps": imaps, "pop3s": pop3s, "imap": imaps, "pop3": imaps})
	}
	lines := g.WaitLog(t, "rules change by their dates", 2)
	for i, want := range []string{
		"begun [ramp pop first cut] ended [] modes map[imap:enforce imaps:enforce pop3:enforce pop3s:enforce]",
		"begun [] ended [cut] modes map[imap:observe imaps:observe pop3:observe pop3s:enforce]",
	} {
		if got := fmt.Sprintf("begun %v ended %v modes %v", lines[i]["begun"], lines[i]["ended"], lines[i]["modes"]); got != want {
			t.Errorf("line %d: %s, want %s", i, got, want)
		}
	}
	if n := g.Metrics(t).Count("postern_connections_total"); n != 0 {
		t.Errorf("%v connections, but it was to go without", n)
	}
	return seen
}

// checkModes compares, by listener, which mode is at 1; the others are at 0.
func checkModes(t *testing.T, when string, m posterntest.Samples, want map[string]string) {
	t.Helper()
	for listener, one := range want {
		for _, name := range []string{"enforce", "explain", "observe"} {
			value := 0.0
			if name == one {
				value = 1
			}
			if got := m.Value(mode, "listener="+listener, "mode="+name); got != value {
				t.Errorf("%s: mode %s on %s is at %v, want %v", when, name, listener, got, value)
			}
		}
	}
}

const candidatesPolicy = `
floor: tls1.2
mode: enforce
rules:
  - {name: old, mode: observe, match: {version: [tls1.0]}}
candidates:
  - {name: aead-only, floor: tls1.2-aead}
  - {name: tls13-only, floor: tls1.3}
`

// What a dashboard looks at is there before anybody came.
func TestAllSeriesOfAPolicyAreThereFromTheStart(t *testing.T) {
	t.Parallel()
	g := start(t, candidatesPolicy, nil)
	m := g.Metrics(t)
	n := 0
	for _, listener := range posterntest.Listeners {
		for _, candidate := range []string{"aead-only", "tls13-only"} {
			for _, version := range posterntest.Versions[:6] {
				for _, reason := range []string{"version", "cipher", "fallback", "ssl2_hello"} {
					n++
					if v := m.Value(refusals, "listener="+listener, "candidate="+candidate, "version="+version, "reason="+reason); v != 0 {
						t.Errorf("refusals on %s by %s of %s for %s: %v", listener, candidate, version, reason, v)
					}
				}
			}
		}
	}
	if len(m[refusals]) != n {
		t.Errorf("%d series of refusals, want %d", len(m[refusals]), n)
	}
	for _, series := range []struct {
		name   string
		labels []string
		want   float64
	}{{matches, []string{"rule=old"}, 0}, {share, []string{"rule=old"}, 1}, {failures, nil, 0}} {
		if v := m.Value(series.name, series.labels...); v != series.want {
			t.Errorf("%s is %v, want %v", series.name, v, series.want)
		}
	}
	if at, now := m.Value(lastReload), float64(time.Now().Unix()); at > now || at < now-60 {
		t.Errorf("the policy was read at %v, now it is %v", at, now)
	}
	checkModes(t, "at the start", m, map[string]string{"imaps": "enforce", "pop3s": "enforce", "imap": "enforce", "pop3": "enforce"})
}

// A candidate counts whom it would refuse, and refuses nobody.
func TestCandidatesCountAndRefuseNobody(t *testing.T) {
	t.Parallel()
	g := start(t, candidatesPolicy, nil)
	cbc := []uint16{tls.TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA, tls.TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA}
	clients := []struct {
		tls    *tls.Config
		on     []string
		counts []string // candidate, version, reason
		want   string
	}{
		{upTo(tls.VersionTLS12, cbc...), posterntest.Listeners, []string{"aead-only tls1.2 cipher", "tls13-only tls1.2 version"}, letIn},
		{upTo(tls.VersionTLS12), []string{"pop3s"}, []string{"tls13-only tls1.2 version"}, letIn},
		{upTo(tls.VersionTLS13), []string{"imaps"}, nil, letIn},
		{upTo(tls.VersionTLS11), []string{"imap"}, []string{"aead-only tls1.1 version", "tls13-only tls1.1 version"}, rejectedBy},
		{upTo(tls.VersionTLS10), []string{"imaps"}, []string{"aead-only tls1.0 version", "tls13-only tls1.0 version"}, letIn},
	}
	want := make(map[string]float64)
	for _, c := range clients {
		for _, listener := range c.on {
			g.expect(t, posterntest.Caller{From: fresh(), TLS: c.tls}, listener, c.want)
			for _, count := range c.counts {
				want[listener+" "+count]++
			}
		}
	}
	m := g.Wait(t, func(m posterntest.Samples) bool { return m.Count("postern_handshakes_total") == 8 })
	for _, s := range m[refusals] {
		key := fmt.Sprintf("%s %s %s %s", s.Labels["listener"], s.Labels["candidate"], s.Labels["version"], s.Labels["reason"])
		if s.Value != want[key] {
			t.Errorf("%s: %v, want %v", key, s.Value, want[key])
		}
		delete(want, key)
	}
	if len(want) > 0 {
		t.Errorf("not counted: %v", want)
	}
	for outcome, n := range map[string]float64{"accepted": 6, "observed": 1, "rejected": 1} {
		if got := m.Count("postern_handshakes_total", "outcome="+outcome); got != n {
			t.Errorf("%v %s, want %v", got, outcome, n)
		}
	}
	if n := m.Value(matches, "rule=old"); n != 1 {
		t.Errorf("%v matches of the rule, want 1", n)
	}
	if n := len(g.WaitLog(t, legacyLine, 2)); n != 2 {
		t.Errorf("%d legacy handshakes logged, want 2: the others reach the floor", n)
	}
}
