package dashboards

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"postern/internal/posterntest"
)

// timeout bounds each wait, however busy the machine is.
const timeout = time.Minute

// prometheus is a real one that scrapes a proxy.
type prometheus struct{ addr string }

// startPrometheus runs one that scrapes the proxy every second, under two names,
// as if there were two with one ledger, and that evaluates the rules.
func startPrometheus(t *testing.T, g *posterntest.Proxy) *prometheus {
	t.Helper()
	dir := t.TempDir()
	rules, err := filepath.Abs(filepath.Join(root, rulesFile))
	must(t, err)
	config := filepath.Join(dir, "prometheus.yml")
	must(t, os.WriteFile(config, fmt.Appendf(nil, `
global: {scrape_interval: 1s, scrape_timeout: 1s, evaluation_interval: 1s}
rule_files: [%q]
scrape_configs:
  - job_name: postern
    static_configs:
      - {targets: [%[2]q], labels: {instance: proxy-a}}
      - {targets: [%[2]q], labels: {instance: proxy-b}}
`, rules, g.Admin()), 0o600))
	p := &prometheus{addr: posterntest.FreeAddr(t)}
	cmd := exec.Command(program(t, "prometheus"), "--config.file="+config, "--storage.tsdb.path="+filepath.Join(dir, "data"),
		"--web.listen-address="+p.addr, "--log.level=warn")
	var log bytes.Buffer
	cmd.Stdout, cmd.Stderr = &log, &log
	must(t, cmd.Start())
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
		if t.Failed() {
			t.Logf("Prometheus says:\n%s", log.String())
		}
	})
	p.until(t, "Prometheus", func() bool {
		resp, err := http.Get("http://" + p.addr + "/-/ready")
		if err != nil {
			return false
		}
		resp.Body.Close()
		return resp.StatusCode == http.StatusOK
	})
	return p
}

func (p *prometheus) until(t *testing.T, what string, cond func() bool) {
	t.Helper()
	for end := time.Now().Add(timeout); !cond(); time.Sleep(200 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("no %s in %v", what, timeout)
		}
	}
}

// get asks the API.
func (p *prometheus) get(path string, form url.Values, into any) error {
	resp, err := http.PostForm("http://"+p.addr+path, form)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	var answer struct {
		Status, Error string
		Data          json.RawMessage
	}
	if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil {
		return fmt.Errorf("reading the answer of %s: %w", path, err)
	}
	if answer.Status != "success" {
		return fmt.Errorf("%s: %s", answer.Status, answer.Error)
	}
	return json.Unmarshal(answer.Data, into)
}

// point is one series of an answer.
type point struct {
	labels map[string]string
	value  float64
}

// query gives the numbers that there are now; one that is none is left out.
func (p *prometheus) query(expr string) ([]point, error) {
	var data struct {
		ResultType string
		Result     []struct {
			Metric map[string]string
			Value  [2]any
		}
	}
	if err := p.get("/api/v1/query", url.Values{"query": {expr}}, &data); err != nil {
		return nil, err
	}
	if data.ResultType != "vector" {
		return nil, fmt.Errorf("the answer is a %s", data.ResultType)
	}
	var points []point
	for _, r := range data.Result {
		text, _ := r.Value[1].(string)
		v, err := strconv.ParseFloat(text, 64)
		if err != nil {
			return nil, err
		}
		if !math.IsNaN(v) && !math.IsInf(v, 0) {
			points = append(points, point{r.Metric, v})
		}
	}
	return points, nil
}

// filled is an expression of the dashboard with a reader's choice in it.
var filled = strings.NewReplacer(
	"$job", "postern", "$instance", ".+", "$__rate_interval", "30s", "$__interval", "30s", "$__range", "1h",
).Replace

// some is what an expression finds, once that is something: a scrape that takes too long
// leaves nothing until the next one.
func (p *prometheus) some(expr string) (points []point, err error) {
	for end := time.Now().Add(timeout); len(points) == 0 && time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		if points, err = p.query(expr); err != nil || len(points) > 0 {
			break
		}
	}
	return points, err
}

