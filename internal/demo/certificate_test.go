package demo

import (
	"crypto/tls"
	"crypto/x509"
	"path/filepath"
	"testing"
)

func TestCertificatesAreOfBothKeyTypesAndTrusted(t *testing.T) {
	dir := t.TempDir()
	pairs := [2]string{filepath.Join(dir, "ecdsa.pem"), filepath.Join(dir, "rsa.pem")}
	roots, err := writeCertificates(filepath.Join(dir, "ca.pem"), pairs)
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []x509.PublicKeyAlgorithm{x509.ECDSA, x509.RSA} {
		pair, err := tls.LoadX509KeyPair(pairs[i], pairs[i])
		if err != nil {
			t.Fatal(err)
		}
		if got := pair.Leaf.PublicKeyAlgorithm; got != want {
			t.Errorf("%s has a key for %v, want %v", pairs[i], got, want)
		}
		for _, name := range []string{"localhost", "mail.example.org", "127.0.0.1", "::1"} {
			if _, err := pair.Leaf.Verify(x509.VerifyOptions{DNSName: name, Roots: roots}); err != nil {
				t.Errorf("%s, for %s: %v", pairs[i], name, err)
			}
		}
	}
}
