package policy

import (
	"crypto/tls"
	"encoding/binary"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"postern/internal/posterntest"
)

// balancer is the peer whose PROXY headers are believed.
const balancer = "127.0.0.9"

// headerV2 is what a load balancer sends for a client: in version 2, with the
// addresses as they are written, IPv4-mapped ones too.
func headerV2(client string) []byte {
	b := []byte("\r\n\r\n\x00\r\nQUIT\n\x21")
	addr := netip.MustParseAddr(client)
	family, addresses := byte(0x11), append(addr.AsSlice(), netip.MustParseAddr("192.0.2.1").AsSlice()...)
	if !addr.Is4() {
		family, addresses = 0x21, append(addr.AsSlice(), netip.MustParseAddr("2001:db8::1").AsSlice()...)
	}
	addresses = append(addresses, 0x30, 0x39, 0x03, 0xe1) // ports 12345 and 993
	b = binary.BigEndian.AppendUint16(append(b, family), uint16(len(addresses)))
	return append(b, addresses...)
}

func via(client string) posterntest.Caller {
	return posterntest.Caller{From: balancer, Header: headerV2(client)}
}

func asking(name string, version uint16) *tls.Config {
	c := upTo(version)
	c.ServerName = name
	return c
}

// Every key of a match does what its name says, and the line in the log names
// the rule that decided and its mode.
func TestTheFirstRuleThatMatchesDecides(t *testing.T) {
	t.Parallel()
	second := posterntest.FreeAddr(t)
	_, port, _ := strings.Cut(second, ":")
	text := fmt.Sprintf(`
mode: enforce
rules:
  - {name: one client, mode: observe, match: {client: [127.0.0.2, "10.20.0.0/16", "2001:db8:20::/48"]}, until: 2099-01-01T00:00:00Z, owner: anna@example.org}
  - {name: by name, mode: observe, match: {server_name: [imap-legacy.example.org, "*.old.example.org"]}}
  - {name: by port, mode: explain, match: {port: [%s]}}
  - {name: both keys, mode: observe, match: {listener: [pop3s], version: [tls1.1]}}
  - {name: by listener, mode: explain, match: {listener: [pop3s]}}
  - {name: by version, mode: observe, match: {version: [tls1.1]}}
`, port)
	g := start(t, text, map[string]string{
		"LISTEN_IMAPS": posterntest.FreeAddr(t) + "," + second, "PROXY_PROTOCOL_FROM": balancer + "/32",
	})
	for i, tt := range []struct {
		from     posterntest.Caller
		listener string
		rule     string
		mode     string
	}{
		{posterntest.Caller{From: "127.0.0.2"}, "imaps", "one client", "observe"},
		{posterntest.Caller{From: "127.0.0.2"}, "pop3", "one client", "observe"},
		{posterntest.Caller{From: "127.0.0.3"}, "imaps", "", "enforce"},
		{via("10.20.3.4"), "imaps", "one client", "observe"},
		{via("::ffff:10.20.3.5"), "imaps", "one client", "observe"},
		{via("10.21.3.4"), "imaps", "", "enforce"},
		{via("::ffff:10.21.3.5"), "imaps", "", "enforce"},
		{via("2001:db8:20:7::1"), "imaps", "one client", "observe"},
		{via("2001:db8:21::1"), "imaps", "", "enforce"},
		{posterntest.Caller{TLS: asking("imap-legacy.example.org", tls.VersionTLS10)}, "imaps", "by name", "observe"},
		{posterntest.Caller{TLS: asking("IMAP-Legacy.Example.ORG", tls.VersionTLS10)}, "imap", "by name", "observe"},
		{posterntest.Caller{TLS: asking("imap.old.example.org", tls.VersionTLS10)}, "imaps", "by name", "observe"},
		{posterntest.Caller{TLS: asking("old.example.org", tls.VersionTLS10)}, "imaps", "", "enforce"},
		{posterntest.Caller{TLS: asking("very.imap.old.example.org", tls.VersionTLS10)}, "imaps", "", "enforce"},
		{posterntest.Caller{To: second}, "imaps", "by port", "explain"},
		// The port is the proxy's own, not the balancer's 993.
		{posterntest.Caller{From: balancer, Header: headerV2("10.21.3.4"), To: second}, "imaps", "by port", "explain"},
		{posterntest.Caller{}, "pop3s", "by listener", "explain"},
		{posterntest.Caller{TLS: upTo(tls.VersionTLS11)}, "pop3s", "both keys", "observe"},
		{posterntest.Caller{TLS: upTo(tls.VersionTLS11)}, "imap", "by version", "observe"},
		{posterntest.Caller{TLS: upTo(tls.VersionTLS11), To: second}, "imaps", "by port", "explain"},
	} {
		met := map[string]string{"observe": letIn, "explain": told, "enforce": rejectedBy}[tt.mode]
		name := fmt.Sprintf("row %d, %s", i, tt.rule)
		if got, err := g.meets(tt.from, tt.listener); got != met || err != nil {
			t.Errorf("%s: %q, %v; want %q", name, got, err, met)
		}
		line := g.WaitLog(t, legacyLine, i+1)[i]
		outcome := map[string]string{"observe": "observed", "explain": "explained", "enforce": "rejected"}[tt.mode]
		if line["rule"] != tt.rule || line["mode"] != tt.mode || line["outcome"] != outcome || line["listener"] != tt.listener {
			t.Errorf("%s: %v", name, line)
		}
	}
	m := g.Wait(t, func(m posterntest.Samples) bool { return m.Count(matches) == 14 })
	for rule, n := range map[string]float64{"one client": 5, "by name": 3, "by port": 3, "both keys": 1, "by listener": 1, "by version": 1} {
		if got := m.Value(matches, "rule="+rule); got != n {
			t.Errorf("%v matches of %s, want %v", got, rule, n)
		}
	}
}

