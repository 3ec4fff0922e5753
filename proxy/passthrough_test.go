package proxy

import (
	"bufio"
	"bytes"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/pires/go-proxyproto"
	"go.uber.org/goleak"

	"postern/internal/hello"
	"postern/internal/posterntest"
	"postern/policy"
)

// serverHello is how an old server's answer begins, or all of it that the proxy
// looks at.
const serverHello = "\x16\x03\x00\x00\x04\x0e\x00\x00\x00"

// dhe is what a client offers that knows no key exchange but DHE.
func dhe(version uint16) hello.Spec {
	s := hello.Typical(version)
	s.CipherSuites = []uint16{0x0033, 0x0039, 0x009e}
	s.ServerName = "old.example.org"
	return s
}

// unserved are hellos that crypto/tls cannot serve.
func unserved() map[string][]byte {
	return map[string][]byte{
		"SSL 2.0":                     hello.SSLv2(),
		"SSLv2-compatible, SSL 3.0":   posterntest.SSLv2Offering(0x0300),
		"SSLv2-compatible, TLS 1.0":   posterntest.SSLv2Offering(0x0301),
		"SSLv2-compatible, TLS 1.2":   posterntest.SSLv2Offering(0x0303),
		"SSLv2-compatible, 300 bytes": posterntest.SSLv2Large(0x0301),
		"SSL 3.0":                     hello.ClientHello(hello.Typical(0x0300)),
		"SSL 3.0, cut":                posterntest.Fragment(hello.ClientHello(hello.Typical(0x0300)), 7),
		"TLS 1.0, DHE":                hello.ClientHello(dhe(tls.VersionTLS10)),
		"TLS 1.2, DHE":                hello.ClientHello(dhe(tls.VersionTLS12)),
	}
}

// unservedToo are the other rows of the table in docs/behaviour.md.
func unservedToo() map[string][]byte {
	all := make(map[string][]byte)
	for name, suites := range map[string][]uint16{
		"EDH-3DES": {0x0016}, "DES": {0x0009, 0xc000}, "RC4-MD5": {0x0004}, "Camellia": {0x0041, 0x0084}, "SEED, IDEA": {0x0096, 0x0007},
		"anonymous": {0x0034, 0xc018}, "PSK": {0x008c}, "NULL": {0x0002, 0xc010}, "export": {0x0003, 0x0014},
		"AES-256-SHA384, SHA256": {0xc028, 0x003d}, "CCM": {0xc09c, 0xc0ac}, "ARIA": {0xc060, 0xc050},
	} {
		for version, label := range map[uint16]string{tls.VersionTLS10: "TLS 1.0, ", tls.VersionTLS12: "TLS 1.2, "} {
			s := hello.Typical(version)
			s.CipherSuites = suites
			all[label+name] = hello.ClientHello(s)
		}
	}
	sha1 := hello.Typical(tls.VersionTLS12)
	sha1.CipherSuites, sha1.SignatureSchemes = []uint16{0xc013, 0x0033}, []tls.SignatureScheme{tls.PKCS1WithSHA1, tls.ECDSAWithSHA1}
	all["TLS 1.2, ECDHE with SHA-1 signatures"] = hello.ClientHello(sha1)
	group := hello.Typical(tls.VersionTLS12)
	group.CipherSuites, group.Groups = []uint16{0xc02f}, []tls.CurveID{21, 22, 26, 30} // secp224r1, secp256k1, Brainpool, X448
	all["TLS 1.2, other groups"] = hello.ClientHello(group)
	return all
}

// startPassing starts a proxy whose clients may be passed through to old, over
// imaps and pop3s. The upstreams are for nobody else.
func startPassing(t *testing.T, mode policy.Mode, old string, change func(*Config)) *Proxy {
	t.Helper()
	imap, pop3 := stubs(t)
	return StartProxy(t, mode, imap.Addr(), pop3.Addr(), func(c *Config) {
		c.Passthrough = map[Listener]string{IMAPS: old, POP3S: old}
		if change != nil {
			change(c)
		}
	})
}

// echoing answers a hello of that length, says back what follows, and closes
// once the client has closed its side.
func echoing(length int) func(net.Conn) {
	return func(c net.Conn) {
		if _, err := io.ReadFull(c, make([]byte, length)); err == nil {
			io.WriteString(c, serverHello)
			io.Copy(c, c)
		}
	}
}

