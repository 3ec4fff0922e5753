package proxy

import (
	"bytes"
	"crypto/tls"
	"encoding/binary"
	"slices"

	"postern/policy"
)

// A hello that offers nothing from TLS 1.2 up has one answer, whatever floor
// is in force, and crypto/tls gives it before it looks at anything but the
// versions. Such a hello can be read without it, at a fraction of the cost.
// What is not understood here is left to crypto/tls.

// look is a hello that was read without crypto/tls. It may be used again: the
// hello of one read lives until the next, its strings for longer.
type look struct {
	hello policy.Hello // filled by read, empty where that returns false

	// What hello's lists lie in. They hold what honest clients of the old
	// versions send; a hello that needs more is not understood.
	versions   [4]uint16
	suites     [128]uint16
	groups     [32]tls.CurveID
	points     [8]uint8
	schemes    [32]tls.SignatureScheme
	extensions [24]uint16
	protocols  [4]string
	// name is the last one that was sent: clients of one server send the same.
	name string
}

const (
	typeClientHello = 1

	recordHeaderLen  = 5
	messageHeaderLen = 4
	// maxRecord is the most that one record holds (RFC 5246, Section 6.2.1).
	maxRecord = 1 << 14

	helloVersionLen = 2
	helloRandomLen  = 32
	maxSessionID    = 32
	// maxServerName bounds what a look keeps.
	maxServerName = 255
)

// The extensions that are read, as crypto/tls does.
const (
	extServerName           = 0
	extStatusRequest        = 5
	extSupportedGroups      = 10
	extPointFormats         = 11
	extSignatureAlgorithms  = 13
	extALPN                 = 16
	extSCT                  = 18
	extExtendedMasterSecret = 23
	extSessionTicket        = 35
	extSupportedVersions    = 43
	extRenegotiationInfo    = 0xff01
)

// skippedExtensions are those that crypto/tls does not know, and skips
// whatever is in them; those of GREASE (RFC 8701) are more.
var skippedExtensions = []uint16{
	1,     // max_fragment_length
	15,    // heartbeat
	17,    // status_request_v2
	21,    // padding
	22,    // encrypt_then_mac
	28,    // record_size_limit
	13172, // next_protocol_negotiation
}

// legacyVersions are those below every floor.
var legacyVersions = []uint16{uint16(policy.TLS11), uint16(policy.TLS10), uint16(policy.SSL3)}

// aboveLegacy reports whether v may be more than a client of that age offers:
// it need not be known.
func aboveLegacy(v uint16) bool { return !slices.Contains(legacyVersions, v) }

// read reports whether b is one record with one whole ClientHello and nothing
// else, understood in every byte, that crypto/tls would refuse for its version
// under any floor, and fills in what it would say of it. The alert is always
// protocol_version in a record of TLS 1.0, for SSL 3.0 too.
//
// The RFCs' rules are kept even where crypto/tls comes to them only after the
// versions, so that the answer does not hang on that order. TLS_FALLBACK_SCSV
// needs no care: it is looked at when there is a version.
//
// It keeps nothing of b, and allocates the strings that are not those of last
// time.
func (l *look) read(b []byte) bool {
	l.hello = policy.Hello{}
	if !l.readHello(soleHello(b)) {
		l.hello = policy.Hello{}
		return false
	}
	return true
}

// soleHello is the body of the one message of a record, nil where b is not
// just that. The record may name any version of TLS (RFC 5246, Appendix E.1).
func soleHello(b octets) octets {
	if len(b) < recordHeaderLen+messageHeaderLen || b[0] != recordHandshake || b[1] != 3 {
		return nil
	}
	message := b[3:].whole16()
	if len(message) > maxRecord || len(message) < messageHeaderLen || message[0] != typeClientHello || message[1] != 0 {
		return nil
	}
	return message[2:].whole16()
}

// readHello reads a body (RFC 5246, Section 7.4.1.2).
func (l *look) readHello(b octets) bool {
	if len(b) < helloVersionLen+helloRandomLen || !l.readVersion(binary.BigEndian.Uint16(b)) {
		return false
	}
	b = b[helloVersionLen+helloRandomLen:]
	session, ok1 := b.vector8()
	suites, ok2 := b.vector16()
	compression, ok3 := b.vector8()
	if !ok1 || !ok2 || !ok3 || len(session) > maxSessionID || bytes.IndexByte(compression, 0) < 0 {
		return false
	}
	var ok bool
	if l.hello.CipherSuites, ok = words(l.suites[:], suites); !ok {
		return false
	}
	if len(b) == 0 {
		return true // no extensions, as in SSL 3.0
	}
	extensions := b.whole16()
	return extensions != nil && l.readExtensions(extensions)
}

// readVersion takes the version that a client names, and those below it, as
// crypto/tls lists them.
func (l *look) readVersion(v uint16) bool {
	switch policy.Version(v) {
	case policy.TLS11:
		l.hello.Versions = legacyVersions[:2]
	case policy.TLS10:
		l.hello.Versions = legacyVersions[1:2]
	case policy.SSL3:
		l.hello.Versions = legacyVersions[2:]
	default:
		return false
	}
	return true
}

