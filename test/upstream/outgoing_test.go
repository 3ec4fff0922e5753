package upstream

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pires/go-proxyproto"
	"github.com/pires/go-proxyproto/tlvparse"

	"postern/internal/posterntest"
)

// headed is a small server that wants a PROXY header first.
type headed struct {
	*posterntest.Upstream
	mu      sync.Mutex
	headers []*proxyproto.Header
	broken  []error
}

// startHeaded starts one, behind TLS where config is not nil.
func startHeaded(t *testing.T, protocol string, config *tls.Config) *headed {
	t.Helper()
	u := new(headed)
	u.Upstream = posterntest.StartRawUpstream(t, func(c net.Conn) {
		in := bufio.NewReader(c)
		h, err := proxyproto.Read(in)
		u.mu.Lock()
		if err != nil {
			u.broken = append(u.broken, err)
		} else {
			u.headers = append(u.headers, h)
		}
		u.mu.Unlock()
		switch {
		case err != nil:
		case config != nil:
			converse(tls.Server(readFirst{c, in}, config), protocol)
		default:
			converse(struct {
				io.Reader
				io.Writer
			}{in, c}, protocol)
		}
	})
	return u
}

// readFirst reads what was read ahead, too.
type readFirst struct {
	net.Conn
	in io.Reader
}

func (c readFirst) Read(p []byte) (int, error) { return c.in.Read(p) }

