// Package report asks running proxies, as an operator does, who is left.
package report

import (
	"bytes"
	"crypto/tls"
	"database/sql"
	"errors"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	_ "github.com/jackc/pgx/v5/stdlib" // registers pgx

	"postern/internal/posterntest"
	"postern/internal/postgrestest"
)

func TestMain(m *testing.M) { posterntest.Main(m) }

// told is what a command said.
type told struct {
	code           int
	stdout, stderr string
}

// ask runs a command of the binary in an environment of its own.
func ask(t *testing.T, env []string, args ...string) told {
	t.Helper()
	var stdout, stderr bytes.Buffer
	cmd := exec.Command(posterntest.Binary(t), args...)
	cmd.Env, cmd.Stdout, cmd.Stderr = append(env, "GORACE=atexit_sleep_ms=20"), &stdout, &stderr
	var exit *exec.ExitError
	if err := cmd.Run(); err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return told{cmd.ProcessState.ExitCode(), stdout.String(), stderr.String()}
}

// untilToldBy asks again until the ledger has been written.
func untilToldBy(t *testing.T, env []string, want string, args ...string) told {
	t.Helper()
	deadline := time.Now().Add(time.Minute)
	for {
		a := ask(t, env, args...)
		if strings.Contains(a.stdout, want) {
			return a
		}
		if time.Now().After(deadline) {
			t.Fatalf("%q is not told: exit %d, %s\n%s", want, a.code, a.stderr, a.stdout)
		}
		time.Sleep(200 * time.Millisecond)
	}
}

// logIn is an old client that logs in.
func logIn(t *testing.T, g *posterntest.Proxy, from string, version uint16) {
	t.Helper()
	old := posterntest.Caller{From: from, TLS: &tls.Config{MinVersion: tls.VersionTLS10, MaxVersion: version}}
	c, err := old.Login(g, "imaps", "anna@example.org", "secret")
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
}

