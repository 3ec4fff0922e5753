package report

import (
	"crypto/tls"
	"slices"
	"strings"
	"testing"

	"postern/internal/ledger"
	"postern/policy"
)

// TestWhomTheFloorAcceptsAgainIsNotLeft: a floor went back, and nobody it accepts is refused
// anything, nor written to. Of whom no hello is kept, nobody knows.
func TestWhomTheFloorAcceptsAgainIsNotLeft(t *testing.T) {
	const tls12, tls13, onlyRSA = "t12d030300_a1199cda8a52_395413a0cc0f", "t13d030300_b1199cda8a52_395413a0cc0f", "t12d030300_c1199cda8a52_395413a0cc0f"
	modern := policy.Hello{
		Versions: []uint16{0x303}, CipherSuites: []uint16{0xc02b, 0xc02f}, Groups: []tls.CurveID{tls.CurveP256, tls.CurveP384},
		SignatureSchemes: []tls.SignatureScheme{tls.ECDSAWithP256AndSHA256, tls.ECDSAWithP384AndSHA384, tls.PSSWithSHA256},
	}
	newest, rsa := modern, modern
	newest.Versions, newest.CipherSuites = []uint16{0x304}, []uint16{0x1301}
	rsa.CipherSuites = []uint16{0xc02f}
	client := func(addr, account string, v policy.Version, ja4 string, why policy.Reason) ledger.Client {
		c := came(addr, "imaps", v, ja4, 2, as(account, ""))
		c.Reason = why
		return c
	}
	all := []ledger.Client{
		client("192.0.2.1", "accepted@example.org", policy.TLS12, tls12, policy.ReasonVersion),
		client("192.0.2.2", "lost@example.org", policy.TLS12, "t12d030300_d1199cda8a52_395413a0cc0f", policy.ReasonVersion),
		client("192.0.2.3", "old@example.org", policy.TLS10, oldJA4, policy.ReasonVersion),
		client("192.0.2.4", "was-pq@example.org", policy.TLS13, tls13, policy.ReasonCipher),
		client("192.0.2.5", "keys@example.org", policy.TLS12, onlyRSA, policy.ReasonCipher),
		client("192.0.2.6", "both@example.org", policy.TLS12, tls12, policy.ReasonVersion),
		client("192.0.2.6", "both@example.org", policy.TLS10, oldJA4, policy.ReasonVersion),
	}
	f := facts{Facts{Now: sampleNow, Identity: "plain", Hellos: map[string]policy.Hello{tls12: modern, tls13: newest, onlyRSA: rsa}}, all}
	for rules, want := range map[string]string{
		"": "both@example.org keys@example.org lost@example.org old@example.org",
		"  - {name: higher, mode: enforce, floor: tls1.3, match: {client: [192.0.2.1]}}\n": "accepted@example.org both@example.org keys@example.org lost@example.org old@example.org",
	} {
		f.Policy = ruled(t, rules+"  - {name: cut, mode: enforce}\n")
		r := build(t, f, Options{Since: fortnight, By: ByAccount, Mail: true})
		var left, mail []string
		for _, g := range r.Left {
			left = append(left, g.Name)
		}
		for _, l := range r.Mail {
			mail = append(mail, l.Account)
		}
		slices.Sort(left)
		slices.Sort(mail)
		n := strings.Count(want, "@")
		if strings.Join(left, " ") != want || strings.Join(mail, " ") != want || r.Readiness.Remaining != n || r.Totals.Clients != n {
			t.Errorf("%q: left are %v, mail to %v, %d remain of %d", rules, left, mail, r.Readiness.Remaining, r.Totals.Clients)
		}
		words := map[int]string{1: "1 client that an earlier floor refused reaches the floor in force, and is not counted.",
			2: "2 clients that an earlier floor refused reach the floor in force, and are not counted."}[6-n]
		if r.Totals.Accepted != 6-n || !slices.Contains(r.Readiness.Reasons, words) {
			t.Errorf("%q: %d are accepted: %q", rules, r.Totals.Accepted, r.Readiness.Reasons)
		}
	}
}
