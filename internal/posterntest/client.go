package posterntest

import (
	"bufio"
	"cmp"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"time"
)

// clientTimeout bounds everything that a Client does.
const clientTimeout = 30 * time.Second

// Caller is how a client comes to the gate. The zero Caller comes from
// 127.0.0.1. Its methods return errors instead of failing a test: loads use
// them from many goroutines.
type Caller struct {
	// From is the client's loopback address.
	From string
	// To is where it goes; empty is the first address of the listener.
	To string
	// Header is sent before everything else, as a proxy in front does.
	Header []byte
	// TLS is the client's configuration, without roots and server name.
	TLS *tls.Config
}

// Open comes to the gate over a listener, through TLS, up to the greeting:
// that of the upstream on imaps and pop3s, the gate's own on imap and pop3.
func (c Caller) Open(g *Proxy, listener string) (*Client, error) {
	raw, err := c.dial(g, listener)
	if err != nil {
		return nil, err
	}
	client, err := c.secure(g, listener, raw)
	if err != nil {
		raw.Close()
		return nil, err
	}
	return client, nil
}

func (c Caller) dial(g *Proxy, listener string) (net.Conn, error) {
	dialer := net.Dialer{Timeout: clientTimeout}
	if c.From != "" {
		dialer.LocalAddr = &net.TCPAddr{IP: net.ParseIP(c.From)}
	}
	raw, err := dialer.Dial("tcp", cmp.Or(c.To, g.Addr(listener)))
	if err != nil {
		return nil, err
	}
	raw.SetDeadline(time.Now().Add(clientTimeout))
	if _, err := raw.Write(c.Header); err != nil {
		raw.Close()
		return nil, err
	}
	return raw, nil
}

func (c Caller) secure(g *Proxy, listener string, raw net.Conn) (*Client, error) {
	plain := newClient(raw, listener)
	if listener == "imap" || listener == "pop3" {
		greeting, err := plain.Line()
		if err != nil {
			return nil, fmt.Errorf("reading the gate's greeting: %w", err)
		}
		plain.Greeting = greeting
		command := map[string]string{"imap": "STARTTLS", "pop3": "STLS"}[listener]
		if err := plain.Do("%s", command); err != nil {
			return nil, fmt.Errorf("asking for TLS: %w", err)
		}
	}
	config := &tls.Config{}
	if c.TLS != nil {
		config = c.TLS.Clone()
	}
	config.RootCAs = g.CA.Pool
	if config.ServerName == "" {
		config.ServerName = DefaultNames[0]
	}
	secured := tls.Client(raw, config)
	if err := secured.Handshake(); err != nil {
		return nil, fmt.Errorf("handshaking: %w", err)
	}
	client := newClient(secured, listener)
	client.Greeting = plain.Greeting
	if listener == "imaps" || listener == "pop3s" {
		greeting, err := client.Line()
		if err != nil {
			return nil, fmt.Errorf("reading the greeting: %w", err)
		}
		client.Greeting = greeting
	}
	return client, nil
}

// Login is Open and Client.Login.
func (c Caller) Login(g *Proxy, listener, user, password string) (*Client, error) {
	client, err := c.Open(g, listener)
	if err != nil {
		return nil, err
	}
	if err := client.Login(user, password); err != nil {
		client.Close()
		return nil, err
	}
	return client, nil
}

// Client is a mail client inside TLS that speaks one protocol.
type Client struct {
	net.Conn
	// Greeting is the first line, without its end.
	Greeting string

	in   *bufio.Reader
	imap bool
	tag  int
}

func newClient(c net.Conn, listener string) *Client {
	return &Client{Conn: c, in: bufio.NewReader(c), imap: strings.HasPrefix(listener, "imap")}
}

// Read takes what follows the lines read so far.
func (c *Client) Read(p []byte) (int, error) { return c.in.Read(p) }

