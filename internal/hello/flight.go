package hello

import (
	"bytes"
	"crypto/tls"
	"io"
	"strings"

	"golang.org/x/crypto/cryptobyte"

	"postern/policy"
)

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