// noLeak fails the test where a goroutine is left at its very end.
func noLeak(t *testing.T) {
	current := goleak.IgnoreCurrent()
	t.Cleanup(func() {
		for end := time.Now().Add(time.Minute); goleak.Find(current) != nil && time.Now().Before(end); {
		}
		goleak.VerifyNone(t, current)
	})
}

func TestAClientThatGoCannotServeIsPassedThroughUntouched(t *testing.T) {
	noLeak(t)
	more := make([]byte, 500<<10)
	rand.Read(more)
	for name, first := range unserved() {
		t.Run(name, func(t *testing.T) {
			const behind = "pipelined"
			old := posterntest.StartRawUpstream(t, echoing(len(first)))
			g := startPassing(t, policy.Observe, old.Addr(), nil)
			for i, l := range []Listener{IMAPS, POP3S, IMAPS} {
				c := g.Dial(t, l)
				flight := append(bytes.Clone(first), behind...)
				if i == 2 { // a byte a segment
					for _, b := range flight {
						c.Write([]byte{b})
					}
				} else {
					c.Write(flight)
				}
				if _, err := io.ReadFull(c, make([]byte, len(serverHello))); err != nil {
					t.Fatalf("%s: the answer: %v", l, err)
				}
				go func() {
					c.Write(more)
					c.CloseWrite()
				}()
				if got, err := io.ReadAll(c); err != nil || !bytes.Equal(got, append([]byte(behind), more...)) {
					t.Errorf("%s: %d bytes came back, %v, want %d", l, len(got), err, len(behind)+len(more))
				}
				sent := append(flight, more...)
				if got := old.Received(i); !bytes.Equal(got, sent) {
					t.Errorf("%s: the old server received %d bytes, want %d; first difference at %d", l, len(got), len(sent), difference(got, sent))
				}
				h := g.WaitHandshake(t, i+1)
				if h.Outcome != Observed || !h.Verdict.PassThrough || h.Version != policy.NoVersion || h.Hello == nil || h.Key != KeyNone {
					t.Errorf("%s: %+v", l, h)
				}
				end := g.WaitClosed(t, i+1)
				if got := strings.Join(g.Events(end.ID), " "); got != "handshake closed" || end.Reason != ReasonClient && end.Reason != ReasonUpstream {
					t.Errorf("%s: events %q, %s", l, got, end.Reason)
				}
				if end.ToUpstream != int64(len(sent)) || end.ToClient != int64(len(serverHello)+len(behind)+len(more)) {
					t.Errorf("%s: counted %d to the old server, %d to the client", l, end.ToUpstream, end.ToClient)
				}
			}
			if len(g.relayed) > 0 || len(g.failures) > 0 {
				t.Errorf("counted as application data %v, as failures %v", g.relayed, g.failures)
			}
		})
	}
}

// Each row of the table in docs/behaviour.md: what it is counted as, and what it meets.
func TestWhatGoCannotServe(t *testing.T) {
	old := posterntest.StartRawUpstream(t, func(c net.Conn) {
		c.Read(make([]byte, 1))
		io.WriteString(c, serverHello)
	})
	for _, mode := range policy.Modes {
		for _, passed := range []bool{false, true} {
			g := startPassing(t, mode, old.Addr(), func(c *Config) {
				if !passed {
					c.Passthrough = nil
				}
			})
			n := 0
			for _, all := range []map[string][]byte{unserved(), unservedToo()} {
				for name, flight := range all {
					n++
					outcome, reason := Rejected, policy.ReasonVersion
					if strings.HasPrefix(name, "TLS 1.2") {
						reason = policy.ReasonCipher
					} else if name == "SSLv2-compatible, TLS 1.2" {
						reason = policy.ReasonSSL2Hello
					}
					if passed && mode == policy.Observe {
						outcome = Observed
						c := g.Dial(t, POP3S)
						c.Write(flight)
						if got, err := io.ReadAll(c); string(got) != serverHello {
							t.Errorf("%s in %s: told % x, %v", name, mode, got, err)
						}
						c.Close()
					} else {
						expectRefused(t, g, POP3S, name+" in "+mode.String(), flight, refusal(name))
					}
					if h := g.WaitHandshake(t, n); h.Outcome != outcome || h.Verdict.Reason != reason || h.Hello == nil {
						t.Errorf("%s in %s: %s for %q, want %s for %q", name, mode, h.Outcome, h.Verdict.Reason, outcome, reason)
					}
				}
			}
		}
	}
}

