package proxy

import (
	"cmp"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"time"

	"postern/internal/netpoll"
	"postern/policy"
)

// clientConn is the client's socket, and the net.Conn that crypto/tls is given. What it
// does not define here (Start, Next, Park, ShortenDeadline, WriteLast) is netpoll.Conn's.
// It can peek at bytes before they are read, and it remembers the alerts that passed in
// clear, in either direction: crypto/tls does not say which alert it sent, and takes a
// TLS 1.3 client's alert in clear for a bad record.
type clientConn struct {
	netpoll.Conn
	s *session
	// unread are bytes that were read from the socket ahead of Read, and readErr what
	// ended that: the kernel reports a reset only once.
	unread  []byte
	readErr error
	// handshaking: watch for alerts; answered: something has been sent in answer.
	handshaking, answered bool
	// alertSent is the last fatal alert that was sent in clear; tail are the last bytes
	// that came.
	alertSent tls.AlertError
	tail      [alertRecordLen]byte
	// ahead is what unread lies in, where that is from the pool.
	ahead   *netpoll.Buffer
	records records
	// recordwise: a read returns no more than a record's header, or what follows it.
	recordwise bool
	// recorder has the hello until it is judged.
	recorder recorder
	// splits: crypto/tls makes two records of one write.
	splits bool
}

// The fatal alerts that Postern tells apart (RFC 8446, Section 6).
const (
	noAlert tls.AlertError = 0 // close_notify, which is never fatal

	alertHandshakeFailure      tls.AlertError = 40
	alertDecodeError           tls.AlertError = 50
	alertProtocolVersion       tls.AlertError = 70
	alertInternalError         tls.AlertError = 80
	alertInappropriateFallback tls.AlertError = 86
	alertNoApplicationProtocol tls.AlertError = 120
)

// Content types of TLS records (RFC 8446, Appendix B.1), and lengths in bytes.
const (
	recordChangeCipherSpec = 20
	recordAlert            = 21
	recordHandshake        = 22
	recordApplicationData  = 23

	recordHeaderLen = 5
	alertRecordLen  = 7
)

// Read returns what is unread first.
func (c *clientConn) Read(p []byte) (int, error) {
	if c.recordwise {
		if len(c.unread) == 0 && c.readErr == nil {
			buf := netpoll.GetBuffer()
			n, err := c.Conn.Read(buf[:])
			if n == 0 {
				buf.Put()
				return 0, err
			}
			c.ahead, c.unread = buf, buf[:n]
		}
		p = p[:min(len(p), c.records.left())]
	}
	if len(c.unread) > 0 {
		n := copy(p, c.unread)
		c.took(p[:n])
		if c.unread = c.unread[n:]; len(c.unread) == 0 {
			if c.ahead != nil {
				c.ahead.Put()
			}
			c.ahead, c.unread = nil, nil
		}
		return n, nil
	}
	if c.readErr != nil {
		return 0, c.readErr
	}
	n, err := c.Conn.Read(p)
	if c.handshaking {
		c.recorder.add(p[:n])
	}
	c.took(p[:n])
	return n, err
}

// took notes what Read returns.
func (c *clientConn) took(p []byte) {
	c.records.advance(p)
	if c.handshaking {
		n := min(len(p), len(c.tail))
		copy(c.tail[:], c.tail[n:])
		copy(c.tail[len(c.tail)-n:], p[len(p)-n:])
	}
}

// records knows where TLS records end in what crypto/tls has been given. The buffer of
// crypto/tls grows to whatever one Read returns, and is kept for the life of the
// connection (golang/go#43563): so a Read returns no more than a record.
type records struct {
	header int // bytes of it that have been given
	length int // of what is behind it and has not been given
}

// left is how much is left of the header or of what is behind it.
func (r *records) left() int {
	if r.length > 0 && r.header == 0 {
		return r.length
	}
	return recordHeaderLen - r.header
}

// advance notes that p has been given.
func (r *records) advance(p []byte) {
	for len(p) > 0 {
		if r.header == 0 && r.length > 0 {
			n := min(r.length, len(p))
			r.length -= n
			p = p[n:]
			continue
		}
		switch r.header {
		case recordHeaderLen - 2:
			r.length = int(p[0]) << 8
		case recordHeaderLen - 1:
			r.length |= int(p[0])
		}
		r.header = (r.header + 1) % recordHeaderLen
		p = p[1:]
	}
}

// Write sends p. crypto/tls gathers a flight into one write, so that an alert
// may stand behind other records.
func (c *clientConn) Write(p []byte) (int, error) {
	switch {
	case !c.handshaking:
		return c.Conn.Write(p)
	case c.recorder.holding:
		return len(p), nil
	case isAlert(p[max(0, len(p)-alertRecordLen):]):
		return c.writeAlert(p)
	}
	c.answered = true
	return c.Conn.Write(p)
}

