// Package handshake tests, through the built binary, how every handshake
// ends: what the client sees, what is counted, what is logged, and that
// nothing of a refused client reaches the upstream.
package handshake

import (
	"fmt"
	"io"
	"maps"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"postern/internal/posterntest"
)

func TestMain(m *testing.M) { posterntest.Main(m) }

// rig is a proxy with both upstreams, and what it should have counted.
type rig struct {
	*posterntest.Proxy
	imap, pop3 *posterntest.Upstream
	mode       string

	clients   int // addresses given out
	begun     int // handshakes
	legacy    int // legacy handshakes, and so log lines
	forwarded int // upstream connections
}

func newRig(t *testing.T, env map[string]string) *rig {
	t.Helper()
	r := &rig{
		imap: posterntest.StartUpstream(t, posterntest.IMAPGreeting, posterntest.IMAPReply),
		pop3: posterntest.StartUpstream(t, posterntest.POP3Greeting, posterntest.POP3Reply),
		mode: "enforce",
	}
	all := map[string]string{"UPSTREAM_IMAP": r.imap.URL("imap"), "UPSTREAM_POP3": r.pop3.URL("pop3"), "UPSTREAM_TIMEOUT": "1m"}
	maps.Copy(all, env)
	if m := all["POLICY_MODE"]; m != "" {
		r.mode = m
	}
	r.Proxy = posterntest.Start(t, all)
	return r
}

// expectReached holds how many connections have reached the upstreams against those of
// clients that were to. The prober's are known once they have ended.
func (r *rig) expectReached(t *testing.T) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		got := r.imap.FromClients() + r.pop3.FromClients()
		if got == r.forwarded {
			return
		}
		if time.Now().After(end) {
			t.Errorf("%d connections of clients have reached the upstreams, want %d", got, r.forwarded)
			r.forwarded = got
			return
		}
	}
}

func (r *rig) upstreamOf(listener string) *posterntest.Upstream {
	if strings.HasPrefix(listener, "imap") {
		return r.imap
	}
	return r.pop3
}

// client returns a loopback address that no client had before, so that log
// lines can be told apart and are never suppressed.
func (r *rig) client() string {
	r.clients++
	return fmt.Sprintf("127.1.%d.%d", r.clients/250, 1+r.clients%250)
}

// want is how a handshake ends. The zero want says that none began.
type want struct {
	version, outcome string
	reason           string // of a legacy handshake
	failure          string // of a failed one
	forwarded        bool

	log *logged
}

// logged is what the line of a legacy handshake says beyond want.
type logged struct {
	offered []string // exactly; nil: the version among others
	suites  []uint16 // nil: any
	ja4     string   // empty: any
	name    string
}

// counted are the series that a handshake moves.
var counted = []string{
	"postern_handshakes_total",
	"postern_legacy_handshakes_total",
	"postern_handshake_failures_total",
}

// deltas are the increments that w asks for.
func (w want) deltas(listener string) map[string]float64 {
	d := make(map[string]float64)
	if w.outcome == "" {
		return d
	}
	d[series(counted[0], map[string]string{"listener": listener, "version": w.version, "outcome": w.outcome})] = 1
	if w.reason != "" {
		d[series(counted[1], map[string]string{"listener": listener, "version": w.version, "reason": w.reason, "outcome": w.outcome})] = 1
	}
	if w.failure != "" {
		d[series(counted[2], map[string]string{"listener": listener, "reason": w.failure})] = 1
	}
	return d
}

func series(name string, labels map[string]string) string {
	var b strings.Builder
	b.WriteString(name)
	for _, key := range slices.Sorted(maps.Keys(labels)) {
		fmt.Fprintf(&b, " %s=%s", key, labels[key])
	}
	return b.String()
}

func counts(s posterntest.Samples) map[string]float64 {
	all := make(map[string]float64)
	for _, name := range counted {
		for _, sample := range s[name] {
			all[series(name, sample.Labels)] = sample.Value
		}
	}
	return all
}

// expect runs a client from the given address and holds its end against w.
func (r *rig) expect(t *testing.T, listener, client string, w want, run func()) {
	t.Helper()
	before := counts(r.Metrics(t))
	run()
	r.expectDeltas(t, before, w.deltas(listener))
	if w.outcome != "" {
		r.begun++
	}
	if w.forwarded {
		r.forwarded++
	}
	r.expectReached(t)
	r.expectLog(t, listener, client, w)
}

func (r *rig) expectDeltas(t *testing.T, before, deltas map[string]float64) {
	t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for {
		got := counts(r.Metrics(t))
		for key, n := range before {
			got[key] -= n
		}
		maps.DeleteFunc(got, func(_ string, n float64) bool { return n == 0 })
		if maps.Equal(got, deltas) {
			return
		}
		if time.Now().After(deadline) {
			t.Errorf("counted %v\nwant    %v", got, deltas)
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// over is expect for a client on a connection that stands where TLS is to
// begin.
func (r *rig) over(t *testing.T, listener string, w want, run func(conn *net.TCPConn)) {
	t.Helper()
	client := r.client()
	r.expect(t, listener, client, w, func() {
		conn := r.DialForTLSFrom(t, listener, client)
		run(conn)
		conn.Close()
	})
}

// finish holds the sums against all that went before.
func (r *rig) finish(t *testing.T) {
	t.Helper()
	r.CheckIdentities(t, r.begun)
	r.expectReached(t)
	lines := r.WaitLog(t, "legacy handshake", r.legacy)
	if len(lines) != r.legacy {
		t.Errorf("%d lines for %d legacy handshakes", len(lines), r.legacy)
	}
	seen := make(map[any]bool)
	for _, line := range lines {
		if id := line["conn_id"]; id == nil || seen[id] {
			t.Errorf("conn_id %v is missing or has been used", id)
		} else {
			seen[id] = true
		}
	}
}

// ended reads to the end of the stream, which must come in order.
func ended(t *testing.T, conn net.Conn) []byte {
	t.Helper()
	rest, err := io.ReadAll(conn)
	if err != nil {
		t.Errorf("the connection did not end in order: %v after %q", err, rest)
	}
	return rest
}

func write(t *testing.T, conn net.Conn, b []byte) {
	t.Helper()
	if _, err := conn.Write(b); err != nil {
		t.Fatalf("sending: %v", err)
	}
}
