package main

import (
	"context"
	"crypto/tls"
	"database/sql"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"postern/internal/ledger"
	"postern/internal/posterntest"
	"postern/policy"
	"postern/proxy"
)

var reportNow = time.Date(2026, 11, 25, 10, 5, 30, 0, time.UTC)

// runAt runs a command at a time.
func runAt(t *testing.T, now time.Time, environ []string, args ...string) outcome {
	t.Helper()
	var stdout, stderr buffer
	code := run(t.Context(), system{args: args, environ: environ, stdout: &stdout, stderr: &stderr, now: func() time.Time { return now }})
	return outcome{code, stdout.String(), stderr.String()}
}

// visit is a legacy client that comes, and may log in.
type visit struct {
	client   string
	version  policy.Version
	account  string
	software string
	pattern  string
	failed   int // logins
	ago      time.Duration
	outcome  proxy.Outcome
	passed   bool // through
}

// remember writes visits into a ledger, in their order.
func remember(t *testing.T, store *ledger.Store, identity func(string) string, visits ...visit) {
	t.Helper()
	var now time.Time
	r := ledger.NewRecorder(ledger.Options{Store: store, Log: slog.New(slog.DiscardHandler), Identity: identity, Now: func() time.Time { return now }})
	for _, v := range visits {
		now = reportNow.Add(-v.ago)
		hello := &policy.Hello{
			Versions: []uint16{uint16(v.version)}, CipherSuites: []uint16{tls.TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA, tls.TLS_RSA_WITH_AES_128_CBC_SHA},
			Groups: []tls.CurveID{tls.CurveP256}, ServerName: "imap.example.org",
		}
		conn := &proxy.Conn{
			Listener: "imaps", Client: netip.AddrPortFrom(netip.MustParseAddr(v.client), 4000), Local: netip.MustParseAddrPort("192.0.2.1:993"),
			Accepted: now, Legacy: true, JA4: hello.Fingerprint(),
		}
		outcome := v.outcome
		if outcome == "" {
			outcome = proxy.Observed
		}
		served := policy.NoVersion
		if outcome == proxy.Observed && !v.passed {
			served = v.version
		}
		r.Handshake(&proxy.Handshake{Conn: conn, Hello: hello, Outcome: outcome, Version: served, Verdict: policy.Verdict{Version: v.version, Reason: policy.ReasonVersion}})
		if v.account != "" {
			r.Login(&proxy.Login{Conn: conn, Account: v.account, Software: v.software, Pattern: v.pattern})
		}
		r.Closed(&proxy.Closed{Conn: conn, FailedLogins: v.failed})
	}
	if err := r.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
}

var (
	annaComes    = visit{client: "192.0.2.7", version: policy.TLS10, account: "anna@example.org", software: "Outlook 14.0", ago: time.Hour}
	bertComes    = visit{client: "192.0.2.8", version: policy.TLS11, account: "bert@example.org", software: "K-9 Mail", ago: 30 * time.Hour}
	scannerComes = visit{client: "10.20.0.5", version: policy.TLS10, account: "scan@example.org", ago: 2 * time.Hour}
	guesserComes = visit{client: "203.0.113.9", version: policy.TLS10, failed: 3, ago: 3 * time.Hour}
	passedComes  = visit{client: "192.0.2.60", version: policy.TLS10, ago: 5 * time.Hour, passed: true}
	refusedComes = visit{client: "203.0.113.77", version: policy.TLS10, ago: 4 * time.Hour, outcome: proxy.Rejected}
	longGone     = visit{client: "192.0.2.99", version: policy.TLS10, account: "gone@example.org", ago: 20 * 24 * time.Hour}
)

// sqliteWith is a ledger in a file, and the environment that names it.
func sqliteWith(t *testing.T, identity func(string) string, visits ...visit) (url string, environ []string) {
	t.Helper()
	url = "sqlite:" + filepath.Join(t.TempDir(), "ledger.db")
	store, err := ledger.Open(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	remember(t, store, identity, visits...)
	makeOld(t, url)
	return url, []string{"POSTERN_LEDGER_URL=" + url, "POSTERN_ADMIN_LISTEN=" + posterntest.FreeAddr(t), "POSTERN_LEDGER_IDENTITY=plain",
		"POSTERN_NONSENSE=1", "POSTERN_UPSTREAM_IMAP=?"}
}

// makeOld has a ledger begin long ago.
func makeOld(t *testing.T, url string) {
	t.Helper()
	db, err := sql.Open("sqlite", strings.TrimPrefix(url, "sqlite:"))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if _, err := db.ExecContext(t.Context(), "UPDATE batches SET written = 1 WHERE writer = 0"); err != nil {
		t.Fatal(err)
	}
}

func plainly(account string) string { return account }

func exemptionFile(t *testing.T) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "policy.yaml")
	text := "mode: enforce\nrules:\n  - name: warehouse\n    mode: observe\n    match: {client: [10.20.0.0/16]}\n    until: 2026-12-31T00:00:00Z\n    owner: facilities@example.org\n"
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

