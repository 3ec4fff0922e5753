package policy

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"io"
	"math/big"
	mathrand "math/rand/v2"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"postern/internal/hello"
)

// The verdict must be what crypto/tls does, for every floor, key and hello:
// the hello is judged here, and answered by a real tls.Server that is
// configured by the same floor.

// answer is what a tls.Server did with a hello: it sent a ServerHello, a
// HelloRetryRequest, or an alert.
type answer struct {
	hello, retry bool
	alert        int
}

// retryRandom marks a HelloRetryRequest (RFC 8446, Section 4.1.3).
var retryRandom = sha256.Sum256([]byte("HelloRetryRequest"))

// oneWayConn feeds the bytes of a hello to a server and keeps what it writes.
type oneWayConn struct {
	net.Conn
	in  *bytes.Reader
	out bytes.Buffer
}

func (c *oneWayConn) Read(p []byte) (int, error)  { return c.in.Read(p) }
func (c *oneWayConn) Write(p []byte) (int, error) { return c.out.Write(p) }
func (c *oneWayConn) Close() error                { return nil }
func (c *oneWayConn) SetDeadline(time.Time) error { return nil }

// records walks the records that were written; an alert in clear may stand
// behind a ServerHello that then led nowhere.
func (c *oneWayConn) answer(t testing.TB) answer {
	t.Helper()
	a := answer{alert: -1}
	for b := c.out.Bytes(); len(b) >= 5; {
		n := int(b[3])<<8 | int(b[4])
		if len(b) < 5+n {
			t.Fatalf("the server wrote half a record: %x", b)
		}
		switch body := b[5 : 5+n]; {
		case b[0] == 22 && body[0] == 2:
			a.hello = true
			a.retry = bytes.Equal(body[6:38], retryRandom[:])
		case b[0] == 21 && n == 2:
			a.alert = int(body[1])
		}
		b = b[5+n:]
	}
	return a
}

var testKeys = sync.OnceValue(func() map[KeyTypes]*tls.Certificate {
	made := make(map[KeyTypes]*tls.Certificate)
	add := func(k KeyTypes, key crypto.Signer, err error) {
		if err != nil {
			panic(err)
		}
		template := &x509.Certificate{SerialNumber: big.NewInt(int64(k)), DNSNames: []string{"localhost"}, NotAfter: time.Now().Add(time.Hour)}
		der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
		if err != nil {
			panic(err)
		}
		leaf, _ := x509.ParseCertificate(der)
		made[k] = &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}
	}
	for k, curve := range map[KeyTypes]elliptic.Curve{ECDSAP256: elliptic.P256(), ECDSAP384: elliptic.P384(), ECDSAP521: elliptic.P521()} {
		key, err := ecdsa.GenerateKey(curve, rand.Reader)
		add(k, key, err)
	}
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	add(Ed25519, ed, err)
	rs, err := rsa.GenerateKey(rand.Reader, 2048)
	add(RSA, rs, err)
	return made
})

// serve lets crypto/tls answer the hello under config, with the key that the
// policy picks, and returns the facts that its hook saw.
func serve(t testing.TB, wire []byte, config *tls.Config, f Floor, keys KeyTypes) (Hello, answer) {
	t.Helper()
	conn := &oneWayConn{in: bytes.NewReader(wire)}
	var seen Hello
	hooked := false
	config.GetConfigForClient = func(chi *tls.ClientHelloInfo) (*tls.Config, error) {
		seen, hooked = FromClientHello(chi), true
		return nil, nil
	}
	config.GetCertificate = func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
		k := f.PickKey(&seen, keys, false)
		if k == 0 { // none will do: crypto/tls is to find that out
			for k = 1; keys&k == 0; k <<= 1 {
			}
		}
		return testKeys()[k], nil
	}
	err := tls.Server(conn, config).Handshake()
	if err == nil || err != io.EOF && !hooked {
		t.Fatalf("the hello did not reach the hook: %v", err)
	}
	return seen, conn.answer(t)
}

