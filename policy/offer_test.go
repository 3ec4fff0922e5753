package policy_test

import (
	"bytes"
	"crypto/ecdh"
	"crypto/mlkem"
	"crypto/rand"
	"crypto/tls"
	"encoding/binary"
	"fmt"
	"slices"
	"sync"

	"postern/policy"
)

// offer is a hello, down to what internal/hello does not let a test choose:
// point formats, key shares, compression, and faults.
type offer struct {
	legacyVersion uint16
	compression   []byte
	name          string
	protocols     []string

	// Each list is an extension, left out where it is empty; shares are the
	// groups for which a key is sent along.
	versions, suites, groups, shares, schemes []uint16
	points                                    []byte

	quirks quirk
}

// quirk is a set of oddities.
type quirk uint16

const (
	noExtensions quirk = 1 << iota
	withName
	withTicket                // a session ticket that nobody can read
	withImap                  // ALPN that the proxy speaks
	withHTTP                  // ALPN that it does not
	compressesToo             // offers DEFLATE beside no compression
	compressesOnly            // and here nothing else
	renegotiates              // renegotiation_info of a connection that never was
	sendsEarlyData            // 0-RTT data announced
	speaksQUIC                // QUIC transport parameters over TCP
	hasBrokenShares           // key shares of a single byte
	repeatsAnExtension        // forbidden by RFC 8446, Section 4.2
	hasBytesBehind            // more bytes than the hello says
	shareForEveryGroup        // no HelloRetryRequest is needed
	quirkCount         = iota // of the bits above
)

func (q quirk) has(other quirk) bool { return q&other != 0 }

// finish turns quirks into fields, and leaves no extension where there are none.
func (o offer) finish() *offer {
	o.compression = []byte{0}
	switch {
	case o.quirks.has(compressesOnly):
		o.compression = []byte{1}
	case o.quirks.has(compressesToo):
		o.compression = []byte{1, 0}
	}
	if o.quirks.has(withName) {
		o.name = "mail.example.org"
	}
	if o.quirks.has(withHTTP) {
		o.protocols = []string{"h2", "http/1.1"}
	}
	if o.quirks.has(withImap) {
		o.protocols = append(o.protocols, "imap")
	}
	if o.quirks.has(shareForEveryGroup) {
		o.shares = o.groups
	}
	if o.quirks.has(noExtensions) {
		return &offer{
			legacyVersion: o.legacyVersion, compression: o.compression, suites: o.suites,
			quirks: o.quirks & (noExtensions | hasBytesBehind),
		}
	}
	return &o
}

func (o *offer) String() string {
	return fmt.Sprintf("legacy version %04x, versions %04x, suites %04x, groups %04x, shares %04x, schemes %04x, points %x, quirks %b",
		o.legacyVersion, o.versions, o.suites, o.groups, o.shares, o.schemes, o.points, o.quirks)
}

// malformed reports whether the hello cannot be read at all.
func (o *offer) malformed() bool {
	return o.quirks.has(repeatsAnExtension | hasBytesBehind)
}

// faults are the alerts for what is wrong with the hello and is no matter of a
// floor, where the server negotiates that version. crypto/tls may find a lack
// of suites, groups or signatures first, but never completes such a hello.
func (o *offer) faults(version policy.Version) []alert {
	var alerts []alert
	fault := func(found bool, a alert) {
		if found {
			alerts = append(alerts, a)
		}
	}
	fault(o.quirks.has(renegotiates), alertHandshakeFailure)
	fault(o.quirks.has(withHTTP) && !o.quirks.has(withImap), alertNoApplicationProtocol)
	if version == policy.TLS13 {
		fault(!bytes.Equal(o.compression, []byte{0}), alertIllegalParameter)
		fault(o.quirks.has(hasBrokenShares), alertIllegalParameter)
		fault(o.quirks.has(sendsEarlyData|speaksQUIC), alertUnsupportedExtension)
		fault(len(o.schemes) == 0, alertMissingExtension)
		return alerts
	}
	fault(!slices.Contains(o.compression, 0), alertIllegalParameter)
	fault(len(o.points) > 0 && !slices.Contains(o.points, 0), alertMissingExtension)
	fault(o.fallsBack() && o.legacyVersion <= tls.VersionTLS12, alertInappropriateFallback)
	return alerts
}

func (o *offer) fallsBack() bool { return slices.Contains(o.suites, tls.TLS_FALLBACK_SCSV) }

// hides reports whether the hello names a version above TLS 1.2 in its own
// field, which RFC 8446, Section 4.1.2 forbids. crypto/tls compares that field
// with its maximum for TLS_FALLBACK_SCSV, and its hook does not show it.
func (o *offer) hides() bool { return o.legacyVersion > tls.VersionTLS12 && o.fallsBack() }

