package policy

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestWhatIsProbablyNotMeant(t *testing.T) {
	site := Site{Ports: []uint16{993, 10993}, Names: []string{"mail.example.org", "*.legacy.example.org"}, Listeners: []SiteListener{
		{"imaps", []uint16{993, 10993}, true}, {"pop3s", []uint16{995}, false}, {"imap", []uint16{143}, false},
	}}
	for name, tt := range map[string]struct {
		rules string
		want  string // lines
	}{
		"a good rule": {"- {name: a, mode: observe, match: {port: [10993], server_name: [mail.example.org]}, owner: me, until: 2027-01-01T00:00:00Z}", ""},
		"an exemption that ran out": {"- {name: a, mode: observe, match: {port: [993]}, owner: me@example.org, until: 2026-05-01T00:00:00Z}",
			`4: rule "a": the exemption ran out at 2026-05-01T00:00:00Z; its owner is me@example.org: set a later until, or remove the rule`},
		"a rule that has ended":   {"- {name: a, mode: explain, until: 2026-06-01T00:00:00Z}", `4: rule "a": ended at 2026-06-01T00:00:00Z: set a later until, or remove the rule`},
		"another century":         {"- {name: a, mode: observe, from: 2206-07-01T00:00:00Z}", `4: rule "a": begins only in 2206: mend the year, if that is not meant`},
		"an owner without an end": {"- {name: a, mode: observe, match: {port: [993]}, owner: me}", `4: rule "a": has an owner but no until: it is no exemption, since it never ends: add until`},
		"an empty match":          {"- {name: a, mode: observe, match: {}}", `4: rule "a": match is empty, so it takes every legacy handshake: give it a key, or take it away`},
		"an empty list":           {"- {name: a, mode: explain, match: {client: []}}", `4: rule "a": never matches: the list of client is empty: fill it, or take the key away`},
		"a share of nothing":      {"- {name: a, mode: explain, share: 0%}", `4: rule "a": takes nobody: its share is 0%: give it more, or remove the rule`},
		"a day that never comes":  {`- {name: a, mode: enforce, schedule: "0 0 30 2 *", for: 1h}`, `4: rule "a": its schedule never comes: mend its days and months, or remove the rule`},
		"a leap day":              {`- {name: a, mode: enforce, schedule: "0 0 29 2 *", for: 1h}`, ""},
		"a schedule between its dates": {`- {name: a, mode: enforce, schedule: "0 12 * * *", for: 1h, from: 2026-07-01T13:00:00Z, until: 2026-07-02T12:00:00Z}`,
			`4: rule "a": its schedule never comes: mend its days and months, or remove the rule`},
		"an old server for all of it":  {"- {name: a, mode: observe, pass_through: always, match: {port: [993]}}", ""},
		"an old server, as it happens": {"- {name: a, mode: observe, pass_through: always, match: {listener: [imaps]}}", ""},
		"no old server for some": {"- {name: a, mode: observe, pass_through: always, match: {listener: [imaps, pop3s]}}",
			`4: rule "a": pass_through: no old server for pop3s, where its clients are served by Postern: set POSTERN_UPSTREAM_PASSTHROUGH_IMAPS or _POP3S and restart; after STARTTLS nobody can be passed through`},
		"STARTTLS among them": {"- {name: a, mode: observe, pass_through: always, match: {client: [10.0.0.0/8]}}",
			`4: rule "a": pass_through: no old server for pop3s, imap, where its clients are served by Postern: set POSTERN_UPSTREAM_PASSTHROUGH_IMAPS or _POP3S and restart; after STARTTLS nobody can be passed through`},
		"none, and ended":      {"- {name: a, mode: observe, pass_through: always, until: 2026-06-01T00:00:00Z}", `4: rule "a": ended at 2026-06-01T00:00:00Z: set a later until, or remove the rule`},
		"a port of nobody":     {"- {name: a, mode: observe, match: {port: [993, 10994]}}", `4: rule "a": no listener has the port 10994: mend it, or add it to that POSTERN_LISTEN_ variable and restart`},
		"a name of nobody":     {"- {name: a, mode: observe, match: {server_name: [imap.example.org]}}", `4: rule "a": no certificate covers the name imap.example.org: mend it, or add one to POSTERN_TLS_CERT_FILE and restart`},
		"a name of a wildcard": {"- {name: a, mode: observe, match: {server_name: [a.legacy.example.org, \"*.legacy.example.org\", \"*.example.org\"]}}", ""},
		"a wildcard of nobody": {"- {name: a, mode: observe, match: {server_name: [\"*.example.net\"]}}", `4: rule "a": no certificate covers the name *.example.net: mend it, or add one to POSTERN_TLS_CERT_FILE and restart`},
		"shadowed by all": {"- {name: a, mode: observe}\n- {name: b, mode: enforce, match: {version: [tls1.0]}}",
			`5: rule "b": never matches: the rule "a" in line 4 comes first and takes all of it: put it before that rule`},
		"shadowed by a wider network": {"- {name: a, mode: observe, match: {client: [10.0.0.0/8]}}\n- {name: b, mode: enforce, match: {client: [10.1.0.0/16, 10.2.3.4], port: [993]}}",
			`5: rule "b": never matches: the rule "a" in line 4 comes first and takes all of it: put it before that rule`},
		"not shadowed by a narrower one": {"- {name: a, mode: observe, match: {client: [10.1.0.0/16]}}\n- {name: b, mode: enforce, match: {client: [10.0.0.0/8]}}", ""},
		"not shadowed by another key":    {"- {name: a, mode: observe, match: {port: [993]}}\n- {name: b, mode: enforce, match: {version: [tls1.0]}}", ""},
		"not shadowed by a share":        {"- {name: a, mode: explain, share: 50%}\n- {name: b, mode: enforce}", ""},
		"shadowed by all of a share": {"- {name: a, mode: explain, share: 100%}\n- {name: b, mode: enforce}",
			`5: rule "b": never matches: the rule "a" in line 4 comes first and takes all of it: put it before that rule`},
		"not shadowed by a schedule": {`- {name: a, mode: explain, schedule: "0 * * * *", for: 5m}` + "\n- {name: b, mode: enforce}", ""},
		"shadowed for its time": {"- {name: a, mode: explain, from: 2026-06-20T00:00:00Z, until: 2026-08-01T00:00:00Z}\n" +
			"- {name: b, mode: enforce, from: 2026-07-01T00:00:00Z, until: 2026-08-01T00:00:00Z}\n- {name: c, mode: enforce}",
			`5: rule "b": never matches: the rule "a" in line 4 comes first and takes all of it: put it before that rule` + "\n" +
				`becomes milder at 2026-06-20T00:00:00Z: everybody else: enforce -> explain ("a")`},
		"overtaken before its end": {"- {name: a, mode: enforce, from: 2026-07-06T00:00:00Z}\n- {name: b, mode: observe, match: {client: [10.0.0.0/8]}, owner: me, until: 2026-12-14T00:00:00Z}",
			`5: rule "b": matches no more from 2026-07-06T00:00:00Z on, before its until: the rule "a" in line 4 comes first and takes all of it then: put it before that rule`},
		"overtaken at its end": {"- {name: a, mode: enforce, from: 2026-07-06T00:00:00Z}\n- {name: b, mode: observe, until: 2026-07-06T00:00:00Z}", ""},
		"followed by another":  {"- {name: a, mode: enforce, from: 2026-07-06T00:00:00Z}\n- {name: b, mode: observe}", ""},
		"host bits": {"- {name: a, mode: observe, match: {client: [10.0.0.1/16, 10.0.0.0/8, \"::ffff:192.0.2.1/120\", 10.0.0.1, 192.0.2.1/32]}}",
			`4: rule "a": 10.0.0.1/16 is taken as the network 10.0.0.0/16; write it so, or 10.0.0.1 if the one address is meant` + "\n" +
				`4: rule "a": ::ffff:192.0.2.1/120 is taken as the network 192.0.2.0/24; write it so, or 192.0.2.1 if the one address is meant`},
		"an offset of winter in summer": {"- {name: a, mode: enforce, timezone: Europe/Berlin, from: 2026-07-01T00:00:00+01:00, until: 2026-12-01T00:00:00+01:00}",
			`4: rule "a": from has the offset +01:00, but Europe/Berlin has +02:00 then, so that it is 2026-07-01 01:00:00 there: write +02:00, unless that is meant` + "\n" +
				`becomes milder at 2026-11-30T23:00:00Z: everybody else: enforce -> observe ("a")`},
		"dates in UTC": {`- {name: a, mode: enforce, timezone: Europe/Berlin, from: 2026-07-01T00:00:00Z}`, ""},
		"windows that overlap": {`- {name: a, mode: explain, schedule: "*/10 * * * *", for: 1h, match: {port: [993]}}`,
			`4: rule "a": its windows overlap: the next opens while one is open still; look at the fields of schedule (the first is the minute, the second the hour), or set for to less`},
		"windows that overlap at night": {`- {name: a, mode: explain, schedule: "0 9,18 * * *", for: 12h, match: {port: [993]}}`,
			`4: rule "a": its windows overlap: the next opens while one is open still; look at the fields of schedule (the first is the minute, the second the hour), or set for to less`},
		"windows that touch":        {`- {name: a, mode: explain, schedule: "0 * * * *", for: 1h, match: {port: [993]}}`, ""},
		"a minute that comes twice": {`- {name: a, mode: explain, schedule: "30 2 * * *", timezone: Europe/Berlin, for: 2h, match: {port: [993]}}`, ""},
		"a gap before the cut-over": {"- {name: a, mode: explain, from: 2026-06-20T00:00:00Z, until: 2026-06-30T00:00:00Z}\n- {name: b, mode: enforce, from: 2026-07-01T00:00:00Z}",
			`becomes milder at 2026-06-30T00:00:00Z: everybody else: explain -> observe ("a")`},
	} {
		p, err := Parse([]byte("mode: observe\nfloor: tls1.2\nrules:\n" + tt.rules + "\n"))
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		var got []string
		for _, w := range p.Warnings(time.Date(2026, 6, 15, 0, 0, 0, 0, time.UTC), site) {
			got = append(got, w.String())
		}
		if diff := cmp.Diff(tt.want, strings.Join(got, "\n")); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

func TestACandidateThatRemembersNobodyIsWarnedOf(t *testing.T) {
	const candidates = "\ncandidates: [{name: c, floor: tls1.2, remember: true}, {name: counted, floor: tls1.2}, {name: next, floor: tls1.3, remember: true}]"
	const want = `candidate "c" remembers nobody, since no floor here is below tls1.2: give it a higher one`
	for text, n := range map[string]int{
		"floor: tls1.2":      1,
		"floor: tls1.2-aead": 1,
		"floor: tls1.2-aead\nrules: [{name: r, mode: enforce, floor: tls1.2, match: {port: [993]}}]": 1,
		// Who comes to this port may be above its floor, and below the candidate's.
		"floor: tls1.3\nrules: [{name: r, mode: enforce, floor: tls1.2-compat, match: {port: [993]}}]": 0,
	} {
		found := 0
		for _, w := range policyOf(t, text+candidates).Warnings(time.Now(), Site{}) {
			if w.String() == want {
				found++
			} else if strings.Contains(w.String(), "candidate") {
				t.Errorf("%s: %v", text, w)
			}
		}
		if found != n {
			t.Errorf("%s: %d warnings, want %d", text, found, n)
		}
	}
}

// What is not known of a site is no reason to warn.
func TestWithoutASiteThereIsNothingToMiss(t *testing.T) {
	p, err := Parse([]byte("rules: [{name: a, mode: observe, match: {port: [1], server_name: [x.test]}}]"))
	if err != nil {
		t.Fatal(err)
	}
	if w := p.Warnings(time.Now(), Site{}); len(w) != 0 {
		t.Errorf("%v", w)
	}
}

func TestRSAKeyExchangeAsTheFloorIsWarnedOf(t *testing.T) {
	for floor, want := range map[Floor]int{FloorTLS12Compat: 1, FloorTLS12: 0} {
		got := New(floor, Enforce).Warnings(time.Now(), Site{})
		if len(got) != want || want == 1 && !strings.Contains(got[0].String(), "RFC 10015") {
			t.Errorf("%s: %v", floor, got)
		}
	}
	p := policyOf(t, "rules: [{name: r, mode: enforce, floor: tls1.2-compat, match: {port: [993]}}]")
	if got := p.Warnings(time.Now(), Site{Ports: []uint16{993}}); len(got) != 1 || got[0].Rule != "r" || !strings.Contains(got[0].String(), "RFC 10015") {
		t.Errorf("a rule: %v", got)
	}
}

func TestAnExemptionEndsWhereAnEarlierRuleTakesAllOfIt(t *testing.T) {
	p, err := Parse([]byte("rules:\n- {name: later, mode: enforce, from: 2026-08-01T00:00:00Z}\n- {name: cut, mode: enforce, from: 2026-07-06T00:00:00Z}\n" +
		"- {name: old, mode: observe, match: {client: [10.0.0.0/8]}, owner: me, until: 2026-12-14T00:00:00Z}\n" +
		"- {name: short, mode: observe, owner: me, until: 2026-07-01T00:00:00Z}\n"))
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]time.Time{"old": time.Date(2026, 7, 6, 0, 0, 0, 0, time.UTC), "short": time.Date(2026, 7, 1, 0, 0, 0, 0, time.UTC)} {
		if got := p.Ends(p.Rule(name)); !got.Equal(want) {
			t.Errorf("%s ends %v, want %v", name, got, want)
		}
	}
}