// compare holds the verdict on one hello against crypto/tls.
func compare(t testing.TB, spec hello.Spec, f Floor, keys KeyTypes) {
	t.Helper()
	if spec.Version > tls.VersionTLS12 && slices.Contains(spec.CipherSuites, tls.TLS_FALLBACK_SCSV) {
		// RFC 7507 compares the version field, which no client sets above TLS
		// 1.2 and which ClientHelloInfo does not show.
		return
	}
	wire := hello.ClientHello(spec)
	h, got := serve(t, wire, f.TLSConfig(), f, keys)
	want := expectation(f.judge(&h, keys), &h, f)
	if !want(got) {
		t.Errorf("floor %s, keys %05b: reason %q, but crypto/tls answered %+v\nhello %+v", f, keys, f.judge(&h, keys), got, h)
	}
	for _, mode := range Modes {
		v := Snapshot{Floor: f, Mode: mode}.Decide(&h, ConnInfo{Keys: keys}, time.Time{}, 0)
		if !v.Legacy() || mode == Enforce {
			if v.Serve != Enforce {
				t.Errorf("mode %s: %+v is served leniently", mode, v)
			}
			continue
		}
		_, got := serve(t, wire, LenientTLSConfig(), lenient, keys)
		completes := got.hello && got.alert < 0
		if got.retry && v.Serve == Enforce {
			continue // the signature would have been missing in the second flight
		}
		if completes != (v.Serve == mode) && !h.Fallback() {
			t.Errorf("floor %s, keys %05b, mode %s: serve is %s, but the lenient configuration answered %+v\nhello %+v", f, keys, mode, v.Serve, got, h)
		}
	}
}

// expectation is what a reason means on the wire.
func expectation(r Reason, h *Hello, f Floor) func(answer) bool {
	switch r {
	case ReasonVersion, ReasonFallback:
		return func(a answer) bool { return a.alert == 70 && !a.hello }
	case ReasonCipher:
		// Signing for an ECDHE suite fails behind the ServerHello. In TLS 1.3 a
		// HelloRetryRequest comes before it, and the second hello never does.
		unsigned := h.highestWithin(f.MinVersion()) == TLS13 && slices.ContainsFunc(h.CipherSuites, suiteIn13) && slices.ContainsFunc(h.Groups, groupIn13)
		return func(a answer) bool { return a.alert == 40 || unsigned && a.retry }
	}
	switch negotiated := h.highestWithin(f.MinVersion()); {
	case h.Version() == NoVersion:
		return func(a answer) bool { return a.alert == 70 }
	case h.Fallback() && negotiated < TLS13:
		return func(a answer) bool { return a.alert == 86 }
	case negotiated == TLS13 && len(h.SignatureSchemes) == 0:
		return func(a answer) bool { return a.alert == 109 || a.hello && a.alert < 0 }
	}
	return func(a answer) bool { return a.hello && a.alert < 0 }
}

// The values that hellos are made of: mostly those that mean something.
var (
	someVersions = []uint16{0, 0x0300, 0x0301, 0x0302, 0x0303, 0x0304, 0x0305, 0x0400, 0x1a1a, 0x7f1c}
	someGroups   = []tls.CurveID{tls.X25519, tls.CurveP256, tls.CurveP384, tls.CurveP521, tls.X25519MLKEM768, tls.SecP256r1MLKEM768, 0x001e, 0x0100, 0x2a2a}
	someSchemes  = []tls.SignatureScheme{
		tls.PKCS1WithSHA256, tls.PKCS1WithSHA384, tls.PKCS1WithSHA512, tls.PSSWithSHA256, tls.PSSWithSHA384, tls.PSSWithSHA512,
		tls.ECDSAWithP256AndSHA256, tls.ECDSAWithP384AndSHA384, tls.ECDSAWithP521AndSHA512, tls.Ed25519, tls.PKCS1WithSHA1, tls.ECDSAWithSHA1, 0x0809, 0x3a3a,
	}
	someSuites = append([]uint16{
		tls.TLS_AES_128_GCM_SHA256, tls.TLS_AES_256_GCM_SHA384, tls.TLS_CHACHA20_POLY1305_SHA256, 0x1304,
		0x0033, 0x009e, 0x0004, 0xc008, 0x00ff, tls.TLS_FALLBACK_SCSV, 0x4a4a, 0xfefe,
	}, lenient.CipherSuites()...)
)

