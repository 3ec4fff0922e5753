package dashboards

import (
	"regexp"
	"slices"
	"strings"
	"testing"
)

// sections are the questions that the dashboard answers, in their order.
var sections = []string{
	"Are we safe to cut?",
	"Who is left, by version and listener?",
	"What did the last step do?",
	"Is Postern healthy?",
}

func TestDashboardAnswersInOrder(t *testing.T) {
	var rows []string
	for _, p := range theDashboard(t).Panels {
		if p.Type == "row" {
			rows = append(rows, p.Title)
			if p.Collapsed {
				t.Errorf("%q is closed", p.Title)
			}
		}
	}
	if !slices.Equal(rows, sections) {
		t.Errorf("the sections are %q", rows)
	}
}

func TestDashboardCanBeImported(t *testing.T) {
	d := theDashboard(t)
	if d.ID != nil || d.UID == "" || d.Title == "" || d.SchemaVersion < 39 {
		t.Errorf("id %v, uid %q, title %q, schema %d", d.ID, d.UID, d.Title, d.SchemaVersion)
	}
	var names []string
	for _, v := range d.Templating.List {
		names = append(names, v.Name)
		if v.Type == "query" && v.Datasource != chosen {
			t.Errorf("the variable %s asks %v", v.Name, v.Datasource)
		}
		if v.Multi != (v.Name == "instance") {
			t.Errorf("the variable %s may have several values: %v", v.Name, v.Multi)
		}
	}
	if !slices.Equal(names, []string{"datasource", "job", "instance"}) || d.Templating.List[0].Type != "datasource" {
		t.Errorf("the variables are %q", names)
	}
}

// chosen is the data source that the reader chooses.
var chosen = datasource{"prometheus", "${datasource}"}

func TestEveryPanelSaysWhatItShows(t *testing.T) {
	ids := make(map[int]bool)
	titles := make(map[string]bool)
	for _, p := range theDashboard(t).Panels {
		if ids[p.ID] || p.ID == 0 {
			t.Errorf("%q: the id %d is taken", p.Title, p.ID)
		}
		if titles[p.Title] || p.Title == "" {
			t.Errorf("the title %q is taken", p.Title)
		}
		ids[p.ID], titles[p.Title] = true, true
		if p.Type == "row" {
			continue
		}
		if len(p.Description) < 20 || !strings.HasSuffix(p.Description, ".") {
			t.Errorf("%q: the description is %q", p.Title, p.Description)
		}
		th := p.FieldConfig.Defaults.Thresholds
		if p.FieldConfig.Defaults.Unit == "" || th.Mode != "absolute" || len(th.Steps) == 0 || th.Steps[0].Value != nil {
			t.Errorf("%q: unit %q, thresholds %+v", p.Title, p.FieldConfig.Defaults.Unit, th)
		}
		if p.Datasource != chosen || len(p.Targets) == 0 {
			t.Errorf("%q: asks %v, %d times", p.Title, p.Datasource, len(p.Targets))
		}
		refs := make(map[string]bool)
		for _, q := range p.Targets {
			if q.Expr == "" || q.LegendFormat == "" || q.RefID == "" || refs[q.RefID] || q.Datasource != chosen {
				t.Errorf("%q: %+v", p.Title, q)
			}
			refs[q.RefID] = true
		}
	}
}

func TestPanelsDoNotOverlap(t *testing.T) {
	const columns = 24
	panels := theDashboard(t).Panels
	for i, p := range panels {
		a := p.GridPos
		if a.X < 0 || a.Y < 0 || a.W <= 0 || a.H <= 0 || a.X+a.W > columns {
			t.Errorf("%q lies at %+v", p.Title, a)
		}
		for _, q := range panels[:i] {
			b := q.GridPos
			if a.X < b.X+b.W && b.X < a.X+a.W && a.Y < b.Y+b.H && b.Y < a.Y+a.H {
				t.Errorf("%q and %q overlap", q.Title, p.Title)
			}
			if a.Y < b.Y {
				t.Errorf("%q stands above %q, which comes first", p.Title, q.Title)
			}
		}
	}
}

// notAdded finds an addition of what must not be added up: of a shared ledger
// every replica says the same, and a client stands under several listeners.
var notAdded = regexp.MustCompile(`\b(sum|avg|count)\b[^()]*(\([^()]*\))?\s*\(\s*postern_legacy_clients`)

func TestDistinctClientsAreNeverAddedUp(t *testing.T) {
	used := 0
	check := func(what, expr string) {
		used += strings.Count(expr, "postern_legacy_clients")
		if strings.Contains(expr, "postern_legacy_clients") && (notAdded.MatchString(expr) || !strings.Contains(expr, "max")) {
			t.Errorf("%s adds clients up: %s", what, expr)
		}
	}
	for _, p := range theDashboard(t).Panels {
		for _, q := range p.Targets {
			check(p.Title, q.Expr)
		}
	}
	for _, r := range theRules(t) {
		check(r.name(), r.Expr)
	}
	if used == 0 {
		t.Error("nobody counts them")
	}
	if !notAdded.MatchString(`sum by (window) (postern_legacy_clients{version="any"})`) || !notAdded.MatchString(`sum(postern_legacy_clients)`) {
		t.Error("a sum is not seen")
	}
}

// Panels show the proxies that were chosen.
func TestEveryQueryGoesByTheVariables(t *testing.T) {
	for _, p := range theDashboard(t).Panels {
		for _, q := range p.Targets {
			for _, s := range selectors.FindAllString(quoted.ReplaceAllStringFunc(q.Expr, keepVariables), -1) {
				if !strings.Contains(s, `{job="$job",instance=~"$instance"`) {
					t.Errorf("%q: %s", p.Title, s)
				}
			}
		}
	}
}

// keepVariables empties a string that is not a variable, since it might look
// like a metric.
func keepVariables(s string) string {
	if strings.HasPrefix(s, `"$`) {
		return s
	}
	return `""`
}
