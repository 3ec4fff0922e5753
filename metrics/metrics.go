// Package metrics counts the events of the proxy, for Prometheus.
//
// Label values come from closed sets or from the operator's configuration,
// never from a client. Every series of a listener that is on and of every
// upstream exists from the start, at zero, and is found without allocation when
// an event comes.
package metrics

import (
	"cmp"
	"net/http"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"postern/internal/certs"
	"postern/internal/text"
	"postern/policy"
	"postern/proxy"
)

// Options describe what to count.
type Options struct {
	// Listeners are the open listeners.
	Listeners []proxy.Listener
	// Upstreams are the URLs as configured, such as imap://127.0.0.1:10143.
	Upstreams []string
	// Policy is the first policy, Now its clock.
	Policy *policy.Policy
	Now    func() time.Time
	// Passthrough are the host:port as configured that clients are passed
	// through to.
	Passthrough []string
	// Certificates returns those that are served now.
	Certificates func() []certs.Info
	// Version and Revision are those of this program.
	Version, Revision string
	// LogSuppressed returns how many log lines were left out.
	LogSuppressed func() uint64
	// LedgerDropped returns how many legacy handshakes the ledger could not
	// keep.
	LedgerDropped func() uint64
	// LedgerPending returns how many legacy clients wait to be written to the
	// ledger, and LedgerWritten when some were written last, in seconds since
	// 1970.
	LedgerPending, LedgerWritten func() float64
}

// Metrics implements [proxy.Observer] and [proxy.Metrics]. Safe for concurrent
// use. Events of listeners and upstreams that Options did not name are not
// counted: they would be labels out of nowhere.
type Metrics struct {
	registry  *prometheus.Registry
	listeners []proxy.Listener
	// upstreams are those that are probed, then those that clients are passed
	// through to.
	upstreams []string
	series
	policy   *policySeries
	reloads  *grid // that failed
	reloaded *grid
}

var (
	_ proxy.Observer = (*Metrics)(nil)
	_ proxy.Metrics  = (*Metrics)(nil)
)

// New makes all series. They are in a registry of their own, with those of the
// Go runtime and the process.
func New(o Options) *Metrics {
	r := prometheus.NewRegistry()
	r.MustRegister(
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
	)
	f := factory{r}
	m := &Metrics{
		registry:  r,
		listeners: o.Listeners,
		upstreams: slices.Concat(o.Upstreams, slices.Compact(slices.Sorted(slices.Values(o.Passthrough)))),
		policy:    f.policy(o),
		reloads: f.grid("certificate_reload_failures_total",
			"Changed certificates, keys, CAs or ticket keys that could not be used, so that the old ones stay."),
		reloaded: f.grid("certificate_last_reload_successful",
			"1 while the last reading of every file of certificates, keys, CAs, tokens, ticket keys and programs was successful, else 0."),
	}
	m.reloaded.at().Store(1)
	r.MustRegister(prometheus.CollectorFunc(func(ch chan<- prometheus.Metric) { certificates(o.Certificates(), ch) }))
	m.series = f.series(o.Listeners, o.Upstreams, m.upstreams)
	f.counterFunc("ledger_dropped_total", "Legacy handshakes that the ledger could not keep, since there were too many clients at once.", o.LedgerDropped)
	f.gaugeFunc("ledger_pending", "Legacy clients whose sightings wait to be written to the ledger.", o.LedgerPending)
	f.gaugeFunc("ledger_last_write_timestamp_seconds", "When the ledger was written last, in seconds since 1970; 0 for never.", o.LedgerWritten)
	f.counterFunc("log_suppressed_total", "Log lines that were left out because there were too many.", o.LogSuppressed)
	f.grid("build_info", "Always 1; the labels say what runs.", label{"version", values([]string{o.Version})},
		label{"revision", values([]string{o.Revision})}, label{"goversion", []string{runtime.Version()}}).at(0, 0, 0).Store(1)
	return m
}

// Gatherer gathers the metrics of Handler.
func (m *Metrics) Gatherer() prometheus.Gatherer { return m.registry }

// Scrapes are open to whoever reaches the admin port.
const (
	scrapesAtOnce = 8
	scrapeTimeout = 10 * time.Second
)

// Handler serves the Prometheus text format, OpenMetrics or protobuf, as the
// scraper asks; native histograms are in the last alone.
func (m *Metrics) Handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{
		EnableOpenMetrics:   true,
		MaxRequestsInFlight: scrapesAtOnce,
		Timeout:             scrapeTimeout,
	})
}

func (m *Metrics) listener(name proxy.Listener) int { return slices.Index(m.listeners, name) }

// Opened counts a connection that was accepted.
func (m *Metrics) Opened(name proxy.Listener) {
	l := m.listener(name)
	m.opened.at(l).Add(1)
	m.open.at(l).Add(1)
}

// Open returns the number of open connections.
func (m *Metrics) Open() int {
	n := 0
	for l := range m.listeners {
		n += int(m.open.values[l].Load())
	}
	return n
}

