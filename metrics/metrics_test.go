package metrics

import (
	"crypto/x509"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus/testutil"
	dto "github.com/prometheus/client_model/go"

	"postern/internal/certs"
	"postern/policy"
	"postern/proxy"
)

const (
	imapUpstream = "imap://127.0.0.1:10143"
	popUpstream  = "pop3://127.0.0.1:10110"
	oldServer    = "127.0.0.1:10993"
)

// newFrom is New with what does not matter to a test.
func newFrom(o Options) *Metrics {
	if o.Policy == nil {
		o.Policy = policy.New(policy.FloorTLS12, policy.Enforce)
	}
	none, zero := func() uint64 { return 0 }, func() float64 { return 0 }
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Certificates == nil {
		o.Certificates = func() []certs.Info { return nil }
	}
	if o.LogSuppressed == nil {
		o.LogSuppressed = none
	}
	o.LedgerDropped, o.LedgerPending, o.LedgerWritten = none, zero, zero
	return New(o)
}

func newMetrics() *Metrics {
	return newFrom(Options{
		Listeners: []proxy.Listener{proxy.IMAPS, proxy.POP3},
		Policy:    policy.New(policy.FloorTLS12, policy.Enforce),
		Now:       func() time.Time { return time.Unix(0, 0) },
		Upstreams: []string{imapUpstream, popUpstream}, Passthrough: []string{oldServer},
		Version: "v1.2.3", Revision: "abc",
	})
}

// snapshot is every series of ours with its value; of a histogram the count.
func snapshot(t testing.TB, m *Metrics) map[string]float64 {
	t.Helper()
	families, err := m.Gatherer().Gather()
	if err != nil {
		t.Fatal(err)
	}
	values := map[string]float64{}
	for _, f := range families {
		name, ours := strings.CutPrefix(f.GetName(), "postern_")
		if !ours {
			continue
		}
		for _, metric := range f.Metric {
			var value float64
			switch f.GetType() {
			case dto.MetricType_COUNTER:
				value = metric.Counter.GetValue()
			case dto.MetricType_GAUGE:
				value = metric.Gauge.GetValue()
			case dto.MetricType_HISTOGRAM:
				value = float64(metric.Histogram.GetSampleCount())
			default:
				t.Fatalf("%s is a %v", name, f.GetType())
			}
			values[name+labels(metric)] = value
		}
	}
	return values
}

func labels(m *dto.Metric) string {
	var parts []string
	for _, l := range m.Label {
		parts = append(parts, l.GetName()+"="+l.GetValue())
	}
	return "{" + strings.Join(parts, " ") + "}"
}

func handshake(l proxy.Listener, offered policy.Version, o proxy.Outcome) *proxy.Handshake {
	return &proxy.Handshake{
		Conn:     &proxy.Conn{Listener: l},
		Verdict:  policy.Verdict{Version: offered},
		Outcome:  o,
		Duration: 3 * time.Millisecond,
	}
}

