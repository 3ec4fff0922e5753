package admin

import (
	"context"
	"flag"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"postern/policy"
)

var update = flag.Bool("update", false, "write golden files")

// What dashboards and scripts read is spelled out in a golden file.
func TestPolicyAsJSON(t *testing.T) {
	p, err := policy.Parse([]byte(`
floor: tls1.2-compat
mode: observe
rules:
  - name: scanners
    mode: observe
    match: {client: [10.20.0.0/16], listener: [imaps], port: [993], server_name: ["*.example.org"], version: [tls1.0], ja4: [t10d230600_44099cda8a52_195413a0cc0f]}
    until: 2026-12-31T00:00:00Z
    owner: facilities@example.org
  - {name: pop first, mode: explain, match: {listener: [pop3s]}}
  - {name: brownouts, mode: enforce, schedule: "0 9 * * *", for: 10m, timezone: Europe/Berlin, from: 2026-06-08T00:00:00Z, until: 2026-06-09T00:00:00Z}
  - {name: some, mode: explain, share: {from: 10%, to: 20%, by: connection}, from: 2026-06-01T00:00:00Z, until: 2026-06-11T00:00:00Z}
  - {name: over, mode: enforce, until: 2026-01-01T00:00:00Z}
  - {name: cutover, mode: enforce, grace: 7d, guard: {clients: 20, within: 1h, then: observe}, from: 2026-07-01T00:00:00Z}
candidates:
  - {name: new, floor: tls1.3}
`))
	if err != nil {
		t.Fatal(err)
	}
	h := PolicyHandler(func() PolicyState {
		return PolicyState{
			Policy: p.Guarded([]policy.GuardState{{Rule: "cutover", Seen: 21, Tripped: time.Date(2026, 6, 5, 0, 0, 0, 0, time.UTC)}}, nil), File: "/etc/postern/policy.yaml", Read: time.Date(2026, 5, 1, 10, 0, 0, 0, time.UTC),
			Failed:    []string{"/etc/postern/policy.yaml:1:1: the file is empty: write floor: tls1.2 and mode: enforce into it"},
			Listeners: []string{"imaps", "pop3s"}, Site: policy.Site{Ports: []uint16{993}, Names: []string{"mail.example.org"}},
			Now: time.Date(2026, 6, 6, 0, 0, 0, 0, time.UTC),
			FirstRefused: func(_ context.Context, client netip.Addr) (map[string]time.Time, error) {
				return map[string]time.Time{"cutover": time.Date(2026, 6, 1, 0, 0, 0, 0, time.UTC), "over": time.Unix(0, 0)}, nil
			},
		}
	})
	r := httptest.NewRecorder()
	h.ServeHTTP(r, httptest.NewRequest("GET", "/api/v1/policy?client=192.0.2.7", nil))
	if got := r.Header().Get("Content-Type"); r.Code != 200 || got != "application/json" {
		t.Errorf("status %d, type %q", r.Code, got)
	}
	golden(t, "policy.json", r.Body.String())
}

// golden compares with a file.
func golden(t *testing.T, name, got string) {
	t.Helper()
	file := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// A policy out of two variables is one without a file, and nothing in it is
// null.
func TestAPolicyWithoutAFileIsReportedToo(t *testing.T) {
	h := PolicyHandler(func() PolicyState {
		return PolicyState{Policy: policy.New(policy.FloorTLS12, policy.Observe), Listeners: []string{"imap"}}
	})
	r := httptest.NewRecorder()
	h.ServeHTTP(r, httptest.NewRequest("GET", "/api/v1/policy", nil))
	want := `{
  "now": "0001-01-01T00:00:00Z",
  "read": "0001-01-01T00:00:00Z",
  "floor": "tls1.2",
  "mode": "observe",
  "listeners": {
    "imap": "observe"
  },
  "rules": [],
  "candidates": [],
  "next_changes": [],
  "warnings": [],
  "guards": []
}
`
	if diff := cmp.Diff(want, r.Body.String()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