func TestAnAlertOfTheOldServerIsDelivered(t *testing.T) {
	for name, tt := range map[string]struct{ hello, answer []byte }{
		"SSL 3.0": {hello.ClientHello(hello.Typical(0x0300)), []byte("\x15\x03\x00\x00\x02\x02\x28")},
		"SSL 2.0": {hello.SSLv2(), []byte("\x80\x03\x00\x00\x01")},
	} {
		old := posterntest.StartRawUpstream(t, func(c net.Conn) {
			io.ReadFull(c, make([]byte, len(tt.hello)))
			c.Write(tt.answer)
		})
		g := startPassing(t, policy.Observe, old.Addr(), nil)
		c := g.Dial(t, POP3S)
		c.Write(tt.hello)
		if got, err := io.ReadAll(c); err != nil || !bytes.Equal(got, tt.answer) {
			t.Errorf("%s: the client was told % x, %v", name, got, err)
		}
		c.Close()
		if h := g.WaitHandshake(t, 1); h.Outcome != Failed || h.Failure != FailOther || !h.Verdict.Legacy() {
			t.Errorf("%s: %s, %s", name, h.Outcome, h.Failure)
		}
		if end := g.WaitClosed(t, 1); strings.Join(g.Events(end.ID), " ") != "handshake closed" {
			t.Errorf("%s: events %q", name, g.Events(end.ID))
		}
	}
}

// refusal is the alert for a hello in enforce.
func refusal(name string) tls.AlertError {
	if strings.HasPrefix(name, "TLS 1.2") {
		return alertHandshakeFailure
	}
	return alertProtocolVersion
}

// expectRefused sends a hello and wants an alert, and nothing else.
func expectRefused(t *testing.T, g *Proxy, l Listener, what string, flight []byte, want tls.AlertError) {
	t.Helper()
	c := g.Dial(t, l)
	c.Write(flight)
	got, err := io.ReadAll(c)
	if err != nil || !isAlert(got) || tls.AlertError(got[6]) != want {
		t.Errorf("%s: the client was told % x, %v, want alert %d", what, got, err, want)
	}
	c.Close()
}

func TestWithoutTheOldServerAClientIsRefusedAsInEnforce(t *testing.T) {
	noLeak(t)
	for name, tt := range map[string]struct {
		serve  func(net.Conn)
		reason UpstreamFailure
	}{
		"down":           {nil, UpstreamDial},
		"hangs up":       {func(net.Conn) {}, UpstreamClosed},
		"is silent":      {func(c net.Conn) { io.Copy(io.Discard, c) }, UpstreamTimeout},
		"begins, stops":  {func(c net.Conn) { io.WriteString(c, serverHello[:2]); io.Copy(io.Discard, c) }, UpstreamTimeout},
		"has no TLS":     {func(c net.Conn) { io.WriteString(c, "* OK ready\r\n"); io.Copy(io.Discard, c) }, UpstreamTLS},
		"has nothing so": {func(c net.Conn) { io.WriteString(c, "\x80\x03\x09\x00\x01"); io.Copy(io.Discard, c) }, UpstreamTLS},
	} {
		t.Run(name, func(t *testing.T) {
			old := posterntest.StartRawUpstream(t, tt.serve)
			if tt.serve == nil {
				old.Close()
			}
			g := startPassing(t, policy.Observe, old.Addr(), func(c *Config) {
				if tt.reason == UpstreamTimeout {
					c.UpstreamTimeout = 300 * time.Millisecond
				}
			})
			n := 0
			for what, flight := range unserved() {
				posterntest.Within(t, what+": the refusal", 3*time.Second, func() time.Duration {
					n++
					begun := time.Now()
					expectRefused(t, g, IMAPS, what, flight, refusal(what))
					took := time.Since(begun)
					if h := g.WaitHandshake(t, n); h.Outcome != Rejected || h.Failure != NoFailure {
						t.Errorf("%s: %s, %s", what, h.Outcome, h.Failure)
					}
					return took
				})
				if end := g.WaitClosed(t, n); strings.Join(g.Events(end.ID), " ") != "handshake closed" || end.ToUpstream+end.ToClient != 0 {
					t.Errorf("%s: %q, %+v", what, g.Events(end.ID), end)
				}
			}
			if g.failures[tt.reason] != n || len(g.failures) != 1 {
				t.Errorf("failures %v, want %d of %s", g.failures, n, tt.reason)
			}
		})
	}
}

