package upstream

import (
	"bytes"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"postern/internal/hello"
	"postern/internal/posterntest"
)

// proxyFrom is the peer whose headers are believed.
const proxyFrom = "127.0.0.9"

// behindProxy is a proxy that believes one peer, in front of two servers that
// want to be told.
type behindProxy struct {
	*posterntest.Proxy
	upstreams map[string]*headed
}

func newBehindProxy(t *testing.T) *behindProxy {
	t.Helper()
	imap, pop3 := startHeaded(t, "imap", nil), startHeaded(t, "pop3", nil)
	return &behindProxy{
		posterntest.Start(t, map[string]string{
			"UPSTREAM_IMAP": imap.URL("imap"), "UPSTREAM_POP3": pop3.URL("pop3"),
			"UPSTREAM_PROXY_PROTOCOL": "v2", "PROXY_PROTOCOL_FROM": proxyFrom + "/32",
		}),
		map[string]*headed{"imap": imap, "pop3": pop3},
	}
}

// begun is how many handshakes were counted.
func (g *behindProxy) begun(t *testing.T) int {
	return int(g.Metrics(t).Count("postern_handshakes_total"))
}

func TestAddressesFromAPROXYHeaderAreUsed(t *testing.T) {
	t.Parallel()
	g := newBehindProxy(t)
	local := append(bytes.Clone(signature), 0x20, 0, 0, 0)
	cases := map[string]struct {
		header              []byte
		source, destination string // empty: the peer's own
	}{
		"v1":              {claim(t, 1, "192.0.2.7:4711", "198.51.100.1:993"), "192.0.2.7:4711", "198.51.100.1:993"},
		"v2":              {claim(t, 2, "192.0.2.8:4711", "198.51.100.1:993"), "192.0.2.8:4711", "198.51.100.1:993"},
		"v1 IPv6":         {claim(t, 1, "[2001:db8::7]:1", "[2001:db8::1]:2"), "[2001:db8::7]:1", "[2001:db8::1]:2"},
		"v2 IPv6":         {claim(t, 2, "[2001:db8::8]:1", "[2001:db8::1]:2"), "[2001:db8::8]:1", "[2001:db8::1]:2"},
		"v2 IPv4 in IPv6": {mapped, "192.0.2.9:1", "198.51.100.1:2"},
		"v2 with TLVs":    {withTLVs, "192.0.2.10:1", "198.51.100.1:2"},
		"v2 LOCAL":        {local, "", ""},
		"v1 UNKNOWN":      {[]byte("PROXY UNKNOWN\r\n"), "", ""},
		"v1 UNKNOWN, more": {
			[]byte("PROXY UNKNOWN ffff:f::ffff ffff:f::ffff 65535 65535\r\n"), "", "",
		},
	}
	for name, c := range cases {
		for _, listener := range posterntest.Listeners {
			client, err := posterntest.Caller{From: proxyFrom, Header: c.header}.Login(g.Proxy, listener, "anna", "password")
			if err != nil {
				t.Errorf("%s, %s: %v", name, listener, err)
				continue
			}
			h := g.upstreams[strings.TrimSuffix(listener, "s")].last(t)
			source, destination := c.source, c.destination
			if source == "" {
				source, destination = client.LocalAddr().String(), g.Addr(listener)
			}
			if h.SourceAddr.String() != source || h.DestinationAddr.String() != destination {
				t.Errorf("%s, %s: the upstream was told %s to %s, want %s to %s",
					name, listener, h.SourceAddr, h.DestinationAddr, source, destination)
			}
			client.Close()
		}
	}
	if n := g.Metrics(t).Count("postern_proxy_header_failures_total"); n != 0 {
		t.Errorf("%v headers were counted as broken", n)
	}
	g.CheckIdentities(t, len(cases)*len(posterntest.Listeners))
}

// signature begins a header of version 2.
var signature = []byte("\r\n\r\n\x00\r\nQUIT\n")

