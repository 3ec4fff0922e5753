package policy

import (
	"fmt"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"postern/internal/posterntest"
)

// eventful are times at which something may happen in a file that stands among
// the seeds, and some at which nothing should.
var eventful = []time.Time{
	{},
	time.Unix(0, 0),
	time.Date(2026, 3, 29, 0, 59, 30, 0, time.UTC), // Berlin springs forward
	time.Date(2026, 6, 8, 0, 0, 0, 0, time.UTC),
	time.Date(2026, 6, 23, 12, 0, 0, 1, time.UTC),
	time.Date(2026, 7, 1, 0, 0, 0, 0, time.UTC),
	time.Date(2026, 11, 1, 5, 30, 0, 0, time.UTC), // New York falls back
	time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC),
}

// slow is more CPU time than any file may take to be read and asked, under the race
// detector.
const slow = 30 * time.Second

// exercise asks a policy all that there is to ask.
func exercise(t *testing.T, p *Policy) {
	place := ConnInfo{Keys: RSA, Listener: "imaps", Port: 993, Client: netip.MustParseAddr("::ffff:10.20.0.1")}
	h := with(old, func(h *Hello) { h.ServerName = "imap-legacy.example.org" })
	if len(p.Rules())+len(p.Candidates()) > maxNames {
		t.Errorf("%d rules and %d candidates", len(p.Rules()), len(p.Candidates()))
	}
	for _, at := range eventful {
		s := p.At(at)
		if !s.Valid(at) || !s.Until.After(at) || s.Until.After(at.Add(snapshotLife)) {
			t.Errorf("a snapshot of %s holds until %s", at, s.Until)
		}
		for _, hello := range []*Hello{&h, &old, &modern} {
			v := s.Decide(hello, place, at, 1<<63)
			if v.Rule != "" && (p.Rule(v.Rule) == nil || p.Rule(v.Rule).Mode != v.Mode || !p.Rule(v.Rule).InForce(at)) {
				t.Errorf("at %s the rule %q decides for %s", at, v.Rule, v.Mode)
			}
			if v.Legacy() && v.Mode != Enforce && !p.MayServeLegacy(at) {
				t.Errorf("at %s the mode is %s, though nobody may be served", at, v.Mode)
			}
		}
		for _, listener := range ListenerNames {
			s.ModeFor(listener)
		}
		p.Explain(Client{ConnInfo: place, Version: TLS10, ServerName: h.ServerName}, at)
		for i := range p.Rules() {
			if share := p.Rules()[i].ShareAt(at); !(share >= 0 && share <= 1) {
				t.Errorf("at %s the share is %v", at, share)
			}
		}
	}
}

// foretell asks what will be.
func foretell(p *Policy) {
	at := eventful[3]
	p.Warnings(at, Site{})
	p.Relaxations(at, at.AddDate(0, 3, 0))
	p.Timeline(at, at.AddDate(0, 3, 0), ListenerNames)
	p.Changes(at, at.AddDate(0, 3, 0), 10)
}

// FuzzPolicyFile reads any bytes as a policy file: it is refused with a place
// and a reason, or it can be asked.
func FuzzPolicyFile(f *testing.F) {
	for _, tt := range badFiles {
		f.Add([]byte(tt.text))
	}
	for _, text := range goodFiles {
		f.Add([]byte(text))
	}
	for _, name := range []string{"testdata/example.yaml", "testdata/bad/everything.yaml"} {
		text, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text)
	}
	for _, rule := range costlyRules {
		f.Add([]byte("rules:\n- {name: r, mode: explain, " + rule + ", from: 2026-03-01T00:00:00Z, share: 50%}\n"))
	}
	f.Add([]byte(crowdedFile(crowdedRules["everything"])[:600] + "]"))
	f.Add([]byte("rules: [&a {name: a, mode: &m observe, match: &x {server_name: ['*.example.org', imap-legacy.example.org], version: [tls1.0], ja4: [" + old.JA4() +
		"]}}, {name: b, mode: *m, match: *x, share: {from: 0%, to: 100%, by: connection}, from: 2026-06-01T00:00:00Z, until: 2026-08-01T00:00:00Z}]\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		begun := posterntest.CPUTime()
		p, err := Parse(text)
		if (p == nil) == (err == nil) {
			t.Fatalf("policy %v, error %v", p, err)
		}
		if err != nil {
			checkProblems(t, err.(Problems))
		} else {
			exercise(t, p)
			foretell(p)
		}
		if took := posterntest.CPUTime() - begun; took > slow {
			t.Errorf("it takes %s", took)
		}
	})
}

