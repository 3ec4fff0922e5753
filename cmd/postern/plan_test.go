package main

import (
	"encoding/json"
	"errors"
	"flag"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write the golden files anew")

const (
	examplePolicy  = "../../policy/testdata/example.yaml"
	dstPolicy      = "testdata/plan/dst.yaml"
	relaxingPolicy = "testdata/plan/relaxation.yaml"
)

// runPlan runs postern plan at a time.
func runPlan(t *testing.T, now string, environ []string, args ...string) outcome {
	t.Helper()
	clock, err := time.Parse(time.RFC3339, now)
	if err != nil {
		t.Fatal(err)
	}
	var stdout, stderr buffer
	code := run(t.Context(), system{args: append([]string{"plan"}, args...), environ: environ, stdout: &stdout, stderr: &stderr,
		now: func() time.Time { return clock }})
	return outcome{code, stdout.String(), stderr.String()}
}

func TestThePlanThatPeopleRead(t *testing.T) {
	file := []string{"POSTERN_POLICY_FILE=" + examplePolicy}
	for _, tt := range []struct {
		golden, now string
		environ     []string
		args        []string
	}{
		{"before", "2026-06-01T09:00:20Z", file, nil},
		{"brownouts", "2026-06-10T10:05:00+02:00", file, []string{"-for", "7d"}},
		{"ramp", "2026-06-24T12:00:00Z", file, []string{"-for", "30d"}},
		{"after", "2026-07-02T00:00:00Z", file, []string{"-for", "365d"}},
		{"from", "2020-01-01T00:00:00Z", file, []string{"-from", "2027-01-01"}},
		{"environment", "2026-06-01T00:00:00Z", []string{"POSTERN_POLICY_MODE=explain", "POSTERN_POLICY_FLOOR=tls1.3"}, nil},
		{"dst", "2026-10-25T00:40:00Z", nil, []string{"-policy", dstPolicy, "-for", "200d"}},
		// The environment's own policy does not matter then, nor whether it is right.
		{"relaxation", "2026-11-25T10:02:00Z", []string{"POSTERN_POLICY_MODE=lenient", "POSTERN_POLICY_FILE="}, []string{"-policy", relaxingPolicy}},
		{"no-imap", "2026-11-25T10:02:00Z", []string{"POSTERN_LISTEN_IMAPS=off", "POSTERN_LISTEN_IMAP=off"}, []string{"-policy", relaxingPolicy}},
		{"retreating", "2026-12-25T00:00:00Z", nil, []string{"-policy", relaxingPolicy, "-for", "30d"}},
		{"json", "2026-06-11T00:05:00Z", file, []string{"-json", "-for", "20d"}},
		{"relaxation-json", "2026-12-19T00:00:00Z", nil, []string{"-json", "-policy", relaxingPolicy, "-for", "14d"}},

		{"client-outside", "2026-06-16T00:00:00Z", file, []string{"-client", "192.0.2.8"}},
		{"client-inside", "2026-06-01T00:00:00Z", file, []string{"-at", "2026-06-20 10:30", "-client", "::ffff:192.0.2.8", "-version", "tls1.1"}},
		{"client-exempt", "2026-06-01T00:00:00Z", file, []string{"-at", "2026-07-01", "-client", "2001:db8:20::1", "-listener", "pop3"}},
		{"client-by-name", "2026-06-01T00:00:00Z", file, []string{"-at", "2026-07-01T02:00:00+02:00", "-server-name", "IMAP-legacy.example.org"}},
		{"client-anywhere", "2026-06-20T00:00:00Z", file, []string{"-version", "tls1.2", "-ja4", "t12d230600_44099cda8a52_195413a0cc0f"}},
		{"client-in-window", "2026-06-09T10:05:00Z", file, []string{"-client", "192.0.2.8", "-port", "1993"}},
		{"client-between-windows", "2026-06-09T10:15:00Z", file, []string{"-client", "192.0.2.8", "-version", "ssl3"}},
		{"client-by-port", "2026-06-09T10:15:00Z", append(file, "POSTERN_LISTEN_IMAPS=:0,127.0.0.1:10993"), []string{"-client", "192.0.2.8"}},
		{"client-by-connection", "2026-11-25T10:02:00Z", nil, []string{"-policy", relaxingPolicy, "-listener", "imap", "-client", "192.0.2.8"}},
		{"client-json", "2026-06-16T00:00:00Z", file, []string{"-json", "-client", "192.0.2.8"}},
	} {
		t.Run(tt.golden, func(t *testing.T) {
			o := runPlan(t, tt.now, tt.environ, tt.args...)
			if o.code != exitOK || o.stderr != "" {
				t.Fatalf("exit %d, stderr %q", o.code, o.stderr)
			}
			for line := range strings.Lines(o.stdout) {
				if n := utf8.RuneCountInString(strings.TrimSuffix(line, "\n")); n > 100 && !strings.Contains(tt.golden, "json") {
					t.Errorf("%d columns: %s", n, line)
				}
			}
			if strings.Contains(o.stdout, "\u00a0") || strings.Contains(o.stdout, "\x1b") {
				t.Errorf("more than plain text:\n%s", o.stdout)
			}
			if strings.Contains(tt.golden, "json") && !json.Valid([]byte(o.stdout)) {
				t.Errorf("not JSON:\n%s", o.stdout)
			}
			file := filepath.Join("testdata", "plan", tt.golden+".golden")
			if *update {
				if err := os.WriteFile(file, []byte(o.stdout), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), o.stdout); diff != "" {
				t.Errorf("differs (-want +got):\n%s", diff)
			}
		})
	}
}

func TestAPlanSaysWhatIsWrongAndWhere(t *testing.T) {
	bad := filepath.Join(t.TempDir(), "bad.yaml")
	if err := os.WriteFile(bad, []byte("mode: observe\nrules:\n  - name: ramp\n    mode: lenient\n    untill: 2026-07-01T00:00:00Z\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	const more = "; postern plan -h says what it takes\n"
	for _, tt := range []struct {
		environ []string
		args    []string
		want    string
	}{
		{nil, []string{"-policy", bad},
			bad + `:4:11: rule "ramp": mode: no such mode "lenient": use one of enforce, explain, observe` + "\n" +
				bad + `:5:5: rule "ramp": unknown key "untill" in a rule: use floor, for, from, grace, guard, match, mode, name, owner, pass_through, schedule, share, timezone, until` + "\n"},
		{nil, []string{"-policy", "gone.yaml"}, "gone.yaml: no such file or directory: create it, or mend the name, which counts from the working directory\n"},
		{[]string{"POSTERN_POLICY_FILE=gone.yaml"}, nil, "gone.yaml: no such file or directory: create it, or mend the name, which counts from the working directory\n"},
		{[]string{"POSTERN_POLICY_FILE=gone.yaml", "POSTERN_POLICY_MODE=enforce"}, nil,
			"POSTERN_POLICY_MODE: set beside POSTERN_POLICY_FILE: take it away, and write mode: enforce into gone.yaml\n"},
		{[]string{"POSTERN_POLICY_MODE=lenient", "POSTERN_LISTEN_IMAPS=993"}, nil,
			"POSTERN_LISTEN_IMAPS: \"993\": not host:port: write :993 for every address\n" +
				"POSTERN_POLICY_MODE: \"lenient\": not one of enforce, explain, observe\n"},
		{[]string{"POSTERN_LISTEN_IMAPS=off", "POSTERN_LISTEN_POP3S=off", "POSTERN_LISTEN_IMAP=off", "POSTERN_LISTEN_POP3=off"}, nil,
			"POSTERN_LISTEN_IMAPS: all four listeners are off: give one an address, such as :993\n"},
		{nil, []string{"-policy", ""}, "postern plan: -policy: its value is missing: write -policy FILE" + more},
		{nil, []string{"-for", "90"}, `postern plan: -for: "90" is not a duration, since its unit is missing: write one such as 10s, 30m, 36h or 90d` + more},
		{nil, []string{"-for", "3661d"}, "postern plan: -for: longer than 3660d, the most" + more},
		{nil, []string{"-from", "tomorrow"}, `postern plan: -from: "tomorrow" is not a time: write one such as 2026-07-01, "2026-07-01 10:30" (both UTC) or 2026-07-01T10:30:00+02:00` + more},
		{nil, []string{"-at", "1969-07-01"}, `postern plan: -at: "1969-07-01" is not a time: write one such as 2026-07-01, "2026-07-01 10:30" (both UTC) or 2026-07-01T10:30:00+02:00` + more},
		{nil, []string{"-at", "2026-02-30"}, `postern plan: -at: "2026-02-30" is not a time: write one such as 2026-07-01, "2026-07-01 10:30" (both UTC) or 2026-07-01T10:30:00+02:00` + more},
		{nil, []string{"-at", `a" for flag -b: c`}, `postern plan: -at: "a\" for flag -b: c" is not a time: write one such as 2026-07-01, "2026-07-01 10:30" (both UTC) or 2026-07-01T10:30:00+02:00` + more},
		{nil, []string{"-from", "9999-12-31"}, `postern plan: -from: "9999-12-31" is not a time: write one such as 2026-07-01, "2026-07-01 10:30" (both UTC) or 2026-07-01T10:30:00+02:00` + more},
		{nil, []string{"-at", ""}, "postern plan: -at: its value is missing: write -at TIME" + more},
		{nil, []string{"-at", "2026-07-01", "-for", "3d"}, "postern plan: -for: does not go with -at, which asks about one decision: leave one of them out (-at is its time)" + more},
		{nil, []string{"-from", "2026-07-01", "-client", "::1"}, "postern plan: -from: does not go with -client, which asks about one decision: leave one of them out (-at is its time)" + more},
		{nil, []string{"-client", "mail"}, `postern plan: -client: "mail" is not an IP address: write one such as 192.0.2.7 or 2001:db8::7` + more},
		{nil, []string{"-client", ""}, "postern plan: -client: its value is missing: write -client ADDRESS" + more},
		{nil, []string{"-client", "10.20.0.0/16"}, `postern plan: -client: "10.20.0.0/16" is a network: give one address of it, such as 10.20.0.1` + more},
		{nil, []string{"-client", "10.20.0.9/32"}, `postern plan: -client: "10.20.0.9/32" is a network: give one address of it, such as 10.20.0.9` + more},
		{nil, []string{"-version", "1.0"}, `postern plan: -version: no such version "1.0": use ssl2, ssl3, tls1.0, tls1.1, tls1.2, tls1.3` + more},
		{nil, []string{"-listener", "smtp"}, `postern plan: -listener: no such listener "smtp": use imaps, pop3s, imap, pop3` + more},
		{nil, []string{"-port", "0"}, `postern plan: -port: "0" is not a port: write a number from 1 to 65535` + more},
		{nil, []string{"-server-name", "*.example.org"}, `postern plan: -server-name: "*.example.org" is no name that a client sends: give one such as imap.example.org` + more},
		{nil, []string{"-ja4", "t10"}, `postern plan: -ja4: "t10" is not a JA4 fingerprint such as t10d230600_44099cda8a52_195413a0cc0f` + more},
		{nil, []string{"-client", "192.0.2.7", "extra"}, `postern plan: unexpected argument "extra": a value stands behind its flag, one of -at, -client, -env, -for, -from, -ja4, -listener, -policy, -port, -server-name, -version` + more},
		{nil, []string{"next.yaml"}, `postern plan: unexpected argument "next.yaml": write -policy next.yaml` + more},
	} {
		o := runPlan(t, "2026-06-01T00:00:00Z", tt.environ, tt.args...)
		if o.code != exitUsage || o.stdout != "" || o.stderr != tt.want {
			t.Errorf("%v %q: exit %d, stdout %q, stderr\n%s\nwant\n%s", tt.environ, tt.args, o.code, o.stdout, o.stderr, tt.want)
		}
	}
}

// What is wrong with the rest of the environment is for check to tell.
func TestAPlanNeedsNoRunningInstance(t *testing.T) {
	environ := []string{"POSTERN_POLICY_FILE=" + examplePolicy, "POSTERN_UPSTREAM_IMAP=nowhere", "POSTERN_NONSENSE=1"}
	if o := runCommand(t, environ, "plan"); o.code != exitOK || !strings.Contains(o.stdout, "cutover") {
		t.Errorf("exit %d, stdout %q, stderr %q", o.code, o.stdout, o.stderr)
	}
}

// A host where only the unit has the environment must not get the defaults for an
// answer.
func TestWithoutAnEnvironmentThePlanIsThatOfTheRunningInstance(t *testing.T) {
	policy := filepath.Join(t.TempDir(), "policy.yaml")
	for _, tt := range []struct{ instance, file, want string }{
		{`{"mode": "observe", "floor": "tls1.2-aead", "listeners": {"imaps": "observe"}}`, "", "everybody: observe"},
		{`{"file": ` + strconv.Quote(policy) + `, "reload_errors": ["line 3"], "listeners": {"pop3": "explain"}}`, "mode: explain\nfloor: tls1.2\n", "everybody: explain"},
	} {
		if err := os.WriteFile(policy, []byte(tt.file), 0o600); err != nil {
			t.Fatal(err)
		}
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, tt.instance) }))
		defer server.Close()
		environ := []string{"POSTERN_ADMIN_LISTEN=" + server.Listener.Addr().String()}
		o := runPlan(t, "2026-06-01T00:00:00Z", environ, "-for", "1d")
		if o.code != exitOK || !strings.Contains(o.stdout, tt.want) ||
			!strings.Contains(o.stderr, "this is the policy of the instance at "+server.Listener.Addr().String()) ||
			strings.Contains(o.stderr, "line 3") != (tt.file != "") {
			t.Errorf("exit %d, stdout %q, stderr %q", o.code, o.stdout, o.stderr)
		}
	}
}

