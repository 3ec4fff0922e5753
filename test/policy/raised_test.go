package policy

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const (
	beforeRaise = `
floor: tls1.2
mode: enforce
candidates: [{name: tls13-only, floor: tls1.3, remember: true}]
`
	// Some are told why for a week, until the guard has counted two of all.
	afterRaise = `
floor: tls1.3
mode: enforce
rules:
  - {name: short, mode: enforce, match: {client: [127.0.0.0/8]}, grace: 7d, guard: {clients: 1, within: 1h, then: observe}}
`
)

// greeted is what TLS 1.2 of openssl gets from an address: a line, or nothing but an alert.
func (g *instance) greeted(t *testing.T, from string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), takenOver)
	defer cancel()
	cmd := exec.CommandContext(ctx, "openssl", "s_client", "-connect", g.Addr("imaps"), "-bind", from+":0", "-quiet", "-tls1_2")
	stdin, err := cmd.StdinPipe()
	must(t, err)
	defer stdin.Close()
	stdout, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	var line [512]byte
	n, _ := stdout.Read(line[:])
	stdin.Close()
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	return string(line[:n])
}

// known returns the accounts in the log's lines on the handshakes of a client.
func (g *instance) known(from string) (accounts []string) {
	for _, l := range g.LogLines(legacyLine) {
		if l["client"] == from {
			accounts = append(accounts, fmt.Sprint(l["outcome"], " ", l["account"]))
		}
	}
	return accounts
}

// Once what a candidate stood for is the floor, those that it remembered are clients that
// have logged in: in a grace, for a guard, in the log and in a report.
func TestARaisedFloorKnowsThoseThatItsCandidateRemembered(t *testing.T) {
	eachLedger(t, testRaised)
}

func testRaised(t *testing.T, url string) {
	env := map[string]string{"LEDGER_URL": url, "LEDGER_IDENTITY": "plain"}
	g := start(t, beforeRaise, env)
	anna, bert, stranger := fresh(), fresh(), fresh()
	g.openssl(t, anna, "anna@example.org", "-tls1_2")
	g.openssl(t, bert, "bert@example.org", "-tls1_2")
	logins := " tls1.2 version [%s] [Old Mail 7] ok accepted"
	g.wantClients(t, "candidate=tls13-only&sort=client", anna+fmt.Sprintf(logins, "anna@example.org"), bert+fmt.Sprintf(logins, "bert@example.org"))
	g.Stop(t)
	write(t, g.file, afterRaise)
	g.run(t, env)

	if got := g.greeted(t, stranger); got != "" {
		t.Errorf("a stranger got %q", got)
	}
	if got := g.greeted(t, anna); !strings.HasPrefix(got, "* BYE [ALERT] TLS 1.2") {
		t.Errorf("in its grace a client got %q", got)
	}
	g.until(t, "line in the log", func() bool { return len(g.known(anna)) > 0 && len(g.known(stranger)) > 0 })
	if got := append(g.known(anna), g.known(stranger)...); !slices.Equal(got, []string{"explained anna@example.org", "rejected <nil>"}) {
		t.Errorf("the log has %v", got)
	}
	g.until(t, "verdict with who logged in", func() bool {
		code, out := g.Command("report", "-ready")
		return code == 1 && strings.Contains(out, "NO-GO: 1 client with old TLS is left") && strings.Contains(out, "anna@example.org")
	})
	g.until(t, "guard that has met one", func() bool {
		_, out := g.Command("guard")
		return strings.Contains(out, "has met 1 known client ")
	})
	g.greeted(t, bert)
	g.WaitLog(t, "guard tripped", 1)
	_, out := g.Command("report")
	for _, who := range []string{"It had met 2 known clients:", anna + " anna@example.org", bert + " bert@example.org"} {
		if !strings.Contains(strings.Join(strings.Fields(out), " "), who) {
			t.Errorf("no %q in %s", who, out)
		}
	}
	g.until(t, "greeting of an upstream", func() bool { return strings.HasPrefix(g.greeted(t, stranger), "* OK") })
	g.Stop(t)

	if file, isFile := strings.CutPrefix(url, "sqlite:"); isFile {
		g.wantOutput(t, 0, []string{"Erased"}, "report", "-forget", "anna@example.org")
		g.wantOutput(t, 0, []string{"Erased"}, "report", "-forget", bert)
		for _, name := range []string{file, file + "-wal"} {
			content, err := os.ReadFile(name)
			if err != nil && !os.IsNotExist(err) {
				t.Fatal(err)
			}
			for _, s := range []string{"anna@", "bert@", bert} {
				if strings.Contains(string(content), s) {
					t.Errorf("%s still has %s", name, s)
				}
			}
		}
	}
}
