package metrics

import (
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"postern/internal/ledger"
	"postern/internal/text"
	"postern/policy"
	"postern/proxy"
)

const namespace = "postern"

var (
	// offeredVersions are those that a hello can offer: a handshake is legacy by
	// what was offered.
	offeredVersions = slices.DeleteFunc(slices.Clone(policy.Versions), func(v policy.Version) bool { return v == policy.NoVersion })
	// sessionVersions are those that crypto/tls can negotiate.
	sessionVersions = []policy.Version{policy.TLS10, policy.TLS11, policy.TLS12, policy.TLS13}
)

// series are the metrics whose labels are known from the start.
type series struct {
	// These have the listener for their first label.
	opened, open, handshakes, legacy, failures, sessions       *grid
	cleartextLogins, injections, proxyHeaders, limits, relayed *grid
	keyExchanges, loginFailures, handovers                     *grid
	// These are by listener.
	handshakeTime, upstreamTime []prometheus.Observer
	// Of the upstreams, only those that are probed are up or not.
	upstreamFailures, upstreamUp *grid
	clients                      *grid
}

// series makes them. The upstreams that are probed come first.
func (f factory) series(on []proxy.Listener, probed, upstreams []string) series {
	var (
		listeners = label{"listener", values(on)}
		offered   = label{"version", values(offeredVersions)}
		reasons   = label{"reason", values(policy.LegacyReasons)}
	)
	return series{
		opened: f.grid("connections_total", "Connections accepted.", listeners),
		open:   f.grid("connections_open", "Connections open now.", listeners),
		handshakes: f.grid("handshakes_total", "TLS handshakes that ended, by the highest version offered and what became of them.",
			listeners, label{"version", values(policy.Versions)}, label{"outcome", values(proxy.Outcomes)}),
		legacy: f.grid("legacy_handshakes_total", "Handshakes below the floor, by the highest version offered, why, and what became of them.",
			listeners, offered, reasons, label{"outcome", values(proxy.LegacyOutcomes)}).withRare(reasons),
		failures: f.grid("handshake_failures_total", "Handshakes that broke off, by reason.",
			listeners, label{"reason", values(proxy.Failures)}),
		sessions: f.grid("tls_sessions_total", "Handshakes completed, by what was negotiated.",
			listeners, label{"version", values(sessionVersions)}, label{"key", values(proxy.KeyTypes)}, label{"resumed", []string{"false", "true"}}),
		keyExchanges: f.grid("key_exchanges_total", "Handshakes completed, by how the key was agreed on: the group, rsa where a key was encrypted to an RSA key, or resumed.",
			listeners, label{"group", values(proxy.KeyExchanges)}),
		cleartextLogins: f.grid("cleartext_logins_total", "Logins tried before TLS, all refused.", listeners),
		loginFailures:   f.grid("login_failures_total", "Logins that the upstream has refused.", listeners),
		injections:      f.grid("starttls_injections_total", "Connections ended because of bytes behind STARTTLS or STLS.", listeners),
		proxyHeaders:    f.grid("proxy_header_failures_total", "Connections closed because the PROXY header was missing or broken.", listeners),
		limits: f.grid("limit_refusals_total", "Connections and handshakes refused for a limit.",
			listeners, label{"limit", values(proxy.LimitNames)}),
		relayed: f.grid("relayed_bytes_total", "Application bytes relayed.",
			listeners, label{"direction", values(proxy.Directions)}),
		handshakeTime: f.durations("handshake_duration_seconds", "Time that completed handshakes took.", on),
		upstreamTime:  f.durations("upstream_connect_duration_seconds", "Time until an upstream was dialled and had greeted.", on),
		upstreamFailures: f.grid("upstream_failures_total", "Sessions that an upstream could not serve, by reason.",
			label{"upstream", values(upstreams)}, label{"reason", values(proxy.UpstreamFailures)}),
		upstreamUp: f.grid("upstream_up", "Whether the upstream answers: 1, or 0.", label{"upstream", values(probed)}),
		handovers:  f.grid("handovers_total", "Upgrades in place, also those before this process.", label{"outcome", []string{"ok", "failed"}}),
		clients: f.grid("legacy_clients",
			"Distinct addresses (IPv6: /64) of legacy clients in the ledger that were seen within the window, noise left out; never to be added up.",
			label{"listener", append([]string{ledger.Any}, values(on)...)}, label{"version", append([]string{ledger.Any}, values(offeredVersions)...)},
			windows()),
	}
}

// windows are those of distinct clients.
func windows() label {
	return label{"window", text.Each(ledger.Windows, func(w ledger.Window) string { return w.Label })}
}

// factory makes and registers metrics. A duplicate name is a bug and panics at
// the start.
type factory struct{ prometheus.Registerer }

// counterFunc makes a counter with a value kept elsewhere.
func (f factory) counterFunc(name, help string, value func() uint64) {
	opts := prometheus.CounterOpts{Namespace: namespace, Name: name, Help: help}
	f.MustRegister(prometheus.NewCounterFunc(opts, func() float64 { return float64(value()) }))
}

