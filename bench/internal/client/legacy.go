package client

import (
	"io"
	"net"
	"time"
)

// Legacy is a first flight that a server with a floor of TLS 1.2 rejects.
type Legacy struct {
	Name  string
	Bytes []byte
}

// Legacies are the flights probed; the first, TLS 1.0, is the one measured.
func Legacies() []Legacy {
	sslv2 := []byte{
		0x80, 0x2e, 1, 0, 2, 0, 0x15, 0, 0, 0, 0x10,
		1, 0, 0x80, 2, 0, 0x80, 3, 0, 0x80, 4, 0, 0x80, 5, 0, 0x80, 6, 0, 0x40, 7, 0, 0xc0,
	}
	return []Legacy{
		{"TLS 1.0", hello(0x0301, true)},
		{"TLS 1.1", hello(0x0302, true)},
		{"SSL 3.0", hello(0x0300, false)},
		{"SSL 2.0", append(sslv2, make([]byte, 16)...)},
		{"plaintext IMAP", []byte("a NOOP\r\n")},
	}
}

// hello is a ClientHello as a client of that version, and no newer, sends.
func hello(version uint16, extensions bool) []byte {
	v := []byte{byte(version >> 8), byte(version)}
	b := append([]byte{}, v...)
	for i := range 32 {
		b = append(b, byte(i*7+1)) // "random"
	}
	b = append(b, 0) // no session id
	suites := []byte{0xc0, 0x0a, 0xc0, 0x14, 0xc0, 0x09, 0xc0, 0x13, 0x00, 0x35, 0x00, 0x2f, 0x00, 0x0a}
	b = append(b, 0, byte(len(suites)))
	b = append(b, suites...)
	b = append(b, 1, 0) // null compression
	if extensions {
		name := "mail.bench.test"
		n := len(name)
		var e []byte
		e = append(e, 0, 0, 0, byte(n+5), 0, byte(n+3), 0, 0, byte(n))
		e = append(e, name...)
		e = append(e, 0, 10, 0, 6, 0, 4, 0, 23, 0, 24) // P-256, P-384
		e = append(e, 0, 11, 0, 2, 1, 0)               // uncompressed points
		b = append(b, 0, byte(len(e)))
		b = append(b, e...)
	}
	msg := append([]byte{1, 0, byte(len(b) >> 8), byte(len(b))}, b...)
	rec := append([]byte{22, v[0], v[1], byte(len(msg) >> 8), byte(len(msg))}, msg...)
	return rec
}

// Refused sends a flight and reads what comes back until the server closes.
func Refused(addr string, from net.IP, flight []byte) (answer []byte, err error) {
	d := net.Dialer{Timeout: Timeout, KeepAlive: -1, LocalAddr: &net.TCPAddr{IP: from}}
	c, err := d.Dial("tcp", addr)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(5 * time.Second))
	if _, err := c.Write(flight); err != nil {
		return nil, err
	}
	var buf [256]byte
	for len(answer) < 4096 {
		n, err := c.Read(buf[:])
		answer = append(answer, buf[:n]...)
		if err == io.EOF {
			return answer, nil
		}
		if err != nil {
			return answer, err
		}
	}
	return answer, nil
}
