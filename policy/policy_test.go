package policy

import (
	"bytes"
	"crypto/tls"
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"
	"time"
)

// modern is what a client of today offers, old what one of 2005 does.
var (
	modern = Hello{
		Versions:         []uint16{0x0a0a, 0x0304, 0x0303},
		CipherSuites:     []uint16{0x1a1a, tls.TLS_AES_128_GCM_SHA256, tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256},
		Groups:           []tls.CurveID{tls.X25519, tls.CurveP256},
		SignatureSchemes: []tls.SignatureScheme{tls.ECDSAWithP256AndSHA256, tls.PSSWithSHA256, tls.PKCS1WithSHA256},
	}
	old = Hello{
		Versions:     []uint16{0x0301},
		CipherSuites: []uint16{tls.TLS_RSA_WITH_AES_128_CBC_SHA, tls.TLS_RSA_WITH_3DES_EDE_CBC_SHA},
	}
)

// with returns a copy of h, changed.
func with(h Hello, change func(*Hello)) Hello {
	change(&h)
	return h
}

func TestVerdictsByHelloAndFloor(t *testing.T) {
	tls12 := with(modern, func(h *Hello) { h.Versions = []uint16{0x0303, 0x0302, 0x0301} })
	suites := func(ids ...uint16) Hello { return with(tls12, func(h *Hello) { h.CipherSuites = ids }) }
	sha1 := func(ids ...uint16) Hello {
		return with(suites(ids...), func(h *Hello) { h.SignatureSchemes = []tls.SignatureScheme{tls.PKCS1WithSHA1, tls.ECDSAWithSHA1} })
	}
	for _, tt := range []struct {
		name    string
		hello   Hello
		keys    KeyTypes
		version Version
		// by floor: compat, tls1.2, aead, tls1.3
		reasons [4]Reason
	}{
		{"TLS 1.3", modern, RSA, TLS13, [4]Reason{}},
		{"TLS 1.2", tls12, RSA, TLS12, [4]Reason{3: ReasonVersion}},
		{"TLS 1.0", old, RSA, TLS10, [4]Reason{ReasonVersion, ReasonVersion, ReasonVersion, ReasonVersion}},
		{"TLS 1.1 in the extension of a newer hello", with(modern, func(h *Hello) { h.Versions = []uint16{0x0302, 0x3a3a} }), RSA, TLS11,
			[4]Reason{ReasonVersion, ReasonVersion, ReasonVersion, ReasonVersion}},
		{"SSL 3.0", with(old, func(h *Hello) { h.Versions = []uint16{0x0300} }), RSA, SSL3,
			[4]Reason{ReasonVersion, ReasonVersion, ReasonVersion, ReasonVersion}},
		{"SSL 2.0", Hello{SSL2Format: true, Versions: []uint16{2}}, RSA, SSL2,
			[4]Reason{ReasonVersion, ReasonVersion, ReasonVersion, ReasonVersion}},
		{"TLS 1.2, SSLv2-compatible", with(suites(0xc02f), func(h *Hello) { h.SSL2Format = true }), RSA, TLS12,
			[4]Reason{ReasonSSL2Hello, ReasonSSL2Hello, ReasonSSL2Hello, ReasonVersion}},
		{"fallback to TLS 1.0", with(old, func(h *Hello) { h.CipherSuites = append(slices.Clone(h.CipherSuites), tls.TLS_FALLBACK_SCSV) }), RSA, TLS10,
			[4]Reason{ReasonFallback, ReasonFallback, ReasonFallback, ReasonFallback}},
		{"fallback to TLS 1.2", suites(0xc02f, tls.TLS_FALLBACK_SCSV), RSA, TLS12, [4]Reason{3: ReasonFallback}},
		{"versions of the future alone", with(modern, func(h *Hello) { h.Versions = []uint16{0x0305, 0x1a1a} }), RSA, NoVersion, [4]Reason{}},
		{"RSA key exchange", suites(tls.TLS_RSA_WITH_AES_128_GCM_SHA256), RSA, TLS12, [4]Reason{0, ReasonCipher, ReasonCipher, ReasonVersion}},
		{"RSA key exchange, ECDSA key", suites(tls.TLS_RSA_WITH_AES_128_GCM_SHA256), ECDSAP256, TLS12, [4]Reason{ReasonCipher, ReasonCipher, ReasonCipher, ReasonVersion}},
		{"3DES", suites(tls.TLS_ECDHE_RSA_WITH_3DES_EDE_CBC_SHA, tls.TLS_RSA_WITH_3DES_EDE_CBC_SHA), RSA, TLS12, [4]Reason{ReasonCipher, ReasonCipher, ReasonCipher, ReasonVersion}},
		{"RC4", suites(tls.TLS_ECDHE_RSA_WITH_RC4_128_SHA), RSA, TLS12, [4]Reason{ReasonCipher, ReasonCipher, ReasonCipher, ReasonVersion}},
		{"DHE", suites(0x009e, 0x0033), RSA, TLS12, [4]Reason{ReasonCipher, ReasonCipher, ReasonCipher, ReasonVersion}},
		{"ECDHE with CBC", suites(tls.TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA), RSA, TLS12, [4]Reason{0, 0, ReasonCipher, ReasonVersion}},
		{"ECDHE with CBC-SHA256", suites(tls.TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA256), RSA, TLS12, [4]Reason{ReasonCipher, ReasonCipher, ReasonCipher, ReasonVersion}},
		{"ECDSA suites, RSA key", suites(tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256), RSA, TLS12, [4]Reason{ReasonCipher, ReasonCipher, ReasonCipher, ReasonVersion}},
		{"ECDSA suites, both keys", suites(tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256), RSA | ECDSAP256, TLS12, [4]Reason{3: ReasonVersion}},
		{"no group in common", with(tls12, func(h *Hello) { h.Groups = []tls.CurveID{0x001e} }), RSA, TLS12, [4]Reason{ReasonCipher, ReasonCipher, ReasonCipher, ReasonVersion}},
		{"SHA-1 signatures alone", with(tls12, func(h *Hello) { h.SignatureSchemes = []tls.SignatureScheme{tls.PKCS1WithSHA1} }), RSA, TLS12,
			[4]Reason{ReasonCipher, ReasonCipher, ReasonCipher, ReasonVersion}},
		{"SHA-1 signatures alone, RSA key exchange offered", sha1(0xc02f, 0xc013, 0x002f), RSA | ECDSAP256, TLS12, [4]Reason{0, ReasonCipher, ReasonCipher, ReasonVersion}},
		{"SHA-1 signatures alone, RSA key exchange offered, ECDSA key", sha1(0xc02b, 0xc02f, 0x002f), ECDSAP256, TLS12,
			[4]Reason{ReasonCipher, ReasonCipher, ReasonCipher, ReasonVersion}},
		{"TLS 1.3 without a suite of its own", with(modern, func(h *Hello) { h.CipherSuites = []uint16{0xc02f} }), RSA, TLS13,
			[4]Reason{ReasonCipher, ReasonCipher, ReasonCipher, ReasonCipher}},
	} {
		for i, f := range Floors[:len(tt.reasons)] {
			v := Snapshot{Floor: f}.Decide(&tt.hello, ConnInfo{Keys: tt.keys}, time.Time{}, 0)
			if v.Version != tt.version || v.Reason != tt.reasons[i] || v.Legacy() != (tt.reasons[i] != NotLegacy) {
				t.Errorf("%s at %s: version %s reason %q, want %s and %q", tt.name, f, v.Version, v.Reason, tt.version, tt.reasons[i])
			}
		}
	}
}

