package ledger

import (
	"fmt"
	"log/slog"
	"net/netip"
	"testing"
	"time"

	"postern/policy"
	"postern/proxy"
)

func event(i int) *proxy.Handshake {
	h := &policy.Hello{Versions: []uint16{0x301}, CipherSuites: []uint16{0x2f, uint16(i % 3)}, ServerName: "imap.example.org"}
	a := netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)})
	return &proxy.Handshake{Conn: &proxy.Conn{Listener: proxy.IMAPS, Client: netip.AddrPortFrom(a, 4000), Local: netip.MustParseAddrPort("127.0.0.1:993"), JA4: h.Fingerprint(), Legacy: true, Accepted: time.Now()},
		Hello: h, Verdict: policy.Verdict{Version: policy.TLS10, Reason: policy.ReasonVersion}, Outcome: proxy.Rejected}
}

func TestZZ(t *testing.T) {
	for _, url := range []string{"memory:", "sqlite:" + t.TempDir() + "/l.db"} {
		s, err := Open(t.Context(), url)
		if err != nil {
			t.Fatal(err)
		}
		r := NewRecorder(Options{Store: s, Log: slog.Default()})
		for i := range 50000 {
			e := event(i)
			for range 3 {
				r.Handshake(e)
			}
		}
		begun := time.Now()
		if err := r.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
		fmt.Println(url, "flush 50000", time.Since(begun))
		begun = time.Now()
		for i := range 50000 {
			r.Handshake(event(i))
		}
		r.Flush(t.Context())
		fmt.Println(url, "again", time.Since(begun))
		begun = time.Now()
		d, err := s.Distinct(t.Context(), time.Now())
		fmt.Println(d, err, time.Since(begun))
		begun = time.Now()
		n := 0
		cursor := ""
		for {
			l, next, err := s.Clients(t.Context(), Filter{}, cursor, 1000)
			if err != nil {
				t.Fatal(err)
			}
			n += len(l)
			if n == 1000 {
				fmt.Printf("%+v\n", l[0])
				fmt.Println("first page", time.Since(begun))
			}
			if cursor = next; cursor == "" {
				break
			}
		}
		fmt.Println(n, "paged", time.Since(begun))
		begun = time.Now()
		c, err := s.Count(t.Context(), Filter{})
		fmt.Println(c, err, time.Since(begun))
		begun = time.Now()
		days, err := s.Days(t.Context(), time.Now().Add(-48*time.Hour))
		fmt.Println(days, err, time.Since(begun))
		s.Close()
	}
}

func BenchmarkRecord(b *testing.B) {
	s, err := Open(b.Context(), "memory:")
	if err != nil {
		b.Fatal(err)
	}
	r := NewRecorder(Options{Store: s, Log: slog.Default()})
	e := event(1)
	b.ReportAllocs()
	for b.Loop() {
		r.Handshake(e)
	}
}
