package metrics

import (
	"maps"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"postern/internal/ledger"
)

// The numbers are those of the last count: who has left a window is not in it
// any more.
func TestLegacyClientsAreThoseOfTheLastCount(t *testing.T) {
	m := newMetrics()
	count := func(list ...ledger.Distinct) map[string]float64 {
		m.SetLegacyClients(list)
		all := snapshot(t, m)
		maps.DeleteFunc(all, func(series string, v float64) bool {
			return v == 0 || !strings.HasPrefix(series, "legacy_clients{")
		})
		return all
	}
	distinct := func(listener, version string, hour, day, week int) ledger.Distinct {
		return ledger.Distinct{Listener: listener, Version: version, ByWindow: [4]int{hour, day, week}}
	}
	series := func(listener, version, window string) string {
		return "legacy_clients{listener=" + listener + " version=" + version + " window=" + window + "}"
	}
	for _, c := range []struct {
		list []ledger.Distinct
		want map[string]float64
	}{
		{
			[]ledger.Distinct{distinct("imaps", "tls1.0", 0, 2, 3), distinct(ledger.Any, ledger.Any, 0, 0, 4)},
			map[string]float64{series("imaps", "tls1.0", "24h"): 2, series("imaps", "tls1.0", "7d"): 3, series("any", "any", "7d"): 4},
		},
		{
			[]ledger.Distinct{distinct("imaps", "tls1.0", 0, 0, 1), distinct("pop3s", "tls1.0", 0, 0, 9)}, // pop3s is off
			map[string]float64{series("imaps", "tls1.0", "7d"): 1},
		},
		{nil, map[string]float64{}},
	} {
		if diff := cmp.Diff(c.want, count(c.list...)); diff != "" {
			t.Errorf("after %v (-want +got):\n%s", c.list, diff)
		}
	}
}