func TestEveryHandshakeMovesItsSeriesAlone(t *testing.T) {
	imaps, pop3 := &proxy.Conn{Listener: proxy.IMAPS}, &proxy.Conn{Listener: proxy.POP3}
	offered := func(v policy.Version, r policy.Reason) policy.Verdict { return policy.Verdict{Version: v, Reason: r} }
	for name, test := range map[string]struct {
		event  proxy.Handshake
		series []string
	}{
		"accepted": {proxy.Handshake{Conn: imaps, Verdict: offered(policy.TLS13, policy.NotLegacy), Outcome: proxy.Accepted, Version: policy.TLS13, Key: proxy.KeyECDSA, KeyExchange: "x25519mlkem768"}, []string{
			"handshakes_total{listener=imaps outcome=accepted version=tls1.3} 1",
			"tls_sessions_total{key=ecdsa listener=imaps resumed=false version=tls1.3} 1",
			"key_exchanges_total{group=x25519mlkem768 listener=imaps} 1",
			"handshake_duration_seconds{listener=imaps} 1",
		}},
		"resumed": {proxy.Handshake{Conn: imaps, Verdict: offered(policy.TLS13, policy.NotLegacy), Outcome: proxy.Accepted, Version: policy.TLS12, Key: proxy.KeyNone, Resumed: true, KeyExchange: proxy.KeyExchangeResumed}, []string{
			"handshakes_total{listener=imaps outcome=accepted version=tls1.3} 1",
			"tls_sessions_total{key=none listener=imaps resumed=true version=tls1.2} 1",
			"key_exchanges_total{group=resumed listener=imaps} 1",
			"handshake_duration_seconds{listener=imaps} 1",
		}},
		"observed": {proxy.Handshake{Conn: pop3, Verdict: offered(policy.TLS10, policy.ReasonVersion), Outcome: proxy.Observed, Version: policy.TLS10, Key: proxy.KeyRSA, KeyExchange: proxy.KeyExchangeRSA}, []string{
			"handshakes_total{listener=pop3 outcome=observed version=tls1.0} 1",
			"legacy_handshakes_total{listener=pop3 outcome=observed reason=version version=tls1.0} 1",
			"tls_sessions_total{key=rsa listener=pop3 resumed=false version=tls1.0} 1",
			"key_exchanges_total{group=rsa listener=pop3} 1",
			"handshake_duration_seconds{listener=pop3} 1",
		}},
		"passed through": {proxy.Handshake{Conn: pop3, Verdict: offered(policy.SSL3, policy.ReasonVersion), Outcome: proxy.Observed, Key: proxy.KeyNone}, []string{
			"handshakes_total{listener=pop3 outcome=observed version=ssl3} 1",
			"legacy_handshakes_total{listener=pop3 outcome=observed reason=version version=ssl3} 1",
		}},
		"explained": {proxy.Handshake{Conn: imaps, Verdict: offered(policy.TLS12, policy.ReasonCipher), Outcome: proxy.Explained, Version: policy.TLS12, Key: proxy.KeyRSA, KeyExchange: proxy.KeyExchangeRSA}, []string{
			"handshakes_total{listener=imaps outcome=explained version=tls1.2} 1",
			"legacy_handshakes_total{listener=imaps outcome=explained reason=cipher version=tls1.2} 1",
			"tls_sessions_total{key=rsa listener=imaps resumed=false version=tls1.2} 1",
			"key_exchanges_total{group=rsa listener=imaps} 1",
			"handshake_duration_seconds{listener=imaps} 1",
		}},
		"rejected": {proxy.Handshake{Conn: imaps, Verdict: offered(policy.SSL3, policy.ReasonFallback), Outcome: proxy.Rejected}, []string{
			"handshakes_total{listener=imaps outcome=rejected version=ssl3} 1",
			"legacy_handshakes_total{listener=imaps outcome=rejected reason=fallback version=ssl3} 1",
		}},
		"failed": {proxy.Handshake{Conn: imaps, Verdict: offered(policy.NoVersion, policy.NotLegacy), Outcome: proxy.Failed, Failure: proxy.FailHTTP}, []string{
			"handshakes_total{listener=imaps outcome=failed version=none} 1",
			"handshake_failures_total{listener=imaps reason=http} 1",
		}},
		"failed for no reason told": {proxy.Handshake{Conn: pop3, Verdict: offered(policy.TLS11, policy.NotLegacy), Outcome: proxy.Failed}, []string{
			"handshakes_total{listener=pop3 outcome=failed version=tls1.1} 1",
			"handshake_failures_total{listener=pop3 reason=other} 1",
		}},
		"in a form that is not read, passed through": {proxy.Handshake{Conn: imaps, Verdict: offered(policy.TLS13, policy.ReasonMalformed), Outcome: proxy.Observed}, []string{
			"handshakes_total{listener=imaps outcome=observed version=tls1.3} 1",
			"legacy_handshakes_total{listener=imaps outcome=observed reason=malformed version=tls1.3} 1",
		}},
		"legacy failed": {proxy.Handshake{Conn: imaps, Verdict: offered(policy.TLS12, policy.ReasonSSL2Hello), Outcome: proxy.Failed, Failure: proxy.FailTimeout}, []string{
			"handshakes_total{listener=imaps outcome=failed version=tls1.2} 1",
			"legacy_handshakes_total{listener=imaps outcome=failed reason=ssl2_hello version=tls1.2} 1",
			"handshake_failures_total{listener=imaps reason=timeout} 1",
		}},
	} {
		t.Run(name, func(t *testing.T) {
			test.event.Duration = 3 * time.Millisecond
			moves(t, func(m *Metrics) { m.Handshake(&test.event) }, test.series)
		})
	}
}

