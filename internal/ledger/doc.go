// Package ledger remembers legacy clients: who they are, what they offered,
// since when and how often, and, where that is configured, which accounts they
// log in to with which programs.
//
// A [Recorder] observes handshakes and logins on the connection's own goroutine:
// it adds to an entry in memory and returns, and never waits for a database.
// Every few seconds it writes what was added to the [Store], some thousand rows
// in a transaction. If a write fails, its rows are kept for the next one, up to
// a number of distinct clients. A client with too many names and fingerprints
// is aggregated without them.
//
// The Store is a database: SQLite, in memory or in a file, or PostgreSQL, which
// several replicas may share. Rows are added up, never overwritten, so the order
// of writers does not matter; and each batch has a number, so that one whose
// commit was not answered is not added twice.
//
// # A million clients
//
// Nothing keeps figures of groups as rows are written: what a policy, a window or a
// rule selects is not known then, noise changes with a login, and every figure is to
// be exact. Instead, reading all rows is made cheap, and is done seldom:
//
//   - The keys of sightings and accounts begin with a hash of the network, so that
//     [Store.Scan] hands out whole networks, some thousand clients at a time, from
//     ranges of keys that are read side by side. Whoever counts distinct clients adds
//     one for each call, and memory does not depend on the size of the ledger.
//     A million clients with accounts and two weeks of days take 1.5 s of one core.
//   - The database keeps in each row whether it is noise, and its last day, in an
//     index that a sighting changes once a day at most. It counts the clients of a
//     window; a page of them comes from the index of their first handshakes, and
//     those of an account or a program from that of their owners.
//   - [Store.Distinct] reads the rows once, and keeps how many minutes ago each
//     network was seen. While nothing is written, windows move on without another
//     look. In PostgreSQL one replica counts for all of them.
//   - Who reads all rows does so on threads of the lowest priority, beside those of
//     mail: [Background].
//   - Old rows are deleted in pieces, and tables of an earlier version are brought up
//     to date in pieces, while clients are recorded: [Store.Upgrade].
//
// # Clients
//
// Its queries return a [Client]: one address with one TLS fingerprint at one
// endpoint. Counts of clients leave out noise: scanners, which try
// many hellos within a minute and do not come back with them for days; fallback
// retries, which belong to a client that can do better; clients whose every
// handshake broke off; and those that have tried to log in and never could.
//
// The proxy does not pass on passwords and tokens.
package ledger
