// Package dashboards holds the Grafana dashboard and the Prometheus rules to the
// program: a real Prometheus scrapes a proxy under mixed traffic, and every query
// and every rule finds what it asks for.
//
// A query that filters by a threshold, as an alert's does, is rightly empty on
// most days. Of such a one the test asks for the numbers that it compares, by
// opening its comparisons (see opened); that the comparison is right is for
// promtool, which has a case that fires and one that does not for each alert.
package dashboards

import (
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"postern/internal/posterntest"
)

func TestMain(m *testing.M) { posterntest.Main(m) }

const (
	root          = "../.."
	dashboardFile = "deploy/grafana/postern.json"
	rulesFile     = "deploy/prometheus/postern-rules.yaml"
	scrapeFile    = "deploy/prometheus/scrape.yaml"
)

// testFiles are the cases of the alerts.
var testFiles = []string{"deploy/prometheus/postern-rules-test.yaml", "deploy/prometheus/postern-rules-days-test.yaml"}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func read(t testing.TB, name string) []byte {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, name))
	must(t, err)
	return text
}

// dashboard is what the tests look at in a Grafana dashboard.
type dashboard struct {
	ID            *int
	UID, Title    string
	SchemaVersion int
	Panels        []panel
	Templating    struct{ List []variable }
	Annotations   struct {
		List []struct {
			Datasource datasource
			Expr       string
		}
	}
}

type datasource struct{ Type, UID string }

type variable struct {
	Name, Type, Definition string
	Multi                  bool
	Datasource             datasource
	Query                  json.RawMessage
}

type panel struct {
	ID                       int
	Type, Title, Description string
	Collapsed                bool
	GridPos                  struct{ X, Y, W, H int }
	Datasource               datasource
	FieldConfig              struct {
		Defaults struct {
			Unit       string
			Thresholds struct {
				Mode  string
				Steps []struct {
					Color string
					Value *float64
				}
			}
		}
	}
	Targets []target
}

type target struct {
	Datasource                datasource
	Expr, LegendFormat, RefID string
}

func theDashboard(t testing.TB) dashboard {
	t.Helper()
	var d dashboard
	must(t, json.Unmarshal(read(t, dashboardFile), &d))
	return d
}

// rule is a recording rule or an alert.
type rule struct {
	Record, Alert, Expr string
	Labels, Annotations map[string]string
}

func (r rule) name() string { return r.Record + r.Alert }

func theRules(t testing.TB) []rule {
	t.Helper()
	var file struct {
		Groups []struct {
			Name  string
			Rules []rule
		}
	}
	must(t, yaml.Unmarshal(read(t, rulesFile), &file))
	var all []rule
	for _, g := range file.Groups {
		all = append(all, g.Rules...)
	}
	if len(all) == 0 {
		t.Fatal("no rules")
	}
	return all
}

var (
	// selectors find a metric with its matchers. Those without matchers are found
	// by metricNames alone.
	selectors   = regexp.MustCompile(`\b((?:postern|process)_\w+|up\b)(\{[^}]*\})?`)
	alternative = regexp.MustCompile(`(\w+)=~"([\w.]+(?:\|[\w.]+)+)"`)
	legendLabel = regexp.MustCompile(`\{\{ *(\w+) *\}\}`)
	quoted      = regexp.MustCompile(`"[^"]*"`)
)

// selectorsOf are the selectors of an expression, each alternative of a matcher
// by itself: what one of them does not find is a name that is misspelt.
func selectorsOf(expr string) []string {
	var all []string
	for _, m := range selectors.FindAllStringSubmatchIndex(expr, -1) {
		if strings.Count(expr[:m[0]], `"`)%2 == 1 {
			continue // within a string
		}
		s := expr[m[0]:m[1]]
		a := alternative.FindStringSubmatch(s)
		if a == nil {
			all = append(all, s)
			continue
		}
		for value := range strings.SplitSeq(a[2], "|") {
			all = append(all, strings.Replace(s, a[0], a[1]+`="`+value+`"`, 1))
		}
	}
	return all
}

var (
	comparison = regexp.MustCompile(`\s(==|!=|>=|<=|>|<)\s+(bool\s)?`)
	otherTime  = regexp.MustCompile(`\s+offset\s+\w+`)
	absence    = regexp.MustCompile(`\babsent\(`)
	subquery   = regexp.MustCompile(`\[\w+:\w+\]`)
)

// opened is an expression that keeps what the given one filters away: its
// comparisons give 0 or 1, what it looks for in another week it looks for in
// this one, a subquery goes in seconds, since there have not been minutes yet,
// and what is to be absent is to be there. It is empty where the parts of the
// expression do not fit together.
func opened(expr string) string {
	expr = comparison.ReplaceAllString(expr, " $1 bool ")
	expr = subquery.ReplaceAllString(expr, "[1m:1s]")
	expr = otherTime.ReplaceAllString(expr, "")
	return absence.ReplaceAllString(expr, "group(")
}
