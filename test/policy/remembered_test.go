package policy

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"postern/internal/postgrestest"
)

const rememberedPolicy = `
floor: tls1.2
mode: observe
candidates:
  - {name: aead-only, floor: tls1.2-aead, remember: true}
  - {name: tls13-only, floor: tls1.3, remember: true}
  - {name: counted, floor: tls1.3-pq}
`

// openssl logs in as an account by s_client, from an address.
func (g *instance) openssl(t *testing.T, from, account string, args ...string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), takenOver)
	defer cancel()
	cmd := exec.CommandContext(ctx, "openssl", append([]string{"s_client", "-connect", g.Addr("imaps"), "-bind", from + ":0", "-crlf"}, args...)...)
	stdin, err := cmd.StdinPipe()
	must(t, err)
	stdout, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	_, err = io.WriteString(stdin, "i id (\"name\" \"Old Mail\" \"version\" \"7\")\na login "+account+" secret\n")
	must(t, err)
	said := bufio.NewScanner(stdout)
	in := false
	for !in && said.Scan() {
		in = strings.HasPrefix(said.Text(), "a OK")
	}
	stdin.Close() // which ends it
	_, _ = io.Copy(io.Discard, stdout)
	if err := cmd.Wait(); err != nil || !in {
		t.Fatalf("%s %v: %v, logged in: %v", from, args, err, in)
	}
}

// clientsOf asks the API whom a candidate remembers: address, version, reason, account
// and program, sorted by when they came first.
func (g *instance) clientsOf(t *testing.T, query string) (list []string) {
	t.Helper()
	status, body, err := g.Get("/api/v1/legacy-clients?" + query)
	must(t, err)
	var answer struct {
		Total   int
		Clients []struct {
			Client, Version, Reason, Meets, Login string
			Accounts, Software                    []string
		}
	}
	if err := json.Unmarshal([]byte(body), &answer); err != nil || status != 200 || answer.Total < len(answer.Clients) {
		t.Fatalf("%s: status %d, %v: %s", query, status, err, body)
	}
	if more := answer.Total - len(answer.Clients); more > 0 {
		list = append(list, fmt.Sprint(more, " that came while it was asked"))
	}
	for _, c := range answer.Clients {
		list = append(list, fmt.Sprint(c.Client, " ", c.Version, " ", c.Reason, " ", c.Accounts, c.Software, " ", c.Login, " ", c.Meets))
	}
	return list
}

// wantClients waits until the ledger knows all of these, and nobody else: what a client
// says may be written a moment after its handshake.
func (g *instance) wantClients(t *testing.T, query string, want ...string) {
	t.Helper()
	var got []string
	defer func() {
		if t.Failed() {
			t.Logf("%s: got %q", query, got)
		}
	}()
	g.until(t, fmt.Sprintf("%s: %q", query, want), func() bool {
		got = g.clientsOf(t, query)
		return fmt.Sprint(got) == fmt.Sprint(want)
	})
}

// ask runs a command, again where the ledger could not be read in time.
func (g *instance) ask(args ...string) (code int, out string) {
	code, out = g.Command(args...)
	for end := time.Now().Add(takenOver); strings.Contains(out, "cannot be read now") && time.Now().Before(end); {
		code, out = g.Command(args...)
	}
	return code, out
}

// wantOutput runs a command, and expects a code and texts.
func (g *instance) wantOutput(t *testing.T, code int, want []string, args ...string) {
	t.Helper()
	got, out := g.ask(args...)
	if got != code {
		t.Errorf("%v: exit code %d, want %d", args, got, code)
	}
	for _, s := range want {
		if !strings.Contains(out, s) {
			t.Errorf("%v: no %q in\n%s", args, s, out)
		}
	}
}

// Whom a remembered candidate refuses is known by name, although the floor lets it in,
// and nobody else; and nobody is legacy for it.
func TestARememberedCandidateKnowsWhomItRefuses(t *testing.T) {
	eachLedger(t, func(t *testing.T, url string) {
		testRemembered(t, start(t, rememberedPolicy, map[string]string{"LEDGER_URL": url, "LEDGER_IDENTITY": "plain"}))
	})
}

// eachLedger runs a test beside others, with the URL of an empty ledger of each kind that
// lasts.
func eachLedger(t *testing.T, test func(t *testing.T, url string)) {
	t.Parallel()
	for _, kind := range []string{"sqlite", "postgres"} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			url := "sqlite:" + filepath.Join(t.TempDir(), "ledger.db")
			if kind == "postgres" {
				url = postgrestest.New(t).NewDatabase(t)
			}
			test(t, url)
		})
	}
}

// nextCount is longer than the next count of clients may be away: fifty times what the
// last one took.
const nextCount = 4 * takenOver

