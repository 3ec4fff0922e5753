package proxy

import (
	"bytes"
	"crypto/tls"
	"encoding/binary"
	"encoding/hex"
	"math/rand/v2"
	"net"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"postern/internal/hello"
	"postern/policy"
)

// What a look says of a hello is held against crypto/tls, which is given the
// same bytes.

// helloConn hands out a hello, then the end, and keeps what is written and
// what the hook saw.
type helloConn struct {
	net.Conn
	hello   bytes.Reader
	written []byte
	asked   int
	seen    policy.Hello
}

func (c *helloConn) Read(p []byte) (int, error) { return c.hello.Read(p) }

func (c *helloConn) Write(p []byte) (int, error) {
	c.written = append(c.written, p...)
	return len(p), nil
}

// strictConfigs are those of every floor.
var strictConfigs = func() (configs []*tls.Config) {
	for _, f := range policy.Floors {
		c := f.TLSConfig()
		c.GetConfigForClient = func(chi *tls.ClientHelloInfo) (*tls.Config, error) {
			conn := chi.Conn.(*helloConn)
			conn.asked++
			conn.seen = policy.FromClientHello(chi)
			return nil, nil
		}
		configs = append(configs, c)
	}
	return configs
}()

var versionAlert = []byte{recordAlert, 3, 1, 0, 2, 2, byte(alertProtocolVersion - 1)}

// cryptoTLS gives b to crypto/tls. refused: the hook was asked, and then there
// was the alert for the version and nothing else.
func cryptoTLS(b []byte, config *tls.Config) (c *helloConn, refused bool) {
	c = new(helloConn)
	c.hello.Reset(b)
	err := tls.Server(c, config).Handshake()
	return c, err != nil && c.asked == 1 && bytes.Equal(c.written, versionAlert)
}

// checkLook reads b, and if that is understood asks crypto/tls too. l may
// have read other hellos before.
func checkLook(t testing.TB, l *look, b []byte) (understood bool) {
	t.Helper()
	mine := bytes.Clone(b)
	understood = l.read(mine)
	if !bytes.Equal(mine, b) {
		t.Fatalf("%x: became %x", b, mine)
	}
	clear(mine) // nothing of it may be kept
	if !understood {
		if !reflect.DeepEqual(l.hello, policy.Hello{}) {
			t.Fatalf("%x: not understood, but there is %+v", b, l.hello)
		}
		return false
	}
	for i, config := range strictConfigs {
		floor := policy.Floors[i]
		c, refused := cryptoTLS(b, config)
		if !refused {
			t.Fatalf("%x: floor %s: crypto/tls asked %d times and wrote %x", b, floor, c.asked, c.written)
		}
		if !reflect.DeepEqual(l.hello, c.seen) {
			t.Fatalf("%x:\n     %#v\nwant %#v", b, l.hello, c.seen)
		}
		verdict := policy.New(floor, policy.Enforce).At(time.Time{}).Decide(&l.hello, policy.Place{Keys: policy.RSA}, time.Time{}, 0)
		if r := verdict.Reason; verdict.Serve != policy.Enforce || r != policy.ReasonVersion && r != policy.ReasonFallback {
			t.Fatalf("%x: floor %s: the verdict is %+v", b, floor, verdict)
		}
	}
	return true
}

// namedHello is the hello of some client.
type namedHello struct {
	name  string
	bytes []byte
}

// capturedHellos are those of testdata.
func capturedHellos(t testing.TB) (list []namedHello) {
	t.Helper()
	text, err := os.ReadFile("testdata/hellos.txt")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		name, digits, _ := strings.Cut(line, ": ")
		b, err := hex.DecodeString(digits)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		list = append(list, namedHello{name, b})
	}
	return list
}

// goHello is what crypto/tls itself sends as a client.
func goHello(version uint16) []byte {
	c := new(helloConn)
	tls.Client(c, &tls.Config{
		MinVersion: tls.VersionTLS10, MaxVersion: version,
		ServerName: "mail.example.org", NextProtos: []string{"imap"}, CipherSuites: hello.Typical(version).CipherSuites,
	}).Handshake()
	clear(c.written[11:43]) // the random
	return c.written
}

