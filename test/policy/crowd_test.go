package policy

import (
	"crypto/tls"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"postern/internal/posterntest"
)

const (
	crowd      = 1000
	crowdFlips = 24
	// Every quietFlip-th flip is left to be noticed, the others are signalled.
	quietFlip = 5
	dialers   = 8
	// few is how many of everything there must have been for it to mean
	// anything.
	few = 20
)

// Two policies that differ in all that a handshake is judged by: floor, rule,
// mode and candidates. A mixture of them shows, as does the loss of the rules.
const (
	policyA = `
floor: tls1.2
mode: explain
rules: [{name: a, mode: observe}, {name: b, mode: enforce}]
candidates: [{name: new, floor: tls1.3}]
`
	policyB = `
floor: tls1.3
mode: explain
rules: [{name: b, mode: enforce}, {name: a, mode: observe}]
candidates: [{name: aead, floor: tls1.2-aead}]
`
)

// each does it for every session of n, some at a time, and stops the test where
// that fails.
func each(t *testing.T, n int, do func(i int) error) {
	t.Helper()
	var wg sync.WaitGroup
	for d := range dialers {
		wg.Go(func() {
			for i := d; i < n; i += dialers {
				if err := do(i); err != nil {
					t.Errorf("session %d of %d: %v", i, n, err)
					return
				}
			}
		})
	}
	wg.Wait()
	if t.Failed() {
		t.FailNow()
	}
}

// gather opens sessions and logs them in, by the cheapest handshakes that there
// are: they are not the point.
func (g *instance) gather(t *testing.T, n int) []*posterntest.Client {
	t.Helper()
	config := &tls.Config{ClientSessionCache: tls.NewLRUClientSessionCache(1), CurvePreferences: []tls.CurveID{tls.X25519}}
	clients := make([]*posterntest.Client, n)
	each(t, n, func(i int) error {
		c, err := posterntest.Caller{From: fmt.Sprintf("127.0.2.%d", 1+i%250), TLS: config}.Login(g.Proxy, "imaps", "anna", "secret")
		if err == nil {
			c.Timeout = 5 * time.Minute
		}
		clients[i] = c
		return err
	})
	return clients
}

// stream is clients that come one after the other while policies change.
type stream struct {
	listener    string
	tls         *tls.Config
	in, refused atomic.Int64
}

// flow lets them come until stop is closed.
func (s *stream) flow(t *testing.T, g *instance, stop <-chan struct{}) {
	for {
		select {
		case <-stop:
			return
		case <-time.After(15 * time.Millisecond):
		}
		from := fresh()
		met, err := g.meets(posterntest.Caller{From: from, TLS: s.tls}, s.listener)
		switch {
		case err == nil && met == letIn:
			s.in.Add(1)
		case err == nil && met == rejectedBy:
			s.refused.Add(1)
		default:
			t.Errorf("a client from %s on %s: %q, %v", from, s.listener, met, err)
		}
	}
}

// Nobody notices another policy but those whom it judges, and each of these is
// judged by one policy as a whole.
func TestPoliciesChangeUnderACrowd(t *testing.T) {
	g := start(t, policyA, nil)
	clients := g.gather(t, crowd)
	old, middling, modern := &stream{listener: "imaps", tls: upTo(tls.VersionTLS10)},
		&stream{listener: "pop3s", tls: upTo(tls.VersionTLS12)}, &stream{listener: "imaps", tls: &tls.Config{}}
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for _, s := range []*stream{old, old, middling, modern, modern} {
		wg.Go(func() { s.flow(t, g, stop) })
	}
	var turned int64
	var begun time.Time
	lacking := func() bool {
		return min(modern.in.Load(), old.in.Load(), old.refused.Load(), middling.in.Load(), middling.refused.Load()) < few
	}
	flips := 0
	for flip := 0; flip < crowdFlips || flip < 10*crowdFlips && lacking(); flip++ { // a slow machine has more
		flips++
		text, floor, want := policyB, "tls1.3", rejectedBy
		if flip%2 == 1 {
			text, floor, want = policyA, "tls1.2", letIn
		}
		begun = time.Now()
		if flip%quietFlip == quietFlip-1 {
			g.replace(t, text)
			g.waitFloor(t, floor)
		} else {
			g.replaceNow(t, text, floor)
		}
		// Who comes once it is said meets nothing else.
		g.expect(t, posterntest.Caller{From: fresh()}, "imaps", want)
		if want == rejectedBy {
			turned++
		}
		time.Sleep(100 * time.Millisecond)
	}
	close(stop)
	wg.Wait()
	each(t, crowd, func(i int) error { return clients[i].Do("NOOP") })
	if s := modern; s.refused.Load() > 0 || s.in.Load() < few {
		t.Errorf("of the modern clients %d were let in, %d rejected", s.in.Load(), s.refused.Load())
	}
	for _, s := range []*stream{old, middling} {
		if s.in.Load() < few || s.refused.Load() < few {
			t.Errorf("on %s %d were let in, %d rejected: both are to be seen", s.listener, s.in.Load(), s.refused.Load())
		}
	}
	observed := old.in.Load() + int64(flips) - turned
	rejected := old.refused.Load() + middling.refused.Load() + turned
	t.Logf("%d observed, %d rejected, %d modern", observed, rejected, modern.in.Load()+middling.in.Load())
	g.checkJudged(t, observed, rejected)
	g.until(t, "moment with the crowd alone", func() bool {
		return g.Metrics(t).Count("postern_connections_open") == crowd
	})
	m := g.Metrics(t)
	if n := m.Count(failures); n != 0 {
		t.Errorf("%v reloads failed", n)
	}
	if at := m.Value(lastReload); at < float64(begun.Unix()) || at > float64(time.Now().Unix()) {
		t.Errorf("last reload at %.0f, the last change was at %d", at, begun.Unix())
	}
	g.CheckIdentities(t)
	for _, c := range clients {
		c.Close()
	}
}

// checkJudged compares what clients saw with the log, line by line, and with
// the metrics.
func (g *instance) checkJudged(t *testing.T, observed, rejected int64) {
	t.Helper()
	got := make(map[string]int64)
	for _, l := range g.WaitLog(t, legacyLine, int(observed+rejected)) {
		got[fmt.Sprintf("%v %v by %v", l["version"], l["outcome"], fmt.Sprint(l["rule"], "/", l["mode"]))]++
	}
	middling := got["tls1.2 rejected by b/enforce"]
	if n := got["tls1.0 observed by a/observe"]; n != observed {
		t.Errorf("%d lines of who was observed, want %d", n, observed)
	}
	if n := got["tls1.0 rejected by b/enforce"] + middling; n != rejected {
		t.Errorf("%d lines of who was rejected, want %d", n, rejected)
	}
	if len(got) != 3 {
		t.Errorf("a mixture of two policies: %v", got)
	}
	// The log comes before the metrics.
	m := g.Wait(t, func(m posterntest.Samples) bool {
		return m.Count(matches) == float64(observed+rejected)
	})
	for what, pair := range map[string][2]float64{
		"matches of a":      {m.Count(matches, "rule=a"), float64(observed)},
		"matches of b":      {m.Count(matches, "rule=b"), float64(rejected)},
		"legacy handshakes": {m.Count("postern_legacy_handshakes_total"), float64(observed + rejected)},
		"observed":          {m.Count("postern_legacy_handshakes_total", "outcome=observed"), float64(observed)},
	} {
		if pair[0] != pair[1] {
			t.Errorf("%v %s counted, want %v", pair[0], what, pair[1])
		}
	}
}
