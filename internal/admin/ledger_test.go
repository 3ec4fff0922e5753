package admin

import (
	"log/slog"
	"net/netip"
	"testing"
	"time"

	"postern/internal/ledger"
	"postern/policy"
	"postern/proxy"
)

// noon is when the tests' present is.
var noon = time.Date(2026, 6, 16, 12, 0, 0, 0, time.UTC)

// testLedger is a ledger that a test fills as the proxy would.
type testLedger struct {
	*ledger.Store
	*ledger.Recorder
	now time.Time
}

func newTestLedger(t testing.TB) *testLedger {
	t.Helper()
	s, err := ledger.Open(t.Context(), ledger.Memory)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	b := &testLedger{Store: s, now: noon}
	b.Recorder = ledger.NewRecorder(ledger.Options{
		Store: s, Log: slog.New(slog.DiscardHandler), Now: func() time.Time { return b.now },
		Identity: func(account string) string { return account },
	})
	return b
}

func (b *testLedger) flush(t testing.TB) {
	t.Helper()
	if err := b.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// visitor is a legacy client.
type visitor struct {
	client, name string
	listener     proxy.Listener
	port         uint16
	version      policy.Version
	reason       policy.Reason
}

func (v visitor) conn() *proxy.Conn {
	h := v.hello()
	return &proxy.Conn{
		Listener: v.listener, Client: netip.AddrPortFrom(netip.MustParseAddr(v.client), 4711),
		Local: netip.AddrPortFrom(netip.MustParseAddr("192.0.2.1"), v.port), JA4: h.Fingerprint(), Legacy: true,
	}
}

func (v visitor) hello() *policy.Hello {
	return &policy.Hello{
		Versions: []uint16{uint16(v.version)}, CipherSuites: []uint16{0x2f, 0x35}, Extensions: []uint16{0, 10}, ServerName: v.name,
	}
}

// comes has a client come so many times.
func (b *testLedger) comes(v visitor, times int, outcome proxy.Outcome) {
	if v.reason == policy.NotLegacy {
		v.reason = policy.ReasonVersion
	}
	c := v.conn()
	c.Accepted = b.now
	served := policy.NoVersion
	if outcome == proxy.Observed {
		served = policy.TLS10
	}
	for range times {
		b.Handshake(&proxy.Handshake{
			Conn: c, Hello: v.hello(), Version: served, Verdict: policy.Verdict{Version: v.version, Reason: v.reason}, Outcome: outcome,
		})
	}
}

func (b *testLedger) logsIn(v visitor, account, software string) {
	b.Login(&proxy.Login{Conn: v.conn(), Account: account, Software: software})
}

// outlook is what the page says of Outlook.
const outlook = "Outlook 14.0 what to do Outlook: On Windows 7 install KB3140245 and set DefaultSecureProtocols and the SCHANNEL keys for TLS 1.2; on Windows 10 it offers TLS 1.2 by itself (https://learn.microsoft.com/en-us/archive/blogs/schrimsher/enabling-tls-1-1-and-1-2-in-outlook-on-windows-7, 2016-07-08)"

// speaks has a client log in whose program does not say its name.
func (b *testLedger) speaks(v visitor, account, pattern string) {
	b.Login(&proxy.Login{Conn: v.conn(), Account: account, Pattern: pattern})
}
