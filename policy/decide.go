package policy

import (
	"crypto/tls"
	"net/netip"
	"slices"
	"time"
)

// KeyTypes is a set of types of certificate keys.
type KeyTypes uint8

// The key types. ECDSA keys differ in TLS 1.3, where a signature scheme names
// the curve (RFC 8446, Section 4.2.3).
const (
	ECDSAP256 KeyTypes = 1 << iota
	ECDSAP384
	ECDSAP521
	Ed25519
	RSA

	anyECDSA = ECDSAP256 | ECDSAP384 | ECDSAP521
)

// preferredKeys is the order in which a key is chosen: the cheap ones first.
var preferredKeys = [...]KeyTypes{ECDSAP256, Ed25519, ECDSAP384, ECDSAP521, RSA}

// ConnInfo describes the connection of a hello, and the keys to answer with.
type ConnInfo struct {
	Client netip.Addr `json:"client"`
	// Listener is one of ListenerNames, Port the local one.
	Listener string `json:"listener"`
	Port     uint16 `json:"port"`
	// Keys for the name that the client asks for, or for the default one.
	Keys KeyTypes `json:"-"`
}

// Mode is the treatment of a legacy handshake.
type Mode uint8

const (
	// Enforce refuses it with the alert that RFC 8446, Section 6.2 asks for.
	Enforce Mode = iota
	// Explain completes it only to say why, then closes.
	Explain
	// Observe lets it in, and counts it as legacy.
	Observe
)

// Modes lists the modes, the strictest first.
var Modes = []Mode{Enforce, Explain, Observe}

// String returns the mode's name in configuration, logs and metrics.
func (m Mode) String() string { return [...]string{"enforce", "explain", "observe", "hold"}[m] }

// MarshalText is String.
func (m Mode) MarshalText() ([]byte, error) { return []byte(m.String()), nil }

// Reason is why a handshake is legacy.
type Reason uint8

const (
	// NotLegacy is the zero reason: the floor is reached.
	NotLegacy Reason = iota
	// ReasonVersion: no offered version reaches the floor.
	ReasonVersion
	// ReasonCipher: the version does, but no acceptable suite, group or
	// signature scheme is offered.
	ReasonCipher
	// ReasonFallback: too old, but TLS_FALLBACK_SCSV says that the client can
	// do better (RFC 7507): a retry, not a client of its own.
	ReasonFallback
	// ReasonSSL2Hello: an SSLv2-compatible ClientHello that offers enough.
	ReasonSSL2Hello
	// ReasonMalformed: a ClientHello that offers enough, in a form that crypto/tls
	// does not take. It is one only where it is passed through, or it is no
	// matter of the floor.
	ReasonMalformed
)

// Reasons lists the reasons for which a floor refuses a hello.
var Reasons = []Reason{ReasonVersion, ReasonCipher, ReasonFallback, ReasonSSL2Hello}

// LegacyReasons lists all reasons.
var LegacyReasons = append(slices.Clone(Reasons), ReasonMalformed)

// String returns the reason's label; empty for NotLegacy.
func (r Reason) String() string {
	return [...]string{"", "version", "cipher", "fallback", "ssl2_hello", "malformed"}[r]
}

// MarshalText is String.
func (r Reason) MarshalText() ([]byte, error) { return []byte(r.String()), nil }

// UnmarshalText reads one of the labels.
func (r *Reason) UnmarshalText(label []byte) (err error) {
	*r, err = oneOf("reason", "", LegacyReasons, string(label))
	return err
}