// typicalHello is that of internal/hello, with changes, and the same each time.
func typicalHello(version uint16, change func(*hello.Spec)) []byte {
	s := hello.Typical(version)
	s.ServerName = "mail.example.org"
	if change != nil {
		change(&s)
	}
	b := hello.ClientHello(s)
	clear(b[11:43]) // the random
	return b
}

// legacyHellos are all that a look must understand.
func legacyHellos(t testing.TB) []namedHello {
	list := append(capturedHellos(t), namedHello{"Go TLS 1.0", goHello(tls.VersionTLS10)}, namedHello{"Go TLS 1.1", goHello(tls.VersionTLS11)})
	for name, version := range map[string]uint16{"SSL 3.0": 0x0300, "TLS 1.0": 0x0301, "TLS 1.1": 0x0302} {
		for change, f := range map[string]func(*hello.Spec){
			"":                         nil,
			" without a name":          func(s *hello.Spec) { s.ServerName = "" },
			" without extensions":      func(s *hello.Spec) { s.NoExtensions = true },
			" with an empty block":     func(s *hello.Spec) { s.NoExtensions, s.ServerName, s.Groups = false, "", nil },
			" with every extension":    func(s *hello.Spec) { s.NoExtensions, s.Extra = false, someExtensions },
			" with ALPN":               func(s *hello.Spec) { s.NoExtensions, s.ALPN = false, []string{"imap", "pop3"} },
			" with compression":        func(s *hello.Spec) { s.Compression = []byte{1, 0} },
			" that resumes":            func(s *hello.Spec) { s.SessionID = bytes.Repeat([]byte{7}, 32) },
			" that falls back":         func(s *hello.Spec) { s.CipherSuites = append(s.CipherSuites, tls.TLS_FALLBACK_SCSV, 0x00ff) },
			" in a record of SSL 3.0":  func(s *hello.Spec) { s.RecordVersion = 0x0300 },
			" in a record of TLS 1.2":  func(s *hello.Spec) { s.RecordVersion = 0x0303 },
			" padded":                  func(s *hello.Spec) { s.NoExtensions, s.Size = false, 512 },
			" in supported_versions":   func(s *hello.Spec) { s.NoExtensions, s.SupportedVersions = false, []uint16{version} },
			" as large as a record is": func(s *hello.Spec) { s.NoExtensions, s.Size = false, maxRecord },
		} {
			list = append(list, namedHello{name + change, typicalHello(version, f)})
		}
	}
	slices.SortFunc(list, func(a, b namedHello) int { return strings.Compare(a.name, b.name) })
	return list
}

// someExtensions are those that a look understands and internal/hello has no
// field for.
var someExtensions = []hello.Extension{
	{Type: extStatusRequest, Data: []byte{1, 0, 0, 0, 0}},
	{Type: extSignatureAlgorithms, Data: []byte{0, 4, 4, 1, 2, 1}},
	{Type: extSCT},
	{Type: extExtendedMasterSecret},
	{Type: extSessionTicket, Data: []byte("a ticket")},
	{Type: extRenegotiationInfo, Data: []byte{0}},
	{Type: 1, Data: []byte{2}},
	{Type: 15, Data: []byte{1}},
	{Type: 17, Data: []byte{0, 7, 2, 0, 4, 0, 0, 0, 0}},
	{Type: 22},
	{Type: 28, Data: []byte{0x40, 1}},
	{Type: 13172},
	{Type: 0x1a1a},
	{Type: 0xfafa, Data: []byte{0}},
}

// Each is understood by one look in turn, as they come to a server.
func TestLookKnowsTheHellosOfOldClients(t *testing.T) {
	var l look
	for _, h := range legacyHellos(t) {
		if !checkLook(t, &l, h.bytes) {
			t.Errorf("%s: not understood: %x", h.name, h.bytes)
		}
	}
}