func TestAReportFromTheStore(t *testing.T) {
	_, environ := sqliteWith(t, plainly, annaComes, annaComes, bertComes, scannerComes, guesserComes, refusedComes, longGone)
	environ = append(environ, "POSTERN_POLICY_FILE="+exemptionFile(t))
	o := runAt(t, reportNow, environ, "report")
	for _, want := range []string{
		"NO-GO: 2 clients with old TLS are left.\n", "1 more is exempted; the first exemption ends Thu 31 Dec 2026 00:00 UTC.\n",
		"1 more was never let in: it is not known who is behind.\n", "\nIn all 4 clients: 2 in the way, 1 exempted, 1 never let in; and 1 as noise.\n",
		"\nanna@example.org  Outlook 14.0  1.0  1        2026-11-25\n", "\nbert@example.org  K-9 Mail      1.1  1        2026-11-24\n",
		"\"warehouse\", 1 client: until Thu 31 Dec 2026 00:00 UTC, in 35 days; owner facilities@example.org\n", "scan@example.org",
		"\n2026-11-24  1  #\n2026-11-25  3  ###  so far\n", "\nall  all       4        4       0         1        0\n",
		"failed logins alone): 1 client.\n",
	} {
		if !strings.Contains(o.stdout, want) {
			t.Errorf("does not say %q", want)
		}
	}
	if o.code != exitOK || o.stderr != "" || strings.Contains(o.stdout, "gone@") || strings.Contains(o.stdout, "203.0.113.9") {
		t.Errorf("exit %d, stderr %q\n%s", o.code, o.stderr, o.stdout)
	}
	long := runAt(t, reportNow, environ, "report", "-since", "30d", "-noise", "-by", "network")
	if dated := runAt(t, reportNow, environ, "report", "-since", reportNow.AddDate(0, 0, -30).Format(time.DateOnly), "-noise", "-by", "network"); !strings.Contains(dated.stdout, "NO-GO: 3 clients") {
		t.Errorf("since a date: %+v", dated)
	}
	for _, want := range []string{"NO-GO: 3 clients", "gone@example.org", "Noise, which no number holds:", "203.0.113.9", "Clients a week"} {
		if !strings.Contains(long.stdout, want) {
			t.Errorf("does not say %q:\n%s", want, long.stdout)
		}
	}
}

func TestReadyIsAnExitCode(t *testing.T) {
	exempted := "POSTERN_POLICY_FILE=" + exemptionFile(t)
	for _, tt := range []struct {
		name    string
		visits  []visit
		environ []string
		args    []string
		code    int
		begins  string
	}{
		{"nobody", nil, nil, nil, 0, "GO: nobody with old TLS is left.\n"},
		{"anna", []visit{annaComes}, nil, nil, 1, "NO-GO: 1 client with old TLS is left.\n"},
		{"anna, who may", []visit{annaComes}, nil, []string{"-max", "1"}, 0, "GO: 1 client with old TLS is left, and up to 1 may be.\n"},
		{"one too many", []visit{annaComes, bertComes}, nil, []string{"-max", "1"}, 1, "NO-GO: 2 clients with old TLS are left, and only 1 may be.\n"},
		{"long gone", []visit{longGone}, nil, nil, 0, "GO: nobody"},
		{"not so long gone", []visit{longGone}, nil, []string{"-since", "21d"}, 1, "NO-GO: 1 client"},
		{"exempted", []visit{scannerComes}, []string{exempted}, nil, 0, "GO: nobody with old TLS is left but 1 client with an exemption.\n"},
		{"not exempted", []visit{scannerComes}, nil, nil, 1, "NO-GO: 1 client"},
		{"noise", []visit{guesserComes}, nil, nil, 0, "GO: nobody"},
		{"noise that is listed", []visit{guesserComes}, nil, []string{"-noise"}, 0, "GO: nobody"},
		{"never let in", []visit{refusedComes}, nil, nil, 1, "NO-GO: 1 client with old TLS was never let in: it is not known who is behind.\n"},
		{"never let in, as may be", []visit{refusedComes}, nil, []string{"-max-unknown", "1"}, 0, "GO: no client that has logged in is left; 1 other was never let in.\n"},
		{"let in, and never logged in", []visit{{client: "192.0.2.61", version: policy.TLS10}}, nil, nil, 0, "GO: nobody"},
		{"passed through", []visit{passedComes}, nil, nil, 1, "NO-GO: 1 client"},
		{"nobody can tell who logs in", []visit{refusedComes}, []string{"POSTERN_LEDGER_IDENTITY=off"}, nil, 1, "NO-GO: 1 client"},
		{"failed and then right", []visit{guesserComes, {client: "203.0.113.9", version: policy.TLS10, account: "a@example.org"}}, nil, nil, 1, "NO-GO: 1 client"},
		{"as JSON", []visit{annaComes}, nil, []string{"-format", "json"}, 1, "{\n"},
	} {
		_, environ := sqliteWith(t, plainly, tt.visits...)
		o := runAt(t, reportNow, append(environ, tt.environ...), append([]string{"report", "-ready"}, tt.args...)...)
		if o.code != tt.code || !strings.HasPrefix(o.stdout, tt.begins) || o.stderr != "" {
			t.Errorf("%s: exit %d, stderr %q\n%s", tt.name, o.code, o.stderr, o.stdout)
		}
		// Without -ready it is no question.
		if plain := runAt(t, reportNow, append(environ, tt.environ...), append([]string{"report"}, tt.args...)...); plain.code != exitOK {
			t.Errorf("%s, not asked: exit %d", tt.name, plain.code)
		}
	}
}