// moves fails the test unless the event moves these series, by that much, and
// no others.
func moves(t *testing.T, event func(*Metrics), series []string) {
	t.Helper()
	m := newMetrics()
	before := snapshot(t, m)
	event(m)
	var got []string
	for name, value := range snapshot(t, m) {
		if old, known := before[name]; !known && !strings.Contains(name, "reason=malformed version") {
			t.Errorf("a series that did not exist: %s", name)
		} else if value != old {
			got = append(got, fmt.Sprint(name, " ", value-old))
		}
	}
	slices.Sort(got)
	if want := slices.Sorted(slices.Values(series)); !slices.Equal(got, want) {
		t.Errorf("series that moved (-want +got):\n%s", cmp.Diff(want, got))
	}
}

func TestEveryEventMovesItsSeriesAlone(t *testing.T) {
	for _, test := range []struct {
		name   string
		event  func(*Metrics)
		series []string
	}{
		{"opened", func(m *Metrics) { m.Opened(proxy.IMAPS) }, []string{"connections_total{listener=imaps} 1", "connections_open{listener=imaps} 1"}},
		{"closed", func(m *Metrics) { m.Closed(&proxy.Closed{Conn: &proxy.Conn{Listener: proxy.IMAPS}}) }, []string{"connections_open{listener=imaps} -1"}},
		{"login", func(m *Metrics) { m.Login(&proxy.Login{Conn: &proxy.Conn{Listener: proxy.IMAPS}}) }, nil},
		{"refused login", func(m *Metrics) {
			m.LoginFailed(&proxy.LoginFailed{Conn: &proxy.Conn{Listener: proxy.POP3}})
			m.LoginFailed(&proxy.LoginFailed{Conn: &proxy.Conn{Listener: proxy.POP3}, BeforeTLS: true})
		}, []string{"login_failures_total{listener=pop3} 1"}},
		{"cleartext login", func(m *Metrics) { m.CleartextLogin(proxy.POP3) }, []string{"cleartext_logins_total{listener=pop3} 1"}},
		{"injection", func(m *Metrics) { m.Injection(proxy.POP3) }, []string{"starttls_injections_total{listener=pop3} 1"}},
		{"over a limit", func(m *Metrics) { m.LimitRefused(proxy.POP3, proxy.LimitHandshakesPerClient) }, []string{"limit_refusals_total{limit=handshakes_per_client listener=pop3} 1"}},
		{"no PROXY header", func(m *Metrics) { m.ProxyHeaderFailed(proxy.IMAPS) }, []string{"proxy_header_failures_total{listener=imaps} 1"}},
		{"policy reload failed", func(m *Metrics) { m.PolicyReloadFailed() }, []string{"policy_last_reload_successful{} -1", "policy_reload_failures_total{} 1"}},
		{"reload failed", func(m *Metrics) { m.CertificateReload(false, false) }, []string{"certificate_last_reload_successful{} -1", "certificate_reload_failures_total{} 1"}},
		{"relayed", func(m *Metrics) { m.Relayed(proxy.POP3, proxy.ToUpstream, 70000) }, []string{"relayed_bytes_total{direction=to_upstream listener=pop3} 70000"}},
		{"upstream connected", func(m *Metrics) { m.UpstreamConnected(proxy.IMAPS, time.Second) }, []string{"upstream_connect_duration_seconds{listener=imaps} 1"}},
		{"upstream failed", func(m *Metrics) { m.UpstreamFailed(popUpstream, proxy.UpstreamRefused) }, []string{"upstream_failures_total{reason=refused upstream=pop3://127.0.0.1:10110} 1"}},
		{"old server failed", func(m *Metrics) { m.UpstreamFailed(oldServer, proxy.UpstreamDial) }, []string{"upstream_failures_total{reason=dial upstream=127.0.0.1:10993} 1"}},
		{"old server up", func(m *Metrics) { m.UpstreamUp(oldServer, nil) }, nil},
		{"upstream up", func(m *Metrics) { m.UpstreamUp(imapUpstream, nil) }, []string{"upstream_up{upstream=imap://127.0.0.1:10143} 1"}},
		{"upstream up and down", func(m *Metrics) { m.UpstreamUp(imapUpstream, nil); m.UpstreamUp(imapUpstream, io.EOF) }, nil},
		{"of a listener that is off", func(m *Metrics) {
			m.Opened(proxy.IMAP)
			m.Handshake(handshake(proxy.IMAP, policy.TLS13, proxy.Rejected))
			m.Closed(&proxy.Closed{Conn: &proxy.Conn{Listener: proxy.IMAP}})
			m.CleartextLogin("192.0.2.7")
			m.Injection("192.0.2.7")
			m.LimitRefused("192.0.2.7", proxy.LimitConnections)
			m.ProxyHeaderFailed("192.0.2.7")
			m.Relayed("192.0.2.7", proxy.ToClient, 1)
			m.UpstreamConnected("192.0.2.7", 1)
		}, nil},
		{"upgrades in place", func(m *Metrics) {
			m.Handovers(2, 0)
			if ok, failed := m.Handovers(1, 1); ok != 3 || failed != 1 {
				t.Errorf("%d and %d that failed", ok, failed)
			}
		}, []string{"handovers_total{outcome=failed} 1", "handovers_total{outcome=ok} 3"}},
		{"of values that nobody configured", func(m *Metrics) {
			m.Relayed(proxy.IMAPS, "sideways", 1)
			m.UpstreamFailed("imap://192.0.2.7:143", proxy.UpstreamDial)
			m.UpstreamFailed(imapUpstream, "some error text")
			m.LimitRefused(proxy.IMAPS, "unknown")
			m.UpstreamUp("imap://192.0.2.7:143", nil)
		}, nil},
	} {
		t.Run(test.name, func(t *testing.T) { moves(t, test.event, test.series) })
	}
}

