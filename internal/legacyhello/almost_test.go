package legacyhello

import (
	"bytes"
	"encoding/binary"
	"slices"
	"testing"

	"postern/internal/hello"
)

// almost is a hello that is not quite one of those that Parse understands.
type almost struct {
	name string
	b    []byte
	// before is the same but for one step, and understood.
	before []byte
}

// A hello that is only almost such a one is left to crypto/tls.
func TestTheRestIsLeftToCryptoTLS(t *testing.T) {
	for _, tt := range slices.Concat(almostFramed, almostExtended) {
		t.Run(tt.name, func(t *testing.T) {
			if !check(t, tt.before) {
				t.Error("not even what comes before it is understood")
			}
			if check(t, tt.b) {
				t.Error("understood")
			}
		})
	}
}

var (
	plain = changed(nil)
	// bare has no extensions, and no room for them.
	bare = changed(func(s *hello.Spec) { s.NoExtensions = true })
)

func changed(f func(*hello.Spec)) []byte { return typicalHello(0x0301, f) }

// at is plain with other bytes from i on.
func at(i int, to ...byte) []byte {
	b := bytes.Clone(plain)
	copy(b[i:], to)
	return b
}

// extra is plain with an extension more.
func extra(number uint16, data ...byte) []byte {
	return changed(func(s *hello.Spec) { s.Extra = []hello.Extension{{Type: number, Data: data}} })
}

// only is plain with that extension and no other.
func only(number uint16, data ...byte) []byte {
	return changed(func(s *hello.Spec) {
		s.ServerName, s.Groups, s.Extra = "", nil, []hello.Extension{{Type: number, Data: data}}
	})
}

func framed(message []byte) []byte { return record(3, 1, message) }

// almostFramed have a fault outside their extensions.
var almostFramed = []almost{
	{"nothing", nil, plain},
	{"a header alone", plain[:5], plain},
	{"half a hello", plain[:60], plain},
	{"all but a byte", plain[:len(plain)-1], plain},
	{"a byte behind it", append(bytes.Clone(plain), 0), plain},
	{"an alert behind it", append(bytes.Clone(plain), versionAlert...), plain},
	{"two records", hello.Fragment(plain, 50), plain},
	{"two hellos in a record", framed(append(bytes.Clone(plain[5:]), plain[5:]...)), framed(plain[5:])},
	{"a byte behind the message", framed(append(bytes.Clone(plain[5:]), 0)), plain},
	{"a byte behind the extensions", framed(message(1, append(bytes.Clone(plain[9:]), 0))), plain},
	{"a record too large", changed(func(s *hello.Spec) { s.Size = maxRecord + 1 }), changed(func(s *hello.Spec) { s.Size = maxRecord })},
	{"a record of 16,385 bytes", framed(padded(maxRecord + 1)), framed(padded(maxRecord))},
	{"an alert", at(0, 21), plain},
	{"application data", at(0, 23), plain},
	{"a record of version 2", at(1, 2), plain},
	{"a record of version 16", at(1, 16), plain},
	{"another message", at(5, 2), plain},
	{"a message of 64 KB and more", at(6, 1), plain},
	{"TLS 1.2", at(9, 3, 3), plain},
	{"TLS 1.3", at(9, 3, 4), plain},
	{"from the future", at(9, 4, 0), plain},
	{"SSL 2.0", at(9, 0, 2), plain},
	{"SSL 2.255", at(9, 2, 255), plain},
	{"TLS 1.0 on its head", at(9, 1, 3), plain},
	{"a session ID of 33 bytes", changed(func(s *hello.Spec) { s.SessionID = make([]byte, 33) }), changed(func(s *hello.Spec) { s.SessionID = make([]byte, 32) })},
	{"a session ID beyond the end", at(43, 255), plain},
	{"no suites", changed(func(s *hello.Spec) { s.CipherSuites = nil }), plain},
	{"suites of odd length", framed(message(1, slices.Concat(plain[9:44], []byte{0, 3, 0, 47, 0, 1, 0}))), framed(message(1, slices.Concat(plain[9:44], []byte{0, 2, 0, 47, 1, 0})))},
	{"no compression method", framed(message(1, slices.Concat(bare[9:len(bare)-2], []byte{0}))), bare},
	{"not the null method", framed(message(1, slices.Concat(bare[9:len(bare)-2], []byte{1, 1}))), bare},
	{"nothing behind the suites", framed(message(1, bare[9:len(bare)-2])), bare},
	{"half a length of the extensions", framed(message(1, append(bytes.Clone(bare[9:]), 0))), framed(message(1, append(bytes.Clone(bare[9:]), 0, 0)))},
	{"extensions of another length", framed(message(1, append(bytes.Clone(bare[9:]), 0, 1))), bare},
	{"a byte of an extension", framed(message(1, append(bytes.Clone(bare[9:]), 0, 1, 0))), bare},
	{"an extension without a length", framed(message(1, append(bytes.Clone(bare[9:]), 0, 2, 0, 18))), framed(message(1, append(bytes.Clone(bare[9:]), 0, 4, 0, 18, 0, 0)))},
	{"an extension beyond the end", framed(message(1, append(bytes.Clone(bare[9:]), 0, 4, 0, 35, 0, 1))), framed(message(1, append(bytes.Clone(bare[9:]), 0, 5, 0, 35, 0, 1, 9)))},
}

