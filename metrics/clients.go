package metrics

import (
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
type clientGauges struct {
	*grid
	listeners, versions []string
}

type clientsKey struct{ listener, version, window string }

func (f factory) clients(listeners []proxy.Listener) *clientGauges {
	c := &clientGauges{
		listeners: append([]string{Any}, names(listeners)...),
		versions:  append([]string{Any}, texts(offeredVersions)...),
	}
	c.grid = f.gaugeGrid("legacy_clients",
		"Distinct addresses (IPv6: /64) of legacy clients in the ledger that were seen within the window, noise left out; never to be added up.",
		label{"listener", c.listeners}, label{"version", c.versions}, label{"window", ClientWindows})
	return c
}

// SetLegacyClients says how many legacy clients there are; those that are not
// listed are none. It is not to be called concurrently.
func (m *Metrics) SetLegacyClients(list []LegacyClients) {
	now := make(map[clientsKey]int, len(list))
	for _, c := range list {
		now[clientsKey{c.Listener, c.Version, c.Window}] = c.Clients
	}
	for i, l := range m.clients.listeners {
		for j, v := range m.clients.versions {
			for k, w := range ClientWindows {
				m.clients.at(i, j, k).Store(int64(now[clientsKey{l, v, w}]))
			}
		}
	}
}
