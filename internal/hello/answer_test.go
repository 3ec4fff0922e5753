package hello

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"math/big"
	"testing"
	"time"
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
		"tls 1.1":  {Typical(tls.VersionTLS11), Answer{Kind: ServerHello, Version: 0x0302, CipherSuite: 0xc009}},
		"tls 1.2":  {Typical(tls.VersionTLS12), Answer{Kind: ServerHello, Version: 0x0303, CipherSuite: 0xc02b}},
		"tls 1.3":  {Typical(tls.VersionTLS13), Answer{Kind: ServerHello, Version: 0x0304, CipherSuite: 0x1301}},
		"fallback": {fallback, Answer{Kind: Alert, Level: 2, Alert: 86}},
		"no share": {noShare, Answer{Kind: ServerHello, Version: 0x0304, CipherSuite: 0x1301, Retry: true}},
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
