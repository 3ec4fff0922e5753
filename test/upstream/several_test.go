package upstream

import (
	"io"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"postern/internal/posterntest"
)

// pair is a proxy in front of two servers of one protocol.
type pair struct {
	*posterntest.Proxy
	a, b       *posterntest.Upstream
	urlA, urlB string
}

func newPair(t *testing.T, protocol string, a, b *posterntest.Upstream, env ...string) *pair {
	t.Helper()
	p := &pair{a: a, b: b, urlA: a.URL(protocol), urlB: b.URL(protocol)}
	all := map[string]string{"UPSTREAM_" + strings.ToUpper(protocol): p.urlA + "," + p.urlB}
	for _, kv := range env {
		key, value, _ := strings.Cut(kv, "=")
		all[key] = value
	}
	p.Proxy = posterntest.Start(t, all)
	isUp(t, p.Proxy, p.urlA, 1)
	isUp(t, p.Proxy, p.urlB, 1)
	return p
}

// openNow waits until what is open at the two is as given; the probes of the
// start may take a moment to go.
func (p *pair) openNow(t *testing.T, a, b int) {
	t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for p.a.Open() != a || p.b.Open() != b {
		if time.Now().After(deadline) {
			t.Errorf("%d and %d connections are open, want %d and %d", p.a.Open(), p.b.Open(), a, b)
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
}

func TestTheUpstreamWithTheLeastConnectionsIsTaken(t *testing.T) {
	t.Parallel()
	for _, protocol := range []string{"imap", "pop3"} {
		p := newPair(t, protocol, plain(t, protocol), plain(t, protocol))
		p.openNow(t, 0, 0)
		var clients []*posterntest.Client
		for i := range 10 {
			clients = append(clients, serves(t, p.Proxy, listenersOf(protocol)[i%2]))
		}
		p.openNow(t, 5, 5)
		for i, c := range clients {
			if i < 6 {
				c.Close()
			}
		}
		p.openNow(t, 2, 2)
		for range 4 {
			serves(t, p.Proxy, implicit[protocol])
		}
		p.openNow(t, 4, 4)
	}
}

func TestAnUpstreamThatIsDownIsLeftOutAndTakenBack(t *testing.T) {
	t.Parallel()
	for _, protocol := range []string{"imap", "pop3"} {
		p := newPair(t, protocol, plain(t, protocol), plain(t, protocol))
		p.a.Close()
		for i := range 8 {
			serves(t, p.Proxy, listenersOf(protocol)[i%2])
		}
		isUp(t, p.Proxy, p.urlA, 0)
		isUp(t, p.Proxy, p.urlB, 1)
		failuresOf(t, p.Proxy, p.urlA, "dial")
		p.openNow(t, 0, 8)
		p.a.Reopen(t)
		isUp(t, p.Proxy, p.urlA, 1)
		for i := range 8 {
			serves(t, p.Proxy, listenersOf(protocol)[i%2])
		}
		p.openNow(t, 8, 8)
		if n := len(p.WaitLog(t, "upstream answers", 1)); n != 1 {
			t.Errorf("%d log lines say that it is back, want 1", n)
		}
	}
}

// moody is a small server that can be told to behave otherwise.
type moody struct {
	*posterntest.Upstream
	mood atomic.Value
}

func startMoody(t *testing.T, protocol string) *moody {
	t.Helper()
	u := new(moody)
	u.mood.Store("good")
	u.Upstream = posterntest.StartRawUpstream(t, func(c net.Conn) {
		switch mood := u.mood.Load().(string); mood {
		case "good":
			converse(c, protocol)
		case "silent":
			io.Copy(io.Discard, c)
		default:
			io.WriteString(c, mood)
		}
	})
	return u
}

func TestAnotherUpstreamIsTriedBeforeTheClientNotices(t *testing.T) {
	t.Parallel()
	moods := map[string]struct{ mood, reason string }{
		"silent":           {"silent", "timeout"},
		"hangs up":         {"", "closed"},
		"says goodbye":     {"* BYE later\r\n", "refused"},
		"is no IMAP":       {"220 mail.example.org ESMTP\r\n", "greeting"},
		"is authenticated": {"* PREAUTH welcome\r\n", "preauth"},
	}
	for name, m := range moods {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a := startMoody(t, "imap")
			p := newPair(t, "imap", a.Upstream, plain(t, "imap"), "UPSTREAM_TIMEOUT=5s")
			p.openNow(t, 0, 0)
			a.mood.Store(m.mood)
			for range 4 {
				serves(t, p.Proxy, "imaps")
			}
			failuresOf(t, p.Proxy, p.urlA, m.reason)
			isUp(t, p.Proxy, p.urlA, 0)
			posterntest.Within(t, "a login while an upstream is known to be down", 900*time.Millisecond, func() time.Duration {
				begun := time.Now()
				serves(t, p.Proxy, "imaps")
				return time.Since(begun)
			})
			if n := len(p.WaitLog(t, "upstream failed", 1)); n != 1 {
				t.Errorf("%d log lines say that it failed, want 1", n)
			}
			a.mood.Store("good")
			isUp(t, p.Proxy, p.urlA, 1)
		})
	}
}

