package proxy

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"regexp"
	"slices"
	"time"

	"github.com/pires/go-proxyproto"
	"github.com/pires/go-proxyproto/tlvparse"

	"postern/internal/netpoll"
	"postern/internal/text"
	"postern/policy"
)

// The PROXY protocol (HAProxy, versions 1 and 2), in both directions.

// proxyHeaderTimeout bounds the wait for a header that is due.
const proxyHeaderTimeout = 5 * time.Second

// proxyHeaderDue reports whether the peer is one of those that send a header; from
// nobody else is a header believed.
func (s *session) proxyHeaderDue() bool {
	peer := s.Client.Addr().WithZone("")
	return slices.ContainsFunc(s.srv.cfg.ProxyProtocolFrom, func(p netip.Prefix) bool { return p.Contains(peer) })
}

// readProxyHeader takes the header, and with it the addresses of the client and of what
// it connected to. LOCAL, UNKNOWN and what has no TCP addresses (UNSPEC, UNIX, UDP) stand
// for the peer itself, as version 2 allows in its section 2.2.
func (s *session) readProxyHeader() error {
	s.raw.SetReadDeadline(time.Now().Add(proxyHeaderTimeout))
	if s.srv.isDraining() {
		return errDraining
	}
	n, err := s.proxyHeaderSize()
	if err != nil {
		return fmt.Errorf("reading the PROXY header: %w", err)
	}
	whole := s.raw.unread[:n]
	if bytes.HasPrefix(whole, proxyproto.SIGV2) && bytes.HasPrefix(whole[len(proxyproto.SIGV2):], proxyUnspec) {
		s.raw.unread = s.raw.unread[n:]
		return nil
	}
	h, err := proxyproto.Read(bufio.NewReaderSize(bytes.NewReader(whole), n))
	if err != nil {
		return fmt.Errorf("reading the PROXY header: %w", err)
	}
	s.raw.unread = s.raw.unread[n:]
	if src, dst, ok := h.TCPAddrs(); ok && !h.Command.IsLocal() {
		s.Client, s.destination = netpoll.AddrPort(src), netpoll.AddrPort(dst)
	}
	return nil
}

// proxyUnspec are the command PROXY and the family UNSPEC, behind the signature.
var proxyUnspec = []byte{0x21, 0}

// headerBegin is how a header begins. An IMAP tag may be PROXY, too.
var headerBegin = regexp.MustCompile("^(PROXY (TCP[46]|UNKNOWN)|\r\n\r\n\x00\r\nQUIT\n)")

// unaskedHeader warns of a header where none is due, which is read as what the client says.
func (s *session) unaskedHeader() {
	if headerBegin.Match(s.raw.unread) && !s.proxyHeaderDue() {
		s.srv.warn("unasked header", "PROXY header from a peer that is not in POSTERN_PROXY_PROTOCOL_FROM: put it in if it is a load balancer of yours",
			"listener", string(s.Listener), "peer", s.Client.Addr())
	}
}

const (
	maxV1 = 107 // bytes, the line end included
	maxV2 = 4096
)

// proxyHeaderSize waits until the whole header is there, however it is cut.
func (s *session) proxyHeaderSize() (int, error) {
	for n := 1; ; n++ {
		b, err := s.raw.peek(n)
		if err != nil {
			return 0, err
		}
		n = len(b)
		switch {
		case bytes.HasPrefix(b, proxyproto.SIGV1):
			if i := bytes.IndexByte(b[:min(n, maxV1)], '\n'); i >= 0 {
				return i + 1, nil
			}
			if n >= maxV1 {
				return 0, proxyproto.ErrVersion1HeaderTooLong
			}
		case bytes.HasPrefix(b, proxyproto.SIGV2) && n >= 16:
			size := 16 + int(binary.BigEndian.Uint16(b[14:]))
			if size > maxV2 {
				return 0, proxyproto.ErrInvalidLength
			}
			_, err := s.raw.peek(size)
			return size, err
		case !bytes.HasPrefix(proxyproto.SIGV1, b) && !bytes.HasPrefix(proxyproto.SIGV2, b[:min(n, 12)]):
			return 0, proxyproto.ErrNoProxyProtocol
		}
	}
}