var (
	mapped = append(bytes.Clone(signature), "\x21\x21\x00\x24"+
		"\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\xff\xff\xc0\x00\x02\x09"+
		"\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\xff\xff\xc6\x33\x64\x01\x00\x01\x00\x02"...)
	withTLVs = append(bytes.Clone(signature), "\x21\x11\x00\x13"+
		"\xc0\x00\x02\x0a\xc6\x33\x64\x01\x00\x01\x00\x02"+"\x04\x00\x04\x00\x00\x00\x00"...)
)

func TestTheClientOfAPROXYHeaderIsTheOneThatIsLogged(t *testing.T) {
	t.Parallel()
	g := newBehindProxy(t)
	for i, listener := range posterntest.Listeners {
		address := fmt.Sprintf("192.0.2.%d", 20+i)
		_, err := posterntest.Caller{
			From: proxyFrom, Header: claim(t, 2, address+":4711", "198.51.100.1:993"),
			TLS: &tls.Config{MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS10},
		}.Open(g.Proxy, listener)
		if err == nil {
			t.Fatal("TLS 1.0 was let in")
		}
		lines := g.WaitLog(t, "legacy handshake", i+1)
		if got := lines[len(lines)-1]; got["client"] != address || got["client_port"] != float64(4711) {
			t.Errorf("%s: the log names client %v port %v, want %s port 4711", listener, got["client"], got["client_port"], address)
		}
	}
}

// hangsUp sends bytes from the believed peer and wants the connection closed
// without a byte, and returns how long that took.
func (g *behindProxy) hangsUp(t *testing.T, name, listener string, sent []byte) time.Duration {
	t.Helper()
	begun := time.Now()
	conn := g.DialFrom(t, listener, proxyFrom)
	defer conn.Close()
	if _, err := conn.Write(sent); err != nil {
		t.Fatal(err)
	}
	if strings.HasSuffix(name, "FIN") {
		conn.CloseWrite()
	}
	got, err := io.ReadAll(conn)
	took := time.Since(begun)
	if len(got) > 0 || err != nil {
		t.Errorf("%s, %s: %q and %v instead of a plain close", name, listener, got, err)
	}
	return took
}

func TestABrokenPROXYHeaderEndsTheConnection(t *testing.T) {
	t.Parallel()
	g := newBehindProxy(t)
	broken := map[string][]byte{
		"TLS":                   hello.ClientHello(hello.Typical(tls.VersionTLS13)),
		"text":                  []byte("a CAPABILITY\r\n"),
		"HTTP":                  []byte("GET / HTTP/1.0\r\n\r\n"),
		"v1 nonsense":           []byte("PROXY TCP4 nonsense\r\n"),
		"v1 zone":               []byte("PROXY TCP6 fe80::1%eth0 2001:db8::1 1 2\r\n"),
		"v1 port":               []byte("PROXY TCP4 192.0.2.1 192.0.2.2 1 65536\r\n"),
		"v1 bare LF":            []byte("PROXY TCP4 192.0.2.1 192.0.2.2 1 2\n"),
		"v1 oversized":          append([]byte("PROXY UNKNOWN "), bytes.Repeat([]byte("x"), 4000)...),
		"v2 oversized":          append(append(bytes.Clone(signature), 0x21, 0x11, 0xff, 0xff), make([]byte, 65535)...),
		"v2 short":              append(bytes.Clone(signature), 0x21, 0x11, 0, 4, 1, 2, 3, 4),
		"v2 version":            append(bytes.Clone(signature), 0x31, 0x11, 0, 0),
		"v2 family":             append(bytes.Clone(signature), 0x21, 0x13, 0, 12, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12),
		"v2 unix, short":        append(append(bytes.Clone(signature), 0x21, 0x31, 0, 200), make([]byte, 200)...),
		"v2 no family, a kind":  append(bytes.Clone(signature), 0x21, 0x01, 0, 0),
		"nothing, FIN":          nil,
		"half a signature, FIN": signature[:6],
		"half an address, FIN":  append(bytes.Clone(signature), 0x21, 0x11, 0, 12, 1, 2, 3),
	}
	for _, listener := range posterntest.Listeners {
		came := 0
		for name, sent := range broken {
			posterntest.Within(t, name+", "+listener, 4*time.Second, func() time.Duration {
				came++
				return g.hangsUp(t, name, listener, sent)
			})
		}
		g.Wait(t, func(s posterntest.Samples) bool {
			return s.Count("postern_proxy_header_failures_total", "listener="+listener) == float64(came)
		})
	}
	// One line a minute, however many come.
	if lines := g.WaitLog(t, "no PROXY header from a peer in POSTERN_PROXY_PROTOCOL_FROM: turn it on there, or take the address out", 1); len(lines) != 1 || lines[0]["peer"] != proxyFrom || lines[0]["level"] != "WARN" {
		t.Errorf("the log says %v", lines)
	}
	if n := g.begun(t); n != 0 {
		t.Errorf("%d handshakes were counted for connections without a header", n)
	}
	for protocol, u := range g.upstreams {
		for _, h := range u.sent(t, 1) {
			if from := h.SourceAddr.String(); !strings.HasPrefix(from, "127.0.0.1:") { // the prober's own
				t.Errorf("a connection of %s has reached the %s upstream", from, protocol)
			}
		}
	}
}