// almostExtended have one in them.
var almostExtended = []almost{
	{"TLS 1.3 in supported_versions", extra(43, 2, 3, 4), extra(43, 2, 3, 1)},
	{"TLS 1.2 behind TLS 1.0 in supported_versions", extra(43, 4, 3, 1, 3, 3), extra(43, 4, 3, 1, 3, 2)},
	{"a version of the future in supported_versions", extra(43, 4, 3, 5, 3, 1), extra(43, 4, 3, 0, 3, 1)},
	{"SSL 2.0 in supported_versions", extra(43, 4, 0, 2, 3, 1), extra(43, 4, 3, 0, 3, 1)},
	{"GREASE in supported_versions", extra(43, 4, 0x1a, 0x1a, 3, 1), extra(43, 4, 3, 1, 3, 1)},
	{"TLS 1.2 that offers TLS 1.0", typicalHello(0x0303, func(s *hello.Spec) { s.SupportedVersions = []uint16{0x0301} }), extra(43, 2, 3, 1)},
	{"empty supported_versions", extra(43, 0), extra(43, 2, 3, 1)},
	{"half a version in supported_versions", extra(43, 3, 3, 1, 3), extra(43, 2, 3, 1)},
	{"a byte behind supported_versions", extra(43, 2, 3, 1, 3), extra(43, 2, 3, 1)},
	{"a key share", extra(51, 0, 0), plain},
	{"a pre-shared key", extra(41, 0, 0), plain},
	{"a cookie", extra(44, 0, 1, 0), plain},
	{"an encrypted hello", extra(0xfe0d, 0), plain},
	{"unknown extension", extra(0x1234), extra(0x1a1a)},
	{"almost GREASE", extra(0x1a2a), extra(0x2a2a)},
	{"almost GREASE too", extra(0x1b1b), extra(0x2a2a)},
	{"a second name", extra(0, 0, 4, 0, 0, 1, 'a'), plain},
	{"a second padding", changed(func(s *hello.Spec) { s.Extra = []hello.Extension{{Type: 21}, {Type: 21}} }), extra(21)},

	{"a name of another type", only(0, 0, 4, 1, 0, 1, 'a'), only(0, 0, 4, 0, 0, 1, 'a')},
	{"a name with a dot at its end", only(0, 0, 5, 0, 0, 2, 'a', '.'), only(0, 0, 5, 0, 0, 2, '.', 'a')},
	{"an empty name", only(0, 0, 3, 0, 0, 0), only(0, 0, 4, 0, 0, 1, 'a')},
	{"an empty list of names", only(0, 0, 0), only(0, 0, 4, 0, 0, 1, 'a')},
	{"no list of names", only(0), only(0, 0, 4, 0, 0, 1, 'a')},
	{"two names", only(0, 0, 8, 0, 0, 1, 'a', 0, 0, 1, 'b'), only(0, 0, 4, 0, 0, 1, 'a')},
	{"a byte behind the names", only(0, 0, 4, 0, 0, 1, 'a', 0), only(0, 0, 4, 0, 0, 1, 'a')},
	{"a name beyond its list", only(0, 0, 4, 0, 0, 2, 'a'), only(0, 0, 4, 0, 0, 1, 'a')},

	{"an empty status request", only(5), only(5, 1, 0, 0, 0, 0)},
	{"half a status request", only(5, 1, 0, 0, 0), only(5, 1, 0, 0, 0, 0)},
	{"a byte behind a status request", only(5, 1, 0, 0, 0, 0, 0), only(5, 1, 0, 0, 0, 0)},
	{"a responder beyond the end", only(5, 1, 0, 9, 0, 0), only(5, 1, 0, 1, 9, 0, 0)},

	{"no groups", only(10, 0, 0), only(10, 0, 2, 0, 23)},
	{"half a group", only(10, 0, 3, 0, 23, 0), only(10, 0, 2, 0, 23)},
	{"a byte behind the groups", only(10, 0, 2, 0, 23, 0), only(10, 0, 2, 0, 23)},
	{"groups beyond the end", only(10, 0, 4, 0, 23), only(10, 0, 2, 0, 23)},

	{"no point formats", only(11, 0), only(11, 1, 0)},
	{"empty point formats", only(11), only(11, 1, 0)},
	{"a byte behind the point formats", only(11, 1, 0, 0), only(11, 1, 0)},

	{"no signature algorithms", only(13, 0, 0), only(13, 0, 2, 4, 1)},
	{"half a signature algorithm", only(13, 0, 1, 4), only(13, 0, 2, 4, 1)},

	{"no protocols", only(16, 0, 0), only(16, 0, 2, 1, 'a')},
	{"an empty protocol", only(16, 0, 3, 1, 'a', 0), only(16, 0, 2, 1, 'a')},
	{"a protocol beyond the end", only(16, 0, 2, 2, 'a'), only(16, 0, 2, 1, 'a')},
	{"a byte behind the protocols", only(16, 0, 2, 1, 'a', 1), only(16, 0, 2, 1, 'a')},

	{"something in the request for SCTs", only(18, 0), only(18)},
	{"something in extended_master_secret", only(23, 0), only(23)},
	{"a renegotiation", only(0xff01, 1, 7), only(0xff01, 0)},
	{"empty renegotiation_info", only(0xff01), only(0xff01, 0)},
	{"a byte behind renegotiation_info", only(0xff01, 0, 0), only(0xff01, 0)},
}

// record is one of the handshake, message one of its messages.
func record(major, minor byte, message []byte) []byte {
	b := binary.BigEndian.AppendUint16([]byte{recordHandshake, major, minor}, uint16(len(message)))
	return append(b, message...)
}

func message(kind byte, body []byte) []byte {
	return append([]byte{kind, byte(len(body) >> 16), byte(len(body) >> 8), byte(len(body))}, body...)
}

// padded is a message of that size.
func padded(size int) []byte {
	p := parts{version: 0x0301, suites: []byte{0, 47}, compression: []byte{0}, block: true, extensions: []hello.Extension{{Type: 21}}}
	p.extensions[0].Data = make([]byte, size-len(message(1, p.body())))
	return message(1, p.body())
}