// A hello that is only almost such a one is left to crypto/tls.
func TestLookLeavesTheRestToCryptoTLS(t *testing.T) {
	extra := func(number uint16, data ...byte) []byte {
		return typicalHello(0x0301, func(s *hello.Spec) { s.Extra = []hello.Extension{{Type: number, Data: data}} })
	}
	// only is a hello with that extension and no other.
	only := func(number uint16, data ...byte) []byte {
		return typicalHello(0x0301, func(s *hello.Spec) {
			s.ServerName, s.Groups, s.Extra = "", nil, []hello.Extension{{Type: number, Data: data}}
		})
	}
	spec := func(f func(*hello.Spec)) []byte { return typicalHello(0x0301, f) }
	plain := spec(nil)
	at := func(i int, to ...byte) []byte {
		b := bytes.Clone(plain)
		copy(b[i:], to)
		return b
	}
	// bare has no extensions, and no room for them.
	bare := spec(func(s *hello.Spec) { s.NoExtensions = true })
	framed := func(message []byte) []byte { return record(3, 1, message) }
	many := func(n int) (list []byte) {
		for i := range n {
			list = binary.BigEndian.AppendUint16(list, uint16(0x4000+i))
		}
		return list
	}
	manyExtensions := func(n int) func(*hello.Spec) {
		return func(s *hello.Spec) {
			s.ServerName, s.Groups = "", nil
			for i := range n - len(skippedExtensions) {
				s.Extra = append(s.Extra, hello.Extension{Type: []uint16{0x0a0a, 0x1a1a, 0x2a2a, 0x3a3a, 0x4a4a, 0x5a5a, 0x6a6a, 0x7a7a,
					0x8a8a, 0x9a9a, 0xaaaa, 0xbaba, 0xcaca, 0xdada, 0xeaea, 0xfafa, extSCT, extExtendedMasterSecret, extSessionTicket}[i]})
			}
			for _, number := range skippedExtensions {
				s.Extra = append(s.Extra, hello.Extension{Type: number})
			}
		}
	}
	for _, tt := range []struct {
		name string
		b    []byte
		// before is the same but for one step, and understood.
		before []byte
	}{
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
		{"a record too large", spec(func(s *hello.Spec) { s.Size = maxRecord + 1 }), spec(func(s *hello.Spec) { s.Size = maxRecord })},
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
		{"a session ID of 33 bytes", spec(func(s *hello.Spec) { s.SessionID = make([]byte, 33) }), spec(func(s *hello.Spec) { s.SessionID = make([]byte, 32) })},
		{"a session ID beyond the end", at(43, 255), plain},
		{"no suites", spec(func(s *hello.Spec) { s.CipherSuites = nil }), plain},
		{"129 suites", spec(func(s *hello.Spec) { s.CipherSuites = make([]uint16, 129) }), spec(func(s *hello.Spec) { s.CipherSuites = make([]uint16, 128) })},
		{"suites of odd length", framed(message(1, slices.Concat(plain[9:44], []byte{0, 3, 0, 47, 0, 1, 0}))), framed(message(1, slices.Concat(plain[9:44], []byte{0, 2, 0, 47, 1, 0})))},
		{"no compression method", framed(message(1, slices.Concat(bare[9:len(bare)-2], []byte{0}))), bare},
		{"not the null method", framed(message(1, slices.Concat(bare[9:len(bare)-2], []byte{1, 1}))), bare},
		{"nothing behind the suites", framed(message(1, bare[9:len(bare)-2])), bare},
		{"half a length of the extensions", framed(message(1, append(bytes.Clone(bare[9:]), 0))), framed(message(1, append(bytes.Clone(bare[9:]), 0, 0)))},
		{"extensions of another length", framed(message(1, append(bytes.Clone(bare[9:]), 0, 1))), bare},
		{"a byte of an extension", framed(message(1, append(bytes.Clone(bare[9:]), 0, 1, 0))), bare},
		{"an extension without a length", framed(message(1, append(bytes.Clone(bare[9:]), 0, 2, 0, 18))), framed(message(1, append(bytes.Clone(bare[9:]), 0, 4, 0, 18, 0, 0)))},
		{"an extension beyond the end", framed(message(1, append(bytes.Clone(bare[9:]), 0, 4, 0, 35, 0, 1))), framed(message(1, append(bytes.Clone(bare[9:]), 0, 5, 0, 35, 0, 1, 9)))},
		{"25 extensions", spec(manyExtensions(25)), spec(manyExtensions(24))},

		{"TLS 1.3 in supported_versions", extra(43, 2, 3, 4), extra(43, 2, 3, 1)},
		{"TLS 1.2 behind TLS 1.0 in supported_versions", extra(43, 4, 3, 1, 3, 3), extra(43, 4, 3, 1, 3, 2)},
		{"a version of the future in supported_versions", extra(43, 4, 3, 5, 3, 1), extra(43, 4, 3, 0, 3, 1)},
		{"SSL 2.0 in supported_versions", extra(43, 4, 0, 2, 3, 1), extra(43, 4, 3, 0, 3, 1)},
		{"GREASE in supported_versions", extra(43, 4, 0x1a, 0x1a, 3, 1), extra(43, 4, 3, 1, 3, 1)},
		{"TLS 1.2 that offers TLS 1.0", typicalHello(0x0303, func(s *hello.Spec) { s.SupportedVersions = []uint16{0x0301} }), extra(43, 2, 3, 1)},
		{"empty supported_versions", extra(43, 0), extra(43, 2, 3, 1)},
		{"half a version in supported_versions", extra(43, 3, 3, 1, 3), extra(43, 2, 3, 1)},
		{"a byte behind supported_versions", extra(43, 2, 3, 1, 3), extra(43, 2, 3, 1)},
		{"five versions in supported_versions", extra(43, 10, 3, 1, 3, 1, 3, 1, 3, 1, 3, 1), extra(43, 8, 3, 1, 3, 1, 3, 1, 3, 1)},
		{"a key share", extra(51, 0, 0), plain},
		{"a pre-shared key", extra(41, 0, 0), plain},
		{"a cookie", extra(44, 0, 1, 0), plain},
		{"an encrypted hello", extra(0xfe0d, 0), plain},
		{"unknown extension", extra(0x1234), extra(0x1a1a)},
		{"almost GREASE", extra(0x1a2a), extra(0x2a2a)},
		{"almost GREASE too", extra(0x1b1b), extra(0x2a2a)},
		{"a second name", extra(0, 0, 4, 0, 0, 1, 'a'), plain},
		{"a second padding", spec(func(s *hello.Spec) { s.Extra = []hello.Extension{{Type: 21}, {Type: 21}} }), extra(21)},

		{"a name of another type", only(0, 0, 4, 1, 0, 1, 'a'), only(0, 0, 4, 0, 0, 1, 'a')},
		{"a name with a dot at its end", only(0, 0, 5, 0, 0, 2, 'a', '.'), only(0, 0, 5, 0, 0, 2, '.', 'a')},
		{"an empty name", only(0, 0, 3, 0, 0, 0), only(0, 0, 4, 0, 0, 1, 'a')},
		{"an empty list of names", only(0, 0, 0), only(0, 0, 4, 0, 0, 1, 'a')},
		{"no list of names", only(0), only(0, 0, 4, 0, 0, 1, 'a')},
		{"two names", only(0, 0, 8, 0, 0, 1, 'a', 0, 0, 1, 'b'), only(0, 0, 4, 0, 0, 1, 'a')},
		{"a byte behind the names", only(0, 0, 4, 0, 0, 1, 'a', 0), only(0, 0, 4, 0, 0, 1, 'a')},
		{"a name beyond its list", only(0, 0, 4, 0, 0, 2, 'a'), only(0, 0, 4, 0, 0, 1, 'a')},
		{"a name of 256 bytes", only(0, slices.Concat([]byte{1, 3, 0, 1, 0}, bytes.Repeat([]byte("a"), 256))...),
			only(0, slices.Concat([]byte{1, 2, 0, 0, 255}, bytes.Repeat([]byte("a"), 255))...)},

		{"an empty status request", only(5), only(5, 1, 0, 0, 0, 0)},
		{"half a status request", only(5, 1, 0, 0, 0), only(5, 1, 0, 0, 0, 0)},
		{"a byte behind a status request", only(5, 1, 0, 0, 0, 0, 0), only(5, 1, 0, 0, 0, 0)},
		{"a responder beyond the end", only(5, 1, 0, 9, 0, 0), only(5, 1, 0, 1, 9, 0, 0)},

		{"no groups", only(10, 0, 0), only(10, 0, 2, 0, 23)},
		{"half a group", only(10, 0, 3, 0, 23, 0), only(10, 0, 2, 0, 23)},
		{"a byte behind the groups", only(10, 0, 2, 0, 23, 0), only(10, 0, 2, 0, 23)},
		{"groups beyond the end", only(10, 0, 4, 0, 23), only(10, 0, 2, 0, 23)},
		{"33 groups", only(10, append([]byte{0, 66}, many(33)...)...), only(10, append([]byte{0, 64}, many(32)...)...)},

		{"no point formats", only(11, 0), only(11, 1, 0)},
		{"empty point formats", only(11), only(11, 1, 0)},
		{"a byte behind the point formats", only(11, 1, 0, 0), only(11, 1, 0)},
		{"nine point formats", only(11, 9, 0, 1, 2, 3, 4, 5, 6, 7, 8), only(11, 8, 0, 1, 2, 3, 4, 5, 6, 7)},

		{"no signature algorithms", only(13, 0, 0), only(13, 0, 2, 4, 1)},
		{"half a signature algorithm", only(13, 0, 1, 4), only(13, 0, 2, 4, 1)},
		{"33 signature algorithms", only(13, append([]byte{0, 66}, many(33)...)...), only(13, append([]byte{0, 64}, many(32)...)...)},

		{"no protocols", only(16, 0, 0), only(16, 0, 2, 1, 'a')},
		{"an empty protocol", only(16, 0, 3, 1, 'a', 0), only(16, 0, 2, 1, 'a')},
		{"a protocol beyond the end", only(16, 0, 2, 2, 'a'), only(16, 0, 2, 1, 'a')},
		{"a byte behind the protocols", only(16, 0, 2, 1, 'a', 1), only(16, 0, 2, 1, 'a')},
		{"five protocols", only(16, 0, 10, 1, 'a', 1, 'b', 1, 'c', 1, 'd', 1, 'e'), only(16, 0, 8, 1, 'a', 1, 'b', 1, 'c', 1, 'd')},

		{"something in the request for SCTs", only(18, 0), only(18)},
		{"something in extended_master_secret", only(23, 0), only(23)},
		{"a renegotiation", only(0xff01, 1, 7), only(0xff01, 0)},
		{"empty renegotiation_info", only(0xff01), only(0xff01, 0)},
		{"a byte behind renegotiation_info", only(0xff01, 0, 0), only(0xff01, 0)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var l look
			if !checkLook(t, &l, tt.before) {
				t.Error("not even what comes before it is understood")
			}
			if checkLook(t, &l, tt.b) {
				t.Error("understood")
			}
		})
	}
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

