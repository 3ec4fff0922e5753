package clients

import (
	"crypto/tls"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestAnOperatorsNameStandsForAnOldClient, in the API, on the page, in the log and in the
// report, as inferred, and with LEDGER_IDENTITY off; another name does as soon as the file
// has it.
func TestAnOperatorsNameStandsForAnOldClient(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file := filepath.Join(dir, "programs.txt")
	name := func(s string) {
		if err := os.WriteFile(file, []byte("imaps a1 ID LOGIN:quoted:quoted\t"+s+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	name("Scan-o-mat")
	g := startProxy(t, map[string]string{"PROGRAMS_FILE": file, "LEDGER_URL": "sqlite:" + filepath.Join(dir, "ledger.db")})
	visit(t, g, "127.0.0.7", "imaps", tls.VersionTLS10, "anna@example.org", "Outlook")
	c := wait(t, g, 1).Clients[0]
	if got := fmt.Sprint(c.Accounts, c.Software, c.SpeaksLike); got != "[] [] [Scan-o-mat]" {
		t.Errorf("it is %s", got)
	}
	if page := waitPage(t, g, "Scan-o-mat"); !strings.Contains(page, "(by how it speaks)") {
		t.Errorf("the page does not say that it is inferred:\n%s", page)
	}
	_, text, err := g.Get("/api/v1/report?format=text&by=program")
	if err != nil || !strings.Contains(text, "like Scan-o-mat") {
		t.Errorf("the report: %v\n%s", err, text)
	}
	visit(t, g, "127.0.0.7", "imaps", tls.VersionTLS10, "anna@example.org", "Outlook")
	if l := g.WaitLog(t, "legacy handshake", 2); fmt.Sprint(l[0]["speaks_like"], " ", l[1]["speaks_like"], " ", l[1]["software"]) != "<nil> Scan-o-mat <nil>" {
		t.Errorf("the log: %v", l)
	}
	name("Copy-o-mat")
	for deadline := time.Now().Add(20 * time.Second); fmt.Sprint(c.SpeaksLike) != "[Copy-o-mat]"; time.Sleep(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("it stays %q", c.SpeaksLike)
		}
		c = wait(t, g, 1).Clients[0]
	}
}
