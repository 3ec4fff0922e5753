package report

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"postern/policy"
)

func TestATrippedGuardNamesItsClients(t *testing.T) {
	guard := Tripped{GuardState: policy.GuardState{Rule: "cutover", Then: "observe", Tripped: time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC)}, By: make(map[string][]string)}
	for i := range 200 {
		guard.By[fmt.Sprintf("192.0.2.%03d", i)] = slices.Clone([]string{"anna", "bert"}[:i%3])
	}
	words := guard.Words()
	for _, want := range []string{
		`The guard of "cutover" tripped on Mon`, `: observe until it is released (postern guard -release "cutover"). It had met 200 known clients: `,
		"clients: 192.0.2.000, 192.0.2.001 anna, 192.0.2.002 anna bert, 192.0.2.003, ", " more.",
	} {
		if !strings.Contains(words, want) {
			t.Errorf("%q is not in\n%s", want, words)
		}
	}
	forgotten := Tripped{GuardState: guard.GuardState}
	if words := forgotten.Words(); !strings.HasSuffix(words, `(postern guard -release "cutover").`) {
		t.Errorf("nobody is known any more: %s", words)
	}
	r := &Report{Guards: []*Tripped{&guard}}
	r.Resolve(map[string]string{"anna": "zoe"})
	if got := guard.By["192.0.2.002"]; !slices.Equal(got, []string{"bert", "zoe"}) {
		t.Errorf("with the operator's names: %v", got)
	}
}