// SlowDown lets the client read at most that many bytes a second from now on.
// What it has been sent so far must have been read.
func (c *Client) SlowDown(perSecond int) {
	begun, read := time.Now(), 0
	c.in = bufio.NewReader(readerFunc(func(p []byte) (int, error) {
		due := time.Duration(float64(read) / float64(perSecond) * float64(time.Second))
		time.Sleep(due - time.Since(begun))
		n, err := c.Conn.Read(p)
		read += n
		return n, err
	}))
}

// Stall lets the client read nothing for a while, once it has read so many
// bytes from now on. What it has been sent so far must have been read.
func (c *Client) Stall(after int, pause time.Duration) {
	read, stalled := 0, false
	c.in = bufio.NewReader(readerFunc(func(p []byte) (int, error) {
		if read > after && !stalled {
			stalled = true
			time.Sleep(pause)
		}
		n, err := c.Conn.Read(p)
		read += n
		return n, err
	}))
}

type readerFunc func(p []byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

// Line reads a line and returns it without its end.
func (c *Client) Line() (string, error) {
	line, err := c.in.ReadString('\n')
	return strings.TrimRight(line, "\r\n"), err
}

func (c *Client) positive(reply string) bool {
	return strings.HasPrefix(reply, "OK") || strings.HasPrefix(reply, "+OK")
}

// Command sends a command and returns the reply: over IMAP without its tag,
// and the untagged lines before it.
func (c *Client) Command(format string, args ...any) (reply string, untagged []string, err error) {
	command := fmt.Sprintf(format, args...) + "\r\n"
	if !c.imap {
		if _, err := io.WriteString(c.Conn, command); err != nil {
			return "", nil, err
		}
		reply, err = c.Line()
		return reply, nil, err
	}
	c.tag++
	tag := fmt.Sprintf("t%d ", c.tag)
	if _, err := io.WriteString(c.Conn, tag+command); err != nil {
		return "", nil, err
	}
	for {
		line, err := c.Line()
		if err != nil {
			return line, untagged, err
		}
		if rest, ok := strings.CutPrefix(line, tag); ok {
			return rest, untagged, nil
		}
		untagged = append(untagged, line)
	}
}

// Do is Command for one that must succeed.
func (c *Client) Do(format string, args ...any) error {
	reply, untagged, err := c.Command(format, args...)
	if err != nil {
		return fmt.Errorf("%.20q: %w after %q %q", format, err, untagged, reply)
	}
	if !c.positive(reply) {
		return fmt.Errorf("%.20q answered %q", format, reply)
	}
	return nil
}

// Login logs in by LOGIN, or by USER and PASS.
func (c *Client) Login(user, password string) error {
	if c.imap {
		return c.Do("LOGIN %q %q", user, password)
	}
	if err := c.Do("USER %s", user); err != nil {
		return err
	}
	return c.Do("PASS %s", password)
}

// Fetch returns message n, from 1; over IMAP that of INBOX.
func (c *Client) Fetch(n int) ([]byte, error) {
	if !c.imap {
		return c.retrieve(n)
	}
	if err := c.Do("EXAMINE INBOX"); err != nil {
		return nil, err
	}
	if _, err := fmt.Fprintf(c.Conn, "f FETCH %d BODY.PEEK[]\r\n", n); err != nil {
		return nil, err
	}
	line, err := c.Line()
	if err != nil {
		return nil, err
	}
	size, err := strconv.Atoi(strings.TrimSuffix(line[strings.LastIndexByte(line, '{')+1:], "}"))
	if err != nil {
		return nil, fmt.Errorf("FETCH answered %q", line)
	}
	message := make([]byte, size)
	if _, err := io.ReadFull(c.in, message); err != nil {
		return nil, err
	}
	for !strings.HasPrefix(line, "f OK") {
		if line, err = c.Line(); err != nil {
			return nil, err
		}
	}
	return message, nil
}

func (c *Client) retrieve(n int) ([]byte, error) {
	if err := c.Do("RETR %d", n); err != nil {
		return nil, err
	}
	var message []byte
	for {
		line, err := c.in.ReadBytes('\n')
		if err != nil {
			return nil, err
		}
		if string(line) == ".\r\n" {
			return message, nil
		}
		if line[0] == '.' {
			line = line[1:]
		}
		message = append(message, line...)
	}
}