func TestAClientHearsInTimeThatNoUpstreamAnswers(t *testing.T) {
	t.Parallel()
	a, b := startMoody(t, "imap"), startMoody(t, "imap")
	const limit = 5 * time.Second
	p := newPair(t, "imap", a.Upstream, b.Upstream, "UPSTREAM_TIMEOUT="+limit.String())
	a.mood.Store("silent")
	b.mood.Store("silent")
	posterntest.Within(t, "telling, with two upstreams", 2*limit+500*time.Millisecond, func() time.Duration {
		begun := time.Now()
		expectUnavailable(t, p.Proxy, "imaps")
		return time.Since(begun)
	})
}

func TestUpstreamNamesAreResolved(t *testing.T) {
	t.Parallel()
	u := plain(t, "imap")
	_, port, err := net.SplitHostPort(u.Addr())
	if err != nil {
		t.Fatal(err)
	}
	g := posterntest.Start(t, map[string]string{"UPSTREAM_IMAP": "imap://localhost:" + port})
	serves(t, g, "imaps")
	serves(t, g, "imap")
}

func TestClientsBeforeLoginSurviveTheirUpstream(t *testing.T) {
	t.Parallel()
	for _, protocol := range []string{"imap", "pop3"} {
		t.Run(protocol, func(t *testing.T) {
			t.Parallel()
			p := newPair(t, protocol, plain(t, protocol), plain(t, protocol))
			p.openNow(t, 0, 0)
			before := map[string]string{"imap": "CAPABILITY", "pop3": "NOOP"}[protocol]
			var clients []*posterntest.Client
			for i := range 12 {
				c, err := posterntest.Caller{}.Open(p.Proxy, listenersOf(protocol)[i%2])
				if err != nil {
					t.Fatal(err)
				}
				defer c.Close()
				if i%3 > 0 {
					if err := c.Do("%s", before); err != nil {
						t.Fatal(err)
					}
				}
				clients = append(clients, c)
			}
			p.openNow(t, 6, 6)
			p.a.Close()
			p.openNow(t, 0, 12)
			isUp(t, p.Proxy, p.urlA, 0)
			isUp(t, p.Proxy, p.urlB, 1)
			for i, c := range clients {
				if err := c.Do("%s", before); err != nil {
					t.Errorf("client %d: %v", i, err)
				}
				if err := c.Login("anna", "password"); err != nil {
					t.Errorf("client %d: %v", i, err)
				}
			}
			failuresOf(t, p.Proxy, p.urlA, "closed")
		})
	}
}

func TestALostUpstreamIsReportedToAClientInTheMiddleOfItsLogin(t *testing.T) {
	t.Parallel()
	u := plain(t, "pop3")
	p := newPair(t, "pop3", u, plain(t, "pop3"))
	c, err := posterntest.Caller{}.Open(p.Proxy, "pop3s")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.Do("USER anna"); err != nil {
		t.Fatal(err)
	}
	p.a.CloseConnections()
	p.b.CloseConnections()
	if line, err := c.Line(); err != nil || !strings.HasPrefix(line, unavailable["pop3"]) {
		t.Errorf("the client was told %q, %v, want %s", line, err, unavailable["pop3"])
	}
}
