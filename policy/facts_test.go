package policy_test

import (
	"crypto/sha256"
	"crypto/tls"
	"fmt"
	"slices"
	"strings"
	"testing"

	"postern/policy"
)

// TestTheOfferedVersionIsReported reads hellos as crypto/tls hands them over.
func TestTheOfferedVersionIsReported(t *testing.T) {
	for _, tt := range []struct {
		name          string
		legacyVersion uint16
		extension     []uint16
		want          policy.Version
		listed        string
	}{
		{"SSL 2.0 in a TLS record", 0x0002, nil, policy.SSL3, "ssl3"},
		{"SSL 3.0", 0x0300, nil, policy.SSL3, "ssl3"},
		{"TLS 1.0", 0x0301, nil, policy.TLS10, "tls1.0"},
		{"TLS 1.1", 0x0302, nil, policy.TLS11, "tls1.1 tls1.0"},
		{"TLS 1.2", 0x0303, nil, policy.TLS12, "tls1.2 tls1.1 tls1.0"},
		{"TLS 1.3 in the old field", 0x0304, nil, policy.TLS12, "tls1.2 tls1.1 tls1.0"},
		{"the future in the old field", 0x0405, nil, policy.TLS12, "tls1.2 tls1.1 tls1.0"},
		{"TLS 1.3", 0x0303, []uint16{0x0304, 0x0303}, policy.TLS13, "tls1.3 tls1.2"},
		{"TLS 1.3 in both places", 0x0304, []uint16{0x0304}, policy.TLS13, "tls1.3"},
		{"TLS 1.1 hidden in the extension", 0x0303, []uint16{0x0301, 0x0302}, policy.TLS11, "tls1.0 tls1.1"},
		{"GREASE before TLS 1.2", 0x0303, []uint16{0xfafa, 0x0303}, policy.TLS12, "tls1.2"},
		{"nearly GREASE", 0x0303, []uint16{0x0a1a, 0x0303}, policy.TLS12, "0x0a1a tls1.2"},
		{"GREASE alone", 0x0303, []uint16{0xfafa}, policy.NoVersion, ""},
		{"the future alone", 0x0303, []uint16{0x0305, 0x7f1c}, policy.NoVersion, "0x0305 0x7f1c"},
		{"the future and TLS 1.0", 0x0303, []uint16{0x0305, 0x0301}, policy.TLS10, "0x0305 tls1.0"},
		{"SSL 2.0 in the extension", 0x0303, []uint16{0x0002}, policy.SSL2, "ssl2"},
	} {
		o := offer{legacyVersion: tt.legacyVersion, versions: tt.extension, suites: []uint16{0x1301}}.finish()
		h := proxy{keys: policy.RSA}.ask(t, o).hello
		if got := h.Version(); got != tt.want {
			t.Errorf("%s: version %s, want %s", tt.name, got, tt.want)
		}
		if got := strings.Join(h.VersionNames(), " "); got != tt.listed {
			t.Errorf("%s: listed as %q, want %q", tt.name, got, tt.listed)
		}
	}
}

// TestJA4IsThatOfTheBytes computes the fingerprint from what was sent.
func TestJA4IsThatOfTheBytes(t *testing.T) {
	for i, raw := range seeds {
		o := raw.offer()
		if o.malformed() {
			continue
		}
		h := proxy{keys: raw.keySet()}.ask(t, o).hello
		if got, want := h.JA4(), o.ja4(); got != want {
			t.Errorf("seed %d is %s, want %s: %s", i, got, want, o)
		}
	}
}

// The first protocol stands for all, by its ends (as text, or as hexadecimal
// digits where they are neither letters nor digits).
func TestJA4NamesTheProtocol(t *testing.T) {
	for protocol, want := range map[string]string{
		"imap": "ip", "pop3": "p3", "h2": "h2", "http/1.1": "h1", "x": "xx", "": "00",
		"\xab": "ab", "\xab\xcd": "ad", "0\xab": "3b", "\xab0": "a0", "-imap": "20", "\x3a\x3a": "3a",
	} {
		h := policy.Hello{ALPN: []string{protocol, "imap"}}
		if got := h.JA4()[8:10]; got != want {
			t.Errorf("%q is %q, want %q", protocol, got, want)
		}
	}
}

