// Package legacyhello parses the ClientHellos that no floor can accept.
//
// A hello that offers nothing from TLS 1.2 up has one answer, whatever floor is
// in force, and crypto/tls gives it before it considers anything but the
// versions. Parse reads such a hello at a fraction of the cost. ParseSSLv2 reads
// the SSLv2-compatible format, which crypto/tls does not know.
//
// All functions are pure, and the hellos they return keep nothing of the input.
package legacyhello

import (
	"bytes"
	"crypto/tls"
	"slices"

	"golang.org/x/crypto/cryptobyte"

	"postern/policy"
)

const (
	recordHandshake = 22
	typeClientHello = 1

	// maxRecord is the longest record (RFC 5246, Section 6.2.1).
	maxRecord    = 1 << 14
	randomLen    = 32
	maxSessionID = 32
)

// The extensions that are parsed, as crypto/tls does.
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

// skippedExtensions are those that crypto/tls does not know and skips, whatever
// they hold. It skips those of GREASE (RFC 8701) too.
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

// Parse reports whether b is one record with one whole ClientHello and nothing
// else, understood in every byte, that crypto/tls would refuse for its version
// under any floor, and returns what crypto/tls would say of it. The alert for
// such a hello is always protocol_version in a record of TLS 1.0, for SSL 3.0
// too. A hello that Parse does not understand is for crypto/tls to judge.
//
// The rules of the RFCs are kept even where crypto/tls applies them only after
// the versions, so that the answer does not depend on that order.
// TLS_FALLBACK_SCSV needs no care: it matters only once there is a version.
func Parse(b []byte) (h policy.Hello, ok bool) {
	body, ok := soleHello(b)
	if !ok || !parseBody(body, &h) {
		return policy.Hello{}, false
	}
	return h, true
}

// soleHello is the body of the one message of a record; ok is false where b is
// not just that. The record may name any version of TLS (RFC 5246, Appendix E.1).
func soleHello(b cryptobyte.String) (body cryptobyte.String, ok bool) {
	var recordType, major, minor, messageType uint8
	var message cryptobyte.String
	ok = b.ReadUint8(&recordType) && b.ReadUint8(&major) && b.ReadUint8(&minor) && whole16(b, &message) &&
		recordType == recordHandshake && major == 3 && len(message) <= maxRecord &&
		message.ReadUint8(&messageType) && messageType == typeClientHello &&
		message.ReadUint24LengthPrefixed(&body) && message.Empty()
	return body, ok
}

// parseBody parses a body (RFC 5246, Section 7.4.1.2).
func parseBody(b cryptobyte.String, h *policy.Hello) bool {
	var version uint16
	var session, suites, compression, extensions cryptobyte.String
	if !b.ReadUint16(&version) || !b.Skip(randomLen) ||
		!b.ReadUint8LengthPrefixed(&session) || len(session) > maxSessionID ||
		!b.ReadUint16LengthPrefixed(&suites) || !numbers(suites, &h.CipherSuites) ||
		!b.ReadUint8LengthPrefixed(&compression) || bytes.IndexByte(compression, 0) < 0 {
		return false
	}
	switch policy.Version(version) { // as crypto/tls lists them
	case policy.TLS11:
		h.Versions = slices.Clone(legacyVersions[:2])
	case policy.TLS10, policy.SSL3:
		h.Versions = []uint16{version}
	default:
		return false
	}
	if b.Empty() {
		return true // no extensions, as in SSL 3.0
	}
	return whole16(b, &extensions) && parseExtensions(extensions, h)
}

func parseExtensions(b cryptobyte.String, h *policy.Hello) bool {
	for !b.Empty() {
		var number uint16
		var data cryptobyte.String
		if !b.ReadUint16(&number) || !b.ReadUint16LengthPrefixed(&data) || slices.Contains(h.Extensions, number) {
			return false
		}
		h.Extensions = append(h.Extensions, number)
		if !parseExtension(number, data, h) {
			return false
		}
	}
	return true
}

func parseExtension(number uint16, data cryptobyte.String, h *policy.Hello) bool {
	var list cryptobyte.String
	switch number {
	case extServerName:
		return parseServerName(data, h)
	case extStatusRequest: // a type and two lists (RFC 6066, Section 8)
		return data.Skip(1) && data.ReadUint16LengthPrefixed(&list) && whole16(data, &list)
	case extSupportedGroups:
		return whole16(data, &list) && numbers(list, &h.Groups)
	case extPointFormats:
		ok := whole8(data, &list) && len(list) > 0
		h.Points = bytes.Clone(list)
		return ok
	case extSignatureAlgorithms:
		return whole16(data, &list) && numbers(list, &h.SignatureSchemes)
	case extALPN:
		return whole16(data, &list) && parseProtocols(list, h)
	case extSCT, extExtendedMasterSecret:
		return data.Empty()
	case extSessionTicket:
		return true // a ticket of any form
	case extSupportedVersions:
		// Java and Go list TLS 1.0 there too. The list overrides the version of
		// the hello (RFC 8446, Section 4.2.1), and must be as old.
		h.Versions = nil
		return whole8(data, &list) && numbers(list, &h.Versions) && !slices.ContainsFunc(h.Versions, aboveLegacy)
	case extRenegotiationInfo:
		return len(data) == 1 && data[0] == 0 // RFC 5746, Section 3.4
	}
	return grease(number) || slices.Contains(skippedExtensions, number)
}

// parseServerName parses the one name (RFC 6066, Section 3), which has no dot at
// its end.
func parseServerName(data cryptobyte.String, h *policy.Hello) bool {
	const hostName = 0
	var list, name cryptobyte.String
	var nameType uint8
	if !whole16(data, &list) || !list.ReadUint8(&nameType) || nameType != hostName || !whole16(list, &name) ||
		len(name) == 0 || name[len(name)-1] == '.' {
		return false
	}
	h.ServerName = string(name)
	return true
}

// parseProtocols parses a list of RFC 7301, Section 3.1.
func parseProtocols(list cryptobyte.String, h *policy.Hello) bool {
	var protocol cryptobyte.String
	for !list.Empty() {
		if !list.ReadUint8LengthPrefixed(&protocol) || len(protocol) == 0 {
			return false
		}
		h.ALPN = append(h.ALPN, string(protocol))
	}
	return len(h.ALPN) > 0
}

// aboveLegacy reports whether v is not one of legacyVersions. Any other may be
// more than that, known or not.
func aboveLegacy(v uint16) bool { return !slices.Contains(legacyVersions, v) }

func grease(v uint16) bool { return v&0x0f0f == 0x0a0a && v>>8 == v&0xff }

// numbers parses a list of 16-bit numbers, which is not empty.
func numbers[T uint16 | tls.CurveID | tls.SignatureScheme](list cryptobyte.String, into *[]T) bool {
	out := make([]T, 0, len(list)/2)
	for !list.Empty() {
		var n uint16
		if !list.ReadUint16(&n) {
			return false
		}
		out = append(out, T(n))
	}
	*into = out
	return len(out) > 0
}

// whole8 and whole16 read a list that is all there is in s.
func whole8(s cryptobyte.String, list *cryptobyte.String) bool {
	return s.ReadUint8LengthPrefixed(list) && s.Empty()
}

func whole16(s cryptobyte.String, list *cryptobyte.String) bool {
	return s.ReadUint16LengthPrefixed(list) && s.Empty()
}