func TestEverySeriesExistsAtZeroFromTheStart(t *testing.T) {
	got := snapshot(t, newMetrics())
	maps.DeleteFunc(got, func(series string, v float64) bool { return strings.HasPrefix(series, "build_info{") && v == 1 })
	if diff := cmp.Diff(firstSeries(), got); diff != "" {
		t.Errorf("series (-want +got):\n%s", diff)
	}
}

// firstSeries are the series at the start. The label values are spelled out:
// dashboards are built on them, so that one which is added to or taken from the
// proxy's lists has to be noticed.
func firstSeries() map[string]float64 {
	want := map[string]float64{
		"log_suppressed_total{}": 0, "ledger_dropped_total{}": 0, "certificate_reload_failures_total{}": 0, "policy_reload_failures_total{}": 0,
		"certificate_last_reload_successful{}": 1, "policy_last_reload_successful{}": 1,
		"handovers_total{outcome=ok}": 0, "handovers_total{outcome=failed}": 0,
		"ledger_pending{}": 0, "ledger_last_write_timestamp_seconds{}": 0,
		"policy_last_reload_timestamp_seconds{}": 0, // by the clock of this test
	}
	zero := func(format string, args ...any) { want[fmt.Sprintf(format, args...)] = 0 }
	for _, l := range []string{"imaps", "pop3", "any"} {
		for _, v := range strings.Fields("ssl2 ssl3 tls1.0 tls1.1 tls1.2 tls1.3 any") {
			for _, w := range strings.Fields("1h 24h 7d 30d") {
				zero("legacy_clients{listener=%s version=%s window=%s}", l, v, w)
			}
		}
	}
	for _, l := range []string{"imaps", "pop3"} {
		for _, name := range []string{"connections_total", "connections_open", "cleartext_logins_total", "login_failures_total",
			"starttls_injections_total", "proxy_header_failures_total", "handshake_duration_seconds", "upstream_connect_duration_seconds"} {
			zero("%s{listener=%s}", name, l)
		}
		for _, v := range strings.Fields("ssl2 ssl3 tls1.0 tls1.1 tls1.2 tls1.3 none") {
			for _, o := range strings.Fields("accepted observed explained rejected failed") {
				zero("handshakes_total{listener=%s outcome=%s version=%s}", l, o, v)
				for _, r := range strings.Fields("version cipher fallback ssl2_hello") {
					if o != "accepted" && v != "none" {
						zero("legacy_handshakes_total{listener=%s outcome=%s reason=%s version=%s}", l, o, r, v)
					}
				}
			}
		}
		for _, r := range strings.Fields(`plaintext http tls_on_starttls_port malformed fallback client_alert
			alpn client_certificate timeout closed io limit shutdown other`) {
			zero("handshake_failures_total{listener=%s reason=%s}", l, r)
		}
		for _, limit := range strings.Fields("connections connections_per_client handshakes_per_client") {
			zero("limit_refusals_total{limit=%s listener=%s}", limit, l)
		}
		for _, d := range strings.Fields("to_client to_upstream") {
			zero("relayed_bytes_total{direction=%s listener=%s}", d, l)
		}
		for _, v := range strings.Fields("tls1.0 tls1.1 tls1.2 tls1.3") {
			for _, k := range strings.Fields("ecdsa rsa none") {
				zero("tls_sessions_total{key=%s listener=%s resumed=true version=%s}", k, l, v)
				zero("tls_sessions_total{key=%s listener=%s resumed=false version=%s}", k, l, v)
			}
		}
		for _, g := range strings.Fields("x25519mlkem768 secp256r1mlkem768 secp384r1mlkem1024 x25519 secp256r1 secp384r1 secp521r1 rsa resumed none") {
			zero("key_exchanges_total{group=%s listener=%s}", g, l)
		}
		for _, mode := range strings.Fields("enforce explain observe") {
			zero("policy_mode{listener=%s mode=%s}", l, mode)
		}
		want[fmt.Sprintf("policy_mode{listener=%s mode=enforce}", l)] = 1
	}
	for _, u := range []string{imapUpstream, popUpstream, oldServer} {
		if u != oldServer {
			zero("upstream_up{upstream=%s}", u)
		}
		for _, r := range strings.Fields("dial timeout tls starttls greeting preauth refused closed") {
			zero("upstream_failures_total{reason=%s upstream=%s}", r, u)
		}
	}
	return want
}