// outgoingHeader is the header for the upstream; nil where none is wanted.
func (s *session) outgoingHeader() ([]byte, error) {
	version := s.srv.cfg.UpstreamProxyProtocol
	if version == 0 {
		return nil, nil
	}
	h := proxyproto.HeaderProxyFromAddrs(byte(version), net.TCPAddrFromAddrPort(s.Client), net.TCPAddrFromAddrPort(s.destination))
	switch {
	case version == 2 && s.tls != nil:
		setTLVs(h, s.tls.ConnectionState())
	case version == 2:
		// Passed through: the upstream sees the TLS itself.
		h.SetTLVs(authority(s.hs.hello.ServerName))
	}
	return h.Format()
}

// OwnHeader begins a connection of Postern's own, such as a prober's. It is like a
// client's, since some servers take no other: UNKNOWN and LOCAL are refused by Courier,
// and logins by Dovecot where the client's side is not secured. Nil where none is wanted.
func OwnHeader(version int, local, remote net.Addr, secured bool) ([]byte, error) {
	if version == 0 {
		return nil, nil
	}
	h := proxyproto.HeaderProxyFromAddrs(byte(version), local, remote)
	if version == 2 && secured {
		setTLVs(h, tls.ConnectionState{Version: tls.VersionTLS13, CipherSuite: tls.TLS_AES_128_GCM_SHA256})
	}
	return h.Format()
}

// setTLVs says that and how the client's side is secured, so that the upstream need not
// refuse logins on what it sees as a plain line. All texts are short enough for a header.
func setTLVs(h *proxyproto.Header, state tls.ConnectionState) {
	info := tlvparse.PP2SSL{
		Client: tlvparse.PP2_BITFIELD_CLIENT_SSL,
		Verify: 1,
		TLV: []proxyproto.TLV{
			{Type: proxyproto.PP2_SUBTYPE_SSL_VERSION, Value: []byte(openSSLVersion(policy.Version(state.Version)))},
			{Type: proxyproto.PP2_SUBTYPE_SSL_CIPHER, Value: []byte(policy.CipherSuiteName(state.CipherSuite))},
		},
	}
	if len(state.VerifiedChains) > 0 {
		info.Client |= tlvparse.PP2_BITFIELD_CLIENT_CERT_CONN | tlvparse.PP2_BITFIELD_CLIENT_CERT_SESS
		info.Verify = 0
		if name := state.PeerCertificates[0].Subject.CommonName; name != "" {
			info.TLV = append(info.TLV, proxyproto.TLV{Type: proxyproto.PP2_SUBTYPE_SSL_CN, Value: []byte(text.Cut(name, maxTLV))})
		}
	}
	ssl, _ := info.Marshal()
	h.SetTLVs(append([]proxyproto.TLV{ssl}, authority(state.ServerName)...))
}

// authority is the name that the client asked for, if any.
func authority(name string) []proxyproto.TLV {
	if name == "" {
		return nil
	}
	return []proxyproto.TLV{{Type: proxyproto.PP2_TYPE_AUTHORITY, Value: []byte(text.Cut(name, maxTLV))}}
}

// maxTLV is the longest text from a client in a header, in bytes.
const maxTLV = 255

// openSSLVersion is the version as OpenSSL, and thus HAProxy, words it.
func openSSLVersion(v policy.Version) string {
	if v == policy.TLS10 {
		return "TLSv1"
	}
	return "TLSv" + v.Number()
}

// proxyHeaderFailed ends a connection without the header that is due. A peer that closes
// without a word looks whether the port is open, and is not warned of.
func (s *session) proxyHeaderFailed(err error) CloseReason {
	s.srv.cfg.Metrics.ProxyHeaderFailed(s.Listener)
	if len(s.raw.unread) > 0 || endingOf(err) == endTimeout && !s.srv.isDraining() {
		s.srv.warn("no header", "no PROXY header from a peer in POSTERN_PROXY_PROTOCOL_FROM: turn it on there, or take the address out",
			"listener", string(s.Listener), "peer", s.Client.Addr(), "error", err.Error())
	}
	s.srv.cfg.Log.Debug("proxy header failed", "listener", string(s.Listener),
		"peer", s.Client.Addr(), "error", err.Error(), "conn_id", s.ID)
	s.raw.finish()
	return ReasonProxyHeader
}
