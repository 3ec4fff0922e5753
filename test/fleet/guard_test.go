package fleet

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"postern/internal/posterntest"
	"postern/internal/postgrestest"
)

const (
	// letIn lets everybody in, and guarded refuses all but those whom the guard lets in
	// again.
	letIn   = "mode: observe\n"
	guarded = "mode: observe\nrules:\n  - {name: cutover, mode: enforce, guard: {clients: 20, within: 1h, then: observe}}\n"
)

// TestAGuardTakesACutBackEverywhere: 21 clients that had logged in trip it at all replicas
// of one ledger, scanners and the refusals of one client do not. One replica is killed
// while they are counted, and one hands over; both trip as the others do, and one that
// starts later has tripped from the start. A person lets it go.
func TestAGuardTakesACutBackEverywhere(t *testing.T) {
	t.Parallel()
	database := postgrestest.New(t).NewDatabase(t)
	file := filepath.Join(t.TempDir(), "policy.yaml")
	write := func(text string) {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(letIn)
	env := map[string]string{"POLICY_FILE": file, "LEDGER_URL": database, "LEDGER_IDENTITY": "plain"}
	f := start(t, func(int) map[string]string { return env })
	const known = 21
	for i := range known {
		c, err := posterntest.Caller{From: fmt.Sprintf("127.30.0.%d", 1+i), TLS: old}.Login(f.gates[i%replicas], "imaps", fmt.Sprintf("user%d", i), "password")
		if err != nil {
			t.Fatal(err)
		}
		c.Close()
	}
	for _, g := range f.gates {
		g.WaitWritten(t)
	}
	write(guarded)
	f.each(t, "has read the policy", func(g *posterntest.Proxy) bool { return g.Metrics(t).Has("postern_guard_tripped", "rule=cutover") })

	refused := func(g *posterntest.Proxy, from string) bool {
		c, err := posterntest.Caller{From: from, TLS: old}.Open(g, "imaps")
		if err == nil {
			c.Close()
		}
		return err != nil
	}
	// Scanners, which have never logged in, and one client again and again.
	for i := range 300 {
		refused(f.gates[i%replicas], fmt.Sprintf("127.40.%d.%d", i/200, 1+i%200))
		refused(f.gates[i%replicas], "127.30.0.1")
	}
	for i := range known - 1 {
		if !refused(f.gates[i%replicas], fmt.Sprintf("127.30.0.%d", 1+i)) {
			t.Fatal("a client was let in before the guard has tripped")
		}
	}
	tripped := func(want float64) func(*posterntest.Proxy) bool {
		return func(g *posterntest.Proxy) bool {
			return g.Metrics(t).Value("postern_guard_tripped", "rule=cutover") == want
		}
	}
	seen := func(g *posterntest.Proxy) int {
		var state struct{ Guards []struct{ Seen int } }
		_, body, err := g.Get("/api/v1/policy")
		if err != nil || json.Unmarshal([]byte(body), &state) != nil || len(state.Guards) != 1 {
			t.Fatalf("%s, %v", body, err)
		}
		return state.Guards[0].Seen
	}
	f.each(t, "has counted twenty clients", func(g *posterntest.Proxy) bool { return seen(g) == known-1 })
	f.each(t, "has not tripped", tripped(0))
	f.gates[2].Kill(t)
	f.gates[1].Upgrade(t)
	f.each(t, "has counted what was refused before", func(g *posterntest.Proxy) bool { return seen(g) == known-1 })
	f.each(t, "has not tripped", tripped(0))

	begun := time.Now()
	refused(f.gates[0], fmt.Sprintf("127.30.0.%d", known))
	f.each(t, "trips", tripped(1))
	f.each(t, "lets clients in again", func(g *posterntest.Proxy) bool { return !refused(g, "127.30.0.1") })
	if took := time.Since(begun); took > 20*time.Second { // five on a machine that is not busy
		t.Errorf("it took %v", took)
	}
	t.Logf("all replicas let clients in %v after the last refusal", time.Since(begun))
	if lines := f.gates[0].WaitLog(t, "guard tripped", 1); lines[0]["rule"] != "cutover" || lines[0]["clients"] != float64(known) {
		t.Errorf("%v", lines)
	}
	late := f.add(t, env)
	if refused(late, "127.30.0.1") {
		t.Error("a replica that starts later refuses clients")
	}
	if code, out := late.Command("guard"); code != 0 || !strings.Contains(out, "tripped") || !strings.Contains(out, "observe until it is released") {
		t.Errorf("guard: exit code %d\n%s", code, out)
	}
	if code, out := late.Command("plan"); code != 0 || !strings.Contains(out, `The guard of "cutover" tripped`) {
		t.Errorf("plan: exit code %d\n%s", code, out)
	}
	// A guard that is taken out of the file and put back has still tripped.
	write("mode: observe\nrules:\n  - {name: cutover, mode: enforce}\n")
	f.each(t, "has no guard", func(g *posterntest.Proxy) bool { return !g.Metrics(t).Has("postern_guard_tripped", "rule=cutover") })
	f.each(t, "refuses clients without it", func(g *posterntest.Proxy) bool { return refused(g, "127.30.0.1") })
	write(guarded)
	f.each(t, "has it back, still tripped", tripped(1))
	if line := late.WaitLog(t, "guard is still tripped", 1)[0]; line["rule"] != "cutover" || line["release"] != `postern guard -release "cutover"` || line["since"] == nil {
		t.Errorf("%v", line)
	}
	if code, out := late.Command("guard", "-release", "other"); code != 2 || !strings.Contains(out, `no guard of "other"`) {
		t.Errorf("guard -release other: exit code %d\n%s", code, out)
	}
	if code, out := late.Command("guard", "-release", "cutover"); code != 0 || !strings.Contains(out, `The guard of "cutover" is released: the mode is enforce.`) ||
		!strings.Contains(out, "More than 20 known clients within 1h, from ") {
		t.Errorf("guard -release: exit code %d\n%s", code, out)
	}
	f.each(t, "is released", tripped(0))
	if code, out := late.Command("guard", "-release", "cutover"); code != 1 || !strings.Contains(out, `the guard of "cutover": it has not tripped`) {
		t.Errorf("guard -release again: exit code %d\n%s", code, out)
	}
	if code, out := late.Command("guard", "-release", "cutover", "-until", "2026-01-01"); code != 2 || !strings.Contains(out, "that is over") {
		t.Errorf("guard -release -until a time that is over: exit code %d\n%s", code, out)
	}
	f.each(t, "refuses clients again", func(g *posterntest.Proxy) bool { return refused(g, "127.30.0.2") })
	f.each(t, "begins to count anew", func(g *posterntest.Proxy) bool { return refused(g, "127.30.0.2") && seen(g) == 1 })
}

// TestAReportNamesThoseThatTrippedAGuard, and not those that were told why afterwards, at
// whatever replica; once it is released they do not have it trip again.
func TestAReportNamesThoseThatTrippedAGuard(t *testing.T) {
	t.Parallel()
	database := postgrestest.New(t).NewDatabase(t)
	file := filepath.Join(t.TempDir(), "policy.yaml")
	write := func(text string) {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(letIn)
	f := start(t, func(int) map[string]string {
		return map[string]string{"POLICY_FILE": file, "LEDGER_URL": database, "LEDGER_IDENTITY": "plain"}
	})
	address := func(i int) string { return fmt.Sprintf("127.31.0.%d", 1+i) }
	const known = 8
	for i := range known {
		c, err := posterntest.Caller{From: address(i), TLS: old}.Login(f.gates[i%replicas], "imaps", fmt.Sprintf("user%d", i), "password")
		if err != nil {
			t.Fatal(err)
		}
		c.Close()
	}
	written := func() {
		for _, g := range f.gates {
			g.WaitWritten(t)
		}
	}
	written()
	write("mode: observe\nrules:\n  - {name: cutover, mode: enforce, guard: {clients: 2, within: 1h, then: explain}}\n")
	f.each(t, "has read the policy", func(g *posterntest.Proxy) bool { return g.Metrics(t).Has("postern_guard_tripped", "rule=cutover") })
	come := func(from, to int) {
		for i := from; i < to; i++ {
			if c, err := (posterntest.Caller{From: address(i), TLS: old}).Open(f.gates[i%replicas], "imaps"); err == nil {
				c.Close()
			}
		}
	}
	tripped := func(want float64) func(*posterntest.Proxy) bool {
		return func(g *posterntest.Proxy) bool {
			return g.Metrics(t).Value("postern_guard_tripped", "rule=cutover") == want
		}
	}
	come(0, 3)
	f.each(t, "trips", tripped(1))
	come(0, known) // those that tripped it are told why, too
	written()
	code, out := f.gates[1].Command("report", "-format", "json")
	var r struct {
		Guards []struct{ By map[string][]string } `json:"guards_tripped"`
	}
	if err := json.Unmarshal([]byte(out), &r); err != nil || code != 0 || len(r.Guards) != 1 || len(r.Guards[0].By) != 3 {
		t.Fatalf("exit code %d, %v: %+v\n%s", code, err, r, out)
	}
	for i := range 3 {
		if accounts := r.Guards[0].By[address(i)]; len(accounts) != 1 || accounts[0] != fmt.Sprintf("user%d", i) {
			t.Errorf("%s: %q", address(i), accounts)
		}
	}
	if code, out := f.gates[2].Command("guard", "-release", "cutover"); code != 0 {
		t.Errorf("guard -release: exit code %d\n%s", code, out)
	}
	f.each(t, "is released", tripped(0))
	time.Sleep(5 * time.Second) // in which it would trip again
	f.each(t, "stays so", tripped(0))
	come(3, 6)
	f.each(t, "trips again", tripped(1))
}

// TestAProcessThatHasHandedOverTripsNoGuard: it stays for a session, and its policy is that of
// before, which allows fewer clients.
func TestAProcessThatHasHandedOverTripsNoGuard(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "policy.yaml")
	write := func(text string) {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(letIn)
	f := &fleet{env: map[string]string{
		"UPSTREAM_IMAP": posterntest.StartUpstream(t, posterntest.IMAPGreeting, posterntest.IMAPReply).URL("imap"), "LISTEN_IMAP": "off",
		"POLICY_FILE": file, "LEDGER_URL": "sqlite:" + filepath.Join(t.TempDir(), "ledger.db"),
	}, ca: posterntest.NewCA(t)}
	pair := f.ca.Issue(t, posterntest.DefaultNames, posterntest.RSA)
	g := f.add(t, map[string]string{"TLS_CERT_FILE": pair.CertFile, "TLS_KEY_FILE": pair.KeyFile})
	stays, err := posterntest.Caller{From: "127.30.0.1", TLS: old}.Login(g, "imaps", "anna", "password")
	if err != nil {
		t.Fatal(err)
	}
	defer stays.Close()
	if err := stays.Do("NOOP"); err != nil { // a login is noted after it was answered
		t.Fatal(err)
	}
	f.each(t, "writes the login", func(g *posterntest.Proxy) bool { return g.Metrics(t).Value("postern_ledger_pending") == 0 })
	allow := func(clients int) {
		write(fmt.Sprintf("rules: [{name: cutover, mode: enforce, guard: {clients: %d, within: 1h, then: observe}}]", clients))
		f.each(t, "has read the policy", func(g *posterntest.Proxy) bool {
			_, body, err := g.Get("/api/v1/policy")
			return err == nil && strings.Contains(body, fmt.Sprintf(`"clients": %d,`, clients))
		})
	}
	allow(0)
	g.Upgrade(t)
	allow(5)
	if c, err := (posterntest.Caller{From: "127.30.0.1", TLS: old}).Open(g, "imaps"); err == nil {
		c.Close()
		t.Error("an old client was let in")
	}
	f.each(t, "has counted a client", func(g *posterntest.Proxy) bool {
		_, body, err := g.Get("/api/v1/policy")
		return err == nil && strings.Contains(body, `"seen": 1`)
	})
	time.Sleep(3 * time.Second) // in which the process before would have had it trip
	if g.Metrics(t).Value("postern_guard_tripped", "rule=cutover") != 0 {
		t.Error("the guard has tripped")
	}
}

// TestAGraceIsTheSameEverywhere: a client that has logged in is told why at every replica,
// a stranger is refused.
func TestAGraceIsTheSameEverywhere(t *testing.T) {
	t.Parallel()
	database := postgrestest.New(t).NewDatabase(t)
	file := filepath.Join(t.TempDir(), "policy.yaml")
	if err := os.WriteFile(file, []byte(letIn), 0o600); err != nil {
		t.Fatal(err)
	}
	f := start(t, func(int) map[string]string {
		return map[string]string{"POLICY_FILE": file, "LEDGER_URL": database}
	})
	c, err := posterntest.Caller{From: "127.30.0.1", TLS: old}.Login(f.gates[0], "imaps", "anna", "password")
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
	f.gates[0].WaitWritten(t)
	if err := os.WriteFile(file, []byte("rules: [{name: cutover, mode: enforce, grace: 20s}]"), 0o600); err != nil {
		t.Fatal(err)
	}
	meets := func(g *posterntest.Proxy, from string) string {
		c, err := posterntest.Caller{From: from, TLS: old}.Open(g, "imaps")
		if err != nil {
			return "refused"
		}
		defer c.Close()
		return c.Greeting
	}
	var first time.Time // when it was told why, at any of them
	f.each(t, "tells why who has logged in", func(g *posterntest.Proxy) bool {
		met := meets(g, "127.30.0.1")
		if met == "refused" {
			t.Fatal("a client that has logged in was refused before it was told why")
		}
		told := strings.HasPrefix(met, "* BYE [ALERT]")
		if told && first.IsZero() {
			first = time.Now()
		}
		return told
	})
	if got := meets(f.gates[1], "127.30.0.2"); got != "refused" {
		t.Errorf("a stranger meets %q", got)
	}
	f.each(t, "says until when", func(g *posterntest.Proxy) bool {
		_, out := g.Command("plan", "-client", "127.30.0.1")
		return strings.Contains(out, "refused from then on")
	})
	f.each(t, "refuses it when the grace is over", func(g *posterntest.Proxy) bool { return meets(g, "127.30.0.1") == "refused" })
	if over := time.Since(first); over < 15*time.Second {
		t.Errorf("the grace was over after %v", over)
	}
}