func testRemembered(t *testing.T, g *instance) {
	clients := func(candidate, window string) float64 {
		return g.Metrics(t).Value("postern_candidate_clients", "candidate="+candidate, "window="+window)
	}
	for _, window := range []string{"1h", "24h", "7d", "30d"} {
		if n := clients("tls13-only", window); n != 0 {
			t.Errorf("%v clients in %s at the start", n, window)
		}
	}
	if n := len(g.Metrics(t)["postern_candidate_clients"]); n != 8 {
		t.Errorf("%d series of clients of two remembered candidates, want 8", n)
	}
	cbc, gcm, modern, old := fresh(), fresh(), fresh(), fresh()
	g.openssl(t, cbc, "anna@example.org", "-tls1_2", "-cipher", "ECDHE-ECDSA-AES128-SHA")
	g.openssl(t, gcm, "bert@example.org", "-tls1_2")
	g.openssl(t, modern, "carl@example.org", "-tls1_3")
	g.openssl(t, old, "dora@example.org", "-tls1", "-cipher", "ALL:@SECLEVEL=0")

	anna := " [anna@example.org] [Old Mail 7] ok accepted"
	bert := " [bert@example.org] [Old Mail 7] ok accepted"
	g.wantClients(t, "candidate=tls13-only&sort=client", cbc+" tls1.2 version"+anna, gcm+" tls1.2 version"+bert)
	g.wantClients(t, "candidate=aead-only", cbc+" tls1.2 cipher"+anna)
	g.wantClients(t, "", old+" tls1.0 version [dora@example.org] [Old Mail 7] ok observe")
	g.wantClients(t, "candidate=tls13-only&account=bert@example.org", gcm+" tls1.2 version"+bert)
	if status, body, err := g.Get("/api/v1/legacy-clients?candidate=counted"); status != 400 || !strings.Contains(body, "use aead-only, tls13-only") {
		t.Errorf("a candidate that is not remembered: %d %s %v", status, body, err)
	}
	counted := func() bool { return clients("tls13-only", "24h") == 2 && clients("aead-only", "30d") == 1 }
	within(t, nextCount, "count of two clients and one", counted)

	g.wantOutput(t, 0, []string{`NO-GO: 2 clients whom "tls13-only" would refuse are left.`, "anna@example.org", "bert@example.org", "Old Mail 7"}, "report", "-candidate", "tls13-only")
	if code, csv := g.ask("report", "-candidate", "tls13-only", "-format", "csv"); code != 0 || strings.Contains(csv, "Speaks TLS 1.2") {
		t.Errorf("CSV with advice on older versions, or code %d: %s", code, csv)
	}
	g.wantOutput(t, 1, []string{`NO-GO: 1 client whom "aead-only" would refuse is left.`}, "report", "-ready", "-candidate", "aead-only")
	g.wantOutput(t, 0, []string{"GO: "}, "report", "-ready", "-max", "2", "-candidate", "tls13-only")
	g.wantOutput(t, 0, []string{"NO-GO: 1 client with old TLS is left.", "dora@example.org"}, "report")
	g.wantOutput(t, 2, []string{"-candidate: ", "use aead-only, tls13-only"}, "report", "-candidate", "counted")
	next := filepath.Join(t.TempDir(), "next.yaml")
	write(t, next, "floor: tls1.3\nmode: enforce\n")
	replayed := []string{"Refused: 3 clients", "anna@example.org", "bert@example.org", "dora@example.org", `"tls13-only"`}
	g.wantOutput(t, 0, replayed, "replay", "-policy", next)

	for path, want := range map[string][]string{
		"/?candidate=tls13-only":                     {"tls13-only</a>", cbc, gcm, "candidate=tls13-only", "bert@example.org"},
		"/client?candidate=aead-only&address=" + cbc: {"anna@example.org", "ECDHE_ECDSA_WITH_AES_128_CBC_SHA", "aead-only"},
	} {
		if status, body, err := g.Get(path); status != 200 || err != nil {
			t.Errorf("%s: %d %v", path, status, err)
		} else {
			for _, s := range want {
				if !strings.Contains(body, s) {
					t.Errorf("%s: no %q", path, s)
				}
			}
		}
	}
	if status, _, _ := g.Get("/client?candidate=aead-only&address=" + gcm); status != 404 {
		t.Errorf("the page of a client that the candidate lets in: %d", status)
	}

	// Another policy remembers one more, without a restart.
	g.replaceNow(t, strings.Replace(rememberedPolicy, "tls1.3-pq}", "tls1.3-pq, remember: true}", 1)+"  - {name: new, floor: tls1.2-compat}\n", "tls1.2")
	g.until(t, "new gauge", func() bool { return len(g.Metrics(t)["postern_candidate_clients"]) == 12 })
	g.openssl(t, modern, "carl@example.org", "-tls1_3", "-groups", "X25519")
	g.wantClients(t, "candidate=counted", modern+" tls1.3 cipher [carl@example.org] [Old Mail 7] ok accepted")

	// A policy between the floor and a candidate takes some of those whom the candidate refuses.
	onlyPQ := strings.NewReplacer(", remember: true", "", "tls1.3-pq}", "tls1.3-pq, remember: true}").Replace(rememberedPolicy)
	g.replaceNow(t, onlyPQ, "tls1.2")
	g.until(t, "gauge of one candidate", func() bool { return len(g.Metrics(t)["postern_candidate_clients"]) == 4 })
	g.wantOutput(t, 0, []string{"Refused: 1 client\n", "dora@example.org", `"counted"`}, "replay", "-policy", next)
	g.replaceNow(t, rememberedPolicy, "tls1.2")
	g.until(t, "gauge of two candidates", func() bool { return len(g.Metrics(t)["postern_candidate_clients"]) == 8 })
	within(t, nextCount, "count of the same again", counted)

	// What a person asks to have erased is so everywhere.
	g.wantOutput(t, 0, []string{"Erased"}, "report", "-forget", cbc)
	g.wantOutput(t, 0, []string{"Erased"}, "report", "-forget", "bert@example.org")
	g.wantClients(t, "candidate=tls13-only", gcm+" tls1.2 version [] [] ok accepted")
	g.wantClients(t, "candidate=aead-only")
	g.Stop(t)
	g.wantOutput(t, 0, []string{`NO-GO: 1 client whom "tls13-only" would refuse is left.`}, "report", "-candidate", "tls13-only")
	g.wantOutput(t, 0, []string{"Refused: 2 clients"}, "replay", "-policy", next)
}
