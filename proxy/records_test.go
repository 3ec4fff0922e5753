//go:build linux

package proxy

import (
	"crypto/tls"
	"io"
	"math/rand/v2"
	"testing"

	"postern/internal/posterntest"
	"postern/policy"
)

// Whatever pieces the stream comes in, left never reaches behind a record.
func TestRecordsKnowsWhereRecordsEnd(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	var stream []byte
	ends := map[int]bool{}
	for range 300 {
		n := []int{0, 1, 5, 255, 256, 1 << 14}[r.IntN(6)]
		ends[len(stream)+recordHeaderLen] = true
		stream = append(stream, 23, 3, 3, byte(n>>8), byte(n))
		stream = append(stream, make([]byte, n)...)
		ends[len(stream)] = true
	}
	var c records
	for at := 0; at < len(stream); {
		left := c.left()
		if left <= 0 || !ends[at+left] {
			t.Fatalf("at %d: %d are left, but nothing ends there", at, left)
		}
		n := 1 + r.IntN(left)
		c.advance(stream[at : at+n])
		at += n
	}
	if c != (records{}) {
		t.Errorf("at the end: %+v", c)
	}
	// Reads during the handshake are not bounded.
	var all records
	all.advance(stream[:len(stream)-3])
	all.advance(stream[len(stream)-3:])
	if all != (records{}) {
		t.Errorf("in two pieces: %+v", all)
	}
}

// What is said before STARTTLS is no record.
func TestRecordsBeginWithTLS(t *testing.T) {
	up := posterntest.StartUpstream(t, posterntest.IMAPGreeting, posterntest.IMAPReply)
	g := StartProxy(t, policy.Enforce, up.Addr(), "", nil)
	nc := g.Dial(t, IMAP)
	readLine(t, nc)
	io.WriteString(nc, "a STARTTLS\r\n")
	readLine(t, nc)
	c := tls.Client(nc, g.ClientConfig())
	io.WriteString(c, "b LOGIN u p\r\n")
	readLine(t, c)
	waitParked(t, g, 2)
	g.Server.mu.Lock()
	defer g.Server.mu.Unlock()
	for s := range g.open {
		if s.raw.records != (records{}) {
			t.Errorf("between two records: %+v", s.raw.records)
		}
	}
}