// Invariant 3, with an old server that clients are passed through to.
func TestNoOtherClientIsPassedThrough(t *testing.T) {
	old := posterntest.StartRawUpstream(t, func(c net.Conn) {
		io.WriteString(c, serverHello)
		io.Copy(io.Discard, c)
	})
	observing := startPassing(t, policy.Observe, old.Addr(), nil)
	for mode, g := range map[policy.Mode]*Proxy{
		policy.Enforce: startPassing(t, policy.Enforce, old.Addr(), nil),
		policy.Explain: startPassing(t, policy.Explain, old.Addr(), nil),
	} {
		for what, flight := range unserved() {
			expectRefused(t, g, IMAPS, mode.String()+" "+what, flight, refusal(what))
		}
	}
	fallback := dhe(tls.VersionTLS10)
	fallback.CipherSuites = append(fallback.CipherSuites, tls.TLS_FALLBACK_SCSV)
	expectRefused(t, observing, IMAPS, "falls back", hello.ClientHello(fallback), alertProtocolVersion)
	without := startPassing(t, policy.Observe, old.Addr(), func(c *Config) { delete(c.Passthrough, POP3S) })
	for what, flight := range unserved() {
		expectRefused(t, without, POP3S, "no old server for the listener, "+what, flight, refusal(what))
	}
	// Whoever can be served is served here.
	for i, config := range []*tls.Config{observing.oldClient(), observing.ClientConfig()} {
		c := tls.Client(observing.Dial(t, IMAPS), config)
		if err := c.Handshake(); err != nil {
			t.Fatal(err)
		}
		if h := observing.WaitHandshake(t, i+2); h.Version == policy.NoVersion {
			t.Errorf("not served here: %+v", h)
		}
		c.Close()
	}
	// On a STARTTLS port nobody would know that the old server is to begin TLS.
	c := observing.Dial(t, IMAP)
	beginTLS(t, c, IMAP)
	c.Write(hello.ClientHello(hello.Typical(0x0300)))
	if got, err := io.ReadAll(c); err != nil || !isAlert(got) {
		t.Errorf("imap: % x, %v", got, err)
	}
	if n := old.Connections(); n != 0 {
		t.Errorf("the old server was dialled %d times", n)
	}
}

// A hello may be cut into records at any place; what is kept of it is bounded.
func TestAHelloThatTakesTooManyBytesIsNotPassedThrough(t *testing.T) {
	spec := hello.Typical(0x0300)
	spec.NoExtensions = false
	spec.Extra = []hello.Extension{{Type: 0xfff0, Data: make([]byte, 60<<10)}}
	long := hello.ClientHello(spec)
	old := posterntest.StartRawUpstream(t, func(c net.Conn) {
		io.ReadFull(c, make([]byte, len(long)))
		io.WriteString(c, serverHello)
	})
	g := startPassing(t, policy.Observe, old.Addr(), nil)
	c := g.Dial(t, IMAPS)
	c.Write(long)
	if got, err := io.ReadAll(c); err != nil || string(got) != serverHello || !bytes.Equal(old.Received(0), long) {
		t.Errorf("%d bytes of a hello: told % x, %v", len(long), got, err)
	}
	cut := posterntest.Fragment(long, 4)
	if len(cut) <= maxRecorded {
		t.Fatalf("%d bytes are not too many", len(cut))
	}
	c = g.Dial(t, IMAPS)
	go c.Write(cut)
	if got, _ := io.ReadAll(c); !isAlert(got) || tls.AlertError(got[6]) != alertProtocolVersion {
		t.Errorf("%d bytes of a hello: told % x", len(cut), got)
	}
	if h := g.WaitHandshake(t, 2); h.Outcome != Rejected {
		t.Errorf("%s, %s", h.Outcome, h.Failure)
	}
	if n := old.Connections(); n != 1 {
		t.Errorf("the old server was dialled %d times, want once", n)
	}
}

func TestAPassedThroughClientEndsAfterTheIdleTime(t *testing.T) {
	noLeak(t)
	first := hello.SSLv2()
	old := posterntest.StartRawUpstream(t, echoing(len(first)))
	const idle = 1500 * time.Millisecond
	g := startPassing(t, policy.Observe, old.Addr(), func(c *Config) { c.TimeoutIdle = idle })
	tries := 0
	posterntest.Within(t, "the session", 5*time.Second, func() time.Duration {
		c := g.Dial(t, IMAPS)
		c.Write(first)
		if got, err := io.ReadAll(c); err != nil || string(got) != serverHello {
			t.Errorf("the client was told % x, %v", got, err)
		}
		tries++
		end := g.WaitClosed(t, tries)
		if end.Reason != ReasonTimeout || end.Duration < idle {
			t.Errorf("%s after %v", end.Reason, end.Duration)
		}
		return end.Duration
	})
}

