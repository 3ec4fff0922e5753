package policy

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"postern/internal/posterntest"
)

// commandTimeout ends a command that was to leave by itself.
const commandTimeout = time.Minute

// command is the environment of one that need not serve.
type command struct {
	environ []string
	file    string
}

func newCommand(t *testing.T, policy string, more ...string) command {
	t.Helper()
	pair := posterntest.NewCA(t).Issue(t, []string{"mail.example.org", "*.old.example.org"}, posterntest.RSA)
	c := command{file: filepath.Join(t.TempDir(), "policy.yaml")}
	write(t, c.file, policy)
	for _, kv := range os.Environ() {
		if !strings.HasPrefix(kv, "POSTERN_") {
			c.environ = append(c.environ, kv)
		}
	}
	c.environ = append(c.environ, "GORACE=atexit_sleep_ms=20",
		"POSTERN_TLS_CERT_FILE="+pair.CertFile, "POSTERN_TLS_KEY_FILE="+pair.KeyFile,
		"POSTERN_UPSTREAM_IMAP=imap://127.0.0.1:1", "POSTERN_POLICY_FILE="+c.file,
		"POSTERN_LISTEN_IMAPS="+posterntest.FreeAddr(t), "POSTERN_LISTEN_IMAP=off", "POSTERN_ADMIN_LISTEN="+posterntest.FreeAddr(t))
	c.environ = append(c.environ, more...)
	return c
}

// run returns the exit code and the lines on both outputs.
func (c command) run(t *testing.T, args ...string) (code int, stdout, stderr []string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), commandTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, posterntest.Binary(t), args...)
	var out, errs bytes.Buffer
	cmd.Env, cmd.Stdout, cmd.Stderr = c.environ, &out, &errs
	if err := cmd.Run(); err != nil && !errors.As(err, new(*exec.ExitError)) {
		t.Fatal(err)
	}
	lines := func(b *bytes.Buffer) []string {
		return slices.DeleteFunc(strings.Split(b.String(), "\n"), func(s string) bool { return s == "" })
	}
	return cmd.ProcessState.ExitCode(), lines(&out), lines(&errs)
}

func TestAModeBesideAPolicyFileStopsTheStart(t *testing.T) {
	t.Parallel()
	c := newCommand(t, "mode: observe\n", "POSTERN_POLICY_MODE=enforce", "POSTERN_POLICY_FLOOR=tls1.2")
	for command, prefix := range map[string]string{"serve": "", "check -offline": "error: "} {
		code, _, stderr := c.run(t, strings.Fields(command)...)
		if code != 2 || len(stderr) != 2 || !strings.HasPrefix(stderr[0], prefix+"POSTERN_POLICY_FLOOR: ") ||
			!strings.HasPrefix(stderr[1], prefix+"POSTERN_POLICY_MODE: ") {
			t.Errorf("%s: exit code %d, %q", command, code, stderr)
		}
	}
}

// All that is wrong with a policy is said in one go, one line each.
func TestABadPolicyStopsTheStart(t *testing.T) {
	t.Parallel()
	many := `flor: tls1.2
mode: lenient
rules:
  - {name: back, mode: observe, from: 2026-07-01T00:00:00Z, until: 2026-06-01T00:00:00Z}
  - {name: back, mode: observe, share: 150%}
  - {name: ramp, mode: explain, share: {from: 0%, to: 100%}}
  - {name: who, mode: observe, match: {client: [10.0.0.300], account: [anna]}}
candidates:
  - {name: weak, floor: tls1.1}
`
	at := func(file string, wants ...string) []string {
		for i := range wants {
			wants[i] = file + ":" + wants[i]
		}
		return wants
	}
	for _, tt := range []struct {
		what, policy string
		break_       func(t *testing.T, file string)
		want         func(file string) []string
	}{
		{"many problems", many, nil, func(file string) []string {
			return at(file, `1:1: unknown key "flor"`, `2:7: mode: no such mode "lenient"`,
				`4:61: rule "back": until is not after from: set a later until`, `5:5: rule "back": the name is taken by line 4: choose another`,
				`5:40: rule "back": share: 150% is outside 0% to 100%`,
				`6:33: rule "ramp": a share from and to needs the dates`,
				`7:49: rule "who": client: "10.0.0.300" is `, `7:62: rule "who": unknown key "account"`,
				`9:25: candidate "weak": floor: `)
		}},
		{"empty", "", nil, func(file string) []string { return at(file, "1:1: the file is empty") }},
		{"missing", "", func(t *testing.T, file string) { must(t, os.Remove(file)) },
			func(file string) []string { return at(file, " no such file or directory") }},
	} {
		t.Run(tt.what, func(t *testing.T) {
			c := newCommand(t, tt.policy)
			if tt.break_ != nil {
				tt.break_(t, c.file)
			}
			code, _, stderr := c.run(t, "serve")
			if code != 2 {
				t.Errorf("serve left with %d, want 2", code)
			}
			checkLines(t, stderr, tt.want(c.file))
			code, _, checked := c.run(t, "check", "-offline")
			if code != 2 {
				t.Errorf("check left with %d, want 2", code)
			}
			for i := range stderr {
				stderr[i] = "error: " + stderr[i]
			}
			if !slices.Equal(checked, stderr) {
				t.Errorf("check says %q, serve %q", checked, stderr)
			}
		})
	}
}

