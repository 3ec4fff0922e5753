// Package client is the mail client of the harness: one connection, driven
// command by command, over TLS or in the clear.
package client

import (
	"bufio"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"time"
)

// Timeout bounds every single step on a connection.
const Timeout = 30 * time.Second

// Target is where to connect, and how.
type Target struct {
	Addr     string
	TLS      *tls.Config // nil: in the clear
	POP3     bool
	StartTLS bool // TLS begins with STARTTLS or STLS
}

// Conn is one client connection.
type Conn struct {
	net.Conn
	r     *bufio.Reader
	pop3  bool
	State tls.ConnectionState
}

// Source is the n-th of the loopback addresses that clients call from, of
// which there are 65,536.
func Source(n int) net.IP { return net.IPv4(127, 1, byte(n>>8), byte(n)) }

// Dial connects from an address and, for TLS, shakes hands.
func Dial(t Target, from net.IP) (*Conn, error) {
	d := net.Dialer{Timeout: Timeout, KeepAlive: -1, LocalAddr: &net.TCPAddr{IP: from}}
	raw, err := d.Dial("tcp", t.Addr)
	if err != nil {
		return nil, err
	}
	c := &Conn{Conn: raw, pop3: t.POP3}
	c.SetDeadline(time.Now().Add(Timeout))
	c.r = bufio.NewReaderSize(raw, 512)
	if t.StartTLS {
		if err := c.askForTLS(); err != nil {
			raw.Close()
			return nil, fmt.Errorf("before TLS: %w", err)
		}
	}
	if t.TLS != nil {
		tc := tls.Client(raw, t.TLS)
		if err := tc.Handshake(); err != nil {
			raw.Close()
			return nil, err
		}
		c.Conn, c.State = tc, tc.ConnectionState()
		c.r.Reset(tc)
	}
	return c, nil
}

// askForTLS reads the greeting in the clear, and asks for TLS.
func (c *Conn) askForTLS() error {
	if err := c.Greeting(); err != nil {
		return err
	}
	if c.pop3 {
		return c.Do("STLS")
	}
	return c.Do("STARTTLS")
}

// line reads one line, which the next read overwrites.
func (c *Conn) line() ([]byte, error) { return c.r.ReadSlice('\n') }

// Greeting reads the server's first line.
func (c *Conn) Greeting() error {
	b, err := c.line()
	if err != nil {
		return err
	}
	if s := string(b); !strings.HasPrefix(s, "* OK") && !strings.HasPrefix(s, "+OK") {
		return fmt.Errorf("greeting %q", s)
	}
	return nil
}

// Do sends one command and reads to the end of its one-line answer; IMAP's
// untagged lines before it are skipped.
func (c *Conn) Do(cmd string) error {
	c.SetDeadline(time.Now().Add(Timeout))
	if c.pop3 {
		if _, err := io.WriteString(c.Conn, cmd+"\r\n"); err != nil {
			return err
		}
		b, err := c.line()
		if err == nil && !strings.HasPrefix(string(b), "+OK") {
			err = fmt.Errorf("%s: %q", cmd, b)
		}
		return err
	}
	if _, err := io.WriteString(c.Conn, "a "+cmd+"\r\n"); err != nil {
		return err
	}
	return c.tagged(cmd)
}

// tagged reads to the tagged answer, which must be OK.
func (c *Conn) tagged(cmd string) error {
	for {
		b, err := c.line()
		if err != nil {
			return err
		}
		switch s := string(b); {
		case strings.HasPrefix(s, "a OK"):
			return nil
		case strings.HasPrefix(s, "a "):
			return fmt.Errorf("%s: %q", cmd, s)
		}
	}
}

// Login logs in.
func (c *Conn) Login() error {
	if c.pop3 {
		if err := c.Do("USER bench"); err != nil {
			return err
		}
		return c.Do("PASS secret")
	}
	return c.Do("LOGIN bench secret")
}

// Idle enters IDLE and stays there.
func (c *Conn) Idle() error {
	c.SetDeadline(time.Now().Add(Timeout))
	if _, err := io.WriteString(c.Conn, "a IDLE\r\n"); err != nil {
		return err
	}
	b, err := c.line()
	if err == nil && b[0] != '+' {
		err = fmt.Errorf("IDLE: %q", b)
	}
	return err
}

// Done leaves IDLE.
func (c *Conn) Done() error {
	c.SetDeadline(time.Now().Add(Timeout))
	if _, err := io.WriteString(c.Conn, "DONE\r\n"); err != nil {
		return err
	}
	return c.tagged("IDLE")
}

