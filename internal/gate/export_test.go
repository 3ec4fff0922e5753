package gate

import "net/netip"

// Graced reports whether a client would have a rule's grace now.
func (g *Runtime) Graced(rule string, client netip.Addr) bool {
	return g.ledger.recorder.Graced(g.policy.Load().Rule(rule), client, g.now())
}
