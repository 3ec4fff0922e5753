package config

import (
	"slices"
	"testing"
)

func TestThePolicyIsSaidInOnePlace(t *testing.T) {
	file := "POSTERN_POLICY_FILE=/etc/postern/policy.yaml"
	if c := mustLoad(t, with(file)...); c.PolicyFile != "/etc/postern/policy.yaml" {
		t.Errorf("POLICY_FILE is %q", c.PolicyFile)
	}
	const beside = ": set beside POSTERN_POLICY_FILE: take it away, and write "
	// What is set to its default would still be taken for what counts.
	want := []string{"POSTERN_POLICY_FLOOR" + beside + "floor: tls1.2 into /etc/postern/policy.yaml", "POSTERN_POLICY_MODE" + beside + "mode: enforce into /etc/postern/policy.yaml"}
	if p := problems(t, with(file, "POSTERN_POLICY_MODE=enforce", "POSTERN_POLICY_FLOOR=tls1.2")...); !slices.Equal(p, want) {
		t.Errorf("got %q, want %q", []string(p), want)
	}
	want = []string{`POSTERN_POLICY_MODE: "lenient": not one of enforce, explain, observe`}
	if p := problems(t, with(file, "POSTERN_POLICY_MODE=lenient")...); !slices.Equal(p, want) {
		t.Errorf("got %q, want %q", []string(p), want)
	}
}

func TestThePolicyIsReadWithoutTheRest(t *testing.T) {
	c, err := LoadPolicy([]string{"POSTERN_POLICY_MODE=explain", "POSTERN_LISTEN_IMAPS=:1993,:2993", "POSTERN_LISTEN_POP3=off",
		"POSTERN_UPSTREAM_IMAP=nowhere", "POSTERN_NONSENSE=1", "PATH=/bin"})
	if err != nil || c.PolicyMode != "explain" || c.PolicyFloor != "tls1.2" || !slices.Equal(c.ListenIMAPS, Addrs{":1993", ":2993"}) ||
		!slices.Equal(c.ListenPOP3S, Addrs{":995"}) || len(c.ListenPOP3) != 0 {
		t.Errorf("got %+v, %v", c, err)
	}
	_, err = LoadPolicy([]string{"POSTERN_POLICY_FIEL=/p.yaml", "POSTERN_LISTEN_IMAPS=993", "POSTERN_POLICY_FILE=/p.yaml", "POSTERN_POLICY_MODE=observe"})
	want := Problems{
		`POSTERN_LISTEN_IMAPS: "993": not host:port: write :993 for every address`,
		"POSTERN_POLICY_FIEL: unknown variable; did you mean POSTERN_POLICY_FILE?",
		"POSTERN_POLICY_MODE: set beside POSTERN_POLICY_FILE: take it away, and write mode: observe into /p.yaml",
	}
	if p, ok := err.(Problems); !ok || !slices.Equal(p, want) {
		t.Errorf("got %v, want %v", err, want)
	}
}

func TestALedgerIsFoundWithoutTheRest(t *testing.T) {
	c, err := LoadLedger([]string{"POSTERN_LEDGER_URL=sqlite:/var/lib/postern/ledger.db", "POSTERN_LEDGER_IDENTITY=hashed", "POSTERN_LEDGER_IDENTITY_KEY_FILE=/key",
		"POSTERN_ADMIN_LISTEN=:9993", "POSTERN_ADMIN_TOKEN_FILE=/token", "POSTERN_POLICY_MODE=explain", "POSTERN_UPSTREAM_IMAP=nowhere", "POSTERN_NONSENSE=1"})
	if err != nil || c.LedgerURL != "sqlite:/var/lib/postern/ledger.db" || c.LedgerIdentity != "hashed" || c.AdminListen != ":9993" ||
		c.AdminTokenFile != "/token" || c.PolicyMode != "explain" {
		t.Errorf("got %+v, %v", c, err)
	}
	_, err = LoadLedger([]string{"POSTERN_LEDGER_ULR=memory:", "POSTERN_LEDGER_URL=postgres://anna:secret@/", "POSTERN_LEDGER_IDENTITY=hashed",
		"POSTERN_ADMIN_LISTEN=9993", "POSTERN_POLICY_FILE=/p.yaml", "POSTERN_POLICY_MODE=observe"})
	want := Problems{
		`POSTERN_ADMIN_LISTEN: "9993": not host:port: write :9993 for every address`,
		"POSTERN_LEDGER_IDENTITY_KEY_FILE: must be set, since POSTERN_LEDGER_IDENTITY is hashed: name a file that openssl rand -base64 32 has written",
		"POSTERN_LEDGER_ULR: unknown variable; did you mean POSTERN_LEDGER_URL?",
		"POSTERN_LEDGER_URL: not a postgres:// URL with a host: write postgres://user@host/database",
		"POSTERN_POLICY_MODE: set beside POSTERN_POLICY_FILE: take it away, and write mode: observe into /p.yaml",
	}
	if p, ok := err.(Problems); !ok || !slices.Equal(p, want) {
		t.Errorf("got %v, want %v", err, want)
	}
}
