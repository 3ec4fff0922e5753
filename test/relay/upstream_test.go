package relay

import (
	"io"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"postern/internal/posterntest"
)

// moody is an upstream that answers well until it is told to do otherwise.
type moody struct {
	*posterntest.Upstream
	mood     atomic.Pointer[func(net.Conn)]
	protocol string
}

func newMoody(t *testing.T, protocol string) *moody {
	t.Helper()
	m := &moody{protocol: protocol}
	m.setMood(m.well)
	m.Upstream = posterntest.StartRawUpstream(t, func(c net.Conn) { (*m.mood.Load())(c) })
	return m
}

func (m *moody) setMood(f func(net.Conn)) { m.mood.Store(&f) }

func (m *moody) well(c net.Conn) {
	if m.protocol == "imap" {
		serving(imapGreeting)(c)
	} else {
		serving(pop3Greeting)(c)
	}
}

// serving greets with text, and answers the prober.
func serving(text string) func(net.Conn) {
	return func(c net.Conn) {
		io.WriteString(c, text)
		if c = posterntest.AnswerProbe(c); c != nil {
			io.Copy(io.Discard, c)
		}
	}
}

// start runs a proxy before the upstream alone.
func (m *moody) start(t *testing.T, env map[string]string) *rig {
	t.Helper()
	all := map[string]string{"UPSTREAM_TIMEOUT": "20s", "UPSTREAM_" + strings.ToUpper(m.protocol): m.URL(m.protocol)}
	for k, v := range env {
		all[k] = v
	}
	return &rig{Proxy: posterntest.Start(t, all)}
}

// saying greets with text, and stays.
func saying(text string) func(net.Conn) {
	return func(c net.Conn) {
		io.WriteString(c, text)
		io.Copy(io.Discard, c)
	}
}

func closing(net.Conn) {}

func babbling(c net.Conn) {
	for {
		if _, err := io.WriteString(c, strings.Repeat("x", 8192)); err != nil {
			return
		}
	}
}

const (
	imapGone = "* BYE [UNAVAILABLE] "
	pop3Gone = "-ERR [SYS/TEMP] "
)

func TestAnUpstreamThatDoesNotGreetWell(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		protocol, name, words, reason string
		mood                          func(net.Conn) // nil: nobody listens
		slow                          bool
	}{
		{"imap", "unreachable", imapGone, "dial", nil, false},
		{"imap", "silent", imapGone, "timeout", saying(""), true},
		{"imap", "half a greeting", imapGone, "timeout", saying("* OK hel"), true},
		{"imap", "closing", imapGone, "closed", closing, false},
		{"imap", "BYE", "* BYE [ALERT] come back at noon\r\n", "refused", saying("* BYE [ALERT] come back at noon\r\n"), false},
		{"imap", "PREAUTH", imapGone, "preauth", saying("* PREAUTH [CAPABILITY IMAP4rev1] hello\r\n"), false},
		{"imap", "HTTP", imapGone, "greeting", saying("HTTP/1.1 400 Bad Request\r\n\r\n"), false},
		{"imap", "POP3", imapGone, "greeting", saying(pop3Greeting), false},
		{"imap", "* OKAY", imapGone, "greeting", saying("* OKAY\r\n"), false},
		{"imap", "an empty line", imapGone, "greeting", saying("\r\n"), false},
		{"imap", "babble", imapGone, "greeting", babbling, false},
		{"pop3", "unreachable", pop3Gone, "dial", nil, false},
		{"pop3", "silent", pop3Gone, "timeout", saying(""), true},
		{"pop3", "closing", pop3Gone, "closed", closing, false},
		{"pop3", "-ERR", "-ERR [SYS/PERM] not today\r\n", "refused", saying("-ERR [SYS/PERM] not today\r\n"), false},
		{"pop3", "IMAP", pop3Gone, "greeting", saying(imapGreeting), false},
		{"pop3", "+OKAY", pop3Gone, "greeting", saying("+OKAY\r\n"), false},
		{"pop3", "babble", pop3Gone, "greeting", babbling, false},
	} {
		t.Run(c.protocol+" "+c.name, func(t *testing.T) {
			t.Parallel()
			m := newMoody(t, c.protocol)
			var env map[string]string
			if c.slow {
				env = map[string]string{"UPSTREAM_TIMEOUT": "1s"}
			}
			r := m.start(t, env)
			url := "upstream=" + m.URL(c.protocol)
			r.becomes(t, 1, "postern_upstream_up", url)
			if c.mood == nil {
				m.Close()
			} else {
				m.setMood(c.mood)
			}
			for _, listener := range []string{c.protocol + "s", c.protocol} {
				posterntest.Within(t, listener+": telling", 3*time.Second, func() time.Duration {
					conn := r.secure(t, listener, r.DialForTLS(t, listener))
					began := time.Now()
					newEnd("client", conn).ExpectLastLine(t, c.words)
					conn.Close()
					took := time.Since(began)
					if c.slow && took < 700*time.Millisecond {
						t.Errorf("%s: told after %v", listener, took)
					}
					return took
				})
			}
			s := r.Wait(t, func(s posterntest.Samples) bool {
				return s.Value("postern_upstream_failures_total", url, "reason="+c.reason) >= 2 && s.Value("postern_upstream_up", url) == 0
			})
			if named, all := s.Value("postern_upstream_failures_total", url, "reason="+c.reason), s.Value("postern_upstream_failures_total", url); named != all {
				t.Errorf("of %v failures only %v are named %s", all, named, c.reason)
			}
			// Clients get words, which a refused connection would not give.
			if status, body, err := r.Get("/readyz"); err != nil || status != 200 || !strings.Contains(body, m.Addr()) {
				t.Errorf("readiness %d, %v: %q", status, err, body)
			}
		})
	}
}

