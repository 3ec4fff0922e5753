package certs

import (
	"bytes"
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
)

var (
	errNothing       = errors.New("no certificate is named")
	errNoCertificate = errors.New("no certificate in it")
	errNoKey         = errors.New("no private key in it")
	errTooLarge      = errors.New("larger than any certificate")
	errMismatch      = errors.New("the certificate and the key in it do not belong together")
	errCertAlone     = errors.New("none of the keys belongs to this certificate")
	errKeyAlone      = errors.New("the key belongs to none of the certificates")
	errOrder         = errors.New("the server's own certificate must come first in it")
	errFolder        = errors.New("no certificate with its key in this directory")
)

// loader collects files, then matches certificates and keys.
type loader struct {
	files    []*file
	folders  []*folder
	pool     map[string]*poolKey // by public key
	order    []*poolKey
	problems []error

	pairs  []*pair
	byLeaf map[string]*pair
}

// poolKey is a private key and where it was found.
type poolKey struct {
	signer crypto.Signer
	file   *file
	used   bool
}

// Load reads PEM certificates and keys. certFiles may hold files and
// directories, keyFiles only files. Load matches keys and certificates by the
// keys themselves, in any order and from any file or directory. In a directory
// it skips files that are not PEM and chains without a key; anything else that
// cannot be used is an error. The error holds all problems, a line each, with
// the name of the file.
//
// If several certificates with one type of key share a name, the first counts
// for that name. Expired certificates are loaded too.
func Load(certFiles, keyFiles []string) (*Store, error) {
	if len(certFiles) == 0 {
		return nil, errNothing
	}
	l := &loader{pool: map[string]*poolKey{}, byLeaf: map[string]*pair{}}
	for _, name := range certFiles {
		l.read(name, nil)
	}
	for _, name := range keyFiles {
		l.readFile(name, nil, true)
	}
	for _, f := range l.files {
		if err := l.match(f); err != nil {
			l.problem(f.name, f.dir, err)
		}
	}
	for _, k := range l.order {
		if !k.used {
			l.problem(k.file.name, k.file.dir, errKeyAlone)
		}
	}
	l.checkFolders()
	if len(l.problems) > 0 {
		return nil, errors.Join(l.problems...)
	}
	return newStore(l.pairs), nil
}

// checkFolders finds directories without a pair. One below the named directory
// may hold only CA certificates, but not a server's certificate without a key:
// then the key has been lost, say in an incomplete copy.
func (l *loader) checkFolders() {
	for _, d := range l.folders {
		if d.pairs == 0 && !d.failed && (d.parent == nil || d.orphan) {
			l.problem(d.name, d.parent, errFolder)
		}
	}
}

func (l *loader) addKeys(f *file) {
	for _, signer := range f.keys {
		if id := publicID(signer.Public()); l.pool[id] == nil {
			k := &poolKey{signer: signer, file: f}
			l.pool[id] = k
			l.order = append(l.order, k)
		}
	}
}

// match finds the key of a file's first certificate, which is the server's
// (RFC 8446, Section 4.4.2).
func (l *loader) match(f *file) error {
	leaf, err := x509.ParseCertificate(f.chain[0])
	if err != nil {
		return fmt.Errorf("parsing certificate: %w", err)
	}
	k := l.keyOf(leaf)
	if k == nil {
		return l.withoutKey(f, leaf)
	}
	k.used = true
	if f.dir != nil && leaf.IsCA && len(names(leaf)) == 0 && len(leaf.IPAddresses) == 0 {
		return nil // a CA that somebody keeps beside what it signed
	}
	bit, err := keyType(leaf.PublicKey)
	if err != nil {
		return err
	}
	f.dir.count()
	l.addPair(&pair{name: f.name, key: bit, cert: &tls.Certificate{
		Certificate: f.chain,
		PrivateKey:  k.signer,
		Leaf:        leaf,
	}})
	return nil
}

// addPair keeps the longer of two chains for the same certificate: certbot
// writes the certificate both alone and with its chain.
func (l *loader) addPair(p *pair) {
	id := string(p.cert.Leaf.Raw)
	known := l.byLeaf[id]
	switch {
	case known == nil:
		l.byLeaf[id] = p
		l.pairs = append(l.pairs, p)
	case len(p.cert.Certificate) > len(known.cert.Certificate):
		*known = *p
	}
}

// withoutKey returns the problem with a file whose first certificate has no key;
// nil if that is allowed.
func (l *loader) withoutKey(f *file, leaf *x509.Certificate) error {
	for _, der := range f.chain[1:] {
		cert, err := x509.ParseCertificate(der)
		if err != nil || bytes.Equal(cert.Raw, leaf.Raw) {
			continue
		}
		if k := l.keyOf(cert); k != nil {
			k.used = true
			return errOrder
		}
	}
	if _, err := keyType(leaf.PublicKey); err != nil && f.dir == nil {
		return err
	}
	if len(f.keys) > 0 {
		for _, k := range l.order {
			k.used = k.used || k.file == f // no second error tells of it
		}
		return errMismatch
	}
	if f.dir == nil {
		return errCertAlone
	}
	f.dir.orphan = f.dir.orphan || !leaf.IsCA
	return nil
}

// keyOf returns the key of a certificate, or nil.
func (l *loader) keyOf(cert *x509.Certificate) *poolKey { return l.pool[publicID(cert.PublicKey)] }

// publicID is equal for equal public keys, however a file encodes them. It is
// empty for unsupported types.
func publicID(public crypto.PublicKey) string {
	der, _ := x509.MarshalPKIXPublicKey(public)
	return string(der)
}