// Nothing of one hello is in the facts of the next.
func TestLookForgetsTheHelloBefore(t *testing.T) {
	hellos := legacyHellos(t)
	for _, first := range hellos {
		for _, second := range hellos {
			var used, fresh look
			used.read(first.bytes)
			used.read([]byte("no hello"))
			used.read(first.bytes)
			if used.read(second.bytes) != fresh.read(second.bytes) || !reflect.DeepEqual(used.hello, fresh.hello) {
				t.Fatalf("%s after %s: %+v, want %+v", second.name, first.name, used.hello, fresh.hello)
			}
		}
	}
}

// A name or protocol that somebody has kept from an earlier hello stays what it
// was.
func TestLookLeavesKeptNamesAlone(t *testing.T) {
	var l look
	named := func(name, protocol string) []byte {
		return typicalHello(0x0301, func(s *hello.Spec) { s.ServerName, s.ALPN = name, []string{protocol} })
	}
	for _, name := range []string{"a.example", "b.example", "a.example"} {
		b := named(name, name[:1])
		if !l.read(b) {
			t.Fatal("not understood")
		}
		kept, protocol := l.hello.ServerName, l.hello.ALPN[0]
		clear(b)
		l.read(named("c.example", "c"))
		if kept != name || protocol != name[:1] {
			t.Errorf("%s became %s, its protocol %s", name, kept, protocol)
		}
	}
}

