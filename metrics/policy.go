package metrics

import (
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"postern/policy"
	"postern/proxy"
)

// policySeries are the metrics whose labels come from the policy, which may be
// replaced at any time.
type policySeries struct {
	listeners []proxy.Listener
	now       func() time.Time
	// policy is the running one. A handshake that an earlier one has judged is counted
	// if the names are still the same.
	policy *policy.Policy
	mu     sync.RWMutex // guards policy, and which series there are

	matches, refusals *prometheus.CounterVec
	failures          prometheus.Counter
	reloaded, good    prometheus.Gauge

	mode, share, exemption *prometheus.Desc
}

func (f factory) policy(o Options) *policySeries {
	s := &policySeries{
		listeners: o.Listeners,
		now:       o.Now,
		matches:   f.counter("policy_rule_matches_total", "Legacy handshakes that a rule of the policy has decided on.", "rule"),
		refusals: f.counter("candidate_refusals_total",
			"Handshakes that another floor would refuse, by candidate, the highest version offered, and why.",
			"listener", "candidate", "version", "reason"),
		failures: f.counter("policy_reload_failures_total", "Changed policy files that could not be used, so that the old policy stays.").WithLabelValues(),
		reloaded: f.gauge("policy_last_reload_timestamp_seconds", "When the policy that runs was read, in seconds since 1970.").WithLabelValues(),
		good:     f.gauge("policy_last_reload_successful", "1 if the policy file could be used when it was last read, else 0.").WithLabelValues(),
		mode: prometheus.NewDesc(namespace+"_policy_mode",
			"Mode that a legacy handshake meets now where no rule with a share, or a match of more than the listener, takes it: 1 for it, 0 for the others.",
			[]string{"listener", "mode"}, nil),
		share: prometheus.NewDesc(namespace+"_policy_share_ratio",
			"Share of the handshakes which it matches that a rule takes now, 0 to 1.", []string{"rule"}, nil),
		exemption: prometheus.NewDesc(namespace+"_policy_exemption_until_timestamp_seconds",
			"When an exemption, which is a rule with an owner and an end, ends or has ended, in seconds since 1970.", []string{"rule"}, nil),
	}
	s.set(o.Policy)
	f.r.MustRegister(prometheus.CollectorFunc(s.collect))
	return s
}

// set makes the series of a policy and removes those of the last one that it
// does not have.
func (s *policySeries) set(p *policy.Policy) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range p.Rules() {
		s.matches.WithLabelValues(r.Name)
	}
	for _, c := range p.Candidates() {
		for _, l := range s.listeners {
			for _, version := range offeredVersions {
				for _, reason := range policy.Reasons {
					s.refusals.WithLabelValues(string(l), c.Name, version.String(), reason.String())
				}
			}
		}
	}
	last := s.policy
	s.policy = p
	s.reloaded.Set(float64(s.now().Unix()))
	s.good.Set(1)
	if last == nil {
		return
	}
	for _, r := range last.Rules() {
		if p.Rule(r.Name) == nil {
			s.matches.DeleteLabelValues(r.Name)
		}
	}
	for _, c := range last.Candidates() {
		if !slices.ContainsFunc(p.Candidates(), func(n policy.Candidate) bool { return n.Name == c.Name }) {
			s.refusals.DeletePartialMatch(prometheus.Labels{"candidate": c.Name})
		}
	}
}

// handshake counts the rule that decided, and the candidates that would refuse.
func (s *policySeries) handshake(h *proxy.Handshake) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.policy.Rule(h.Verdict.Rule) != nil {
		s.matches.WithLabelValues(h.Verdict.Rule).Inc()
	}
	for _, c := range s.policy.Candidates() {
		if reason := h.Verdict.RefusedBy(c.Floor); reason != policy.NotLegacy {
			s.refusals.WithLabelValues(string(h.Listener), c.Name, h.Verdict.Version.String(), reason.String()).Inc()
		}
	}
}

// collect evaluates the policy at each scrape, so that the metrics follow the clock
// without any traffic.
func (s *policySeries) collect(ch chan<- prometheus.Metric) {
	s.mu.RLock()
	p, t := s.policy, s.now()
	s.mu.RUnlock()
	snapshot := p.At(t)
	for _, l := range s.listeners {
		now := snapshot.ModeFor(string(l))
		for _, mode := range policy.Modes {
			ch <- prometheus.MustNewConstMetric(s.mode, prometheus.GaugeValue, oneIf(mode == now), string(l), mode.String())
		}
	}
	for _, r := range p.Rules() {
		ch <- prometheus.MustNewConstMetric(s.share, prometheus.GaugeValue, r.ShareAt(t), r.Name)
		if r.Exemption() {
			ch <- prometheus.MustNewConstMetric(s.exemption, prometheus.GaugeValue, float64(r.Until.Unix()), r.Name)
		}
	}
}

// SetPolicy sets the running policy.
func (m *Metrics) SetPolicy(p *policy.Policy) { m.policy.set(p) }

// PolicyReloadFailed counts a policy file that has changed and cannot be used.
func (m *Metrics) PolicyReloadFailed() {
	m.policy.failures.Inc()
	m.policy.good.Set(0)
}