// What has no TCP addresses stands for the peer itself, as LOCAL does.
func TestAPROXYHeaderWithoutTCPAddressesStandsForThePeer(t *testing.T) {
	t.Parallel()
	g := newBehindProxy(t)
	n := 0
	for name, header := range map[string][]byte{
		"UNSPEC":           append(bytes.Clone(signature), 0x21, 0, 0, 0),
		"UNSPEC with more": append(bytes.Clone(signature), 0x21, 0, 0, 7, 4, 0, 4, 0, 0, 0, 0),
		"UNIX":             append(append(bytes.Clone(signature), 0x21, 0x31, 0, 216), make([]byte, 216)...),
		"UDP":              append(bytes.Clone(signature), 0x21, 0x12, 0, 12, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12),
		"LOCAL":            append(bytes.Clone(signature), 0x20, 0, 0, 0),
	} {
		for _, listener := range posterntest.Listeners {
			_, err := posterntest.Caller{
				From: proxyFrom, Header: header,
				TLS: &tls.Config{MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS10},
			}.Open(g.Proxy, listener)
			if err == nil {
				t.Fatal("TLS 1.0 was let in")
			}
			n++
			lines := g.WaitLog(t, "legacy handshake", n)
			if got := lines[len(lines)-1]; got["client"] != proxyFrom {
				t.Errorf("%s, %s: the log names client %v, want %s", name, listener, got["client"], proxyFrom)
			}
		}
	}
}

func TestASlowPROXYHeaderHasFiveSeconds(t *testing.T) {
	t.Parallel()
	g := newBehindProxy(t)
	for _, sent := range []string{"", "PROXY TCP4 192.0", string(signature[:4])} {
		for _, listener := range posterntest.Listeners {
			t.Run(fmt.Sprintf("%s after %d bytes", listener, len(sent)), func(t *testing.T) {
				t.Parallel()
				posterntest.Within(t, "the end", 7*time.Second, func() time.Duration {
					took := g.hangsUp(t, "slow", listener, []byte(sent))
					if took < 5*time.Second {
						t.Errorf("closed after %v, want five seconds", took)
					}
					return took
				})
			})
		}
	}
}

// inPieces sends its first write byte by byte.
type inPieces struct {
	net.Conn
	first []byte
	each  time.Duration
}

func (c *inPieces) Write(p []byte) (int, error) {
	for _, b := range c.first {
		if _, err := c.Conn.Write([]byte{b}); err != nil {
			return 0, err
		}
		time.Sleep(c.each)
	}
	c.first = nil
	return c.Conn.Write(p)
}

