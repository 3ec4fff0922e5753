// Package servers runs real mail servers behind the real proxy, and compares
// what a client gets there with what it gets from them itself.
package servers

import (
	"bytes"
	"crypto/tls"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pires/go-proxyproto"

	"postern/internal/dovecot"
	"postern/internal/posterntest"
)

func TestMain(m *testing.M) { posterntest.Main(m) }

const password = "correct horse"

// maxUsers have a mailbox on each server: every dialogue has one of its own.
const maxUsers = 80

func userName(i int) string { return fmt.Sprintf("anna%02d", i) }

// server is a mail server that runs until the test ends.
type server struct {
	name string
	ca   *posterntest.CA
	// ports by protocol: imap, imaps, pop3, pop3s; and those that begin with a
	// PROXY header, where the server has them.
	ports, proxyPorts map[string]string
	headers           []string // the versions that it takes
	compresses        bool     // it has COMPRESS=DEFLATE
	log               func() string
	suspend           func(process string) (resume func())
	// put stores messages without a session, where that makes their order certain.
	put func(t *testing.T, user string, messages [][]byte)

	users atomic.Int64
}

// line is a way to reach a server: the variables of a proxy, and the same way
// for a test.
type line struct {
	name   string
	scheme string // what follows imap and pop3 in the URL
	header string // v1 or v2; "" for none
}

// lines are all ways that the server has.
func (s *server) lines() []line {
	all := []line{{name: "plain"}, {name: "TLS", scheme: "s"}, {name: "STARTTLS", scheme: "+starttls"}}
	for _, version := range s.headers {
		all = append(all, line{name: "PROXY " + version, header: version})
		if s.proxyPorts["imaps"] != "" {
			all = append(all, line{name: "TLS with PROXY " + version, scheme: "s", header: version})
		}
	}
	return all
}

// port is where a line reaches the server.
func (s *server) port(l line, protocol string) string {
	ports := s.ports
	if l.header != "" {
		ports = s.proxyPorts
	}
	if l.scheme == "s" {
		protocol += "s"
	}
	return ports[protocol]
}

// behind starts a proxy in front of the server.
func (s *server) behind(t *testing.T, l line, more map[string]string) *posterntest.Proxy {
	t.Helper()
	env := map[string]string{
		"UPSTREAM_IMAP":    "imap" + l.scheme + "://" + s.port(l, "imap"),
		"UPSTREAM_POP3":    "pop3" + l.scheme + "://" + s.port(l, "pop3"),
		"UPSTREAM_CA_FILE": s.ca.File,
	}
	if l.header != "" {
		env["UPSTREAM_PROXY_PROTOCOL"] = l.header
	}
	for name, value := range more {
		env[name] = value
	}
	return posterntest.Start(t, env)
}

// direct is a client of the server itself. It has read the greeting, the first one
// where TLS begins with STARTTLS.
func (s *server) direct(t *testing.T, l line, protocol string) *posterntest.Client {
	t.Helper()
	conn, err := net.Dial("tcp", s.port(l, protocol))
	if err != nil {
		t.Fatalf("%s: %v", s.name, err)
	}
	t.Cleanup(func() { conn.Close() })
	if l.header != "" {
		if _, err := conn.Write(header(t, l.header, conn)); err != nil {
			t.Fatal(err)
		}
	}
	secure := &tls.Config{RootCAs: s.ca.Pool, ServerName: "127.0.0.1"}
	if l.scheme == "s" {
		conn = tls.Client(conn, secure)
	}
	c := posterntest.NewClient(conn, protocol)
	c.Name = s.name + " " + l.name
	c.Greeting = c.ExpectLine(t, "")
	if l.scheme == "+starttls" {
		if err := c.StartTLS(secure); err != nil {
			t.Fatalf("%s: %v", c.Name, err)
		}
	}
	return c
}