func TestTLS13PQAsksForAHybridGroup(t *testing.T) {
	groups := func(ids ...tls.CurveID) Hello { return with(modern, func(h *Hello) { h.Groups = ids }) }
	for _, tt := range []struct {
		name   string
		hello  Hello
		reason Reason
	}{
		{"X25519MLKEM768 among others", groups(tls.X25519, tls.X25519MLKEM768), NotLegacy},
		{"SecP256r1MLKEM768 alone", groups(tls.SecP256r1MLKEM768), NotLegacy},
		{"SecP384r1MLKEM1024 alone", groups(tls.SecP384r1MLKEM1024), NotLegacy},
		{"curves alone", groups(tls.X25519, tls.CurveP256, tls.CurveP384, tls.CurveP521), ReasonCipher},
		{"a hybrid group in TLS 1.2", with(groups(tls.X25519MLKEM768, tls.X25519), func(h *Hello) { h.Versions = []uint16{0x0303} }), ReasonVersion},
	} {
		if v := (Snapshot{Floor: FloorTLS13PQ}).Decide(&tt.hello, ConnInfo{Keys: RSA}, time.Time{}, 0); v.Reason != tt.reason {
			t.Errorf("%s: reason %q, want %q", tt.name, v.Reason, tt.reason)
		}
	}
}

