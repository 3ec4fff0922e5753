package report

import (
	"bytes"
	"encoding/json"
	"net/netip"
	"os"
	"testing"
	"time"

	"postern/internal/ledger"
	"postern/internal/programs"
	"postern/policy"
	"postern/proxy"
)

var sampleNow = time.Date(2026, 11, 25, 10, 5, 30, 0, time.UTC)

const (
	oldJA4    = "t10d050300_44099cda8a52_195413a0cc0f"
	middleJA4 = "t11d070300_55199cda8a52_295413a0cc0f"
	cipherJA4 = "t12d030300_66199cda8a52_395413a0cc0f"
	lostJA4   = "t10d990300_77199cda8a52_495413a0cc0f"
)

// came is a client that has logged in, some hours ago.
func came(addr string, listener proxy.Listener, version policy.Version, ja4 string, hoursAgo int, logins ...ledger.Identity) ledger.Client {
	last := sampleNow.Add(-time.Duration(hoursAgo) * time.Hour)
	login := ledger.LoginOK
	if logins == nil {
		login = ledger.LoginNone
	}
	c := ledger.Client{
		Addr: netip.MustParseAddr(addr), Listener: listener,
		Endpoint: ledger.Endpoint{Name: "imap.example.org", Port: map[proxy.Listener]uint16{"imaps": 993, "pop3s": 995, "imap": 143, "pop3": 110}[listener]},
		Version:  version, Reason: policy.ReasonVersion, JA4: ja4, First: last.Add(-70 * 24 * time.Hour), Last: last, Login: login,
		Counts: ledger.Counts{Observed: 400, Rejected: 3},
		Days:   []ledger.Day{{Number: last.Unix() / secondsADay, Counts: ledger.Counts{Observed: 40, Rejected: 1}}}, Logins: logins,
	}
	advise(&c)
	return c
}

// advise sets what to do about a client, as the ledger does.
func advise(c *ledger.Client) {
	c.Advice = nil
	for _, l := range c.Logins {
		if a := programs.Builtin.Advise(l.Software, l.SpeaksLike, c.Library); a != "" {
			c.Advice = append(c.Advice, a)
		}
	}
}

// device speaks like no program that is known.
const device = "imap SCAN.001 CAPABILITY STARTTLS TLS LOGIN:atom:quoted"

// inferredPrograms has some of the sample's programs not say their names.
func inferredPrograms(f *facts) {
	for i, name := range map[int]string{1: "fetchmail", 2: "fetchmail", 3: "Python imaplib, getmail", 4: device, 5: device, 7: device, 9: device} {
		c := &f.Clients[i]
		if c.Logins == nil {
			c.Logins = []ledger.Identity{{}}
		}
		for j := range c.Logins {
			c.Logins[j].Software, c.Logins[j].SpeaksLike = "", name
		}
		c.Library = "OpenSSL 1.0.1 limited to TLS 1.0"
		advise(c)
	}
}

// facts are those of clients in memory.
type facts struct {
	Facts
	Clients []ledger.Client
}

func build(t testing.TB, f facts, o Options) *Report {
	t.Helper()
	f.Source = SourceOf(f.Clients)
	r, err := Build(t.Context(), f.Facts, o)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func judge(t testing.TB, trial Trial, clients []ledger.Client) *Judgement {
	t.Helper()
	trial.Source = SourceOf(clients)
	var b bytes.Buffer
	if err := Judge(t.Context(), &b, trial, JSON); err != nil {
		t.Fatal(err)
	}
	j := new(Judgement)
	if err := json.Unmarshal(b.Bytes(), j); err != nil {
		t.Fatal(err)
	}
	return j
}

func as(account, software string) ledger.Identity {
	return ledger.Identity{Account: account, Software: software}
}

func samplePolicy(t testing.TB) *policy.Policy {
	t.Helper()
	text, err := os.ReadFile("testdata/policy.yaml")
	if err != nil {
		t.Fatal(err)
	}
	p, err := policy.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func sampleClients() []ledger.Client {
	byName := came("192.0.2.44", "imaps", policy.TLS10, oldJA4, 30, as("chair@example.org", "Outlook 12.0"))
	byName.Endpoint.Name = "imap-legacy.example.org"
	scanner := came("203.0.113.9", "imaps", policy.SSL3, lostJA4, 3)
	scanner.Noise = true
	failed := came("203.0.113.10", "pop3", policy.TLS10, oldJA4, 4)
	failed.Noise, failed.Login = true, ledger.LoginFailed
	refused := came("203.0.113.77", "imaps", policy.TLS10, lostJA4, 9)
	refused.Days[0].Counts = ledger.Counts{Rejected: 12, Failed: 2}
	refused.Counts, refused.Login = refused.Days[0].Counts, ledger.LoginUnknown
	cipher := came("2001:db8:1::7", "imap", policy.TLS12, cipherJA4, 50, as("erik@example.net", ""))
	cipher.Reason = policy.ReasonCipher
	return []ledger.Client{
		came("192.0.2.7", "imaps", policy.TLS10, oldJA4, 2, as("anna@example.org", "Outlook 14.0")),
		came("192.0.2.8", "pop3s", policy.TLS11, middleJA4, 26, as("bert@example.org", "K-9 Mail 4.2")),
		came("192.0.2.9", "pop3s", policy.TLS11, middleJA4, 90, as("bert@example.org", "K-9 Mail 4.2")),
		came("198.51.100.20", "imaps", policy.TLS10, oldJA4, 20, as("carla@sales.example.org", "Thunderbird 2.0"), as("dora@sales.example.org", "Thunderbird 2.0")),
		cipher,
		came("2001:db8:1::8", "imap", policy.TLS11, middleJA4, 60, as("erik@example.net", "fetchmail 6.3")),
		came("10.20.0.5", "imaps", policy.TLS10, oldJA4, 1, as("scan-to-mail@example.org", "DocuScan 3")),
		came("10.20.0.6", "imaps", policy.TLS10, lostJA4, 11),
		byName, scanner, failed, refused,
	}
}

func sampleFacts(t testing.TB) facts {
	return facts{Facts{
		Now: sampleNow, Policy: samplePolicy(t), PolicyFile: "/etc/postern/policy.yaml", Identity: "plain", Retention: 90 * 24 * time.Hour,
	}, sampleClients()}
}

const fortnight = 14 * 24 * time.Hour

func addrOf(a [4]byte) netip.Addr { return netip.AddrFrom4(a) }