// glued sends a header and what is written first in one segment.
type glued struct {
	net.Conn
	header []byte
}

func (c *glued) Write(p []byte) (int, error) {
	if _, err := c.Conn.Write(append(c.header, p...)); err != nil {
		return 0, err
	}
	c.header = nil
	return len(p), nil
}

func TestAPROXYHeaderMayComeInPiecesOrWithWhatFollows(t *testing.T) {
	t.Parallel()
	g := newBehindProxy(t)
	for version := byte(1); version <= 2; version++ {
		header := claim(t, version, "192.0.2.7:4711", "198.51.100.1:993")
		for name, shape := range map[string]func(net.Conn) net.Conn{
			"in pieces": func(c net.Conn) net.Conn { return &inPieces{c, header, time.Millisecond} },
			"glued":     func(c net.Conn) net.Conn { return &glued{c, header} },
		} {
			c := tls.Client(shape(g.DialFrom(t, "imaps", proxyFrom)), &tls.Config{RootCAs: g.CA.Pool, ServerName: "localhost"})
			greeting := make([]byte, len(posterntest.IMAPGreeting))
			if _, err := io.ReadFull(c, greeting); err != nil || string(greeting) != posterntest.IMAPGreeting {
				t.Errorf("v%d %s: %q, %v", version, name, greeting, err)
				continue
			}
			if got := g.upstreams["imap"].last(t).SourceAddr.String(); got != "192.0.2.7:4711" {
				t.Errorf("v%d %s: the upstream was told %s", version, name, got)
			}
		}
		conn := g.DialFrom(t, "imap", proxyFrom)
		if _, err := conn.Write(append(bytes.Clone(header), "a LOGOUT\r\n"...)); err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(conn)
		if err != nil || !bytes.HasSuffix(got, []byte("a OK Done.\r\n")) {
			t.Errorf("v%d: a command behind the header was answered %q, %v", version, got, err)
		}
	}
}

func TestPROXYHeadersFromOtherPeersAreNotBelieved(t *testing.T) {
	t.Parallel()
	g := newBehindProxy(t)
	for i, reason := range []string{"plaintext", "malformed"} {
		for _, listener := range []string{"imaps", "pop3s"} {
			conn := g.Dial(t, listener)
			if _, err := conn.Write(claim(t, byte(i+1), "192.0.2.7:4711", "198.51.100.1:993")); err != nil {
				t.Fatal(err)
			}
			io.Copy(io.Discard, conn)
			g.Wait(t, func(s posterntest.Samples) bool {
				return s.Count("postern_handshake_failures_total", "listener="+listener, "reason="+reason) == 1
			})
		}
	}
	conn := g.Dial(t, "imap")
	if _, err := conn.Write(append(claim(t, 1, "192.0.2.7:4711", "198.51.100.1:143"), "a LOGOUT\r\n"...)); err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(conn); err != nil || !bytes.Contains(got, []byte(" BAD ")) {
		t.Errorf("a header on imap was answered %q, %v", got, err)
	}
	if lines := g.WaitLog(t, "PROXY header from a peer that is not in POSTERN_PROXY_PROTOCOL_FROM: put it in if it is a load balancer of yours", 1); len(lines) != 1 || lines[0]["peer"] != "127.0.0.1" || lines[0]["level"] != "WARN" {
		t.Errorf("the log says %v", lines)
	}
	// Without one, others are served as ever.
	c, err := posterntest.Caller{}.Login(g.Proxy, "imaps", "anna", "password")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if got, want := g.upstreams["imap"].last(t).SourceAddr.String(), c.LocalAddr().String(); got != want {
		t.Errorf("the upstream was told %s, want %s", got, want)
	}
	if n := g.Metrics(t).Count("postern_proxy_header_failures_total"); n != 0 {
		t.Errorf("%v headers were counted where none was due", n)
	}
	g.CheckIdentities(t, 5)
}
