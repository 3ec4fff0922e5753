package certs

import (
	"bytes"
	"cmp"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/x509"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"postern/internal/text"
	"postern/policy"
)

var (
	errNoPEM  = errors.New("no PEM in it: name a file with a line -----BEGIN CERTIFICATE----- or -----BEGIN PRIVATE KEY-----")
	errBroken = errors.New("a PEM block is broken or cut off: copy the file again")
)

// converted is an error whose mend is to convert a file with openssl.
func converted(is, command, name string) error {
	stem := strings.TrimSuffix(name, filepath.Ext(name))
	to := stem + ".pem"
	if _, err := os.Stat(to); err == nil {
		to = stem + "-new.pem"
	}
	return fmt.Errorf("%s: openssl %s -in %s -out %s, and name %[4]s in its place", is, command, name, to)
}

// blocks splits PEM and the text around it. A block that is broken has no bytes; a
// file that ends within one is an error.
func blocks(name string, data []byte) (list []*pem.Block, err error) {
	data = bytes.TrimPrefix(data, []byte("\xef\xbb\xbf")) // a byte order mark would hide the first block
	if err := otherForm(name, data); err != nil {
		return nil, err
	}
	parts := bytes.Split(append([]byte("\n"), data...), []byte("\n-----BEGIN "))[1:]
	for _, part := range parts {
		// By itself: pem.Decode silently skips to the next good block.
		block, _ := pem.Decode(append([]byte("-----BEGIN "), part...))
		if block == nil {
			kind, _, _ := bytes.Cut(part, []byte("-----"))
			block = &pem.Block{Type: string(kind)}
		}
		list = append(list, block)
	}
	switch last := len(list) - 1; {
	case last < 0:
		return nil, errNoPEM
	case list[last].Bytes == nil && !bytes.Contains(parts[last], []byte("-----END ")):
		return nil, errBroken
	}
	return list, nil
}

// parse reads certificates and keys. It skips other blocks, such as parameters.
// It never echoes a key.
func parse(name string, data []byte) (*file, error) {
	list, err := blocks(name, data)
	if err != nil {
		return nil, err
	}
	f := &file{name: name}
	var other error
	for _, block := range list {
		switch {
		case block.Bytes == nil:
			return nil, errBroken
		case block.Type == "CERTIFICATE" || block.Type == "X509 CERTIFICATE":
			f.chain = append(f.chain, block.Bytes)
		case strings.HasSuffix(block.Type, "PRIVATE KEY"):
			key, err := parseKey(name, block)
			if err != nil {
				return nil, err
			}
			f.keys = append(f.keys, key)
		default:
			other = cmp.Or(other, otherBlock(name, block.Type))
		}
	}
	if other != nil && len(f.chain)+len(f.keys) == 0 {
		return nil, other
	}
	return f, nil
}

// otherBlock tells of a block that is taken for a certificate or a key.
func otherBlock(name, kind string) error {
	switch kind {
	case "CERTIFICATE REQUEST":
		return errors.New("it holds a certificate request: name the certificate that the CA has made of it")
	case "PUBLIC KEY":
		return errors.New("it holds a public key: name the private one")
	case "TRUSTED CERTIFICATE":
		return converted("it holds OpenSSL's TRUSTED CERTIFICATE", "x509", name)
	case "PKCS7":
		return converted("it holds PKCS #7", "pkcs7 -print_certs", name)
	}
	return nil
}

// otherForm tells of a file that is not PEM, or not at its beginning, though it
// was meant to hold what PEM does.
func otherForm(name string, data []byte) error {
	if i := bytes.Index(data, []byte("-----BEGIN ")); i > 0 {
		line := data[bytes.LastIndexByte(data[:i], '\n')+1 : i]
		if len(bytes.TrimSpace(line)) == 0 && len(line) > 0 {
			return errors.New("blanks stand before -----BEGIN: take them away")
		}
	}
	var parts []asn1.RawValue
	if rest, err := asn1.Unmarshal(data, &parts); err != nil || len(rest) > 0 || len(parts) == 0 {
		return nil
	}
	switch first := parts[0]; {
	case first.Tag == asn1.TagInteger && bytes.Equal(first.Bytes, []byte{3}):
		return converted("it is PKCS #12, not PEM", "pkcs12 -nodes", name)
	case first.Tag == asn1.TagInteger:
		return converted("it is DER, not PEM", "pkey -inform der", name)
	case first.Tag == asn1.TagOID:
		return converted("it is PKCS #7, not PEM", "pkcs7 -inform der -print_certs", name)
	}
	return converted("it is DER, not PEM", "x509 -inform der", name)
}

// parseKey reads a key in PKCS #1, PKCS #8 or SEC 1 form, whatever the block's
// type: some programs write one form under another's name.
func parseKey(name string, block *pem.Block) (crypto.Signer, error) {
	if block.Type == "ENCRYPTED PRIVATE KEY" || strings.Contains(block.Headers["Proc-Type"], "ENCRYPTED") {
		return nil, converted("the key is encrypted, and nobody can type its password here", "pkey", name)
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		key, err = x509.ParsePKCS1PrivateKey(block.Bytes)
	}
	if err != nil {
		key, err = x509.ParseECPrivateKey(block.Bytes)
	}
	if err != nil {
		return nil, converted("the private key cannot be read", "pkey", name)
	}
	signer, ok := key.(crypto.Signer)
	if !ok {
		return nil, errKeyType
	}
	_, err = keyType(signer.Public())
	return signer, err
}

