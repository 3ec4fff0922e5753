package legacyhello

import (
	"bytes"
	"crypto/tls"
	"encoding/binary"
	"encoding/hex"
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

// What Parse says of a hello is compared with crypto/tls, which is given the same
// bytes.

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

// versionAlert is a fatal protocol_version.
var versionAlert = []byte{21, 3, 1, 0, 2, 2, 70}

// cryptoTLS gives b to crypto/tls. refused: the hook was asked, and then there
// was the alert for the version and nothing else.
func cryptoTLS(b []byte, config *tls.Config) (c *helloConn, refused bool) {
	c = new(helloConn)
	c.hello.Reset(b)
	err := tls.Server(c, config).Handshake()
	return c, err != nil && c.asked == 1 && bytes.Equal(c.written, versionAlert)
}

// check parses b, and if that is understood asks crypto/tls too.
func check(t testing.TB, b []byte) (understood bool) {
	t.Helper()
	mine := bytes.Clone(b)
	got, understood := Parse(mine)
	if !bytes.Equal(mine, b) {
		t.Fatalf("%x: became %x", b, mine)
	}
	clear(mine) // nothing of it may be kept
	if !understood {
		if !reflect.DeepEqual(got, policy.Hello{}) {
			t.Fatalf("%x: not understood, but there is %+v", b, got)
		}
		return false
	}
	for i, config := range strictConfigs {
		floor := policy.Floors[i]
		c, refused := cryptoTLS(b, config)
		if !refused {
			t.Fatalf("%x: floor %s: crypto/tls asked %d times and wrote %x", b, floor, c.asked, c.written)
		}
		if !reflect.DeepEqual(got, c.seen) {
			t.Fatalf("%x:\n     %#v\nwant %#v", b, got, c.seen)
		}
		verdict := policy.New(floor, policy.Enforce).At(time.Time{}).Decide(&got, policy.ConnInfo{Keys: policy.RSA}, time.Time{}, 0)
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

// legacyHellos are all that Parse must understand.
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

// someExtensions are those that Parse understands and internal/hello has no
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

func TestHellosOfOldClientsAreUnderstood(t *testing.T) {
	for _, h := range legacyHellos(t) {
		if !check(t, h.bytes) {
			t.Errorf("%s: not understood: %x", h.name, h.bytes)
		}
	}
}

// A hello that is only almost such a one is left to crypto/tls.
func TestTheRestIsLeftToCryptoTLS(t *testing.T) {
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
		{"suites of odd length", framed(message(1, slices.Concat(plain[9:44], []byte{0, 3, 0, 47, 0, 1, 0}))), framed(message(1, slices.Concat(plain[9:44], []byte{0, 2, 0, 47, 1, 0})))},
		{"no compression method", framed(message(1, slices.Concat(bare[9:len(bare)-2], []byte{0}))), bare},
		{"not the null method", framed(message(1, slices.Concat(bare[9:len(bare)-2], []byte{1, 1}))), bare},
		{"nothing behind the suites", framed(message(1, bare[9:len(bare)-2])), bare},
		{"half a length of the extensions", framed(message(1, append(bytes.Clone(bare[9:]), 0))), framed(message(1, append(bytes.Clone(bare[9:]), 0, 0)))},
		{"extensions of another length", framed(message(1, append(bytes.Clone(bare[9:]), 0, 1))), bare},
		{"a byte of an extension", framed(message(1, append(bytes.Clone(bare[9:]), 0, 1, 0))), bare},
		{"an extension without a length", framed(message(1, append(bytes.Clone(bare[9:]), 0, 2, 0, 18))), framed(message(1, append(bytes.Clone(bare[9:]), 0, 4, 0, 18, 0, 0)))},
		{"an extension beyond the end", framed(message(1, append(bytes.Clone(bare[9:]), 0, 4, 0, 35, 0, 1))), framed(message(1, append(bytes.Clone(bare[9:]), 0, 5, 0, 35, 0, 1, 9)))},

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
		{"a second padding", spec(func(s *hello.Spec) { s.Extra = []hello.Extension{{Type: 21}, {Type: 21}} }), extra(21)},

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
	} {
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