// found fails the test where an expression finds nothing, or one of its selectors
// does; it returns what it finds.
func (p *prometheus) found(t *testing.T, what, expr string) []point {
	t.Helper()
	if strings.Contains(quoted.ReplaceAllString(expr, ""), "$") {
		t.Errorf("%s: a variable is left in %s", what, expr)
	}
	points, err := p.some(expr)
	if err != nil || len(points) == 0 {
		t.Errorf("%s: finds nothing (%v): %s", what, err, expr)
	}
	names := selectorsOf(expr)
	if len(names) == 0 {
		t.Errorf("%s: asks for no metric: %s", what, expr)
	}
	for _, s := range names {
		if points, err := p.some(s); err != nil || len(points) == 0 {
			t.Errorf("%s: there is no %s (%v)", what, s, err)
		}
	}
	return points
}

// One Prometheus and one proxy for all that needs them.
func TestEveryQueryAndEveryRuleFindsWhatItAsksFor(t *testing.T) {
	g := startProxy(t)
	p := startPrometheus(t, g)
	mixedTraffic(t, g)
	p.until(t, "count of the clients", func() bool {
		points, err := p.query(`postern_legacy_clients{listener="any",version="any",window="7d"}`)
		return err == nil && len(points) == 2 && points[0].value >= legacyClients && points[1].value >= legacyClients
	})
	// A window of a rate has seen some of everything by then.
	p.until(t, "rate of handshakes", func() bool {
		points, err := p.query(`rate(postern_handshakes_total{outcome="observed",version="tls1.0",listener="imaps"}[30s]) > 0`)
		return err == nil && len(points) == 2
	})

	t.Run("dashboard", func(t *testing.T) { checkDashboard(t, p) })
	t.Run("numbers", func(t *testing.T) { checkNumbers(t, p) })
	t.Run("variables", func(t *testing.T) { checkVariables(t, p) })
	t.Run("rules", func(t *testing.T) { checkRules(t, p) })
	t.Run("metrics", func(t *testing.T) { checkMetrics(t, g) })
}

func checkDashboard(t *testing.T, p *prometheus) {
	d := theDashboard(t)
	for _, panel := range d.Panels {
		for _, q := range panel.Targets {
			points := p.found(t, panel.Title, filled(q.Expr))
			for _, m := range legendLabel.FindAllStringSubmatch(q.LegendFormat, -1) {
				for _, point := range points {
					if point.labels[m[1]] == "" {
						t.Errorf("%q: the legend %q has no %s in %v", panel.Title, q.LegendFormat, m[1], point.labels)
					}
				}
			}
		}
	}
	for _, a := range d.Annotations.List {
		if a.Expr != "" {
			p.found(t, "annotation", opened(filled(a.Expr)))
		}
	}
}

// The numbers are right where they can be foretold, once the ledger has been
// written: a scanner may be known as one only then.
func checkNumbers(t *testing.T, p *prometheus) {
	for end := time.Now().Add(settled); ; time.Sleep(time.Second) {
		problems := wrongNumbers(t, p)
		if len(problems) == 0 {
			return
		}
		if time.Now().After(end) {
			t.Error(strings.Join(problems, "\n"))
			return
		}
	}
}

// settled is when the ledger has been written and scraped.
const settled = time.Minute

