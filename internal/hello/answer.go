package hello

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"io"
	"strings"

	"golang.org/x/crypto/cryptobyte"

	"postern/policy"
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
	// Kinds is how many of the cipher kinds of SSLv2 both know.
	Kinds int
	// Group is that of the key share in a ServerHello or HelloRetryRequest of TLS 1.3,
	// and that of the ServerKeyExchange in a Flight of TLS 1.2 or below.
	Group tls.CurveID
	// Text is the line without its line end, at most 1024 bytes.
	Text string
}

// maxText bounds a plaintext answer, in bytes.
const maxText = 1024

var errMalformed = errors.New("the answer is malformed")

// ReadFlight reads a server's answer to the end of its first flight: up to TLS 1.2
// that is the ServerHelloDone, and a server that gives up before has refused. It may read
// beyond. An end of the stream before the first byte is the kind Closed; an end inside
// the flight is io.ErrUnexpectedEOF, with what came until then.
func ReadFlight(r io.Reader) (f Flight, err error) {
	br := bufio.NewReader(r)
	first, err := br.Peek(1)
	switch {
	case errors.Is(err, io.EOF):
		f.Kind = Closed
		return f, nil
	case err != nil:
	case first[0] == recordAlert || first[0] == RecordHandshake:
		err = f.readRecords(br)
	case first[0]&0x80 != 0:
		f.Answer, err = readSSLv2(br)
	default:
		f.Answer, err = readText(br)
	}
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return f, err
}

func readRecord(r io.Reader) (kind byte, payload []byte, err error) {
	var header [RecordHeader]byte
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

// serverHello reads the fixed part, and the version and the group that TLS 1.3 moved
// into extensions (RFC 8446, Sections 4.1.3, 4.2.1 and 4.2.8).
func (a *Answer) serverHello(in cryptobyte.String) (ok bool) {
	a.Kind = ServerHello
	var sessionID, extensions cryptobyte.String
	if !in.ReadUint16(&a.Version) || !in.Skip(32) || !in.ReadUint8LengthPrefixed(&sessionID) ||
		!in.ReadUint16(&a.CipherSuite) || !in.Skip(1) ||
		!in.Empty() && (!in.ReadUint16LengthPrefixed(&extensions) || !in.Empty()) {
		return false
	}
	for !extensions.Empty() {
		var number uint16
		var data cryptobyte.String
		if !extensions.ReadUint16(&number) || !extensions.ReadUint16LengthPrefixed(&data) {
			return false
		}
		switch {
		case number == ExtSupportedVersions && len(data) == 2:
			data.ReadUint16(&a.Version)
		case number == extKeyShare:
			data.ReadUint16((*uint16)(&a.Group))
		}
	}
	return true
}

// readSSLv2 knows the SERVER-HELLO by its type, 4, behind the two-byte
// header, and takes its version and how many cipher kinds it lists.
func readSSLv2(r io.Reader) (Answer, error) {
	var b [11]byte
	switch _, err := io.ReadFull(r, b[:]); {
	case err != nil:
		return Answer{}, err
	case b[2] != 4:
		return Answer{}, errMalformed
	}
	return Answer{Kind: SSLv2Server, Version: binary.BigEndian.Uint16(b[5:]), Kinds: int(binary.BigEndian.Uint16(b[9:]) / 3)}, nil
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

// Flight is all that a server says before it waits for the client again. In TLS 1.3
// what follows the ServerHello is encrypted, and missing here.
type Flight struct {
	Answer
	// Certificates are in DER, as they stand in the message.
	Certificates [][]byte
	// Prime is the length of the prime of finite-field Diffie-Hellman, in bits.
	Prime int
	// Scheme is with what the server signed its key exchange in TLS 1.2.
	Scheme tls.SignatureScheme
}

// maxFlight bounds a server's first flight, in bytes.
const maxFlight = 64 << 10

// readRecords collects records until the last message is complete, or there is an alert in
// the place of one.
func (f *Flight) readRecords(r io.Reader) error {
	var buf cryptobyte.String
	for left := maxFlight; ; {
		record, payload, err := readRecord(r)
		left -= RecordHeader + len(payload)
		switch {
		case err != nil:
			return err
		case record == recordAlert && len(payload) == 2 && buf.Empty():
			*f = Flight{Answer: Answer{Kind: Alert, Level: payload[0], Alert: payload[1]}}
			return nil
		case record != RecordHandshake || left < 0:
			return errMalformed
		}
		buf = append(buf, payload...)
		var kind uint8
		var body cryptobyte.String
		for in := buf; in.ReadUint8(&kind) && in.ReadUint24LengthPrefixed(&body); buf = in {
			if !f.add(kind, body) {
				return errMalformed
			}
			if f.Version >= tls.VersionTLS13 || kind == typeServerHelloDone {
				return nil
			}
		}
	}
}

// add reads a message (RFC 5246, Section 7.4); the first is a ServerHello.
func (f *Flight) add(kind uint8, in cryptobyte.String) (ok bool) {
	switch {
	case f.Kind == "":
		return kind == typeServerHello && f.serverHello(in)
	case kind == typeCertificate:
		var list, der cryptobyte.String
		for ok = in.ReadUint24LengthPrefixed(&list); ok && !list.Empty(); f.Certificates = append(f.Certificates, der) {
			ok = list.ReadUint24LengthPrefixed(&der)
		}
		return ok
	case kind == typeServerKeyExchange:
		return f.keyExchange(in)
	}
	return true
}

// keyExchange reads a ServerKeyExchange (RFC 5246, Section 7.4.3; RFC 8422, Section
// 5.4), whose form depends on the suite.
func (f *Flight) keyExchange(in cryptobyte.String) bool {
	var prime, other cryptobyte.String
	ok := true
	switch name := policy.CipherSuiteName(f.CipherSuite); {
	case strings.HasPrefix(name, "TLS_ECDHE_"):
		ok = in.Skip(1) && in.ReadUint16((*uint16)(&f.Group)) && in.ReadUint8LengthPrefixed(&other)
	case strings.HasPrefix(name, "TLS_DHE_"):
		ok = in.ReadUint16LengthPrefixed(&prime) && in.ReadUint16LengthPrefixed(&other) && in.ReadUint16LengthPrefixed(&other)
		f.Prime = 8 * len(bytes.TrimLeft(prime, "\x00"))
	}
	return ok && (f.Version != tls.VersionTLS12 || in.ReadUint16((*uint16)(&f.Scheme)))
}
