package posterntest

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"
)

// DefaultNames are the names on the certificates that Start makes.
var DefaultNames = []string{"mail.example.org", "localhost", "127.0.0.1", "::1"}

// Key types for Issue.
const (
	ECDSA = "ecdsa" // P-256
	RSA   = "rsa"   // 2048 bits, one key for the whole process
)

// rsaKey is shared, since making one takes longer than most tests.
var rsaKey = sync.OnceValues(func() (*rsa.PrivateKey, error) {
	return rsa.GenerateKey(rand.Reader, 2048)
})

// CA is a throw-away certificate authority.
type CA struct {
	// File is the CA's certificate in PEM.
	File string
	// Pool holds the CA's certificate alone.
	Pool *x509.CertPool

	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// Pair names the PEM files of one certificate and its key.
type Pair struct {
	CertFile, KeyFile string
}

// NewCA makes a CA whose files go when the test ends.
func NewCA(t testing.TB) *CA {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatalf("making CA key: %v", err)
	}
	template := certTemplate(t, "postern test CA")
	template.IsCA = true
	template.BasicConstraintsValid = true
	template.KeyUsage = x509.KeyUsageCertSign
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatalf("making CA certificate: %v", err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatalf("parsing CA certificate: %v", err)
	}
	ca := &CA{File: filepath.Join(t.TempDir(), "ca.pem"), Pool: x509.NewCertPool(), cert: cert, key: key}
	ca.Pool.AddCert(cert)
	writePEM(t, ca.File, "CERTIFICATE", der)
	return ca
}

// Issue writes a server certificate of the given key type for the given
// names and addresses, valid for an hour, signed by the CA.
func (ca *CA) Issue(t testing.TB, names []string, keyType string) Pair {
	t.Helper()
	return ca.issue(t, names, keyType, func(*x509.Certificate) {})
}

// IssueExpired is Issue for a certificate that ended a minute ago.
func (ca *CA) IssueExpired(t testing.TB, names []string, keyType string) Pair {
	t.Helper()
	return ca.issue(t, names, keyType, func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) })
}

// IssueClient makes a client certificate with the given common name.
func (ca *CA) IssueClient(t testing.TB, name string) tls.Certificate {
	t.Helper()
	return ca.issue(t, []string{name}, ECDSA, func(c *x509.Certificate) {
		c.DNSNames, c.ExtKeyUsage = nil, []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	}).Load(t)
}

// Load reads the pair.
func (p Pair) Load(t testing.TB) tls.Certificate {
	t.Helper()
	pair, err := tls.LoadX509KeyPair(p.CertFile, p.KeyFile)
	if err != nil {
		t.Fatal(err)
	}
	return pair
}

func (ca *CA) issue(t testing.TB, names []string, keyType string, edit func(*x509.Certificate)) Pair {
	t.Helper()
	key := newKey(t, keyType)
	template := certTemplate(t, names[0])
	template.KeyUsage = x509.KeyUsageDigitalSignature | x509.KeyUsageKeyEncipherment
	template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	for _, name := range names {
		if ip := net.ParseIP(name); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, name)
		}
	}
	edit(template)
	der, err := x509.CreateCertificate(rand.Reader, template, ca.cert, key.Public(), ca.key)
	if err != nil {
		t.Fatalf("making certificate: %v", err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatalf("encoding key: %v", err)
	}
	dir := t.TempDir()
	pair := Pair{filepath.Join(dir, keyType+".crt"), filepath.Join(dir, keyType+".key")}
	writePEM(t, pair.CertFile, "CERTIFICATE", der)
	writePEM(t, pair.KeyFile, "PRIVATE KEY", keyDER)
	return pair
}

func newKey(t testing.TB, keyType string) crypto.Signer {
	t.Helper()
	var key crypto.Signer
	var err error
	switch keyType {
	case ECDSA:
		key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case RSA:
		key, err = rsaKey()
	default:
		t.Fatalf("key type %q: want %q or %q", keyType, ECDSA, RSA)
	}
	if err != nil {
		t.Fatalf("making %s key: %v", keyType, err)
	}
	return key
}

func certTemplate(t testing.TB, name string) *x509.Certificate {
	t.Helper()
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 100))
	if err != nil {
		t.Fatalf("making serial number: %v", err)
	}
	return &x509.Certificate{
		SerialNumber: serial,
		Subject:      pkix.Name{CommonName: name},
		NotBefore:    time.Now().Add(-time.Hour),
		NotAfter:     time.Now().Add(time.Hour),
	}
}

func writePEM(t testing.TB, path, block string, der []byte) {
	t.Helper()
	text := pem.EncodeToMemory(&pem.Block{Type: block, Bytes: der})
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
}