func TestSumsOfHandshakesAgree(t *testing.T) {
	m := newMetrics()
	for i, version := range policy.Versions {
		for _, outcome := range proxy.Outcomes {
			h := handshake(proxy.IMAPS, version, outcome)
			if outcome != proxy.Accepted && version != policy.NoVersion {
				h.Verdict.Reason = policy.Reasons[i%len(policy.Reasons)]
			}
			if outcome == proxy.Failed {
				h.Failure = proxy.Failures[i]
			}
			if version == policy.NoVersion && outcome != proxy.Failed {
				continue
			}
			m.Handshake(h)
		}
	}
	sum := func(name string, outcomes ...string) (total float64) {
		for series, value := range snapshot(t, m) {
			if strings.HasPrefix(series, name+"{") && slices.ContainsFunc(outcomes, func(o string) bool { return strings.Contains(series, o) }) {
				total += value
			}
		}
		return total
	}
	if all, failed := sum("handshakes_total", "=failed"), sum("handshake_failures_total", ""); all != failed || all != 7 {
		t.Errorf("%v handshakes failed, of %v failures; want 7", all, failed)
	}
	legacyOutcomes := []string{"=observed", "=explained", "=rejected"}
	if all, legacy := sum("handshakes_total", legacyOutcomes...), sum("legacy_handshakes_total", legacyOutcomes...); all != legacy || all != 18 {
		t.Errorf("%v handshakes, %v legacy ones of the same outcomes; want 18", all, legacy)
	}
}

