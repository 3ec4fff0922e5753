package dashboards

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

// program is the path of one of those in the Debian package prometheus.
func program(t testing.TB, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		t.Fatalf("this test needs the Debian package prometheus: %v", err)
	}
	return path
}

// promtool has to find nothing to complain about.
func promtool(t *testing.T, args ...string) {
	t.Helper()
	for i, a := range args {
		if strings.HasPrefix(a, "deploy/") {
			args[i] = filepath.Join(root, a)
		}
	}
	if out, err := exec.Command(program(t, "promtool"), args...).CombinedOutput(); err != nil {
		t.Errorf("promtool %s: %v\n%s", args, err, out)
	}
}

func TestPromtoolTakesRulesAndExample(t *testing.T) {
	promtool(t, "check", "rules", rulesFile)
	promtool(t, "check", "config", scrapeFile)
}

func TestAlertsFireWhenTheyShould(t *testing.T) {
	promtool(t, append([]string{"test", "rules"}, testFiles...)...)
}

// cases counts, by alert, the cases in which it fires and in which it does not.
func cases(t *testing.T) (firing, silent map[string]int) {
	t.Helper()
	firing, silent = make(map[string]int), make(map[string]int)
	for _, name := range testFiles {
		var file struct {
			Tests []struct {
				Alerts []struct {
					Alertname string
					Exp       []any `yaml:"exp_alerts"`
				} `yaml:"alert_rule_test"`
			}
		}
		must(t, yaml.Unmarshal(read(t, name), &file))
		for _, test := range file.Tests {
			for _, c := range test.Alerts {
				if len(c.Exp) > 0 {
					firing[c.Alertname]++
				} else {
					silent[c.Alertname]++
				}
			}
		}
	}
	return firing, silent
}

func TestEveryAlertHasACaseThatFiresAndOneThatDoesNot(t *testing.T) {
	firing, silent := cases(t)
	alerts := 0
	for _, r := range theRules(t) {
		if r.Alert == "" {
			continue
		}
		alerts++
		if firing[r.Alert] == 0 || silent[r.Alert] == 0 {
			t.Errorf("%s: %d cases in which it fires, %d in which it does not", r.Alert, firing[r.Alert], silent[r.Alert])
		}
		delete(firing, r.Alert)
		delete(silent, r.Alert)
	}
	if alerts < 10 || len(firing)+len(silent) > 0 {
		t.Errorf("%d alerts; there are cases for %v %v, which do not exist", alerts, firing, silent)
	}
}

// runbooks is the page that says what to do about each alert.
const runbooks = "docs/monitoring.md"

var anchor = regexp.MustCompile(`<a id="(postern\w+)"></a>`)

// Who is woken up is told what is wrong, what to do, and where to read on.
func TestAlertsSayWhatToDo(t *testing.T) {
	page := string(read(t, runbooks))
	var named []string
	for _, r := range theRules(t) {
		if r.Alert == "" {
			continue
		}
		if !slices.Contains([]string{"info", "warning", "critical"}, r.Labels["severity"]) {
			t.Errorf("%s: the severity is %q", r.Alert, r.Labels["severity"])
		}
		for _, a := range []string{"summary", "description"} {
			if text := r.Annotations[a]; len(text) < 15 || !strings.HasSuffix(text, ".") {
				t.Errorf("%s: the %s is %q", r.Alert, a, text)
			}
		}
		id := strings.ToLower(r.Alert)
		named = append(named, id)
		if r.Annotations["runbook"] != runbooks+"#"+id {
			t.Errorf("%s: the runbook is %q", r.Alert, r.Annotations["runbook"])
		}
		if line := fmt.Sprintf("| <a id=%q></a>`%s` | %s |", id, r.Alert, r.Labels["severity"]); !strings.Contains(page, line) {
			t.Errorf("%s has no line that begins with %s", runbooks, line)
		}
	}
	for _, m := range anchor.FindAllStringSubmatch(page, -1) {
		if !slices.Contains(named, m[1]) {
			t.Errorf("%s has %s, which is no alert", runbooks, m[1])
		}
	}
}
