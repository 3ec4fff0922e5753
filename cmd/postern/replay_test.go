package main

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"postern/internal/admin"
	"postern/internal/ledger"
	"postern/internal/posterntest"
	"postern/policy"
	"postern/proxy"
)

// adminAPI is an admin port as the API describes it, with a client in each
// page.
func adminAPI(t *testing.T, asked *[]string) *httptest.Server {
	t.Helper()
	client := func(addr, ja4, version, seen, account string, noise bool) string {
		return fmt.Sprintf(`{"client": %q, "listener": "imaps", "endpoint": "imap.example.org:993", "version": %q, "reason": "version", "ja4": %q,
			"first_seen": "2026-06-01T08:00:00Z", "last_seen": %q, "counts": {"observed": 12, "explained": 0, "rejected": 0, "failed": 1},
			"accounts": [%q], "software": ["Outlook 14.0"], "login": "ok", "noise": %v, "rule": "", "owner": ""}`, addr, version, ja4, seen, account, noise)
	}
	pages := map[string]string{
		"":  `{"total": 4, "next_cursor": "b", "clients": [` + client("192.0.2.7", "old", "tls1.0", "2026-11-24T08:00:00Z", "anna@example.org", false) + `]}`,
		"b": `{"total": 4, "next_cursor": "c", "clients": [` + client("2001:db8::7", "old", "tls1.0", "2026-11-24T08:00:00Z", "bert@example.org", false) + `,` + client("192.0.2.9", "lost", "tls1.2", "2026-11-24T08:00:00Z", "zoe@example.org", false) + `]}`,
		"c": `{"total": 4, "next_cursor": "", "clients": [` + client("192.0.2.8", "old", "tls1.0", "2026-06-02T08:00:00Z", "gone@example.org", false) + `]}`,
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /api/v1/legacy-clients", func(w http.ResponseWriter, r *http.Request) {
		*asked = append(*asked, r.URL.RawQuery)
		fmt.Fprint(w, pages[r.URL.Query().Get("cursor")])
	})
	mux.HandleFunc("GET /api/v1/hellos", func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, `{"old": {"versions": [769], "cipher_suites": [49171, 47], "groups": [23], "point_formats": [0], "signature_schemes": null}}`)
	})
	s := httptest.NewServer(mux)
	t.Cleanup(s.Close)
	return s
}

func policyFile(t *testing.T, text string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "next.yaml")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

func TestAReplayAsksTheRunningInstance(t *testing.T) {
	var asked []string
	api := adminAPI(t, &asked)
	next := policyFile(t, "mode: enforce\nrules:\n  - {name: x, mode: explain, match: {client: [\"2001:db8::/32\"], port: [993], server_name: [imap.example.org]}}\n")
	listen := []string{"POSTERN_ADMIN_LISTEN=" + api.Listener.Addr().String()}
	for _, tt := range []struct {
		environ []string
		args    []string
	}{
		{listen, nil},
		{[]string{"POSTERN_ADMIN_LISTEN=" + posterntest.FreeAddr(t)}, []string{"-from", api.URL}},
	} {
		o := runAt(t, reportNow, tt.environ, append([]string{"replay", "-policy", next}, tt.args...)...)
		for _, want := range []string{
			"At Wed 25 Nov 2026 10:05 UTC " + next, "refuses 1 of 3 legacy clients", "\nRefused: 1 client\n", "\nanna@example.org  Outlook 14.0 ",
			"\nTold why, then closed: 1 client\n", "\nbert@example.org  Outlook 14.0 ", "\nNot known: 1 client\n", "\nzoe@example.org", "under candidates",
			"Of 1 client the hello is not kept",
		} {
			if !strings.Contains(strings.ReplaceAll(o.stdout, "\n", " "), strings.ReplaceAll(want, "\n", " ")) {
				t.Errorf("does not say %q:\n%s", want, o.stdout)
			}
		}
		if o.code != exitOK || o.stderr != "" || strings.Contains(o.stdout, "gone@") {
			t.Errorf("exit %d, %q\n%s", o.code, o.stderr, o.stdout)
		}
	}
	if want := "limit=1000 cursor=b&limit=1000 cursor=c&limit=1000"; !strings.HasPrefix(strings.Join(asked, " "), want) {
		t.Errorf("asked %q, want %q", asked, want)
	}
	asked = nil
	o := runAt(t, reportNow, listen, "replay", "-policy", next, "-noise", "-since", "365d", "-format", "json", "-at", "2027-01-01")
	var j struct {
		At      string
		Clients int
		Notes   []string
	}
	if err := json.Unmarshal([]byte(o.stdout), &j); err != nil || j.At != "2027-01-01T00:00:00Z" || j.Clients != 4 || !strings.HasPrefix(j.Notes[len(j.Notes)-1], "The ledger forgets clients that have stayed away for 90 days") || !strings.Contains(asked[0], "noise=include") {
		t.Errorf("%v %+v %q, exit %d, %q", err, j, asked, o.code, o.stderr)
	}
}

