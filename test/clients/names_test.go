package clients

import (
	"crypto/tls"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Names that clients give themselves are reported, and cannot inject anything.
func TestClientsAreReportedByName(t *testing.T) {
	t.Parallel()
	g := startProxy(t, map[string]string{"LEDGER_IDENTITY": "plain"})
	visit(t, g, "127.0.0.7", "imaps", tls.VersionTLS10, "anna@example.org", "Outlook")
	visit(t, g, "127.0.0.8", "imap", tls.VersionTLS11, "<script>alert(1)</script>", "=1+1")
	for _, c := range wait(t, g, 2).Clients {
		want := "[<script>alert(1)</script>] [=1+1]"
		if c.Client == "127.0.0.7" {
			want = "[anna@example.org] [Outlook]"
		}
		if got := fmt.Sprint(c.Accounts, c.Software); got != want {
			t.Errorf("%s is %s, want %s", c.Client, got, want)
		}
	}
	if l := ask(t, g, "account=ANNA@example.org&software=outlook"); l.Total != 1 || l.Clients[0].Client != "127.0.0.7" {
		t.Errorf("by name: %+v", l)
	}
	_, csv, err := g.Get("/api/v1/legacy-clients?format=csv")
	if err != nil || !strings.Contains(csv, ",'=1+1,") {
		t.Errorf("%v: %s", err, csv)
	}
	page := waitPage(t, g, "anna@example.org")
	if !strings.Contains(page, "Outlook") || !strings.Contains(page, "&lt;script&gt;") {
		t.Errorf("the page does not tell them by name:\n%s", page)
	}
	if strings.Contains(page, "<script") || strings.Contains(page+csv, "s3cr3t") {
		t.Errorf("the page obeys, or tells a password:\n%s\n%s", page, csv)
	}
}

// Where names are kept hashed they are shown hashed, and found by themselves.
func TestAHashedAccountIsFoundByItsName(t *testing.T) {
	t.Parallel()
	key := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(key, []byte("0123456789abcdef\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	g := startProxy(t, map[string]string{"LEDGER_IDENTITY": "hashed", "LEDGER_IDENTITY_KEY_FILE": key})
	visit(t, g, "127.0.0.7", "imaps", tls.VersionTLS10, "anna@example.org", "Outlook")
	visit(t, g, "127.0.0.8", "imap", tls.VersionTLS11, "bert@example.org", "Outlook")
	for _, c := range wait(t, g, 2).Clients {
		if a := c.Accounts; len(a) != 1 || !strings.HasPrefix(a[0], "h:") || !strings.HasSuffix(a[0], "@example.org") || strings.Contains(a[0], "anna") {
			t.Errorf("%s is %q", c.Client, a)
		}
	}
	l := ask(t, g, "account=Anna@example.org")
	if l.Total != 1 || l.Clients[0].Client != "127.0.0.7" {
		t.Fatalf("by name: %+v", l)
	}
	if l = ask(t, g, "account="+url.QueryEscape(l.Clients[0].Accounts[0])); l.Total != 1 {
		t.Errorf("by hash: %+v", l)
	}
}
