package clients

import (
	"crypto/tls"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/emersion/go-imap/v2/imapclient"

	"postern/internal/posterntest"
)

// TestAnAccountIsNamedWhereItsProgramHasAnotherFingerprint: one learnt on imaps, by a
// program that sends ALPN or a server name there alone, for a refusal on imap. The log
// says that it is inferred.
func TestAnAccountIsNamedWhereItsProgramHasAnotherFingerprint(t *testing.T) {
	t.Parallel()
	old := func(name string) *tls.Config {
		return &tls.Config{ServerName: name, InsecureSkipVerify: true, MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS10}
	}
	for name, program := range map[string]func(g *posterntest.Proxy, listener string) error{
		"go-imap, with ALPN on imaps alone": func(g *posterntest.Proxy, listener string) error {
			dial := map[string]func(string, *imapclient.Options) (*imapclient.Client, error){"imaps": imapclient.DialTLS, "imap": imapclient.DialStartTLS}[listener]
			c, err := dial(g.Addr(listener), &imapclient.Options{TLSConfig: old("localhost")})
			if err != nil {
				return err
			}
			defer c.Close()
			return c.Login("anna@example.org", "secret").Wait()
		},
		"a server name on imaps alone": func(g *posterntest.Proxy, listener string) error {
			nc, err := posterntest.Caller{}.DialForTLS(g, listener) // which says STARTTLS
			if err != nil {
				return err
			}
			defer nc.Close()
			tc := tls.Client(nc, old(map[string]string{"imaps": "localhost"}[listener]))
			if err := tc.Handshake(); err != nil {
				return err
			}
			c := posterntest.NewClient(tc, "imap")
			if listener == "imaps" {
				c.ExpectLine(t, "")
			}
			return c.Login("anna@example.org", "secret")
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			file := filepath.Join(t.TempDir(), "policy.yaml")
			if err := os.WriteFile(file, []byte("mode: observe\nrules:\n  - {name: cut, mode: enforce, match: {listener: [imap]}}\n"), 0o600); err != nil {
				t.Fatal(err)
			}
			g := startProxy(t, map[string]string{"POLICY_FILE": file, "LEDGER_IDENTITY": "plain"})
			if err := program(g, "imap"); err == nil {
				t.Fatal("it is let in")
			}
			if err := program(g, "imaps"); err != nil {
				t.Fatal(err)
			}
			waitFor(t, g, "account=anna@example.org", 1) // a login is noted after it was answered
			if err := program(g, "imap"); err == nil {
				t.Fatal("it is let in")
			}
			lines := g.WaitLog(t, "legacy handshake", 3)
			var ja4 []any
			for i, want := range []string{"<nil> <nil>", "<nil> <nil>", "anna@example.org true"} {
				if got := fmt.Sprint(lines[i]["account"], " ", lines[i]["account_inferred"]); got != want {
					t.Errorf("line %d: %s, want %s: %v", i, got, want, lines[i])
				}
				ja4 = append(ja4, lines[i]["ja4"])
			}
			if ja4[1] == ja4[2] {
				t.Errorf("one fingerprint, %v, has nothing to infer", ja4[1])
			}
		})
	}
}
