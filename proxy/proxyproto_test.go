package proxy

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/pires/go-proxyproto"
	"github.com/pires/go-proxyproto/tlvparse"

	"postern/internal/netpoll"
)

// sentBytes is a connection on which a peer has sent so much and closed.
type sentBytes struct {
	netpoll.Socket
	in *bytes.Reader
}

func (c *sentBytes) Read(p []byte) (int, error)      { return c.in.Read(p) }
func (c *sentBytes) SetReadDeadline(time.Time) error { return nil }

// readHeader reads a header from what a peer has sent, and returns what is
// left for the rest of the session.
func readHeader(sent []byte) (s *session, rest []byte, err error) {
	s = &session{srv: &Server{ctx: context.Background()}}
	s.Client = netip.MustParseAddrPort("127.0.0.9:4711")
	s.destination = netip.MustParseAddrPort("127.0.0.1:993")
	s.raw = &clientConn{Conn: netpoll.Conn{Socket: &sentBytes{in: bytes.NewReader(sent)}}, s: s}
	if err = s.readProxyHeader(); err == nil {
		rest, _ = io.ReadAll(s.raw)
	}
	return s, rest, err
}

// Whatever a peer sends, the header is taken whole and alone, and what it
// names is an address.
func FuzzProxyHeader(f *testing.F) {
	from := &net.TCPAddr{IP: net.IPv4(192, 0, 2, 7), Port: 4711}
	to := &net.TCPAddr{IP: net.ParseIP("2001:db8::1"), Port: 993}
	for version := byte(1); version <= 2; version++ {
		for _, pair := range [][2]net.Addr{{from, from}, {from, to}, {to, to}} {
			b, err := proxyproto.HeaderProxyFromAddrs(version, pair[0], pair[1]).Format()
			if err != nil {
				f.Fatal(err)
			}
			f.Add(b)
		}
	}
	f.Add([]byte("PROXY UNKNOWN\r\n"))
	f.Add([]byte("\r\n\r\n\x00\r\nQUIT\n\x20\x00\x00\x00"))
	f.Fuzz(func(t *testing.T, sent []byte) {
		s, rest, err := readHeader(sent)
		if err != nil {
			return
		}
		if !bytes.HasSuffix(sent, rest) {
			t.Fatalf("%q is left of %q", rest, sent)
		}
		if !s.Client.IsValid() || s.Client.Addr().Is4In6() || !s.destination.IsValid() {
			t.Fatalf("%q is taken for %v to %v", sent, s.Client, s.destination)
		}
		again, more, err := readHeader(append(bytes.Clone(sent), "\x16\x03\x01"...))
		if err != nil || again.Client != s.Client || string(more) != string(rest)+"\x16\x03\x01" {
			t.Fatalf("%q with more behind it: %v, %v, %q", sent, again.Client, err, more)
		}
	})
}

func TestTheTLSFactsOfAHeaderAreCutToALength(t *testing.T) {
	long := strings.Repeat("n", 70_000)
	state := tls.ConnectionState{
		Version: tls.VersionTLS12, CipherSuite: tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256, ServerName: long,
		VerifiedChains:   [][]*x509.Certificate{{}},
		PeerCertificates: []*x509.Certificate{{Subject: pkix.Name{CommonName: long}}},
	}
	addr := &net.TCPAddr{IP: net.IPv4(192, 0, 2, 7), Port: 4711}
	h := proxyproto.HeaderProxyFromAddrs(2, addr, addr)
	setTLVs(h, state)
	b, err := h.Format()
	if err != nil || len(b) > 1024 {
		t.Fatalf("a header of %d bytes, %v", len(b), err)
	}
	tlvs, err := h.TLVs()
	if err != nil {
		t.Fatal(err)
	}
	ssl, ok := tlvparse.FindSSL(tlvs)
	if name, _ := ssl.ClientCN(); !ok || name != long[:maxTLV] || !ssl.Verified() {
		t.Errorf("a name of %d bytes, verified %v", len(name), ssl.Verified())
	}
}