// certificate is one of that file that is valid in the hour before its end.
func certificate(file string, end time.Time) certs.Info {
	return certs.Info{Name: file, Leaf: &x509.Certificate{NotBefore: end.Add(-time.Hour), NotAfter: end}}
}

func TestCertificatesComeAndGo(t *testing.T) {
	end := time.Unix(1_800_000_000, 0)
	served := []certs.Info{certificate("tls/a.crt", end), certificate("tls/b\xff.crt", end)}
	m := newFrom(Options{Certificates: func() []certs.Info { return served }})
	snapshot(t, m)
	// The admin port's may be one of the others.
	served = []certs.Info{certificate("tls/b\xff.crt", end.Add(time.Hour)), certificate("tls/c.crt", end), certificate("tls/c.crt", end)}
	got := snapshot(t, m)
	maps.DeleteFunc(got, func(series string, _ float64) bool { return !strings.HasPrefix(series, "certificate_not") })
	want := map[string]float64{
		"certificate_not_after_timestamp_seconds{certificate=tls/b\uFFFD.crt}":  1_800_003_600,
		"certificate_not_after_timestamp_seconds{certificate=tls/c.crt}":        1_800_000_000,
		"certificate_not_before_timestamp_seconds{certificate=tls/b\uFFFD.crt}": 1_800_000_000,
		"certificate_not_before_timestamp_seconds{certificate=tls/c.crt}":       1_799_996_400,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("certificates (-want +got):\n%s", diff)
	}
}

// TestAReloadThatFailedIsSeenWithoutAnEarlierScrape: a counter that goes from
// nothing to one shows no increase, a gauge does.
func TestAReloadThatFailedIsSeenWithoutAnEarlierScrape(t *testing.T) {
	m := newMetrics()
	for _, step := range []struct {
		what                string
		do                  func()
		policy, certificate float64
	}{
		{"the start", func() {}, 1, 1},
		{"a bad policy", m.PolicyReloadFailed, 0, 1},
		{"a bad certificate", func() { m.CertificateReload(false, false) }, 0, 0},
		{"a good CA beside it", func() { m.CertificateReload(true, false) }, 0, 0},
		{"a good certificate", func() { m.CertificateReload(true, true) }, 0, 1},
		{"a good policy", func() { m.SetPolicy(policy.New(policy.FloorTLS12, policy.Enforce)) }, 1, 1},
	} {
		step.do()
		got := snapshot(t, m)
		if p, c := got["policy_last_reload_successful{}"], got["certificate_last_reload_successful{}"]; p != step.policy || c != step.certificate {
			t.Errorf("after %s: policy %v, certificate %v; want %v, %v", step.what, p, c, step.policy, step.certificate)
		}
	}
}

func TestSuppressedLogLinesAreReadAtTheScrape(t *testing.T) {
	var suppressed uint64
	m := newFrom(Options{LogSuppressed: func() uint64 { return suppressed }})
	for _, want := range []uint64{0, 3} {
		suppressed = want
		if got, known := snapshot(t, m)["log_suppressed_total{}"]; !known || got != float64(want) {
			t.Errorf("%v suppressed, want %d", got, want)
		}
	}
}

func TestMetricsPassLint(t *testing.T) {
	m := newFrom(Options{Listeners: proxy.Listeners, Certificates: func() []certs.Info {
		return []certs.Info{certificate("a.crt", time.Unix(1_800_000_000, 0))}
	}})
	problems, err := testutil.GatherAndLint(m.Gatherer())
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
}

func TestHandlerServesTextAndOpenMetrics(t *testing.T) {
	m := newMetrics()
	h := handshake(proxy.IMAPS, policy.TLS13, proxy.Accepted)
	h.Version, h.Key = policy.TLS13, proxy.KeyRSA
	m.Handshake(h)
	server := httptest.NewServer(m.Handler())
	defer server.Close()
	for accept, want := range map[string][]string{
		"text/plain": {
			`postern_build_info{goversion="go1.`, `revision="abc",version="v1.2.3"} 1`,
			`postern_handshake_duration_seconds_bucket{listener="imaps",le="0.0025"} 0`,
			`postern_handshake_duration_seconds_bucket{listener="imaps",le="0.005"} 1`,
			`postern_handshake_duration_seconds_bucket{listener="imaps",le="10"} 1`,
			"go_goroutines ", "process_open_fds ",
		},
		"application/openmetrics-text": {"# TYPE postern_handshakes counter\n", "# EOF\n"},
	} {
		body := get(t, server.URL, accept)
		for _, text := range want {
			if !strings.Contains(body, text) {
				t.Errorf("%s: no %q in the answer", accept, text)
			}
		}
	}
}