// TestEveryCountIsOfTheWhole has more accounts and addresses than lists hold.
func TestEveryCountIsOfTheWhole(t *testing.T) {
	const n, nameless = 260, 130
	var visits []visit
	for i := range n + nameless {
		v := visit{client: fmt.Sprintf("10.0.%d.%d", i/200, i%200), version: policy.TLS10, ago: time.Hour}
		if i < n {
			v.account, v.software = fmt.Sprintf("a-person-with-a-rather-long-name-%d@university.example.org", i), fmt.Sprintf("Mail %d", i)
		}
		visits = append(visits, v)
	}
	_, environ := sqliteWith(t, plainly, visits...)
	report := func(environ []string, args ...string) string {
		t.Helper()
		o := runAt(t, reportNow, environ, append([]string{"report"}, args...)...)
		if o.code != exitOK || o.stderr != "" {
			t.Errorf("%q: exit %d, %s", args, o.code, o.stderr)
		}
		return o.stdout
	}
	contains := func(text string, wanted ...string) {
		t.Helper()
		for _, want := range wanted {
			if !strings.Contains(text, want) {
				t.Errorf("no %q in\n%.3000s", want, text)
			}
		}
	}
	contains(report(environ, "-by", "domain"), "\nuniversity.example.org  260       ", "\n(not known)             0         ", "Mail 0, Mail 1 and 258 more ")
	contains(report(environ), "In all 390 clients: 260 in the way, 130 not logged in.\n", "\nand 211 more; -top 0 or -format csv has them all\n")
	if text := report(environ, "-by", "domain", "-format", "markdown"); !strings.Contains(text, "| 260 | `Mail 0`") || !strings.Contains(text, " and 255 more |") || !strings.Contains(text, " and 125 more |") {
		t.Error(text)
	}
	var answer struct {
		Left []struct {
			Name     string
			Accounts []string
			Distinct map[string]int
			Members  []struct{ Addresses []string }
		}
		Groups map[string]int
	}
	if err := json.Unmarshal([]byte(report(environ, "-by", "domain", "-format", "json", "-top", "1")), &answer); err != nil {
		t.Fatal(err)
	}
	if d := answer.Left[0].Distinct; len(answer.Left) != 1 || answer.Groups["left"] != 2 || d["accounts"] != n || d["addresses"] != n || d["software"] != n || len(answer.Left[0].Accounts) != 100 {
		t.Errorf("%+v", answer)
	}
	rows, err := csv.NewReader(strings.NewReader(report(environ, "-format", "csv"))).ReadAll()
	if err != nil || len(rows) != 1+n+nameless {
		t.Errorf("%d lines, %v", len(rows), err)
	}
	addresses := slices.Index(rows[0], "addresses")
	for _, row := range rows[1:] {
		if row[0] == "" && (strings.Contains(row[addresses], ";") || row[addresses] == "") {
			t.Errorf("more than one address: %q", row)
		}
	}
	contains(report(environ, "-top", "3"), "\nand 258 more; ")
	if all := report(environ, "-top", "0"); strings.Count(all, "\na-person") != n || strings.Contains(all, "\nand ") {
		t.Error(all)
	}
	if text := report(environ, "-summary"); strings.Contains(text, "@university") || !strings.Contains(text, "NO-GO: 260 clients") || strings.Count(text, "\n") > 15 {
		t.Error(text)
	}
	if text := report(environ, "-format", "json", "-summary"); strings.Contains(text, "@university") || !strings.Contains(text, `"left": 261`) {
		t.Errorf("%.2000s", text)
	}
	if strings.Contains(report(environ), "name-77@university.example.org ") {
		t.Error("it is as wide as it likes")
	}
	contains(report(append(environ, "COLUMNS=140"), "-top", "0"), "a-person-with-a-rather-long-name-77@university.example.org ")
}

