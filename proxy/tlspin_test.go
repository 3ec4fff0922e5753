package proxy

import (
	"bytes"
	"crypto/rand"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"io"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"postern/internal/certs"
	"postern/internal/hello"
	"postern/internal/netpoll"
	"postern/internal/posterntest"
	"postern/policy"
)

// What the proxy relies on in crypto/tls, and its documentation does not say.

// blinker is a connection that, once it blinks, hands out a few bytes at a
// time and would block in between.
type blinker struct {
	net.Conn
	blinks atomic.Bool
	reads  int
	most   int
}

func (c *blinker) Read(p []byte) (int, error) {
	if !c.blinks.Load() {
		return c.Conn.Read(p)
	}
	if c.reads++; c.reads%3 != 0 {
		return 0, netpoll.ErrWouldBlock
	}
	return c.Conn.Read(p[:min(len(p), 1+c.reads%c.most)])
}

// A read that would block in the middle of a record, or of its header, is
// taken up again without loss, while the other direction writes.
func TestWouldBlockIsNotRemembered(t *testing.T) {
	store := loadStore(t)
	for _, version := range []uint16{tls.VersionTLS10, tls.VersionTLS11, tls.VersionTLS12, tls.VersionTLS13} {
		for _, most := range []int{1, 2, 5, 7, 100, 5000} {
			blinkOnce(t, store, version, most)
		}
	}
}

func loadStore(t testing.TB) *certs.Store {
	t.Helper()
	ca := posterntest.NewCA(t)
	pair := ca.Issue(t, posterntest.DefaultNames, posterntest.RSA)
	store, err := certs.Load([]string{pair.CertFile}, []string{pair.KeyFile})
	if err != nil {
		t.Fatal(err)
	}
	return store
}

func blinkOnce(t *testing.T, store *certs.Store, version uint16, most int) {
	t.Helper()
	near, far := tcpPair(t)
	config := policy.LenientTLSConfig()
	config.GetCertificate = func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
		return store.Lookup("").Certificate(policy.RSA, time.Now()), nil
	}
	config.DynamicRecordSizingDisabled = true
	below := &blinker{Conn: near, most: most}
	server := tls.Server(below, config)
	client := tls.Client(far, &tls.Config{InsecureSkipVerify: true, MinVersion: version, MaxVersion: version, CipherSuites: hello.Typical(version).CipherSuites})
	shaken := make(chan error, 1)
	go func() { shaken <- server.Handshake() }()
	if err := errors.Join(client.Handshake(), <-shaken); err != nil {
		t.Fatal(err)
	}
	below.blinks.Store(true)

	up, down := make([]byte, 20000), make([]byte, 100000)
	rand.Read(up)
	rand.Read(down)
	go func() {
		for rest := up; len(rest) > 0; {
			n := min(len(rest), 1+len(rest)%3000)
			client.Write(rest[:n])
			rest = rest[n:]
		}
		client.CloseWrite()
	}()
	go server.Write(down)
	got := make(chan []byte, 1)
	go func() {
		b := make([]byte, len(down))
		n, _ := io.ReadFull(client, b)
		got <- b[:n]
	}()
	var read []byte
	blocked := 0
	for buf := make([]byte, 4096); ; {
		n, err := server.Read(buf)
		read = append(read, buf[:n]...)
		if err == netpoll.ErrWouldBlock {
			blocked++
			continue
		}
		if err != nil {
			if err != io.EOF {
				t.Fatalf("%#x, %d at a time: after %d bytes and %d blocks: %v", version, most, len(read), blocked, err)
			}
			break
		}
	}
	if !bytes.Equal(read, up) || blocked == 0 {
		t.Errorf("%#x, %d at a time: %d bytes of %d, blocked %d times", version, most, len(read), len(up), blocked)
	}
	if !bytes.Equal(<-got, down) {
		t.Errorf("%#x, %d at a time: what was written meanwhile is not what came", version, most)
	}
}

// tcpPair is a connection on loopback, from both ends.
func tcpPair(t testing.TB) (a, b *net.TCPConn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	d, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	for _, nc := range []net.Conn{c, d} {
		t.Cleanup(func() { nc.Close() })
		nc.SetDeadline(time.Now().Add(20 * time.Second))
	}
	return c.(*net.TCPConn), d.(*net.TCPConn)
}

