package docs

import (
	"crypto/tls"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"postern/internal/config"
	"postern/internal/posterntest"
	"postern/policy"
)

// The sections of the rehearsal that have something to type, in their order.
const (
	seeWhoWouldBeRejected = "See who would be rejected"
	writePolicy           = "Write the policy, and read it back"
	putInForce            = "Put it into force"
	goBack                = "Go back"
)

// typed are the blocks of a section, which has so many.
func typed(t *testing.T, section string, n int) []block {
	t.Helper()
	blocks := blocksOf(t, policyDoc, section, "sh")
	if len(blocks) != n {
		t.Fatalf("%q has %d blocks to type, not %d", section, len(blocks), n)
	}
	return blocks
}

// The commands of the chapter, one after the other, for a proxy on ports of its
// own, with its files in a directory of the test's.
func TestRehearsalWithDatesAsItIsTyped(t *testing.T) {
	dir := t.TempDir()
	etc := filepath.Join(dir, "etc")
	if err := os.Mkdir(etc, 0o700); err != nil {
		t.Fatal(err)
	}
	vars, pool := rehearsalEnvironment(t)
	env := filepath.Join(etc, "postern.env")
	if err := os.WriteFile(env, []byte(strings.Join(environ(vars), "\n")+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	binary, log := posterntest.Binary(t), filepath.Join(dir, "journal")
	moved := strings.NewReplacer("sudo systemctl restart postern", ":", "sudo ", "", "/etc/postern", etc,
		"postern check", binary+" check", "postern plan", binary+" plan", "journalctl -u postern -o cat", "cat "+log)
	run := func(b block) string { t.Helper(); return shell(t, moved.Replace(b.text()), "") }

	first := typed(t, seeWhoWouldBeRejected, 2)
	run(first[0])
	proxy := posterntest.Start(t, withoutPrefix(variablesIn(t, env)))
	proxy.CA = pool
	meets := func(mode, rule string) {
		t.Helper()
		n := len(proxy.LogLines("legacy handshake"))
		oldClient(t, proxy)
		if line := proxy.WaitLog(t, "legacy handshake", n+1)[n]; line["mode"] != mode || line["rule"] != rule {
			t.Errorf("an old client met %v by rule %q, want %s by %q", line["mode"], line["rule"], mode, rule)
		}
	}
	meets("observe", "")
	if err := os.WriteFile(log, []byte(proxy.Stderr()), 0o600); err != nil {
		t.Fatal(err)
	}
	if out := run(first[1]); oneBlank(out) != `1 "client":"127.0.0.1"` {
		t.Errorf("the most frequent addresses are %q", out)
	}

	out := run(typed(t, writePolicy, 1)[0])
	for _, want := range []string{
		"next.yaml:", // what check says about it depends on the day
		`"growing share" begins: explain for 0 % of clients`, `"cut-over" begins: enforce`, "milder than before nowhere", "It is let in and counted",
	} {
		if !strings.Contains(oneBlank(out), want) {
			t.Errorf("check and plan do not say %q, but\n%s", want, out)
		}
	}

	endInThePast(t, filepath.Join(etc, "next.yaml"))
	run(typed(t, putInForce, 1)[0])
	proxy.WaitLog(t, "policy reloaded", 1)
	meets("enforce", "cut-over")

	back := typed(t, goBack, 2)
	run(back[0])
	proxy.WaitLog(t, "policy reloaded", 2)
	meets("observe", "")
	run(back[1])
	proxy.WaitLog(t, "policy reloaded", 3)
	meets("observe", "way back")
}

// rehearsalEnvironment is deploy/postern.env with ports and certificates of the
// test's, and the CA that has signed these.
func rehearsalEnvironment(t *testing.T) (map[string]string, *posterntest.CA) {
	t.Helper()
	vars := example(t, false)
	imap := posterntest.StartUpstream(t, posterntest.IMAPGreeting, posterntest.IMAPReply)
	pop3 := posterntest.StartUpstream(t, posterntest.POP3Greeting, posterntest.POP3Reply)
	ca := posterntest.NewCA(t)
	own := fmt.Sprintf("127.77.%d.%d:", os.Getpid()>>8&255, os.Getpid()&255)
	names := []string{"localhost", "mail.example.org", "imap-legacy.example.org", "pop-legacy.example.org"}
	ec, rsa := ca.Issue(t, names, posterntest.ECDSA), ca.Issue(t, names, posterntest.RSA)
	for name, value := range map[string]string{
		"UPSTREAM_IMAP": imap.URL("imap"), "UPSTREAM_POP3": pop3.URL("pop3"),
		"TLS_CERT_FILE": ec.CertFile + "," + rsa.CertFile, "TLS_KEY_FILE": ec.KeyFile + "," + rsa.KeyFile,
		"LISTEN_IMAPS": posterntest.FreeAddr(t) + "," + own + "20993", "LISTEN_POP3S": posterntest.FreeAddr(t) + "," + own + "20995",
		"LISTEN_IMAP": posterntest.FreeAddr(t), "LISTEN_POP3": posterntest.FreeAddr(t), "ADMIN_LISTEN": posterntest.FreeAddr(t),
	} {
		vars[config.Prefix+name] = value
	}
	return vars, ca
}

// variablesIn reads a file as a shell and systemd do.
func variablesIn(t *testing.T, path string) map[string]string {
	t.Helper()
	vars := make(map[string]string)
	for line := range strings.Lines(readAbs(t, path)) {
		if name, value, ok := strings.Cut(strings.TrimSpace(line), "="); ok {
			vars[name] = value
		}
	}
	return vars
}

func withoutPrefix(vars map[string]string) map[string]string {
	short := make(map[string]string)
	for name, value := range vars {
		short[strings.TrimPrefix(name, config.Prefix)] = value
	}
	return short
}

// endInThePast moves the dates of growing-share.yaml, so that its last rule is in
// force on any day.
func endInThePast(t *testing.T, path string) {
	t.Helper()
	text := readAbs(t, path)
	for future, past := range map[string]string{
		"2027-03-02T09:00:00+01:00": "2020-03-03T09:00:00+01:00",
		"2027-06-01T09:00:00+02:00": "2020-06-02T09:00:00+02:00",
		"2027-07-06T09:00:00+02:00": "2020-07-07T09:00:00+02:00",
	} {
		if !strings.Contains(text, future) {
			t.Fatalf("%s has no %s", path, future)
		}
		text = strings.ReplaceAll(text, future, past)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// oldClient connects to imaps with TLS 1.0.
func oldClient(t *testing.T, proxy *posterntest.Proxy) {
	t.Helper()
	conn, err := tls.Dial("tcp", proxy.Addr("imaps"), &tls.Config{
		RootCAs: proxy.CA.Pool, ServerName: "mail.example.org", MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS10,
	})
	if err == nil {
		conn.Close()
	}
}

// A policy that a reader copies out of the documentation is accepted.
func TestEveryPolicyInTheDocumentsIsAccepted(t *testing.T) {
	blocks := allBlocks(t, "yaml")
	if len(blocks) == 0 {
		t.Error("there is none")
	}
	for _, b := range blocks {
		p, err := policy.Parse([]byte(b.text()))
		if err != nil {
			t.Errorf("%s, under %q: %v", b.doc, b.section, err)
			continue
		}
		if w := p.Warnings(time.Date(2026, 11, 25, 0, 0, 0, 0, time.UTC), policy.Site{}); len(w) > 0 {
			t.Errorf("%s, under %q: %v", b.doc, b.section, w)
		}
	}
}

var (
	keyRow  = regexp.MustCompile("(?m)^\\| `([a-z0-9_]+)` \\| ([a-z ]+) \\|")
	keyList = regexp.MustCompile(`^unknown key "nonsense" in (.+): use (.+)$`)
)

// The table of keys has those that the parser takes, where it takes them.
func TestKeysOfAPolicyFileAreThoseOfTheTable(t *testing.T) {
	_, err := policy.Parse([]byte(`
nonsense: 1
rules:
  - {name: a, mode: observe, nonsense: 1, match: {nonsense: 1}, from: 2027-01-01T00:00:00Z, until: 2027-02-01T00:00:00Z, share: {from: 0%, to: 1%, nonsense: 1}}
  - {name: c, mode: enforce, guard: {clients: 1, within: 1h, then: observe, nonsense: 1}}
candidates:
  - {name: b, floor: tls1.3, nonsense: 1}
`))
	var problems policy.Problems
	if !errors.As(err, &problems) {
		t.Fatal(err)
	}
	taken := make(map[string]bool)
	for _, p := range problems {
		m := keyList.FindStringSubmatch(p.Text)
		if m == nil {
			t.Fatalf("another problem: %v", p)
		}
		for key := range strings.SplitSeq(m[2], ", ") {
			taken[m[1]+": "+key] = true
		}
	}
	_, section, _ := strings.Cut(read(t, policyDoc), "\n## The keys of a policy file\n")
	section, _, _ = strings.Cut(section, "\n#")
	said := make(map[string]bool)
	for _, m := range keyRow.FindAllStringSubmatch(section, -1) {
		said[m[2]+": "+m[1]] = true
	}
	if !maps.Equal(said, taken) {
		t.Errorf("the table has\n%q\nthe parser takes\n%q", slices.Sorted(maps.Keys(said)), slices.Sorted(maps.Keys(taken)))
	}
}

var dayRow = regexp.MustCompile(`(?m)^\| (\d{1,2} [A-Z][a-z]+) \|`)

// The tables of what clients meet have a row for each date of the files.
func TestTablesOfTheRehearsalHaveTheDatesOfTheFiles(t *testing.T) {
	berlin, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		t.Fatal(err)
	}
	_, section, _ := strings.Cut(read(t, policyDoc), "\n### "+writePolicy+"\n")
	section, _, _ = strings.Cut(section, "\n#")
	for _, name := range []string{"growing-share.yaml", "brownouts.yaml"} {
		p, err := policy.Parse([]byte(read(t, "deploy/rehearsal/"+name)))
		if err != nil {
			t.Fatal(err)
		}
		var edges []time.Time
		for _, r := range p.Rules() {
			edges = append(edges, r.From, r.Until)
		}
		edges = slices.DeleteFunc(edges, time.Time.IsZero)
		slices.SortFunc(edges, time.Time.Compare)
		var want, got []string
		for _, e := range slices.CompactFunc(edges, time.Time.Equal) {
			want = append(want, e.In(berlin).Format("2 January"))
		}
		_, table, _ := strings.Cut(section, "`"+name+"`")
		table, _, _ = strings.Cut(table, "|\n\n")
		for _, m := range dayRow.FindAllStringSubmatch(table, -1) {
			got = append(got, m[1])
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s: the table has the dates %q, the file %q", name, got, want)
		}
	}
}
