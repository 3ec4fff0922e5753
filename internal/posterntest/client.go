package posterntest

import (
	"bufio"
	"bytes"
	"cmp"
	"compress/flate"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// clientTimeout bounds each read and write of a Client, if nothing else is said.
const clientTimeout = 30 * time.Second

// Caller is how a client comes to the proxy. The zero Caller comes from
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

// Dial comes to the proxy over a listener.
func (c Caller) Dial(g *Proxy, listener string) (*net.TCPConn, error) {
	dialer := net.Dialer{Timeout: clientTimeout}
	if c.From != "" {
		dialer.LocalAddr = &net.TCPAddr{IP: net.ParseIP(c.From)}
	}
	conn, err := dialer.Dial("tcp", cmp.Or(c.To, g.Addr(listener)))
	if err != nil {
		return nil, err
	}
	conn.SetDeadline(time.Now().Add(clientTimeout))
	if _, err := conn.Write(c.Header); err != nil {
		conn.Close()
		return nil, err
	}
	return conn.(*net.TCPConn), nil
}

// DialForTLS is Dial as far as the client's hello: on imap and pop3 it reads
// the greeting and asks for STARTTLS or STLS.
func (c Caller) DialForTLS(g *Proxy, listener string) (*net.TCPConn, error) {
	conn, err := c.Dial(g, listener)
	if err != nil || strings.HasSuffix(listener, "s") {
		return conn, err
	}
	client := NewClient(conn, listener)
	greeting, err := client.Line()
	switch {
	case err != nil:
		err = fmt.Errorf("reading the greeting before TLS: %w", err)
	case !positive(strings.TrimPrefix(greeting, "* ")):
		err = fmt.Errorf("greeted with %q", greeting)
	default:
		err = client.askForTLS()
	}
	if err != nil {
		conn.Close()
		return nil, err
	}
	conn.SetDeadline(time.Now().Add(clientTimeout))
	return conn, nil
}

// Open comes to the proxy over a listener, through TLS. On imaps and pop3s it
// reads the greeting.
func (c Caller) Open(g *Proxy, listener string) (*Client, error) {
	conn, err := c.DialForTLS(g, listener)
	if err != nil {
		return nil, err
	}
	config := &tls.Config{}
	if c.TLS != nil {
		config = c.TLS.Clone()
	}
	config.RootCAs = g.CA.Pool
	config.ServerName = cmp.Or(config.ServerName, DefaultNames[0])
	client := NewClient(conn, listener)
	err = client.secure(config)
	if err == nil && strings.HasSuffix(listener, "s") {
		if client.Greeting, err = client.Line(); err != nil {
			err = fmt.Errorf("reading the greeting: %w", err)
		}
	}
	if err != nil {
		conn.Close()
		return nil, err
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

// Client is one end of a dialogue in lines: a mail client, or a mail server
// that a test plays. Its methods that take a test fail it, the others return
// errors. No read or write takes longer than its Timeout.
type Client struct {
	net.Conn
	// Name stands in what a test says when it fails.
	Name string
	// Greeting is the first line inside TLS, without its end, where Open has
	// read it: not where TLS began with STARTTLS or STLS.
	Greeting string
	// Timeout bounds each read and write.
	Timeout time.Duration

	in      *bufio.Reader
	out     flushWriter
	imap    bool
	tag     int
	silence time.Duration // bounds a read that is to bring nothing
}

type flushWriter interface {
	io.Writer
	Flush() error
}

// NewClient speaks IMAP, or POP3 where the listener or protocol is not
// named for IMAP.
func NewClient(c net.Conn, protocol string) *Client {
	client := &Client{Conn: c, Name: "client", Timeout: clientTimeout, imap: strings.HasPrefix(protocol, "imap")}
	client.in = bufio.NewReader(readerFunc(client.receive))
	return client
}

func (c *Client) receive(p []byte) (int, error) {
	c.Conn.SetReadDeadline(time.Now().Add(cmp.Or(c.silence, c.Timeout)))
	return c.Conn.Read(p)
}

// Read takes what follows the lines read so far.
func (c *Client) Read(p []byte) (int, error) { return c.in.Read(p) }

// Write sends p as it stands.
func (c *Client) Write(p []byte) (n int, err error) {
	c.Conn.SetWriteDeadline(time.Now().Add(c.Timeout))
	if c.out == nil {
		return c.Conn.Write(p)
	}
	if n, err = c.out.Write(p); err != nil {
		return n, err
	}
	return n, c.out.Flush()
}

// StartTLS asks for TLS by STARTTLS or STLS, and goes on inside it.
func (c *Client) StartTLS(config *tls.Config) error {
	if err := c.askForTLS(); err != nil {
		return err
	}
	return c.secure(config)
}

func (c *Client) askForTLS() error {
	command := "STLS"
	if c.imap {
		command = "STARTTLS"
	}
	if err := c.Do("%s", command); err != nil {
		return fmt.Errorf("asking for TLS: %w", err)
	}
	return nil
}

func (c *Client) secure(config *tls.Config) error {
	secured := tls.Client(c.Conn, config)
	c.Conn.SetDeadline(time.Now().Add(c.Timeout))
	if err := secured.Handshake(); err != nil {
		return fmt.Errorf("handshaking: %w", err)
	}
	c.Conn = secured
	return nil
}

// SlowDown lets the client read at most that many bytes a second from now on.
// What it has been sent so far must have been read.
func (c *Client) SlowDown(perSecond int) {
	begun, read := time.Now(), 0
	c.in = bufio.NewReader(readerFunc(func(p []byte) (int, error) {
		due := time.Duration(float64(read) / float64(perSecond) * float64(time.Second))
		time.Sleep(due - time.Since(begun))
		n, err := c.receive(p)
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
		n, err := c.receive(p)
		read += n
		return n, err
	}))
}

type readerFunc func(p []byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

// Line reads a line, which must end in CRLF, and returns it without.
func (c *Client) Line() (string, error) {
	line, err := c.in.ReadString('\n')
	text, ended := strings.CutSuffix(line, "\r\n")
	if err == nil && !ended {
		err = fmt.Errorf("the line %.80q does not end in CRLF", line)
	}
	return text, err
}

// Reply is what comes to a command.
type Reply struct {
	// Text is the final line, over IMAP without its tag.
	Text string
	// Untagged lines stand before it, over IMAP.
	Untagged []Response
}

// Response is a line of an IMAP server, with its literals taken out.
type Response struct {
	Line     string
	Literals [][]byte
}

// OK tells whether the command succeeded.
func (r Reply) OK() bool { return positive(r.Text) }

func positive(text string) bool {
	return strings.HasPrefix(text, "OK") || strings.HasPrefix(text, "+OK")
}

// Command sends a command and returns the reply.
func (c *Client) Command(format string, args ...any) (Reply, error) {
	if err := c.Start(format, args...); err != nil {
		return Reply{}, err
	}
	return c.Finish()
}

// Start sends a command, over IMAP with the next tag.
func (c *Client) Start(format string, args ...any) error {
	command := fmt.Sprintf(format, args...) + "\r\n"
	if c.imap {
		c.tag++
		command = fmt.Sprintf("t%d %s", c.tag, command)
	}
	_, err := io.WriteString(c, command)
	return err
}

// Finish returns the reply to the command that was started last.
func (c *Client) Finish() (reply Reply, err error) {
	if !c.imap {
		reply.Text, err = c.Line()
		return reply, err
	}
	for {
		response, err := c.response()
		if err != nil {
			return reply, err
		}
		var ended bool
		if reply.Text, ended = strings.CutPrefix(response.Line, fmt.Sprintf("t%d ", c.tag)); ended {
			return reply, nil
		}
		reply.Untagged = append(reply.Untagged, response)
	}
}

var literalEnd = regexp.MustCompile(`\{(\d+)\}$`)

func (c *Client) response() (r Response, err error) {
	for {
		line, err := c.Line()
		if err != nil {
			return r, err
		}
		r.Line += line
		size := literalEnd.FindStringSubmatch(line)
		if size == nil {
			return r, nil
		}
		n, err := strconv.Atoi(size[1])
		if err != nil {
			return r, err
		}
		literal := make([]byte, n)
		if _, err := io.ReadFull(c.in, literal); err != nil {
			return r, fmt.Errorf("reading a literal of %d bytes: %w", n, err)
		}
		r.Literals = append(r.Literals, literal)
	}
}

// Do is Command for one that must succeed.
func (c *Client) Do(format string, args ...any) error {
	reply, err := c.Command(format, args...)
	if err != nil {
		return fmt.Errorf("%.20q: %w after %.200q", format, err, reply)
	}
	if !reply.OK() {
		return fmt.Errorf("%.20q answered %q", format, reply.Text)
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
		if err := c.Do("RETR %d", n); err != nil {
			return nil, err
		}
		_, message, err := c.Multiline()
		return message, err
	}
	if err := c.Do("EXAMINE INBOX"); err != nil {
		return nil, err
	}
	reply, err := c.Command("FETCH %d BODY.PEEK[]", n)
	if err != nil {
		return nil, err
	}
	for _, r := range reply.Untagged {
		if len(r.Literals) == 1 {
			return r.Literals[0], nil
		}
	}
	return nil, fmt.Errorf("FETCH answered %.200q", reply)
}

// Multiline reads up to the line of a single dot, and returns what came both
// as it was on the wire and with its dots unstuffed (RFC 1939, Section 3).
func (c *Client) Multiline() (wire, text []byte, err error) {
	for {
		line, err := c.in.ReadBytes('\n')
		if err != nil {
			return wire, text, fmt.Errorf("reading a multi-line reply: %w", err)
		}
		wire = append(wire, line...)
		if string(line) == ".\r\n" {
			return wire, text, nil
		}
		text = append(text, bytes.TrimPrefix(line, []byte("."))...)
	}
}

// Compress turns on COMPRESS=DEFLATE (RFC 4978): raw deflate both ways from
// the byte after the OK.
func (c *Client) Compress() error {
	if err := c.Do("COMPRESS DEFLATE"); err != nil {
		return err
	}
	w, err := flate.NewWriter(c.Conn, flate.DefaultCompression)
	if err != nil {
		return err
	}
	c.out, c.in = w, bufio.NewReader(flate.NewReader(c.in))
	return nil
}
