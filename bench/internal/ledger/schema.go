package ledger

import "strings"

// schema makes an empty ledger of version 1, the first that there was. Every
// Postern brings it up to its own version.
const schema = `
CREATE TABLE postern_ledger (version INTEGER NOT NULL);
INSERT INTO postern_ledger VALUES (1);
CREATE TABLE sightings (
	id @key,
	client TEXT NOT NULL,
	network BIGINT NOT NULL,
	listener TEXT NOT NULL,
	name TEXT NOT NULL,
	port INTEGER NOT NULL,
	version TEXT NOT NULL,
	reason TEXT NOT NULL,
	ja4 TEXT NOT NULL,
	added BIGINT NOT NULL,
	first_seen BIGINT NOT NULL,
	last_seen BIGINT NOT NULL,
	observed BIGINT NOT NULL,
	explained BIGINT NOT NULL,
	rejected BIGINT NOT NULL,
	failed BIGINT NOT NULL,
	login_ok BIGINT NOT NULL,
	login_failed BIGINT NOT NULL,
	scanner INTEGER NOT NULL);
CREATE INDEX sightings_by_age ON sightings (added, id);
CREATE INDEX sightings_by_client ON sightings (client, ja4);
CREATE TABLE days (
	day INTEGER NOT NULL,
	sighting BIGINT NOT NULL,
	observed BIGINT NOT NULL,
	explained BIGINT NOT NULL,
	rejected BIGINT NOT NULL,
	failed BIGINT NOT NULL,
	PRIMARY KEY (day, sighting))@without_rowid;
CREATE TABLE hellos (ja4 TEXT PRIMARY KEY, hello TEXT NOT NULL);
CREATE TABLE accounts (
	client TEXT NOT NULL,
	ja4 TEXT NOT NULL,
	account TEXT NOT NULL,
	software TEXT NOT NULL,
	folded TEXT NOT NULL,
	first_seen BIGINT NOT NULL,
	last_seen BIGINT NOT NULL,
	PRIMARY KEY (client, ja4, account, software));
CREATE INDEX accounts_by_account ON accounts (account);
CREATE INDEX accounts_by_time ON accounts (last_seen);
CREATE TABLE batches (writer BIGINT PRIMARY KEY, number BIGINT NOT NULL, written BIGINT NOT NULL);
`

var (
	sqliteSchema   = strings.NewReplacer("@key", "INTEGER PRIMARY KEY", "@without_rowid", " WITHOUT ROWID").Replace(schema)
	postgresSchema = strings.NewReplacer("@key", "BIGINT PRIMARY KEY", "@without_rowid", "").Replace(schema)
)