func TestAnUpstreamThatFallsSilentAtLogin(t *testing.T) {
	t.Parallel()
	for listener, words := range map[string]string{"imaps": imapGone, "pop3s": pop3Gone} {
		t.Run(listener, func(t *testing.T) {
			t.Parallel()
			const limit = 2 * time.Second
			posterntest.Within(t, "telling", 3*limit+2*time.Second, func() time.Duration {
				r := newRig(t, map[string]string{"UPSTREAM_TIMEOUT": limit.String()})
				d := r.open(t, listener)
				login := "USER anna\r\n"
				if isIMAP(listener) {
					login = "a LOGIN anna s3cr3t-word\r\n"
				}
				began := time.Now()
				d.pass(t, login)
				d.client.ExpectLastLine(t, words)
				took := time.Since(began)
				if took < 3*limit/2 {
					t.Errorf("told after %v, want about three times UPSTREAM_TIMEOUT", took)
				}
				r.becomes(t, 1, "postern_upstream_failures_total", "reason=timeout")
				mayHaveSeen(t, d.upstream, "")
				return took
			})
		})
	}
}

func TestAnUpstreamThatDiesBeforeLogin(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	deaths := 0
	for _, c := range []struct{ listener, last, words string }{
		{"imaps", "", imapGone}, {"imap", "", imapGone}, {"pop3s", "", pop3Gone}, {"pop3", "", pop3Gone},
		{"imaps", "* OK [CAPABILITY IMAP4rev1 STARTT", imapGone}, {"imaps", "* ID (\"name\" {100}\r\nabc", imapGone},
		{"pop3s", "+OK the first li", pop3Gone}, {"pop3s", "+OK\r\nUSER\r\nSAS", pop3Gone},
	} {
		for _, asked := range []bool{false, true} {
			d := r.open(t, c.listener)
			d.goesOn(t, c.listener)
			if command := "a CAPABILITY\r\n"; asked && isIMAP(c.listener) {
				d.pass(t, command)
			} else if asked {
				d.pass(t, "CAPA\r\n")
			}
			d.upstream.Send(t, c.last)
			d.upstream.Close()
			d.client.ExpectLastLine(t, c.words)
			d.client.Close()
			deaths++
			r.becomes(t, float64(deaths), "postern_upstream_failures_total", "reason=closed")
		}
	}
}