func TestClientsServedBelowTheFloor(t *testing.T) {
	scsv := with(old, func(h *Hello) { h.CipherSuites = []uint16{tls.TLS_RSA_WITH_AES_128_CBC_SHA, tls.TLS_FALLBACK_SCSV} })
	for _, tt := range []struct {
		name  string
		hello Hello
		keys  KeyTypes
		// served: observe and explain can be what they say; passed: observe can
		// with a server that speaks what Go does not.
		served, passed bool
	}{
		{"TLS 1.0 with an RSA key", old, RSA, true, false},
		{"TLS 1.0 with an ECDSA key alone", old, ECDSAP256, false, true},
		{"SSL 3.0", with(old, func(h *Hello) { h.Versions = []uint16{0x0300} }), RSA, false, true},
		{"SSL 2.0", Hello{SSL2Format: true, Versions: []uint16{2}}, RSA, false, true},
		{"DHE alone", with(old, func(h *Hello) { h.CipherSuites = []uint16{0x0033} }), RSA, false, true},
		{"fallback", scsv, RSA, false, false},
		{"TLS_FALLBACK_SCSV in TLS 1.3 is none", with(modern, func(h *Hello) { h.CipherSuites = []uint16{tls.TLS_RSA_WITH_AES_128_CBC_SHA, tls.TLS_FALLBACK_SCSV} }), RSA, false, true},
		{"fallback with DHE alone", with(scsv, func(h *Hello) { h.CipherSuites = []uint16{0x0033, tls.TLS_FALLBACK_SCSV} }), RSA, false, false},
	} {
		for _, m := range Modes {
			want := Enforce
			if tt.served {
				want = m
			}
			if v := (Snapshot{Mode: m}).Decide(&tt.hello, ConnInfo{Keys: tt.keys}, time.Time{}, 0); v.Serve != want || v.Mode != m || v.PassThrough != (tt.passed && m == Observe) {
				t.Errorf("%s in %s: serve %s, mode %s, pass through %v; want serve %s", tt.name, m, v.Serve, v.Mode, v.PassThrough, want)
			}
		}
	}
	if v := (Snapshot{Mode: Observe}).Decide(&modern, ConnInfo{Keys: RSA}, time.Time{}, 0); v.Serve != Enforce || v.PassThrough {
		t.Errorf("a modern client is served by the lenient configuration")
	}
}