// Handshake counts the end of a handshake. It keeps the sums equal: a failed
// handshake has a failure, a legacy one a reason.
func (m *Metrics) Handshake(h *proxy.Handshake) {
	l := m.listener(h.Listener)
	if l < 0 {
		return
	}
	m.policy.handshake(h)
	version := h.Verdict.Version
	m.handshakes.at(l, slices.Index(policy.Versions, version), slices.Index(proxy.Outcomes, h.Outcome)).Add(1)
	if h.Verdict.Legacy() {
		m.legacy.at(l, slices.Index(offeredVersions, version), slices.Index(policy.LegacyReasons, h.Verdict.Reason),
			slices.Index(proxy.LegacyOutcomes, h.Outcome)).Add(1)
	}
	switch h.Outcome {
	case proxy.Failed:
		m.failures.at(l, slices.Index(proxy.Failures, cmp.Or(h.Failure, proxy.FailOther))).Add(1)
	case proxy.Accepted, proxy.Observed, proxy.Explained:
		if h.PassedThrough() {
			return // what becomes of its handshake is not seen here
		}
		m.sessions.at(l, slices.Index(sessionVersions, h.Version), slices.Index(proxy.KeyTypes, h.Key), text.Either(h.Resumed, 1, 0)).Add(1)
		m.keyExchanges.at(l, slices.Index(proxy.KeyExchanges, h.KeyExchange)).Add(1)
		m.handshakeTime[l].Observe(h.Duration.Seconds())
	}
}

// LoginFailed counts a login that the upstream has refused.
func (m *Metrics) LoginFailed(l *proxy.LoginFailed) {
	if !l.BeforeTLS {
		m.loginFailures.at(m.listener(l.Listener)).Add(1)
	}
}

// Login does nothing: logins are for the ledger.
func (m *Metrics) Login(*proxy.Login) {}

// Software does nothing: it is for the ledger too.
func (m *Metrics) Software(*proxy.Software) {}

// Closed counts down what Opened counted up.
func (m *Metrics) Closed(c *proxy.Closed) { m.open.at(m.listener(c.Listener)).Add(-1) }

// CleartextLogin counts a login attempt before TLS.
func (m *Metrics) CleartextLogin(name proxy.Listener) { m.cleartextLogins.at(m.listener(name)).Add(1) }

// Injection counts a connection with bytes pipelined behind STARTTLS or STLS.
func (m *Metrics) Injection(name proxy.Listener) { m.injections.at(m.listener(name)).Add(1) }

// LimitRefused counts a connection or handshake that was over a limit.
func (m *Metrics) LimitRefused(name proxy.Listener, limit proxy.Limit) {
	m.limits.at(m.listener(name), slices.Index(proxy.LimitNames, limit)).Add(1)
}

// ProxyHeaderFailed counts a connection without the PROXY header that is due.
func (m *Metrics) ProxyHeaderFailed(name proxy.Listener) { m.proxyHeaders.at(m.listener(name)).Add(1) }

// Relayed counts n bytes of application data.
func (m *Metrics) Relayed(name proxy.Listener, d proxy.Direction, n int) {
	m.relayed.at(m.listener(name), slices.Index(proxy.Directions, d)).Add(int64(n))
}

// UpstreamConnected counts a connection to an upstream, greeting included.
func (m *Metrics) UpstreamConnected(name proxy.Listener, took time.Duration) {
	if l := m.listener(name); l >= 0 {
		m.upstreamTime[l].Observe(took.Seconds())
	}
}

// UpstreamFailed counts a session that an upstream could not serve.
func (m *Metrics) UpstreamFailed(name string, reason proxy.UpstreamFailure) {
	m.upstreamFailures.at(slices.Index(m.upstreams, name), slices.Index(proxy.UpstreamFailures, reason)).Add(1)
}

// UpstreamGreeted counts nothing.
func (m *Metrics) UpstreamGreeted(string) {}

// UpstreamUp notes whether the upstream serves clients.
func (m *Metrics) UpstreamUp(name string, problem error) {
	m.upstreamUp.at(slices.Index(m.upstreams, name)).Store(text.Either[int64](problem == nil, 1, 0))
}

// Handovers counts upgrades in place, and returns how many there were.
func (m *Metrics) Handovers(ok, failed int) (allOK, allFailed int) {
	v := m.handovers.values
	return int(v[0].Add(int64(ok))), int(v[1].Add(int64(failed)))
}

// CertificateReload notes that files were read again, and whether all others
// are well too.
func (m *Metrics) CertificateReload(ok, all bool) {
	if !ok {
		m.reloads.at().Add(1)
	}
	m.reloaded.at().Store(text.Either[int64](all, 1, 0))
}

var (
	notAfter = prometheus.NewDesc(namespace+"_certificate_not_after_timestamp_seconds",
		"End of the certificate's validity, in seconds since 1970.", []string{"certificate"}, nil)
	notBefore = prometheus.NewDesc(namespace+"_certificate_not_before_timestamp_seconds",
		"Beginning of the certificate's validity, in seconds since 1970.", []string{"certificate"}, nil)
)

// certificates collects what there is to say of certificates; which are served,
// follows the clock.
func certificates(served []certs.Info, ch chan<- prometheus.Metric) {
	seen := make(map[string]bool)
	for _, c := range served {
		label := utf8Label(c.Name)
		if seen[label] { // the admin port's may be one of the others
			continue
		}
		seen[label] = true
		ch <- prometheus.MustNewConstMetric(notAfter, prometheus.GaugeValue, float64(c.Leaf.NotAfter.Unix()), label)
		ch <- prometheus.MustNewConstMetric(notBefore, prometheus.GaugeValue, float64(c.Leaf.NotBefore.Unix()), label)
	}
}

// utf8Label makes a label value of a text that may be any bytes, as the name
// of a file may: Prometheus takes UTF-8 alone.
func utf8Label(s string) string { return strings.ToValidUTF8(s, "\uFFFD") }
