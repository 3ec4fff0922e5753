package metrics

import (
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"postern/internal/text"
	"postern/policy"
	"postern/proxy"
)

// policySeries are the metrics whose labels come from the policy, which may be
// replaced at any time.
type policySeries struct {
	listeners []proxy.Listener
	now       func() time.Time

	mu sync.RWMutex // guards these four
	// policy is the running one. A handshake that an earlier one has judged is counted
	// if the names are still the same.
	policy            *policy.Policy
	matches, refusals *grid
	// clients are those of remembered candidates.
	clients *grid

	failures, reloaded, good *grid

	mode, share, exemption, tripped *prometheus.Desc
}

func (f factory) policy(o Options) *policySeries {
	s := &policySeries{
		listeners: o.Listeners,
		now:       o.Now,
		failures:  f.grid("policy_reload_failures_total", "Changed policy files that could not be used, so that the old policy stays."),
		reloaded:  f.grid("policy_last_reload_timestamp_seconds", "When the policy that runs was read, in seconds since 1970."),
		good:      f.grid("policy_last_reload_successful", "1 if the policy file could be used when it was last read, else 0."),
		mode: prometheus.NewDesc(namespace+"_policy_mode",
			"Mode that a legacy handshake meets now where no rule with a share, or a match of more than the listener, takes it: 1 for it, 0 for the others.",
			[]string{"listener", "mode"}, nil),
		share: prometheus.NewDesc(namespace+"_policy_share_ratio",
			"Share of the handshakes which it matches that a rule takes now, 0 to 1.", []string{"rule"}, nil),
		exemption: prometheus.NewDesc(namespace+"_policy_exemption_until_timestamp_seconds",
			"When an exemption, which is a rule with an owner and an end, ends or has ended, in seconds since 1970.", []string{"rule"}, nil),
		tripped: prometheus.NewDesc(namespace+"_guard_tripped",
			"1 while the guard of a rule has tripped, else 0; (policy) is the guard of the policy's own mode.", []string{"rule"}, nil),
	}
	s.set(o.Policy, true)
	f.MustRegister(prometheus.CollectorFunc(s.collect))
	return s
}

// set makes the series of a policy, which was read now or before; those that the last one
// had, too, count on.
func (s *policySeries) set(p *policy.Policy, read bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.policy = p
	s.matches = newGrid("policy_rule_matches_total", "Legacy handshakes that a rule of the policy has decided on.", label{"rule", p.RuleNames()}).after(s.matches)
	s.refusals = newGrid("candidate_refusals_total", "Handshakes that another floor would refuse, by candidate, the highest version offered, and why.",
		label{"listener", values(s.listeners)}, label{"candidate", values(p.Candidates())},
		label{"version", values(offeredVersions)}, label{"reason", values(policy.Reasons)}).after(s.refusals)
	s.clients = newGrid("candidate_clients",
		"Distinct addresses (IPv6: /64) whom a remembered candidate would refuse, seen within the window, noise left out; never to be added up.",
		label{"candidate", values(p.Remembered())}, windows()).after(s.clients)
	if read {
		s.reloaded.at().Store(s.now().Unix())
		s.good.at().Store(1)
	}
}

// handshake counts the rule that decided, and the candidates that would refuse.
func (s *policySeries) handshake(h *proxy.Handshake) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	v := &h.Verdict
	s.matches.at(slices.Index(s.matches.labels[0].values, v.Rule)).Add(1)
	for i, c := range s.policy.Candidates() {
		s.refusals.at(slices.Index(s.listeners, h.Listener), i, slices.Index(offeredVersions, v.Version), slices.Index(policy.Reasons, v.RefusedBy(c.Floor))).Add(1)
	}
}

// collect evaluates the policy at each scrape, so that the metrics follow the clock
// without any traffic.
func (s *policySeries) collect(ch chan<- prometheus.Metric) {
	s.mu.RLock()
	p, t, matches, refusals, clients := s.policy, s.now(), s.matches, s.refusals, s.clients
	s.mu.RUnlock()
	matches.Collect(ch)
	refusals.Collect(ch)
	clients.Collect(ch)
	snapshot := p.At(t)
	for _, l := range s.listeners {
		now := snapshot.ModeFor(string(l))
		for _, mode := range policy.Modes {
			ch <- prometheus.MustNewConstMetric(s.mode, prometheus.GaugeValue, text.Either(mode == now, 1.0, 0), string(l), mode.String())
		}
	}
	for _, g := range p.Guards() {
		ch <- prometheus.MustNewConstMetric(s.tripped, prometheus.GaugeValue, text.Either(g.Tripped.IsZero(), 0, 1.0), g.Rule)
	}
	for _, r := range p.Rules() {
		ch <- prometheus.MustNewConstMetric(s.share, prometheus.GaugeValue, r.ShareAt(t), r.Name)
		if r.Exemption() {
			ch <- prometheus.MustNewConstMetric(s.exemption, prometheus.GaugeValue, float64(r.Until.Unix()), r.Name)
		}
	}
}

// SetPolicy sets the running policy, which was read now.
func (m *Metrics) SetPolicy(p *policy.Policy) { m.policy.set(p, true) }

// SetGuards sets the running policy where one of its guards has tripped or was released.
func (m *Metrics) SetGuards(p *policy.Policy) { m.policy.set(p, false) }

// SetCandidateClients sets the numbers of distinct clients, by window, of remembered
// candidates; those that are not listed are zero.
func (m *Metrics) SetCandidateClients(counts map[string][4]int) {
	s := m.policy
	s.mu.RLock()
	defer s.mu.RUnlock()
	for i, name := range s.clients.labels[0].values {
		for window, n := range counts[name] {
			s.clients.at(i, window).Store(int64(n))
		}
	}
}

// PolicyReloadFailed counts a policy file that has changed and cannot be used.
func (m *Metrics) PolicyReloadFailed() {
	m.policy.failures.at().Add(1)
	m.policy.good.at().Store(0)
}