func TestTheListToWriteTo(t *testing.T) {
	_, environ := sqliteWith(t, plainly, annaComes, bertComes, scannerComes, guesserComes, refusedComes)
	file := filepath.Join(t.TempDir(), "policy.yaml")
	text := "mode: observe\nrules:\n  - name: warehouse\n    mode: observe\n    match: {client: [10.20.0.0/16]}\n    until: 2026-12-31T00:00:00Z\n    owner: facilities@example.org\n" +
		"  - name: k9\n    mode: enforce\n    match: {version: [tls1.1]}\n" +
		"  - name: ramp\n    mode: enforce\n    share: {from: 0%, to: 100%, by: client}\n    from: 2026-11-30T00:00:00Z\n    until: 2026-12-10T00:00:00Z\n" +
		"  - name: cutover\n    mode: enforce\n    from: 2026-12-10T00:00:00Z\n"
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	environ = append(environ, "POSTERN_POLICY_FILE="+file)
	o := runAt(t, reportNow, environ, "report", "-mail", "-format", "csv")
	rows, err := csv.NewReader(strings.NewReader(o.stdout)).ReadAll()
	if err != nil || o.code != exitOK || len(rows) != 4 {
		t.Fatalf("exit %d, %s, %v\n%s", o.code, o.stderr, err, o.stdout)
	}
	if got := strings.Join(rows[1], ","); !strings.HasPrefix(got, "bert@example.org,0,") {
		t.Error(got)
	}
	// Anna is somewhere in the ramp, before the cutover in 14 days.
	until, err := time.Parse(time.RFC3339, rows[2][2])
	if err != nil || rows[2][0] != "anna@example.org" || until.After(time.Date(2026, 12, 10, 0, 0, 0, 0, time.UTC)) || until.Before(time.Date(2026, 11, 30, 0, 0, 0, 0, time.UTC)) {
		t.Error(rows[2], err)
	}
	step := runAt(t, until, environ, "plan", "-at", until.Format(time.RFC3339), "-client", "192.0.2.7", "-version", "tls1.0").stdout
	before := runAt(t, until, environ, "plan", "-at", until.Add(-2*time.Second).Format(time.RFC3339), "-client", "192.0.2.7", "-version", "tls1.0").stdout
	if !strings.Contains(step, "enforce") || strings.Contains(strings.SplitN(before, "\n", 2)[0], "enforce") {
		t.Errorf("plan says at %v\n%s\nand before\n%s", until, step, before)
	}
	if got := strings.Join(rows[3], ","); !strings.HasPrefix(got, "scan@example.org,35,2026-12-31T00:00:00Z,facilities@example.org,warehouse,") {
		t.Error(got)
	}
	if o := runAt(t, reportNow, append(environ, "POSTERN_LEDGER_IDENTITY=off"), "report", "-mail"); o.code != exitUsage || !strings.Contains(o.stderr, "POSTERN_LEDGER_IDENTITY is off") {
		t.Errorf("exit %d, %s", o.code, o.stderr)
	}
}