// Fetch gets a message of mb MB and returns its size. buf is scratch.
func (c *Conn) Fetch(mb int, buf []byte) (int64, error) {
	c.SetDeadline(time.Now().Add(Timeout))
	cmd := fmt.Sprintf("a FETCH %d BODY[]\r\n", mb)
	if c.pop3 {
		cmd = fmt.Sprintf("RETR %d\r\n", mb)
	}
	if _, err := io.WriteString(c.Conn, cmd); err != nil {
		return 0, err
	}
	b, err := c.line()
	if err != nil {
		return 0, err
	}
	size, err := announced(string(b), c.pop3)
	if err != nil {
		return 0, err
	}
	for left := size; left > 0; {
		n, err := c.r.Read(buf[:min(left, len(buf))])
		if err != nil {
			return 0, err
		}
		left -= n
	}
	if c.pop3 {
		if b, err = c.line(); err == nil && b[0] != '.' {
			err = fmt.Errorf("end of message: %q", b)
		}
		return int64(size), err
	}
	return int64(size), c.tagged("FETCH")
}

// Append stores a message of text in pieces of 16 KB, one TLS record each,
// as a synchronizing literal (RFC 9051, 4.3).
func (c *Conn) Append(text []byte) error {
	c.SetDeadline(time.Now().Add(Timeout))
	if _, err := fmt.Fprintf(c.Conn, "a APPEND INBOX {%d}\r\n", len(text)); err != nil {
		return err
	}
	b, err := c.line()
	if err != nil {
		return err
	}
	if b[0] != '+' {
		return fmt.Errorf("APPEND: %q", b)
	}
	const record = 16 << 10
	for len(text) > 0 {
		n := min(len(text), record)
		if _, err := c.Write(text[:n]); err != nil {
			return err
		}
		text = text[n:]
	}
	if _, err := io.WriteString(c.Conn, "\r\n"); err != nil {
		return err
	}
	return c.tagged("APPEND")
}

// announced is the size in "* 8 FETCH (BODY[] {123}" or "+OK 123 octets".
func announced(s string, pop3 bool) (int, error) {
	s = strings.TrimSpace(s)
	num := ""
	if f := strings.Fields(s); pop3 && len(f) > 1 {
		num = f[1]
	} else if i := strings.LastIndexByte(s, '{'); i >= 0 {
		num = strings.TrimSuffix(s[i+1:], "}")
	}
	n, err := strconv.Atoi(num)
	if err != nil {
		err = fmt.Errorf("no size in %q", s)
	}
	return n, err
}

// Logout says goodbye, reads to the end of the stream, and closes.
func (c *Conn) Logout() error {
	defer c.Close()
	c.SetDeadline(time.Now().Add(Timeout))
	bye := "a LOGOUT\r\n"
	if c.pop3 {
		bye = "QUIT\r\n"
	}
	if _, err := io.WriteString(c.Conn, bye); err != nil {
		return err
	}
	n, err := io.Copy(io.Discard, c.r)
	if err == nil && n == 0 {
		err = errors.New("no answer to LOGOUT")
	}
	if n > 0 {
		err = nil // a peer that ends TLS without close_notify still said BYE
	}
	return err
}

// noSessions makes a client ask for tickets, as real ones do, but never
// offer one.
type noSessions struct{}

func (noSessions) Get(string) (*tls.ClientSessionState, bool) { return nil, false }
func (noSessions) Put(string, *tls.ClientSessionState)        {}

// Config is a client TLS configuration, of which old versions have the suites that
// they know. X25519 comes first unless pq is set,
// so that every subject does the same key exchange. Records are as large as
// what is written, from the first on.
func Config(version uint16, resume, pq bool) *tls.Config {
	c := &tls.Config{
		ServerName:         "mail.bench.test",
		InsecureSkipVerify: true,
		MinVersion:         version,
		MaxVersion:         version,
		CurvePreferences:   []tls.CurveID{tls.X25519, tls.CurveP256},
		ClientSessionCache: noSessions{},

		DynamicRecordSizingDisabled: true,
		CipherSuites: []uint16{ // for TLS 1.2; 1.3's are not configurable
			tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
			tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
		},
	}
	if pq {
		c.CurvePreferences = []tls.CurveID{tls.X25519MLKEM768, tls.X25519}
	}
	if version < tls.VersionTLS12 {
		c.CipherSuites = []uint16{tls.TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA, tls.TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA}
	}
	if resume {
		c.ClientSessionCache = tls.NewLRUClientSessionCache(4)
	}
	return c
}
