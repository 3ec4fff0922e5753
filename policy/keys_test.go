package policy_test

import (
	"crypto/tls"
	"slices"
	"testing"
	"time"

	"postern/policy"
)

const (
	p256   = policy.ECDSAP256
	p384   = policy.ECDSAP384
	edKey  = policy.Ed25519
	rsaKey = policy.RSA
)

func TestTheKeyIsOneThatTheClientCanUse(t *testing.T) {
	const (
		ecdsaSuite  = tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256
		rsaSuite    = tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256
		staticSuite = tls.TLS_RSA_WITH_AES_128_CBC_SHA
	)
	of12 := []uint16{0x0303}
	of13 := []uint16{0x0304, 0x0303}
	of10 := []uint16{0x0301}
	all := []tls.SignatureScheme{tls.ECDSAWithP256AndSHA256, tls.PSSWithSHA256, tls.PKCS1WithSHA256, tls.Ed25519}
	for _, tt := range []struct {
		name     string
		versions []uint16
		suites   []uint16
		groups   []tls.CurveID
		schemes  []tls.SignatureScheme
		have     policy.KeyTypes
		want     policy.KeyTypes // under the floor tls1.2
		lenient  policy.KeyTypes
	}{
		{"TLS 1.3 takes ECDSA before RSA", of13, []uint16{tls.TLS_AES_128_GCM_SHA256}, []tls.CurveID{tls.X25519}, all, p256 | rsaKey, p256, p256},
		{"TLS 1.3 names the curve in the scheme", of13, []uint16{tls.TLS_AES_128_GCM_SHA256}, []tls.CurveID{tls.X25519}, all, p384 | rsaKey, rsaKey, rsaKey},
		{"TLS 1.3 has no PKCS #1 signatures", of13, []uint16{tls.TLS_AES_128_GCM_SHA256}, []tls.CurveID{tls.X25519},
			[]tls.SignatureScheme{tls.PKCS1WithSHA256}, rsaKey, 0, 0},
		{"a suite for RSA asks for the RSA key", of12, []uint16{rsaSuite}, []tls.CurveID{tls.CurveP256}, all, p256 | rsaKey, rsaKey, rsaKey},
		{"a suite for ECDSA takes Ed25519 too", of12, []uint16{ecdsaSuite}, []tls.CurveID{tls.CurveP256}, all, edKey | rsaKey, edKey, edKey},
		{"TLS 1.2 signs by any curve", of12, []uint16{ecdsaSuite}, []tls.CurveID{tls.CurveP384}, []tls.SignatureScheme{tls.ECDSAWithP256AndSHA256}, p384, p384, p384},
		{"a curve that the client does not list gives way to RSA", of12, []uint16{ecdsaSuite, rsaSuite}, []tls.CurveID{tls.X25519}, all, p256 | rsaKey, rsaKey, rsaKey},
		{"and is used where there is no other key", of12, []uint16{ecdsaSuite, rsaSuite}, []tls.CurveID{tls.X25519}, all, p256, p256, p256},
		{"no group, no forward secrecy", of12, []uint16{rsaSuite}, nil, all, p256 | rsaKey, 0, 0},
		{"hybrid groups are for TLS 1.3 alone", of12, []uint16{rsaSuite},
			[]tls.CurveID{tls.X25519MLKEM768, tls.SecP256r1MLKEM768, tls.SecP384r1MLKEM1024}, all, rsaKey, 0, 0},
		{"RSA key exchange is below this floor", of12, []uint16{staticSuite}, nil, nil, p256 | rsaKey, 0, rsaKey},
		{"TLS 1.0 is below this floor", of10, []uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA}, []tls.CurveID{tls.CurveP256}, nil, p256 | rsaKey, 0, p256},
		{"TLS 1.0 cannot do Ed25519", of10, []uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA, staticSuite}, []tls.CurveID{tls.CurveP256}, nil, edKey | rsaKey, 0, rsaKey},
	} {
		h := policy.Hello{Versions: tt.versions, CipherSuites: tt.suites, Groups: tt.groups, SignatureSchemes: tt.schemes}
		if got := policy.FloorTLS12.PickKey(&h, tt.have, false); got != tt.want {
			t.Errorf("%s: key %05b, want %05b", tt.name, got, tt.want)
		}
		if got := policy.FloorTLS12.PickKey(&h, tt.have, true); got != tt.lenient {
			t.Errorf("%s: key %05b under the lenient configuration, want %05b", tt.name, got, tt.lenient)
		}
		// A verdict and the key that bears it out are one.
		v := policy.Snapshot{Floor: policy.FloorTLS12}.Decide(&h, policy.ConnInfo{Keys: tt.have}, time.Time{}, 0)
		if v.Legacy() != (tt.want == 0) || v.Key != tt.want {
			t.Errorf("%s: reason %q and key %05b, want %05b", tt.name, v.Reason, v.Key, tt.want)
		}
	}
}