// parts are a hello in pieces.
type parts struct {
	version                      uint16
	session, suites, compression []byte
	block                        bool // there is a block of extensions
	extensions                   []hello.Extension
}

func (p *parts) body() []byte {
	b := binary.BigEndian.AppendUint16(nil, p.version)
	b = append(b, make([]byte, helloRandomLen)...)
	b = append(append(b, byte(len(p.session))), p.session...)
	b = append(binary.BigEndian.AppendUint16(b, uint16(len(p.suites))), p.suites...)
	b = append(append(b, byte(len(p.compression))), p.compression...)
	if !p.block {
		return b
	}
	var block []byte
	for _, e := range p.extensions {
		block = binary.BigEndian.AppendUint16(block, e.Type)
		block = append(binary.BigEndian.AppendUint16(block, uint16(len(e.Data))), e.Data...)
	}
	return append(binary.BigEndian.AppendUint16(b, uint16(len(block))), block...)
}

func (p *parts) bytes() []byte { return record(3, 1, message(1, p.body())) }

// takeApart expects a sound hello.
func takeApart(b []byte) (p parts) {
	take := func(n int) (piece []byte) {
		piece, b = bytes.Clone(b[:n]), b[n:]
		return piece
	}
	number := func() uint16 { return binary.BigEndian.Uint16(take(2)) }
	take(9)
	p.version = number()
	take(helloRandomLen)
	p.session = take(int(take(1)[0]))
	p.suites = take(int(number()))
	p.compression = take(int(take(1)[0]))
	if p.block = len(b) > 0; p.block {
		for number(); len(b) > 0; {
			kind := number()
			p.extensions = append(p.extensions, hello.Extension{Type: kind, Data: take(int(number()))})
		}
	}
	return p
}