// TestAReplayGrantsGracesFromNowOn, by an instance and by its store.
func TestAReplayGrantsGracesFromNowOn(t *testing.T) {
	var asked []string
	api := adminAPI(t, &asked)
	_, environ := sqliteWith(t, plainly, annaComes)
	next := policyFile(t, "rules: [{name: cut, mode: enforce, match: {version: [tls1.0]}, grace: 7d}]\n")
	for _, from := range [][]string{nil, {"-from", api.URL}} {
		for at, want := range map[string]string{"2026-12-02T10:00:00Z": "\nTold why, then closed: ", "2026-12-02T10:06:00Z": "\nRefused: "} {
			o := runAt(t, reportNow, environ, append([]string{"replay", "-policy", next, "-at", at}, from...)...)
			if o.code != exitOK || !strings.Contains(o.stdout, want) || !strings.Contains(strings.Join(strings.Fields(o.stdout), " "), `Rule "cut" tells a client that is known to have logged in why for 7 days`) {
				t.Errorf("%v, at %s: exit %d, without %q: %s\n%s", from, at, o.code, want, o.stderr, o.stdout)
			}
		}
	}
}

func TestAReplayFromTheStore(t *testing.T) {
	_, environ := sqliteWith(t, plainly, annaComes, bertComes, scannerComes, guesserComes)
	next := policyFile(t, "mode: observe\nrules:\n  - {name: cut, mode: enforce, match: {version: [tls1.0]}, from: 2027-01-01T00:00:00Z}\n")
	o := runAt(t, reportNow, environ, "replay", "-policy", next)
	if o.code != exitOK || !strings.HasPrefix(o.stdout, "At Fri 1 Jan 2027 00:00 UTC ") || !strings.Contains(o.stdout, "\nRefused: 2 clients\n") ||
		!strings.Contains(o.stdout, "\nLet in, and counted: 1 client\n") || !strings.Contains(o.stdout, "anna@example.org") {
		t.Errorf("exit %d, %q\n%s", o.code, o.stderr, o.stdout)
	}
	o = runAt(t, reportNow, environ, "replay", "-policy", next, "-at", "2026-12-31", "-format", "csv", "-by", "software")
	if o.code != exitOK || strings.Contains(o.stdout, "refused") && !strings.HasPrefix(o.stdout, "software,answer,") || strings.Count(o.stdout, ",let_in,") != 3 {
		t.Errorf("exit %d, %q\n%s", o.code, o.stderr, o.stdout)
	}
}

