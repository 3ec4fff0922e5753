package admin

import (
	"crypto/tls"
	"fmt"
	"net/url"
	"regexp"
	"strings"
	"testing"

	"postern/policy"
	"postern/proxy"
)

func TestAClientHasAPage(t *testing.T) {
	b := village(t)
	w, page := showAt(t, b.page(t, someRules, nil).Handler(), "/client?address=192.0.2.7", 200)
	says(t, page,
		"Client 192.0.2.7", "First seen 6 Jun 2026, 12:00 UTC, last seen 16 Jun 2026, 10:30 UTC, 90 minutes ago. 12 observed, 1 failed.",
		"imaps imap.example.org:993 TLS 1.0 anna@example.org anton@example.org "+outlook+" t10d020200_f54dd463d39b_a8f3e973773c 10 days ago 90 minutes ago 12 observed 1 failed observe by warehouse scanners until 31 Dec 2026 facilities@example.org",
		"Now observe by warehouse scanners (owner facilities@example.org )", "in 197 days Thu 31 Dec 2026, 00:00 UTC observe Nothing else",
		"16 Jun 2026 11 0 0 1 6 Jun 2026 1 0 0 0",
		"Versions tls1.0 Cipher suites TLS_RSA_WITH_AES_128_CBC_SHA , TLS_RSA_WITH_AES_256_CBC_SHA Groups none Signatures none",
		"tls1.2-compat refused the version is too old tls1.2 refused", "tls1.3 refused the version is too old",
	)
	if got := w.Header().Get("Content-Security-Policy"); got != pagePolicy {
		t.Errorf("Content-Security-Policy is %q", got)
	}
	if strings.Contains(page, "Other addresses") || strings.Contains(page, "<script") {
		t.Error("an IPv4 address has others, or a script")
	}
}

func TestAPageOfAClientThatIsNotThere(t *testing.T) {
	b := village(t)
	h := b.page(t, someRules, nil).Handler()
	_, page := showAt(t, h, "/client?address=192.0.2.99", 404)
	says(t, page, "Client 192.0.2.99 The ledger does not know this address")
	for _, bad := range []string{"", "address=", "address=192.0.2.0/24", "address=fe80::1%25eth0", "address=%3Cscript%3E", "address=imap.example.org"} {
		_, page := showAt(t, h, "/client?"+bad, 400)
		says(t, page, "That is no address")
	}
	if _, page := showAt(t, h, "/client?address=::ffff:192.0.2.7", 200); !strings.Contains(page, "Client 192.0.2.7") {
		t.Error("an IPv4-mapped address is another client")
	}
	_, page = showAt(t, h, "/client?address=192.0.2.10", 200)
	says(t, page, "imaps :993 noise", "refused", "a retry")
	b.Store.Close()
	_, page = showAt(t, h, "/client?address=192.0.2.7", 503)
	says(t, page, "The ledger cannot be read now")
}

func TestAnIPv6ClientNamesTheOthersOfItsNetwork(t *testing.T) {
	b := newTestLedger(t)
	v := sixth
	for i := range 60 {
		v.client = fmt.Sprintf("2001:db8::%x", i+1)
		b.comes(v, 1, proxy.Rejected)
	}
	v.client = "2001:db8:0:1::1"
	b.comes(v, 1, proxy.Rejected)
	b.flush(t)
	h := b.page(t, someRules, nil).Handler()
	_, page := showAt(t, h, "/client?address=2001:db8::7", 200)
	_, others, _ := strings.Cut(page, "Other addresses of <code>2001:db8::/64</code>")
	others, _, _ = strings.Cut(others, "</ul>")
	links := regexp.MustCompile(`href="(/client\?address=[^"]*)"`).FindAllStringSubmatch(others, -1)
	if len(links) != othersShown || strings.Contains(others, "db8::7<") || strings.Contains(others, "db8:0:1") {
		t.Errorf("%d others: %s", len(links), others)
	}
	showAt(t, h, links[0][1], 200)
	if m := regexp.MustCompile(`href="(/\?network=[^"#]*)`).FindStringSubmatch(others); m == nil {
		t.Error("no link to the rest")
	} else if _, page := showAt(t, h, strings.ReplaceAll(m[1], "&amp;", "&"), 200); !strings.Contains(visible(page), "of 60 rows") {
		t.Errorf("the link to the rest, %s, has others", m[1])
	}
}