// gaugeFunc makes a gauge with a value kept elsewhere.
func (f factory) gaugeFunc(name, help string, value func() float64) {
	f.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Namespace: namespace, Name: name, Help: help}, value))
}

// durationBuckets, in seconds: from a handshake on the same host to one that
// TIMEOUT_HANDSHAKE ends.
var durationBuckets = []float64{0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10}

// durations makes a histogram for each listener.
func (f factory) durations(name, help string, listeners []proxy.Listener) []prometheus.Observer {
	v := prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Namespace: namespace, Name: name, Help: help,
		Buckets: durationBuckets,
		// Native histograms stand beside the classic ones. The bounds keep a
		// client that plays with its timing from filling memory.
		NativeHistogramBucketFactor:     1.1,
		NativeHistogramMaxBucketNumber:  160,
		NativeHistogramMinResetDuration: time.Hour,
	}, []string{"listener"})
	f.MustRegister(v)
	return text.Each(listeners, func(l proxy.Listener) prometheus.Observer { return v.WithLabelValues(string(l)) })
}

// SetLegacyClients sets the numbers of distinct legacy clients; those that are not
// listed are zero. It must not be called concurrently.
func (m *Metrics) SetLegacyClients(list []ledger.Distinct) {
	g := m.clients
	counts := make(map[*atomic.Int64]int)
	for _, d := range list {
		for window, n := range d.ByWindow {
			counts[g.at(slices.Index(g.labels[0].values, d.Listener), slices.Index(g.labels[1].values, d.Version), window)] = n
		}
	}
	for i := range g.values {
		g.values[i].Store(int64(counts[&g.values[i]]))
	}
}

// grid holds one number for each combination of label values that are known from
// the start: counters, whose names end in _total, or integer gauges. A series
// takes eight bytes instead of half a kilobyte of a prometheus.Counter, and most
// of some thousand stay at zero.
type grid struct {
	desc   *prometheus.Desc
	kind   prometheus.ValueType
	born   time.Time
	labels []label
	values []atomic.Int64
	// unknown is for what is none of them.
	unknown atomic.Int64
	// rare: series with the last value of this label appear once they have counted.
	rare string
}

// label is a label and its values.
type label struct {
	name   string
	values []string
}

// values are those of a label, as text.
func values[T any](list []T) []string {
	return text.Each(list, func(v T) string { return utf8Label(fmt.Sprint(v)) })
}

func (f factory) grid(name, help string, labels ...label) *grid {
	g := newGrid(name, help, labels...)
	f.MustRegister(g)
	return g
}

func newGrid(name, help string, labels ...label) *grid {
	g := &grid{born: time.Now(), kind: prometheus.GaugeValue}
	if strings.HasSuffix(name, "_total") {
		g.kind = prometheus.CounterValue
	}
	n := 1
	var keys []string
	for _, l := range labels {
		keys, n = append(keys, l.name), n*len(l.values)
	}
	g.labels, g.values = labels, make([]atomic.Int64, n)
	g.desc = prometheus.NewDesc(prometheus.BuildFQName(namespace, "", name), help, keys, nil)
	return g
}

// at returns the number of a series, given the index of each label's value in the order
// of the labels; one that nobody sees if a value is unknown, as an event must never
// break a connection.
func (g *grid) at(indices ...int) *atomic.Int64 {
	n := 0
	for i, index := range indices {
		if index < 0 || index >= len(g.labels[i].values) {
			return &g.unknown
		}
		n = n*len(g.labels[i].values) + index
	}
	return &g.values[n]
}

// after has the numbers of an earlier grid, as far as they are for the same values of the
// same labels; nil is none.
func (g *grid) after(last *grid) *grid {
	if last == nil {
		return g
	}
	g.born = last.born
	at := make([]int, len(g.labels))
	for i := range last.values {
		of, _ := last.labelsOf(i)
		for k, l := range g.labels {
			at[k] = slices.Index(l.values, of[k])
		}
		g.at(at...).Add(last.values[i].Load())
	}
	return g
}

// Describe implements [prometheus.Collector].
func (g *grid) Describe(ch chan<- *prometheus.Desc) { ch <- g.desc }

// Collect implements [prometheus.Collector].
func (g *grid) Collect(ch chan<- prometheus.Metric) {
	for i := range g.values {
		n := g.values[i].Load()
		if of, rare := g.labelsOf(i); n != 0 || !rare {
			m := prometheus.MustNewConstMetric(g.desc, g.kind, float64(n), of...)
			if g.kind == prometheus.CounterValue {
				m = prometheus.MustNewConstMetricWithCreatedTimestamp(g.desc, g.kind, float64(n), g.born, of...)
			}
			ch <- m
		}
	}
}

func (g *grid) withRare(l label) *grid {
	g.rare = l.name
	return g
}

// labelsOf returns the values of a series, and whether it is a rare one.
func (g *grid) labelsOf(i int) (of []string, rare bool) {
	of = make([]string, len(g.labels))
	for k, l := range slices.Backward(g.labels) {
		at := i % len(l.values)
		of[k], rare = l.values[at], rare || l.name == g.rare && at == len(l.values)-1
		i /= len(l.values)
	}
	return of, rare
}