// crypto/tls answers an SSLv2-compatible ClientHello itself, without asking the
// hook; of a large one it makes nothing at all.
func TestHookIsNotAskedForSSL2(t *testing.T) {
	for name, tt := range map[string]struct{ flight, answer []byte }{
		"SSL 2.0":         {hello.SSLv2(), []byte{21, 3, 1, 0, 2, 2, 70}},
		"offering TLS":    {posterntest.SSLv2Offering(tls.VersionTLS12), []byte{21, 3, 1, 0, 2, 2, 70}},
		"large, with TLS": {posterntest.SSLv2Large(tls.VersionTLS12), []byte{}},
	} {
		near, far := tcpPair(t)
		far.Write(tt.flight)
		far.CloseWrite()
		asked := false
		err := tls.Server(near, &tls.Config{GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
			asked = true
			return nil, nil
		}}).Handshake()
		near.CloseWrite()
		answer, _ := io.ReadAll(far)
		var header tls.RecordHeaderError
		if asked || !errors.As(err, &header) || !bytes.Equal(answer, tt.answer) {
			t.Errorf("%s: asked %v, error %v, answer % x", name, asked, err, answer)
		}
	}
}

func TestRefusalsOnTheWire(t *testing.T) {
	imap, _ := stubs(t)
	g := StartProxy(t, policy.Enforce, imap.Addr(), "", nil)
	with := func(version uint16, change func(*hello.Spec)) []byte {
		s := hello.Typical(version)
		if change != nil {
			change(&s)
		}
		return hello.ClientHello(s)
	}
	for i, tt := range []struct {
		name    string
		flight  []byte
		answer  string
		outcome Outcome
		failure Failure
		reason  policy.Reason
	}{
		{"SSL 2.0", hello.SSLv2(), "15030000020246", Rejected, NoFailure, policy.ReasonVersion},
		{"SSLv2-compatible, SSL 3.0", posterntest.SSLv2Offering(0x0300), "15030000020246", Rejected, NoFailure, policy.ReasonVersion},
		{"SSLv2-compatible, TLS 1.2", posterntest.SSLv2Offering(0x0303), "15030300020246", Rejected, NoFailure, policy.ReasonSSL2Hello},
		{"large, TLS 1.2", posterntest.SSLv2Large(0x0303), "15030300020246", Rejected, NoFailure, policy.ReasonSSL2Hello},
		{"SSL 3.0", with(0x0300, nil), "15030000020246", Rejected, NoFailure, policy.ReasonVersion},
		{"TLS 1.0", with(0x0301, nil), "15030100020246", Rejected, NoFailure, policy.ReasonVersion},
		{"TLS 1.1", with(0x0302, nil), "15030200020246", Rejected, NoFailure, policy.ReasonVersion},
		{"TLS 1.0 with SCSV", with(0x0301, func(s *hello.Spec) { s.CipherSuites = append(s.CipherSuites, tls.TLS_FALLBACK_SCSV) }),
			"15030100020246", Rejected, NoFailure, policy.ReasonFallback},
		{"DHE only", with(0x0303, func(s *hello.Spec) { s.CipherSuites = hello.DHE }), "15030300020228", Rejected, NoFailure, policy.ReasonCipher},
		{"RSA key exchange only", with(0x0303, func(s *hello.Spec) { s.CipherSuites = []uint16{tls.TLS_RSA_WITH_AES_128_CBC_SHA} }),
			"15030300020228", Rejected, NoFailure, policy.ReasonCipher},
		{"ALPN of the web", with(0x0303, func(s *hello.Spec) { s.Extra = []hello.Extension{{Type: 16, Data: posterntest.ALPN("h2")}} }), "15030300020278", Failed, FailALPN, policy.NotLegacy},
		{"SCSV without need", with(0x0303, func(s *hello.Spec) { s.CipherSuites = append(s.CipherSuites, tls.TLS_FALLBACK_SCSV) }),
			"15030300020256", Failed, FailFallback, policy.NotLegacy},
		{"a broken hello", append([]byte{22, 3, 1, 0, 5, 1, 0, 0, 1}, 9), "", Failed, FailMalformed, policy.NotLegacy},
		{"from the future", with(0x0303, func(s *hello.Spec) { s.SupportedVersions = []uint16{0x0305, 0x0306} }), "", Failed, FailOther, policy.NotLegacy},
	} {
		c := g.Dial(t, IMAPS)
		c.Write(tt.flight)
		c.CloseWrite()
		answer, err := io.ReadAll(c)
		h := g.WaitHandshake(t, i+1)
		if h.Outcome != tt.outcome || h.Failure != tt.failure || h.Verdict.Reason != tt.reason {
			t.Errorf("%s: %s, failure %q, reason %q", tt.name, h.Outcome, h.Failure, h.Verdict.Reason)
		}
		if got := hex.EncodeToString(answer); err != nil || tt.answer != "" && got != tt.answer || len(answer) != alertRecordLen {
			t.Errorf("%s: answered %s, %v, want %s", tt.name, got, err, tt.answer)
		}
	}
}