// checkProblems checks what is reported of a file: in order, each on one line.
func checkProblems(t *testing.T, problems Problems) {
	if len(problems) == 0 {
		t.Error("refused without a reason")
	}
	last := Problem{}
	for _, p := range problems {
		if p.Line < 1 || p.Column < 1 || p.Text == "" || p.Line < last.Line || p.Line == last.Line && p.Column < last.Column {
			t.Errorf("a problem at %d:%d: %q", p.Line, p.Column, p.Text)
		}
		if strings.ContainsAny(p.String(), "\n\r\x00\x1b") || len(p.String()) > 1000 {
			t.Errorf("a problem that spoils a log: %q", p.String())
		}
		last = p
	}
}

// TestAnAliasCannotMakeAFileGrow: a megabyte or less stays what it is, whatever it
// refers to.
func TestAnAliasCannotMakeAFileGrow(t *testing.T) {
	list := func(n int, entry string) string { return strings.TrimSuffix(strings.Repeat(entry+", ", n), ", ") }
	rules := func(n int, match string) string {
		var b strings.Builder
		for i := range n {
			fmt.Fprintf(&b, "- {name: r%d, mode: observe, match: %s}\n", i, match)
		}
		return b.String()
	}
	for name, text := range map[string]string{
		"a list in 199 rules": "rules:\n- {name: a, mode: observe, match: &m {client: [" + list(10_000, "10.0.0.1/8") + "]}}\n" + rules(199, "*m"),
		"a bad list in 199":   "rules:\n- {name: a, mode: observe, match: &m {client: [" + list(30_000, "x") + "]}}\n" + rules(199, "*m"),
		"a rule 20,000 times": "rules:\n- &r {name: a, mode: observe, match: {client: [" + list(10_000, "10.0.0.1/8") + "]}}\n" +
			strings.Repeat("- *r\n", 20_000),
		"laughter": "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + func() string {
			var b strings.Builder
			for c := 'b'; c < 'z'; c++ {
				fmt.Fprintf(&b, "%c: &%c [%s]\n", c, c, list(10, "*"+string(c-1)))
			}
			return b.String()
		}() + "rules: *y\n",
		"many problems":    "rules:\n" + strings.Repeat("- {a: b}\n", 20_000),
		"deep":             "rules: " + strings.Repeat("[", 5_000) + strings.Repeat("]", 5_000) + "\n",
		"many anchors":     "rules: [" + list(20_000, "&a x") + "]\n",
		"many keys":        strings.Repeat("a: b\n", 20_000),
		"a long name":      "rules: [{name: " + strings.Repeat("n", maxFile/2) + "}]\n",
		"a long cron":      "rules: [{name: a, mode: observe, for: 1m, schedule: '" + list(150_000, "1") + "'}]\n",
		"a long cron list": "rules: [{name: a, mode: observe, for: 1m, schedule: '" + strings.Repeat("1,", 150_000) + "1 * * * *'}]\n",
		"comments":         "floor: tls1.3\n" + strings.Repeat("# x\n\n", 40_000),
	} {
		if len(text) > maxFile {
			t.Fatalf("%s: the file is too long to be read: %d bytes", name, len(text))
		}
		begun := posterntest.CPUTime()
		p, err := Parse([]byte(text))
		if err == nil {
			exercise(t, p)
		}
		took := posterntest.CPUTime() - begun
		t.Logf("%s: %s", name, took)
		if took > slow {
			t.Errorf("%s: it takes %s", name, took)
		}
		if n := len(fmt.Sprint(err)); n > 16*maxFile {
			t.Errorf("%s: %d bytes of problems", name, n)
		}
	}
}