func TestAnOldServerThatLeavesEndsAPassedThroughClient(t *testing.T) {
	old := posterntest.StartRawUpstream(t, func(c net.Conn) { io.WriteString(c, serverHello+"the rest") })
	g := startPassing(t, policy.Observe, old.Addr(), nil)
	c := g.Dial(t, POP3S)
	c.Write(hello.ClientHello(hello.Typical(0x0300)))
	if got, err := io.ReadAll(c); err != nil && !errors.Is(err, net.ErrClosed) || string(got) != serverHello+"the rest" {
		t.Errorf("the client was told %q, %v", got, err)
	}
	c.Close()
	if end := g.WaitClosed(t, 1); end.Reason != ReasonUpstream {
		t.Errorf("the connection ended for %s", end.Reason)
	}
}

func TestAPassedThroughClientDrainsLikeOneThatHasLoggedIn(t *testing.T) {
	noLeak(t)
	first := hello.ClientHello(hello.Typical(0x0300))
	old := posterntest.StartRawUpstream(t, echoing(len(first)))
	const drain = 8 * time.Second
	g := startPassing(t, policy.Observe, old.Addr(), func(c *Config) { c.TimeoutDrain = drain })
	c := g.Dial(t, IMAPS)
	c.Write(first)
	answer := make([]byte, len(serverHello))
	if _, err := io.ReadFull(c, answer); err != nil {
		t.Fatal(err)
	}
	begun := time.Now()
	stopped := shutDown(t, g)
	time.Sleep(50 * time.Millisecond)
	io.WriteString(c, "fetch")
	if _, err := io.ReadFull(c, answer[:5]); err != nil || string(answer[:5]) != "fetch" {
		t.Fatalf("a session that goes on during the drain: %q, %v", answer[:5], err)
	}
	if rest, err := io.ReadAll(c); err != nil || len(rest) > 0 {
		t.Errorf("it ended with %q, %v", rest, err)
	}
	if took := time.Since(begun); took < drain/2-50*time.Millisecond || took > drain-200*time.Millisecond {
		t.Errorf("an idle session was closed after %v of a drain of %v, want amid the second half", took, drain)
	}
	<-stopped
	if end := g.WaitClosed(t, 1); strings.Join(g.Events(end.ID), " ") != "handshake closed" {
		t.Errorf("events %q", g.Events(end.ID))
	}
}

func TestShutdownDoesNotWaitForAnOldServer(t *testing.T) {
	noLeak(t)
	old := posterntest.StartRawUpstream(t, func(c net.Conn) { io.Copy(io.Discard, c) })
	posterntest.Within(t, "the shutdown", time.Second, func() time.Duration {
		before := old.Connections()
		g := startPassing(t, policy.Observe, old.Addr(), func(c *Config) { c.UpstreamTimeout, c.TimeoutDrain = time.Minute, time.Minute })
		for _, first := range [][]byte{hello.SSLv2(), hello.ClientHello(hello.Typical(0x0300))} {
			g.Dial(t, IMAPS).Write(first)
		}
		for old.Connections() < before+2 {
			time.Sleep(time.Millisecond)
		}
		begun := time.Now()
		<-shutDown(t, g)
		took := time.Since(begun)
		for i := range 2 {
			if h := g.WaitHandshake(t, i+1); h.Outcome != Failed || h.Failure != FailShutdown {
				t.Errorf("%s, %s", h.Outcome, h.Failure)
			}
		}
		if len(g.failures) > 0 {
			t.Errorf("counted as failures of the old server: %v", g.failures)
		}
		return took
	})
}