type brokenPipe struct{}

func (brokenPipe) Write([]byte) (int, error) { return 0, errors.New("broken pipe") }

func TestAPlanThatCannotBeWrittenIsNoSuccess(t *testing.T) {
	for _, args := range [][]string{{"plan"}, {"plan", "-json"}, {"plan", "-client", "::1"}, {"plan", "-client", "::1", "-json"}} {
		var stderr buffer
		code := run(t.Context(), system{args: args, environ: []string{"POSTERN_POLICY_MODE=enforce"}, stdout: brokenPipe{}, stderr: &stderr})
		if code != exitBroken || stderr.String() != "postern plan: writing: broken pipe\n" {
			t.Errorf("%v: exit %d, stderr %q", args, code, stderr.String())
		}
	}
}

func TestThePlansOfTheDocumentsAreReal(t *testing.T) {
	page, err := os.ReadFile("../../docs/policy.md")
	if err != nil {
		t.Fatal(err)
	}
	for command, golden := range map[string]string{
		"$ postern plan -policy policy.yaml -from \"2026-06-01 09:00\"\n":       "before",
		"$ postern plan -policy policy.yaml -at 2026-06-16 -client 192.0.2.8\n": "client-outside",
	} {
		_, rest, found := strings.Cut(string(page), "```\n"+command)
		shown, _, _ := strings.Cut(rest, "```")
		printed, err := os.ReadFile(filepath.Join("testdata", "plan", golden+".golden"))
		if err != nil || !found {
			t.Fatalf("%q: found %v, %v", command, found, err)
		}
		for part := range strings.SplitSeq(shown, "...\n") {
			for block := range strings.SplitSeq(part, "\n\n") {
				if !strings.Contains(string(printed), block) {
					t.Errorf("%q does not print\n%s", command, block)
				}
			}
		}
	}
}
