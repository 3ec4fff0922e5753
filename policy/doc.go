// Package policy decides what a TLS client hello meets at the gate.
//
// It is pure: facts go in, a verdict comes out. It has no connection, no
// context, no logger and no clock of its own, so a verdict can be computed for
// a live handshake, for a remembered one, or for a date that is still to come.
//
// The facts are a [Hello] (what was offered) and a [Place] (where, and with
// which keys we can answer). A [Policy] is compiled once; [Policy.Snapshot]
// gives what is in force; [Snapshot.Decide] is the only call on the hot path
// and does not allocate.
//
// The package holds the lists of versions, cipher suites and groups itself and
// hands them to crypto/tls, never the other way round: Go's defaults move with
// its releases, a floor must not. That the verdict and crypto/tls agree for
// every floor, key and hello is held by a differential fuzz test.
package policy
