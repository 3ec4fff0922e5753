package metrics

import (
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"postern/policy"
	"postern/proxy"
)

const namespace = "postern"

// counters is one counter for each value of a set that is not known from the
// start.
type counters[K comparable] map[K]prometheus.Counter

// add leaves out what is in no set: an event never breaks a connection.
func (c counters[K]) add(k K, n int) {
	if counter := c[k]; counter != nil {
		counter.Add(float64(n))
	}
}

// listener is the series of one listener: the index-th of each grid.
type listener struct {
	*listenerGrids
	index int

	handshakeTime, upstreamTime prometheus.Observer
}

type listenerGrids struct {
	opened, open, cleartextLogins, injections, proxyHeaders *grid

	handshakes, legacy, sessions *grid
	failures, relayed, limits    *grid
}

var (
	// offeredVersions are those that a hello can offer: a handshake is legacy by
	// what was offered.
	offeredVersions = slices.DeleteFunc(slices.Clone(policy.Versions), func(v policy.Version) bool { return v == policy.NoVersion })
	// sessionVersions are those that crypto/tls can negotiate.
	sessionVersions = []policy.Version{policy.TLS10, policy.TLS11, policy.TLS12, policy.TLS13}
)

// upstream is the series of one upstream.
type upstream struct {
	up       prometheus.Gauge // nil for one that is never probed
	failures counters[proxy.UpstreamFailure]
}

// handshake keeps the sums equal: what failed has a failure, what is legacy a
// reason.
func (l *listener) handshake(h *proxy.Handshake) {
	version := h.Verdict.Version
	l.handshakes.add(1, l.index, slices.Index(policy.Versions, version), slices.Index(proxy.Outcomes, h.Outcome))
	if h.Verdict.Legacy() {
		l.legacy.add(1, l.index, slices.Index(offeredVersions, version), slices.Index(policy.Reasons, h.Verdict.Reason),
			slices.Index(proxy.LegacyOutcomes, h.Outcome))
	}
	switch h.Outcome {
	case proxy.Failed:
		failure := h.Failure
		if failure == proxy.NoFailure {
			failure = proxy.FailOther
		}
		l.failures.add(1, l.index, slices.Index(proxy.Failures, failure))
	case proxy.Accepted, proxy.Observed, proxy.Explained:
		if h.Version == policy.NoVersion {
			return // passed through: what becomes of its handshake is not seen here
		}
		resumed := 0
		if h.Resumed {
			resumed = 1
		}
		l.sessions.add(1, l.index, slices.Index(sessionVersions, h.Version), slices.Index(proxy.KeyTypes, h.Key), resumed)
		l.handshakeTime.Observe(h.Duration.Seconds())
	}
}

// factory makes and registers metrics. A name that comes twice is a mistake of
// ours and panics at the start.
type factory struct{ r prometheus.Registerer }

func (f factory) counter(name, help string, labels ...string) *prometheus.CounterVec {
	v := prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: namespace, Name: name, Help: help}, labels)
	f.r.MustRegister(v)
	return v
}

// counterFunc makes a counter that is kept elsewhere.
func (f factory) counterFunc(name, help string, value func() uint64) {
	f.r.MustRegister(prometheus.NewCounterFunc(
		prometheus.CounterOpts{Namespace: namespace, Name: name, Help: help},
		func() float64 {
			if value == nil {
				return 0
			}
			return float64(value())
		}))
}

func (f factory) gauge(name, help string, labels ...string) *prometheus.GaugeVec {
	v := prometheus.NewGaugeVec(prometheus.GaugeOpts{Namespace: namespace, Name: name, Help: help}, labels)
	f.r.MustRegister(v)
	return v
}

func (f factory) grid(name, help string, labels ...label) *grid {
	g := newGrid(name, help, labels)
	f.r.MustRegister(g)
	return g
}

func (f factory) gaugeGrid(name, help string, labels ...label) *grid {
	g := newGrid(name, help, labels)
	g.gauge = true
	f.r.MustRegister(g)
	return g
}

