package probe

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"postern/internal/hello"
	"postern/internal/posterntest"
	"postern/policy"
)

func TestAHandshakeReachesTheHighestFloorThatHasItsSuite(t *testing.T) {
	for i, f := range policy.Floors {
		for _, id := range f.CipherSuites() {
			want := slices.Clone(policy.Floors[:i+1])
			for _, higher := range policy.Floors[i+1:] {
				if slices.Contains(higher.CipherSuites(), id) {
					want = append(want, higher)
				}
			}
			if got := reached(hello.Flight{Answer: hello.Answer{Version: tls.VersionTLS12, CipherSuite: id}}); !slices.Equal(got, want) {
				t.Errorf("%s reaches %v, want %v", policy.CipherSuiteName(id), got, want)
			}
			for _, below := range []hello.Flight{
				{Answer: hello.Answer{Version: tls.VersionTLS11, CipherSuite: id}},
				{Answer: hello.Answer{Version: tls.VersionTLS12, CipherSuite: id}, Scheme: tls.PKCS1WithSHA1},
			} {
				if got := reached(below); len(got) > 0 {
					t.Errorf("%s in %+v reaches %v", policy.CipherSuiteName(id), below, got)
				}
			}
		}
	}
	for _, id := range slices.Concat(hello.DHE, hello.TDES, hello.RC4) {
		if got := reached(hello.Flight{Answer: hello.Answer{Version: tls.VersionTLS12, CipherSuite: id}}); len(got) > 0 {
			t.Errorf("%s reaches %v", policy.CipherSuiteName(id), got)
		}
	}
}

// serve runs a TLS server until the test ends, which says a line to who comes in.
func serve(t testing.TB, config *tls.Config, line string) string {
	t.Helper()
	u := posterntest.StartRawUpstream(t, func(c net.Conn) {
		tc := tls.Server(c, config)
		io.WriteString(tc, line)
		tc.Read(make([]byte, 1000))
		tc.Close()
	})
	return u.Addr()
}

