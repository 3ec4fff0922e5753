package handshake

import (
	"crypto/tls"
	"net"
	"strings"
	"testing"

	"postern/internal/hello"
	"postern/internal/posterntest"
)

// manyNames is an ALPN list of n bytes whose first name is acceptable.
func manyNames(first string, n int) []string {
	names := []string{first}
	for ; n > 0; n -= 250 {
		names = append(names, strings.Repeat("x", 249))
	}
	return names
}

func TestModernClientsAreLetInWhateverTheShapeOfTheirHello(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	for _, listener := range posterntest.Listeners {
		protocol := strings.TrimSuffix(listener, "s")
		alpn := func(names []string) *tls.Config {
			c := r.config(tls.VersionTLS13)
			c.NextProtos = names
			return c
		}
		for _, c := range []struct {
			name, version string
			config        *tls.Config
			shape         func(net.Conn) net.Conn
		}{
			{"TLS 1.2", "tls1.2", r.config(tls.VersionTLS12), plain},
			{"TLS 1.3", "tls1.3", r.config(tls.VersionTLS13), plain},
			{"byte by byte", "tls1.3", r.config(tls.VersionTLS13), func(c net.Conn) net.Conn { return byteByByte{c} }},
			{"TLS 1.2 in many records", "tls1.2", r.config(tls.VersionTLS12), func(c net.Conn) net.Conn { return &fragmented{Conn: c} }},
			{"TLS 1.3 in many records", "tls1.3", r.config(tls.VersionTLS13), func(c net.Conn) net.Conn { return &fragmented{Conn: c} }},
			{"ALPN", "tls1.3", alpn([]string{protocol}), plain},
			{"ALPN, ours the second", "tls1.3", alpn([]string{"h2", protocol}), plain},
			{"16 KB", "tls1.3", alpn(manyNames(protocol, 16000)), plain},
			{"60 KB", "tls1.3", alpn(manyNames(protocol, 60000)), plain},
		} {
			t.Run(listener+" "+c.name, func(t *testing.T) { r.accepted(t, listener, c.version, c.config, c.shape) })
		}
	}
	r.finish(t)
}

// TestVersionFieldDoesNotCountBesideTheExtension has a hello whose version
// field says less than its supported_versions (RFC 8446, Section 4.2.1).
func TestVersionFieldDoesNotCountBesideTheExtension(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	spec := with(tls12, func(s *hello.Spec) {
		s.Version = tls.VersionTLS11
		s.SupportedVersions = []uint16{tls.VersionTLS12}
	})
	r.over(t, "imaps", want{version: "tls1.2", outcome: "failed", failure: "closed"}, func(conn *net.TCPConn) {
		write(t, conn, hello.ClientHello(spec))
		a, err := hello.ReadFlight(conn)
		if err != nil || a.Kind != hello.ServerHello || a.Version != tls.VersionTLS12 {
			t.Errorf("answer %+v, %v, want a ServerHello of TLS 1.2", a, err)
		}
		conn.CloseWrite()
		ended(t, conn)
	})
	r.finish(t)
}

// TestEachFloorParts the suites just above it from those just below.
func TestEachFloorParts(t *testing.T) {
	t.Parallel()
	const (
		gcm        = tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256
		chacha     = tls.TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256
		cbc        = tls.TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA
		ecdsaCBC   = tls.TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA
		cbc256     = tls.TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA256
		rsaGCM     = tls.TLS_RSA_WITH_AES_128_GCM_SHA256
		rsaCBC     = tls.TLS_RSA_WITH_AES_128_CBC_SHA
		rsaCBC256  = tls.TLS_RSA_WITH_AES_128_CBC_SHA256
		tripleDES  = tls.TLS_RSA_WITH_3DES_EDE_CBC_SHA
		ecdhe3DES  = tls.TLS_ECDHE_RSA_WITH_3DES_EDE_CBC_SHA
		rc4        = tls.TLS_RSA_WITH_RC4_128_SHA
		dheGCM     = 0x009e
		ecdsaAEAD  = tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384
		ecdsaChaCh = tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256
	)
	for _, c := range []struct {
		floor        string
		above, below []uint16
	}{
		{"tls1.2-compat", []uint16{rsaCBC, rsaCBC256, rsaGCM, cbc, gcm}, []uint16{tripleDES, ecdhe3DES, rc4, dheGCM}},
		{"tls1.2", []uint16{cbc, ecdsaCBC, gcm, chacha}, []uint16{cbc256, rsaGCM, rsaCBC, tripleDES}},
		{"tls1.2-aead", []uint16{gcm, chacha, ecdsaAEAD, ecdsaChaCh}, []uint16{cbc, ecdsaCBC, rsaGCM}},
	} {
		t.Run(c.floor, func(t *testing.T) {
			r := newRig(t, map[string]string{"POLICY_FLOOR": c.floor})
			for _, listener := range []string{"imaps", "pop3"} {
				for _, s := range c.above {
					r.accepted(t, listener, "tls1.2", r.config(tls.VersionTLS12, s), plain)
				}
				for _, s := range c.below {
					o := legacy("", suites(tls.VersionTLS12, s), "tls1.2", "cipher")
					o.want.log.suites = nil
					r.refused(t, listener, o.flight, o.alert, o.want)
				}
				r.accepted(t, listener, "tls1.3", r.config(tls.VersionTLS13), plain)
				old := legacy("", tls10, "tls1.0", "version")
				r.refused(t, listener, old.flight, old.alert, old.want)
			}
			r.finish(t)
		})
	}
}