// sent returns the headers so far, once there are n.
func (u *headed) sent(t *testing.T, n int) []*proxyproto.Header {
	t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for {
		u.mu.Lock()
		headers, broken := u.headers, u.broken
		u.mu.Unlock()
		if len(broken) > 0 {
			t.Fatalf("no header: %v", broken)
		}
		if len(headers) >= n {
			return headers
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d headers, want %d", len(headers), n)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// last is the header of the connection that has just been used.
func (u *headed) last(t *testing.T) *proxyproto.Header {
	t.Helper()
	headers := u.sent(t, 1)
	return headers[len(headers)-1]
}

func TestTheUpstreamIsToldTheClientsAddress(t *testing.T) {
	t.Parallel()
	for _, version := range []string{"v1", "v2"} {
		imap, pop3 := startHeaded(t, "imap", nil), startHeaded(t, "pop3", nil)
		g := posterntest.Start(t, map[string]string{
			"UPSTREAM_IMAP": imap.URL("imap"), "UPSTREAM_POP3": pop3.URL("pop3"), "UPSTREAM_PROXY_PROTOCOL": version,
		})
		upstreams := map[string]*headed{"imap": imap, "pop3": pop3}
		for _, u := range upstreams {
			// Courier takes no UNKNOWN, and some servers no LOCAL.
			h := u.sent(t, 1)[0]
			if !h.Command.IsProxy() || fmt.Sprintf("v%d", h.Version) != version || h.DestinationAddr.String() != u.Addr() {
				t.Errorf("%s: the probe's header is %+v, want its own addresses", version, h)
			}
		}
		for _, listener := range posterntest.Listeners {
			c, err := posterntest.Caller{From: "127.0.0.7"}.Login(g, listener, "anna", "password")
			if err != nil {
				t.Fatalf("%s %s: %v", version, listener, err)
			}
			h := upstreams[strings.TrimSuffix(listener, "s")].last(t)
			if fmt.Sprintf("v%d", h.Version) != version || !h.Command.IsProxy() || h.TransportProtocol != proxyproto.TCPv4 {
				t.Errorf("%s %s: %+v", version, listener, h)
			}
			if got, want := h.SourceAddr.String(), c.LocalAddr().String(); got != want {
				t.Errorf("%s %s: source %s, want %s", version, listener, got, want)
			}
			if got, want := h.DestinationAddr.String(), g.Addr(listener); got != want {
				t.Errorf("%s %s: destination %s, want %s", version, listener, got, want)
			}
			c.Close()
		}
	}
}

// facts are what a header says of the client's TLS.
type facts struct {
	version, cipher, name, authority string
	verified                         bool
	client                           uint8
}

func factsOf(t *testing.T, h *proxyproto.Header) (f facts) {
	t.Helper()
	tlvs, err := h.TLVs()
	if err != nil {
		t.Fatal(err)
	}
	ssl, ok := tlvparse.FindSSL(tlvs)
	if !ok {
		t.Fatalf("no SSL TLV among %v", tlvs)
	}
	f.version, _ = ssl.SSLVersion()
	f.cipher, _ = ssl.SSLCipher()
	f.name, _ = ssl.ClientCN()
	f.verified, f.client = ssl.Verified(), ssl.Client
	for _, tlv := range tlvs {
		if tlv.Type == proxyproto.PP2_TYPE_AUTHORITY {
			f.authority = string(tlv.Value)
		}
	}
	return f
}

func TestTheUpstreamIsToldHowTheClientIsSecured(t *testing.T) {
	t.Parallel()
	clientCA, ca := posterntest.NewCA(t), posterntest.NewCA(t)
	pair := ca.Issue(t, []string{"127.0.0.1"}, posterntest.ECDSA)
	u := startHeaded(t, "imap", &tls.Config{Certificates: []tls.Certificate{pair.Load(t)}})
	g := posterntest.Start(t, map[string]string{
		"UPSTREAM_IMAP": u.URL("imaps"), "UPSTREAM_CA_FILE": ca.File,
		"UPSTREAM_PROXY_PROTOCOL": "v2", "TLS_CLIENT_CA_FILE": clientCA.File,
	})
	const (
		ssl        = tlvparse.PP2_BITFIELD_CLIENT_SSL
		withCert   = ssl | tlvparse.PP2_BITFIELD_CLIENT_CERT_CONN | tlvparse.PP2_BITFIELD_CLIENT_CERT_SESS
		ecdheAES12 = "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384"
	)
	cases := map[string]struct {
		config *tls.Config
		want   facts
	}{
		"TLS 1.3": {&tls.Config{}, facts{"TLSv1.3", "", "", "mail.example.org", false, ssl}},
		"TLS 1.2": {
			&tls.Config{MaxVersion: tls.VersionTLS12, CipherSuites: []uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384}},
			facts{"TLSv1.2", ecdheAES12, "", "mail.example.org", false, ssl},
		},
		"without a name": {&tls.Config{ServerName: "127.0.0.1"}, facts{"TLSv1.3", "", "", "", false, ssl}},
		"with a certificate": {
			&tls.Config{Certificates: []tls.Certificate{clientCA.IssueClient(t, "Anna Å.")}},
			facts{"TLSv1.3", "", "Anna Å.", "mail.example.org", true, withCert},
		},
	}
	for name, c := range cases {
		for _, listener := range listenersOf("imap") {
			client, err := posterntest.Caller{TLS: c.config}.Login(g, listener, "anna", "password")
			if err != nil {
				t.Errorf("%s: %v", name, err)
				continue
			}
			want := c.want
			if want.cipher == "" {
				want.cipher = tls.CipherSuiteName(client.Conn.(*tls.Conn).ConnectionState().CipherSuite)
			}
			if got := factsOf(t, u.last(t)); got != want {
				t.Errorf("%s, %s: the upstream was told %+v, want %+v", name, listener, got, want)
			}
			client.Close()
		}
	}
}

func TestAClientCertificateOfAnotherAuthorityIsRefused(t *testing.T) {
	t.Parallel()
	u := plain(t, "imap")
	g := posterntest.Start(t, map[string]string{
		"UPSTREAM_IMAP": u.URL("imap"), "TLS_CLIENT_CA_FILE": posterntest.NewCA(t).File,
	})
	before := u.Connections()
	mine := posterntest.NewCA(t).IssueClient(t, "mallory")
	presenting := &tls.Config{GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &mine, nil }}
	if c, err := (posterntest.Caller{TLS: presenting}).Open(g, "imaps"); err == nil {
		t.Errorf("the client was greeted with %q", c.Greeting)
		c.Close()
	}
	g.Wait(t, func(s posterntest.Samples) bool {
		return s.Count("postern_handshake_failures_total", "listener=imaps", "reason=client_certificate") == 1
	})
	if now := u.Connections(); now != before {
		t.Errorf("%d connections have reached the upstream", now-before)
	}
	g.CheckIdentities(t, 1)
}