func pair(t testing.TB, ca *posterntest.CA, key string) tls.Certificate {
	t.Helper()
	p := ca.Issue(t, posterntest.DefaultNames, key)
	c, err := tls.LoadX509KeyPair(p.CertFile, p.KeyFile)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// ask probes one address, at most for a while.
func ask(t testing.TB, addr, sni string, o Options) *Listener {
	t.Helper()
	if o.Timeout == 0 {
		o.Timeout = 20 * time.Second
	}
	all, err := Listeners(t.Context(), []string{addr}, o)
	if err != nil || len(all) != 1 {
		t.Fatalf("%v, %v", all, err)
	}
	all[0].sni = sni
	Run(context.Background(), all, o, func(int) {})
	return all[0]
}

// TestSummaries reads servers of crypto/tls, one for each kind of answer.
func TestSummaries(t *testing.T) {
	ca := posterntest.NewCA(t)
	ecdsa, rsa := pair(t, ca, posterntest.ECDSA), pair(t, ca, posterntest.RSA)
	floor := func(f policy.Floor, keys ...tls.Certificate) *tls.Config {
		c := f.TLSConfig()
		c.Certificates = keys
		return c
	}
	old := policy.LenientTLSConfig()
	old.Certificates, old.MaxVersion = []tls.Certificate{ecdsa, rsa}, tls.VersionTLS12
	p521 := floor(policy.FloorTLS12AEAD, ecdsa)
	p521.CurvePreferences = []tls.CurveID{tls.CurveP521}
	for name, c := range map[string]struct {
		config    *tls.Config
		says      string
		summary   string
		certified int
	}{
		"1.3":    {floor(policy.FloorTLS13, ecdsa), "* OK ready\r\n", "refuses SSL 2.0, SSL 3.0, TLS 1.0, 1.1 and 1.2; knows hybrid groups: tls1.3", 1},
		"aead":   {floor(policy.FloorTLS12AEAD, ecdsa), "* OK ready\r\n", "refuses SSL 2.0, SSL 3.0, TLS 1.0 and 1.1; knows hybrid groups: tls1.2-aead", 1},
		"1.2":    {floor(policy.FloorTLS12, ecdsa, rsa), "* OK ready\r\n", "refuses SSL 2.0, SSL 3.0, TLS 1.0 and 1.1; knows hybrid groups: tls1.2", 1},
		"compat": {floor(policy.FloorTLS12Compat, ecdsa, rsa), "* OK ready\r\n", "refuses SSL 2.0, SSL 3.0, TLS 1.0 and 1.1; takes RSA key exchange; knows hybrid groups: tls1.2-compat", 2},
		"old": {old, "* BYE [ALERT] go\r\n", `refuses SSL 2.0, SSL 3.0 and TLS 1.3; takes RSA key exchange, 3DES and RC4; ` +
			`takes TLS 1.0, 1.1 and 1.2, but turns their clients away: "* BYE [ALERT] go": below every floor`, 2},
		"pq":   {floor(policy.FloorTLS13PQ, ecdsa), "* OK ready\r\n", "refuses SSL 2.0, SSL 3.0, TLS 1.0, 1.1 and 1.2; takes TLS 1.3 with hybrid groups alone: tls1.3-pq", 1},
		"p521": {p521, "* OK ready\r\n", "refuses SSL 2.0, SSL 3.0, TLS 1.0 and 1.1: tls1.2-aead", 1},
	} {
		t.Run(name, func(t *testing.T) {
			l := ask(t, serve(t, c.config, c.says), posterntest.DefaultNames[0], Options{Floor: policy.FloorTLS12})
			if l.Summary != c.summary || len(l.Chains) != c.certified {
				t.Errorf("%q with %d certificates, want %q with %d", l.Summary, len(l.Chains), c.summary, c.certified)
			}
			if problem := l.Chains[0].Problem; !strings.HasPrefix(problem, "the certificate of its issuer is not sent: ") {
				t.Errorf("the chain's problem is %q", problem)
			}
		})
	}
}

// TestWhatNoLibraryShows has results that servers of crypto/tls do not give.
func TestWhatNoLibraryShows(t *testing.T) {
	yes := true
	result := func(o offer, r Result) Result { r.offer = o; return r }
	of12, of13, unsigned, unnamed := offers()[1], offers()[0], offers()[12], offers()[15]
	sound := result(of13, Result{Taken: true, reaches: policy.Floors[:4]})
	for want, l := range map[string]*Listener{
		"does not heed the signal of a fallback to TLS 1.2: tls1.3": {Results: []Result{sound, result(offer{Offer: fallback, title: "fallback to TLS 1.2"}, Result{Taken: true})}},
		"does not answer TLS 1.2: tls1.3":                           {Results: []Result{sound, result(of12, Result{Unknown: true})}},
		"leaves no time for TLS 1.2 (see -timeout): tls1.3 at most": {Results: []Result{sound, result(of12, Result{Unknown: true, Answer: noTime})}, Incomplete: true},
		"offers login before TLS; obeys inside TLS a command that came before it: tls1.3": {
			Results: []Result{sound}, Login: &yes, Injected: &yes},
		"takes hellos without signature algorithms and hellos without a server name: below every floor": {
			Results: []Result{sound, result(unsigned, Result{Taken: true}), result(unnamed, Result{Taken: true})}},
		"takes TLS 1.2: below every floor": {Results: []Result{sound, result(of12, Result{Taken: true})}},
	} {
		if l.conclude(policy.FloorTLS12); l.Summary != want {
			t.Errorf("%q, want %q", l.Summary, want)
		}
	}
}

// TestSSL2IsTakenWhereACipherKindIsShared plays the one kind of server that no library
// has any more; it refuses all else.
func TestSSL2IsTakenWhereACipherKindIsShared(t *testing.T) {
	for kinds, want := range map[string]string{
		"\x00\x03": "refuses SSL 3.0, TLS 1.0, 1.1, 1.2 and 1.3; takes SSL 2.0: below every floor",
		"\x00\x00": "refuses SSL 2.0, SSL 3.0, TLS 1.0, 1.1, 1.2 and 1.3, and takes no version",
	} {
		addr := posterntest.StartRawUpstream(t, func(c net.Conn) {
			b := make([]byte, 1000)
			if c.Read(b); b[0]&0x80 != 0 {
				io.WriteString(c, "\x80\x0b\x04\x00\x01\x00\x02\x00\x00"+kinds+"\x00\x00")
			} else {
				io.WriteString(c, "\x15\x03\x00\x00\x02\x02\x28")
			}
		}).Addr()
		if l := ask(t, addr, "", Options{}); l.Summary != want {
			t.Errorf("%q, want %q", l.Summary, want)
		}
	}
}

// TestACommandBeforeTLSIsSeenInside plays a server that keeps what it has read.
func TestACommandBeforeTLSIsSeenInside(t *testing.T) {
	ca := posterntest.NewCA(t)
	config := &tls.Config{Certificates: []tls.Certificate{pair(t, ca, posterntest.ECDSA)}}
	for startTLS, lines := range map[string][]string{
		"imap": {"* OK ready\r\n", "* CAPABILITY STARTTLS LOGINDISABLED\r\npostern OK done\r\n", "postern OK go on\r\n"},
		"pop3": {"+OK ready\r\n", "+OK list\r\nSTLS\r\n.\r\n", "+OK go on\r\n"},
	} {
		for _, keeps := range []bool{false, true} {
			u := posterntest.StartRawUpstream(t, func(c net.Conn) {
				io.WriteString(c, lines[0])
				for {
					b := make([]byte, 1000)
					n, err := c.Read(b)
					said := string(b[:n])
					switch {
					case err != nil:
						return
					case strings.Contains(said, "CAPA"):
						io.WriteString(c, lines[1])
					case strings.Contains(said, "STARTTLS"), strings.Contains(said, "STLS"):
						io.WriteString(c, lines[2])
						tc := tls.Server(c, config)
						if tc.Handshake() == nil && keeps && strings.Contains(said, "NOOP") {
							io.WriteString(tc, "injected OK\r\n")
						}
						tc.Read(make([]byte, 1000))
						return
					default: // LOGOUT or QUIT
						return
					}
				}
			})
			l := ask(t, u.Addr(), "", Options{StartTLS: startTLS, Injection: true})
			if l.Error != "" || l.Injected == nil || *l.Injected != keeps || *l.Login {
				t.Errorf("%s, keeps %v: injected %v, login %v, %s", startTLS, keeps, l.Injected, l.Login, l.Summary)
			}
			if l = ask(t, u.Addr(), "", Options{StartTLS: startTLS}); l.Injected != nil {
				t.Errorf("%s: asked by nobody, it tells of an injection", startTLS)
			}
		}
	}
}

func TestTargets(t *testing.T) {
	name := func(all []*Listener) (names []string) {
		for _, l := range all {
			names = append(names, l.name+l.Error)
		}
		return names
	}
	for target, want := range map[string]string{
		"192.0.2.1":           "192.0.2.1:993 imaps 192.0.2.1:995 pop3s 192.0.2.1:143 imap 192.0.2.1:110 pop3",
		"2001:db8::1":         "[2001:db8::1]:993 imaps [2001:db8::1]:995 pop3s [2001:db8::1]:143 imap [2001:db8::1]:110 pop3",
		"192.0.2.1:993":       "192.0.2.1:993 imaps",
		"192.0.2.1:10143":     "192.0.2.1:10143 pop3",
		"[2001:db8::1]:10143": "[2001:db8::1]:10143 pop3",
		"::ffff:192.0.2.1":    "192.0.2.1:993 imaps 192.0.2.1:995 pop3s 192.0.2.1:143 imap 192.0.2.1:110 pop3",
	} {
		all, err := Listeners(t.Context(), []string{target}, Options{StartTLS: "pop3"})
		if got := strings.Join(name(all), " "); err != nil || got != want {
			t.Errorf("%s: %s, %v, want %s", target, got, err, want)
		}
	}
	for _, target := range []string{"", "a:b:c", "host:0", "host:65536", "host:imaps", "imaps://host", "[::1", "two words"} {
		if all, err := Listeners(t.Context(), []string{target}, Options{}); err == nil {
			t.Errorf("%q is %v", target, name(all))
		}
	}
}

// TestNoMoreThanFourConnectionsToAHost counts them.
func TestNoMoreThanFourConnectionsToAHost(t *testing.T) {
	var mu sync.Mutex
	var open, most int
	serve := func(c net.Conn) {
		change := func(by int) {
			mu.Lock()
			defer mu.Unlock()
			open += by
			most = max(most, open)
		}
		change(1)
		time.Sleep(5 * time.Millisecond)
		change(-1) // before the client can see the end
		io.WriteString(c, "* BYE\r\n")
	}
	var targets []string
	for range 12 {
		targets = append(targets, posterntest.StartRawUpstream(t, serve).Addr())
	}
	o := Options{StartTLS: "imap", Timeout: 20 * time.Second}
	all, err := Listeners(t.Context(), targets, o)
	if err != nil {
		t.Fatal(err)
	}
	told := 0
	Run(context.Background(), all, o, func(done int) { told = max(told, done) })
	mu.Lock()
	defer mu.Unlock()
	if most > 4 || most < 2 || told != len(all) {
		t.Errorf("%d connections at once, %d of %d listeners told", most, told, len(all))
	}
}

// FuzzAnswers has a server answer every connection with the same bytes.
func FuzzAnswers(f *testing.F) {
	for _, seed := range []string{
		"", "* OK ready\r\n* CAPABILITY IMAP4rev1 STARTTLS ID\r\npostern OK done\r\n* ID NIL\r\npostern OK done\r\npostern OK done\r\n",
		"+OK ready\r\n+OK\r\nSTLS\r\n.\r\n+OK bye\r\n", "* BYE go\r\n", "-ERR go\r\n", "* OK ready\r\n* BYE {9}\r\n",
		"\x15\x03\x01\x00\x02\x02\x46", "\x80\x0b\x04\x00\x01\x00\x02\x00\x00\x00\x03\x00\x00",
		"\x16\x03\x03\x00\x2a\x02\x00\x00\x26\x03\x03" + strings.Repeat("r", 32) + "\x00\xc0\x2f\x00\x16\x03\x03\x00\x04\x0e\x00\x00\x00",
		"\x16\x03\x03\x00\x32\x02\x00\x00\x2e\x03\x03" + strings.Repeat("r", 32) + "\x00\x13\x01\x00\x00\x06\x00\x33\x00\x02\x0a\x0a",
	} {
		f.Add([]byte(seed))
	}
	var answer atomic.Pointer[[]byte]
	u := posterntest.StartRawUpstream(f, func(c net.Conn) {
		c.Write(*answer.Load())
		c.(interface{ CloseWrite() error }).CloseWrite()
		io.Copy(io.Discard, c)
	})
	f.Fuzz(func(t *testing.T, b []byte) {
		answer.Store(&b)
		for _, startTLS := range []string{"", "imap", "pop3"} {
			var l *Listener
			posterntest.Within(t, fmt.Sprintf("probing %q", b), 3*time.Second, func() time.Duration {
				begun := time.Now()
				l = ask(t, u.Addr(), "", Options{StartTLS: startTLS, Timeout: 2 * time.Second})
				return time.Since(begun)
			})
			if l.Summary == "" || strings.ContainsFunc(l.Summary, func(r rune) bool { return r < ' ' || r == 0x7f }) {
				t.Errorf("%q is %q", b, l.Summary)
			}
			var out strings.Builder
			if err := Write(&out, false, []*Listener{l}, policy.FloorTLS12); err != nil {
				t.Error(err)
			}
		}
	})
}