func get(t *testing.T, url, accept string) string {
	t.Helper()
	req, err := http.NewRequest(http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Accept", accept)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if got := resp.Header.Get("Content-Type"); resp.StatusCode != http.StatusOK || !strings.HasPrefix(got, accept) {
		t.Errorf("status %d, type %q; want 200, %q", resp.StatusCode, got, accept)
	}
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(body)
}

func TestNativeHistogramStandsBesideTheClassicOne(t *testing.T) {
	m := newMetrics()
	m.UpstreamConnected(proxy.IMAPS, 20*time.Millisecond)
	families, err := m.Gatherer().Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() != "postern_upstream_connect_duration_seconds" {
			continue
		}
		for _, metric := range f.Metric {
			h := metric.Histogram
			if h.Schema == nil || len(h.Bucket) != len(durationBuckets) {
				t.Errorf("%s: schema %v, %d classic buckets", labels(metric), h.Schema, len(h.Bucket))
			}
		}
		return
	}
	t.Error("no such histogram")
}

func TestOpenConnectionsOfAllListenersAreCounted(t *testing.T) {
	m := newMetrics()
	for _, l := range []proxy.Listener{proxy.IMAPS, proxy.POP3, proxy.POP3, "192.0.2.7"} {
		m.Opened(l)
	}
	m.Closed(&proxy.Closed{Conn: &proxy.Conn{Listener: proxy.POP3}})
	if n := m.Open(); n != 2 {
		t.Errorf("%d, want 2", n)
	}
}

func TestEventsDoNotAllocate(t *testing.T) {
	m := newMetrics()
	accepted := handshake(proxy.IMAPS, policy.TLS13, proxy.Accepted)
	accepted.Version, accepted.Key = policy.TLS13, proxy.KeyRSA
	rejected := handshake(proxy.IMAPS, policy.TLS10, proxy.Rejected)
	rejected.Verdict.Reason = policy.ReasonVersion
	failed := handshake(proxy.IMAPS, policy.NoVersion, proxy.Failed)
	failed.Failure = proxy.FailTimeout
	closed := &proxy.Closed{Conn: accepted.Conn}
	for name, event := range map[string]func(){
		"Opened":             func() { m.Opened(proxy.IMAPS) },
		"Closed":             func() { m.Closed(closed) },
		"Relayed":            func() { m.Relayed(proxy.IMAPS, proxy.ToClient, 4096) },
		"Handshake accepted": func() { m.Handshake(accepted) },
		"Handshake rejected": func() { m.Handshake(rejected) },
		"Handshake failed":   func() { m.Handshake(failed) },
		"UpstreamConnected":  func() { m.UpstreamConnected(proxy.IMAPS, time.Millisecond) },
		"UpstreamFailed":     func() { m.UpstreamFailed(imapUpstream, proxy.UpstreamDial) },
	} {
		if n := testing.AllocsPerRun(100, event); n != 0 {
			t.Errorf("%s: %v allocations, want none", name, n)
		}
	}
}

func BenchmarkHandshake(b *testing.B) {
	m := newMetrics()
	h := handshake(proxy.IMAPS, policy.TLS13, proxy.Accepted)
	h.Version, h.Key = policy.TLS13, proxy.KeyRSA
	b.ReportAllocs()
	for b.Loop() {
		m.Handshake(h)
	}
}

func BenchmarkRelayed(b *testing.B) {
	m := newMetrics()
	b.ReportAllocs()
	for b.Loop() {
		m.Relayed(proxy.IMAPS, proxy.ToClient, 4096)
	}
}
