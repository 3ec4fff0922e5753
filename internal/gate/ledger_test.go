package gate

import (
	"context"
	"log/slog"
	"net/netip"
	"path/filepath"
	"testing"
	"time"

	"postern/internal/ledger"
	"postern/policy"
	"postern/proxy"
)

// A stop writes what is left before it waits for a count, which a busy machine may take
// longer over than there is time.
func TestAStopWritesWhileACountGoesOn(t *testing.T) {
	url := "sqlite:" + filepath.Join(t.TempDir(), "ledger.db")
	store, err := ledger.Open(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	b := &ledgerRunner{store: store, done: make(chan struct{})} // which is never closed
	b.recorder = ledger.NewRecorder(ledger.Options{Store: store, Log: slog.New(slog.DiscardHandler), Now: time.Now})
	h := &proxy.Handshake{
		Conn: &proxy.Conn{
			Listener: proxy.IMAPS, Client: netip.MustParseAddrPort("192.0.2.7:4000"), Local: netip.MustParseAddrPort("198.51.100.1:993"), Legacy: true,
		},
		Hello:   &policy.Hello{Versions: []uint16{0x301}, CipherSuites: []uint16{0x2f}},
		Verdict: policy.Verdict{Version: policy.TLS10, Reason: policy.ReasonVersion}, Outcome: proxy.Rejected,
	}
	h.JA4 = h.Hello.Fingerprint()
	b.recorder.Handshake(h)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	if err := b.close(ctx); err != nil {
		t.Error(err)
	}
	again, err := ledger.Open(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	all, _, err := again.Distinct(t.Context(), time.Now())
	if err != nil || len(all) == 0 {
		t.Errorf("the ledger has %v, %v", all, err)
	}
}