// Where a signature can be shared, by any key, there is ECDHE; and where none can, RSA key
// exchange alone, with the RSA key.
func TestRSAKeyExchangeAloneIsForThoseWhoShareNoSignature(t *testing.T) {
	const both = RSA | ECDSAP256
	ecdsaSuites, rsaSuites, static := []uint16{0xc02b}, []uint16{0xc02f, 0xc013}, []uint16{0x002f}
	sha1 := []tls.SignatureScheme{tls.PKCS1WithSHA1, tls.ECDSAWithSHA1}
	for _, tt := range []struct {
		name    string
		suites  []uint16
		schemes []tls.SignatureScheme
		keys    KeyTypes
		key     KeyTypes
		alone   bool
	}{
		{"SHA-1", slices.Concat(rsaSuites, static), sha1, both, RSA, true},
		{"no extension", slices.Concat(rsaSuites, static), nil, both, RSA, true},
		{"SHA-1 and DHE", []uint16{0x0033, 0xc013, 0x002f}, sha1, RSA, RSA, true},
		{"ECDSA's schemes with RSA's suites", slices.Concat(rsaSuites, static), []tls.SignatureScheme{tls.ECDSAWithP256AndSHA256}, both, RSA, true},
		{"RSA's schemes with ECDSA's suites", slices.Concat(ecdsaSuites, static), []tls.SignatureScheme{tls.PKCS1WithSHA256}, both, RSA, false},
		{"RSA's schemes, ECDSA's suites, P-256 alone", ecdsaSuites, []tls.SignatureScheme{tls.PKCS1WithSHA256}, both, 0, false},
		{"PSS alone", slices.Concat(rsaSuites, static), []tls.SignatureScheme{tls.PSSWithSHA256}, both, RSA, false},
		{"both of ECDSA", slices.Concat(ecdsaSuites, rsaSuites, static), []tls.SignatureScheme{tls.ECDSAWithP256AndSHA256}, both, ECDSAP256, false},
		{"RSA key exchange alone as it is", static, nil, both, RSA, false},
		{"no RSA key", slices.Concat(rsaSuites, static), sha1, ECDSAP256, 0, false},
		{"ECDHE alone", rsaSuites, sha1, both, 0, false},
	} {
		h := with(modern, func(h *Hello) {
			h.Versions, h.CipherSuites, h.SignatureSchemes = []uint16{0x0303}, tt.suites, tt.schemes
		})
		for _, s := range []Snapshot{{Floor: FloorTLS12Compat}, {Floor: FloorTLS13, Mode: Explain}, {Floor: FloorTLS13, Mode: Observe}} {
			v := s.Decide(&h, ConnInfo{Keys: tt.keys}, time.Time{}, 0)
			if v.RSAKeyExchange != tt.alone || v.Key != tt.key {
				t.Errorf("%s at %s in %s: RSA key exchange alone %v, key %b", tt.name, s.Floor, s.Mode, v.RSAKeyExchange, v.Key)
			}
			if served := v.Serve != Enforce || !v.Legacy(); served != (tt.key != 0) || v.PassThrough != (!served && s.Mode == Observe) {
				t.Errorf("%s at %s in %s: served by %s, passed through %v", tt.name, s.Floor, s.Mode, v.Serve, v.PassThrough)
			}
		}
		if v := (Snapshot{}).Decide(&h, ConnInfo{Keys: tt.keys}, time.Time{}, 0); v.RSAKeyExchange {
			t.Errorf("%s: RSA key exchange under tls1.2", tt.name)
		}
	}
	for _, f := range []Floor{FloorTLS12, FloorTLS12AEAD, FloorTLS13, FloorTLS13PQ} {
		if c := RSAKeyExchange(f.TLSConfig()); c != nil {
			t.Errorf("%s has RSA key exchange: %04x", f, c.CipherSuites)
		}
	}
}

func TestOnlyEnforceNeedsNoLenientConfiguration(t *testing.T) {
	for _, m := range Modes {
		if got := New(FloorTLS12, m).MayServeLegacy(time.Time{}); got != (m != Enforce) {
			t.Errorf("%s: MayServeLegacy is %v", m, got)
		}
	}
}

