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
// Its queries return a [Client]: one address with one TLS fingerprint at one
// endpoint. Counts of clients leave out noise: scanners, which try
// many hellos within a minute and do not come back with them for days; fallback
// retries, which belong to a client that can do better; clients whose every
// handshake broke off; and those that have tried to log in and never could.
//
// The proxy does not pass on passwords and tokens.
package ledger
