package ledger

import (
	"crypto/tls"
	"reflect"
	"sync"
	"testing"
	"time"

	"postern/policy"
	"postern/proxy"
)

// negotiation is a handshake that was completed, of a client that need not be legacy.
func negotiation(v policy.Version, suite uint16, keyExchange proxy.KeyExchange, key proxy.KeyType) *proxy.Handshake {
	h := hello("192.0.2.7")
	h.Verdict, h.Outcome = policy.Verdict{}, proxy.Accepted
	h.Version, h.CipherSuite, h.KeyExchange, h.Key = v, suite, keyExchange, key
	return h
}

func (g *replica) inventory(since time.Time) []Negotiated {
	g.t.Helper()
	list, err := g.store.Negotiated(g.t.Context(), since)
	if err != nil {
		g.t.Fatal(err)
	}
	return list
}

func TestWhatWasNegotiatedIsAddedUp(t *testing.T) {
	each(t, func(t *testing.T, g *replica) {
		hybrid := negotiation(policy.TLS13, tls.TLS_AES_128_GCM_SHA256, "x25519mlkem768", proxy.KeyECDSA)
		resumed := negotiation(policy.TLS13, tls.TLS_AES_128_GCM_SHA256, proxy.KeyExchangeResumed, proxy.KeyNone)
		old := negotiation(policy.TLS10, tls.TLS_RSA_WITH_AES_128_CBC_SHA, proxy.KeyExchangeRSA, proxy.KeyRSA)
		broken := negotiation(policy.NoVersion, 0, "", proxy.KeyNone)
		for range 3 {
			g.meet(hybrid)
		}
		g.meet(old)
		g.meet(broken)
		g.flush()
		g.later(24 * time.Hour)
		for range 2 {
			g.meet(hybrid)
			g.meet(resumed)
		}
		o := g.another()
		o.meet(hybrid)
		o.flush()
		g.flush()
		row := func(v, suite string, kx proxy.KeyExchange, key proxy.KeyType, n int64) Negotiated {
			return Negotiated{"imaps", v, suite, kx, key, n}
		}
		all := []Negotiated{
			row("tls1.3", "TLS_AES_128_GCM_SHA256", "x25519mlkem768", "ecdsa", 6),
			row("tls1.3", "TLS_AES_128_GCM_SHA256", "resumed", "none", 2),
			row("tls1.0", "TLS_RSA_WITH_AES_128_CBC_SHA", "rsa", "rsa", 1),
		}
		if got := g.inventory(noon); !reflect.DeepEqual(got, all) {
			t.Errorf("got  %v\nwant %v", got, all)
		}
		all[0].Handshakes = 3
		if got := g.inventory(noon.Add(24 * time.Hour)); !reflect.DeepEqual(got, all[:2]) {
			t.Errorf("of the second day: %v", got)
		}
		if err := g.store.Prune(t.Context(), noon.Add(24*time.Hour)); err != nil {
			t.Fatal(err)
		}
		if got := g.inventory(noon); !reflect.DeepEqual(got, all[:2]) {
			t.Errorf("after the first day was pruned: %v", got)
		}
	})
}

func TestModernClientsAreWrittenOnceAMinuteAndAtTheEnd(t *testing.T) {
	each(t, func(t *testing.T, g *replica) {
		modern := negotiation(policy.TLS13, tls.TLS_AES_128_GCM_SHA256, "x25519", proxy.KeyECDSA)
		handshakes := func() (n int64) {
			for _, row := range g.inventory(noon) {
				n += row.Handshakes
			}
			return n
		}
		for _, step := range []struct {
			later time.Duration
			want  int64
		}{{0, 1}, {30 * time.Second, 1}, {29 * time.Second, 1}, {time.Second, 4}} {
			g.later(step.later)
			g.meet(modern)
			g.flush()
			if n := handshakes(); n != step.want {
				t.Errorf("%s later: %d handshakes are written, want %d", step.later, n, step.want)
			}
		}
		g.meet(modern)
		if err := g.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		if n := handshakes(); n != 5 {
			t.Errorf("at the end %d handshakes are written, want 5", n)
		}
	})
}

func TestALedgerThatKnowsNoNegotiations(t *testing.T) {
	for _, kind := range []string{"sqlite", "postgres"} {
		t.Run(kind, func(t *testing.T) {
			g := newReplica(t, newURL(t, kind))
			if _, err := g.store.db.Exec(`DROP TABLE negotiated`); err != nil { // as an earlier version has it
				t.Fatal(err)
			}
			reading, err := OpenReadOnly(t.Context(), g.url)
			if err != nil {
				t.Fatal(err)
			}
			defer reading.Close()
			if list, err := reading.Negotiated(t.Context(), noon); err != nil || len(list) > 0 {
				t.Errorf("%v, %v", list, err)
			}
			g.restart(plainIdentity)
			g.meet(negotiation(policy.TLS12, tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256, "x25519", proxy.KeyRSA))
			g.flush()
			if list := g.inventory(noon); len(list) != 1 {
				t.Errorf("after the start of this version: %v", list)
			}
		})
	}
}

// A stop does not wait for a write that takes too long.
func TestALedgerMayBeClosedDuringAWrite(t *testing.T) {
	each(t, func(t *testing.T, g *replica) {
		g.meet(negotiation(policy.TLS13, tls.TLS_AES_128_GCM_SHA256, "x25519mlkem768", proxy.KeyECDSA))
		var writes sync.WaitGroup
		writes.Go(func() { g.Flush(t.Context()) })
		if err := g.Close(t.Context()); err != nil {
			t.Error(err)
		}
		writes.Wait()
		if got := g.inventory(noon); len(got) != 1 || got[0].Handshakes != 1 {
			t.Errorf("written: %v", got)
		}
	})
}
