package demo

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"
)

// writeCertificates makes two certificates for a day, ecdsa.pem and rsa.pem:
// clients older than ECDSA need the latter. Both are in ca.pem, and are what
// clients have to trust.
func writeCertificates(dir string) (*x509.CertPool, error) {
	ec, ecErr := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	rs, rsErr := rsa.GenerateKey(rand.Reader, 2048)
	if err := errors.Join(ecErr, rsErr); err != nil {
		return nil, fmt.Errorf("making keys: %w", err)
	}
	roots := x509.NewCertPool()
	var all []byte
	for name, key := range map[string]crypto.Signer{"ecdsa.pem": ec, "rsa.pem": rs} {
		now := time.Now()
		template := &x509.Certificate{
			SerialNumber: big.NewInt(now.UnixNano()),
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
		roots.AppendCertsFromPEM(cert)
		all = append(all, cert...)
		pair := append(cert, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8})...)
		if err := os.WriteFile(filepath.Join(dir, name), pair, 0o600); err != nil {
			return nil, err
		}
	}
	return roots, os.WriteFile(filepath.Join(dir, "ca.pem"), all, 0o600)
}