func wrongNumbers(t *testing.T, p *prometheus) (problems []string) {
	complain := func(format string, args ...any) { problems = append(problems, fmt.Sprintf(format, args...)) }
	exprs := make(map[string]string)
	for _, panel := range theDashboard(t).Panels {
		if len(panel.Targets) > 0 {
			exprs[panel.Title] = filled(panel.Targets[0].Expr)
		}
	}
	for _, c := range []struct {
		title, label, value string
		from, to            float64
	}{
		{"How many old clients came in the last 7 days?", "", "", legacyClients, legacyClients},
		{"How many in the last 24 hours?", "", "", legacyClients, legacyClients},
		{"Which share of all handshakes was legacy?", "", "", 0.3, 0.9},
		{"How many exemptions are open?", "", "", 1, 1},
		{"How long until the first of them ends?", "", "", (exemptionLeft - time.Hour).Seconds(), exemptionLeft.Seconds()},
		{"Do all instances answer?", "", "", 1, 1},
		{"Are the old clients becoming fewer?", "window", "1h", legacyClients, legacyClients},
		{"On which listeners?", "listener", "pop3s", 1, 1},
		{"On which listeners?", "listener", "imap", 2, 2},
		{"Which versions do they offer?", "version", "tls1.0", legacyClients, legacyClients},
		{"Which versions do they offer?", "version", "tls1.1", 1, 1},
		{"Which versions do they offer?", "version", "tls1.3", 0, 0},
		{"What does an old client meet?", "listener", "imaps", 0, 0},
		{"What does an old client meet?", "listener", "pop3s", 2, 2},
		{"How much does each rule take?", "rule", "half", 0.5, 0.5},
		{"Could a policy file not be read?", "instance", "proxy-a", 0, 0},
		{"How much of the certificates' lifetime is left?", "", "", 0.4, 0.5},
	} {
		points, err := p.query(exprs[c.title])
		if err != nil {
			complain("%q: %v", c.title, err)
		}
		hits := 0
		for _, point := range points {
			if point.labels[c.label] != c.value {
				continue
			}
			if hits++; point.value < c.from || point.value > c.to {
				complain("%q: %v is %v, want %v to %v", c.title, point.labels, point.value, c.from, c.to)
			}
		}
		if hits == 0 {
			complain("%q: nothing for %s=%q in %v", c.title, c.label, c.value, points)
		}
	}
	return problems
}

var labelValues = regexp.MustCompile(`^label_values\((.+), (\w+)\)$`)

func checkVariables(t *testing.T, p *prometheus) {
	want := map[string][]string{"job": {"postern"}, "instance": {"proxy-a", "proxy-b"}}
	for _, v := range theDashboard(t).Templating.List {
		if v.Type != "query" {
			continue
		}
		m := labelValues.FindStringSubmatch(v.Definition)
		if m == nil || !strings.Contains(string(v.Query), strconv.Quote(v.Definition)) {
			t.Errorf("%s: %q, %s", v.Name, v.Definition, v.Query)
			continue
		}
		var got []string
		for end := time.Now().Add(timeout); !slices.Equal(got, want[v.Name]) && time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
			points, err := p.query("group by (" + m[2] + ") (" + filled(m[1]) + ")")
			must(t, err)
			got = nil
			for _, point := range points {
				got = append(got, point.labels[m[2]])
			}
			slices.Sort(got)
		}
		if !slices.Equal(got, want[v.Name]) {
			t.Errorf("%s can be %q", v.Name, got)
		}
	}
}

func checkRules(t *testing.T, p *prometheus) {
	for _, r := range theRules(t) {
		if r.Record != "" {
			p.found(t, r.Record, r.Expr)
			p.until(t, r.Record, func() bool {
				points, err := p.query(`{__name__="` + r.Record + `"}`)
				return err == nil && len(points) > 0
			})
			continue
		}
		p.found(t, r.Alert, opened(r.Expr))
		if _, err := p.query(r.Expr); err != nil {
			t.Errorf("%s: %v", r.Alert, err)
		}
	}
	var loaded struct {
		Groups []struct {
			Rules []struct{ Name, Health, LastError string }
		}
	}
	resp, err := http.Get("http://" + p.addr + "/api/v1/rules")
	must(t, err)
	defer resp.Body.Close()
	must(t, json.NewDecoder(resp.Body).Decode(&struct{ Data any }{&loaded}))
	bad := 0
	for _, g := range loaded.Groups {
		for _, r := range g.Rules {
			if r.Health == "err" {
				bad++
				t.Errorf("%s: %s", r.Name, r.LastError)
			}
		}
	}
	if len(loaded.Groups) == 0 {
		t.Error("Prometheus has no rules")
	}
}

// checkMetrics: there is nothing that the proxy tells and no panel shows.
func checkMetrics(t *testing.T, g *posterntest.Proxy) {
	text := string(read(t, dashboardFile))
	for name := range g.Metrics(t) {
		base := strings.TrimSuffix(strings.TrimSuffix(name, "_count"), "_sum")
		if strings.HasPrefix(base, "postern_") && !strings.Contains(text, base) {
			t.Errorf("no panel shows %s", base)
		}
	}
}