func (l *look) readExtensions(b octets) bool {
	for len(b) > 0 {
		if len(b) < 2 {
			return false
		}
		number := binary.BigEndian.Uint16(b)
		b = b[2:]
		data, ok := b.vector16()
		n := len(l.hello.Extensions)
		if !ok || n == len(l.extensions) || slices.Contains(l.hello.Extensions, number) {
			return false
		}
		l.extensions[n] = number
		l.hello.Extensions = l.extensions[:n+1]
		if !l.readExtension(number, data) {
			return false
		}
	}
	return true
}

func (l *look) readExtension(number uint16, data octets) (ok bool) {
	h := &l.hello
	switch number {
	case extServerName:
		return l.readServerName(data)
	case extStatusRequest:
		return statusRequest(data)
	case extSupportedGroups:
		h.Groups, ok = words(l.groups[:], data.whole16())
	case extPointFormats:
		points := data.whole8()
		h.Points = l.points[:copy(l.points[:], points)]
		ok = len(points) > 0 && len(points) <= len(l.points)
	case extSignatureAlgorithms:
		h.SignatureSchemes, ok = words(l.schemes[:], data.whole16())
	case extALPN:
		return l.readProtocols(data.whole16())
	case extSCT, extExtendedMasterSecret:
		return len(data) == 0
	case extSessionTicket:
		return true // a ticket of any form
	case extSupportedVersions:
		// Java and Go list TLS 1.0 there too. It overrides what the hello names
		// (RFC 8446, Section 4.2.1), which must be as old all the same.
		h.Versions, ok = words(l.versions[:], data.whole8())
		return ok && !slices.ContainsFunc(h.Versions, aboveLegacy)
	case extRenegotiationInfo:
		return len(data) == 1 && data[0] == 0 // RFC 5746, Section 3.4
	default:
		return grease(number) || slices.Contains(skippedExtensions, number)
	}
	return ok
}

// readServerName reads the one name (RFC 6066, Section 3), without a dot at its
// end.
func (l *look) readServerName(data octets) bool {
	const hostName = 0
	list := data.whole16()
	if len(list) == 0 || list[0] != hostName {
		return false
	}
	name := list[1:].whole16()
	if len(name) == 0 || len(name) > maxServerName || name[len(name)-1] == '.' {
		return false
	}
	if l.name != string(name) {
		l.name = string(name)
	}
	l.hello.ServerName = l.name
	return true
}

// readProtocols reads a list of RFC 7301, Section 3.1.
func (l *look) readProtocols(list octets) bool {
	if len(list) == 0 {
		return false
	}
	n := 0
	for ; len(list) > 0; n++ {
		protocol, ok := list.vector8()
		if !ok || len(protocol) == 0 || n == len(l.protocols) {
			return false
		}
		if l.protocols[n] != string(protocol) {
			l.protocols[n] = string(protocol)
		}
	}
	l.hello.ALPN = l.protocols[:n]
	return true
}

// statusRequest reports whether data is a type and two lists (RFC 6066,
// Section 8).
func statusRequest(data octets) bool {
	if len(data) == 0 {
		return false
	}
	data = data[1:]
	_, ok := data.vector16()
	return ok && data.whole16() != nil
}

func grease(v uint16) bool { return v&0x0f0f == 0x0a0a && v>>8 == v&0xff }

// words fills into with a list of two-byte numbers, which is not empty.
func words[T ~uint16](into []T, list octets) ([]T, bool) {
	n := len(list) / 2
	if n == 0 || len(list)%2 != 0 || n > len(into) {
		return nil, false
	}
	for i := range n {
		into[i] = T(binary.BigEndian.Uint16(list[2*i:]))
	}
	return into[:n], true
}

// octets are what is left of a message.
type octets []byte

// vector8 and vector16 take a list off the front, whose length stands before
// it in one byte or two (RFC 5246, Section 4.3).
func (o *octets) vector8() (list octets, ok bool) {
	if len(*o) < 1 {
		return nil, false
	}
	return o.vector(1, int((*o)[0]))
}

func (o *octets) vector16() (list octets, ok bool) {
	if len(*o) < 2 {
		return nil, false
	}
	return o.vector(2, int(binary.BigEndian.Uint16(*o)))
}

func (o *octets) vector(header, n int) (list octets, ok bool) {
	b := (*o)[header:]
	if len(b) < n {
		return nil, false
	}
	*o = b[n:]
	return b[:n], true
}

// whole8 and whole16 are the list that is all there is; nil where there is
// more, or less.
func (o octets) whole8() octets {
	list, ok := o.vector8()
	if !ok || len(o) > 0 {
		return nil
	}
	return list
}

func (o octets) whole16() octets {
	list, ok := o.vector16()
	if !ok || len(o) > 0 {
		return nil
	}
	return list
}
