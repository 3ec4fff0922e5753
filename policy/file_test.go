package policy

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the golden files anew")

// ruleFile is a policy file with one rule that has these lines too, from line 4 on.
func ruleFile(lines ...string) string {
	return "rules:\n- name: r\n  mode: observe\n  " + strings.Join(lines, "\n  ") + "\n"
}

// badFiles are policy files with something wrong, and every problem that is reported.
var badFiles = []struct {
	name, text string
	want       []string
}{
	// What is not a policy at all.
	{"an empty file", "", []string{`1:1: the file is empty: write floor: tls1.2 and mode: enforce into it`}},
	{"blanks and a comment", "  \n# floor: tls1.2\n\n", []string{`1:1: the file is empty: write floor: tls1.2 and mode: enforce into it`}},
	{"a document without anything", "---\n", []string{`1:1: the file is empty: write floor: tls1.2 and mode: enforce into it`}},
	{"an empty mapping", "{}\n", []string{`1:1: the file is empty: write floor: tls1.2 and mode: enforce into it`}},
	{"null", "~\n", []string{`1:1: the file is empty: write floor: tls1.2 and mode: enforce into it`}},
	{"a word", "observe\n", []string{`1:1: the policy is "observe", not a mapping of keys to values: write key: value, a line each`}},
	{"a file of variables", "POSTERN_POLICY_MODE=observe\n", []string{`1:1: the policy is "POSTERN_POLICY_MODE=observe", not a mapping of keys to values: a file of variables is for -env; a policy file begins as in floor: tls1.2`}},
	{"a list", "- floor: tls1.2\n", []string{`1:1: the policy is a list, not a mapping of keys to values: write key: value, a line each`}},
	{"two documents", "floor: tls1.2\n---\nmode: observe\n", []string{`2:1: a second document: take the --- away that begins it`}},
	{"a second document that is empty", "floor: tls1.2\n---\n", []string{`2:1: a second document: take the --- away that begins it`}},
	{"problems in both documents", "floor: x\n---\nmode: observe\n", []string{
		`1:8: floor: no such floor "x": use one of tls1.2-compat, tls1.2, tls1.2-aead, tls1.3, tls1.3-pq`, `2:1: a second document: take the --- away that begins it`}},

	// What is not YAML.
	// The yaml package tells where that begins which holds the fault.
	{"a tab for an indent", "rules:\n- name: r\n\tmode: observe\n", []string{`3:1: not YAML: found a tab character that violates indentation: a tab; indent with blanks alone`}},
	{"a tab for an indent, early", "rules:\n\t- name: r\n", []string{`2:1: not YAML: found character that cannot start any token: a tab; indent with blanks alone`}},
	{"a sign", "rules:\n- name: r\n  owner: @mail\n", []string{`3:10: not YAML: found character that cannot start any token: put a value that begins with @, % or ` + "`" + ` into quotation marks`}},
	{"a star", "rules:\n- name: r\n  match:\n    server_name: [*.example.org]\n", []string{
		`4:19: not YAML: did not find expected alphabetic or numeric character: put a value that begins with * or & into quotation marks`}},
	{"a short address", ruleFile("match: {client: [::1]}"), []string{
		`4:20: not YAML: did not find expected node content: put a value that begins with a colon, such as "::1", into quotation marks`}},
	{"an indent that does not fit", "rules:\n - name: a\n - name: b\n- name: c\n", []string{
		`3:1: not YAML: did not find expected key: mend the indent here or below; put a value that begins with a bracket or holds quotation marks into quotation marks`}},
	{"texts that are none", "explain_text: 'see {5}'\n", []string{`1:15: explain_text: use braces in {version} and {floor} alone`}},
	{"a text of several lines", "explain_text: \"a\\nb\"\n", []string{`1:15: explain_text: it holds a line end: put it in quotes on one line`}},
	{"a text too long", "explain_text: " + strings.Repeat("x", 401) + "\n", []string{`1:15: explain_text: longer than 400 bytes when {version} and {floor} are filled in: shorten it`}},
	{"an empty text", "explain_text: ' '\n", []string{`1:15: explain_text: holds nothing to read: write a text, or take it away`}},
	{"a quote that does not end", "floor: tls1.2\nmode: \"observe\n", []string{`2:1: not YAML: found unexpected end of stream: a bracket or a quotation mark is not closed, or a comma is missing`}},
	{"a bracket that does not end", "rules: [\n", []string{`1:1: not YAML: did not find expected node content: a bracket or a quotation mark is not closed, or a comma is missing`}},
	{"a colon too much", "mode: observe: always\n", []string{`1:1: not YAML: mapping values are not allowed in this context: put a value that holds a colon and a blank into quotation marks, or mend the indent`}},
	{"an alias of nothing", "floor: *none\n", []string{`1:8: not YAML: unknown anchor 'none' referenced: put a value that begins with * or & into quotation marks`}},
	{"Latin-1", "mode: observe\n# M\xfcller\n", []string{`2:4: not YAML: invalid leading UTF-8 octet: save the file as UTF-8`}},
	{"a control character", "mode: observe\nfloor: tls1.2\x07\n", []string{`2:14: not YAML: control characters are not allowed`}},
	{"a directive of the future", "%YAML 3.0\n---\nmode: observe\n", []string{`1:1: not YAML: found incompatible YAML document`}},

	// Keys.
	{"unknown keys everywhere", "flor: tls1.2\nrules:\n- {name: r, mode: observe, acount: x, match: {sni: [x]}, share: {from: 1%, to: 2%, for: client}, from: 2026-01-01T00:00:00Z, until: 2026-02-01T00:00:00Z}\ncandidates:\n- {name: c, floor: tls1.3, mode: observe}\n", []string{
		`1:1: unknown key "flor" in the policy: use candidates, explain_text, floor, guard, mode, rules`,
		`3:28: rule "r": unknown key "acount" in a rule: use floor, for, from, grace, guard, match, mode, name, owner, pass_through, schedule, share, timezone, until`,
		`3:47: rule "r": unknown key "sni" in match: use client, ja4, listener, port, server_name, version`,
		`3:84: rule "r": unknown key "for" in share: use by, from, to`,
		`5:28: candidate "c": unknown key "mode" in a candidate: use floor, name, remember`}},
	{"keys in capitals", "Floor: tls1.2\n", []string{`1:1: unknown key "Floor" in the policy: use candidates, explain_text, floor, guard, mode, rules`}},
	{"a key twice", "floor: tls1.2\nfloor: tls1.3\n", []string{`2:1: floor stands twice in the policy: take one of them away`}},
	{"a key twice in a rule", ruleFile("mode: enforce", "match: {port: [1], port: [2]}"), []string{
		`4:3: rule "r": mode stands twice in a rule: take one of them away`, `5:22: rule "r": port stands twice in match: take one of them away`}},
	{"keys that are no words", "1: x\ntrue: x\n~: x\n? [a, b]\n: x\n? {a: b}\n: x\n", []string{
		`1:1: unknown key "1" in the policy: use candidates, explain_text, floor, guard, mode, rules`,
		`2:1: unknown key "true" in the policy: use candidates, explain_text, floor, guard, mode, rules`,
		`3:1: unknown key "~" in the policy: use candidates, explain_text, floor, guard, mode, rules`,
		`4:3: a key of the policy is a list, not a word`,
		`6:3: a key of the policy is a mapping, not a word`}},
	{"a merge key", "rules:\n- &r {name: r, mode: observe}\n- {<<: *r, name: s}\n", []string{
		`3:3: rule "s": a rule has no mode: add mode: and its value`,
		`3:4: rule "s": unknown key "<<" in a rule: use floor, for, from, grace, guard, match, mode, name, owner, pass_through, schedule, share, timezone, until`}},
	{"keys without a value", ruleFile("match:", "until: ~", "share: null", "schedule:", "for: 1m"), []string{
		`4:3: rule "r": match has no value: write one, or take the key away`,
		`5:3: rule "r": until has no value: write one, or take the key away`,
		`6:3: rule "r": share has no value: write one, or take the key away`,
		`7:3: rule "r": schedule has no value: write one, or take the key away`}},
	{"a match without values", ruleFile("match: {client: , port: [~]}"), []string{
		`4:11: rule "r": client has no value: write one, or take the key away`, `4:28: rule "r": port is nothing, not a single value: write one behind the colon`}},
	{"a mode without a value", "mode:\nrules:\n", []string{`1:1: mode has no value: write one, or take the key away`}},

	// Types.
	{"wrong types at the top", "floor: [tls1.2]\nmode: {observe: true}\nrules: {name: r}\ncandidates: tls1.3\n", []string{
		`1:8: floor is a list, not a single value: write one behind the colon`,
		`2:7: mode is a mapping, not a single value: write one behind the colon`,
		`3:8: rules is a mapping, not a list: begin each entry with a dash, as in - name: a`,
		`4:13: candidates is "tls1.3", not a list: begin each entry with a dash, as in - name: a`}},
	{"wrong types in a rule", "rules:\n- name: [r]\n  mode: [observe]\n  match: [client]\n  from: {}\n  share: [5%]\n- r\n- [name, r]\n- ~\n", []string{
		`2:9: name is a list, not a single value: write one behind the colon`,
		`3:9: mode is a list, not a single value: write one behind the colon`,
		`4:10: match is a list, not a mapping of keys to values: write key: value, a line each`,
		`5:9: from is a mapping, not a single value: write one behind the colon`,
		`6:10: share is a list, not a mapping of keys to values: write key: value, a line each`,
		`7:3: a rule is "r", not a mapping of keys to values: write key: value, a line each`,
		`8:3: a rule is a list, not a mapping of keys to values: write key: value, a line each`,
		`9:3: a rule is nothing, not a mapping of keys to values: write key: value, a line each`}},
	{"single values for lists", ruleFile("match: {client: 10.0.0.0/8, port: 993, server_name: {a: b}, ja4: t}"), []string{
		`4:19: rule "r": client is "10.0.0.0/8", not a list such as [10.20.0.0/16, "2001:db8::/32"]`,
		`4:37: rule "r": port is "993", not a list such as [10993]`,
		`4:55: rule "r": server_name is a mapping, not a list such as [imap-legacy.example.org]`,
		`4:68: rule "r": ja4 is "t", not a list such as [t10d230600_44099cda8a52_195413a0cc0f]`}},
	{"lists in lists", ruleFile("match: {port: [[993], {a: 1}]}"), []string{
		`4:18: rule "r": port is a list, not a single value: write one behind the colon`, `4:25: rule "r": port is a mapping, not a single value: write one behind the colon`}},

	// Names.
	{"rules without a name or a mode", "rules:\n- {}\n- {name: r}\n- {mode: observe}\n", []string{
		`2:3: a rule has no name: add name: and its value`, `2:3: a rule has no mode: add mode: and its value`, `3:3: rule "r": a rule has no mode: add mode: and its value`, `4:3: a rule has no name: add name: and its value`}},
	{"candidates without one", "candidates:\n- {name: c}\n- {floor: tls1.3}\n", []string{
		`2:3: candidate "c": a candidate has no floor: add floor: and its value`, `3:3: a candidate has no name: add name: and its value`}},
	{"a candidate that remembers a little", "candidates:\n- {name: c, floor: tls1.3, remember: sometimes}\n- {name: d, floor: tls1.3, remember: }\n", []string{
		`2:38: candidate "c": remember: no such value "sometimes": use true, false`,
		`3:28: candidate "d": remember has no value: write one, or take the key away`}},
	{"a name twice", "rules:\n- {name: x, mode: observe}\n- {name: X, mode: observe}\n- {name: x, mode: enforce}\ncandidates:\n- {name: x, floor: tls1.3}\n", []string{
		`4:3: rule "x": the name is taken by line 2: choose another`, `6:3: candidate "x": the name is taken by line 2: choose another`}},
	{"names that are none", "rules:\n- {name: '', mode: observe}\n- {name: a/b, mode: observe}\n- {name: \"ü\", mode: observe}\n- {name: " + strings.Repeat("n", 65) + ", mode: observe}\n- {name: \"a\\nb\", mode: observe}\n", []string{
		`2:10: name: "" is not a name: use 1 to 64 letters, digits, blanks and . _ -`,
		`3:10: name: "a/b" is not a name: use 1 to 64 letters, digits, blanks and . _ -`,
		`4:10: name: "ü" is not a name: use 1 to 64 letters, digits, blanks and . _ -`,
		`5:10: name: "nnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnn" is not a name: use 1 to 64 letters, digits, blanks and . _ -`,
		`6:10: name: "a\nb" is not a name: use 1 to 64 letters, digits, blanks and . _ -`}},

	// Values.
	{"what goes to the old server", "rules:\n- {name: r, mode: explain, pass_through: always}\n- {name: s, mode: observe, pass_through: never}\n- {name: t, pass_through: always}\n- {name: u, mode: observe, pass_through: [always]}\n", []string{
		`2:28: rule "r": pass_through needs mode: observe, since only a client that is let in can go to the old server`,
		`3:42: rule "s": pass_through: "never" is not always, the only value; without the key a client is passed through where Postern cannot serve it`,
		`4:3: rule "t": a rule has no mode: add mode: and its value`,
		`5:42: rule "u": pass_through is a list, not a single value: write one behind the colon`}},
	{"floors and modes", "floor: tls1.0\nmode: off\n", []string{
		`1:8: floor: no such floor "tls1.0": use one of tls1.2-compat, tls1.2, tls1.2-aead, tls1.3, tls1.3-pq`,
		`2:7: mode: no such mode "off": use one of enforce, explain, observe`}},
	{"a floor that is none", "floor: lenient\n", []string{`1:8: floor: no such floor "lenient": use one of tls1.2-compat, tls1.2, tls1.2-aead, tls1.3, tls1.3-pq`}},
	{"until before from", ruleFile("from: 2026-07-01T00:00:00Z", "until: 2026-06-01T00:00:00Z"), []string{`5:3: rule "r": until is not after from: set a later until`}},
	{"until is from, elsewhere", ruleFile("from: 2026-07-01T02:00:00+02:00", "until: 2026-07-01T00:00:00Z"), []string{`5:3: rule "r": until is not after from: set a later until`}},
	{"dates that are none", "rules:\n" + datesRules("2026-07-01", "2026-07-01T00:00:00", "2026-07-01 00:00:00", "2026-02-30T00:00:00Z", "2026-07-01T24:00:00Z",
		"2026-07-01T0:00:00Z", "'2026-07-01T00:00:00,5Z'", "2026-07-01T00:00:00+24:00", "1969-12-31T23:59:59Z", "0000-01-01T00:00:00Z", "tomorrow", "1782864000", "9999-12-31T23:59:59-01:00"), []string{
		`2:35: rule "r0": from: "2026-07-01" has no offset: write 2026-07-01T00:00:00Z for UTC, or the offset of your time zone on that day, such as +01:00, in the place of Z`,
		`3:35: rule "r1": from: "2026-07-01T00:00:00" has no offset: write 2026-07-01T00:00:00Z for UTC, or the offset of your time zone on that day, such as +01:00, in the place of Z`,
		`4:35: rule "r2": from: "2026-07-01 00:00:00" has no offset: write 2026-07-01T00:00:00Z for UTC, or the offset of your time zone on that day, such as +01:00, in the place of Z`,
		`5:35: rule "r3": from: "2026-02-30T00:00:00Z" is no date and time: day out of range`,
		`6:35: rule "r4": from: "2026-07-01T24:00:00Z" is no date and time: hour out of range`,
		`7:35: rule "r5": from: "2026-07-01T0:00:00Z" is not a date and time: write one such as 2026-07-01T00:00:00Z or 2026-07-01T02:00:00+02:00`,
		`8:35: rule "r6": from: "2026-07-01T00:00:00,5Z" is not a date and time: write one such as 2026-07-01T00:00:00Z or 2026-07-01T02:00:00+02:00`,
		`9:35: rule "r7": from: "2026-07-01T00:00:00+24:00" is not a date and time: write one such as 2026-07-01T00:00:00Z or 2026-07-01T02:00:00+02:00`,
		`10:35: rule "r8": from: "1969-12-31T23:59:59Z" is not between 1970 and 9999`,
		`11:35: rule "r9": from: "0000-01-01T00:00:00Z" is not between 1970 and 9999`,
		`12:36: rule "r10": from: "tomorrow" is not a date and time: write one such as 2026-07-01T00:00:00Z or 2026-07-01T02:00:00+02:00`,
		`13:36: rule "r11": from: "1782864000" is not a date and time: write one such as 2026-07-01T00:00:00Z or 2026-07-01T02:00:00+02:00`,
		`14:36: rule "r12": from: "9999-12-31T23:59:59-01:00" is not between 1970 and 9999`}},
	{"shares that are none", "rules:\n- {name: a, mode: observe, share: 101%}\n- {name: b, mode: observe, share: -1%}\n- {name: c, mode: observe, share: 50}\n- {name: d, mode: observe, share: 5 %}\n- {name: e, mode: observe, share: 1e2%}\n- {name: f, mode: observe, share: NaN%}\n- {name: g, mode: observe, share: 100.000000001%}\n- {name: h, mode: observe, share: .5%}\n- {name: i, mode: observe, share: ''}\n", []string{
		`2:35: rule "a": share: 101% is outside 0% to 100%`,
		`3:35: rule "b": share: -1% is outside 0% to 100%`,
		`4:35: rule "c": share: "50" is not a percentage: write one such as 5%`,
		`5:35: rule "d": share: "5 %" is not a percentage: write one such as 5%`,
		`6:35: rule "e": share: "1e2%" is not a percentage: write one such as 5%`,
		`7:35: rule "f": share: "NaN%" is not a percentage: write one such as 5%`,
		`8:35: rule "g": share: 100.000000001% is outside 0% to 100%`,
		`9:35: rule "h": share: ".5%" is not a percentage: write one such as 5%`,
		`10:35: rule "i": share: "" is not a percentage: write one such as 5%`}},
	{"a share without its dates", ruleFile("share: {from: 0%, to: 100%}", "from: 2026-07-01T00:00:00Z"), []string{
		`4:3: rule "r": a share from and to needs the dates between which it changes: add from and until to the rule`}},
	{"half a share", ruleFile("share: {from: 0%, by: account}"), []string{
		`4:3: rule "r": a share from and to needs the dates between which it changes: add from and until to the rule`,
		`4:10: rule "r": share has no to: add to: and its value`,
		`4:25: rule "r": by: "account" is not one of client, connection`}},
	{"a share from nowhere", ruleFile("share: {}", "from: 2026-07-01T00:00:00Z", "until: 2026-07-02T00:00:00Z"), []string{
		`4:10: rule "r": share has no from: add from: and its value`, `4:10: rule "r": share has no to: add to: and its value`}},
	{"a schedule without for", ruleFile("schedule: '0 * * * *'"), []string{`4:3: rule "r": schedule without for: add how long it lasts, as for: 10m`}},
	{"for without a schedule", ruleFile("for: 10m"), []string{`4:3: rule "r": for without schedule: add schedule, or use from and until for dates`}},
	{"schedules that are none", "rules:\n- {name: a, mode: observe, for: 1m, schedule: ''}\n- {name: b, mode: observe, for: 1m, schedule: '@hourly'}\n- {name: c, mode: observe, for: 1m, schedule: '0 0 * * * *'}\n- {name: d, mode: observe, for: 1m, schedule: '1,99 * * * *'}\n- {name: e, mode: observe, for: 1m, schedule: '0 0 L * *'}\n- {name: f, mode: observe, for: 1m, schedule: 5}\n- {name: g, mode: observe, for: 1m, schedule: ['0', '*', '*', '*', '*']}\n", []string{
		`2:47: rule "a": schedule: not five fields: write minute, hour, day of the month, month, day of the week, as in 0 8 * * 1-5`,
		`3:47: rule "b": schedule: not five fields: write minute, hour, day of the month, month, day of the week, as in 0 8 * * 1-5`,
		`4:47: rule "c": schedule: not five fields: write minute, hour, day of the month, month, day of the week, as in 0 8 * * 1-5`,
		`5:47: rule "d": schedule: minute: "99" is out of its range: use 0 to 59`,
		`6:47: rule "e": schedule: day of the month: not an entry of a cron field: "L": write *, 5, 1-5, */10 or several with commas`,
		`7:47: rule "f": schedule: not five fields: write minute, hour, day of the month, month, day of the week, as in 0 8 * * 1-5`,
		`8:47: rule "g": schedule is a list, not a single value: write one behind the colon`}},
	{"a schedule past the end of the week", ruleFile("schedule: '0 0 * * fri-mon'", "for: 1h"), []string{
		`4:13: rule "r": schedule: day of the week: "fri-mon" is out of its range, or ends before it begins: past the end write two, as in fri-sat,sun-mon or 22-23,0-6`}},
	{"how long is none", "rules:\n- {name: a, mode: observe, schedule: '0 * * * *', for: 10}\n- {name: b, mode: observe, schedule: '0 * * * *', for: 0s}\n- {name: c, mode: observe, schedule: '0 * * * *', for: -1m}\n- {name: d, mode: observe, schedule: '0 * * * *', for: 367d}\n- {name: e, mode: observe, schedule: '0 * * * *', for: 99999999999999999999d}\n", []string{
		`2:56: rule "a": for: "10" is not a duration, since its unit is missing: write one such as 10s, 30m, 36h or 90d`,
		`3:56: rule "b": for: "0s" is not a duration above zero: write one such as 10s, 30m, 36h or 90d`,
		`4:56: rule "c": for: "-1m" is not a duration above zero: write one such as 10s, 30m, 36h or 90d`,
		`5:56: rule "d": for: longer than a year: use from and until`,
		`6:56: rule "e": for: "99999999999999999999d" is not a duration above zero: write one such as 10s, 30m, 36h or 90d`}},
	{"zones that are none", "rules:\n- {name: a, mode: observe, timezone: Europe/Bonn}\n- {name: b, mode: observe, timezone: Local}\n- {name: c, mode: observe, timezone: ''}\n- {name: d, mode: observe, timezone: ../../etc/passwd}\n- {name: e, mode: observe, timezone: +02:00}\n- {name: f, mode: observe, timezone: CEST}\n", []string{
		`2:38: rule "a": timezone: no such time zone "Europe/Bonn": use a name such as Europe/Berlin or UTC`,
		`3:38: rule "b": timezone: no such time zone "Local": use a name such as Europe/Berlin or UTC`,
		`4:38: rule "c": timezone: no such time zone "": use a name such as Europe/Berlin or UTC`,
		`5:38: rule "d": timezone: no such time zone "../../etc/passwd": use a name such as Europe/Berlin or UTC`,
		`6:38: rule "e": timezone: no such time zone "+02:00": use a name such as Europe/Berlin or UTC`,
		`7:38: rule "f": timezone: no such time zone "CEST": use a name such as Europe/Berlin or UTC`}},
	{"owners that are none", "rules:\n- {name: a, mode: observe, owner: ''}\n- {name: b, mode: observe, owner: \"a\\nb\"}\n- {name: c, mode: observe, owner: \"a\\u2028b\"}\n- {name: d, mode: observe, owner: \"a\\u202eb\"}\n- {name: e, mode: observe, owner: \"a\\eb\"}\n- {name: f, mode: observe, owner: [a, b]}\n", []string{
		`2:35: rule "a": owner: "" is not a name or an address on one line: write one such as anna@example.org`,
		`3:35: rule "b": owner: "a\nb" is not a name or an address on one line: write one such as anna@example.org`,
		`4:35: rule "c": owner: "a\u2028b" is not a name or an address on one line: write one such as anna@example.org`,
		`5:35: rule "d": owner: "a\u202eb" is not a name or an address on one line: write one such as anna@example.org`,
		`6:35: rule "e": owner: "a\x1bb" is not a name or an address on one line: write one such as anna@example.org`,
		`7:35: rule "f": owner is a list, not a single value: write one behind the colon`}},
	{"clients that are none", ruleFile("match: {client: [10.0.0.0/33, 10.0.0, '::1%eth0', 'fe80::%eth0/64', example.org, 10.0.0.0/255.0.0.0, '']}"), []string{
		`4:20: rule "r": client: "10.0.0.0/33" is not an address or a CIDR: write one such as 192.0.2.7, 10.0.0.0/8 or 2001:db8::/32`,
		`4:33: rule "r": client: "10.0.0" is not an address or a CIDR: write one such as 192.0.2.7, 10.0.0.0/8 or 2001:db8::/32`,
		`4:41: rule "r": client: "::1%eth0" is not an address or a CIDR: write one such as 192.0.2.7, 10.0.0.0/8 or 2001:db8::/32`,
		`4:53: rule "r": client: "fe80::%eth0/64" is not an address or a CIDR: write one such as 192.0.2.7, 10.0.0.0/8 or 2001:db8::/32`,
		`4:71: rule "r": client: "example.org" is not an address or a CIDR: write one such as 192.0.2.7, 10.0.0.0/8 or 2001:db8::/32`,
		`4:84: rule "r": client: "10.0.0.0/255.0.0.0" is not an address or a CIDR: write one such as 192.0.2.7, 10.0.0.0/8 or 2001:db8::/32`,
		`4:104: rule "r": client: "" is not an address or a CIDR: write one such as 192.0.2.7, 10.0.0.0/8 or 2001:db8::/32`}},
	{"listeners and ports that are none", ruleFile("match:", "  listener: [IMAPS, smtp]", "  port: [0, 65536, -1, 0x3e1, 993.0]"), []string{
		`5:16: rule "r": listener: no such listener "IMAPS": use imaps, pop3s, imap, pop3`,
		`5:23: rule "r": listener: no such listener "smtp": use imaps, pop3s, imap, pop3`,
		`6:12: rule "r": port: "0" is not a port: write a number from 1 to 65535`,
		`6:15: rule "r": port: "65536" is not a port: write a number from 1 to 65535`,
		`6:22: rule "r": port: "-1" is not a port: write a number from 1 to 65535`,
		`6:26: rule "r": port: "0x3e1" is not a port: write a number from 1 to 65535`,
		`6:33: rule "r": port: "993.0" is not a port: write a number from 1 to 65535`}},
	{"server names that are none", ruleFile("match: {server_name: ['', '*', '*.', '*.*.example.org', 'a.*.example.org', 'a*.example.org', 'a..b', '.a', 'a b', 'bücher.example', 10.0.0.1, '::1', 'a:993']}"), []string{
		`4:25: rule "r": server_name: "" is not a host name: write one such as imap.example.org or *.example.org`,
		`4:29: rule "r": server_name: "*" is not a host name: write one such as imap.example.org or *.example.org`,
		`4:34: rule "r": server_name: "*." is not a host name: write one such as imap.example.org or *.example.org`,
		`4:40: rule "r": server_name: "*.*.example.org" is not a host name: write one such as imap.example.org or *.example.org`,
		`4:59: rule "r": server_name: "a.*.example.org" is not a host name: write one such as imap.example.org or *.example.org`,
		`4:78: rule "r": server_name: "a*.example.org" is not a host name: write one such as imap.example.org or *.example.org`,
		`4:96: rule "r": server_name: "a..b" is not a host name: write one such as imap.example.org or *.example.org`,
		`4:104: rule "r": server_name: ".a" is not a host name: write one such as imap.example.org or *.example.org`,
		`4:110: rule "r": server_name: "a b" is not a host name: write one such as imap.example.org or *.example.org`,
		`4:117: rule "r": server_name: "bücher.example" is not a host name: write one such as imap.example.org or *.example.org`,
		`4:135: rule "r": server_name: "10.0.0.1" is no name that a client sends (RFC 6066, Section 3): write a host name, or match by port`,
		`4:145: rule "r": server_name: "::1" is not a host name: write one such as imap.example.org or *.example.org`,
		`4:152: rule "r": server_name: "a:993" is not a host name: write one such as imap.example.org or *.example.org`}},
	{"versions and fingerprints that are none", ruleFile("match:", "  version: [none, TLS1.0, '1.0', tls1]", "  ja4: ['', T10d230600_44099cda8a52_195413a0cc0f, t10d230600_44099cda8a52, t10d230600_44099CDA8A52_195413a0cc0f, q13d230600_44099cda8a52_195413a0cc0f]"), []string{
		`5:15: rule "r": version: no such version "none": use ssl2, ssl3, tls1.0, tls1.1, tls1.2, tls1.3`,
		`5:21: rule "r": version: no such version "TLS1.0": use ssl2, ssl3, tls1.0, tls1.1, tls1.2, tls1.3`,
		`5:29: rule "r": version: no such version "1.0": use ssl2, ssl3, tls1.0, tls1.1, tls1.2, tls1.3`,
		`5:36: rule "r": version: no such version "tls1": use ssl2, ssl3, tls1.0, tls1.1, tls1.2, tls1.3`,
		`6:11: rule "r": ja4: "" is not a JA4 fingerprint such as t10d230600_44099cda8a52_195413a0cc0f`,
		`6:15: rule "r": ja4: "T10d230600_44099cda8a52_195413a0cc0f" is not a JA4 fingerprint such as t10d230600_44099cda8a52_195413a0cc0f`,
		`6:53: rule "r": ja4: "t10d230600_44099cda8a52" is not a JA4 fingerprint such as t10d230600_44099cda8a52_195413a0cc0f`,
		`6:78: rule "r": ja4: "t10d230600_44099CDA8A52_195413a0cc0f" is not a JA4 fingerprint such as t10d230600_44099cda8a52_195413a0cc0f`,
		`6:116: rule "r": ja4: "q13d230600_44099cda8a52_195413a0cc0f" is not a JA4 fingerprint such as t10d230600_44099cda8a52_195413a0cc0f`}},
	{"a list that is itself in it", "rules: &a [*a]\n", []string{`1:8: a rule is a list, not a mapping of keys to values: write key: value, a line each`}},
	{"a long value is not quoted in full", "mode: " + strings.Repeat("x", 5000) + "\n", []string{
		`1:7: mode: no such mode "` + strings.Repeat("x", 80) + `...": use one of enforce, explain, observe`}},
}

