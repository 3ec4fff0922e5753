package policy

import (
	"crypto/tls"
	"slices"
)

// Floor names what a handshake must reach: the least TLS version and the
// acceptable cipher suites and groups. RFC 9325 is behind the choice; there is none below
// TLS 1.2.
type Floor uint8

// FloorSet is a set of floors.
type FloorSet uint8

// Has reports whether a floor is in it.
func (s FloorSet) Has(f Floor) bool { return s&(1<<f) != 0 }

const (
	// FloorTLS12 is TLS 1.2 with forward secrecy: ECDHE with AES-GCM,
	// ChaCha20-Poly1305 or AES-CBC-SHA (RFC 9325, Section 4.1). The default.
	FloorTLS12 Floor = iota
	// FloorTLS12Compat adds RSA key exchange with AES, for a cut of versions
	// alone.
	FloorTLS12Compat
	// FloorTLS12AEAD is TLS 1.2 with ECDHE and an AEAD only (RFC 9325,
	// Section 4.2).
	FloorTLS12AEAD
	// FloorTLS13 is TLS 1.3 alone.
	FloorTLS13
	// FloorTLS13PQ is TLS 1.3 with a hybrid post-quantum group
	// (draft-ietf-tls-ecdhe-mlkem).
	FloorTLS13PQ

	// lenient is no floor: it is all that crypto/tls can serve, for the modes
	// observe and explain. It cannot be named in a configuration.
	lenient
)

var floors = [...]struct {
	name   string
	least  Version
	suites class // of TLS 1.2 and below
}{
	FloorTLS12:       {"tls1.2", TLS12, aead | cbc},
	FloorTLS12Compat: {"tls1.2-compat", TLS12, aead | cbc | rsaAES},
	FloorTLS12AEAD:   {"tls1.2-aead", TLS12, aead},
	FloorTLS13:       {"tls1.3", TLS13, 0},
	FloorTLS13PQ:     {"tls1.3-pq", TLS13, 0},
	lenient:          {"lenient", TLS10, aead | cbc | rsaAES | weak},
}

// Floors lists the floors that can be configured, the most lenient first.
var Floors = []Floor{FloorTLS12Compat, FloorTLS12, FloorTLS12AEAD, FloorTLS13, FloorTLS13PQ}

// String returns the floor's name in configuration.
func (f Floor) String() string { return floors[f].name }

// MarshalText is String.
func (f Floor) MarshalText() ([]byte, error) { return []byte(f.String()), nil }

// UnmarshalText reads what MarshalText writes.
func (f *Floor) UnmarshalText(name []byte) (err error) {
	*f, err = ParseFloor(string(name))
	return err
}

// ParseFloor returns the floor of that name.
func ParseFloor(s string) (Floor, error) { return oneOf("floor", "one of ", Floors, s) }

// Compare orders floors, the most lenient first.
func (f Floor) Compare(o Floor) int { return slices.Index(Floors, f) - slices.Index(Floors, o) }

// MinVersion is the least version that reaches the floor.
func (f Floor) MinVersion() Version { return floors[f].least }

// CipherSuites returns the suites of TLS 1.2 and below that the floor accepts.
// For TLS 1.3 it is always that version's own three (RFC 8446, Section 9.1).
func (f Floor) CipherSuites() []uint16 {
	var ids []uint16
	for _, s := range suites12 {
		if floors[f].suites&s.class != 0 {
			ids = append(ids, s.id)
		}
	}
	return ids
}

// Groups returns the key exchange groups that the floor accepts. The hybrid ones, which
// combine ML-KEM with another group, are for TLS 1.3 alone.
func (f Floor) Groups() []tls.CurveID {
	if f == FloorTLS13PQ {
		return slices.Clone(hybridGroups)
	}
	return slices.Concat(hybridGroups, classicGroups)
}

var (
	hybridGroups  = []tls.CurveID{tls.X25519MLKEM768, tls.SecP256r1MLKEM768, tls.SecP384r1MLKEM1024}
	classicGroups = []tls.CurveID{tls.X25519, tls.CurveP256, tls.CurveP384, tls.CurveP521}
)

// groupIn13 reports whether the floor accepts the group in TLS 1.3.
func (f Floor) groupIn13(g tls.CurveID) bool {
	return slices.Contains(hybridGroups, g) || f != FloorTLS13PQ && groupIn12(g)
}

