package hello

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"math/big"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/cryptobyte"
)

// TestAnswersOfARealServer reads what crypto/tls says to each generation.
func TestAnswersOfARealServer(t *testing.T) {
	config := &tls.Config{
		MinVersion:       tls.VersionTLS11,
		CipherSuites:     []uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA, tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256},
		CurvePreferences: []tls.CurveID{tls.X25519, tls.CurveP521},
		Certificates:     []tls.Certificate{certificate(t)},
	}
	fallback := Typical(tls.VersionTLS12)
	fallback.CipherSuites = append(fallback.CipherSuites, tls.TLS_FALLBACK_SCSV)
	noShare := Typical(tls.VersionTLS13)
	noShare.Groups = []tls.CurveID{tls.CurveP521}
	for name, c := range map[string]struct {
		spec Spec
		want Answer
	}{
		"ssl3":     {Typical(VersionSSL30), Answer{Kind: Alert, Level: 2, Alert: 70}},
		"tls 1.0":  {Typical(tls.VersionTLS10), Answer{Kind: Alert, Level: 2, Alert: 70}},
		"tls 1.1":  {Typical(tls.VersionTLS11), Answer{Kind: ServerHello, Version: 0x0302, CipherSuite: 0xc009, Group: tls.X25519}},
		"tls 1.2":  {Typical(tls.VersionTLS12), Answer{Kind: ServerHello, Version: 0x0303, CipherSuite: 0xc02b, Group: tls.X25519}},
		"tls 1.3":  {Typical(tls.VersionTLS13), Answer{Kind: ServerHello, Version: 0x0304, CipherSuite: 0x1301, Group: tls.X25519}},
		"fallback": {fallback, Answer{Kind: Alert, Level: 2, Alert: 86}},
		"no share": {noShare, Answer{Kind: ServerHello, Version: 0x0304, CipherSuite: 0x1301, Group: tls.CurveP521}},
	} {
		t.Run(name, func(t *testing.T) {
			if got := serve(t, ClientHello(c.spec), config).answer; got != c.want {
				t.Errorf("answer %+v, want %+v", got, c.want)
			}
		})
	}
}

func certificate(t *testing.T) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// TestAFlightOfTLS12ShowsWhatItHolds reads all that crypto/tls says in plaintext.
func TestAFlightOfTLS12ShowsWhatItHolds(t *testing.T) {
	cert := certificate(t)
	client, server := tcpPair(t)
	go tls.Server(server, &tls.Config{Certificates: []tls.Certificate{cert}}).Handshake()
	client.Write(ClientHello(Wide(tls.VersionTLS12)))
	f, err := ReadFlight(client)
	if err != nil || f.Kind != ServerHello || f.Group != tls.X25519 || f.Scheme != tls.ECDSAWithP256AndSHA256 || f.Prime != 0 ||
		len(f.Certificates) != 1 || string(f.Certificates[0]) != string(cert.Certificate[0]) {
		t.Errorf("%+v, %v", f, err)
	}
}

// TestAServerThatGivesUpAfterItsHelloRefuses: what counts is the end of the flight.
func TestAServerThatGivesUpAfterItsHelloRefuses(t *testing.T) {
	for rest, want := range map[string]Answer{
		"\x15\x03\x03\x00\x02\x02\x28":         {Kind: Alert, Level: 2, Alert: 40},
		"\x16\x03\x03\x00\x04\x0e\x00\x00\x00": {Kind: ServerHello, Version: 0x0303, CipherSuite: 0xc02f},
	} {
		f, err := ReadFlight(strings.NewReader(string(serverHello(0x0303, 0xc02f, 0)) + rest))
		if err != nil || f.Answer != want {
			t.Errorf("%q: %+v, %v", rest, f, err)
		}
	}
	if f, err := ReadFlight(bytes.NewReader(serverHello(0x0303, 0xc02f, 0))); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("half a flight is %+v, %v", f, err)
	}
}

// TestFiniteFieldDiffieHellmanShowsItsPrime plays what crypto/tls does not have.
func TestFiniteFieldDiffieHellmanShowsItsPrime(t *testing.T) {
	for version, scheme := range map[uint16]tls.SignatureScheme{tls.VersionTLS12: tls.PSSWithSHA256, tls.VersionTLS11: 0} {
		var b cryptobyte.Builder
		b.AddUint8(typeServerKeyExchange)
		b.AddUint24LengthPrefixed(func(b *cryptobyte.Builder) {
			for _, part := range []string{"\x00" + strings.Repeat("p", 256), "\x02", strings.Repeat("y", 256)} {
				b.AddUint16LengthPrefixed(raw(part))
			}
			if scheme != 0 {
				b.AddUint16(uint16(scheme))
			}
			b.AddUint16LengthPrefixed(raw("signature"))
		})
		whole := slices.Concat(serverHello(version, 0x9e, 0), records(append(b.BytesOrPanic(), typeServerHelloDone, 0, 0, 0), version))
		f, err := ReadFlight(bytes.NewReader(whole))
		if err != nil || f.Prime != 2048 || f.Scheme != scheme || f.Group != 0 || f.Version != version {
			t.Errorf("%#x: %+v, %v", version, f, err)
		}
	}
}