// mutate changes a sound hello in one of many ways, some of which leave it so.
func mutate(r *rand.Rand, hellos []namedHello) []byte {
	pick := func() []byte { return hellos[r.IntN(len(hellos))].bytes }
	p := takeApart(pick())
	n := len(p.extensions)
	switch r.IntN(14) {
	case 0: // another byte
		b := bytes.Clone(pick())
		b[r.IntN(len(b))] = byte(r.Uint32())
		return b
	case 1: // another bit of what is not random
		b := bytes.Clone(pick())
		i := r.IntN(len(b) - helloRandomLen)
		if i >= 11 {
			i += helloRandomLen
		}
		b[i] ^= 1 << r.IntN(8)
		return b
	case 2: // cut or grown, with lengths that fit
		body := bytes.Clone(pick()[9:])
		if r.IntN(2) == 0 {
			body = body[:r.IntN(len(body))]
		} else {
			body = append(body, make([]byte, 1+r.IntN(3))...)
		}
		return record(3, byte(r.IntN(5)), message(1, body))
	case 3: // two in one
		a, b := pick(), pick()
		return slices.Concat(a[:r.IntN(len(a))], b[r.IntN(len(b)):])
	case 4: // other versions
		p.version = []uint16{0, 2, 0x02ff, 0x0300, 0x0301, 0x0302, 0x0303, 0x0304, 0x0400}[r.IntN(9)]
	case 5:
		p.session = make([]byte, r.IntN(60))
	case 6: // other suites
		p.suites = make([]byte, r.IntN(300))
		for i := range p.suites {
			p.suites[i] = byte(r.Uint32())
		}
	case 7:
		p.compression = [][]byte{nil, {0}, {1}, {1, 0}, {0, 1, 64}}[r.IntN(5)]
	case 8, 9: // an extension more, often a second one of its kind
		if donor := takeApart(pick()); len(donor.extensions) > 0 {
			p.block = true
			p.extensions = slices.Insert(p.extensions, r.IntN(n+1), donor.extensions[r.IntN(len(donor.extensions))])
		}
	case 10: // another extension more
		p.block = true
		e := hello.Extension{Type: uint16(r.IntN(60)), Data: make([]byte, r.IntN(6))}
		if r.IntN(3) == 0 {
			e.Type = []uint16{0x1a1a, 0xfafa, 0x1a2a, 13172, 17513, 0xff01, 0xfe0d}[r.IntN(7)]
		}
		for i := range e.Data {
			e.Data[i] = byte(r.IntN(5))
		}
		p.extensions = slices.Insert(p.extensions, r.IntN(n+1), e)
	case 11: // one less, or all in another order
		if n > 0 && r.IntN(2) == 0 {
			p.extensions = slices.Delete(p.extensions, r.IntN(n), n)
		}
		r.Shuffle(len(p.extensions), func(i, j int) { p.extensions[i], p.extensions[j] = p.extensions[j], p.extensions[i] })
	case 12, 13: // another byte in an extension, or one more or less
		if n == 0 {
			break
		}
		e := &p.extensions[r.IntN(n)]
		switch k := len(e.Data); {
		case k == 0 || r.IntN(4) == 0:
			e.Data = append(e.Data, byte(r.IntN(3)))
		case r.IntN(3) == 0:
			e.Data = e.Data[:k-1]
		default:
			e.Data[r.IntN(min(k, 6))] = byte(r.IntN(8))
		}
	}
	return p.bytes()
}