func groupIn12(g tls.CurveID) bool { return slices.Contains(classicGroups, g) }

func suiteIn13(id uint16) bool {
	return id == tls.TLS_AES_128_GCM_SHA256 || id == tls.TLS_AES_256_GCM_SHA384 || id == tls.TLS_CHACHA20_POLY1305_SHA256
}

// exchange is how a suite of TLS 1.2 or below agrees on a key.
type exchange uint8

const (
	ecdheECDSA exchange = iota // signed by an ECDSA or Ed25519 key
	ecdheRSA                   // signed by an RSA key
	staticRSA                  // encrypted to an RSA key; no forward secrecy
)

// suite is a cipher suite of TLS 1.2 or below.
type suite struct {
	id       uint16
	exchange exchange
	only12   bool // not for TLS 1.0 and 1.1 (AEADs and HMAC-SHA256)
	class    class
}

// class is what a floor accepts or not.
type class uint8

const (
	aead   class = 1 << iota // ECDHE with an AEAD
	cbc                      // ECDHE with AES-CBC-SHA
	rsaAES                   // RSA key exchange with AES
	weak                     // what only the lenient configuration has
)

// suites12 is in crypto/tls's order of preference, as far as it decides between key
// exchanges: the first usable one is taken, and only then is it seen whether a signature
// can be made for it.
var suites12 = []suite{
	{tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, ecdheECDSA, true, aead},
	{tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256, ecdheRSA, true, aead},
	{tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384, ecdheECDSA, true, aead},
	{tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384, ecdheRSA, true, aead},
	{tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256, ecdheECDSA, true, aead},
	{tls.TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256, ecdheRSA, true, aead},
	{tls.TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA, ecdheECDSA, false, cbc},
	{tls.TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA, ecdheRSA, false, cbc},
	{tls.TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA, ecdheECDSA, false, cbc},
	{tls.TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA, ecdheRSA, false, cbc},
	{tls.TLS_RSA_WITH_AES_128_GCM_SHA256, staticRSA, true, rsaAES},
	{tls.TLS_RSA_WITH_AES_256_GCM_SHA384, staticRSA, true, rsaAES},
	{tls.TLS_RSA_WITH_AES_128_CBC_SHA, staticRSA, false, rsaAES},
	{tls.TLS_RSA_WITH_AES_256_CBC_SHA, staticRSA, false, rsaAES},
	{tls.TLS_ECDHE_RSA_WITH_3DES_EDE_CBC_SHA, ecdheRSA, false, weak},
	{tls.TLS_RSA_WITH_3DES_EDE_CBC_SHA, staticRSA, false, weak},
	{tls.TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA256, ecdheECDSA, true, weak},
	{tls.TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA256, ecdheRSA, true, weak},
	{tls.TLS_RSA_WITH_AES_128_CBC_SHA256, staticRSA, true, rsaAES},
	{tls.TLS_ECDHE_ECDSA_WITH_RC4_128_SHA, ecdheECDSA, false, weak},
	{tls.TLS_ECDHE_RSA_WITH_RC4_128_SHA, ecdheRSA, false, weak},
	{tls.TLS_RSA_WITH_RC4_128_SHA, staticRSA, false, weak},
}

// TLSConfig returns the part of a crypto/tls configuration that makes it
// enforce the floor. The caller adds certificates and the rest.
func (f Floor) TLSConfig() *tls.Config {
	return &tls.Config{
		MinVersion:       uint16(f.MinVersion()),
		CipherSuites:     f.CipherSuites(),
		CurvePreferences: f.Groups(),
	}
}

// RSAKeyExchange returns a copy of such a configuration that offers RSA key
// exchange alone; nil where there is none in it.
func RSAKeyExchange(c *tls.Config) *tls.Config {
	c = c.Clone()
	c.CipherSuites = slices.DeleteFunc(slices.Clone(c.CipherSuites), func(id uint16) bool {
		return !slices.ContainsFunc(suites12, func(s suite) bool { return s.id == id && s.exchange == staticRSA })
	})
	if len(c.CipherSuites) == 0 {
		return nil
	}
	return c
}

// LenientTLSConfig returns the part of a crypto/tls configuration that serves
// every client that Go can serve, for the modes observe and explain. Its
// maximum stays open: with a lower one the downgrade protection of RFC 8446,
// Section 4.1.3 would vanish.
func LenientTLSConfig() *tls.Config { return lenient.TLSConfig() }
