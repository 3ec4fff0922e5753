// Package policy decides what is done with a TLS ClientHello.
//
// It is pure: facts go in, a verdict comes out. It has no connection, no
// context, no logger and no clock of its own, so a verdict can be computed for
// a live handshake, for a remembered one, or for a date that is still to come.
//
// The facts are a [Hello] (what was offered) and a [ConnInfo] (where, by whom, and
// with which keys we can answer). [Parse] compiles a policy file, once, or reports
// everything that is wrong with it. [Policy.At] gives what is in force at a time
// and how long that holds; [Snapshot.Decide] is the only call on the hot path,
// does not allocate, and costs the same for one network or a thousand.
//
// A [Rule] is in force between its dates and, where it has a [Schedule], while a
// window is open. Of those in force the first decides whose [Match] holds and
// whose [Share] has the client or the connection in it. The position of a client
// in a share depends on the rule's name and its address alone, so that it gets
// the same answer from every replica; the random value for a connection comes
// from the caller. Rules are asked about legacy handshakes only: a hello that
// reaches the floor meets none. A [Candidate] is a floor that is judged and never
// applied.
//
// What a [Match] can ask for stands in one table, [Keys]. Rules are evaluated in
// one place: [Snapshot.Outcomes], [Policy.Explain], [Policy.Timeline] and
// [Policy.Relaxations] say what [Snapshot.Decide] does.
//
// The package holds the lists of versions, cipher suites and groups itself and
// hands them to crypto/tls, never the other way round: Go's defaults move with
// its releases, a floor must not. That the verdict and crypto/tls agree for
// every floor, key and hello is held by a differential fuzz test.
package policy