func TestFloorsSpellOutTheirSuites(t *testing.T) {
	ecdheAEAD := []uint16{0xc02b, 0xc02f, 0xc02c, 0xc030, 0xcca9, 0xcca8}
	ecdheCBC := []uint16{0xc009, 0xc013, 0xc00a, 0xc014}
	static := []uint16{0x009c, 0x009d, 0x002f, 0x0035, 0x003c}
	for f, want := range map[Floor][]uint16{
		FloorTLS12Compat: slices.Concat(ecdheAEAD, ecdheCBC, static),
		FloorTLS12:       slices.Concat(ecdheAEAD, ecdheCBC),
		FloorTLS12AEAD:   ecdheAEAD,
		FloorTLS13:       nil,
		FloorTLS13PQ:     nil,
	} {
		got := f.CipherSuites()
		slices.Sort(got)
		slices.Sort(want)
		if !slices.Equal(got, want) {
			t.Errorf("%s has %04x, want %04x", f, got, want)
		}
	}
	served := 0
	for _, s := range slices.Concat(tls.CipherSuites(), tls.InsecureCipherSuites()) {
		if !slices.Contains(s.SupportedVersions, tls.VersionTLS12) {
			continue
		}
		if served++; !slices.Contains(lenient.CipherSuites(), s.ID) {
			t.Errorf("the lenient configuration lacks %s, which crypto/tls can serve", s.Name)
		}
	}
	if n := len(lenient.CipherSuites()); n != served {
		t.Errorf("the lenient configuration has %d suites, crypto/tls %d", n, served)
	}
}

func TestNamesCanBeParsedAgain(t *testing.T) {
	for _, f := range Floors {
		if got, err := ParseFloor(f.String()); err != nil || got != f {
			t.Errorf("floor %s: %v, %v", f, got, err)
		}
	}
	for _, m := range Modes {
		if got, err := ParseMode(m.String()); err != nil || got != m {
			t.Errorf("mode %s: %v, %v", m, got, err)
		}
	}
	if _, err := ParseFloor("lenient"); err == nil || !strings.Contains(err.Error(), "tls1.2-aead") {
		t.Errorf("a floor that is none: %v", err)
	}
	if _, err := ParseMode("off"); err == nil || !strings.Contains(err.Error(), "observe") {
		t.Errorf("a mode that is none: %v", err)
	}
}

func TestSuitesGoByTheirIANANames(t *testing.T) {
	for id, want := range map[uint16]string{
		0x0005: "TLS_RSA_WITH_RC4_128_SHA", 0x0033: "TLS_DHE_RSA_WITH_AES_128_CBC_SHA",
		0x1301: "TLS_AES_128_GCM_SHA256", 0xcca8: "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256",
		0x5600: "TLS_FALLBACK_SCSV", 0x00ff: "TLS_EMPTY_RENEGOTIATION_INFO_SCSV", 0x1a2b: "0x1a2b",
	} {
		if got := CipherSuiteName(id); got != want {
			t.Errorf("%04x is %s, want %s", id, got, want)
		}
	}
	for _, s := range slices.Concat(tls.CipherSuites(), tls.InsecureCipherSuites()) {
		if got := CipherSuiteName(s.ID); got != s.Name {
			t.Errorf("%04x is %s, but crypto/tls says %s", s.ID, got, s.Name)
		}
	}
}

func TestAHelloCannotFillTheLog(t *testing.T) {
	h := Hello{SSL2Ciphers: []uint32{0x010080, 0x123456}}
	for i := range 1000 {
		h.Versions = append(h.Versions, uint16(0x0400+i))
		h.CipherSuites = append(h.CipherSuites, uint16(0x2000+i))
	}
	h.CipherSuites[0] = 0x1a1a
	h.Versions[0] = 0x2a2a
	if v, c := h.VersionNames(), h.CipherSuiteNames(); len(v) != 64 || len(c) != 64 {
		t.Errorf("%d versions and %d suites are listed, want 64 of each", len(v), len(c))
	} else if v[0] != "0x0401" || c[0] != "SSL_CK_RC4_128_WITH_MD5" || c[1] != "0x123456" || c[2] != "0x2001" {
		t.Errorf("the lists begin with %v and %v", v[:1], c[:3])
	}
}

