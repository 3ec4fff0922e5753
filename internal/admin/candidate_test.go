package admin

import (
	"crypto/tls"
	"strings"
	"testing"

	"postern/policy"
	"postern/proxy"
)

// The page of a candidate is about the clients whom it would refuse: its verdict, its numbers.
func TestThePageOfACandidateLeadsWithItsVerdict(t *testing.T) {
	const rules = "floor: tls1.2\nmode: enforce\nrules:\n  - {name: cut, mode: enforce, from: 2026-06-20T00:00:00Z}\ncandidates: [{name: no pq, floor: tls1.3-pq, remember: true}]\n"
	b, p := newTestLedger(t), policyOf(t, rules)
	b.Remember(p)
	h := policy.Hello{Versions: []uint16{0x0304}, CipherSuites: []uint16{0x1301}, Groups: []tls.CurveID{tls.X25519}, SignatureSchemes: []tls.SignatureScheme{tls.PSSWithSHA256}}
	v := p.At(b.now).Decide(&h, policy.ConnInfo{Keys: policy.RSA}, b.now, 0)
	c := visitor{client: "192.0.2.31", listener: proxy.IMAPS, port: 993}.conn()
	c.JA4, c.Accepted, c.Legacy, c.Remembered = h.Fingerprint(), b.now, false, v.Remembered
	b.Handshake(&proxy.Handshake{Conn: c, Hello: &h, Verdict: v, Version: policy.TLS13, Outcome: proxy.Accepted})
	b.Login(&proxy.Login{Conn: c, Account: "anna@example.org"})
	b.comes(named, 1, proxy.Observed)
	b.comes(nameless, 1, proxy.Observed)
	b.logsIn(named, "old@example.org", "")
	b.logsIn(nameless, "older@example.org", "")
	b.flush(t)
	page := b.page(t, rules, func(p *Page, _ *PolicyState) {
		p.Candidates = func() *map[string][4]int { return &map[string][4]int{"no pq": {0, 1, 1, 1}} }
	})
	handler := page.Handler()
	page.standing.wait(t)
	const path = "/?candidate=no+pq"
	showAt(t, handler, path, 200)
	page.reports("no pq").wait(t)
	_, body := showAt(t, handler, path, 200)
	says(t, body,
		"Mail clients that reach tls1.2 , and whom no pq would refuse 16 Jun",
		"NO-GO: 1 client whom &#34;no pq&#34; would refuse is left. In all 1 client: 1 in the way. Seen in the last 14 days. postern report -candidate &#34;no pq&#34; says who, and postern report -ready -candidate &#34;no pq&#34; answers",
		"Clients whom no pq would refuse 0 in the last hour 1 in 24 hours 1 in 7 days 1 in 30 days Distinct clients a day over 30 days 2 1 0 Distinct",
		"They reach the floor, and are let in. Clients below the floor",
		"192.0.2.31 TLS 1.3 no post-quantum group anna@example.org",
	)
	if !strings.Contains(body, "<title>Clients whom &#34;no pq&#34; would refuse in 7 days: 1 - Postern</title>") {
		t.Error("the title is another one")
	}
	if strings.Contains(visible(body), "Dates of the policy") {
		t.Error("dates of the policy stand beside clients that it lets in")
	}
	_, body = showAt(t, handler, "/client?address=192.0.2.31&candidate=no+pq", 200)
	says(t, body, "Mail clients that reach tls1.2 , and whom no pq would refuse 16 Jun", "Now accepted Nothing")
	_, body = showAt(t, handler, "/", 200)
	says(t, body, "Mail clients below tls1.2", "NO-GO: 2 clients with old TLS are left.", "postern report says who", "Dates of the policy")
	_, body = showAt(t, handler, "/?candidate=gone", 200)
	says(t, body, "NO-GO: 2 clients with old TLS are left.", "Mail clients below tls1.2")
}