func TestWhatAReplayCannotAnswer(t *testing.T) {
	const more = "; postern replay -h says what it takes\n"
	bad := policyFile(t, "mode: lenient\n")
	for _, tt := range []struct {
		args   []string
		code   int
		stderr string
	}{
		{nil, 2, "postern replay: -policy: the name of the file is missing: write -policy FILE" + more},
		{[]string{"-policy", bad}, 2, bad + `:1:7: mode: no such mode "lenient": use one of enforce, explain, observe` + "\n"},
		{[]string{"-policy", "gone.yaml"}, 2, "postern replay: gone.yaml: no such file or directory: create it, or mend the name, which counts from the working directory\n"},
		{[]string{"-policy", bad, "-at", "tomorrow"}, 2, `postern replay: -at: "tomorrow" is not a time: write one such as`},
		{[]string{"-policy", bad, "-since", "x"}, 2, "postern replay: -since: "},
		{[]string{"-policy", bad, "-by", "x"}, 2, "postern replay: -by: "},
		{[]string{"-policy", bad, "-format", "markdown"}, 2, `postern replay: -format: "markdown": use text, json or csv` + more},
		{[]string{"-policy", policyFile(t, "mode: enforce\n")}, 3, "postern replay: no instance answers at "},
	} {
		o := runAt(t, reportNow, []string{"POSTERN_ADMIN_LISTEN=" + posterntest.FreeAddr(t)}, append([]string{"replay"}, tt.args...)...)
		if o.code != tt.code || o.stdout != "" || !strings.HasPrefix(o.stderr, tt.stderr) {
			t.Errorf("%q: exit %d, stdout %q, stderr\n%s\nwant %d\n%s", tt.args, o.code, o.stdout, o.stderr, tt.code, tt.stderr)
		}
	}
}

// Of several accounts behind one address, an instance and its store name each one's program,
// by how it speaks, as a report does.
func TestAReplayNamesProgramsAsAReportDoes(t *testing.T) {
	curl, device, known := annaComes, annaComes, annaComes
	curl.software, curl.pattern = "", "imaps A001 CAPABILITY AUTHENTICATE:PLAIN:ir"
	device.account, device.software, device.pattern = "zoe@example.org", "", "imaps aaa.01 LOGIN:quoted:quoted"
	known.client, known.account, known.pattern = "192.0.2.8", "bert@example.org", curl.pattern
	url, environ := sqliteWith(t, plainly, curl, device, known)
	store, err := ledger.Open(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	clients := &admin.Clients{Store: store, Policy: func() *policy.Policy { return policy.New(policy.FloorTLS12, policy.Observe) }, Now: func() time.Time { return reportNow },
		OldServer: func(proxy.Listener) bool { return false }, Backlog: func() (b ledger.Backlog) { return b }}
	mux := http.NewServeMux()
	mux.Handle("GET /api/v1/legacy-clients", clients)
	mux.Handle("GET /api/v1/hellos", admin.HellosHandler(slog.New(slog.DiscardHandler), store.Hellos))
	api := httptest.NewServer(mux)
	defer api.Close()
	next := policyFile(t, "mode: enforce\n")
	for _, args := range []string{"", "-by program", "-format csv", "-format csv -by program"} {
		stored := runAt(t, reportNow, environ, append([]string{"replay", "-policy", next}, strings.Fields(args)...)...)
		asked := runAt(t, reportNow, environ, append([]string{"replay", "-policy", next, "-from", api.URL}, strings.Fields(args)...)...)
		for _, want := range []string{"curl", device.pattern[:20], "Outlook 14.0"} {
			if stored.stdout != asked.stdout || !strings.Contains(asked.stdout, want) {
				t.Errorf("%s: the instance, without %q or unlike its store:\n%s%s\nthe store:\n%s", args, want, asked.stdout, asked.stderr, stored.stdout)
			}
		}
	}
}

// Of an older version, several accounts of a client are not said to use a program that one of them does.
func TestProgramsOfAnInstanceAreNotMixedUp(t *testing.T) {
	for want, accounts := range map[string][]string{
		"[{anna Outlook }]":               {"anna"},
		"[{ Outlook } {anna  } {bert  }]": {"anna", "bert"},
		"[{ Outlook }]":                   nil,
	} {
		if got := fmt.Sprint(logins(&ledger.Client{Accounts: accounts, Software: []string{"Outlook"}})); got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
}
