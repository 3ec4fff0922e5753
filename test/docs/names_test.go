package docs

import (
	"bytes"
	"crypto/tls"
	"encoding/json"
	"maps"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"postern/internal/config"
	"postern/internal/posterntest"
)

// startProxy runs a proxy with all four listeners.
func startProxy(t *testing.T) *posterntest.Proxy { return startProxyWith(t, nil) }

// startProxyWithRules runs one whose policy has rules and candidates, and so all
// metrics of a policy.
func startProxyWithRules(t *testing.T) *posterntest.Proxy {
	path, err := filepath.Abs(filepath.Join(root, "deploy/rehearsal/growing-share.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	return startProxyWith(t, map[string]string{"POLICY_FILE": path})
}

func startProxyWith(t *testing.T, env map[string]string) *posterntest.Proxy {
	t.Helper()
	imap := posterntest.StartUpstream(t, posterntest.IMAPGreeting, posterntest.IMAPReply)
	pop3 := posterntest.StartUpstream(t, posterntest.POP3Greeting, posterntest.POP3Reply)
	all := map[string]string{"UPSTREAM_IMAP": imap.URL("imap"), "UPSTREAM_POP3": pop3.URL("pop3")}
	maps.Copy(all, env)
	return posterntest.Start(t, all)
}

var variableName = regexp.MustCompile(`\bPOSTERN_[A-Z0-9_]+\b`)

func TestEveryVariableInTheDocumentsExists(t *testing.T) {
	known := []string{config.Binary}
	for f := range reflect.TypeFor[config.Config]().Fields() {
		known = append(known, config.Prefix+f.Tag.Get("env"))
	}
	for name, text := range documents(t) {
		for _, variable := range variableName.FindAllString(text, -1) {
			if !slices.Contains(known, variable) {
				t.Errorf("%s names %s, which does not exist", name, variable)
			}
		}
	}
}

// TestChartKnowsEveryVariable: those that name files are files there, and some are the
// chart's own. A pod is replaced, and hands nothing over.
func TestChartKnowsEveryVariable(t *testing.T) {
	own := []string{
		"LISTEN_IMAPS", "LISTEN_POP3S", "LISTEN_IMAP", "LISTEN_POP3", "TLS_CERT_FILE", "TLS_KEY_FILE",
		"POLICY_FILE", "POLICY_MODE", "POLICY_FLOOR", "ADMIN_LISTEN", "LEDGER_URL", "TIMEOUT_HANDOVER",
	}
	var schema struct {
		Properties struct {
			Config, Files struct{ Properties map[string]any }
		}
	}
	if err := json.Unmarshal([]byte(read(t, "deploy/helm/postern/values.schema.json")), &schema); err != nil {
		t.Fatal(err)
	}
	var plain, files []string
	for f := range reflect.TypeFor[config.Config]().Fields() {
		name := f.Tag.Get("env")
		switch {
		case name == "" || slices.Contains(own, name):
		case strings.HasSuffix(name, "_FILE"):
			files = append(files, name)
		default:
			plain = append(plain, name)
		}
	}
	for what, lists := range map[string][2][]string{
		"config": {plain, slices.Collect(maps.Keys(schema.Properties.Config.Properties))},
		"files":  {files, slices.Collect(maps.Keys(schema.Properties.Files.Properties))},
	} {
		want, got := slices.Sorted(slices.Values(lists[0])), slices.Sorted(slices.Values(lists[1]))
		if !slices.Equal(got, want) {
			t.Errorf("%s of values.schema.json has\n%q\nand needs\n%q", what, got, want)
		}
	}
}

var (
	metricName = regexp.MustCompile(`:?\bpostern_[a-z0-9_]+\b`)
	selector   = regexp.MustCompile(`\b(postern_[a-z0-9_]+)\{([^}]*)\}`)
	matcher    = regexp.MustCompile(`(\w+)(=~|!=|=)"([^"]*)"`)
	grouping   = regexp.MustCompile(`\bby \(([^)]*)\) \(increase\((postern_[a-z0-9_]+)`)
)

func TestEveryMetricInTheDocumentsExists(t *testing.T) {
	_, scrape, err := startProxyWithRules(t).Get("/metrics")
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range documents(t) {
		for _, metric := range metricName.FindAllString(text, -1) {
			if strings.HasPrefix(metric, ":") {
				continue // what a rule records
			}
			// The type of a histogram stands under its name without these.
			base := strings.TrimSuffix(strings.TrimSuffix(metric, "_bucket"), "_count")
			if !strings.Contains(scrape, "# TYPE "+base+" ") {
				t.Errorf("%s names %s, which does not exist", name, metric)
			}
		}
	}
}

func TestQueriesFindSeries(t *testing.T) {
	samples := startProxyWithRules(t).Metrics(t)
	queries := allBlocks(t, "promql")
	if len(queries) != 6 {
		t.Fatalf("%d queries", len(queries))
	}
	for _, q := range queries {
		for _, m := range selector.FindAllStringSubmatch(q.text(), -1) {
			for _, c := range matcher.FindAllStringSubmatch(m[2], -1) {
				for value := range strings.SplitSeq(c[3], "|") {
					if !samples.Has(m[1], c[1]+"="+value) {
						t.Errorf("%s has no series with %s=%q", m[1], c[1], value)
					}
				}
			}
		}
		for _, m := range grouping.FindAllStringSubmatch(q.text(), -1) {
			for label := range strings.SplitSeq(m[1], ", ") {
				if len(samples[m[2]]) == 0 || samples[m[2]][0].Labels[label] == "" {
					t.Errorf("%s has no label %s", m[2], label)
				}
			}
		}
	}
}

func TestLogLineIsLikeARealOne(t *testing.T) {
	proxy := startProxy(t)
	conn, err := tls.Dial("tcp", proxy.Addr("imaps"), &tls.Config{
		RootCAs: proxy.CA.Pool, ServerName: "mail.example.org",
		MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS10,
	})
	if err == nil {
		conn.Close()
		t.Fatal("a client of TLS 1.0 was let in")
	}
	proxy.WaitLog(t, "legacy handshake", 1)
	real := ""
	for line := range strings.Lines(proxy.Stderr()) {
		if strings.Contains(line, `"msg":"legacy handshake"`) {
			real = line
		}
	}
	blocks := blocksOf(t, monitoring, "Logs", "json")
	if len(blocks) != 1 || len(blocks[0].lines) != 1 {
		t.Fatalf("not one line: %v", blocks)
	}
	shown := fields(t, blocks[0].lines[0])
	if got := fields(t, real); !slices.Equal(got, shown) {
		t.Errorf("%s shows the fields\n%v\na real line has\n%v", monitoring, shown, got)
	}
}

// fields returns the names in a JSON object, in their order; values that are
// words from a small set stand with theirs.
func fields(t *testing.T, line string) []string {
	t.Helper()
	var values map[string]any
	if err := json.Unmarshal([]byte(line), &values); err != nil {
		t.Fatalf("%v: %s", err, line)
	}
	dec := json.NewDecoder(bytes.NewReader([]byte(line)))
	var names []string
	for depth, key := 0, true; ; {
		token, err := dec.Token()
		if err != nil {
			break
		}
		switch d, isDelim := token.(json.Delim); {
		case isDelim && (d == '{' || d == '['):
			depth++
		case isDelim:
			depth--
		case depth == 1 && key:
			names = append(names, token.(string))
			key = false
			continue
		}
		if depth == 1 {
			key = true
		}
	}
	for i, name := range names {
		if slices.Contains([]string{"level", "msg", "listener", "outcome", "reason", "version", "server_name", "mode"}, name) {
			names[i] += "=" + values[name].(string)
		}
	}
	return names
}
