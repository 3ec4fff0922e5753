{{/*
The tables of a ledger, and what brings those of version 1 up to date: a template for
each occasion, with a statement a line, or several lines, that ends in a semicolon at
the end of a line. PostgreSQL, in the data, has the words of that database chosen.

A sighting's id is a hash of what it is, and its owner, and that of an account, one of
address and fingerprint; the first bits of each are a hash of the network alone: what is
known of one network lies together in each order, so that a reader goes through all of
them side by side, some thousand rows at a time, and counts distinct networks without
remembering them.

No index holds a column that changes with every sighting: SQLite would write it twice,
and PostgreSQL could not update the row in place. A sighting's added is the first_seen of
its first write and never changes, so that paging by it meets each row once; last_day
changes once a day. noise is kept by the database, whatever changes a row. The days of
one day lie side by side, in the order in which they are written.
*/}}

{{define "tables" -}}
	{{template "sightings" .}}
	{{template "by_age"}}
	{{template "triggers" .}}
	{{template "days" .}}
	CREATE TABLE hellos (ja4 TEXT PRIMARY KEY, hello TEXT NOT NULL);
	{{- /* folded is the software in lower case: databases differ in how they lower it. */}}
	CREATE TABLE accounts (
		client TEXT NOT NULL,
		ja4 TEXT NOT NULL,
		account TEXT NOT NULL,
		software TEXT NOT NULL,
		folded TEXT NOT NULL,
		first_seen BIGINT NOT NULL,
		last_seen BIGINT NOT NULL,
		owner BIGINT NOT NULL,
		PRIMARY KEY (client, ja4, account, software));
	CREATE INDEX accounts_by_account ON accounts (account);
	CREATE INDEX accounts_by_time ON accounts (last_seen);
	{{- /* The last batch of each process that writes here. */}}
	CREATE TABLE batches (writer BIGINT PRIMARY KEY, number BIGINT NOT NULL, written BIGINT NOT NULL);
	{{template "counted"}}
	{{template "for reading" .}}
{{- end}}

{{define "sightings" -}}
	CREATE TABLE sightings (
		id {{template "key" .}},
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
		scanner INTEGER NOT NULL,
		owner BIGINT NOT NULL DEFAULT 0,
		last_day {{template "last_day" .}},
		noise {{template "noise" .}});
{{- end}}

{{define "by_age"}}CREATE INDEX sightings_by_age ON sightings (added, id);{{end}}

{{- /* An INTEGER PRIMARY KEY is the table's own key in SQLite. */}}
{{define "key"}}{{if .PostgreSQL}}BIGINT{{else}}INTEGER{{end}} PRIMARY KEY{{end}}
{{define "last_day"}}INTEGER {{if .PostgreSQL}}GENERATED ALWAYS AS (CAST(last_seen / 86400 AS INTEGER)) STORED{{else}}NOT NULL DEFAULT 0{{end}}{{end}}
{{define "noise"}}INTEGER {{if .PostgreSQL}}GENERATED ALWAYS AS (CASE WHEN {{noise ""}} THEN 1 ELSE 0 END) STORED{{else}}NOT NULL DEFAULT 0{{end}}{{end}}

{{- /* They keep noise in SQLite, where a generated column with an index would be written with every sighting. */}}
{{define "triggers"}}{{if not .PostgreSQL -}}
	CREATE TRIGGER noise_after_INSERT AFTER INSERT ON sightings WHEN new.noise <> {{noise "new."}}
		BEGIN UPDATE sightings SET noise = 1 - new.noise WHERE id = new.id; END;
	CREATE TRIGGER noise_after_UPDATE AFTER UPDATE ON sightings WHEN new.noise <> {{noise "new."}}
		BEGIN UPDATE sightings SET noise = 1 - new.noise WHERE id = new.id; END;
{{- end}}{{end}}

{{define "days" -}}
	CREATE TABLE days (
		day INTEGER NOT NULL,
		sighting BIGINT NOT NULL,
		observed BIGINT NOT NULL,
		explained BIGINT NOT NULL,
		rejected BIGINT NOT NULL,
		failed BIGINT NOT NULL,
		PRIMARY KEY (day, sighting)){{if not .PostgreSQL}} WITHOUT ROWID{{end}};
{{- end}}

{{- /* What one of several replicas has counted for all of them, of which ledger, and when it is due again. */}}
{{define "counted" -}}
	CREATE TABLE counted (owner BIGINT NOT NULL, due BIGINT NOT NULL, state TEXT NOT NULL, at BIGINT NOT NULL, figures TEXT NOT NULL);
	INSERT INTO counted VALUES (0, 0, '', 0, '[]');
{{- end}}

{{- /*
What version 1 has not. In remaining is how many sightings are no noise: SQLite would go through an index to count
them; replicas would wait for each other at this row.
*/}}
{{define "for reading" -}}
	CREATE INDEX sightings_by_owner ON sightings (owner);
	CREATE INDEX sightings_by_day ON sightings (noise, last_day);
	CREATE INDEX accounts_by_owner ON accounts (owner, account, software);
	CREATE INDEX accounts_by_software ON accounts (folded, owner);
	{{- if not .PostgreSQL}}
	CREATE TABLE remaining AS SELECT count(*) AS sightings FROM sightings WHERE noise = 0;
	CREATE TRIGGER remaining_after_INSERT AFTER INSERT ON sightings WHEN new.noise = 0
		BEGIN UPDATE remaining SET sightings = sightings + 1; END;
	CREATE TRIGGER remaining_after_DELETE AFTER DELETE ON sightings WHEN old.noise = 0
		BEGIN UPDATE remaining SET sightings = sightings - 1; END;
	CREATE TRIGGER remaining_after_UPDATE AFTER UPDATE OF noise ON sightings WHEN old.noise <> new.noise
		BEGIN UPDATE remaining SET sightings = sightings + 1 - 2 * new.noise; END;
	{{- end}}
{{- end}}

