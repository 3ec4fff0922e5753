package handshake

import (
	"bytes"
	"crypto/tls"
	"net"
	"slices"
	"testing"
	"time"

	"postern/internal/hello"
	"postern/internal/posterntest"
)

// offer is one first flight and how it is refused.
type offer struct {
	name   string
	flight []byte
	alert  uint8
	want   want
}

// refused sends a flight, reads the alert, and expects the end in order.
func (r *rig) refused(t *testing.T, listener string, flight []byte, alert uint8, w want) {
	t.Helper()
	r.over(t, listener, w, func(conn *net.TCPConn) {
		write(t, conn, flight)
		expectAlert(t, conn, alert)
	})
}

// expectAlert wants a fatal alert, and the end in order behind it.
func expectAlert(t *testing.T, conn net.Conn, alert uint8) {
	t.Helper()
	got := ended(t, conn)
	// crypto/tls finds only when it comes to sign that the client takes no signature of
	// ours, with its hello on the way.
	const handshake = 22
	if len(got) != 7 && (len(got) == 0 || got[0] != handshake) {
		t.Errorf("%d bytes where an alert takes 7", len(got))
	}
	f, err := hello.ReadFlight(bytes.NewReader(got))
	if wanted := (hello.Answer{Kind: hello.Alert, Level: 2, Alert: alert}); err != nil || f.Answer != wanted {
		t.Errorf("answer %+v, %v, want %+v", f.Answer, err, wanted)
	}
}

// legacy is an offer that is refused for its version or its suites, and
// logged with all that it said.
func legacy(name string, spec hello.Spec, version, reason string, offered ...string) offer {
	flight := hello.ClientHello(spec)
	alert := uint8(70)
	if reason == "cipher" {
		alert = 40
	}
	return offer{name, flight, alert, want{
		version: version, outcome: "rejected", reason: reason,
		log: &logged{offered: offered, suites: spec.CipherSuites, ja4: ja4(flight), name: spec.ServerName},
	}}
}

func with(s hello.Spec, change func(*hello.Spec)) hello.Spec {
	s.CipherSuites = slices.Clone(s.CipherSuites)
	change(&s)
	return s
}

func suites(version uint16, ids ...uint16) hello.Spec {
	return hello.Typical(version).Only(ids...)
}

// Specs that several tests offer.
var (
	tls10    = with(hello.Typical(tls.VersionTLS10), func(s *hello.Spec) { s.ServerName = "mail.example.org" })
	tls12    = hello.Typical(tls.VersionTLS12)
	tls13    = hello.Typical(tls.VersionTLS13)
	dheOnly  = suites(tls.VersionTLS12, hello.DHE...)
	rsaOnly  = suites(tls.VersionTLS12, hello.RSA...)
	desOnly  = suites(tls.VersionTLS12, hello.TDES...)
	future   = with(tls13, func(s *hello.Spec) { s.SupportedVersions = []uint16{0x0305, 0x7f1c} })
	fallback = with(tls10, func(s *hello.Spec) { s.CipherSuites = append(s.CipherSuites, tls.TLS_FALLBACK_SCSV) })
)

func versionOffers() []offer {
	tls11 := hello.Typical(tls.VersionTLS11)
	bare := func(s *hello.Spec) { s.NoExtensions = true }
	hidden := func(versions ...uint16) hello.Spec {
		return with(tls12, func(s *hello.Spec) { s.SupportedVersions = versions })
	}
	return []offer{
		legacy("SSLv3", hello.Typical(hello.VersionSSL30), "ssl3", "version"),
		legacy("TLS 1.0", tls10, "tls1.0", "version"),
		legacy("TLS 1.0 without extensions", with(hello.Typical(tls.VersionTLS10), bare), "tls1.0", "version"),
		legacy("TLS 1.1", tls11, "tls1.1", "version"),
		legacy("TLS 1.1 without extensions", with(tls11, bare), "tls1.1", "version"),
		legacy("TLS 1.0 with a suite nobody knows", suites(tls.VersionTLS10, 0xfefe, 0x0041, 0x0005), "tls1.0", "version"),
		legacy("TLS 1.1 and 1.0 hidden in supported_versions", hidden(0x0302, 0x0301), "tls1.1", "version", "tls1.1", "tls1.0"),
		legacy("TLS 1.0 hidden in supported_versions", hidden(0x0301), "tls1.0", "version", "tls1.0"),
		legacy("TLS 1.1 behind GREASE", hidden(0x4a4a, 0x0302), "tls1.1", "version"),
		behindTheFuture(hidden(0x0305, 0x0301)),
		legacy("TLS 1.0 that falls back", fallback, "tls1.0", "fallback"),
		legacy("TLS 1.1 that falls back", with(tls11, func(s *hello.Spec) {
			s.CipherSuites = append(s.CipherSuites, tls.TLS_FALLBACK_SCSV)
		}), "tls1.1", "fallback"),
	}
}