// TestAnOperatorNamesPatterns that a report prints, and the next one has the name.
func TestAnOperatorNamesPatterns(t *testing.T) {
	device, curl := annaComes, bertComes
	device.software, device.pattern = "", "imaps aaa.01 LOGIN:quoted:quoted"
	curl.software, curl.pattern = "", "imaps A001 CAPABILITY AUTHENTICATE:PLAIN:ir"
	_, environ := sqliteWith(t, plainly, device, curl, scannerComes)
	report := func(args ...string) string {
		t.Helper()
		o := runAt(t, reportNow, environ, append([]string{"report"}, args...)...)
		if o.code != 0 {
			t.Fatalf("%q: exit code %d: %s", args, o.code, o.stderr)
		}
		return o.stdout
	}
	const head = "# Write the names in the place of ?: pattern, names, versions, last seen, clients.\n"
	printed := report("-patterns")
	if want := head + device.pattern + "\t?\t\t2026-11-25\t1 client, left\n"; printed != want {
		t.Errorf("printed is\n%swant\n%s", printed, want)
	}
	file := filepath.Join(t.TempDir(), "programs.txt")
	environ = append(environ, "POSTERN_PROGRAMS_FILE="+file)
	write := func(text string) {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(printed) // nothing is named so far
	if again := report("-patterns"); again != printed {
		t.Errorf("printed again is\n%s", again)
	}
	if same := report("-format", "patterns"); same != printed {
		t.Errorf("as a format it is\n%s", same)
	}
	write(strings.Replace(printed, "?\t", "Scan-o-mat\t", 1))
	if got := report("-patterns"); got != head {
		t.Errorf("once it has a name: %s", got)
	}
	for args, want := range map[string]string{
		"-by program":             "like Scan-o-mat  1         1.0  1 ",
		"-by software":            "Without a known program: ",
		"-by account":             "anna@example.org  like Scan-o-mat  1.0  1 ",
		"-by program -format csv": "like Scan-o-mat,left,1,1,ok,anna@example.org,,",
	} {
		if got := report(strings.Fields(args)...); !strings.Contains(got, want) {
			t.Errorf("%s has no %q:\n%s", args, want, got)
		}
	}
	write("imaps 1 X\n")
	if o := runAt(t, reportNow, environ, "report"); o.code != 2 || !strings.Contains(o.stderr, file+":1: the name is missing") {
		t.Errorf("a wrong file: exit code %d, %s", o.code, o.stderr)
	}
}

// A reader that has seen enough is no fault.
func TestAReportIntoAPipeThatCloses(t *testing.T) {
	_, environ := sqliteWith(t, plainly, annaComes)
	plan := "plan -policy " + policyFile(t, "mode: enforce\n")
	for args, code := range map[string]int{"report -format csv": exitOK, "report -ready": exitNo, strings.Replace(plan, "plan", "replay", 1): exitOK, plan: exitOK} {
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		r.Close()
		var stderr buffer
		got := run(t.Context(), system{args: strings.Fields(args), environ: environ, stdout: w, stderr: &stderr, now: func() time.Time { return reportNow }})
		w.Close()
		if got != code || stderr.String() != "" {
			t.Errorf("%s: exit %d, %q", args, got, stderr.String())
		}
	}
}

func TestForgettingSomethingThatIsNotThere(t *testing.T) {
	_, environ := sqliteWith(t, plainly, annaComes)
	for _, who := range []string{"nobody@example.org", "192.0.2.99"} {
		o := runAt(t, reportNow, environ, "report", "-forget", who)
		if o.code != exitNo || o.stdout != "" || !strings.HasPrefix(o.stderr, `postern report: -forget: nothing about "`+who+`" is in sqlite:`) {
			t.Errorf("exit %d, %q, %q", o.code, o.stdout, o.stderr)
		}
	}
}

func TestAHashedReportIsResolvedAndForgotten(t *testing.T) {
	dir := t.TempDir()
	keyFile, list := filepath.Join(dir, "key"), filepath.Join(dir, "accounts")
	const key = "0123456789abcdef"
	for file, text := range map[string]string{keyFile: key + "\n", list: "Anna@example.org\nzoe@example.org\n"} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	hash := func(account string) string { return ledger.HashAccount([]byte(key), account) }
	_, environ := sqliteWith(t, hash, annaComes, bertComes)
	environ = append(environ, "POSTERN_LEDGER_IDENTITY=hashed", "POSTERN_LEDGER_IDENTITY_KEY_FILE="+keyFile)
	if o := runAt(t, reportNow, environ, "report"); o.code != exitOK || !strings.Contains(o.stdout, "h:") || strings.Contains(o.stdout, "anna") {
		t.Errorf("exit %d, %q\n%s", o.code, o.stderr, o.stdout)
	}
	o := runAt(t, reportNow, environ, "report", "-accounts", list)
	if o.code != exitOK || !strings.Contains(o.stdout, "\nAnna@example.org ") || !strings.Contains(o.stdout, "\nh:") ||
		!strings.Contains(o.stdout, "\nAccounts that -accounts could not resolve: 1.\n") {
		t.Errorf("exit %d, %q\n%s", o.code, o.stderr, o.stdout)
	}
	if o = runAt(t, reportNow, environ, "report", "-forget", "anna@example.org"); o.code != exitOK || !strings.HasPrefix(o.stdout, `Erased 1 row about "anna@example.org" from sqlite:`) {
		t.Errorf("exit %d, %q\n%s", o.code, o.stderr, o.stdout)
	}
	o = runAt(t, reportNow, environ, "report", "-accounts", list)
	if strings.Contains(o.stdout, "Anna") || !strings.Contains(o.stdout, "Without a known account: 192.0.2.7") {
		t.Errorf("exit %d, %q\n%s", o.code, o.stderr, o.stdout)
	}
	if o = runAt(t, reportNow, environ, "report", "-forget", "192.0.2.7"); o.code != exitOK || !strings.HasPrefix(o.stdout, `Erased 2 rows about "192.0.2.7" from sqlite:`) {
		t.Errorf("exit %d, %q\n%s", o.code, o.stderr, o.stdout)
	}
	if o = runAt(t, reportNow, environ, "report"); strings.Contains(o.stdout, "192.0.2.7") || !strings.Contains(o.stdout, "NO-GO: 1 client") {
		t.Error(o.stdout)
	}
}

func TestWhatAReportCannotAnswer(t *testing.T) {
	free := "POSTERN_ADMIN_LISTEN=" + posterntest.FreeAddr(t)
	gone := filepath.Join(t.TempDir(), "gone.db")
	const more = "; postern report -h says what it takes\n"
	for _, tt := range []struct {
		environ []string
		args    []string
		code    int
		stderr  string
	}{
		{[]string{free, "POSTERN_LEDGER_RETENTION=9d"}, nil, 3, "postern report: no instance answers at " + free[len("POSTERN_ADMIN_LISTEN="):] +
			", and POSTERN_LEDGER_URL is memory:, which only a running instance has: start it, set POSTERN_ADMIN_LISTEN to its admin port, or name that with -from\n"},
		{[]string{free, "POSTERN_LEDGER_URL=sqlite:" + gone}, nil, 3, "postern report: no instance answers at "},
		{[]string{"POSTERN_LEDGER_URL=mysql://x:secret@h/d", "POSTERN_ADMIN_LISTEN=here"}, nil, 2, "POSTERN_ADMIN_LISTEN: "},
		{[]string{"POSTERN_POLICY_FILE=gone.yaml", free}, nil, 2, "postern report: gone.yaml: no such file or directory: create it, or mend the name, which counts from the working directory\n"},
		{[]string{"POSTERN_ADMIN_TOKEN_FILE=" + gone}, nil, 2, "postern report: POSTERN_ADMIN_TOKEN_FILE: " + gone + ": no such file or directory: create it, or mend the name\n"},
		{[]string{free}, []string{"-from", "http://" + free[len("POSTERN_ADMIN_LISTEN="):]}, 3, "postern report: asking http://127.0.0.1:"},
		{nil, []string{"-from", "127.0.0.1:9993"}, 2, "postern report: -from: not the URL of an admin port: write one such as http://127.0.0.1:9993\n"},
		{nil, []string{"-from", ""}, 2, "postern report: -from: its value is missing: write -from URL" + more},
		{nil, []string{"-since", "2w"}, 2, `postern report: -since: "2w" is neither a date nor a duration: write a date as 2026-11-01, or how far to look back as 36h or 30d` + more},
		{nil, []string{"-by", "color"}, 2, `postern report: -by: "color" is none of account, domain, network, program, software` + more},
		{nil, []string{"-format", "pdf"}, 2, `postern report: -format: "pdf" is none of text, markdown, csv, json, or cyclonedx for an inventory` + more},
		{nil, []string{"-max", "-1"}, 2, `postern report: -max: "-1": write a whole number from 0 on, as in 5` + more},
		{nil, []string{"-forget", "a", "-ready"}, 2, "postern report: -forget: does not go with -ready: leave that out" + more},
		{nil, []string{"-inventory", "-ready"}, 2, "postern report: -inventory: does not go with -ready: leave that out" + more},
		{nil, []string{"-format", "cyclonedx", "-summary"}, 2, "postern report: -inventory: does not go with -summary: leave that out" + more},
		{nil, []string{"-patterns", "-summary"}, 2, "postern report: -patterns: does not go with -summary: leave that out" + more},
		{nil, []string{"-patterns", "-since", "3d", "-by", "account"}, 2, "postern report: -patterns: does not go with -by: leave that out" + more},
		{[]string{"POSTERN_LEDGER_URL=memory:"}, []string{"-forget", "a"}, 2, "postern report: -forget: POSTERN_LEDGER_URL is memory:, which only the running instance has: restart it, and all is forgotten\n"},
		{[]string{"POSTERN_LEDGER_URL=sqlite:" + gone}, []string{"-forget", "a"}, 3, "postern report: POSTERN_LEDGER_URL: "},
		{nil, []string{"-accounts", gone}, 2, "postern report: -accounts: set POSTERN_LEDGER_IDENTITY_KEY_FILE to the file of the key that accounts are hashed with, as serve has it (-env FILE)\n"},
		{nil, []string{"now"}, 2, `postern report: unexpected argument "now": a value stands behind its flag, one of -accounts, -by, -candidate, -env, -forget, -format, -from, -max, -max-unknown, -policy, -since, -top` + more},
		{nil, []string{"since", "14d"}, 2, `postern report: unexpected argument "since": did you mean -since? postern report -h says what it takes` + "\n"},
	} {
		o := runAt(t, reportNow, tt.environ, append([]string{"report"}, tt.args...)...)
		if o.code != tt.code || o.stdout != "" || !strings.HasPrefix(o.stderr, tt.stderr) || strings.Contains(o.stderr, "secret") {
			t.Errorf("%v %q: exit %d, stdout %q, stderr\n%s\nwant %d\n%s", tt.environ, tt.args, o.code, o.stdout, o.stderr, tt.code, tt.stderr)
		}
	}
	if _, err := os.Stat(gone); err == nil {
		t.Error("the missing ledger has been made")
	}
}

func TestWhatAnInstanceRefusesSaysWhatToDo(t *testing.T) {
	token := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(token, []byte("0123456789abcdef\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		status int
		token  bool
		code   int
		says   string
	}{
		{401, false, 2, " wants its token: name the file in POSTERN_ADMIN_TOKEN_FILE\n"},
		{401, true, 2, " does not take the token in POSTERN_ADMIN_TOKEN_FILE: use the file that Postern reads\n"},
		{404, false, 2, " its API is off (off loopback it needs POSTERN_ADMIN_TOKEN_FILE)\n"},
		{421, false, 2, " does not answer to that name: ask by its IP address, or "},
		{429, true, 3, " has had too many wrong tokens from here: wait 42 seconds, and see that POSTERN_ADMIN_TOKEN_FILE is right\n"},
		{302, false, 3, "status 302 Found: "},
		{503, false, 3, `status 503 Service Unavailable: "the ledger cannot be read now"`},
	} {
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if given := r.Header.Get("Authorization"); tt.token != (given == "Bearer 0123456789abcdef") {
				t.Errorf("%d: the token is %q", tt.status, given)
			}
			w.Header().Set("Retry-After", "42")
			w.Header().Set("Location", "/elsewhere")
			w.WriteHeader(tt.status)
			io.WriteString(w, `{"error": "the ledger cannot be read now"}`)
		}))
		listen := s.Listener.Addr().String()
		environ := []string{"POSTERN_ADMIN_LISTEN=" + listen, "POSTERN_LEDGER_URL=sqlite:/nonexistent/ledger.db"}
		if tt.token {
			environ = append(environ, "POSTERN_ADMIN_TOKEN_FILE="+token)
		}
		for _, args := range [][]string{{"report"}, {"report", "-ready"}, {"report", "-from", "http://" + listen + "/"}, {"replay", "-policy", exemptionFile(t)}} {
			o := runAt(t, reportNow, environ, args...)
			if o.code != tt.code || o.stdout != "" || !strings.Contains(o.stderr, listen) || !strings.Contains(o.stderr, tt.says) || strings.Count(o.stderr, "\n") != 1 {
				t.Errorf("%d %q: exit %d, %q", tt.status, args, o.code, o.stderr)
			}
		}
		s.Close()
	}
}