func writeFile(t *testing.T, name, text string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

const token = "correct horse battery staple"

// The ledger is the running proxy's own: only that can tell.
func TestARunningProxyReports(t *testing.T) {
	up := posterntest.StartUpstream(t, posterntest.IMAPGreeting, posterntest.IMAPReply)
	file := writeFile(t, "token", strings.ReplaceAll(token, " ", "-")+"\n")
	g := posterntest.Start(t, map[string]string{
		"UPSTREAM_IMAP": up.URL("imap"), "POLICY_MODE": "observe", "LEDGER_IDENTITY": "plain", "ADMIN_TOKEN_FILE": file,
	})
	env := []string{"POSTERN_ADMIN_LISTEN=" + g.Admin(), "POSTERN_ADMIN_TOKEN_FILE=" + file}
	if a := ask(t, env, "report", "-ready"); a.code != 0 || !strings.HasPrefix(a.stdout, "GO: no client with old TLS is left, as far as the ledger goes back: to ") ||
		!strings.Contains(a.stdout, "it knows nothing from before Postern was started.\n") {
		t.Errorf("before: exit %d, %s\n%s", a.code, a.stderr, a.stdout)
	}
	logIn(t, g, "127.0.0.7", tls.VersionTLS10)
	logIn(t, g, "127.0.0.8", tls.VersionTLS11)
	logIn(t, g, "127.0.0.9", tls.VersionTLS12)
	g.WaitWritten(t)
	a := untilToldBy(t, env, "NO-GO: 2 clients with old TLS are left.\n", "report", "-ready", "-by", "network")
	if a.code != 1 || !strings.Contains(a.stdout, "\n127.0.0.7 ") || !strings.Contains(a.stdout, "\n127.0.0.8 ") || strings.Contains(a.stdout, "127.0.0.9") {
		t.Errorf("exit %d, %s\n%s", a.code, a.stderr, a.stdout)
	}
	if a = ask(t, env, "report", "-ready", "-max", "2"); a.code != 0 {
		t.Errorf("two may remain: exit %d\n%s", a.code, a.stdout)
	}
	// Another policy exempts one of the two; the ledger is still the instance's.
	other := writeFile(t, "other.yaml", "mode: enforce\nrules:\n  - {name: printer, mode: observe, match: {client: [127.0.0.7]}, until: 2099-12-31T00:00:00Z, owner: it@example.org}\n")
	a = ask(t, env, "report", "-policy", other, "-by", "network")
	if !strings.Contains(a.stdout, "NO-GO: 1 client with old TLS is left.\n") || !strings.Contains(a.stdout, "printer") || !strings.Contains(a.stdout, other) ||
		!strings.Contains(a.stdout, "\nall  all       2        2 ") {
		t.Errorf("by another policy: exit %d, %s\n%s", a.code, a.stderr, a.stdout)
	}
	for _, format := range []string{"text", "markdown", "csv", "json"} {
		// One code writes it, here and there, but for the time.
		here := ask(t, env, "report", "-by", "network", "-format", format)
		there := get(t, "http://"+g.Admin()+"/api/v1/report?by=network&format="+format)
		if cut(here.stdout) != cut(there) || here.code != 0 || !strings.Contains(there, "127.0.0.7") {
			t.Errorf("%s: exit %d, the command says\n%s\nand the instance\n%s", format, here.code, here.stdout, there)
		}
	}
	var hellos string
	if hellos = get(t, "http://"+g.Admin()+"/api/v1/hellos"); strings.Count(hellos, `"cipher_suites"`) != 2 {
		t.Error(hellos)
	}
	wrong := []string{"POSTERN_ADMIN_LISTEN=" + g.Admin(), "POSTERN_ADMIN_TOKEN_FILE=" + writeFile(t, "wrong", "0123456789abcdef")}
	if a = ask(t, wrong, "report"); a.code != 2 || !strings.Contains(a.stderr, "does not take the token in POSTERN_ADMIN_TOKEN_FILE") {
		t.Errorf("exit %d, %s", a.code, a.stderr)
	}
	for range 12 {
		a = ask(t, wrong, "report", "-from", "http://"+g.Admin())
	}
	if a.code != 3 || !strings.Contains(a.stderr, "too many wrong tokens") {
		t.Errorf("exit %d, %s", a.code, a.stderr)
	}
}

// cut leaves out the times of an answer.
func cut(s string) string {
	var kept []string
	for line := range strings.Lines(s) {
		if !strings.Contains(line, `"now"`) && !strings.Contains(line, `"since"`) && !strings.HasPrefix(line, "From ") && !strings.Contains(line, " since ") {
			kept = append(kept, line)
		}
	}
	return strings.Join(kept, "")
}

func get(t *testing.T, url string) string {
	t.Helper()
	req, err := http.NewRequest(http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+strings.ReplaceAll(token, " ", "-"))
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != 200 {
		t.Errorf("%s: %v, %v", url, resp.Status, err)
	}
	return string(body)
}

// TestALedgerThatCannotBeWrittenIsNoGo: what waits is nobody who is gone.
func TestALedgerThatCannotBeWrittenIsNoGo(t *testing.T) {
	database := postgrestest.New(t)
	url := database.NewDatabase(t)
	db, err := sql.Open("pgx", url)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	db.SetMaxOpenConns(1) // one that stays writable
	name, _, _ := strings.Cut(url[strings.LastIndexByte(url, '/')+1:], "?")
	do := func(statement string) {
		t.Helper()
		if _, err := db.ExecContext(t.Context(), statement); err != nil {
			t.Fatal(err)
		}
	}
	do("ALTER DATABASE " + name + " SET default_transaction_read_only = on")
	up := posterntest.StartUpstream(t, posterntest.IMAPGreeting, posterntest.IMAPReply)
	g := posterntest.Start(t, map[string]string{
		"UPSTREAM_IMAP": up.URL("imap"), "POLICY_MODE": "observe", "LEDGER_IDENTITY": "plain", "LEDGER_URL": url,
	})
	for _, from := range []string{"127.0.0.7", "127.0.0.8"} {
		logIn(t, g, from, tls.VersionTLS10)
	}
	env := []string{"POSTERN_ADMIN_LISTEN=" + g.Admin()}
	// Not even the tables can be made.
	until(t, func() string { return get(t, "http://"+g.Admin()+"/readyz") }, "ledger: 2 clients not written since ")
	if a := ask(t, env, "report", "-ready"); a.code != 3 || strings.Contains(a.stdout, "GO") || !strings.Contains(a.stderr, "postern report: ") {
		t.Errorf("without tables: exit %d, %s\n%s", a.code, a.stderr, a.stdout)
	}
	do("ALTER DATABASE " + name + " RESET default_transaction_read_only")
	a := untilToldBy(t, env, "NO-GO: 2 clients with old TLS are left.\n", "report", "-ready")
	if a.code != 1 {
		t.Errorf("exit %d, %s", a.code, a.stderr)
	}
	do("ALTER DATABASE " + name + " SET default_transaction_read_only = on")
	do("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '" + name + "' AND pid <> pg_backend_pid()")
	logIn(t, g, "127.0.0.9", tls.VersionTLS10)
	a = untilToldBy(t, env, "NOT KNOWN: 1 client not written since ", "report", "-ready", "-max", "100")
	if a.code != 3 || a.stderr != "postern report: "+strings.SplitAfter(a.stdout, "\n")[0] || !strings.Contains(a.stdout, "The ledger postgres://") {
		t.Errorf("exit %d, %s\n%s", a.code, a.stderr, a.stdout)
	}
	for path, want := range map[string]string{
		"/readyz": "ledger: 1 client not written since ", "/api/v1/legacy-clients": `"unwritten": 1`, "/": "The ledger cannot be written: 1 client not written since ",
		"/metrics": "\npostern_ledger_pending 1\n",
	} {
		if body := get(t, "http://"+g.Admin()+path); !strings.Contains(body, want) {
			t.Errorf("%s does not say %q:\n%s", path, want, body)
		}
	}
	other := []string{"POSTERN_ADMIN_LISTEN=" + g.Admin(), "POSTERN_LEDGER_URL=" + url, "POSTERN_LEDGER_IDENTITY=plain"}
	// Neither a list without a verdict nor a replay is silent of it.
	const unwritten = "postern report: NOT KNOWN: 1 client not written since "
	for _, args := range []string{"report -mail", "report -format csv"} {
		if a := ask(t, env, strings.Fields(args)...); a.code != 0 || !strings.HasPrefix(a.stderr, unwritten) {
			t.Errorf("%s: exit %d, %q", args, a.code, a.stderr)
		}
	}
	next := writeFile(t, "next.yaml", "mode: enforce\n")
	if a := ask(t, env, "replay", "-policy", next); a.code != 0 || !strings.Contains(a.stdout, "\nThe ledger cannot be written: 1 client that came since is not among these.\n") {
		t.Errorf("replay: exit %d, %s\n%s", a.code, a.stderr, a.stdout)
	}
	if a := ask(t, other, "report", "-ready", "-max", "100", "-policy", writeFile(t, "policy.yaml", "mode: enforce\n")); a.code != 3 || !strings.HasPrefix(a.stdout, "NOT KNOWN: 1 client ") {
		t.Errorf("by another policy: exit %d, %s\n%s", a.code, a.stderr, a.stdout)
	}
	if log := g.Stderr(); !strings.Contains(log, `"msg":"writing the ledger failed, trying again","ledger":"postgres://`) {
		t.Errorf("the log does not name the ledger:\n%s", log)
	}
	do("ALTER DATABASE " + name + " RESET default_transaction_read_only")
	untilToldBy(t, env, "NO-GO: 3 clients with old TLS are left.\n", "report", "-ready")
}

// until asks again until the answer has some words.
func until(t *testing.T, ask func() string, want string) {
	t.Helper()
	answer := ""
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(200 * time.Millisecond) {
		if answer = ask(); strings.Contains(answer, want) {
			return
		}
	}
	t.Fatalf("%q is not said, but\n%s", want, answer)
}

// TestHealthChecksOfHAProxyAreNoise has its checks by TLS, by the hello of SSL 3.0
// and by TCP alone beside a person, who is let in or not.
func TestHealthChecksOfHAProxyAreNoise(t *testing.T) {
	haproxy, err := exec.LookPath("haproxy")
	if err != nil {
		t.Fatal(err)
	}
	up := posterntest.StartUpstream(t, posterntest.IMAPGreeting, posterntest.IMAPReply)
	for _, mode := range []string{"observe", "enforce"} {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			g := posterntest.Start(t, map[string]string{"UPSTREAM_IMAP": up.URL("imap"), "POLICY_MODE": mode, "LEDGER_IDENTITY": "plain"})
			config := writeFile(t, "haproxy.cfg", strings.NewReplacer("{gate}", g.Addr("imaps"), "{front}", posterntest.FreeAddr(t)).Replace(`
defaults
  mode tcp
  timeout connect 5s
  timeout client 5s
  timeout server 5s
  default-server inter 1s
frontend f
  bind {front}
  default_backend ssl3
backend ssl3
  option ssl-hello-chk
  server s {gate} check source 127.0.2.1
backend tcp
  server s {gate} check source 127.0.2.2
backend tls
  server s {gate} check check-ssl verify none ssl-min-ver TLSv1.0 ssl-max-ver TLSv1.0 ciphers ALL:@SECLEVEL=0 source 127.0.2.3
`))
			h := exec.Command(haproxy, "-db", "-f", config)
			if err := h.Start(); err != nil {
				t.Fatal(err)
			}
			defer h.Wait()
			defer h.Process.Kill()
			person := posterntest.Caller{From: "127.0.0.7", TLS: &tls.Config{MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS10}}
			if c, err := person.Login(g, "imaps", "anna@example.org", "secret"); err == nil {
				c.Close()
			}
			want := map[string]string{"observe": "In all 1 client: 1 in the way; and 2 as noise.", "enforce": "In all 1 client: 1 never let in; and 2 as noise."}[mode]
			deadline := time.Now().Add(60 * time.Second)
			for {
				a := ask(t, []string{"POSTERN_ADMIN_LISTEN=" + g.Admin()}, "report", "-ready", "-noise", "-by", "network")
				if strings.Contains(a.stdout, want) && a.code == 1 {
					return
				}
				if time.Now().After(deadline) {
					t.Fatalf("exit %d, %s\n%s", a.code, a.stderr, a.stdout)
				}
				time.Sleep(time.Second)
			}
		})
	}
}

