package certs

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"postern/policy"
)

// keys made once: RSA takes its time.
var testKeys = sync.OnceValue(func() map[policy.KeyTypes]crypto.Signer {
	ec := func(c elliptic.Curve) crypto.Signer {
		k, err := ecdsa.GenerateKey(c, rand.Reader)
		if err != nil {
			panic(err)
		}
		return k
	}
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		panic(err)
	}
	r, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic(err)
	}
	return map[policy.KeyTypes]crypto.Signer{
		policy.ECDSAP256: ec(elliptic.P256()),
		policy.ECDSAP384: ec(elliptic.P384()),
		policy.ECDSAP521: ec(elliptic.P521()),
		policy.Ed25519:   ed,
		policy.RSA:       r,
	}
})

var serial int64

// template of a certificate; the first name is the common name too.
func template(dnsNames ...string) *x509.Certificate {
	serial++
	t := &x509.Certificate{
		SerialNumber: big.NewInt(serial),
		NotBefore:    time.Now().Add(-48 * time.Hour),
		NotAfter:     time.Now().Add(48 * time.Hour),
		DNSNames:     dnsNames,
	}
	if len(dnsNames) > 0 {
		t.Subject = pkix.Name{CommonName: dnsNames[0]}
	}
	return t
}

// certPEM makes a self-signed certificate.
func certPEM(t testing.TB, key crypto.Signer, template *x509.Certificate) string {
	t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return block("CERTIFICATE", der)
}

// keyPEM writes a key as PKCS #8.
func keyPEM(t testing.TB, key crypto.Signer) string {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return block("PRIVATE KEY", der)
}

func block(name string, der []byte) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: name, Bytes: der}))
}

func newKey(t testing.TB) crypto.Signer {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// tree is a directory with files in it.
type tree struct {
	t   testing.TB
	dir string
}

func newTree(t testing.TB) tree { return tree{t, t.TempDir()} }

// put writes a file and returns its path.
func (d tree) put(name string, parts ...string) string {
	d.t.Helper()
	path := d.path(name)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		d.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(strings.Join(parts, "")), 0o600); err != nil {
		d.t.Fatal(err)
	}
	return path
}

// putOrLink writes a file, or a link where the text is -> and its target.
func (d tree) putOrLink(name, text string) {
	d.t.Helper()
	path := d.put(name, text)
	if target, isLink := strings.CutPrefix(text, "->"); isLink {
		if err := os.Remove(path); err != nil {
			d.t.Fatal(err)
		}
		if err := os.Symlink(target, path); err != nil {
			d.t.Fatal(err)
		}
	}
}

func (d tree) path(name string) string { return filepath.Join(d.dir, name) }

func mustLoad(t testing.TB, certFiles, keyFiles []string) *Store {
	t.Helper()
	s, err := Load(certFiles, keyFiles)
	if err != nil {
		t.Fatalf("Load: %v", err)
	}
	return s
}

// serves returns the file whose certificate the set has for the key.
func serves(s *Store, serverName string, k policy.KeyTypes) string {
	leaf := s.Lookup(serverName).Certificate(k, time.Now()).Leaf
	for _, info := range s.Certificates() {
		if bytes.Equal(info.Leaf.Raw, leaf.Raw) {
			return filepath.Base(info.Name)
		}
	}
	return ""
}
