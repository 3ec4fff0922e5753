package report

import (
	"bytes"
	"crypto/tls"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"postern/internal/ledger"
	"postern/policy"
)

// sampleHellos are what the sample's clients offer; one is not kept.
func sampleHellos() map[string]policy.Hello {
	old := policy.Hello{
		Versions: []uint16{tls.VersionTLS10, uint16(policy.SSL3)}, CipherSuites: []uint16{tls.TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA, tls.TLS_RSA_WITH_AES_128_CBC_SHA},
		Groups: []tls.CurveID{tls.CurveP256}, Points: []uint8{0},
	}
	middle := old
	middle.Versions = []uint16{tls.VersionTLS11, tls.VersionTLS10}
	cipher := old
	cipher.Versions = []uint16{tls.VersionTLS12, tls.VersionTLS11}
	cipher.CipherSuites = []uint16{tls.TLS_RSA_WITH_AES_128_CBC_SHA}
	cipher.SignatureSchemes = []tls.SignatureScheme{tls.PKCS1WithSHA256}
	return map[string]policy.Hello{oldJA4: old, middleJA4: middle, cipherJA4: cipher}
}

func sampleTrial(t *testing.T, text string) Trial {
	t.Helper()
	p, err := policy.Parse([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return Trial{
		Policy: p, PolicyFile: "next.yaml", At: LastDate(p, sampleNow), Since: sampleNow.Add(-fortnight), Source: SourceOf(sampleClients()), Hellos: sampleHellos(),
	}
}

const nextPolicy = `floor: tls1.2-compat
mode: enforce
rules:
  - name: warehouse scanners
    mode: observe
    match: {client: [10.20.0.0/16]}
    until: 2026-12-31T00:00:00Z
    owner: facilities@example.org
  - name: told for a while
    mode: explain
    match: {version: [tls1.1]}
  - name: brownouts
    mode: enforce
    schedule: "0 * * * *"
    for: 10m
`

func TestTheReplayThatPeopleRead(t *testing.T) {
	for _, tt := range []struct {
		golden string
		change func(*Trial)
		format Format
	}{
		{"replay.txt", func(t *Trial) { t.At = sampleNow }, Text},
		{"replay-last.txt", nil, Text},
		{"replay-nobody.txt", func(t *Trial) { t.Source = SourceOf(nil) }, Text},
		{"replay.csv", func(t *Trial) { t.By = ByDomain }, CSV},
		{"replay.json", func(t *Trial) { t.By = ByNetwork }, JSON},
	} {
		t.Run(tt.golden, func(t *testing.T) {
			trial := sampleTrial(t, nextPolicy)
			if tt.change != nil {
				tt.change(&trial)
			}
			var b bytes.Buffer
			if err := Judge(t.Context(), &b, trial, tt.format); err != nil {
				t.Fatal(err)
			}
			golden(t, tt.golden, b.String())
		})
	}
}

// TestAReplayGrantsGraces to clients that have logged in, at whatever listener, from when the
// rule begins, or from now on; and says so.
func TestAReplayGrantsGraces(t *testing.T) {
	const day = 24 * time.Hour
	begins := sampleNow.Add(10 * day)
	known := came("192.0.2.7", "imaps", policy.TLS10, oldJA4, 1)
	known.Login = ledger.LoginOK
	elsewhere := came("192.0.2.7", "pop3s", policy.TLS10, middleJA4, 1)
	stranger := came("192.0.2.8", "imaps", policy.TLS10, oldJA4, 1)
	for _, c := range []*ledger.Client{&elsewhere, &stranger} {
		c.Login = ledger.LoginUnknown
	}
	for _, tt := range []struct {
		from   string
		at     time.Time
		grace  string
		wants  map[Answer]int
		spoken bool
	}{
		{begins.Format(time.RFC3339), begins, "7d", map[Answer]int{Told: 1, Refused: 1}, true},
		{begins.Format(time.RFC3339), begins.Add(7*day - time.Second), "7d", map[Answer]int{Told: 1, Refused: 1}, true},
		{begins.Format(time.RFC3339), begins.Add(7 * day), "7d", map[Answer]int{Refused: 2}, true},
		{sampleNow.Add(-100 * day).Format(time.RFC3339), sampleNow, "7d", map[Answer]int{Told: 1, Refused: 1}, true},
		{sampleNow.Add(-100 * day).Format(time.RFC3339), sampleNow.Add(7 * day), "7d", map[Answer]int{Refused: 2}, true},
		{begins.Format(time.RFC3339), begins, "", map[Answer]int{Refused: 2}, false},
		{sampleNow.Add(-100 * day).Format(time.RFC3339), sampleNow.Add(-day), "", map[Answer]int{Refused: 2}, false},
	} {
		grace := ""
		if tt.grace != "" {
			grace = ", grace: " + tt.grace
		}
		trial := sampleTrial(t, "rules: [{name: cutover, mode: enforce, from: "+tt.from+grace+"}]")
		trial.At, trial.Now, trial.Source = tt.at, sampleNow, SourceOf([]ledger.Client{known, elsewhere, stranger})
		var b bytes.Buffer
		if err := Judge(t.Context(), &b, trial, JSON); err != nil {
			t.Fatal(err)
		}
		var j Judgement
		if err := json.Unmarshal(b.Bytes(), &j); err != nil {
			t.Fatal(err)
		}
		for _, a := range j.Answers {
			if a.Clients != tt.wants[a.Answer] {
				t.Errorf("%+v: %s: %d clients", tt, a.Answer, a.Clients)
			}
		}
		if words := strings.Join(j.Notes, " "); strings.Contains(words, `Rule "cutover" tells a client`) != tt.spoken || tt.spoken && !strings.Contains(words, "why for 7 days from its first refusal on") {
			t.Errorf("%+v: %q", tt, j.Notes)
		}
	}
}

func TestWhatAnotherPolicyDoes(t *testing.T) {
	client := func(ja4 string, version policy.Version) ledger.Client {
		return came("192.0.2.7", "imaps", version, ja4, 1)
	}
	ssl3 := sampleHellos()[oldJA4]
	ssl3.Versions = []uint16{uint16(policy.SSL3)}
	passed := client("ssl3", policy.SSL3)
	refused := passed
	refused.Counts = ledger.Counts{Rejected: 4}
	fallback := sampleHellos()[oldJA4]
	fallback.CipherSuites = append(fallback.CipherSuites[:2:2], tls.TLS_FALLBACK_SCSV)
	for _, tt := range []struct {
		name, policy string
		client       ledger.Client
		want         Answer
		rule         string
	}{
		{"enforce", "mode: enforce", client(oldJA4, policy.TLS10), Refused, ""},
		{"explain", "mode: explain", client(oldJA4, policy.TLS10), Told, ""},
		{"observe", "mode: observe", client(oldJA4, policy.TLS10), LetIn, ""},
		{"a more lenient floor", "floor: tls1.2-compat\nmode: enforce", client(cipherJA4, policy.TLS12), Reaches, ""},
		{"the same floor", "floor: tls1.2\nmode: enforce", client(cipherJA4, policy.TLS12), Refused, ""},
		{"passed through so far", "mode: observe", passed, LetIn, ""},
		{"never passed through", "mode: observe", refused, Refused, ""},
		{"cannot be told", "mode: explain", passed, Refused, ""},
		{"a fallback", "mode: observe", client("fallback", policy.TLS10), Refused, ""},
		{"a rule by fingerprint, whose hello is not kept whole", "mode: enforce\nrules:\n  - {name: x, mode: observe, match: {ja4: [" + oldJA4 + "]}}",
			client(oldJA4, policy.TLS10), LetIn, "x"},
		{"a rule by name", "mode: observe\nrules:\n  - {name: x, mode: explain, match: {server_name: [imap.example.org]}}", client(oldJA4, policy.TLS10), Told, "x"},
		{"a rule that has ended", "mode: enforce\nrules:\n  - {name: x, mode: observe, until: 2026-01-01T00:00:00Z}", client(oldJA4, policy.TLS10), Refused, ""},
		{"some connections are refused", "mode: observe\nrules:\n  - {name: x, mode: enforce, share: {from: 5%, to: 5%, by: connection}, from: 2026-01-01T00:00:00Z, until: 2028-01-01T00:00:00Z}", client(oldJA4, policy.TLS10), Refused, "x"},
		{"no hello, but too old", "mode: enforce", client(lostJA4, policy.TLS10), Refused, ""},
		{"no hello, and new enough", "mode: enforce", client(lostJA4, policy.TLS12), Unknown, ""},
		{"no hello, and let in where it can be", "mode: observe", client(lostJA4, policy.TLS10), Unknown, ""},
	} {
		trial := sampleTrial(t, tt.policy)
		trial.At = sampleNow
		trial.Hellos["ssl3"], trial.Hellos["fallback"] = ssl3, fallback
		j := judge(t, trial, []ledger.Client{tt.client})
		for _, a := range j.Answers {
			if (a.Clients == 1) != (a.Answer == tt.want) {
				t.Errorf("%s: %d clients are %s, want %s", tt.name, a.Clients, a.Answer, tt.want)
			}
			if a.Answer == tt.want && tt.want != Reaches && tt.want != Unknown && (len(a.Rules) != 1 || a.Rules[0] != tt.rule) {
				t.Errorf("%s: rules %q, want %q", tt.name, a.Rules, tt.rule)
			}
		}
	}
}

func TestAReplayIsAfterTheLastDate(t *testing.T) {
	for text, want := range map[string]time.Time{
		"mode: enforce": sampleNow,
		"mode: enforce\nrules:\n  - {name: x, mode: observe, until: 2020-01-01T00:00:00Z}":                              sampleNow,
		"mode: enforce\nrules:\n  - {name: x, mode: observe, until: 2027-01-01T00:00:00Z}":                              time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC),
		"mode: observe\nrules:\n  - {name: x, mode: enforce, from: 2027-02-01T00:00:00Z}\n  - {name: y, mode: explain}": time.Date(2027, 2, 1, 0, 0, 0, 0, time.UTC),
	} {
		p, err := policy.Parse([]byte(text))
		if err != nil {
			t.Fatal(err)
		}
		if got := LastDate(p, sampleNow); !got.Equal(want) {
			t.Errorf("%s: %v, want %v", text, got, want)
		}
	}
}

func TestWhatAClientMeets(t *testing.T) {
	hello := func(suites ...uint16) map[string]policy.Hello {
		return map[string]policy.Hello{oldJA4: {Versions: []uint16{0x301}, CipherSuites: suites, Groups: []tls.CurveID{tls.CurveP256}}}
	}
	rsa, dhe := hello(0x2f), hello(0x33)
	modern := map[string]policy.Hello{oldJA4: {Versions: []uint16{0x303}, CipherSuites: []uint16{0xc02f}, Groups: []tls.CurveID{tls.CurveP256},
		SignatureSchemes: []tls.SignatureScheme{tls.PSSWithSHA256}}}
	always := &policy.Rule{Mode: policy.Observe, PassThrough: true}
	for _, tt := range []struct {
		version policy.Version
		reason  policy.Reason
		outcome policy.Outcome
		hellos  map[string]policy.Hello
		old     bool
		want    Meeting
	}{
		{policy.TLS10, policy.ReasonVersion, policy.Outcome{Mode: policy.Observe}, rsa, true, "observe"},
		{policy.TLS10, policy.ReasonVersion, policy.Outcome{Mode: policy.Observe}, nil, false, "observe"},
		{policy.TLS10, policy.ReasonVersion, policy.Outcome{Mode: policy.Explain}, rsa, true, "explain"},
		{policy.TLS10, policy.ReasonVersion, policy.Outcome{Mode: policy.Enforce}, rsa, true, "enforce"},
		{policy.TLS10, policy.ReasonVersion, policy.Outcome{Mode: policy.Observe}, dhe, false, CannotBeServed},
		{policy.TLS10, policy.ReasonVersion, policy.Outcome{Mode: policy.Observe}, dhe, true, PassedThrough},
		{policy.TLS10, policy.ReasonVersion, policy.Outcome{Mode: policy.Explain}, dhe, true, CannotBeServed},
		{policy.SSL3, policy.ReasonVersion, policy.Outcome{Mode: policy.Observe}, nil, false, CannotBeServed},
		{policy.SSL3, policy.ReasonVersion, policy.Outcome{Mode: policy.Observe}, nil, true, PassedThrough},
		{policy.SSL3, policy.ReasonVersion, policy.Outcome{Mode: policy.Enforce}, nil, true, "enforce"},
		{policy.TLS12, policy.ReasonSSL2Hello, policy.Outcome{Mode: policy.Observe}, nil, false, CannotBeServed},
		{policy.TLS13, policy.ReasonMalformed, policy.Outcome{Mode: policy.Observe}, rsa, true, PassedThrough},
		{policy.TLS13, policy.ReasonMalformed, policy.Outcome{Mode: policy.Observe}, rsa, false, CannotBeServed},
		{policy.TLS11, policy.ReasonFallback, policy.Outcome{Mode: policy.Observe}, nil, true, CannotBeServed},
		{policy.TLS10, policy.ReasonVersion, policy.Outcome{Mode: policy.Observe, Rule: always}, rsa, true, PassedThrough},
		{policy.TLS10, policy.ReasonVersion, policy.Outcome{Mode: policy.Observe, Rule: always}, rsa, false, "observe"},
		{policy.TLS12, policy.ReasonVersion, policy.Outcome{Mode: policy.Enforce, Floor: policy.FloorTLS12}, modern, false, Accepted},
		{policy.TLS12, policy.ReasonVersion, policy.Outcome{Mode: policy.Enforce, Floor: policy.FloorTLS13}, modern, false, "enforce"},
		// Which keys the instance has is not known here.
		{policy.TLS12, policy.ReasonCipher, policy.Outcome{Mode: policy.Enforce, Floor: policy.FloorTLS12}, modern, false, "enforce"},
	} {
		c := ledger.Client{Version: tt.version, Reason: tt.reason, JA4: oldJA4}
		if got := Meets(&c, tt.outcome, tt.hellos, tt.old); got != tt.want {
			t.Errorf("%+v meets %s", tt, got)
		}
	}
}