// durationBuckets, in seconds: from a handshake on the same host to one that
// TIMEOUT_HANDSHAKE ends.
var durationBuckets = []float64{0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10}

func (f factory) duration(name, help string) *prometheus.HistogramVec {
	v := prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Namespace: namespace, Name: name, Help: help,
		Buckets: durationBuckets,
		// Native histograms stand beside the classic ones. The bounds keep a
		// client that plays with its timing from filling memory.
		NativeHistogramBucketFactor:     1.1,
		NativeHistogramMaxBucketNumber:  160,
		NativeHistogramMinResetDuration: time.Hour,
	}, []string{"listener"})
	f.r.MustRegister(v)
	return v
}

func (f factory) listeners(list []proxy.Listener) map[proxy.Listener]*listener {
	var (
		listeners = label{"listener", names(list)}
		versions  = label{"version", texts(policy.Versions)}
		offered   = label{"version", texts(offeredVersions)}
		agreed    = label{"version", texts(sessionVersions)}
	)
	grids := &listenerGrids{
		opened: f.grid("connections_total", "Connections accepted.", listeners),
		open:   f.gaugeGrid("connections_open", "Connections open now.", listeners),
		handshakes: f.grid("handshakes_total", "TLS handshakes that ended, by the highest version offered and what became of them.",
			listeners, versions, label{"outcome", names(proxy.Outcomes)}),
		legacy: f.grid("legacy_handshakes_total", "Handshakes below the floor, by the highest version offered, why, and what became of them.",
			listeners, offered, label{"reason", texts(policy.Reasons)}, label{"outcome", names(proxy.LegacyOutcomes)}),
		failures: f.grid("handshake_failures_total", "Handshakes that broke off, by reason.",
			listeners, label{"reason", names(proxy.Failures)}),
		cleartextLogins: f.grid("cleartext_logins_total", "Logins tried before TLS, all refused.", listeners),
		injections:      f.grid("starttls_injections_total", "Connections ended because of bytes behind STARTTLS or STLS.", listeners),
		proxyHeaders:    f.grid("proxy_header_failures_total", "Connections closed because the PROXY header was missing or broken.", listeners),
		limits: f.grid("limit_refusals_total", "Connections and handshakes refused for a limit.",
			listeners, label{"limit", names(proxy.LimitNames)}),
		sessions: f.grid("tls_sessions_total", "Handshakes completed, by what was negotiated.",
			listeners, agreed, label{"key", names(proxy.KeyTypes)}, label{"resumed", []string{"false", "true"}}),
		relayed: f.grid("relayed_bytes_total", "Application bytes relayed.",
			listeners, label{"direction", names(proxy.Directions)}),
	}
	handshake := f.duration("handshake_duration_seconds", "Time that completed handshakes took.")
	connect := f.duration("upstream_connect_duration_seconds", "Time until an upstream was dialled and had greeted.")
	all := make(map[proxy.Listener]*listener, len(list))
	for i, name := range list {
		all[name] = &listener{
			listenerGrids: grids, index: i,
			handshakeTime: handshake.WithLabelValues(string(name)),
			upstreamTime:  connect.WithLabelValues(string(name)),
		}
	}
	return all
}

// upstreams makes the series of those that are probed, and of those that
// clients are passed through to.
func (f factory) upstreams(probed, passthrough []string) map[string]*upstream {
	failures := f.counter("upstream_failures_total", "Sessions that an upstream could not serve, by reason.", "upstream", "reason")
	up := f.gauge("upstream_up", "Whether the upstream answers: 1, or 0.", "upstream")
	all := make(map[string]*upstream, len(probed)+len(passthrough))
	for _, name := range slices.Concat(probed, passthrough) {
		u := &upstream{failures: counters[proxy.UpstreamFailure]{}}
		for _, reason := range proxy.UpstreamFailures {
			u.failures[reason] = failures.WithLabelValues(utf8Label(name), string(reason))
		}
		all[name] = u
	}
	for _, name := range probed {
		all[name].up = up.WithLabelValues(utf8Label(name))
	}
	return all
}