// datesRules are rules r0, r1 … that begin at these dates.
func datesRules(dates ...string) string {
	var b strings.Builder
	for i, d := range dates {
		fmt.Fprintf(&b, "- {name: r%d, mode: observe, from: %s}\n", i, d)
	}
	return b.String()
}

func TestABadFileIsReportedWithLineRuleAndReason(t *testing.T) {
	for _, tt := range badFiles {
		p, err := Parse([]byte(tt.text))
		if p != nil || err == nil {
			t.Errorf("%s: accepted", tt.name)
			continue
		}
		var problems Problems
		if !errors.As(err, &problems) {
			t.Errorf("%s: the error is a %T", tt.name, err)
		}
		if got, want := err.Error(), strings.Join(tt.want, "\n"); got != want {
			t.Errorf("%s:\n%s\ngot\n%s\nwant\n%s", tt.name, tt.text, got, want)
		}
	}
}

func TestAllProblemsAreReportedAtOnce(t *testing.T) {
	files, err := filepath.Glob("testdata/bad/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("no files: %v", err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		_, err = Parse(text)
		if err == nil {
			t.Errorf("%s: accepted", file)
			continue
		}
		got := []byte(err.Error() + "\n")
		golden := strings.TrimSuffix(file, ".yaml") + ".golden"
		if *update {
			if err := os.WriteFile(golden, got, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(golden)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want) {
			t.Errorf("%s:\n%s\nwant\n%s", file, got, want)
		}
	}
}

// goodFiles are policy files that look unusual.
var goodFiles = map[string]string{
	"a floor alone":             "floor: tls1.3\n",
	"a byte order mark":         "\ufefffloor: tls1.3\n",
	"UTF-16":                    "\xff\xfef\x00l\x00o\x00o\x00r\x00:\x00 \x00t\x00l\x00s\x001\x00.\x003\x00\n\x00",
	"ends of line as in DOS":    "floor: tls1.3\r\nmode: observe\r\n",
	"a document with an end":    "---\nfloor: tls1.3\n...\n",
	"JSON":                      `{"floor": "tls1.3", "rules": [{"name": "r", "mode": "observe", "match": {"port": [993, "995"]}}]}`,
	"rules commented out":       "floor: tls1.3\nrules:\n# - {name: r}\ncandidates: ~\n",
	"an alias for a match":      "rules:\n- {name: a, mode: observe, match: &old {client: [10.0.0.0/8]}}\n- {name: b, mode: explain, match: *old}\n",
	"an alias for a value":      "rules:\n- {name: a, mode: &m observe, until: &d 2026-01-01T00:00:00Z}\n- {name: b, mode: *m, from: *d}\n",
	"a number for a name":       "rules:\n- {name: 2026, mode: observe}\n",
	"dates elsewhere":           "rules:\n- {name: a, mode: observe, from: 2026-01-01T00:00:00+02:00, until: 2026-01-01T00:00:00.5+02:00}\n",
	"a blank for the T":         "rules:\n- {name: a, mode: observe, from: 2026-01-01 00:00:00+02:00, until: 2026-01-01 10:30Z}\n",
	"a text of its own":         "explain_text: 'TLS {version} is too old: see https://help.example.org'\n",
	"a share of nine digits":    "rules:\n- {name: a, mode: observe, share: 0.000000001%}\n",
	"long schedules":            "rules:\n- {name: a, mode: observe, schedule: ' 0  0\t1-7  JAN-MAR,oct  */2 ', for: 366d, timezone: Asia/Kathmandu}\n",
	"what ended long ago":       "rules:\n- {name: a, mode: observe, until: 1970-01-01T00:00:00Z}\n",
	"an IPv4-mapped network":    "rules:\n- {name: a, mode: observe, match: {client: ['::ffff:10.0.0.0/104', 0.0.0.0/0, '::/0', 10.1.2.3/8]}}\n",
	"a name of 64 characters":   "rules:\n- {name: '" + strings.Repeat("n", 64) + "', mode: observe}\n",
	"two hundred names":         namesFile(maxNames),
	"lists with nothing in":     "rules: []\ncandidates: []\n",
	"an owner in other letters": "rules:\n- {name: a, mode: observe, owner: 'Ärztekammer, Jürgen Müller 日本'}\n",
}

func TestWhatAPolicyFileMayLookLike(t *testing.T) {
	for name, text := range goodFiles {
		if _, err := Parse([]byte(text)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// namesFile has n names, half of them rules.
func namesFile(n int) string {
	var b strings.Builder
	b.WriteString("rules:\n")
	for i := range n / 2 {
		fmt.Fprintf(&b, "- {name: rule %d, mode: observe}\n", i)
	}
	b.WriteString("candidates:\n")
	for i := range n - n/2 {
		fmt.Fprintf(&b, "- {name: floor %d, floor: tls1.3}\n", i)
	}
	return b.String()
}

func TestTooManyEntriesAreReportedOnce(t *testing.T) {
	for name, tt := range map[string]struct{ text, want string }{
		"names":    {namesFile(maxNames + 1), `203:3: candidate "floor 100": more than 200 rules and candidates, the most`},
		"ten more": {namesFile(maxNames + 10), `203:3: candidate "floor 95": more than 200 rules and candidates, the most`},
		"a file":   {"floor: tls1.3\n" + strings.Repeat("#", maxFile), `1:1: the file is longer than 1048576 bytes, the most`},
		"values":   {"rules:\n- {name: a, mode: observe, match: {port: &p [" + strings.Repeat("1,", maxValues/2) + "]}}\n- {name: b, mode: observe, match: {port: *p}}\n- 1\n", ""},
		"cron":     {ruleFile("for: 1m", "schedule: '"+strings.Repeat("0,", 600)+"0 * * * *'"), `5:13: rule "r": schedule: longer than 1024 bytes, the most`},
		"problems": {"candidates:\n" + strings.Repeat("- 1\n", 5000), ""},
	} {
		if _, err := Parse([]byte(tt.text)); err == nil || tt.want != "" && err.Error() != tt.want {
			t.Errorf("%s: %v, want %s", name, err, tt.want)
		} else if name == "values" && !strings.HasSuffix(err.Error(), `rule "b": more than 262144 values, those that an alias stands for included`) {
			t.Errorf("%s: %v", name, err)
		} else if problems := err.(Problems); name == "problems" && (len(problems) != 1000 || problems[999].Text != "more than 999 problems; the rest is not listed: mend these first") {
			t.Errorf("%d problems, the last %v", len(problems), problems[len(problems)-1])
		}
	}
}

// What a policy is made of goes through JSON as it is, also where that is no text of JSON's.
func TestAPolicyGoesThroughJSON(t *testing.T) {
	const file = "mode: observe\nrules:\n  - {name: printers, mode: enforce}\n"
	wide := []byte{0xff, 0xfe} // as Windows says that UTF-16 follows
	for i := range len(file) {
		wide = append(wide, file[i], 0)
	}
	for _, data := range [][]byte{[]byte(file), wide} {
		p, err := Parse(data)
		if err != nil {
			t.Fatal(err)
		}
		var got *Policy
		text, err := json.Marshal(p)
		if err == nil {
			err = json.Unmarshal(text, &got)
		}
		if err != nil || got.Mode() != Observe || len(got.Rules()) != 1 {
			t.Errorf("%q: %v, %v", text, got, err)
		}
	}
	var got Policy
	text, err := json.Marshal(New(FloorTLS13, Explain))
	if err == nil {
		err = json.Unmarshal(text, &got)
	}
	if err != nil || got.Floor() != FloorTLS13 || got.Mode() != Explain {
		t.Errorf("%q: %v %v, %v", text, got.Floor(), got.Mode(), err)
	}
}