// header speaks for the connection itself.
func header(t *testing.T, version string, conn net.Conn) []byte {
	t.Helper()
	number := map[string]byte{"v1": 1, "v2": 2}[version]
	b, err := proxyproto.HeaderProxyFromAddrs(number, conn.LocalAddr(), conn.RemoteAddr()).Format()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// through is a client of the proxy, inside TLS.
func through(t *testing.T, g *posterntest.Proxy, listener string) *posterntest.Client {
	t.Helper()
	c, err := posterntest.Caller{}.Open(g, listener)
	if err != nil {
		t.Fatalf("%s: %v", listener, err)
	}
	t.Cleanup(func() { c.Close() })
	c.Name = listener
	return c
}

// user returns the name of a new user, who has four messages.
func (s *server) user(t *testing.T) string {
	t.Helper()
	name := userName(int(s.users.Add(1) - 1))
	if s.users.Load() > maxUsers {
		t.Fatalf("more than %d users", maxUsers)
	}
	var messages [][]byte
	for i, body := range []string{"first\r\n", ".\r\n..\r\nSTARTTLS\r\n", "\xfcber\r\n* BYE\r\n", ""} {
		messages = append(messages, dovecot.Message(i+1, []byte(body)))
	}
	if s.put != nil {
		s.put(t, name, messages)
	} else {
		s.deliver(t, name, messages...)
	}
	return name
}

// deliver puts messages into the user's INBOX, in a session of its own.
func (s *server) deliver(t *testing.T, user string, messages ...[]byte) {
	t.Helper()
	c := s.direct(t, line{}, "imap")
	defer c.Close()
	if err := c.Login(user, password); err != nil {
		t.Fatalf("%s: %v", s.name, err)
	}
	for _, m := range messages {
		appendMessage(t, c, m)
	}
}

// appendMessage waits for the server before it sends the literal.
func appendMessage(t *testing.T, c *posterntest.Client, message []byte) posterntest.Reply {
	t.Helper()
	if err := c.Start("APPEND INBOX {%d}", len(message)); err != nil {
		t.Fatal(err)
	}
	for !strings.HasPrefix(c.ExpectLine(t, ""), "+") { // what has happened in the mailbox may come first
	}
	c.Send(t, string(message)+"\r\n")
	reply, err := c.Finish()
	if err != nil || !reply.OK() {
		t.Fatalf("%s: APPEND answered %.200q: %v", c.Name, reply, err)
	}
	return reply
}

// waitFor tries until it works: a server listens before it can log users in.
func waitFor(t *testing.T, what string, try func() error) {
	t.Helper()
	var err error
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		if err = try(); err == nil {
			return
		}
	}
	t.Fatalf("%s: %v", what, err)
}

// logsIn tells whether all ports answer, and a user can log in at those of TLS.
func (s *server) logsIn() error {
	for _, ports := range []map[string]string{s.ports, s.proxyPorts} {
		for _, port := range ports {
			conn, err := net.Dial("tcp", port)
			if err != nil {
				return err
			}
			conn.Close()
		}
	}
	for _, protocol := range []string{"imaps", "pop3s"} {
		conn, err := tls.Dial("tcp", s.ports[protocol], &tls.Config{RootCAs: s.ca.Pool, ServerName: "127.0.0.1"})
		if err != nil {
			return err
		}
		c := posterntest.NewClient(conn, protocol)
		if _, err = c.Line(); err == nil {
			err = c.Login(userName(0), password)
		}
		c.Close()
		if err != nil {
			return err
		}
	}
	return nil
}

// greets is less than logsIn.
func (s *server) greets() error {
	for _, address := range s.ports {
		conn, err := net.Dial("tcp", address)
		if err != nil {
			return err
		}
		conn.Close()
	}
	return nil
}

// logged waits until the server's log holds a text.
func (s *server) logged(t *testing.T, text string) {
	t.Helper()
	waitFor(t, s.name+"'s log", func() error {
		if !strings.Contains(s.log(), text) {
			return fmt.Errorf("no %q in\n%s", text, s.log())
		}
		return nil
	})
}

// claim is the header of a load balancer that speaks for another address.
func claim(t *testing.T, source, destination string) []byte {
	t.Helper()
	h := proxyproto.HeaderProxyFromAddrs(2, net.TCPAddrFromAddrPort(netip.MustParseAddrPort(source)),
		net.TCPAddrFromAddrPort(netip.MustParseAddrPort(destination)))
	var b bytes.Buffer
	if _, err := h.WriteTo(&b); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}