// What is asked with TLS and speaks none, or the other way round, is said; so is
// another program.
func TestAnAdminPortThatSpeaksOtherwise(t *testing.T) {
	pair := posterntest.NewCA(t).Issue(t, []string{"localhost"}, posterntest.ECDSA)
	loaded, err := tls.LoadX509KeyPair(pair.CertFile, pair.KeyFile)
	if err != nil {
		t.Fatal(err)
	}
	plain, secure := httptest.NewServer(http.NotFoundHandler()), httptest.NewUnstartedServer(http.NotFoundHandler())
	secure.TLS = &tls.Config{Certificates: []tls.Certificate{loaded}}
	secure.Config.ErrorLog = log.New(io.Discard, "", 0)
	secure.StartTLS()
	mail, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		for {
			conn, err := mail.Accept()
			if err != nil {
				return
			}
			io.WriteString(conn, "* OK ready\r\n")
			conn.Close()
		}
	}()
	t.Cleanup(func() { plain.Close(); secure.Close(); mail.Close() })
	if err := adminError(errors.New("readLoopPeekFailLocked: %!w(<nil>)")); err.Error() != "it speaks before it is asked: "+notAdmin {
		t.Error(err)
	}
	at := func(s *httptest.Server) string { return "POSTERN_ADMIN_LISTEN=" + s.Listener.Addr().String() }
	own := "POSTERN_ADMIN_TLS_CERT_FILE=" + pair.CertFile
	for _, tt := range []struct {
		environ, args []string
		says          string
	}{
		{[]string{at(secure)}, []string{"healthcheck"}, "speaks TLS: write https://, or name its certificate in POSTERN_ADMIN_TLS_CERT_FILE\n"},
		{[]string{at(secure)}, []string{"report"}, "speaks TLS: write https://, or name its certificate in POSTERN_ADMIN_TLS_CERT_FILE\n"},
		{nil, []string{"report", "-from", strings.Replace(secure.URL, "127.0.0.1", "localhost", 1)}, "name its certificate in POSTERN_ADMIN_TLS_CERT_FILE\n"},
		{[]string{own}, []string{"report", "-from", secure.URL}, "ask by a name or an address that is in its certificate\n"},
		{[]string{at(plain), own}, []string{"healthcheck"}, "speaks no TLS: write http://, and leave POSTERN_ADMIN_TLS_CERT_FILE out\n"},
		{nil, []string{"report", "-from", "http://" + mail.Addr().String()}, "it is not Postern's admin port: set POSTERN_ADMIN_LISTEN to that\n"},
	} {
		if o := runAt(t, reportNow, tt.environ, tt.args...); o.code == exitOK || !strings.HasSuffix(o.stderr, tt.says) || strings.Count(o.stderr, "\n") != 1 {
			t.Errorf("%q: exit %d, %q, want %q", tt.args, o.code, o.stderr, tt.says)
		}
	}
}