func TestAnUpstreamThatSaysGoodbyeItself(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	for listener, bye := range map[string]string{"imaps": "* BYE [X] too slow\r\n", "pop3s": "-ERR [X] too slow\r\n"} {
		d := r.open(t, listener)
		d.goesOn(t, listener)
		d.back(t, bye)
		d.upstream.Close()
		if text := d.client.ExpectEnd(t); text != "" {
			t.Errorf("%s: %q after the upstream's own goodbye", listener, text)
		}
		d = r.open(t, listener)
		if isIMAP(listener) {
			d.pass(t, "a LOGOUT\r\n")
			d.back(t, "* BYE bye\r\na OK done\r\n")
		} else {
			d.pass(t, "QUIT\r\n")
			d.back(t, "+OK bye\r\n")
		}
		d.upstream.Close()
		if text := d.client.ExpectEnd(t); text != "" {
			t.Errorf("%s: %q after a logout", listener, text)
		}
	}
	time.Sleep(quietTime)
	if n := r.Metrics(t).Value("postern_upstream_failures_total"); n != 0 {
		t.Errorf("%v failures counted for goodbyes", n)
	}
}

func TestAnUpstreamThatDiesAfterLoginLeavesNoWord(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	for _, listener := range []string{"imaps", "imap", "pop3s", "pop3"} {
		for _, said := range []string{"", "* 1 FETCH (BODY[] {5000000}\r\n", "+OK\r\nhalf a li", strings.Repeat("\x00\xff", 500_000)} {
			d := r.enter(t, listener)
			d.upstream.Send(t, said)
			d.upstream.Close()
			if got := d.client.ExpectEnd(t); got != said {
				t.Errorf("%s: the client gets %d bytes, want the %d that were said", listener, len(got), len(said))
			}
			d.client.Close()
		}
	}
}

func TestTheNextUpstreamServesWhereTheFirstIsDownUntilItComesBack(t *testing.T) {
	t.Parallel()
	first, second := newMoody(t, "imap"), newMoody(t, "imap")
	second.setMood(serving("* OK second\r\n"))
	r := first.start(t, map[string]string{"UPSTREAM_IMAP": first.URL("imap") + "," + second.URL("imap")})
	up := func(m *moody) float64 { return r.Metrics(t).Value("postern_upstream_up", "upstream="+m.URL("imap")) }
	greets := func(want string) {
		t.Helper()
		conn := r.secure(t, "imaps", r.DialForTLS(t, "imaps"))
		newEnd("client", conn).Expect(t, want)
		conn.Close()
		// The one with the least connections is taken, so the session must be gone.
		r.Wait(t, func(s posterntest.Samples) bool { return s.Value("postern_connections_open") == 0 })
	}
	greets(imapGreeting)
	first.setMood(closing)
	for range 3 {
		greets("* OK second\r\n")
	}
	if up(first) != 0 || up(second) != 1 {
		t.Errorf("up: first %v, second %v", up(first), up(second))
	}
	first.setMood(first.well)
	r.Wait(t, func(s posterntest.Samples) bool {
		return s.Value("postern_upstream_up", "upstream="+first.URL("imap")) == 1
	})
	greets(imapGreeting)
	first.setMood(closing)
	second.Close()
	conn := r.secure(t, "imaps", r.DialForTLS(t, "imaps"))
	newEnd("client", conn).ExpectLastLine(t, imapGone)
}

func TestAnUpstreamThatWasRestartedIsFoundAgain(t *testing.T) {
	t.Parallel()
	m := newMoody(t, "pop3")
	r := m.start(t, nil)
	addr := m.Addr()
	m.Close()
	conn := r.secure(t, "pop3s", r.DialForTLS(t, "pop3s"))
	newEnd("client", conn).ExpectLastLine(t, pop3Gone)
	l, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				m.well(c)
			}()
		}
	}()
	// At once, even if nobody has looked since.
	conn = r.secure(t, "pop3s", r.DialForTLS(t, "pop3s"))
	newEnd("client", conn).Expect(t, pop3Greeting)
	r.becomes(t, 1, "postern_upstream_up", "upstream="+m.URL("pop3"))
}
