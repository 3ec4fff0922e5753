package hello

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// Kind is the kind of a server's first answer.
type Kind string

// The answers that a server may give to a hello.
const (
	Alert       Kind = "alert"        // a TLS alert: the hello is refused
	ServerHello Kind = "server hello" // accepted, also by a HelloRetryRequest
	SSLv2Server Kind = "ssl2 server hello"
	Text        Kind = "text"   // a line in plaintext
	Closed      Kind = "closed" // the connection ended in order, without a byte
)

// Answer is a server's first answer.
type Answer struct {
	Kind Kind
	// Level and Alert belong to the kind Alert: 1 warning, 2 fatal, and the
	// description (RFC 8446, Section 6).
	Level, Alert uint8
	// Version and CipherSuite are what a ServerHello chose; for SSLv2 only
	// the version.
	Version, CipherSuite uint16
	// Retry tells a HelloRetryRequest from a ServerHello proper.
	Retry bool
	// Text is the line without its line end, at most 1024 bytes.
	Text string
}

// maxText bounds a plaintext answer, maxHello a ServerHello, in bytes.
const (
	maxText  = 1024
	maxHello = 1 << 16
)

// retryRandom marks a HelloRetryRequest (RFC 8446, Section 4.1.3).
var retryRandom = []byte{
	0xcf, 0x21, 0xad, 0x74, 0xe5, 0x9a, 0x61, 0x11, 0xbe, 0x1d, 0x8c, 0x02, 0x1e, 0x65, 0xb8, 0x91,
	0xc2, 0xa2, 0x11, 0x16, 0x7a, 0xbb, 0x8c, 0x5e, 0x07, 0x9e, 0x09, 0xe2, 0xc8, 0xa8, 0x33, 0x9c,
}

var errMalformed = errors.New("malformed answer")

// Offer sends the first bytes of a client, and reads the first answer.
func Offer(rw io.ReadWriter, first []byte) (Answer, error) {
	if _, err := rw.Write(first); err != nil {
		return Answer{}, fmt.Errorf("sending the ClientHello: %w", err)
	}
	return ReadAnswer(rw)
}

// ReadAnswer reads a server's first answer, and may read beyond it. An end of
// the stream before the first byte is the kind Closed; an end amid the answer
// is io.ErrUnexpectedEOF, and other read errors come as they are, wrapped.
func ReadAnswer(r io.Reader) (Answer, error) {
	br := bufio.NewReader(r)
	first, err := br.Peek(1)
	if errors.Is(err, io.EOF) {
		return Answer{Kind: Closed}, nil
	}
	if err != nil {
		return Answer{}, fmt.Errorf("reading answer: %w", err)
	}
	var a Answer
	switch b := first[0]; {
	case b == recordAlert:
		a, err = readAlert(br)
	case b == recordHandshake:
		a, err = readServerHello(br)
	case b&0x80 != 0:
		a, err = readSSLv2(br)
	default:
		a, err = readText(br)
	}
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return a, fmt.Errorf("reading answer: %w", err)
	}
	return a, nil
}

func readRecord(r io.Reader) (kind byte, payload []byte, err error) {
	var header [recordHeader]byte
	if _, err := io.ReadFull(r, header[:]); err != nil {
		return 0, nil, err
	}
	n := int(binary.BigEndian.Uint16(header[3:]))
	if header[1] != 3 || n == 0 || n > maxRecord+2048 {
		return 0, nil, errMalformed
	}
	payload = make([]byte, n)
	_, err = io.ReadFull(r, payload)
	return header[0], payload, err
}

func readAlert(r io.Reader) (Answer, error) {
	_, payload, err := readRecord(r)
	if err != nil {
		return Answer{}, err
	}
	if len(payload) != 2 {
		return Answer{}, errMalformed
	}
	return Answer{Kind: Alert, Level: payload[0], Alert: payload[1]}, nil
}

// readServerHello collects records until the first message is whole.
func readServerHello(r io.Reader) (Answer, error) {
	var message []byte
	for {
		kind, payload, err := readRecord(r)
		if err != nil {
			return Answer{}, err
		}
		if kind != recordHandshake {
			return Answer{}, errMalformed
		}
		message = append(message, payload...)
		if len(message) < messageHeader {
			continue
		}
		n := int(message[1])<<16 | int(message[2])<<8 | int(message[3])
		if message[0] != typeServerHello || n > maxHello {
			return Answer{}, errMalformed
		}
		if len(message) >= messageHeader+n {
			return parseServerHello(message[messageHeader : messageHeader+n])
		}
	}
}

// parseServerHello reads the fixed part, and the version that TLS 1.3 moved
// into an extension (RFC 8446, Sections 4.1.3 and 4.2.1).
func parseServerHello(b []byte) (Answer, error) {
	const fixed = 2 + 32 + 1
	if len(b) < fixed {
		return Answer{}, errMalformed
	}
	a := Answer{Kind: ServerHello, Version: binary.BigEndian.Uint16(b)}
	a.Retry = bytes.Equal(b[2:34], retryRandom)
	rest := b[fixed:]
	if sessionID := int(b[34]); len(rest) < sessionID+3 {
		return Answer{}, errMalformed
	} else {
		rest = rest[sessionID:]
	}
	a.CipherSuite = binary.BigEndian.Uint16(rest)
	if rest = rest[3:]; len(rest) == 0 {
		return a, nil
	}
	if len(rest) < 2 || int(binary.BigEndian.Uint16(rest)) != len(rest)-2 {
		return Answer{}, errMalformed
	}
	for rest = rest[2:]; len(rest) > 0; {
		if len(rest) < 4 {
			return Answer{}, errMalformed
		}
		number, n := binary.BigEndian.Uint16(rest), int(binary.BigEndian.Uint16(rest[2:]))
		if rest = rest[4:]; len(rest) < n {
			return Answer{}, errMalformed
		}
		if number == extSupportedVersions && n == 2 {
			a.Version = binary.BigEndian.Uint16(rest)
		}
		rest = rest[n:]
	}
	return a, nil
}

// readSSLv2 knows the SERVER-HELLO by its type, 4, behind the two-byte
// header, and takes its version.
func readSSLv2(r io.Reader) (Answer, error) {
	var b [7]byte
	if _, err := io.ReadFull(r, b[:]); err != nil {
		return Answer{}, err
	}
	if b[2] != 4 {
		return Answer{}, errMalformed
	}
	return Answer{Kind: SSLv2Server, Version: binary.BigEndian.Uint16(b[5:])}, nil
}

// readText takes one line, or what came before the end of the stream.
func readText(r io.Reader) (Answer, error) {
	line, err := bufio.NewReader(io.LimitReader(r, maxText)).ReadBytes('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return Answer{}, err
	}
	for _, c := range bytes.TrimRight(line, "\r\n") {
		if c < ' ' && c != '\t' || c == 0x7f {
			return Answer{}, errMalformed
		}
	}
	return Answer{Kind: Text, Text: string(bytes.TrimRight(line, "\r\n"))}, nil
}