// The fingerprints are public examples of the JA4 method.
func TestJA4(t *testing.T) {
	chrome := Hello{
		Versions:         []uint16{0x5a5a, 0x0304, 0x0303},
		CipherSuites:     []uint16{0x1a1a, 0x1301, 0x1302, 0x1303, 0xc02b, 0xc02f, 0xc02c, 0xc030, 0xcca9, 0xcca8, 0xc013, 0xc014, 0x009c, 0x009d, 0x002f, 0x0035},
		Extensions:       []uint16{0x2a2a, 0x001b, 0x0000, 0x0033, 0x0010, 0x4469, 0x0017, 0x002d, 0x000d, 0x0005, 0x0023, 0x0012, 0x002b, 0xff01, 0x000b, 0x000a, 0x0015, 0x3a3a},
		SignatureSchemes: []tls.SignatureScheme{0x0403, 0x0804, 0x0401, 0x0503, 0x0805, 0x0501, 0x0806, 0x0601},
		ServerName:       "example.org", ALPN: []string{"h2", "http/1.1"},
	}
	if got, want := chrome.JA4(), "t13d1516h2_8daaf6152771_e5627efa2ab1"; got != want {
		t.Errorf("JA4 is %s, want %s", got, want)
	}
	bare := Hello{Versions: []uint16{0x0300}, CipherSuites: []uint16{0x000a}}
	if got := bare.JA4(); !strings.HasPrefix(got, "ts3i010000_") || !strings.HasSuffix(got, "_000000000000") {
		t.Errorf("JA4 of an SSL 3.0 hello is %s", got)
	}
	if got := (&Hello{}).JA4(); got != "t00i000000_000000000000_000000000000" {
		t.Errorf("JA4 of nothing is %s", got)
	}
}

func TestDecideDoesNotAllocate(t *testing.T) {
	for name, h := range map[string]Hello{"modern": modern, "old": old} {
		for _, m := range Modes {
			s := Snapshot{Mode: m}
			if n := testing.AllocsPerRun(100, func() { s.Decide(&h, ConnInfo{Keys: RSA | ECDSAP256}, time.Time{}, 0) }); n != 0 {
				t.Errorf("%s in %s: %v allocations", name, m, n)
			}
		}
	}
}

// oneWayConn feeds a hello to a server and throws away what that writes.
type oneWayConn struct {
	net.Conn
	in *bytes.Reader
}

func (c *oneWayConn) Read(p []byte) (int, error)  { return c.in.Read(p) }
func (c *oneWayConn) Write(p []byte) (int, error) { return len(p), nil }
func (c *oneWayConn) Close() error                { return nil }
func (c *oneWayConn) SetDeadline(time.Time) error { return nil }

// FuzzHelloFacts feeds a stranger's bytes to crypto/tls and takes the facts.
func FuzzHelloFacts(f *testing.F) {
	f.Add([]byte{22, 3, 1, 0, 5, 1, 0, 0, 1, 3})
	f.Add(bytes.Repeat([]byte{0xff}, 64))
	f.Fuzz(func(t *testing.T, data []byte) {
		conn := &oneWayConn{in: bytes.NewReader(data)}
		config := FloorTLS12.TLSConfig()
		config.GetConfigForClient = func(chi *tls.ClientHelloInfo) (*tls.Config, error) {
			h := FromClientHello(chi)
			if n := len(h.JA4()); n != len("t13d1516h2_8daaf6152771_e5627efa2ab1") {
				t.Errorf("JA4 has %d characters", n)
			}
			if len(h.VersionNames()) > 64 || len(h.CipherSuiteNames()) > 64 {
				t.Error("the lists are not bounded")
			}
			if !slices.Contains(Versions, h.Version()) {
				t.Errorf("version %v has no label", h.Version())
			}
			for _, m := range Modes {
				Snapshot{Mode: m}.Decide(&h, ConnInfo{Keys: RSA}, time.Time{}, 0)
			}
			return nil, fmt.Errorf("seen")
		}
		config.GetCertificate = func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return nil, nil }
		tls.Server(conn, config).Handshake()
	})
}

func BenchmarkDecide(b *testing.B) {
	for name, h := range map[string]Hello{"modern": modern, "legacy": old} {
		b.Run(name, func(b *testing.B) {
			s := Snapshot{Mode: Observe}
			b.ReportAllocs()
			for b.Loop() {
				s.Decide(&h, ConnInfo{Keys: RSA | ECDSAP256}, time.Time{}, 0)
			}
		})
	}
}

func BenchmarkJA4(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		old.JA4()
	}
}
