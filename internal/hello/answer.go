package hello

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"

	"golang.org/x/crypto/cryptobyte"
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
// the stream before the first byte is the kind Closed; an end inside the answer
// is io.ErrUnexpectedEOF. Other read errors are wrapped.
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
	if err == nil && len(payload) != 2 {
		err = errMalformed
	}
	if err != nil {
		return Answer{}, err
	}
	return Answer{Kind: Alert, Level: payload[0], Alert: payload[1]}, nil
}

// readServerHello collects records until the first message is complete.
func readServerHello(r io.Reader) (Answer, error) {
	var message []byte
	for {
		kind, payload, err := readRecord(r)
		if err != nil {
			return Answer{}, err
		}
		message = append(message, payload...)
		if kind != recordHandshake || message[0] != typeServerHello || len(message) > maxHello {
			return Answer{}, errMalformed
		}
		in := cryptobyte.String(message[1:])
		var body cryptobyte.String
		if in.ReadUint24LengthPrefixed(&body) {
			return parseServerHello(body)
		}
	}
}

// parseServerHello reads the fixed part, and the version that TLS 1.3 moved
// into an extension (RFC 8446, Sections 4.1.3 and 4.2.1).
func parseServerHello(in cryptobyte.String) (Answer, error) {
	a := Answer{Kind: ServerHello}
	var random []byte
	var sessionID, extensions cryptobyte.String
	if !in.ReadUint16(&a.Version) || !in.ReadBytes(&random, 32) || !in.ReadUint8LengthPrefixed(&sessionID) ||
		!in.ReadUint16(&a.CipherSuite) || !in.Skip(1) ||
		!in.Empty() && (!in.ReadUint16LengthPrefixed(&extensions) || !in.Empty()) {
		return Answer{}, errMalformed
	}
	a.Retry = bytes.Equal(random, retryRandom)
	for !extensions.Empty() {
		var number uint16
		var data cryptobyte.String
		if !extensions.ReadUint16(&number) || !extensions.ReadUint16LengthPrefixed(&data) {
			return Answer{}, errMalformed
		}
		if number == extSupportedVersions && len(data) == 2 {
			data.ReadUint16(&a.Version)
		}
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

// readText reads one line, or the rest of the stream.
func readText(r io.Reader) (Answer, error) {
	line, err := bufio.NewReader(io.LimitReader(r, maxText)).ReadBytes('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return Answer{}, err
	}
	text := string(bytes.TrimRight(line, "\r\n"))
	if strings.ContainsFunc(text, func(c rune) bool { return c < ' ' && c != '\t' || c == 0x7f }) {
		return Answer{}, errMalformed
	}
	return Answer{Kind: Text, Text: text}, nil
}
