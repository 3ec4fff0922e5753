package servers

import (
	"crypto/tls"
	"encoding/json"
	"fmt"
	"net"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"postern/internal/debian13"
	"postern/internal/dovecot"
	"postern/internal/posterntest"
)

// stack is a TLS library, how it connects, and what it agrees on by default.
type stack struct {
	name, group string
	connect     func(addr string) error
	hybrid      bool
}

// stacks are OpenSSL 3.5, an OpenSSL from before ML-KEM, GnuTLS and Go.
func stacks(t *testing.T) []stack {
	run := func(command func(string, ...string) *exec.Cmd, program string, args ...string) func(string) error {
		return func(addr string) error {
			host, port, _ := net.SplitHostPort(addr)
			to := []string{"-connect", addr}
			if program == "gnutls-cli" {
				to = []string{"-p", port, host}
			}
			cmd := command(program, slices.Concat(args, to)...)
			cmd.Stdin = strings.NewReader("a LOGOUT\r\n")
			if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), "IMAP4rev1") {
				return fmt.Errorf("%v: %s", err, out)
			}
			return nil
		}
	}
	openssl := []string{"s_client", "-quiet", "-ign_eof"}
	return []stack{
		{"OpenSSL 3.5", "x25519mlkem768", run(debian13.Get(t).Command, "openssl", openssl...), true},
		{"OpenSSL without ML-KEM", "x25519", run(exec.Command, "openssl", append(openssl, "-groups", "X25519:P-256")...), false},
		{"OpenSSL, TLS 1.2", "secp384r1", run(exec.Command, "openssl", append(openssl, "-tls1_2", "-groups", "P-384")...), false},
		{"GnuTLS", "secp256r1", run(exec.Command, "gnutls-cli", "--insecure", "--priority", "NORMAL:-GROUP-ALL:+GROUP-SECP256R1"), false},
		{"Go", "x25519mlkem768", func(addr string) error {
			c, err := tls.Dial("tcp", addr, &tls.Config{InsecureSkipVerify: true})
			if err == nil {
				c.Close()
			}
			return err
		}, true},
	}
}

// TestTheInventorySaysWhatRealStacksHaveAgreedOn also asks the running proxy and, where
// none runs, its ledger.
func TestTheInventorySaysWhatRealStacksHaveAgreedOn(t *testing.T) {
	t.Parallel()
	backend := dovecot.Start(t, dovecot.Options{})
	g := posterntest.Start(t, map[string]string{
		"UPSTREAM_IMAP": "imap://" + backend.IMAP, "LEDGER_URL": "sqlite:" + filepath.Join(t.TempDir(), "ledger.db"),
	})
	want := make(map[string]int64)
	for _, s := range stacks(t) {
		if err := s.connect(g.Addr("imaps")); err != nil {
			t.Errorf("%s: %v", s.name, err)
		}
		want[s.group]++
	}
	inventory := func() (groups map[string]int64, hybrid float64) {
		code, out := g.Command("report", "-inventory", "-format", "json")
		var v struct {
			PostQuantum  float64 `json:"post_quantum_share"`
			KeyExchanges []struct {
				Name       string `json:"name"`
				Handshakes int64  `json:"handshakes"`
			} `json:"key_exchanges"`
		}
		if err := json.Unmarshal([]byte(out), &v); err != nil || code != 0 {
			t.Fatalf("exit %d, %v: %s", code, err, out)
		}
		groups = make(map[string]int64)
		for _, kx := range v.KeyExchanges {
			groups[kx.Name] = kx.Handshakes
		}
		return groups, v.PostQuantum
	}
	for deadline := time.Now().Add(3 * time.Minute); ; time.Sleep(time.Second) { // it is written once a minute
		if groups, hybrid := inventory(); fmt.Sprint(groups) == fmt.Sprint(want) && hybrid == 0.4 {
			break
		} else if time.Now().After(deadline) {
			t.Fatalf("%v, %v, want %v", groups, hybrid, want)
		}
	}
	g.Stop(t)
	if groups, _ := inventory(); fmt.Sprint(groups) != fmt.Sprint(want) {
		t.Errorf("of the ledger: %v, want %v", groups, want)
	}
}

func TestTheFloorOfPostQuantumGroupsTellsRealStacksApart(t *testing.T) {
	t.Parallel()
	backend := dovecot.Start(t, dovecot.Options{})
	g := posterntest.Start(t, map[string]string{"UPSTREAM_IMAP": "imap://" + backend.IMAP, "POLICY_FLOOR": "tls1.3-pq"})
	for _, s := range stacks(t) {
		if err := s.connect(g.Addr("imaps")); (err == nil) != s.hybrid {
			t.Errorf("%s: %v", s.name, err)
		}
	}
	lines := g.WaitLog(t, "legacy handshake", 3)
	if len(lines) != 3 || slices.ContainsFunc(lines, func(l map[string]any) bool { return l["outcome"] != "rejected" }) {
		t.Errorf("%v", lines)
	}
}