// Verdict is the policy's decision on one hello.
type Verdict struct {
	// Version is the highest that was offered.
	Version Version
	// Floor that was in force.
	Floor Floor
	// Reason is NotLegacy where the floor is reached.
	Reason Reason
	// Mode in force for a legacy handshake at this place.
	Mode Mode
	// Serve selects the TLS configuration: Explain and Observe the lenient one, which
	// completes a legacy handshake; Enforce, for every other handshake, that of the
	// floor, which accepts or rejects.
	Serve Mode
	// Rule that decided on a legacy handshake; empty where none took it.
	Rule string
	// Watched: that rule, or else the policy, has a guard or a grace.
	Watched bool
	// Key is the one to answer with: the first with which the configuration that Serve
	// selects completes the handshake, ECDSA before RSA; zero where there is none.
	Key KeyTypes
	// RSAKeyExchange: the configuration that Serve selects is to be without ECDHE,
	// since no signature can be shared. crypto/tls chooses a suite without a look
	// at the signatures, and would give up.
	RSAKeyExchange bool
	// PassThrough: the mode is Observe, but crypto/tls cannot serve the client, or a
	// rule has it go to the old server always. Without one, Serve says what it meets.
	PassThrough bool

	// Remembered are the floors of remembered candidates that refuse what is not legacy.
	Remembered FloorSet

	// judged holds a reason for each floor that a candidate names.
	judged [lenient]Reason
}

// RefusedBy returns why another floor would refuse the hello. It knows the
// floors of the policy's candidates, and returns NotLegacy for others.
func (v *Verdict) RefusedBy(f Floor) Reason { return v.judged[f] }

// Legacy reports whether the floor refuses the hello.
func (v Verdict) Legacy() bool { return v.Reason != NotLegacy }

// Decide judges one hello; t must be a time for which the snapshot is valid. It has no
// side effects and does not allocate. The random value, which is uniformly
// distributed, is for rules that take a share of connections.
//
// A client that falls back is refused in any mode: its better attempt is the
// one that counts, and crypto/tls would refuse it anyway.
func (s Snapshot) Decide(h *Hello, at ConnInfo, t time.Time, random uint64) Verdict {
	v := Verdict{
		Version: h.Version(),
		Floor:   s.Floor,
		Mode:    s.Mode,
	}
	var o Outcome
	if s.ownFloor {
		o = s.outcome(h, at, v.Version, t, random)
		v.Floor = o.Floor
	}
	v.Reason, v.Key, v.RSAKeyExchange = v.Floor.judge(h, at.Keys)
	if h.Unreadable && !v.Legacy() && v.Version != NoVersion {
		v.Reason = ReasonMalformed
	}
	if s.policy != nil {
		v.Watched = s.policy.guard != nil
		for _, f := range s.policy.judged {
			if v.judged[f], _, _ = f.judge(h, at.Keys); v.judged[f] != NotLegacy && !v.Legacy() {
				v.Remembered |= s.policy.remembered & (1 << f)
			}
		}
	}
	if !v.Legacy() {
		return v
	}
	if !s.ownFloor && s.inForce != (ruleSet{}) {
		o = s.outcome(h, at, v.Version, t, random)
	}
	always := false // to the old server
	if o.Rule != nil {
		s.policy.grant(&o, at.Client, t)
		v.Mode, v.Rule, v.Watched, always = o.Mode, o.Rule.Name, o.Rule.watched(), o.Rule.PassThrough
	}
	if v.Mode == Enforce || h.Fallback() {
		return v
	}
	if reason, key, rsa := lenient.judge(h, at.Keys); reason == NotLegacy && !h.SSL2Format && !h.Unreadable {
		v.Serve, v.Key, v.RSAKeyExchange = v.Mode, key, rsa
	}
	v.PassThrough = v.Mode == Observe && (always || v.Serve == Enforce)
	return v
}

// judge returns why crypto/tls, configured by the floor, would refuse the hello
// for its version, suites, groups or signatures, or else the key to answer with and
// whether it takes RSA key exchange alone. Other faults of a hello, or a hello without a
// known version, are not legacy.
func (f Floor) judge(h *Hello, keys KeyTypes) (r Reason, key KeyTypes, rsa bool) {
	offered := h.Version()
	if offered == NoVersion {
		return NotLegacy, 0, false
	}
	version := h.highestWithin(f.MinVersion())
	switch {
	case version == NoVersion && h.Fallback():
		return ReasonFallback, 0, false
	case version == NoVersion:
		return ReasonVersion, 0, false
	case h.SSL2Format:
		return ReasonSSL2Hello, 0, false
	}
	key, rsa = f.pickKey(h, version, keys)
	if key == 0 {
		return ReasonCipher, 0, false
	}
	return NotLegacy, key, rsa
}