// What a floor refuses, every higher one refuses: raising it lets nobody in.
func TestARaisedFloorLetsNobodyIn(t *testing.T) {
	for i, raw := range seeds {
		o := raw.offer()
		if o.malformed() {
			continue
		}
		a := proxy{snapshot: policy.Snapshot{Floor: policy.FloorTLS12}, keys: raw.keySet()}.ask(t, o)
		refused := false
		for _, f := range policy.Floors {
			v := policy.Snapshot{Floor: f}.Decide(&a.hello, policy.ConnInfo{Keys: raw.keySet()}, time.Time{}, 0)
			if refused && !v.Legacy() {
				t.Errorf("seed %d: %s lets in what a lower floor refuses: %s", i, f, o)
			}
			refused = v.Legacy()
		}
	}
}

// A floor that somebody changes in their hands must stay what it is.
func TestAFloorCannotBeChangedByItsUser(t *testing.T) {
	for _, f := range policy.Floors {
		config, want := f.TLSConfig(), f.TLSConfig()
		clear(config.CurvePreferences)
		clear(config.CipherSuites)
		got := f.TLSConfig()
		if !slices.Equal(got.CurvePreferences, want.CurvePreferences) || !slices.Equal(got.CipherSuites, want.CipherSuites) {
			t.Errorf("%s became %v", f, got)
		}
	}
}

// With a maximum, crypto/tls would leave the downgrade sentinel out of its
// random, and a client of TLS 1.3 could be talked down to TLS 1.0 unnoticed.
func TestNoConfigurationHasAMaximumVersion(t *testing.T) {
	if c := policy.LenientTLSConfig(); c.MaxVersion != 0 || c.MinVersion != tls.VersionTLS10 {
		t.Errorf("the lenient configuration is for versions %04x to %04x", c.MinVersion, c.MaxVersion)
	}
	for f, want := range map[policy.Floor]uint16{
		policy.FloorTLS12Compat: tls.VersionTLS12, policy.FloorTLS12: tls.VersionTLS12,
		policy.FloorTLS12AEAD: tls.VersionTLS12, policy.FloorTLS13: tls.VersionTLS13,
		policy.FloorTLS13PQ: tls.VersionTLS13,
	} {
		c := f.TLSConfig()
		if c.MaxVersion != 0 || c.MinVersion != want {
			t.Errorf("%s is for versions %04x to %04x", f, c.MinVersion, c.MaxVersion)
		}
		// crypto/tls takes nil as its own choice, which has RSA and CBC in it.
		if want < tls.VersionTLS13 && len(c.CipherSuites) == 0 {
			t.Errorf("%s leaves the suites to crypto/tls", f)
		}
		groups := []tls.CurveID{tls.X25519MLKEM768, tls.SecP256r1MLKEM768, tls.SecP384r1MLKEM1024}
		if f != policy.FloorTLS13PQ {
			groups = append(groups, tls.X25519, tls.CurveP256, tls.CurveP384, tls.CurveP521)
		}
		if !slices.Equal(c.CurvePreferences, groups) {
			t.Errorf("%s has groups %v", f, c.CurvePreferences)
		}
	}
}

// Deciding takes no memory, however long a stranger's lists are.
func TestAVerdictOnAHugeHelloTakesNoMemory(t *testing.T) {
	h := policy.Hello{Versions: []uint16{0x0301, 0x0303}}
	for i := range 30000 {
		h.CipherSuites = append(h.CipherSuites, uint16(0xd000+i%0x1000))
		h.Groups = append(h.Groups, tls.CurveID(0x2000+i))
		h.SignatureSchemes = append(h.SignatureSchemes, tls.SignatureScheme(0x2000+i))
	}
	for _, f := range policy.Floors {
		s := policy.Snapshot{Floor: f, Mode: policy.Observe}
		allocs := testing.AllocsPerRun(10, func() {
			if !s.Decide(&h, policy.ConnInfo{Keys: 31}, time.Time{}, 0).Legacy() {
				t.Error("it is not legacy")
			}
		})
		if allocs != 0 {
			t.Errorf("%s: %v allocations", f, allocs)
		}
	}
}