// behindTheFuture leaves the JA4 open, which has no letter for such a version.
func behindTheFuture(spec hello.Spec) offer {
	o := legacy("TLS 1.0 behind a future version", spec, "tls1.0", "version")
	o.want.log.ja4 = ""
	return o
}

func cipherOffers() []offer {
	foreign := func(s *hello.Spec) { s.Groups = unknownGroups }
	unsigned := func(s *hello.Spec) { s.SignatureSchemes = []tls.SignatureScheme{tls.Ed25519} }
	ecdhe := suites(tls.VersionTLS12, 0xc02f, 0xc02b)
	return []offer{
		legacy("TLS 1.2, DHE only", dheOnly, "tls1.2", "cipher"),
		legacy("TLS 1.2, RSA key exchange only", rsaOnly, "tls1.2", "cipher"),
		legacy("TLS 1.2, 3DES only", desOnly, "tls1.2", "cipher"),
		legacy("TLS 1.2, no common group", with(ecdhe, foreign), "tls1.2", "cipher"),
		legacy("TLS 1.2, no common signature", with(ecdhe, unsigned), "tls1.2", "cipher"),
		legacy("TLS 1.3, no common group", with(tls13, foreign), "tls1.3", "cipher"),
		legacy("TLS 1.3, no common signature", with(tls13, unsigned), "tls1.3", "cipher"),
	}
}

// ssl2Offer is refused with alert 70 whatever it offers.
func ssl2Offer(name string, flight []byte, version, reason string) offer {
	return offer{name, flight, 70, want{version: version, outcome: "rejected", reason: reason}}
}

func ssl2Offers() []offer {
	return []offer{
		ssl2Offer("SSLv2", hello.SSLv2(), "ssl2", "version"),
		ssl2Offer("SSLv3, SSLv2-compatible", posterntest.SSLv2Offering(hello.VersionSSL30), "ssl3", "version"),
		ssl2Offer("TLS 1.0, SSLv2-compatible", posterntest.SSLv2Offering(tls.VersionTLS10), "tls1.0", "version"),
		ssl2Offer("TLS 1.2, SSLv2-compatible", posterntest.SSLv2Offering(tls.VersionTLS12), "tls1.2", "ssl2_hello"),
		ssl2Offer("TLS 1.0, SSLv2-compatible, long", posterntest.SSLv2Large(tls.VersionTLS10), "tls1.0", "version"),
		ssl2Offer("TLS 1.2, SSLv2-compatible, long", posterntest.SSLv2Large(tls.VersionTLS12), "tls1.2", "ssl2_hello"),
	}
}

// shapeOffers are legacy hellos in unusual shapes.
func shapeOffers() []offer {
	sized := func(n int) hello.Spec {
		padding := hello.Extension{Type: 21, Data: posterntest.Padding(hello.ClientHello(tls10), n)}
		return with(tls10, func(s *hello.Spec) { s.Extra = []hello.Extension{padding} })
	}
	cut := func(o offer, n int) offer {
		o.flight = posterntest.Fragment(o.flight, n)
		return o
	}
	return []offer{
		cut(legacy("TLS 1.0 in records of one byte", tls10, "tls1.0", "version"), 1),
		cut(legacy("TLS 1.0 in records of 50 bytes", tls10, "tls1.0", "version"), 50),
		legacy("TLS 1.0 of 16 KB", sized(16<<10), "tls1.0", "version"),
		cut(legacy("TLS 1.0 of 16 KB in records of 100 bytes", sized(16<<10), "tls1.0", "version"), 100),
		legacy("TLS 1.0 of 64 KB", sized(64<<10), "tls1.0", "version"),
	}
}

