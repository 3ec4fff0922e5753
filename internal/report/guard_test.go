package report

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"postern/policy"
)

func TestATrippedGuardNamesItsClients(t *testing.T) {
	guard := Tripped{GuardState: policy.GuardState{Rule: "cutover", Then: "observe", Tripped: time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC)}}
	for i := range hitsShown + 2 {
		guard.Groups = append(guard.Groups, Group{Name: fmt.Sprintf("192.0.2.%d", i), Accounts: []string{"anna", "bert"}[:i%3]})
	}
	words := guard.Words()
	for _, want := range []string{
		`The guard of "cutover" tripped on Mon`, `so that it is observe until somebody lets it go (postern guard -release "cutover"). It had met 52 known clients: `,
		"clients: 192.0.2.0; 192.0.2.1 anna; 192.0.2.2 anna, bert; 192.0.2.3; ", "; and 2 more.",
	} {
		if !strings.Contains(words, want) {
			t.Errorf("%q is not in\n%s", want, words)
		}
	}
}
