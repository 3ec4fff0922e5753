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
	"time"
)

// writeCertificates makes two certificates for a day, one with an ECDSA key and
// one with an RSA key: clients older than ECDSA need that. certFile has both,
// which is what clients have to trust; each of pairFiles has one, with its key.
func writeCertificates(certFile string, pairFiles [2]string) (*x509.CertPool, error) {
	ecdsaKey, ecdsaErr := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	rsaKey, rsaErr := rsa.GenerateKey(rand.Reader, 2048)
	if err := errors.Join(ecdsaErr, rsaErr); err != nil {
		return nil, fmt.Errorf("making a key: %w", err)
	}
	roots := x509.NewCertPool()
	var certs []byte
	for i, key := range []crypto.Signer{ecdsaKey, rsaKey} {
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
		roots.AppendCertsFromPEM(cert)
		certs = append(certs, cert...)
		pair := append(cert, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8})...)
		if err := os.WriteFile(pairFiles[i], pair, 0o600); err != nil {
			return nil, err
		}
	}
	return roots, os.WriteFile(certFile, certs, 0o600)
}
