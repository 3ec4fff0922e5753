package handshake

import (
	"bytes"
	"crypto/tls"
	"io"
	"net"
	"strings"
	"testing"

	"postern/internal/posterntest"
)

// config is a client that trusts the proxy and speaks versions up to highest.
func (r *rig) config(highest uint16, suites ...uint16) *tls.Config {
	return &tls.Config{
		RootCAs: r.CA.Pool, ServerName: "mail.example.org",
		MinVersion: tls.VersionTLS10, MaxVersion: highest, CipherSuites: suites,
	}
}

// distrusting is config with a CA that has signed nothing.
func (r *rig) distrusting(t *testing.T, highest uint16) *tls.Config {
	t.Helper()
	c := r.config(highest)
	c.RootCAs = posterntest.NewCA(t).Pool
	return c
}

// session completes the handshake and exchanges one command with the
// upstream, whose own words must arrive.
func session(t *testing.T, listener string, conn net.Conn, config *tls.Config) {
	t.Helper()
	c := tls.Client(conn, config)
	if err := c.Handshake(); err != nil {
		t.Errorf("handshake: %v", err)
		return
	}
	client := posterntest.NewClient(c, listener)
	defer c.Close()
	if greeting := map[string]string{"imaps": posterntest.IMAPGreeting, "pop3s": posterntest.POP3Greeting}[listener]; greeting != "" {
		client.Expect(t, greeting)
	}
	want := "+OK"
	if strings.HasPrefix(listener, "imap") {
		want = "OK done"
	}
	client.ExpectReply(t, want, "NOOP")
}

// accepted runs a session that is let in and forwarded.
func (r *rig) accepted(t *testing.T, listener, version string, config *tls.Config, shape func(net.Conn) net.Conn) {
	t.Helper()
	r.over(t, listener, want{version: version, outcome: "accepted", forwarded: true}, func(conn *net.TCPConn) {
		session(t, listener, shape(conn), config)
	})
}

func plain(c net.Conn) net.Conn { return c }

// byteByByte sends every byte in a segment of its own.
type byteByByte struct{ net.Conn }

func (c byteByByte) Write(p []byte) (int, error) {
	for i := range p {
		if _, err := c.Conn.Write(p[i : i+1]); err != nil {
			return i, err
		}
	}
	return len(p), nil
}

// fragmented cuts the first flight into records of seven bytes.
type fragmented struct {
	net.Conn
	done bool
}

func (c *fragmented) Write(p []byte) (int, error) {
	if c.done {
		return c.Conn.Write(p)
	}
	c.done = true
	if _, err := c.Conn.Write(posterntest.Fragment(p, 7)); err != nil {
		return 0, err
	}
	return len(p), nil
}

// recorded keeps what comes in, and how it ended.
type recorded struct {
	net.Conn
	in  bytes.Buffer
	err error
}

func (c *recorded) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.in.Write(p[:n])
	if err != nil {
		c.err = err
	}
	return n, err
}

// endedWithCloseNotify tells whether the last record was an alert and FIN
// followed. Up to TLS 1.2 the record's type is in clear.
func (c *recorded) endedWithCloseNotify(t *testing.T) {
	t.Helper()
	var last byte
	for b := c.in.Bytes(); len(b) >= 5; {
		last = b[0]
		b = b[min(len(b), 5+int(b[3])<<8+int(b[4])):]
	}
	if last != 21 || c.err != io.EOF {
		t.Errorf("the stream ended with a record of type %d and %v, want an alert (21) and EOF", last, c.err)
	}
}