// bitSource takes choices off a source of bytes; at its end all are zero.
type bitSource struct{ b []byte }

func (b *bitSource) next() int {
	if len(b.b) == 0 {
		return 0
	}
	n := int(b.b[0])
	b.b = b.b[1:]
	return n
}

func choose[T any](b *bitSource, from []T, most int) []T {
	var list []T
	for n := b.next() % (most + 1); n > 0; n-- {
		list = append(list, from[b.next()%len(from)])
	}
	return list
}

// helloFrom makes a hello, a floor and a set of keys of arbitrary bytes.
func helloFrom(data []byte) (hello.Spec, Floor, KeyTypes) {
	b := &bitSource{data}
	f := Floors[b.next()%len(Floors)]
	keys := KeyTypes(b.next()%31 + 1)
	flags := b.next()
	spec := hello.Spec{
		Version:      someVersions[b.next()%len(someVersions)],
		NoExtensions: flags&7 == 0,
		CipherSuites: choose(b, someSuites, 6),
	}
	if spec.CipherSuites == nil {
		spec.CipherSuites = []uint16{0xfefe}
	}
	if flags&8 != 0 {
		spec.SupportedVersions = choose(b, someVersions[1:], 4)
	}
	if flags&16 == 0 {
		spec.Groups = choose(b, someGroups, 4)
	}
	if flags&32 == 0 {
		spec.SignatureSchemes = choose(b, someSchemes, 4)
	}
	if flags&64 != 0 {
		spec.ServerName = "localhost"
	}
	return spec, f, keys
}

func FuzzVerdictAgreesWithCryptoTLS(f *testing.F) {
	for i := range byte(len(Floors)) {
		f.Add([]byte{i, 0, 0, 2, 2, 17, 18})                                                   // TLS 1.0, no extensions
		f.Add([]byte{i, 16, 8, 4, 3, 0, 1, 2, 2, 4, 3, 2, 0, 1, 2, 3, 6})                      // TLS 1.3
		f.Add([]byte{i, 30, 1, 4, 2, 12, 13, 2, 0, 1, 1, 10})                                  // SHA-1 alone
		f.Add([]byte{i, 15, 1, 4, 3, 12, 9, 14, 1, 1, 1, 0})                                   // SCSV
		f.Add([]byte{i, 3, 9, 4, 1, 0, 2, 8, 8, 1, 0, 1, 6})                                   // GREASE alone
		f.Add([]byte{i, 31, 1, 2, 4, 20, 21, 22, 23, 0, 0})                                    // RSA key exchange
		f.Add([]byte{i, 16, 9, 4, 2, 1, 13, 3, 5, 4, 3, 1, 7, 1, 3})                           // odd groups
		f.Add([]byte{i, 4, 1, 0, 6, 12, 13, 14, 15, 16, 17, 4, 1, 2, 3, 0, 4, 6, 7, 8, 9, 10}) // all of TLS 1.2
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		spec, floor, keys := helloFrom(data)
		compare(t, spec, floor, keys)
	})
}

// TestVerdictsAgreeWithCryptoTLS is the fuzz test with a fixed seed, so that
// every run covers ground.
func TestVerdictsAgreeWithCryptoTLS(t *testing.T) {
	const hellos = 12000
	random := mathrand.New(mathrand.NewPCG(20260701, 3))
	reasons := make(map[Reason]int)
	for range hellos {
		data := make([]byte, 40)
		for i := range data {
			data[i] = byte(random.Uint32())
		}
		spec, f, keys := helloFrom(data)
		compare(t, spec, f, keys)
		h, _ := serve(t, hello.ClientHello(spec), f.TLSConfig(), f, keys)
		reasons[f.judge(&h, keys)]++
		if t.Failed() {
			t.FailNow()
		}
	}
	for _, r := range []Reason{NotLegacy, ReasonVersion, ReasonCipher, ReasonFallback} {
		if reasons[r] < hellos/100 {
			t.Errorf("reason %q came only %d times: the hellos are too much alike", r, reasons[r])
		}
	}
}