// What a client meets is said of each place, and no more often than it differs.
func TestAClientIsToldApartByPlace(t *testing.T) {
	b := newTestLedger(t)
	for _, v := range []visitor{
		{client: "192.0.2.7", listener: proxy.IMAPS, port: 993, version: policy.TLS10},
		{client: "192.0.2.7", listener: proxy.IMAPS, port: 993, version: policy.TLS11},
		{client: "192.0.2.7", listener: proxy.IMAPS, port: 993, version: policy.SSL3},
		{client: "192.0.2.7", listener: proxy.IMAPS, port: 10993, version: policy.TLS10},
	} {
		b.comes(v, 1, proxy.Rejected)
	}
	b.flush(t)
	const rules = `
mode: observe
rules:
  - {name: by port, mode: enforce, match: {port: [10993]}, until: 2026-08-01T00:00:00Z}
  - {name: brownouts, mode: enforce, schedule: "0 * * * *", for: 10m, from: 2026-07-01T00:00:00Z, until: 2026-07-05T00:00:00Z}
  - {name: some, mode: explain, share: {from: 25%, to: 25%, by: connection}, from: 2026-07-10T00:00:00Z, until: 2026-07-20T00:00:00Z}
`
	_, page := showAt(t, b.page(t, rules, nil).Handler(), "/client?address=192.0.2.7", 200)
	says(t, page,
		":993 TLS 1.1", "Now observe in 14 days Wed 1 Jul 2026, 00:00 UTC observe ; in the windows of its schedule enforce by brownouts in 18 days Sun 5 Jul 2026, 00:00 UTC observe",
		"in 23 days Fri 10 Jul 2026, 00:00 UTC explain 25 % of its connections by some , observe 75 % of its connections",
		"imaps :993 SSL 3.0 Now refused, cannot be served in 14 days Wed 1 Jul 2026, 00:00 UTC refused, cannot be served ; in the windows of its schedule enforce by brownouts in 18 days Sun 5 Jul 2026, 00:00 UTC refused, cannot be served Nothing else", "imaps :10993 TLS 1.0 Now enforce by by port in 45 days Sat 1 Aug 2026, 00:00 UTC observe",
	)
	if n := strings.Count(page, "<b>Now</b>"); n != 3 {
		t.Errorf("%d courses", n)
	}
}

// Which floors refuse a hello, policy decides.
func TestThePageOfAClientNamesTheFloorsThatRefuseIt(t *testing.T) {
	b := newTestLedger(t)
	offer := func(client string, h policy.Hello, reason policy.Reason) {
		c := named.conn()
		c.Client, c.JA4, c.Accepted = visitor{client: client}.conn().Client, h.Fingerprint(), b.now
		b.Handshake(&proxy.Handshake{Conn: c, Hello: &h, Verdict: policy.Verdict{Version: h.Version(), Reason: reason}, Outcome: proxy.Rejected})
	}
	rsa := policy.Hello{
		Versions: []uint16{0x0303}, CipherSuites: []uint16{0x002f, 0x1a2b, 0x0a0a}, Groups: []tls.CurveID{tls.CurveP256, 0x1234},
		SignatureSchemes: []tls.SignatureScheme{0x0401, 0x0201},
	}
	cbc := rsa
	cbc.CipherSuites = []uint16{0xc013}
	offer("192.0.2.1", rsa, policy.ReasonCipher)
	offer("192.0.2.2", cbc, policy.ReasonCipher)
	b.flush(t)
	h := b.page(t, someRules, nil).Handler()
	_, page := showAt(t, h, "/client?address=192.0.2.1", 200)
	says(t, page, "TLS_RSA_WITH_AES_128_CBC_SHA , 0x1a2b Groups secp256r1 , 0x1234 Signatures rsa_pkcs1_sha256 , rsa_pkcs1_sha1",
		"tls1.2-compat accepted it offers enough tls1.2 refused no suite, group or signature that it accepts tls1.2-aead refused no suite, group or signature that it accepts tls1.3 refused the version is too old")
	_, page = showAt(t, h, "/client?address=192.0.2.2", 200)
	says(t, page, "tls1.2-compat accepted it offers enough tls1.2 accepted it offers enough tls1.2-aead refused")
}

