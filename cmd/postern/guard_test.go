package main

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"postern/internal/ledger"
)

const guardedPolicy = `
mode: observe
rules:
  - {name: cutover, mode: enforce, grace: 7d, guard: {clients: 20, within: 1h, then: observe}}
`

// TestGuardsAreReadFromTheLedgerWhereNoInstanceRuns, by guard, plan and plan -client.
func TestGuardsAreReadFromTheLedgerWhereNoInstanceRuns(t *testing.T) {
	url, environ := sqliteWith(t, plainly, annaComes)
	environ = append(environ[:2], "POSTERN_POLICY_FILE="+policyFile(t, guardedPolicy))
	says := func(want string, args ...string) {
		t.Helper()
		o := runAt(t, reportNow, environ, args...)
		if words := strings.Join(strings.Fields(o.stdout), " "); o.code != exitOK || !strings.Contains(words, want) {
			t.Errorf("%v: exit code %d, want %q:\n%s%s", args, o.code, want, o.stdout, o.stderr)
		}
	}
	says(`The guard of "cutover" has met 0 known clients within 1h; more than 20 trip it: observe.`, "guard")
	says("told why for 7 days from its first refusal on", "plan", "-client", "192.0.2.7")
	store, err := ledger.Open(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	if err := store.Release(t.Context(), "cutover", reportNow.Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	says("What was before Wed 25 Nov 2026 11:05:30 UTC does not count.", "guard")
	var known guardsKnown
	o := runAt(t, reportNow, environ, "guard", "-json")
	if err := json.Unmarshal([]byte(o.stdout), &known); err != nil || len(known.Guards) != 1 || !known.Guards[0].Released.Equal(reportNow.Add(time.Hour)) {
		t.Errorf("%v\n%s%s", err, o.stdout, o.stderr)
	}
	environ[2] = "POSTERN_POLICY_MODE=enforce"
	says("The policy has no guard.", "guard")
}

func TestAGuardIsReleasedByARunningInstanceAlone(t *testing.T) {
	_, environ := sqliteWith(t, plainly)
	environ = append(environ[:2], "POSTERN_POLICY_FILE="+policyFile(t, guardedPolicy))
	for _, tt := range []struct {
		args []string
		code int
		want string
	}{
		{[]string{"-release", "cutover"}, exitBroken, "connection refused"},
		{[]string{"-until", "2026-12-01"}, exitUsage, "-until: goes with -release RULE"},
	} {
		if o := runAt(t, reportNow, environ, append([]string{"guard"}, tt.args...)...); o.code != tt.code || !strings.Contains(o.stderr, tt.want) {
			t.Errorf("%v: exit code %d, want %d and %q:\n%s", tt.args, o.code, tt.code, tt.want, o.stderr)
		}
	}
}

// TestAPlanKnowsTheGuardsWhileTheLedgerIsAway: the running instance does.
func TestAPlanKnowsTheGuardsWhileTheLedgerIsAway(t *testing.T) {
	running := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Query().Get("client") == "192.0.2.7" {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		io.WriteString(w, `{"guards": [{"rule": "cutover", "tripped": "2026-11-25T09:00:00Z"}]}`)
	}))
	defer running.Close()
	_, environ := sqliteWith(t, plainly)
	environ = append(environ[:2], "POSTERN_POLICY_FILE="+policyFile(t, guardedPolicy), "POSTERN_ADMIN_LISTEN="+running.Listener.Addr().String())
	o := runAt(t, reportNow, environ, "plan", "-client", "192.0.2.7")
	if !strings.Contains(o.stdout, "It is let in and counted (observe)") || !strings.Contains(o.stderr, "warning: whose grace has begun is not known") {
		t.Errorf("exit code %d\n%s%s", o.code, o.stdout, o.stderr)
	}
}

// TestAReleaseSaysWhatItDid: by which mode the rule goes on, for whom, and since when the
// guard counts.
func TestAReleaseSaysWhatItDid(t *testing.T) {
	running := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		q := r.URL.Query()
		if r.Method != "POST" || q.Get("until") != "" && q.Get("until") != "2026-11-26" {
			t.Errorf("%s %v", r.Method, r.URL)
		}
		answer := `{"rule": "cutover", "mode": "enforce", "clients": 20, "within": "1h", "then": "observe", "seen": 0, "released": "2026-11-25T10:05:30Z", "share_now": 1}`
		switch q.Get("release") {
		case "ramp":
			answer = `{"rule": "ramp", "mode": "explain", "clients": 3, "within": "30m", "then": "hold", "seen": 0, "released": "2026-11-26T00:00:00Z", "share_now": 0.4321}`
		case "(policy)":
			answer = `{"rule": "(policy)", "mode": "enforce", "clients": 20, "within": "1h", "then": "explain", "seen": 0, "released": "2026-11-25T10:05:30Z", "share_now": 1}`
		case "over":
			answer = `{"rule": "over", "mode": "enforce", "clients": 20, "within": "1h", "then": "explain", "seen": 0, "released": "2026-11-25T10:05:30Z", "share_now": 0}`
		case "calm":
			w.WriteHeader(http.StatusConflict)
			answer = `{"error": "the guard of \"calm\": it has not tripped"}`
		case "other":
			w.WriteHeader(http.StatusBadRequest)
			answer = `{"error": "the policy has no guard of \"other\": postern guard lists them"}`
		}
		io.WriteString(w, answer)
	}))
	defer running.Close()
	_, environ := sqliteWith(t, plainly)
	environ = append(environ[:2], "POSTERN_ADMIN_LISTEN="+running.Listener.Addr().String())
	for _, tt := range []struct {
		args       []string
		code       int
		out, wrong string
	}{
		{[]string{"cutover"}, exitOK, `The guard of "cutover" is released: the mode is enforce.
More than 20 known clients within 1h, from Wed 25 Nov 2026 10:05:30 UTC on, trip it: observe.
`, ""},
		{[]string{"ramp", "-until", "2026-11-26"}, exitOK, `The guard of "ramp" is released: the mode is explain for 43.2 % of the clients.
More than 3 known clients within 30m, from Thu 26 Nov 2026 00:00 UTC on, trip it: hold.
`, ""},
		{[]string{"(policy)"}, exitOK, `The guard of "(policy)" is released: the mode is enforce.
More than 20 known clients within 1h, from Wed 25 Nov 2026 10:05:30 UTC on, trip it: explain.
`, ""},
		{[]string{"over"}, exitOK, `The guard of "over" is released: the mode is enforce, and its rule is not in force now.
More than 20 known clients within 1h, from Wed 25 Nov 2026 10:05:30 UTC on, trip it: explain.
`, ""},
		{[]string{"calm"}, exitNo, "", `the guard of "calm": it has not tripped`},
		{[]string{"other"}, exitUsage, "", `the policy has no guard of "other": postern guard lists them`},
	} {
		o := runAt(t, reportNow, environ, append([]string{"guard", "-release"}, tt.args...)...)
		if o.code != tt.code || o.stdout != tt.out || !strings.Contains(o.stderr, tt.wrong) || (o.stderr == "") != (tt.wrong == "") {
			t.Errorf("%v: exit code %d, want %d:\n%s%s", tt.args, o.code, tt.code, o.stdout, o.stderr)
		}
	}
}