// Of hellos that are changed in one place each, what is understood is what
// crypto/tls makes of it, and much of what crypto/tls refuses for its version is
// understood.
func TestLookAgreesWithCryptoTLS(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	hellos := legacyHellos(t)
	var l look
	understood, refused, otherwise := 0, 0, 0
	const hundreds = 200
	for range hundreds * 100 {
		b := mutate(r, hellos)
		if r.IntN(hundreds) == 0 {
			l = look{}
		}
		switch _, ok := cryptoTLS(b, strictConfigs[0]); {
		case checkLook(t, &l, b):
			understood++
			refused++
		case ok:
			refused++
		default:
			otherwise++
		}
	}
	t.Logf("%d understood of %d that are refused for their version, %d others", understood, refused, otherwise)
	if refused < 50*hundreds || otherwise < 10*hundreds || understood < refused*6/10 {
		t.Errorf("%d understood of %d that are refused for their version, %d others", understood, refused, otherwise)
	}
}

// assemble makes a hello of any bytes: unlike these it has the right lengths in
// most places.
func assemble(data []byte) []byte {
	next := func(n int) (piece []byte) {
		n = min(n, len(data))
		piece, data = data[:n], data[n:]
		return piece
	}
	number := func() int { return int(append(bytes.Clone(next(1)), 0)[0]) }
	p := parts{version: 0x0300 + uint16(number()%4), compression: []byte{0}}
	p.session = next(number() % 40)
	p.suites = next(2 * (1 + number()%140))
	for len(data) > 0 {
		p.block = true
		var e hello.Extension
		switch kind := number(); kind % 4 {
		case 0:
			e.Type = uint16(number())<<8 | uint16(number())
		default:
			e.Type = []uint16{0, 5, 10, 11, 13, 16, 18, 21, 23, 35, 43, 0xff01}[kind/4%12]
		}
		e.Data = next(number())
		switch n := len(e.Data); number() % 3 { // as a list
		case 1:
			e.Data = append([]byte{byte(n)}, e.Data...)
		case 2:
			e.Data = append([]byte{byte(n >> 8), byte(n)}, e.Data...)
		}
		p.extensions = append(p.extensions, e)
	}
	return p.bytes()
}

// FuzzLook reads any bytes, the same as the body of a hello, and a hello that
// is made by them.
func FuzzLook(f *testing.F) {
	hellos := legacyHellos(f)
	for _, h := range hellos {
		if len(h.bytes) < 1000 {
			f.Add(h.bytes)
		}
	}
	r := rand.New(rand.NewPCG(3, 4))
	for range 100 {
		if b := mutate(r, hellos); len(b) < 1000 {
			f.Add(b)
		}
	}
	f.Add([]byte{})
	f.Add(append([]byte{1, 0, 0, 0, 47, 1, 5, 0, 3, 'a', '.', 'b'}, 2, 9, 4, 0, 23, 0, 24, 2, 13, 1, 0, 1, 21, 3, 2, 'h', '2', 2))
	var used look
	f.Fuzz(func(t *testing.T, data []byte) {
		flights := [][]byte{data, assemble(data)}
		if len(data) > 9 {
			flights = append(flights, record(3, 1, message(1, data[9:])))
		}
		for _, b := range flights {
			var fresh look
			if checkLook(t, &used, b) != fresh.read(b) || !reflect.DeepEqual(used.hello, fresh.hello) {
				t.Fatalf("%x: %+v, but the first time %+v", b, used.hello, fresh.hello)
			}
		}
	})
}

func BenchmarkLook(b *testing.B) {
	for _, h := range capturedHellos(b) {
		if h.name != "openssl -tls1 plain" && h.name != "java TLSv1" {
			continue
		}
		b.Run(h.name, func(b *testing.B) {
			var l look
			b.ReportAllocs()
			for b.Loop() {
				if !l.read(h.bytes) {
					b.Fatal("not understood")
				}
			}
		})
		b.Run(h.name+" by crypto/tls", func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, refused := cryptoTLS(h.bytes, strictConfigs[0]); !refused {
					b.Fatal("not refused")
				}
			}
		})
	}
}
