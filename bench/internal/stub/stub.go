// Package stub is the plaintext mail server behind every subject: just enough
// IMAP and POP3 to be driven, and cheap enough not to be what is measured. It
// takes any credentials and forgets what is stored, and it reads past a PROXY
// header (v1 or v2), IMAP ID and XCLIENT.
package stub

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
)

// Ports is what Main prints, as JSON, once it serves.
type Ports struct{ IMAP, POP3, AuthHTTP int }

// Main serves until stdin ends, which it does when the harness is gone.
func Main() error {
	var p Ports
	for _, s := range []struct {
		port  *int
		serve func(net.Listener)
	}{
		{&p.IMAP, accept(imap)},
		{&p.POP3, accept(pop3)},
		{&p.AuthHTTP, func(l net.Listener) { http.Serve(l, authHTTP(&p)) }},
	} {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return err
		}
		*s.port = l.Addr().(*net.TCPAddr).Port
		go s.serve(l)
	}
	if err := json.NewEncoder(os.Stdout).Encode(p); err != nil {
		return err
	}
	io.Copy(io.Discard, os.Stdin)
	return nil
}

// accept makes a server of what serves one connection.
func accept(serve func(*conn)) func(net.Listener) {
	return func(l net.Listener) {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				serve(&conn{Conn: c, r: bufio.NewReaderSize(c, 512)})
			}()
		}
	}
}

// authHTTP answers nginx's mail proxy: every login is good, go to the stub.
func authHTTP(p *Ports) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		port := p.IMAP
		if r.Header.Get("Auth-Protocol") == "pop3" {
			port = p.POP3
		}
		h := w.Header()
		h.Set("Auth-Status", "OK")
		h.Set("Auth-Server", "127.0.0.1")
		h.Set("Auth-Port", strconv.Itoa(port))
	})
}

// conn is one connection.
type conn struct {
	net.Conn
	r *bufio.Reader
}

// send writes a string.
func (c *conn) send(s string) error {
	_, err := io.WriteString(c.Conn, s)
	return err
}

// line reads one line without its CRLF.
func (c *conn) line() (string, error) {
	b, err := c.r.ReadSlice('\n')
	if err == bufio.ErrBufferFull { // a long line: give up speed, keep going
		b = bytes.Clone(b)
		var rest []byte
		rest, err = c.r.ReadBytes('\n')
		b = append(b, rest...)
	}
	if err != nil {
		return "", err
	}
	return strings.TrimRight(string(b), "\r\n"), nil
}

// proxyV2 is how a PROXY header of version 2 begins.
var proxyV2 = []byte("\r\n\r\n\x00\r\nQUIT\n")

// skipProxy reads past a PROXY header. The greeting has already gone out,
// since whether a header comes is not known before the client's first byte.
func (c *conn) skipProxy() error {
	b, err := c.r.Peek(1)
	if err != nil {
		return err
	}
	switch b[0] {
	case '\r':
		h, err := c.r.Peek(16)
		if err != nil || !bytes.HasPrefix(h, proxyV2) {
			return err
		}
		_, err = c.r.Discard(16 + int(binary.BigEndian.Uint16(h[14:])))
		return err
	case 'P':
		if h, err := c.r.Peek(6); err == nil && string(h) == "PROXY " {
			_, err = c.line()
			return err
		}
	}
	return nil
}

// sasl asks for as many lines as a mechanism needs beyond the one that may
// stand in the command, and believes them.
func (c *conn) sasl(args string) error {
	mechanism, initial, _ := strings.Cut(args, " ")
	asks := 1
	if strings.EqualFold(mechanism, "LOGIN") {
		asks = 2
	}
	if initial != "" {
		asks--
	}
	for range asks {
		if err := c.send("+ \r\n"); err != nil {
			return err
		}
		if _, err := c.line(); err != nil {
			return err
		}
	}
	return nil
}

// scratch is for what is read and forgotten.
var scratch = sync.Pool{New: func() any { return new([64 << 10]byte) }}

// discard reads n octets and forgets them.
func (c *conn) discard(n int) error {
	b := scratch.Get().(*[64 << 10]byte)
	defer scratch.Put(b)
	for n > 0 {
		got, err := c.r.Read(b[:min(n, len(b))])
		if err != nil {
			return err
		}
		n -= got
	}
	return nil
}

// body is about one MB of message text, in whole lines of 78 octets.
var body = bytes.Repeat([]byte(strings.Repeat("postern bench ", 6)[:76]+"\r\n"), (1<<20)/78)

// sendBody sends octets of body, over and over.
func (c *conn) sendBody(octets int) error {
	for octets > 0 {
		n, err := c.Write(body[:min(octets, len(body))])
		if err != nil {
			return err
		}
		octets -= n
	}
	return nil
}

// bodySize is the size of a message of about mb MB, in whole bodies.
func bodySize(mb int) int { return max(1, min(mb, 1024)) * len(body) }