// An instance of an older version gets no question that it does not understand, and
// one that is busy is asked again.
func TestAReportOfAnInstanceThatIsBusyOrOlder(t *testing.T) {
	var asked []string
	busy := true
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked = append(asked, r.URL.RawQuery)
		if r.URL.Query().Has("width") {
			w.WriteHeader(http.StatusBadRequest)
			io.WriteString(w, `{"error": "unknown parameter \"width\": use since, by"}`)
			return
		}
		if busy {
			busy = false
			w.Header().Set("Retry-After", "5")
			w.WriteHeader(http.StatusServiceUnavailable)
			io.WriteString(w, `{"error": "another report is being made: ask again in some seconds"}`)
			return
		}
		io.WriteString(w, `{"by": "account", "identity": "plain", "readiness": {"remaining": 2, "reasons": ["2 came."]}, "totals": {"clients": 2},
			"left": [{"name": "anna@example.org", "clients": 2, "remaining": 2, "versions": ["tls1.0"], "login": "ok"}], "tell": [], "exempted": [], "noise": []}`)
	}))
	defer s.Close()
	o := runAt(t, reportNow, []string{"POSTERN_ADMIN_LISTEN=" + s.Listener.Addr().String()}, "report", "-ready")
	if o.code != exitNo || !strings.HasPrefix(o.stdout, "NO-GO: 2 clients with old TLS are left.\n") || !strings.Contains(o.stdout, "\nanna@example.org  1.0  2 ") || o.stderr != "" {
		t.Errorf("exit %d, %q\n%s", o.code, o.stderr, o.stdout)
	}
	if len(asked) != 3 || !strings.Contains(asked[0], "format=text") || strings.Contains(asked[2], "width") {
		t.Errorf("asked %q", asked)
	}
}

