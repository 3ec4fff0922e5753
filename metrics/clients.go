package metrics

import (
	"github.com/prometheus/client_golang/prometheus"

	"postern/policy"
	"postern/proxy"
)

// Any is the value of the labels listener and version that stands for all of
// them.
const Any = "any"

// ClientWindows are the values of the label window, as in 24h.
var ClientWindows = []string{"1h", "24h", "7d", "30d"}

// LegacyClients is a number of distinct legacy clients.
type LegacyClients struct {
	Listener, Version, Window string
	Clients                   int
}

// clientGauges are the distinct clients by listener, version and window.
type clientGauges map[clientsKey]prometheus.Gauge

type clientsKey struct{ listener, version, window string }

func (f factory) clients(listeners []proxy.Listener) clientGauges {
	v := f.gauge("legacy_clients",
		"Distinct addresses (IPv6: /64) of legacy clients in the ledger that were seen within the window, noise left out; never to be added up.",
		"listener", "version", "window")
	names, versions := []string{Any}, []string{Any}
	for _, l := range listeners {
		names = append(names, string(l))
	}
	for _, version := range policy.Versions {
		if version != policy.NoVersion {
			versions = append(versions, version.String())
		}
	}
	all := make(clientGauges)
	for _, l := range names {
		for _, version := range versions {
			for _, window := range ClientWindows {
				all[clientsKey{l, version, window}] = v.WithLabelValues(l, version, window)
			}
		}
	}
	return all
}

// SetLegacyClients says how many legacy clients there are; those that are not
// listed are none. It is not to be called concurrently.
func (m *Metrics) SetLegacyClients(list []LegacyClients) {
	now := make(map[clientsKey]int, len(list))
	for _, c := range list {
		now[clientsKey{c.Listener, c.Version, c.Window}] = c.Clients
	}
	for k, gauge := range m.clients {
		gauge.Set(float64(now[k]))
	}
}
