package policy_test

import (
	"crypto/tls"
	"encoding/binary"
	"slices"

	"postern/policy"
)

// rawOffer is an offer as a fuzzer sees it: a byte of a list is a place in the
// list of known values below, and 255 says that the next two bytes are a value
// themselves.
type rawOffer struct {
	keys                                              policy.KeyTypes
	legacyVersion                                     uint16
	versions, suites, groups, shares, schemes, points []byte
	quirks                                            quirk
}

// The values that mean something to somebody. Fuzz inputs name them by place:
// append only.
var (
	knownVersions = []uint16{0x0304, 0x0303, 0x0302, 0x0301, 0x0300, 0x0002, 0x0305, 0x7f1c, 0x1a1a}
	knownSuites   = []uint16{
		0x1301, 0x1302, 0x1303, 0x1304, // TLS 1.3; CCM is not crypto/tls's
		0xc02b, 0xc02f, 0xc02c, 0xc030, 0xcca9, 0xcca8, // ECDHE, AEAD
		0xc009, 0xc013, 0xc00a, 0xc014, 0xc023, 0xc027, // ECDHE, CBC
		0x009c, 0x009d, 0x002f, 0x0035, 0x003c, // RSA
		0xc012, 0x000a, 0xc007, 0xc011, 0x0005, // 3DES, RC4
		0x009e, 0x0033, 0x0004, 0xc024, 0x0041, 0x0000, // unknown to crypto/tls
		0x00ff, 0x5600, 0x2a2a, // renegotiation, fallback, GREASE
	}
	knownGroups = []uint16{
		29, 23, 24, 25, 0x11ec, 0x11eb, 0x11ed, // every floor's
		30, 22, 256, 0x3a3a, // no floor's
	}
	knownSchemes = []uint16{
		0x0403, 0x0503, 0x0603, 0x0804, 0x0805, 0x0806, 0x0401, 0x0501, 0x0601, 0x0807,
		0x0201, 0x0203, 0x0809, 0x0808, 0x0402, 0x4a4a, // SHA-1, and unknown to crypto/tls
	}
)

// keySet is the keys of the place; there is always one.
func (r rawOffer) keySet() policy.KeyTypes {
	if keys := r.keys & 31; keys != 0 {
		return keys
	}
	return policy.RSA
}

func (r rawOffer) offer() *offer {
	return offer{
		legacyVersion: r.legacyVersion,
		versions:      values(knownVersions, r.versions), suites: values(knownSuites, r.suites),
		groups: values(knownGroups, r.groups), shares: values(knownGroups, r.shares),
		schemes: values(knownSchemes, r.schemes), points: r.points[:min(len(r.points), 8)],
		quirks: r.quirks,
	}.finish()
}

// values are at most 100, so that every list fits into its length.
func values(known []uint16, raw []byte) []uint16 {
	var list []uint16
	for len(raw) > 0 && len(list) < 100 {
		place := raw[0]
		raw = raw[1:]
		if place == 0xff && len(raw) >= 2 {
			list = append(list, binary.BigEndian.Uint16(raw))
			raw = raw[2:]
			continue
		}
		list = append(list, known[int(place)%len(known)])
	}
	return list
}

// seed writes an offer as a fuzzer would; it is the inverse of rawOffer.offer.
func seed(keys policy.KeyTypes, o offer) rawOffer {
	places := func(known, list []uint16) []byte {
		var raw []byte
		for _, v := range list {
			if i := slices.Index(known, v); i >= 0 {
				raw = append(raw, byte(i))
			} else {
				raw = binary.BigEndian.AppendUint16(append(raw, 0xff), v)
			}
		}
		return raw
	}
	return rawOffer{
		keys: keys, legacyVersion: o.legacyVersion,
		versions: places(knownVersions, o.versions), suites: places(knownSuites, o.suites),
		groups: places(knownGroups, o.groups), shares: places(knownGroups, o.shares),
		schemes: places(knownSchemes, o.schemes), points: o.points, quirks: o.quirks,
	}
}

// seeds are the hellos at which a verdict could go wrong.
var seeds = func() []rawOffer {
	const both = policy.ECDSAP256 | policy.RSA
	var list []rawOffer
	add := func(keys policy.KeyTypes, change func(o *offer)) {
		o := offer{
			legacyVersion: tls.VersionTLS12,
			versions:      []uint16{0x2a2a, 0x0304, 0x0303},
			suites:        []uint16{0x1301, 0xc02b, 0xc02f, 0xc013, 0x002f},
			groups:        []uint16{0x11ec, 29, 23}, shares: []uint16{29},
			schemes: []uint16{0x0403, 0x0804, 0x0401}, points: []byte{0},
		}
		change(&o)
		list = append(list, seed(keys, o))
	}
	tls12 := func(change func(o *offer)) func(o *offer) {
		return func(o *offer) {
			o.versions, o.suites = nil, []uint16{0xc02b, 0xc02f, 0xc013, 0x002f}
			change(o)
		}
	}
	nothing := func(*offer) {}
	for keys := policy.ECDSAP256; keys <= policy.RSA; keys <<= 1 {
		add(keys, nothing)
		add(keys, tls12(nothing))
		add(keys, func(o *offer) { o.schemes = []uint16{0x0403} })
		add(keys, func(o *offer) { o.shares, o.schemes = nil, []uint16{0x0201} }) // refused behind a HelloRetryRequest
		add(keys, tls12(func(o *offer) { o.schemes = []uint16{0x0403} }))
		add(keys, tls12(func(o *offer) { o.legacyVersion = 0x0301 }))
		add(keys, tls12(func(o *offer) { o.suites = []uint16{0x002f} }))
	}
	for q := range quirkCount {
		add(both, func(o *offer) { o.quirks = 1 << q })
		add(both, tls12(func(o *offer) { o.quirks = 1 << q }))
		add(both, tls12(func(o *offer) { o.quirks, o.legacyVersion = 1<<q, 0x0301 }))
	}
	for _, suite := range knownSuites {
		add(both, tls12(func(o *offer) { o.suites = []uint16{suite} }))
		add(both, tls12(func(o *offer) { o.suites, o.legacyVersion = []uint16{suite, 0x000a}, 0x0302 }))
	}
	for _, group := range knownGroups {
		add(both, func(o *offer) { o.groups, o.shares = []uint16{group}, []uint16{group} })
		add(both, tls12(func(o *offer) { o.groups = []uint16{group} }))
	}
	for _, version := range knownVersions {
		add(both, func(o *offer) { o.versions = []uint16{version} })
		add(both, func(o *offer) { o.versions = []uint16{version, 0x0301} })
		add(both, tls12(func(o *offer) { o.legacyVersion, o.suites = version, append(o.suites, 0x5600) }))
	}
	add(both, tls12(func(o *offer) { o.points = []byte{1, 2} }))
	add(both, tls12(func(o *offer) { o.points, o.suites = []byte{1}, []uint16{0x0033} }))
	add(both, tls12(func(o *offer) { o.schemes = nil }))
	add(both, tls12(func(o *offer) { o.schemes, o.suites = nil, append(o.suites, 0x5600) }))
	add(both, tls12(func(o *offer) { o.schemes, o.suites = nil, []uint16{0xc02f, 0x002f} }))
	add(both, tls12(func(o *offer) { o.groups = nil }))
	add(both, func(o *offer) { o.schemes = nil })
	add(both, func(o *offer) { o.groups = nil })
	add(both, func(o *offer) { o.suites = nil })
	return list
}()
