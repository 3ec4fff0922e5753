package report

import (
	"bytes"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"postern/internal/ledger"
	"postern/policy"
)

// TestALetterSaysUntilWhenItsClientsAreToldWhy by the grace of a rule, and the report that
// there is one.
func TestALetterSaysUntilWhenItsClientsAreToldWhy(t *testing.T) {
	const words = `Rule "cut" has a grace: a client that had logged in is told why for 7 days from its first refusal on, and refused after that.`
	first := sampleNow.Add(-2 * day)
	refused := func(r *policy.Rule, client netip.Addr) time.Time {
		if r.Name != "cut" || client != anna().Addr {
			t.Errorf("%s, %s", r.Name, client)
		}
		return first.Add(r.Grace)
	}
	never := func(*policy.Rule, netip.Addr) (none time.Time) { return none }
	text := func(t time.Time) string { return t.UTC().Format(time.RFC3339) }
	soon := sampleNow.Add(10 * day)
	for _, tt := range []struct {
		rules, row, told string
		graceEnds        func(*policy.Rule, netip.Addr) time.Time
		noted            bool
	}{
		{"  - {name: cut, mode: enforce, grace: 7d}\n", "told why  2026-11-30", text(first.Add(7 * day)), refused, true},
		{"  - {name: cut, mode: enforce, grace: 7d}\n", "told why  2026-12-02", text(sampleNow.Add(7 * day)), never, true},
		{"  - {name: cut, mode: enforce, grace: 1d}\n", "0 days  2026-11-25", "", refused, false},
		{"  - {name: cut, mode: enforce, grace: 7d, from: " + text(soon) + "}\n", "10 days  2026-12-05", text(soon.Add(7 * day)), never, false},
		{"  - {name: cut, mode: enforce}\n", "0 days  2026-11-25", "", refused, false},
		{"  - {name: other, mode: explain}\n  - {name: cut, mode: enforce, grace: 7d}\n", "0 days  2026-11-25", "", refused, true},
	} {
		f := facts{Facts{Now: sampleNow, Identity: "plain", Policy: ruled(t, tt.rules), graceEnds: tt.graceEnds}, []ledger.Client{anna()}}
		r := build(t, f, Options{Since: fortnight, Mail: true})
		told := ""
		if until := r.Mail[0].ToldWhyUntil; !until.IsZero() {
			told = text(until)
		}
		var letters, csv bytes.Buffer
		if err := r.Write(&letters, Style{Format: Text, Mail: true}); err != nil {
			t.Fatal(err)
		}
		if err := r.Write(&csv, Style{Format: CSV, Mail: true}); err != nil {
			t.Fatal(err)
		}
		if told != tt.told || !strings.Contains(letters.String(), tt.row) || !strings.HasSuffix(csv.String(), ","+tt.told+"\r\n") {
			t.Errorf("%s: told why until %q\n%s%s", tt.rules, told, letters.String(), csv.String())
		}
		if slices.Contains(r.Notes, words) != tt.noted {
			t.Errorf("%s: %q", tt.rules, r.Notes)
		}
	}
}