// A file outlives the proxy, and can be read beside it.
func TestAStoreOutlivesItsInstance(t *testing.T) {
	up := posterntest.StartUpstream(t, posterntest.IMAPGreeting, posterntest.IMAPReply)
	ledger := "sqlite:" + filepath.Join(t.TempDir(), "ledger.db")
	g := posterntest.Start(t, map[string]string{"UPSTREAM_IMAP": up.URL("imap"), "POLICY_MODE": "observe", "LEDGER_IDENTITY": "plain", "LEDGER_URL": ledger})
	logIn(t, g, "127.0.0.7", tls.VersionTLS10)
	// Nobody listens there: the file is read, though the proxy has it open.
	beside := []string{"POSTERN_ADMIN_LISTEN=" + posterntest.FreeAddr(t), "POSTERN_LEDGER_URL=" + ledger, "POSTERN_LEDGER_IDENTITY=plain", "POSTERN_POLICY_MODE=observe"}
	untilToldBy(t, beside, "\n127.0.0.7 ", "report", "-by", "network")
	// The instance has a process of its own make it.
	if there := get(t, "http://"+g.Admin()+"/api/v1/report?by=network&format=text"); !strings.Contains(there, "\n127.0.0.7 ") || g.ChildFaults(t) == 0 {
		t.Errorf("page faults of its children: %d, and it says\n%s", g.ChildFaults(t), there)
	}
	logIn(t, g, "127.0.0.8", tls.VersionTLS10)
	g.Stop(t)
	env := []string{"POSTERN_ADMIN_LISTEN=" + g.Admin(), "POSTERN_LEDGER_URL=" + ledger, "POSTERN_LEDGER_IDENTITY=plain"}
	if a := ask(t, env, "report", "-ready", "-by", "network"); a.code != 1 || !strings.HasPrefix(a.stdout, "NO-GO: 2 clients") {
		t.Errorf("after the instance has ended: exit %d, %s\n%s", a.code, a.stderr, a.stdout)
	}
	next := writeFile(t, "next.yaml", "mode: enforce\nrules:\n  - name: x\n    mode: observe\n    match: {client: [127.0.0.8]}\n")
	if a := ask(t, env, "replay", "-policy", next); a.code != 0 || !strings.Contains(a.stdout, "refuses 1 of 2 legacy clients") || strings.Contains(a.stdout, "Not known") {
		t.Errorf("exit %d, %s\n%s", a.code, a.stderr, a.stdout)
	}
	if a := ask(t, env, "report", "-forget", "127.0.0.7"); a.code != 0 || !strings.HasPrefix(a.stdout, "Erased ") {
		t.Errorf("exit %d, %s\n%s", a.code, a.stderr, a.stdout)
	}
	if a := ask(t, env, "report", "-ready", "-by", "network"); a.code != 1 || !strings.HasPrefix(a.stdout, "NO-GO: 1 client ") || strings.Contains(a.stdout, "127.0.0.7") {
		t.Errorf("exit %d, %s\n%s", a.code, a.stderr, a.stdout)
	}
	if a := ask(t, env[:1], "report"); a.code != 3 || !strings.Contains(a.stderr, "no instance answers at ") {
		t.Errorf("in memory, and no instance: exit %d, %s", a.code, a.stderr)
	}
}