// checkLines compares the beginnings of lines.
func checkLines(t *testing.T, got, want []string) {
	t.Helper()
	for i := range max(len(got), len(want)) {
		switch {
		case i >= len(got):
			t.Errorf("nothing is said of %q", want[i])
		case i >= len(want):
			t.Errorf("said beside: %q", got[i])
		case !strings.HasPrefix(got[i], want[i]):
			t.Errorf("line %q, want %q", got[i], want[i])
		}
	}
}

const oddPolicy = `mode: observe
rules:
  - {name: over, mode: observe, match: {client: [10.0.0.0/8]}, until: 2020-01-01T00:00:00Z, owner: anna@example.org}
  - {name: past, mode: explain, from: 2019-01-01T00:00:00Z, until: 2020-01-01T00:00:00Z}
  - {name: nobody, mode: observe, match: {client: []}}
  - {name: elsewhere, mode: observe, match: {port: [1]}}
  - {name: no such name, mode: observe, match: {server_name: [imap.example.net]}}
  - {name: a name, mode: observe, match: {server_name: [very.old.example.org]}}
  - {name: all, mode: enforce}
  - {name: hidden, mode: observe, match: {version: [tls1.0]}}
`

func TestWhatIsProbablyNotMeantIsAWarning(t *testing.T) {
	t.Parallel()
	warnings := func(file string) []string {
		want := []string{
			`3: rule "over": the exemption ran out at 2020-01-01T00:00:00Z; its owner is anna@example.org: set a later until, or remove the rule`,
			`4: rule "past": ended at 2020-01-01T00:00:00Z: set a later until, or remove the rule`,
			`5: rule "nobody": never matches: the list of client is empty: fill it, or take the key away`,
			`6: rule "elsewhere": no listener has the port 1: mend it, or add it to that POSTERN_LISTEN_ variable and restart`,
			`7: rule "no such name": no certificate covers the name imap.example.net: mend it, or add one to POSTERN_TLS_CERT_FILE and restart`,
			`10: rule "hidden": never matches: the rule "all" in line 9 comes first and takes all of it: put it before that rule`,
		}
		for i := range want {
			want[i] = "warning: " + file + ":" + want[i]
		}
		return want
	}
	c := newCommand(t, oddPolicy)
	code, stdout, stderr := c.run(t, "check", "-offline")
	said := slices.DeleteFunc(stdout, func(line string) bool { return !strings.HasPrefix(line, "warning: "+c.file) })
	if code != 0 || len(stderr) != 0 {
		t.Errorf("check left with %d and says %q", code, stderr)
	}
	checkLines(t, said, warnings(c.file))
	c = newCommand(t, "mode: enforce\n")
	code, stdout, stderr = c.run(t, "check", "-offline")
	if code != 0 || len(stderr) != 0 || !slices.Contains(stdout, fmt.Sprintf("ok: %s: floor tls1.2, mode enforce", c.file)) {
		t.Errorf("check of a plain policy left with %d: %q, %q", code, stdout, stderr)
	}
}

// The proxy serves in spite of its warnings, and says them, at the start and
// for every other file.
func TestTheProxyLogsItsWarnings(t *testing.T) {
	t.Parallel()
	g := start(t, "mode: observe\nrules: [{name: elsewhere, mode: explain, match: {port: [1]}}]\n", nil)
	check := func(n int, line float64, rule, text string) {
		t.Helper()
		lines := g.WaitLog(t, "policy warning", n)
		last := lines[len(lines)-1]
		if len(lines) != n || last["level"] != "WARN" || last["file"] != g.file || last["line"] != line || last["rule"] != rule || last["warning"] != text {
			t.Errorf("%d warnings, the last one %v", len(lines), last)
		}
	}
	check(1, 2, "elsewhere", "no listener has the port 1: mend it, or add it to that POSTERN_LISTEN_ variable and restart")
	g.replaceNow(t, "floor: tls1.3\nmode: observe\n\nrules: [{name: past, mode: explain, until: 2020-01-01T00:00:00Z}]\n", "tls1.3")
	check(2, 4, "past", "ended at 2020-01-01T00:00:00Z: set a later until, or remove the rule")
}
