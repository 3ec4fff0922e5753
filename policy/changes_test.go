package policy

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// Changes are listed by the moment, also where nothing changes for longer
// than a snapshot looks ahead.
func TestNextChanges(t *testing.T) {
	p, err := Parse([]byte(`
mode: observe
rules:
  - {name: brownout, mode: enforce, schedule: "0 9 * * *", for: 10m, from: 2026-06-08T00:00:00Z, until: 2026-06-09T00:00:00Z}
  - {name: ramp, mode: explain, share: {from: 0%, to: 100%}, from: 2026-06-20T00:00:00Z, until: 2026-07-01T00:00:00Z}
  - {name: cut, mode: enforce, from: 2026-07-01T00:00:00Z}
`))
	if err != nil {
		t.Fatal(err)
	}
	at := func(s string) time.Time {
		t, err := time.Parse(time.RFC3339, s)
		if err != nil {
			panic(err)
		}
		return t
	}
	tell := func(changes []Change) string {
		var lines []string
		for _, c := range changes {
			lines = append(lines, fmt.Sprintf("%s +%v -%v %s", c.Time.Format("01-02 15:04"), c.Begun, c.Ended, c.Now.ModeFor("imaps")))
		}
		return strings.Join(lines, "\n")
	}
	all := []string{
		"06-08 09:00 +[brownout] -[] enforce",
		"06-08 09:10 +[] -[brownout] observe",
		"06-20 00:00 +[ramp] -[] observe",
		"07-01 00:00 +[cut] -[ramp] enforce",
	}
	if got := tell(p.Changes(at("2026-06-01T00:00:00Z"), at("2027-01-01T00:00:00Z"), 10)); got != strings.Join(all, "\n") {
		t.Errorf("got\n%s", got)
	}
	if got := tell(p.Changes(at("2026-06-01T00:00:00Z"), at("2027-01-01T00:00:00Z"), 2)); got != strings.Join(all[:2], "\n") {
		t.Errorf("two at most, got\n%s", got)
	}
	if got := tell(p.Changes(at("2026-06-08T09:00:00Z"), at("2026-07-01T00:00:00Z"), 10)); got != strings.Join(all[1:3], "\n") {
		t.Errorf("after and before are not in it, got\n%s", got)
	}
}