// writeAlert sends what ends in an alert of crypto/tls. The first record of an answer has
// the version of the hello, where crypto/tls would say TLS 1.0: old clients read no
// other. And a hello that crypto/tls cannot read is judged now.
func (c *clientConn) writeAlert(p []byte) (int, error) {
	c.alertSent = tls.AlertError(p[len(p)-1])
	if c.answered || len(p) > alertRecordLen {
		return c.Conn.Write(p)
	}
	hs := c.s.hs
	hs.legacyVersion = cmp.Or(hs.legacyVersion, c.recorder.version())
	if hs.hello == nil || hs.hello.Unreadable {
		c.alertSent = c.s.judgeUnreadable(c.alertSent)
	}
	if c.recorder.holding {
		return len(p), nil
	}
	_, err := c.Conn.Write(alertRecord(c.alertSent, hs.legacyVersion))
	return len(p), err
}

// tlsConn is the client's TLS on top of its clientConn.
type tlsConn struct {
	*tls.Conn
	raw     *clientConn
	writers sync.Mutex // one write of two records at a time
}

// Write writes p. In TLS 1.0 crypto/tls makes two records of it where the suite is one of
// CBC, with one byte in the first, against an attack on its initialization vectors
// (CVE-2011-3389). They leave together: there are programs that take what one read
// returns for a line, and OpenSSL's servers send one record.
func (c *tlsConn) Write(p []byte) (int, error) {
	if !c.raw.splits {
		return c.Conn.Write(p)
	}
	c.writers.Lock()
	defer c.writers.Unlock()
	return c.raw.Together(func() (int, error) { return c.Conn.Write(p) })
}

// endedWithAlert reports whether the last bytes that came are a fatal alert in
// clear: 15 03 0x 00 02 02 NN.
func (c *clientConn) endedWithAlert() bool { return isAlert(c.tail[:]) }

// alertRecord is a fatal alert in a record of the version that the hello names as its
// own; NoVersion stands for TLS 1.0.
func alertRecord(a tls.AlertError, hello policy.Version) []byte {
	version := min(max(cmp.Or(hello, policy.TLS10), policy.SSL3), policy.TLS12)
	return []byte{recordAlert, byte(version >> 8), byte(version), 0, 2, 2, byte(a)}
}

// isAlert reports whether b is the record of a fatal alert, in clear.
func isAlert(b []byte) bool {
	return len(b) == alertRecordLen && b[0] == recordAlert && b[1] == 3 && b[3] == 0 && b[4] == 2 && b[5] == 2
}

// peek returns at least n bytes, and more if they came along, without taking
// them; fewer with an error.
func (c *clientConn) peek(n int) ([]byte, error) {
	for len(c.unread) < n {
		if c.readErr != nil {
			return c.unread, c.readErr
		}
		have := len(c.unread)
		if cap(c.unread) < n {
			c.unread = append(make([]byte, 0, max(n, minPeek)), c.unread...)
		}
		got, err := c.Conn.Read(c.unread[have:cap(c.unread)])
		c.unread = c.unread[:have+got]
		if err != nil && endingOf(err) != endTimeout {
			c.readErr = err
		} else if err != nil {
			return c.unread, err
		}
	}
	return c.unread, nil
}

// minPeek is what is made room for at least: most hellos fit.
const minPeek = 2 << 10

// hasInput reports whether the client has sent anything that was not read yet,
// here or in the kernel.
func (c *clientConn) hasInput() bool {
	return len(c.unread) > 0 || c.Pending()
}

const (
	// lingerTime and lingerBytes bound what is discarded after the last word to a
	// client, so that a reset does not overtake it.
	lingerTime  = time.Second
	lingerBytes = 64 << 10
)

// linger closes the write side, discards what still comes, and closes.
func (c *clientConn) linger() {
	c.CloseWrite()
	c.SetReadDeadline(time.Now().Add(lingerTime))
	io.CopyN(io.Discard, &c.Conn, lingerBytes)
	c.Close()
}

// finish closes; where the client has sent more than was read, after a linger.
func (c *clientConn) finish() {
	if c.hasInput() {
		c.linger()
		return
	}
	c.Close()
}

// ending sorts the errors that end a connection.
type ending uint8

const (
	endClosed  ending = iota // in order
	endTimeout               // a deadline that Postern has set
	endReset                 // any other error
)

func endingOf(err error) ending {
	switch {
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, net.ErrClosed):
		return endClosed
	case errors.Is(err, os.ErrDeadlineExceeded):
		return endTimeout
	}
	return endReset
}