// leastRSA is the shortest key that Go signs with, in bits.
const leastRSA = 1024

var errKeyType = errors.New("the key is of a type that cannot be used: use ECDSA with P-256, P-384 or P-521, Ed25519 or RSA")

var curves = map[elliptic.Curve]policy.KeyTypes{
	elliptic.P256(): policy.ECDSAP256, elliptic.P384(): policy.ECDSAP384, elliptic.P521(): policy.ECDSAP521,
}

// keyType returns the bit of policy.KeyTypes for a public key.
func keyType(public crypto.PublicKey) (policy.KeyTypes, error) {
	switch k := public.(type) {
	case *ecdsa.PublicKey:
		if bit := curves[k.Curve]; bit != 0 {
			return bit, nil
		}
	case ed25519.PublicKey:
		return policy.Ed25519, nil
	case *rsa.PublicKey:
		if k.N.BitLen() < leastRSA {
			return 0, errors.New("an RSA key of less than 1024 bits cannot be used: make one of 2048 bits or more")
		}
		return policy.RSA, nil
	}
	return 0, errKeyType
}

// maxFile bounds one file, in bytes: ten times a long chain.
const maxFile = 1 << 20

// file is a PEM file that was read: its certificates in DER, in order, and its
// keys.
type file struct {
	name  string  // as the operator named it
	dir   *folder // that it was found in; nil where the file itself was named
	chain [][]byte
	keys  []crypto.Signer
}

// folder is a directory that was named, with the directories in it.
type folder struct {
	name   string
	pairs  int     // that were found in it
	strays []error // of what is of no use in it
}

// problem notes a problem with a file or directory. In a directory it is a stray,
// unless it has nothing to do with the file.
func (l *loader) problem(name string, dir *folder, err error) {
	l.whole, err = false, text.FileError(name, err)
	if dir == nil || errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE) {
		l.problems = append(l.problems, err)
		return
	}
	dir.strays = append(dir.strays, err)
}

// levels of directories are read, the one that was named and those in it: certbot and
// others have one for each name.
const levels = 2

// read reads a file or directory in d, or that the operator named if d is nil, and so many
// levels of directories.
func (l *loader) read(name string, d *folder, levels int) {
	info, err := os.Stat(name)
	switch {
	case err != nil:
		l.problem(name, d, err)
	case info.IsDir() && levels > 0:
		l.readFolder(name, d, levels-1)
	case d == nil || info.Mode().IsRegular() && info.Size() <= maxFile:
		l.readFile(name, d, false)
	}
}

// readFolder reads what is in a directory. Names that begin with a dot are Kubernetes'
// second view of the same files.
func (l *loader) readFolder(name string, d *folder, levels int) {
	entries, err := os.ReadDir(name)
	if err != nil {
		l.problem(name, d, err)
		return
	}
	if d == nil {
		d = &folder{name: name}
		l.folders = append(l.folders, d)
	}
	for _, entry := range entries {
		if !strings.HasPrefix(entry.Name(), ".") {
			l.read(filepath.Join(name, entry.Name()), d, levels)
		}
	}
}

// readFile reads a certificate or key file, or any file of a directory. It skips
// certificates in a key file: only those named as such are served.
func (l *loader) readFile(name string, d *folder, asKey bool) {
	var f *file
	data, err := readBounded(name)
	if err == nil {
		f, err = parse(name, data)
	}
	switch {
	case errors.Is(err, errNoPEM) && d != nil:
		return // a README, say
	case err == nil && asKey && len(f.keys) == 0:
		err = l.swapped(errors.New("no private key in it"), len(f.chain) > 0, "certificates", "its key", l.certs, l.keys)
	case err == nil && !asKey && d == nil && len(f.chain) == 0:
		err = l.swapped(errNoCertificate, len(f.keys) > 0, "a key", "its certificate", l.keys, l.certs)
	}
	if err != nil {
		l.problem(name, d, err)
		return
	}
	f.dir = d
	l.addKeys(f)
	if len(f.chain) > 0 && !asKey {
		l.files = append(l.files, f)
	}
}

// swapped adds to an error what is in the file instead, and which variables are for
// that and for what it lacks.
func (l *loader) swapped(err error, is bool, what, lacks, variable, other string) error {
	if !is {
		return fmt.Errorf("%w: name the file that has one", err)
	}
	return fmt.Errorf("%w but %s: name it in %s, and %s in %s", err, what, variable, lacks, other)
}

func readBounded(name string) ([]byte, error) {
	data, err := text.ReadFile(name, maxFile)
	if err == nil && len(data) > maxFile {
		err = errTooLarge
	}
	return data, err
}
