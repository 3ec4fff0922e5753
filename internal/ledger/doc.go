// Package ledger remembers legacy clients: who they are, what they offered,
// since when and how often, and, where that is configured, which accounts they
// log in to with which programs.
//
// A [Recorder] observes handshakes and logins on the connection's own goroutine:
// it adds to an entry in memory and returns, and never waits for a database.
// Every few seconds it writes what was added to the [Store], some thousand rows
// in a transaction. What cannot be written is kept and tried again, up to a
// number of distinct clients. A client that shows ever new names and
// fingerprints is aggregated without them from some number on.
//
// The Store is a database: SQLite, in memory or in a file, or PostgreSQL, which
// several replicas may share. Rows are added up, never overwritten, so the order
// of writers does not matter; and each batch has a number, so that one whose
// commit was not answered is not added twice.
//
// What is read from it is a [Client]: one address with one way of doing TLS at
// one endpoint. Noise is left out where clients are counted: scanners, which try
// many hellos within a minute and do not come back with them for days; fallback
// retries, which belong to a client that can do better; clients whose every
// handshake broke off; and those that have tried to log in and never could.
//
// Passwords and tokens never get here: the proxy does not pass them on.
package ledger
