package main

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"
)

// caName is the file with what a client of the demo has to trust.
const caName = "ca.pem"

// demoCertificate is what the demo's clients trust.
type demoCertificate struct{ roots *x509.CertPool }

// writeDemoCertificate makes two certificates for a day, one with an ECDSA key
// and one with an RSA key: clients older than ECDSA need that.
func writeDemoCertificate(dir string) (*demoCertificate, error) {
	ec, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("making a key: %w", err)
	}
	rs, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return nil, fmt.Errorf("making a key: %w", err)
	}
	c := &demoCertificate{roots: x509.NewCertPool()}
	var file []byte
	for i, key := range []crypto.Signer{ec, rs} {
		now := time.Now()
		template := &x509.Certificate{
			SerialNumber: big.NewInt(now.UnixNano() + int64(i)),
			Subject:      pkix.Name{CommonName: "Postern demo"},
			NotBefore:    now.Add(-time.Hour), NotAfter: now.Add(24 * time.Hour),
			DNSNames:    []string{"localhost", "mail.example.org"},
			IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback},
			KeyUsage:    x509.KeyUsageDigitalSignature | x509.KeyUsageKeyEncipherment | x509.KeyUsageCertSign,
			IsCA:        true, BasicConstraintsValid: true,
		}
		der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
		if err != nil {
			return nil, fmt.Errorf("making a certificate: %w", err)
		}
		pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
		if err != nil {
			return nil, fmt.Errorf("encoding a key: %w", err)
		}
		cert := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
		c.roots.AppendCertsFromPEM(cert)
		name := filepath.Join(dir, []string{"ecdsa.pem", "rsa.pem"}[i])
		pair := append(cert, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8})...)
		if err := os.WriteFile(name, pair, 0o600); err != nil {
			return nil, err
		}
		file = append(file, cert...)
	}
	return c, os.WriteFile(filepath.Join(dir, caName), file, 0o600)
}
