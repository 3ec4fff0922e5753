package metrics

import (
	"crypto/tls"
	"maps"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"postern/policy"
	"postern/proxy"
)

func parsePolicy(t testing.TB, text string) *policy.Policy {
	t.Helper()
	p, err := policy.Parse([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// policySnapshot is the series of the policy that are not at zero.
func policySnapshot(t testing.TB, m *Metrics) map[string]float64 {
	t.Helper()
	all := snapshot(t, m)
	maps.DeleteFunc(all, func(series string, v float64) bool {
		return v == 0 || strings.HasPrefix(series, "policy_last_reload_successful") || !strings.HasPrefix(series, "policy_") && !strings.HasPrefix(series, "candidate_")
	})
	return all
}

// Mode and share follow the clock while nobody comes.
func TestModeAndShareFollowTheClock(t *testing.T) {
	var now atomic.Int64
	m := newFrom(Options{
		Listeners: []proxy.Listener{proxy.IMAPS, proxy.POP3S},
		Now:       func() time.Time { return time.Unix(now.Load(), 0) },
		Policy: parsePolicy(t, `
mode: observe
rules:
  - {name: exempt, mode: observe, match: {client: [10.0.0.0/8]}}
  - {name: half, mode: explain, share: 50%}
  - {name: pop first, mode: enforce, match: {listener: [pop3s]}, from: 1970-01-01T00:10:00Z}
  - {name: brownout, mode: enforce, schedule: "0 * * * *", for: 10m}
  - {name: ramp, mode: explain, share: {from: 0%, to: 100%}, from: 1970-01-01T00:00:00Z, until: 1970-01-01T01:00:00Z}
  - {name: cut, mode: enforce, from: 1970-01-01T01:30:00Z}
`),
	})
	for _, tt := range []struct {
		minute      int64
		imaps, pop3 string
		shares      map[string]float64
	}{
		{5, "enforce", "enforce", map[string]float64{"brownout": 1, "ramp": 5.0 / 60}},
		{15, "observe", "enforce", map[string]float64{"pop first": 1, "ramp": 0.25}},
		{60, "enforce", "enforce", map[string]float64{"pop first": 1, "brownout": 1}},
		{75, "observe", "enforce", map[string]float64{"pop first": 1}},
		{95, "enforce", "enforce", map[string]float64{"pop first": 1, "cut": 1}},
	} {
		now.Store(tt.minute * 60)
		want := map[string]float64{
			"policy_mode{listener=imaps mode=" + tt.imaps + "}": 1, "policy_mode{listener=pop3s mode=" + tt.pop3 + "}": 1,
			"policy_share_ratio{rule=exempt}": 1, "policy_share_ratio{rule=half}": 0.5,
		}
		for rule, share := range tt.shares {
			want["policy_share_ratio{rule="+rule+"}"] = share
		}
		if diff := cmp.Diff(want, policySnapshot(t, m)); diff != "" {
			t.Errorf("minute %d (-want +got):\n%s", tt.minute, diff)
		}
	}
}

// An exemption has its end there, also one that has not begun or has ended; a
// rule without an owner or an end is none.
func TestExemptionsSayWhenTheyEnd(t *testing.T) {
	m := newFrom(Options{
		Listeners: []proxy.Listener{proxy.IMAPS},
		Now:       func() time.Time { return time.Unix(1000, 0) },
		Policy: parsePolicy(t, `
rules:
  - {name: ended, mode: observe, match: {client: [10.1.0.0/16]}, owner: a@example.org, until: 1970-01-01T00:10:00Z}
  - {name: open, mode: observe, match: {client: [10.2.0.0/16]}, owner: b@example.org, from: 1970-01-01T00:01:00Z, until: 1970-01-01T01:00:00Z}
  - {name: later, mode: observe, match: {client: [10.3.0.0/16]}, owner: c@example.org, from: 1970-01-02T00:00:00Z, until: 1970-01-03T00:00:00+01:00}
  - {name: no end, mode: observe, match: {client: [10.4.0.0/16]}, owner: d@example.org}
  - {name: no owner, mode: observe, match: {client: [10.5.0.0/16]}, until: 1970-01-01T01:00:00Z}
`),
	})
	ends := func() map[string]float64 {
		all := policySnapshot(t, m)
		maps.DeleteFunc(all, func(series string, _ float64) bool { return !strings.HasPrefix(series, "policy_exemption_") })
		return all
	}
	end := func(rule string) string { return "policy_exemption_until_timestamp_seconds{rule=" + rule + "}" }
	want := map[string]float64{end("ended"): 600, end("open"): 3600, end("later"): 2*86400 - 3600}
	if diff := cmp.Diff(want, ends()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	m.SetPolicy(parsePolicy(t, `
rules: [{name: open, mode: observe, match: {client: [10.2.0.0/16]}, owner: b@example.org, until: 1970-01-01T02:00:00Z}]
`))
	if diff := cmp.Diff(map[string]float64{end("open"): 7200}, ends()); diff != "" {
		t.Errorf("another policy (-want +got):\n%s", diff)
	}
}

// judged is a handshake that the policy has judged.
func judged(p *policy.Policy, version uint16) *proxy.Handshake {
	hello := policy.Hello{
		Versions:         []uint16{version},
		CipherSuites:     []uint16{tls.TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA},
		Groups:           []tls.CurveID{tls.CurveP256},
		SignatureSchemes: []tls.SignatureScheme{tls.PKCS1WithSHA256},
	}
	now := time.Unix(0, 0)
	v := p.At(now).Decide(&hello, policy.ConnInfo{Keys: policy.RSA, Listener: "imaps"}, now, 0)
	return &proxy.Handshake{Conn: &proxy.Conn{Listener: proxy.IMAPS}, Hello: &hello, Verdict: v, Outcome: proxy.Accepted}
}

// Candidates count what they would refuse, of those who are let in too, and
// rules the legacy handshakes that they decided on.
func TestRulesAndCandidatesAreCounted(t *testing.T) {
	p := parsePolicy(t, `
rules: [{name: old, mode: observe, match: {version: [tls1.0]}}, {name: rest, mode: enforce}]
candidates: [{name: aead, floor: tls1.2-aead}, {name: new, floor: tls1.3}]
`)
	m := newFrom(Options{Listeners: []proxy.Listener{proxy.IMAPS}, Policy: p, Now: func() time.Time { return time.Unix(0, 0) }})
	for _, version := range []uint16{tls.VersionTLS10, tls.VersionTLS11, tls.VersionTLS12, tls.VersionTLS12} {
		m.Handshake(judged(p, version))
	}
	refusal := func(candidate, version, reason string) string {
		return "candidate_refusals_total{candidate=" + candidate + " listener=imaps reason=" + reason + " version=" + version + "}"
	}
	want := map[string]float64{
		"policy_mode{listener=imaps mode=enforce}": 1, "policy_share_ratio{rule=old}": 1, "policy_share_ratio{rule=rest}": 1,
		"policy_rule_matches_total{rule=old}": 1, "policy_rule_matches_total{rule=rest}": 1,
		refusal("aead", "tls1.0", "version"): 1, refusal("aead", "tls1.1", "version"): 1, refusal("aead", "tls1.2", "cipher"): 2,
		refusal("new", "tls1.0", "version"): 1, refusal("new", "tls1.1", "version"): 1, refusal("new", "tls1.2", "version"): 2,
	}
	if diff := cmp.Diff(want, policySnapshot(t, m)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// Another policy has the series of its own names, keeps the counts of those that
// both have, and takes away the others.
func TestAnotherPolicyHasItsOwnSeries(t *testing.T) {
	first := parsePolicy(t, `
rules: [{name: kept, mode: observe, match: {version: [tls1.0]}}, {name: gone, mode: enforce}]
candidates: [{name: stays, floor: tls1.3}, {name: goes, floor: tls1.2-aead}]
`)
	second := parsePolicy(t, `
rules: [{name: kept, mode: observe}, {name: new, mode: enforce}]
candidates: [{name: stays, floor: tls1.3}]
`)
	m := newFrom(Options{Listeners: []proxy.Listener{proxy.IMAPS}, Policy: first})
	m.Handshake(judged(first, tls.VersionTLS10))
	m.Handshake(judged(first, tls.VersionTLS11))
	m.SetPolicy(second)
	m.Handshake(judged(first, tls.VersionTLS11)) // judged before, ended after
	m.Handshake(judged(second, tls.VersionTLS11))
	got := snapshot(t, m)
	for series, want := range map[string]float64{
		"policy_rule_matches_total{rule=kept}": 2, "policy_rule_matches_total{rule=new}": 0,
		"candidate_refusals_total{candidate=stays listener=imaps reason=version version=tls1.1}": 3,
	} {
		if v, ok := got[series]; !ok || v != want {
			t.Errorf("%s is %v (exists: %v), want %v", series, v, ok, want)
		}
	}
	for series := range got {
		if strings.Contains(series, "=gone") || strings.Contains(series, "=goes") {
			t.Errorf("%s is still there", series)
		}
	}
	if got["policy_last_reload_timestamp_seconds{}"] < float64(time.Now().Add(-time.Minute).Unix()) {
		t.Errorf("last read at %v", got["policy_last_reload_timestamp_seconds{}"])
	}
}

// The clients of remembered candidates have series from the start, and those that are not
// counted any more are none.
func TestRememberedCandidatesHaveClients(t *testing.T) {
	p := parsePolicy(t, "candidates: [{name: aead, floor: tls1.2-aead, remember: true}, {name: new, floor: tls1.3, remember: true}, {name: counted, floor: tls1.3}]")
	m := newFrom(Options{Listeners: []proxy.Listener{proxy.IMAPS}, Policy: p})
	series := func(candidate, window string) string {
		return "candidate_clients{candidate=" + candidate + " window=" + window + "}"
	}
	check := func(want map[string]float64) {
		t.Helper()
		got := snapshot(t, m)
		maps.DeleteFunc(got, func(name string, _ float64) bool { return !strings.HasPrefix(name, "candidate_clients") })
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	}
	want := make(map[string]float64)
	for _, window := range []string{"1h", "24h", "7d", "30d"} {
		want[series("aead", window)], want[series("new", window)] = 0, 0
	}
	check(want)
	m.SetCandidateClients(map[string][4]int{"new": {1, 2, 3, 4}, "gone": {9, 9, 9, 9}})
	for i, window := range []string{"1h", "24h", "7d", "30d"} {
		want[series("new", window)] = float64(i + 1)
	}
	check(want)
	m.SetPolicy(parsePolicy(t, "candidates: [{name: new, floor: tls1.3, remember: true}, {name: counted, floor: tls1.3}]"))
	maps.DeleteFunc(want, func(name string, _ float64) bool { return strings.Contains(name, "aead") })
	check(want)
	m.SetCandidateClients(nil)
	for name := range want {
		want[name] = 0
	}
	check(want)
}

// Counting takes no memory, whatever rules and candidates there are.
func TestCountingAgainstAPolicyDoesNotAllocate(t *testing.T) {
	p := parsePolicy(t, "rules: [{name: a, mode: observe}]\ncandidates: [{name: new, floor: tls1.3}]")
	m := newFrom(Options{Listeners: []proxy.Listener{proxy.IMAPS}, Policy: p})
	h := judged(p, tls.VersionTLS10)
	if n := testing.AllocsPerRun(100, func() { m.policy.handshake(h) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