func TestTheOldServerIsToldOfTheClientAndNotOfTLS(t *testing.T) {
	type told struct {
		header *proxyproto.Header
		next   []byte
	}
	for _, version := range []int{1, 2} {
		heard := make(chan told, 1)
		old := posterntest.StartRawUpstream(t, func(c net.Conn) {
			in := bufio.NewReader(c)
			h, err := proxyproto.Read(in)
			if err != nil {
				t.Errorf("version %d: %v", version, err)
				return
			}
			in.Peek(1)
			next, _ := in.Peek(in.Buffered())
			heard <- told{h, next}
			io.WriteString(c, serverHello)
		})
		g := startPassing(t, policy.Observe, old.Addr(), func(c *Config) { c.UpstreamProxyProtocol = version })
		for name, flight := range unserved() {
			c := g.Dial(t, IMAPS)
			c.Write(flight)
			io.Copy(io.Discard, c)
			got := <-heard
			if int(got.header.Version) != version || !got.header.Command.IsProxy() || !bytes.Equal(got.next, flight) {
				t.Errorf("%s: version %d: %+v, then %d bytes, want %d", name, version, got.header, len(got.next), len(flight))
			}
			if src, dst := got.header.SourceAddr.String(), got.header.DestinationAddr.String(); src != c.LocalAddr().String() || dst != g.Addr(IMAPS) {
				t.Errorf("%s: from %s to %s", name, src, dst)
			}
			tlvs, err := got.header.TLVs()
			if err != nil {
				t.Fatal(err)
			}
			want := ""
			if version == 2 && strings.HasSuffix(name, "DHE") {
				want = "old.example.org"
			}
			authority := ""
			for _, tlv := range tlvs {
				if tlv.Type != proxyproto.PP2_TYPE_AUTHORITY {
					t.Errorf("%s: a TLV of type %#x", name, tlv.Type)
				}
				authority = string(tlv.Value)
			}
			if authority != want {
				t.Errorf("%s: authority %q, want %q", name, authority, want)
			}
			c.Close()
		}
	}
}

func TestAnswersOfAnOldServer(t *testing.T) {
	for answer, want := range map[string]struct{ alert, ok, ssl2 bool }{
		"\x16\x03\x00":      {false, true, false},
		"\x15\x03\x03":      {true, true, false},
		"\x16\x02\x00":      {false, false, false},
		"\x17\x03\x00":      {false, false, false},
		"* O":               {false, false, false},
		"+OK":               {false, false, false},
		"\x85\x01\x04":      {false, false, false},
		"\x85\x01\x04\x00":  {false, true, true},
		"\x80\x03\x00\x00":  {true, true, true},
		"\x80\x03\x01\x00":  {false, false, true},
		"\x15\x03\x00\x00":  {true, true, true},
		"\x16\x03\x01\x00a": {false, true, true},
	} {
		alert, ok := judgeAnswer([]byte(answer), want.ssl2)
		if ok != want.ok || ok && alert != want.alert {
			t.Errorf("% x: alert %v, ok %v, want %+v", answer, alert, ok, want)
		}
	}
}

// A rule may have clients go to the old server that could be served here. Where there is
// none, or it does not answer, they are served here.
func TestARuleMayPassThroughWhoeverItTakes(t *testing.T) {
	noLeak(t)
	flight := hello.ClientHello(hello.Typical(tls.VersionTLS10))
	old := posterntest.StartRawUpstream(t, echoing(len(flight)))
	dead := posterntest.StartRawUpstream(t, nil)
	dead.Close()
	for addr, passed := range map[string]bool{old.Addr(): true, dead.Addr(): false, "": false} {
		g := startPassing(t, policy.Observe, addr, func(c *Config) {
			if addr == "" {
				c.Passthrough = nil
			}
			c.Policy = parsePolicy(t, "rules: [{name: devices, mode: observe, pass_through: always, match: {version: [tls1.0]}}]")
		})
		for i, l := range []Listener{IMAPS, POP3S, IMAP} {
			c := g.Dial(t, l)
			if l == IMAP {
				beginTLS(t, c, l)
			}
			c.Write(flight)
			answer := make([]byte, len(serverHello))
			if _, err := io.ReadFull(c, answer); err != nil || (string(answer) == serverHello) != (passed && l != IMAP) || answer[0] != recordHandshake {
				t.Errorf("%s, passed %v: answered % x, %v", l, passed, answer, err)
			}
			c.Close()
			h := g.WaitHandshake(t, i+1)
			if here := h.Verdict.Serve == policy.Observe; !here || h.Verdict.Rule != "devices" || passed && l != IMAP && (h.Outcome != Observed || h.Version != policy.NoVersion) {
				t.Errorf("%s, passed %v: %s, %+v", l, passed, h.Outcome, h.Verdict)
			}
		}
		modern := g.TLS(t, IMAPS)
		modern.ExpectLine(t, "* OK")
	}
	if n := old.Connections(); n != 2 {
		t.Errorf("the old server was dialled %d times, want twice", n)
	}
}