{{- /*
This begins to bring tables of version 1 up to date: it adds columns, which Upgrade fills in pieces, each in a
transaction with the place that it has come to. So the program may end in the middle, several replicas may take
part, and clients are recorded meanwhile. Indexes come last, in one go.
*/}}
{{define "from version 1" -}}
	{{if not .PostgreSQL -}}
	ALTER TABLE sightings ADD COLUMN last_day {{template "last_day" .}};
	ALTER TABLE sightings ADD COLUMN noise {{template "noise" .}};
	{{end -}}
	{{template "triggers" .}}
	ALTER TABLE sightings ADD COLUMN owner BIGINT NOT NULL DEFAULT 0;
	ALTER TABLE accounts ADD COLUMN owner BIGINT NOT NULL DEFAULT 0;
	{{template "counted"}}
	CREATE TABLE upgrade (step INTEGER NOT NULL, place TEXT NOT NULL, done BIGINT NOT NULL, rows BIGINT NOT NULL);
	INSERT INTO upgrade VALUES (0, '', 0, 0);
{{- end}}

{{- /* PostgreSQL rewrites the table for them, which is the first piece of filling it. */}}
{{define "generated" -}}
	ALTER TABLE sightings ADD COLUMN IF NOT EXISTS last_day {{template "last_day" .}}, ADD COLUMN IF NOT EXISTS noise {{template "noise" .}};
{{- end}}

{{define "moved"}}CREATE TABLE moved (old {{template "key" .}}, id BIGINT NOT NULL, network BIGINT NOT NULL);{{end}}

{{- /* This copies the tables with sightings in the order of their new ids. */}}
{{define "rewrite" -}}
	DROP INDEX sightings_by_age;
	DROP INDEX sightings_by_client;
	ALTER TABLE sightings RENAME TO old_sightings;
	ALTER TABLE days RENAME TO old_days;
	{{template "sightings" .}}
	{{template "days" .}}
	INSERT INTO sightings (id, client, network, listener, name, port, version, reason, ja4, added, first_seen, last_seen,
			observed, explained, rejected, failed, login_ok, login_failed, scanner)
		SELECT COALESCE(m.id, s.id), min(client), min(COALESCE(m.network, s.network)), min(listener), min(name), min(port), min(version), min(reason), min(ja4), min(added),
			min(first_seen), max(last_seen), sum(observed), sum(explained), sum(rejected), sum(failed), max(login_ok), max(login_failed), max(scanner)
		FROM old_sightings s LEFT JOIN moved m ON m.old = s.id GROUP BY 1 ORDER BY 1;
	INSERT INTO days SELECT day, COALESCE(m.id, sighting), sum(observed), sum(explained), sum(rejected), sum(failed)
		FROM old_days d LEFT JOIN moved m ON m.old = d.sighting GROUP BY 1, 2 ORDER BY 1, 2;
	DROP TABLE old_sightings;
	DROP TABLE old_days;
	DROP TABLE moved;
	{{template "by_age"}}
	CREATE INDEX sightings_by_client ON sightings (client, ja4);
	{{template "triggers" .}}
{{- end}}

{{define "finish" -}}
	{{template "for reading" .}}
	DROP INDEX sightings_by_client;
	DROP TABLE upgrade;
	{{- if .PostgreSQL}}{{/* whose planner knows nothing of new columns */}}
	ANALYZE sightings;
	ANALYZE accounts;
	{{- end}}
{{- end}}

{{- /*
What rules with a guard or a grace have refused or told why, of clients ([policy.ClientPrefix])
that had logged in before, and which guards have tripped. With its bucket begin the ids of a
client's sightings. Refusals up to released do not count. Who has tripped a guard is kept until
it is released, or the retention is over. And what handshakes have agreed on.
Versions that know none of these leave them alone.
*/}}
{{define "added" -}}
	CREATE TABLE IF NOT EXISTS refusals (
		rule TEXT NOT NULL,
		network BIGINT NOT NULL,
		bucket BIGINT NOT NULL,
		first_seen BIGINT NOT NULL,
		last_seen BIGINT NOT NULL,
		PRIMARY KEY (rule, network));
	CREATE INDEX IF NOT EXISTS refusals_by_time ON refusals (rule, last_seen);
	CREATE TABLE IF NOT EXISTS guards (rule TEXT PRIMARY KEY, tripped BIGINT NOT NULL, released BIGINT NOT NULL);
	CREATE TABLE IF NOT EXISTS tripped_by (
		rule TEXT NOT NULL,
		network BIGINT NOT NULL,
		bucket BIGINT NOT NULL,
		tripped BIGINT NOT NULL,
		PRIMARY KEY (rule, network));
	CREATE TABLE IF NOT EXISTS negotiated (
		day BIGINT NOT NULL,
		listener TEXT NOT NULL,
		version TEXT NOT NULL,
		cipher_suite TEXT NOT NULL,
		key_exchange TEXT NOT NULL,
		key_type TEXT NOT NULL,
		handshakes BIGINT NOT NULL,
		PRIMARY KEY (day, listener, version, cipher_suite, key_exchange, key_type));
{{- end}}
