package admin

import (
	"crypto/tls"
	"testing"

	"postern/internal/report"
	"postern/policy"
	"postern/proxy"
)

// A floor went back: the report, the list and the API agree on whom it takes again, and no rule
// is said to refuse them.
func TestWhomTheFloorAcceptsAgainNoRuleRefuses(t *testing.T) {
	b := newTestLedger(t)
	h := policy.Hello{
		Versions: []uint16{0x0303}, CipherSuites: []uint16{0xc02b, 0xc02f}, Groups: []tls.CurveID{tls.CurveP256},
		SignatureSchemes: []tls.SignatureScheme{tls.PSSWithSHA256},
	}
	again := visitor{client: "192.0.2.12", name: "imap.example.org", listener: proxy.IMAPS, port: 993}
	c := again.conn()
	c.JA4, c.Accepted = h.Fingerprint(), b.now
	b.Handshake(&proxy.Handshake{Conn: c, Hello: &h, Verdict: policy.Verdict{Version: policy.TLS12, Reason: policy.ReasonVersion}, Outcome: proxy.Rejected})
	b.comes(named, 1, proxy.Rejected)
	b.flush(t)
	const rules = "floor: tls1.2\nmode: observe\nrules:\n  - {name: cut, mode: enforce, until: 2026-12-31T00:00:00Z}\n"
	_, page := show(t, b.page(t, rules, nil))
	says(t, page, "In all 1 client: 1 never let in. 1 client that an earlier floor refused reaches the floor in force, and is not counted.",
		"192.0.2.12 TLS 1.2 never let in not known imaps :993 just now just now 1 rejected accepted 192.0.2.7")
	_, page = showAt(t, b.page(t, rules, nil).Handler(), "/client?address=192.0.2.12", 200)
	says(t, page, "1 rejected accepted What the policy does with it Now accepted Nothing else")
	api := b.clients(t, rules)
	for query, want := range map[string]string{"sort=client": "192.0.2.7 192.0.2.12", "rule=cut": "192.0.2.7", "rule=(none)": "192.0.2.12"} {
		answer, who := listed(t, api, query)
		if who != want {
			t.Errorf("%s: %s, want %s", query, who, want)
		}
		if c := answer.Clients[len(answer.Clients)-1]; query != "rule=cut" && (c.Meets != report.Accepted || c.Rule != "" || c.Until != nil) {
			t.Errorf("%s: %s by %q until %v", query, c.Meets, c.Rule, c.Until)
		}
	}
}