// The names of a client are a stranger's.
func TestForgedTextDoesNoHarmOnThePageOfAClient(t *testing.T) {
	b := newTestLedger(t)
	for _, s := range []string{"<script>alert(1)</script>", `"><img src=x>`, "\u202egro.elpmaxe", strings.Repeat("x", 64<<10), "{{.}}"} {
		v := named
		v.name = s
		b.comes(v, 1, proxy.Observed)
		b.logsIn(v, s, s)
	}
	b.flush(t)
	_, page := showAt(t, b.page(t, someRules, nil).Handler(), "/client?address="+url.QueryEscape(named.client), 200)
	says(t, page, "&lt;script&gt;alert(1)&lt;/script&gt;")
	for _, bad := range []string{"<script", "<img", "\u202e", strings.Repeat("x", 300), "http://", "https://", "style="} {
		if strings.Contains(page, bad) {
			t.Errorf("the page has %.20q", bad)
		}
	}
}

// The page of a client is as guarded as the one of all.
func TestThePageOfAClientNeedsTheToken(t *testing.T) {
	client := question{path: "/client?address=192.0.2.7"}
	newPort(t, "127.0.0.1:9993", "").expect(t, "on loopback", client, 200)
	newPort(t, "0.0.0.0:9993", "").expect(t, "off loopback without a token set", client, 404)
	newPort(t, "0.0.0.0:9993", password).expect(t, "off loopback", client, 401)
	client.method = "POST"
	newPort(t, "127.0.0.1:9993", "").expect(t, "POST", client, 405)
}

// Of TLS 1.3 nothing is too old where a post-quantum group is missing.
func TestAClientWithoutAPostQuantumGroupIsSaidToLackThat(t *testing.T) {
	b := newTestLedger(t)
	newest := policy.Hello{
		Versions: []uint16{0x0304, 0x0303}, CipherSuites: []uint16{0x1301, 0xc02b, 0xc02f}, Groups: []tls.CurveID{tls.X25519, tls.CurveP256, tls.CurveP384},
		SignatureSchemes: []tls.SignatureScheme{tls.ECDSAWithP256AndSHA256, tls.ECDSAWithP384AndSHA384, tls.PSSWithSHA256},
	}
	bare := newest
	bare.SignatureSchemes = []tls.SignatureScheme{0x0201}
	for client, h := range map[string]policy.Hello{"192.0.2.13": newest, "192.0.2.14": bare} {
		c := visitor{client: client, listener: proxy.IMAPS, port: 993}.conn()
		c.JA4, c.Accepted = h.Fingerprint(), b.now
		b.Handshake(&proxy.Handshake{Conn: c, Hello: &h, Verdict: policy.Verdict{Version: policy.TLS13, Reason: policy.ReasonCipher}, Outcome: proxy.Rejected})
	}
	b.flush(t)
	h := b.page(t, "floor: tls1.3-pq\nmode: enforce\n", nil).Handler()
	_, page := showAt(t, h, "/?sort=client", 200)
	says(t, page, "192.0.2.13 TLS 1.3 no post-quantum group never", "192.0.2.14 TLS 1.3 no group or signature in common never")
	_, page = showAt(t, h, "/client?address=192.0.2.13", 200)
	says(t, page, "TLS 1.3 no post-quantum group never", "tls1.3 accepted it offers enough tls1.3-pq refused no post-quantum group For")
	_, page = showAt(t, h, "/client?address=192.0.2.14", 200)
	says(t, page, "tls1.3 refused no suite, group or signature that it accepts tls1.3-pq refused no suite, group or signature that it accepts For")
}
