// Package limits tests, through the built binary, what the proxy does when
// there is too much of something: connections, handshakes, descriptors, or
// bytes that nobody takes.
package limits

import (
	"bufio"
	"io"
	"maps"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"postern/internal/posterntest"
)

func TestMain(m *testing.M) { posterntest.Main(m) }

// start runs a proxy in front of small servers of both protocols.
func start(t *testing.T, p posterntest.Process, env map[string]string) *posterntest.Proxy {
	t.Helper()
	all := map[string]string{
		"UPSTREAM_IMAP": posterntest.StartUpstream(t, posterntest.IMAPGreeting, posterntest.IMAPReply).URL("imap"),
		"UPSTREAM_POP3": posterntest.StartUpstream(t, posterntest.POP3Greeting, posterntest.POP3Reply).URL("pop3"),
	}
	maps.Copy(all, env)
	return p.Start(t, all)
}

// holds logs in and stays.
func holds(t *testing.T, g *posterntest.Proxy, caller posterntest.Caller, listener string) *posterntest.Client {
	t.Helper()
	c, err := caller.Login(g, listener, "anna", "password")
	if err != nil {
		t.Fatalf("%s: %v", listener, err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// words are what a client over a limit is told; empty is a plain close.
var words = map[string]string{"imap": "* BYE [LIMIT] ", "pop3": "-ERR [SYS/TEMP] ", "imaps": "", "pop3s": ""}

// refused wants that a client of an address is rejected, and that this is
// counted once as the limit, and once as a handshake where TLS was to begin.
func refused(t *testing.T, g *posterntest.Proxy, address, listener, limit string) {
	t.Helper()
	before := g.Metrics(t)
	conn := g.DialFrom(t, listener, address)
	got, err := io.ReadAll(conn)
	conn.Close()
	if err != nil {
		t.Errorf("%s: the connection did not end in order: %v", listener, err)
	}
	want := words[listener]
	if !strings.HasPrefix(string(got), want) || want == "" && len(got) > 0 || want != "" && strings.Count(string(got), "\n") != 1 {
		t.Errorf("%s: the client was told %q, want %q", listener, got, want)
	}
	failed := 0.0
	if want == "" {
		failed = 1
	}
	grown := func(s posterntest.Samples, name string, labels ...string) float64 {
		return s.Count(name, labels...) - before.Count(name, labels...)
	}
	g.Wait(t, func(s posterntest.Samples) bool {
		return grown(s, "postern_limit_refusals_total", "listener="+listener, "limit="+limit) == 1 &&
			grown(s, "postern_limit_refusals_total") == 1 &&
			grown(s, "postern_handshake_failures_total", "listener="+listener, "reason=limit") == failed &&
			grown(s, "postern_handshakes_total") == failed
	})
}

// open waits until the proxy has that many connections.
func open(t *testing.T, g *posterntest.Proxy, n float64) {
	t.Helper()
	g.Wait(t, func(s posterntest.Samples) bool { return s.Count("postern_connections_open") == n })
}

func TestConnectionsOverTheLimitAreRejected(t *testing.T) {
	t.Parallel()
	g := start(t, posterntest.Process{}, map[string]string{"LIMIT_CONNECTIONS": "4"})
	var held []*posterntest.Client
	for _, listener := range posterntest.Listeners {
		held = append(held, holds(t, g, posterntest.Caller{}, listener))
	}
	for _, listener := range posterntest.Listeners {
		refused(t, g, "127.0.0.9", listener, "connections")
	}
	// One line a minute, however many come.
	if lines := g.WaitLog(t, "limit reached, a client is turned away", 1); len(lines) != 1 || lines[0]["variable"] != "POSTERN_LIMIT_CONNECTIONS" || lines[0]["client"] != "127.0.0.9" {
		t.Errorf("the log says %v", lines)
	}
	for i, listener := range posterntest.Listeners {
		held[i].Close()
		open(t, g, 3)
		holds(t, g, posterntest.Caller{}, listener)
	}
	g.CheckIdentities(t)
}

func TestRejectedConnectionsTakeNoPlace(t *testing.T) {
	t.Parallel()
	g := start(t, posterntest.Process{}, map[string]string{"LIMIT_CONNECTIONS": "4"})
	var held []*posterntest.Client
	for range 4 {
		held = append(held, holds(t, g, posterntest.Caller{}, "imaps"))
	}
	// They hear why, and stay as long as they are let.
	for range 20 {
		conn := g.Dial(t, "imap")
		if line, err := bufio.NewReader(conn).ReadString('\n'); err != nil || !strings.HasPrefix(line, words["imap"]) {
			t.Fatalf("%q, %v", line, err)
		}
	}
	held[0].Close()
	open(t, g, 3)
	holds(t, g, posterntest.Caller{}, "imaps")
}

func TestConnectionsPerClientAreLimited(t *testing.T) {
	t.Parallel()
	g := start(t, posterntest.Process{}, map[string]string{
		"LIMIT_CONNECTIONS_PER_CLIENT": "2", "PROXY_PROTOCOL_FROM": "127.0.0.8/32",
	})
	caller := posterntest.Caller{From: "127.0.0.9"}
	first := holds(t, g, caller, "imaps")
	holds(t, g, caller, "pop3")
	for _, listener := range posterntest.Listeners {
		refused(t, g, caller.From, listener, "connections_per_client")
		holds(t, g, posterntest.Caller{From: "127.0.1." + map[string]string{"imaps": "1", "pop3s": "2", "imap": "3", "pop3": "4"}[listener]}, listener)
	}
	first.Close()
	open(t, g, 5)
	holds(t, g, caller, "imap")

	// Behind a proxy its header counts, and of IPv6 the network.
	behind := func(address string) posterntest.Caller {
		return posterntest.Caller{From: "127.0.0.8", Header: []byte("PROXY TCP6 " + address + " 2001:db8::1 4711 993\r\n")}
	}
	holds(t, g, behind("2001:db8:0:7::1"), "imaps")
	holds(t, g, behind("2001:db8:0:7:ffff::2"), "imaps")
	if c, err := behind("2001:db8:0:7::3").Open(g, "imaps"); err == nil {
		t.Error("a third client of one /64 was let in")
		c.Close()
	}
	holds(t, g, behind("2001:db8:0:8::1"), "imaps")
	g.CheckIdentities(t)
}

func TestHandshakesPerClientAreLimited(t *testing.T) {
	t.Parallel()
	const limit = 5
	g := start(t, posterntest.Process{}, map[string]string{"LIMIT_HANDSHAKES_PER_CLIENT": "5"})
	for i, listener := range posterntest.Listeners {
		caller := posterntest.Caller{From: []string{"127.0.2.1", "127.0.2.2", "127.0.2.3", "127.0.2.4"}[i]}
		begun := time.Now()
		var completed, refusals int
		for crowd := 4 * limit; refusals == 0 && crowd <= 64*limit; crowd *= 2 { // a slow machine has more come at once
			var mu sync.Mutex
			var all sync.WaitGroup
			for range crowd {
				all.Go(func() {
					c, err := caller.Open(g, listener)
					mu.Lock()
					defer mu.Unlock()
					if err != nil {
						refusals++
						return
					}
					completed++
					c.Close()
				})
			}
			all.Wait()
		}
		// A burst of one second's worth, and what has come back since.
		if most := limit + int(time.Since(begun).Seconds()*limit) + 1; completed < limit || completed > most || refusals == 0 {
			t.Errorf("%s: %d handshakes completed in %v, %d refused", listener, completed, time.Since(begun), refusals)
		}
		g.Wait(t, func(s posterntest.Samples) bool {
			return s.Count("postern_limit_refusals_total", "listener="+listener, "limit=handshakes_per_client") == float64(refusals)
		})
		other := posterntest.Caller{From: "127.0.3.1"}
		holds(t, g, other, listener).Close()
		time.Sleep(1200 * time.Millisecond)
		for range limit {
			holds(t, g, caller, listener).Close()
		}
	}
	g.CheckIdentities(t)
}

func TestTheLimitFollowsFromTheDescriptors(t *testing.T) {
	t.Parallel()
	g := start(t, posterntest.Process{Measured: true, Descriptors: 200}, nil)
	var told int
	for range 60 {
		line, err := bufio.NewReader(g.Dial(t, "imap")).ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		if strings.HasPrefix(line, words["imap"]) {
			told++
		}
	}
	if told < 10 || told > 50 {
		t.Errorf("%d of 60 clients were told that there are too many, with 200 descriptors", told)
	}
	g.Metrics(t) // the admin port still has some
	if n := len(g.LogLines("accepting failed")); n != 0 {
		t.Errorf("accepting has failed %d times", n)
	}
}

func TestWithoutDescriptorsTheProxyWaitsAndRecovers(t *testing.T) {
	t.Parallel()
	posterntest.Within(t, "four logins after the others had left", 2*time.Second, func() time.Duration { return recovery(t) })
}

// recovery returns how long four logins take after the descriptors had run out.
func recovery(t *testing.T) time.Duration {
	t.Helper()
	g := start(t, posterntest.Process{Measured: true, Descriptors: 100}, map[string]string{"LIMIT_CONNECTIONS": "0"})
	var conns []net.Conn
	for range 130 {
		conns = append(conns, g.Dial(t, "imap"))
	}
	g.WaitLog(t, "accepting failed", 1)
	const watched = 2 * time.Second
	before := g.CPUTime(t)
	time.Sleep(watched)
	if used := g.CPUTime(t) - before; used > watched/10 {
		t.Errorf("out of descriptors the proxy used %v of CPU time in %v", used, watched)
	}
	if n := strings.Count(g.Stderr(), "\n"); n > 50 {
		t.Errorf("%d lines in the log", n)
	}
	for _, c := range conns {
		c.Close()
	}
	begun := time.Now()
	for _, listener := range posterntest.Listeners {
		holds(t, g, posterntest.Caller{}, listener)
	}
	return time.Since(begun)
}