// A browser's hello of 2025, as a public fingerprinting site tells it; GREASE
// is added wherever it may stand.
func TestJA4OfABrowser(t *testing.T) {
	h := policy.Hello{
		Versions:         []uint16{0x3a3a, 0x0304, 0x0303},
		CipherSuites:     []uint16{0x4a4a, 0x1301, 0x1302, 0x1303, 0xc02b, 0xc02f, 0xc02c, 0xc030, 0xcca9, 0xcca8, 0xc013, 0xc014, 0x009c, 0x009d, 0x002f, 0x0035},
		Extensions:       []uint16{0x5a5a, 0x002d, 0x0033, 0x0010, 0xfe0d, 0x0017, 0x44cd, 0x0000, 0x000b, 0x000a, 0x002b, 0xff01, 0x0023, 0x0012, 0x0005, 0x000d, 0x001b, 0x6a6a},
		SignatureSchemes: []tls.SignatureScheme{0x7a7a, 0x0403, 0x0804, 0x0401, 0x0503, 0x0805, 0x0501, 0x0806, 0x0601},
		ALPN:             []string{"h2", "http/1.1"},
	}
	if got, want := h.JA4(), "t13d1516h2_8daaf6152771_d8a2da3f94cd"; got != want {
		t.Errorf("JA4 is %s, want %s", got, want)
	}
}

func TestJA4CountsTo99(t *testing.T) {
	h := policy.Hello{Versions: []uint16{0x0302}}
	for i := range uint16(150) {
		h.CipherSuites = append(h.CipherSuites, 0xd000+i)
		h.Extensions = append(h.Extensions, 0x2000+i)
	}
	if got := h.JA4(); !strings.HasPrefix(got, "t11i999900_") {
		t.Errorf("JA4 is %s", got)
	}
}

// ja4 is the fingerprint of an offer, in the words of the method's description.
func (o *offer) ja4() string {
	grease := func(v uint16) bool { return v&0xff == v>>8 && v&0xf == 0xa }
	digits := func(values []uint16) []string {
		var list []string
		for _, v := range values {
			if !grease(v) {
				list = append(list, fmt.Sprintf("%04x", v))
			}
		}
		return list
	}
	hash := func(s string) string {
		if s == "" {
			return strings.Repeat("0", 12)
		}
		return fmt.Sprintf("%x", sha256.Sum256([]byte(s)))[:12]
	}
	extensions := o.numbers()
	count := len(extensions)
	name := "i"
	if o.name != "" {
		name = "d"
	}
	alpn := "00"
	if len(o.protocols) > 0 {
		p := o.protocols[0]
		alpn = p[:1] + p[len(p)-1:]
	}
	extensions = slices.DeleteFunc(extensions, func(v uint16) bool { return v == 0 || v == 16 })
	slices.Sort(extensions)
	tail := strings.Join(digits(extensions), ",")
	if schemes := digits(o.schemes); len(schemes) > 0 {
		tail += "_" + strings.Join(schemes, ",")
	}
	suites := digits(o.suites)
	slices.Sort(suites)
	return fmt.Sprintf("t%s%s%02d%02d%s_%s_%s", o.ja4Version(), name, len(suites), count, alpn, hash(strings.Join(suites, ",")), hash(tail))
}

// numbers are those of the extensions that an offer has.
func (o *offer) numbers() []uint16 {
	var list []uint16
	for b := o.extensions(o.shares); len(b) > 0; {
		list = append(list, uint16(b[0])<<8|uint16(b[1]))
		b = b[4+int(b[2])<<8+int(b[3]):]
	}
	return list
}

func (o *offer) ja4Version() string {
	known := map[uint16]string{0x0304: "13", 0x0303: "12", 0x0302: "11", 0x0301: "10", 0x0300: "s3", 0x0002: "s2"}
	if len(o.versions) == 0 {
		// crypto/tls does not tell what is below TLS 1.0, or above 1.2.
		return known[min(max(o.legacyVersion, 0x0300), 0x0303)]
	}
	highest := uint16(0)
	for _, v := range o.versions {
		if known[v] != "" {
			highest = max(highest, v)
		}
	}
	if highest == 0 {
		return "00"
	}
	return known[highest]
}