// What breaks off is no report.
func TestAnInstanceThatBreaksOff(t *testing.T) {
	silent := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }))
	defer silent.Close()
	const says = "it has ended meanwhile (ask again), or it is not Postern's admin port: "
	if o := runAt(t, reportNow, nil, "report", "-from", silent.URL); o.code != exitBroken || !strings.Contains(o.stderr, says) {
		t.Errorf("before the first byte: exit %d, %q", o.code, o.stderr)
	}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Trailer", "Postern-Report")
		io.WriteString(w, "GO: nobody with old TLS is left.\n")
		http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	}))
	defer s.Close()
	o := runAt(t, reportNow, []string{"POSTERN_ADMIN_LISTEN=" + s.Listener.Addr().String()}, "report", "-ready")
	if o.code != exitBroken || !strings.Contains(o.stderr, "reading the answer of ") || !strings.HasSuffix(o.stderr, ": it has ended meanwhile, or its log says why: ask again\n") {
		t.Errorf("exit %d, %q\n%s", o.code, o.stderr, o.stdout)
	}
}

// Another program that listens on the admin port does not get the token.
func TestTheTokenGoesToPosternAlone(t *testing.T) {
	token := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(token, []byte("0123456789abcdef\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	ca := posterntest.NewCA(t)
	own, other := ca.Issue(t, []string{"admin.example.org"}, posterntest.ECDSA), ca.Issue(t, []string{"admin.example.org", "127.0.0.1"}, posterntest.ECDSA)
	for _, tt := range []struct {
		serves, named string
		key           string
		from          string
		code          int
	}{
		{own.CertFile, own.CertFile, own.KeyFile, "", 0},
		{other.CertFile, own.CertFile, other.KeyFile, "", 3},
		{own.CertFile, own.CertFile, own.KeyFile, "https", 3}, // it has another name
		{other.CertFile, other.CertFile, other.KeyFile, "https", 0},
		{other.CertFile, own.CertFile, other.KeyFile, "https", 3},
	} {
		cert, err := tls.LoadX509KeyPair(tt.serves, tt.key)
		if err != nil {
			t.Fatal(err)
		}
		asked := false
		s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			asked = true
			json.NewEncoder(w).Encode(map[string]any{"by": "network"})
		}))
		s.Config.ErrorLog = log.New(io.Discard, "", 0)
		s.TLS = &tls.Config{Certificates: []tls.Certificate{cert}}
		s.StartTLS()
		listen := s.Listener.Addr().String()
		args := []string{"report"}
		if tt.from != "" {
			args = append(args, "-from", tt.from+"://"+listen)
		}
		o := runAt(t, reportNow, []string{"POSTERN_ADMIN_LISTEN=" + listen, "POSTERN_ADMIN_TLS_CERT_FILE=" + tt.named, "POSTERN_ADMIN_TOKEN_FILE=" + token}, args...)
		s.Close()
		if o.code != tt.code || asked != (tt.code == 0) {
			t.Errorf("%+v: exit %d, asked %v, %q", tt, o.code, asked, o.stderr)
		}
	}
}

func TestAReportIsReadWhileOthersWrite(t *testing.T) {
	url, environ := sqliteWith(t, plainly, annaComes)
	store, err := ledger.Open(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		for i := 0; ctx.Err() == nil; i++ {
			remember(t, store, plainly, visit{client: fmt.Sprintf("198.51.100.%d", i%200), version: policy.TLS10, account: "x@example.org"})
		}
	}()
	for range 5 {
		if o := runAt(t, reportNow, environ, "report"); o.code != exitOK || !strings.Contains(o.stdout, "anna@example.org") {
			t.Errorf("exit %d, %q\n%s", o.code, o.stderr, o.stdout)
		}
	}
	cancel()
	<-done
}
