// Package ledger remembers legacy clients: who they are, what they offered,
// since when and how often, and, where that is wished, which accounts they log
// in to with which programs.
//
// A [Recorder] is told of handshakes and logins by the proxy, on the
// connection's own goroutine: it looks up an entry, adds to it, and returns.
// Nothing waits for a database there. Every few seconds what has been added is
// written to the [Store], some thousand rows in a transaction; what cannot be
// written stays, and is tried again, until there are too many distinct clients
// to keep. An address that shows ever new names and fingerprints is added up
// without them from some number on.
//
// The Store is a database: SQLite, in memory or in a file, or PostgreSQL, which
// several gates may share. Rows are added up, never overwritten, so it does not
// matter who writes and in which order; and each batch has a number, so that one
// whose commit was not answered is not added twice.
//
// What is read from it is a [Client]: one address with one way of doing TLS at
// one place. Some of them are noise, and are left out where clients are counted:
// scanners, which try many hellos within a minute and do not come again with
// them for days; fallback retries, which belong to a client that does better;
// those whose every handshake broke off; and those that have tried to log in and
// never could.
//
// Passwords and tokens do not come here: the proxy does not tell them.
package ledger
