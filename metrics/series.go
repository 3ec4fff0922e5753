package metrics

import (
	"slices"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"postern/policy"
	"postern/proxy"
)

const namespace = "postern"

// counters is one counter for each value of a closed set.
type counters[K comparable] map[K]prometheus.Counter

// add leaves out what is in no set: an event never breaks a connection.
func (c counters[K]) add(k K, n int) {
	if counter := c[k]; counter != nil {
		counter.Add(float64(n))
	}
}

// listener is the series of one listener.
type listener struct {
	opened, cleartextLogins, injections, proxyHeaders prometheus.Counter
	open                                              prometheus.Gauge

	handshakes counters[handshakeKey]
	legacy     counters[legacyKey]
	failures   counters[proxy.Failure]
	sessions   counters[sessionKey]
	relayed    counters[proxy.Direction]
	limits     counters[proxy.Limit]

	handshakeTime, upstreamTime prometheus.Observer
}

type handshakeKey struct {
	version policy.Version
	outcome proxy.Outcome
}

type legacyKey struct {
	version policy.Version
	reason  policy.Reason
	outcome proxy.Outcome
}

type sessionKey struct {
	version policy.Version
	key     proxy.KeyType
	resumed bool
}

// sessionVersions are those that crypto/tls can negotiate.
var sessionVersions = []policy.Version{policy.TLS10, policy.TLS11, policy.TLS12, policy.TLS13}

// upstream is the series of one upstream.
type upstream struct {
	up       prometheus.Gauge // nil for one that is never probed
	failures counters[proxy.UpstreamFailure]
}

// handshake keeps the sums equal: what failed has a failure, what is legacy a
// reason.
func (l *listener) handshake(h *proxy.Handshake) {
	version := h.Verdict.Version
	l.handshakes.add(handshakeKey{version, h.Outcome}, 1)
	if h.Verdict.Legacy() {
		l.legacy.add(legacyKey{version, h.Verdict.Reason, h.Outcome}, 1)
	}
	switch h.Outcome {
	case proxy.Failed:
		failure := h.Failure
		if failure == proxy.NoFailure {
			failure = proxy.FailOther
		}
		l.failures.add(failure, 1)
	case proxy.Accepted, proxy.Observed, proxy.Explained:
		if h.Version == policy.NoVersion {
			return // passed through: what becomes of its handshake is not seen here
		}
		l.sessions.add(sessionKey{h.Version, h.Key, h.Resumed}, 1)
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

func (f factory) listeners(names []proxy.Listener) map[proxy.Listener]*listener {
	var (
		opened     = f.counter("connections_total", "Connections accepted.", "listener")
		open       = f.gauge("connections_open", "Connections open now.", "listener")
		handshakes = f.counter("handshakes_total", "TLS handshakes that ended, by the highest version offered and what became of them.", "listener", "version", "outcome")
		legacy     = f.counter("legacy_handshakes_total", "Handshakes below the floor, by the highest version offered, why, and what became of them.", "listener", "version", "reason", "outcome")
		failures   = f.counter("handshake_failures_total", "Handshakes that broke off, by reason.", "listener", "reason")
		cleartext  = f.counter("cleartext_logins_total", "Logins tried before TLS, all refused.", "listener")
		injections = f.counter("starttls_injections_total", "Connections ended because of bytes behind STARTTLS or STLS.", "listener")
		headers    = f.counter("proxy_header_failures_total", "Connections closed because the PROXY header was missing or broken.", "listener")
		limits     = f.counter("limit_refusals_total", "Connections and handshakes refused for a limit.", "listener", "limit")
		sessions   = f.counter("tls_sessions_total", "Handshakes completed, by what was negotiated.", "listener", "version", "key", "resumed")
		relayed    = f.counter("relayed_bytes_total", "Application bytes relayed.", "listener", "direction")
		handshake  = f.duration("handshake_duration_seconds", "Time that completed handshakes took.")
		connect    = f.duration("upstream_connect_duration_seconds", "Time until an upstream was dialled and had greeted.")
	)
	all := make(map[proxy.Listener]*listener, len(names))
	for _, name := range names {
		label := string(name)
		l := &listener{
			opened:          opened.WithLabelValues(label),
			open:            open.WithLabelValues(label),
			cleartextLogins: cleartext.WithLabelValues(label),
			injections:      injections.WithLabelValues(label),
			proxyHeaders:    headers.WithLabelValues(label),
			handshakes:      handshakeCounters(handshakes, label),
			legacy:          legacyCounters(legacy, label),
			failures:        counters[proxy.Failure]{},
			sessions:        sessionCounters(sessions, label),
			relayed:         counters[proxy.Direction]{},
			limits:          counters[proxy.Limit]{},
			handshakeTime:   handshake.WithLabelValues(label),
			upstreamTime:    connect.WithLabelValues(label),
		}
		for _, failure := range proxy.Failures {
			l.failures[failure] = failures.WithLabelValues(label, string(failure))
		}
		for _, limit := range proxy.LimitNames {
			l.limits[limit] = limits.WithLabelValues(label, string(limit))
		}
		for _, d := range proxy.Directions {
			l.relayed[d] = relayed.WithLabelValues(label, string(d))
		}
		all[name] = l
	}
	return all
}

func handshakeCounters(v *prometheus.CounterVec, label string) counters[handshakeKey] {
	c := counters[handshakeKey]{}
	for _, version := range policy.Versions {
		for _, outcome := range proxy.Outcomes {
			c[handshakeKey{version, outcome}] = v.WithLabelValues(label, version.String(), string(outcome))
		}
	}
	return c
}

// legacyCounters has no series without a version: a handshake is legacy by
// what was offered.
func legacyCounters(v *prometheus.CounterVec, label string) counters[legacyKey] {
	c := counters[legacyKey]{}
	for _, version := range policy.Versions {
		if version == policy.NoVersion {
			continue
		}
		for _, reason := range policy.Reasons {
			for _, outcome := range proxy.LegacyOutcomes {
				c[legacyKey{version, reason, outcome}] =
					v.WithLabelValues(label, version.String(), reason.String(), string(outcome))
			}
		}
	}
	return c
}

func sessionCounters(v *prometheus.CounterVec, label string) counters[sessionKey] {
	c := counters[sessionKey]{}
	for _, version := range sessionVersions {
		for _, key := range proxy.KeyTypes {
			for _, resumed := range []bool{false, true} {
				c[sessionKey{version, key, resumed}] =
					v.WithLabelValues(label, version.String(), string(key), strconv.FormatBool(resumed))
			}
		}
	}
	return c
}

// upstreams makes the series of those that are probed, and of those that
// clients are passed through to.
func (f factory) upstreams(names, passthrough []string) map[string]*upstream {
	failures := f.counter("upstream_failures_total", "Sessions that an upstream could not serve, by reason.", "upstream", "reason")
	up := f.gauge("upstream_up", "Whether the upstream answers: 1, or 0.", "upstream")
	all := make(map[string]*upstream, len(names)+len(passthrough))
	for _, name := range slices.Concat(names, passthrough) {
		u := &upstream{failures: counters[proxy.UpstreamFailure]{}}
		for _, reason := range proxy.UpstreamFailures {
			u.failures[reason] = failures.WithLabelValues(utf8Label(name), string(reason))
		}
		all[name] = u
	}
	for _, name := range names {
		all[name].up = up.WithLabelValues(utf8Label(name))
	}
	return all
}