// pickKey chooses a key, and reports whether it takes RSA key exchange alone to succeed.
func (f Floor) pickKey(h *Hello, version Version, keys KeyTypes) (key KeyTypes, rsa bool) {
	var second KeyTypes
	for _, k := range preferredKeys {
		if keys&k == 0 || !f.servesWith(h, version, k) {
			continue
		}
		if version == TLS13 || knowsCurve(h, k) {
			return k, false
		}
		// A client that does not list the curve of a certificate's key may
		// refuse it (RFC 8422, Section 5.1.1): only where there is no other.
		if second == 0 {
			second = k
		}
	}
	if second == 0 && keys&RSA != 0 && version < TLS13 &&
		slices.ContainsFunc(suites12, func(s suite) bool { return s.exchange == staticRSA && f.shares(s, h, version) }) {
		return RSA, true
	}
	return second, false
}

// shares reports whether the client offers a suite that the floor accepts.
func (f Floor) shares(s suite, h *Hello, version Version) bool {
	return floors[f].suites&s.class != 0 && (!s.only12 || version == TLS12) && slices.Contains(h.CipherSuites, s.id)
}

var curves = map[KeyTypes]tls.CurveID{ECDSAP256: tls.CurveP256, ECDSAP384: tls.CurveP384, ECDSAP521: tls.CurveP521}

// knowsCurve reports whether the client lists the curve of a key, if it has one.
func knowsCurve(h *Hello, k KeyTypes) bool {
	curve, is := curves[k]
	return !is || slices.Contains(h.Groups, curve)
}

// servesWith follows crypto/tls: which suite it would take with that key, and
// whether it could then go on.
func (f Floor) servesWith(h *Hello, version Version, key KeyTypes) bool {
	if version == TLS13 {
		return slices.ContainsFunc(h.CipherSuites, suiteIn13) &&
			slices.ContainsFunc(h.Groups, f.groupIn13) &&
			signs(h, version, key)
	}
	// Point formats without the uncompressed one break RFC 8422, Section
	// 5.1.2: crypto/tls has an alert of its own for that, so they count as
	// malformed and not as legacy.
	ecdhe := slices.ContainsFunc(h.Groups, groupIn12)
	i := slices.IndexFunc(suites12, func(s suite) bool {
		return (s.exchange != ecdheECDSA) == (key == RSA) && (ecdhe || s.exchange == staticRSA) && f.shares(s, h, version)
	})
	return i >= 0 && (suites12[i].exchange == staticRSA || signs(h, version, key))
}

// signers are the keys that can sign by a scheme, in TLS 1.2 and in TLS 1.3.
var signers = map[tls.SignatureScheme]struct{ in12, in13 KeyTypes }{
	tls.PSSWithSHA256: {RSA, RSA}, tls.PSSWithSHA384: {RSA, RSA}, tls.PSSWithSHA512: {RSA, RSA},
	tls.PKCS1WithSHA256: {RSA, 0}, tls.PKCS1WithSHA384: {RSA, 0}, tls.PKCS1WithSHA512: {RSA, 0},
	tls.ECDSAWithP256AndSHA256: {anyECDSA, ECDSAP256},
	tls.ECDSAWithP384AndSHA384: {anyECDSA, ECDSAP384},
	tls.ECDSAWithP521AndSHA512: {anyECDSA, ECDSAP521},
	tls.Ed25519:                {Ed25519, Ed25519},
}

// signs reports whether the client takes a signature that the key can make.
func signs(h *Hello, version Version, key KeyTypes) bool {
	switch {
	case version < TLS12:
		// There is but one scheme for a key: SHA-1, with MD5 for RSA.
		return key != Ed25519
	case version == TLS13 && len(h.SignatureSchemes) == 0:
		// The extension is mandatory (RFC 8446, Section 9.2): malformed.
		return true
	case version == TLS12 && h.Fallback():
		// Refused before anything is signed (RFC 7507, Section 3).
		return true
	}
	return slices.ContainsFunc(h.SignatureSchemes, func(s tls.SignatureScheme) bool {
		keys := signers[s]
		return version == TLS12 && key&keys.in12 != 0 || version == TLS13 && key&keys.in13 != 0
	})
}