// failedOffers end in an alert and are not legacy.
func failedOffers() []offer {
	alpn := func(s hello.Spec, names ...string) []byte {
		return hello.ClientHello(with(s, func(s *hello.Spec) { s.Extra = []hello.Extension{{Type: 16, Data: posterntest.ALPN(names...)}} }))
	}
	retry := with(tls12, func(s *hello.Spec) { s.CipherSuites = append(s.CipherSuites, tls.TLS_FALLBACK_SCSV) })
	return []offer{
		{"TLS 1.2 that falls back", hello.ClientHello(retry), 86, want{version: "tls1.2", outcome: "failed", failure: "fallback"}},
		{"only versions of the future", hello.ClientHello(future), 70, want{version: "none", outcome: "failed", failure: "other"}},
		{"ALPN http/1.1 in TLS 1.3", alpn(tls13, "http/1.1"), 120, want{version: "tls1.3", outcome: "failed", failure: "alpn"}},
		{"ALPN h2 in TLS 1.2", alpn(tls12, "h2", "http/1.1"), 120, want{version: "tls1.2", outcome: "failed", failure: "alpn"}},
		{"malformed hello", malformed(), 50, want{version: "none", outcome: "failed", failure: "malformed"}},
	}
}

// malformed is a hello whose extensions claim more bytes than there are.
func malformed() []byte {
	spec := with(tls12, func(s *hello.Spec) { s.Extra = []hello.Extension{{Type: 0xfe00, Data: []byte("x")}} })
	flight := hello.ClientHello(spec)
	flight[len(flight)-2]++
	return flight
}

func TestEnforceRefusesInTheClientsTerms(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	for _, listener := range posterntest.Listeners {
		t.Run(listener, func(t *testing.T) {
			for _, o := range slices.Concat(versionOffers(), cipherOffers(), ssl2Offers(), shapeOffers(), failedOffers()) {
				t.Run(o.name, func(t *testing.T) { r.refused(t, listener, o.flight, o.alert, o.want) })
			}
		})
	}
	r.finish(t)
}

func TestEnforceRefusesAHelloThatComesByteByByte(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	for _, o := range []offer{legacy("TLS 1.0", tls10, "tls1.0", "version"), ssl2Offers()[0], ssl2Offers()[3], cipherOffers()[0]} {
		for _, listener := range posterntest.Listeners {
			t.Run(o.name+" on "+listener, func(t *testing.T) {
				r.over(t, listener, o.want, func(conn *net.TCPConn) {
					for i, b := range o.flight {
						write(t, conn, []byte{b})
						if i < 3 {
							time.Sleep(5 * time.Millisecond) // each by itself
						}
					}
					expectAlert(t, conn, o.alert)
				})
			})
		}
	}
	r.finish(t)
}

func TestLogNamesAtMost64Suites(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	spec := with(tls10, func(s *hello.Spec) {
		for len(s.CipherSuites) < 100 {
			s.CipherSuites = append(s.CipherSuites, 0xfe00+uint16(len(s.CipherSuites)))
		}
	})
	flight := hello.ClientHello(spec)
	w := want{version: "tls1.0", outcome: "rejected", reason: "version", log: &logged{ja4: ja4(flight), name: spec.ServerName}}
	r.refused(t, "imaps", flight, 70, w)
	if lines := r.LogLines("legacy handshake"); len(lines) != 1 || len(words(lines[0]["cipher_suites"])) != 64 {
		t.Errorf("logged %v", lines)
	}
	r.finish(t)
}