// record is the hello in one TLS record of that version, with keys for the
// groups in shares.
func (o *offer) record(version uint16, shares []uint16) []byte {
	b := binary.BigEndian.AppendUint16(nil, o.legacyVersion)
	b = append(b, bytes.Repeat([]byte{0x52}, 32)...)
	b = vector(b, 1, bytes.Repeat([]byte{0x53}, 32))
	b = vector(b, 2, uint16s(o.suites))
	b = vector(b, 1, o.compression)
	if !o.quirks.has(noExtensions) {
		b = vector(b, 2, o.extensions(shares))
	}
	if o.quirks.has(hasBytesBehind) {
		b = append(b, 0)
	}
	message := vector([]byte{1}, 3, b)
	return vector([]byte{22, byte(version >> 8), byte(version)}, 2, message)
}

func (o *offer) extensions(shares []uint16) []byte {
	var b []byte
	add := func(number uint16, data ...byte) {
		b = vector(binary.BigEndian.AppendUint16(b, number), 2, data)
	}
	list := func(number uint16, lengthSize int, data []byte) {
		if len(data) > 0 {
			add(number, vector(nil, lengthSize, data)...)
		}
	}
	if o.name != "" {
		list(0, 2, vector([]byte{0}, 2, []byte(o.name)))
	}
	list(10, 2, uint16s(o.groups))
	list(11, 1, o.points)
	list(13, 2, uint16s(o.schemes))
	var protocols []byte
	for _, p := range o.protocols {
		protocols = vector(protocols, 1, []byte(p))
	}
	list(16, 2, protocols)
	list(43, 1, uint16s(o.versions))
	if len(o.versions) > 0 || len(shares) > 0 {
		add(51, vector(nil, 2, o.keyShares(shares))...)
	}
	for _, e := range []struct {
		when   quirk
		number uint16
		data   []byte
	}{
		{withTicket, 35, []byte("not a ticket of ours")},
		{renegotiates, 0xff01, []byte{1, 0}},
		{sendsEarlyData, 42, nil},
		{speaksQUIC, 57, []byte{1}},
		{repeatsAnExtension, 23, nil},
		{repeatsAnExtension, 23, nil},
	} {
		if o.quirks.has(e.when) {
			add(e.number, e.data...)
		}
	}
	return b
}

func (o *offer) keyShares(groups []uint16) []byte {
	var b []byte
	for i, g := range groups {
		if slices.Contains(groups[:i], g) {
			continue
		}
		key, ok := publicKeys()[tls.CurveID(g)]
		if !ok {
			key = []byte("some group that is not known")
		}
		if o.quirks.has(hasBrokenShares) {
			key = []byte{1}
		}
		b = vector(binary.BigEndian.AppendUint16(b, g), 2, key)
	}
	return b
}

// publicKeys holds a key share for every group that crypto/tls can answer.
var publicKeys = sync.OnceValue(func() map[tls.CurveID][]byte {
	shares := make(map[tls.CurveID][]byte)
	for id, curve := range map[tls.CurveID]ecdh.Curve{
		tls.X25519: ecdh.X25519(), tls.CurveP256: ecdh.P256(), tls.CurveP384: ecdh.P384(), tls.CurveP521: ecdh.P521(),
	} {
		key, err := curve.GenerateKey(rand.Reader)
		if err != nil {
			panic(err)
		}
		shares[id] = key.PublicKey().Bytes()
	}
	kem768, err := mlkem.GenerateKey768()
	if err != nil {
		panic(err)
	}
	kem1024, err := mlkem.GenerateKey1024()
	if err != nil {
		panic(err)
	}
	shares[tls.X25519MLKEM768] = slices.Concat(kem768.EncapsulationKey().Bytes(), shares[tls.X25519])
	shares[tls.SecP256r1MLKEM768] = slices.Concat(shares[tls.CurveP256], kem768.EncapsulationKey().Bytes())
	shares[tls.SecP384r1MLKEM1024] = slices.Concat(shares[tls.CurveP384], kem1024.EncapsulationKey().Bytes())
	return shares
})

// vector appends data behind its length in size bytes.
func vector(b []byte, size int, data []byte) []byte {
	for i := size - 1; i >= 0; i-- {
		b = append(b, byte(len(data)>>(8*i)))
	}
	return append(b, data...)
}

func uint16s(values []uint16) []byte {
	var b []byte
	for _, v := range values {
		b = binary.BigEndian.AppendUint16(b, v)
	}
	return b
}