func TestFloorOfTLS13RefusesTLS12(t *testing.T) {
	t.Parallel()
	r := newRig(t, map[string]string{"POLICY_FLOOR": "tls1.3"})
	retry := with(tls12, func(s *hello.Spec) { s.CipherSuites = append(s.CipherSuites, tls.TLS_FALLBACK_SCSV) })
	for _, listener := range posterntest.Listeners {
		for _, o := range []offer{
			legacy("TLS 1.2", tls12, "tls1.2", "version"),
			legacy("TLS 1.2 that falls back", retry, "tls1.2", "fallback"),
			ssl2Offer("TLS 1.2, SSLv2-compatible", posterntest.SSLv2Offering(tls.VersionTLS12), "tls1.2", "version"),
		} {
			t.Run(listener+" "+o.name, func(t *testing.T) { r.refused(t, listener, o.flight, o.alert, o.want) })
		}
		r.accepted(t, listener, "tls1.3", r.config(tls.VersionTLS13), plain)
	}
	r.finish(t)
}

func TestFloorOfPostQuantumGroupsRefusesCurves(t *testing.T) {
	t.Parallel()
	r := newRig(t, map[string]string{"POLICY_FLOOR": "tls1.3-pq"})
	groups := func(ids ...tls.CurveID) *tls.Config {
		config := r.config(tls.VersionTLS13)
		config.CurvePreferences = ids
		return config
	}
	curves := with(tls13, func(s *hello.Spec) { s.Groups = []tls.CurveID{tls.X25519, tls.CurveP256} })
	for _, listener := range posterntest.Listeners {
		for _, o := range []offer{
			legacy("curves alone", curves, "tls1.3", "cipher"),
			legacy("TLS 1.2", tls12, "tls1.2", "version"),
		} {
			t.Run(listener+" "+o.name, func(t *testing.T) { r.refused(t, listener, o.flight, o.alert, o.want) })
		}
		for _, group := range []tls.CurveID{tls.X25519MLKEM768, tls.SecP256r1MLKEM768, tls.SecP384r1MLKEM1024} {
			r.accepted(t, listener, "tls1.3", groups(tls.X25519, group), plain)
		}
	}
	r.finish(t)
}

func TestKeyExchangesAreCountedAsNegotiated(t *testing.T) {
	t.Parallel()
	r := newRig(t, map[string]string{"POLICY_FLOOR": "tls1.2-compat"})
	config := func(change func(*tls.Config)) *tls.Config {
		c := r.config(tls.VersionTLS13)
		change(c)
		return c
	}
	group := func(id tls.CurveID) *tls.Config {
		return config(func(c *tls.Config) { c.CurvePreferences = []tls.CurveID{id} })
	}
	resumed := config(func(c *tls.Config) {
		c.ClientSessionCache = tls.NewLRUClientSessionCache(1)
		c.CurvePreferences = []tls.CurveID{tls.CurveP256}
	})
	static := r.config(tls.VersionTLS12)
	static.CipherSuites = []uint16{tls.TLS_RSA_WITH_AES_128_GCM_SHA256}
	for _, tt := range []struct {
		config         *tls.Config
		version, group string
	}{
		{group(tls.X25519MLKEM768), "tls1.3", "x25519mlkem768"},
		{group(tls.SecP256r1MLKEM768), "tls1.3", "secp256r1mlkem768"},
		{group(tls.SecP384r1MLKEM1024), "tls1.3", "secp384r1mlkem1024"},
		{group(tls.X25519), "tls1.3", "x25519"},
		{group(tls.CurveP521), "tls1.3", "secp521r1"},
		{resumed, "tls1.3", "secp256r1"},
		{resumed, "tls1.3", "resumed"},
		{static, "tls1.2", "rsa"},
	} {
		r.accepted(t, "imaps", tt.version, tt.config, plain)
		if n := r.Metrics(t).Count("postern_key_exchanges_total", "listener=imaps", "group="+tt.group); n != 1 {
			t.Errorf("%s: counted %v times, want once", tt.group, n)
		}
	}
	r.finish(t)
}