// The fingerprint in the log is the one that a rule takes.
func TestAFingerprintFromTheLogIsARule(t *testing.T) {
	t.Parallel()
	g := start(t, "mode: enforce\n", nil)
	odd := posterntest.Caller{TLS: upTo(tls.VersionTLS10, tls.TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA)}
	g.expect(t, odd, "imaps", rejectedBy)
	ja4 := g.WaitLog(t, legacyLine, 1)[0]["ja4"]
	g.replaceNow(t, fmt.Sprintf("floor: tls1.3\nrules: [{name: odd, mode: observe, match: {ja4: [%s]}}]\n", ja4), "tls1.3")
	g.expect(t, odd, "imaps", letIn)
	g.expect(t, posterntest.Caller{}, "imaps", rejectedBy)
	lines := g.WaitLog(t, legacyLine, 3)
	if lines[1]["rule"] != "odd" || lines[1]["ja4"] != ja4 || lines[2]["rule"] != "" || lines[2]["ja4"] == ja4 {
		t.Errorf("lines %v", lines[1:])
	}
}

const (
	shareClients = 60
	shareNets    = 20
	halfPolicy   = `
mode: enforce
rules: [{name: half of all, mode: observe, share: 50%}]
`
)

// taken is who of the clients is in the share, as they meet it.
func (g *instance) taken(t *testing.T) string {
	t.Helper()
	var in strings.Builder
	note := func(c posterntest.Caller) bool {
		met, err := g.meets(c, "imaps")
		if err != nil || met == told {
			t.Errorf("%q, %v", met, err)
		}
		in.WriteString(map[string]string{letIn: "+", rejectedBy: "-"}[met])
		return met == letIn
	}
	for i := range shareClients {
		note(posterntest.Caller{From: fmt.Sprintf("127.0.1.%d", 1+i)})
	}
	for i := range shareNets {
		net := fmt.Sprintf("2001:db8:7:%x", i)
		if note(via(fmt.Sprintf("%s::%x", net, i))) != note(via(fmt.Sprintf("%s:ffff::%x", net, i))) {
			t.Errorf("two addresses of one IPv6 /64 are told apart: %s", in.String())
		}
	}
	return in.String()
}

// A client that is in a share stays in, after a restart and on every replica.
func TestAShareTakesTheSameClientsEverywhere(t *testing.T) {
	t.Parallel()
	env := map[string]string{"PROXY_PROTOCOL_FROM": balancer + "/32"}
	g := start(t, halfPolicy, env)
	first := g.taken(t)
	if n := strings.Count(first[:shareClients], "+"); n < shareClients/4 || n > 3*shareClients/4 {
		t.Errorf("%d of %d clients are in a share of 50%%", n, shareClients)
	}
	if again := g.taken(t); again != first {
		t.Errorf("the second time\n%s\n%s", again, first)
	}
	g.Restart(t)
	if again := g.taken(t); again != first {
		t.Errorf("after a restart\n%s\n%s", again, first)
	}
	replica := start(t, halfPolicy, env)
	if again := replica.taken(t); again != first {
		t.Errorf("on another replica\n%s\n%s", again, first)
	}
	m := g.Metrics(t)
	if n := m.Value(matches, "rule=half of all"); n != float64(strings.Count(first, "+")) {
		t.Errorf("%v matches, want those who were let in: %s", n, first)
	}
	if v := m.Value(share, "rule=half of all"); v != 0.5 {
		t.Errorf("share %v", v)
	}
	checkModes(t, "under a share", m, map[string]string{"imaps": "enforce"})
}
