package certs

import (
	"bytes"
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"

	"postern/internal/text"
)

var (
	errNoCertificate = errors.New("no certificate in it")
	errTooLarge      = errors.New("larger than any certificate: name the file that holds it alone")
	errKeyless       = errors.New("none of the keys belongs to this certificate")
)

// loader collects files, then matches certificates and keys.
type loader struct {
	certs, keys string // the variables that name the files
	keyFiles    []string
	files       []*file
	folders     []*folder
	pool        map[string]*poolKey // by public key
	order       []*poolKey
	problems    []error
	whole       bool // everything could be read

	pairs  []*Info
	byLeaf map[string]*Info
}

// poolKey is a private key and where it was found.
type poolKey struct {
	signer crypto.Signer
	file   *file
	used   bool
}

func newLoader(prefix string, keyFiles []string) *loader {
	return &loader{
		certs: prefix + "TLS_CERT_FILE", keys: prefix + "TLS_KEY_FILE",
		keyFiles: keyFiles, whole: true, pool: map[string]*poolKey{}, byLeaf: map[string]*Info{},
	}
}

// Load reads PEM certificates and keys. certFiles may hold files and
// directories, keyFiles only files. Load matches keys and certificates by the
// keys themselves, in any order and from any file or directory. A file that was
// named and cannot be used is an error. What cannot be used in a directory is a
// warning as long as there is a certificate with its key beside it or below. The
// error holds all problems, a line each, with the name of the file.
//
// Expired certificates are loaded too: see [Set.Certificate].
func Load(certFiles, keyFiles []string) (*Store, error) { return load("POSTERN_", certFiles, keyFiles) }

func load(prefix string, certFiles, keyFiles []string) (*Store, error) {
	if len(certFiles) == 0 {
		return nil, errors.New("no certificate is named")
	}
	l := newLoader(prefix, keyFiles)
	for _, name := range certFiles {
		l.read(name, nil, levels)
	}
	for _, name := range keyFiles {
		l.readFile(name, nil, true)
	}
	whole := l.whole // otherwise what is missing may be in what could not be read
	var keyless []*file
	for _, f := range l.files {
		switch err := l.match(f); {
		case errors.Is(err, errKeyless):
			keyless = append(keyless, f)
		case err != nil:
			l.problem(f.name, f.dir, err)
		}
	}
	if whole {
		l.report(keyless)
	}
	strays := l.checkFolders()
	if len(l.problems) > 0 {
		return nil, errors.Join(l.problems...)
	}
	s := newStore(l.pairs)
	s.strays = strays
	return s, nil
}

// report tells of certificates and keys that are left over.
func (l *loader) report(keyless []*file) {
	alone := slices.DeleteFunc(l.order, func(k *poolKey) bool { return k.used })
	if len(keyless) == 1 && len(alone) == 1 {
		f := keyless[0]
		l.problem(f.name, f.dir, fmt.Errorf("does not belong to the key in %s: put the key that was made for this certificate there, "+
			"or the certificate of that key here (after a renewal, the old one back)", alone[0].file.name))
		return
	}
	for _, f := range keyless {
		mend := text.Either(f.dir == nil, "look for its key, and name it in "+l.keys, "put its key into the directory")
		l.problem(f.name, f.dir, fmt.Errorf("%w: %s", errKeyless, mend))
	}
	for _, k := range alone {
		l.problem(k.file.name, k.file.dir, errors.New("the key belongs to none of the certificates: take it away, or name its certificate"))
	}
}

// checkFolders finds named directories without a pair: then what is of no use in
// them is why. It returns the strays in the others.
func (l *loader) checkFolders() (strays []string) {
	for _, d := range l.folders {
		switch {
		case d.pairs == 0 && len(d.strays) == 0:
			l.problem(d.name, nil, errors.New("no certificate with its key in this directory: put both into it, in PEM"))
		case d.pairs == 0:
			l.problems = append(l.problems, d.strays...)
		default:
			strays = append(strays, text.Each(d.strays, error.Error)...)
		}
	}
	return strays
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
		l.spend(f)
		return fmt.Errorf("the certificate cannot be read (%w): export it again", err)
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
	if f.dir != nil {
		f.dir.pairs++
	}
	cert := &tls.Certificate{Certificate: f.chain, PrivateKey: k.signer, Leaf: leaf}
	p := &Info{Name: f.name, Leaf: leaf, Chain: f.chain, key: bit, cert: cert}
	// certbot writes the certificate both alone and with its chain: the longer counts.
	switch known := l.byLeaf[string(leaf.Raw)]; {
	case known == nil:
		l.byLeaf[string(leaf.Raw)] = p
		l.pairs = append(l.pairs, p)
	case len(p.Chain) > len(known.Chain):
		*known = *p
	}
	return nil
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
			return errors.New("the server's own certificate must come first in it")
		}
	}
	if _, err := keyType(leaf.PublicKey); err != nil && f.dir == nil {
		return err
	}
	switch {
	case len(f.keys) > 0:
		l.spend(f)
		return errors.New("the certificate and the key in it do not belong together: put both of one renewal into it")
	case f.dir == nil && len(l.keyFiles) == 0:
		return fmt.Errorf("the key to this certificate is missing: name it in %s, which is not set, or append it to the file", l.keys)
	case f.dir != nil && leaf.IsCA:
		return nil
	}
	return errKeyless
}

// spend has no second error tell of the keys in a file.
func (l *loader) spend(f *file) {
	for _, k := range l.order {
		k.used = k.used || k.file == f
	}
}

// keyOf returns the key of a certificate, or nil.
func (l *loader) keyOf(cert *x509.Certificate) *poolKey { return l.pool[publicID(cert.PublicKey)] }

// publicID is equal for equal public keys, however a file encodes them. It is
// empty for unsupported types.
func publicID(public crypto.PublicKey) string {
	der, _ := x509.MarshalPKIXPublicKey(public)
	return string(der)
}
