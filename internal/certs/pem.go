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
	"strings"

	"postern/policy"
)

var (
	errNoPEM     = errors.New("no PEM in it")
	errBroken    = errors.New("a PEM block is broken or cut off: copy the file again")
	errEncrypted = errors.New("the key is encrypted, and nobody can type its password here: decrypt it with openssl pkey")
)

// blocks splits PEM and the text around it. A block that is broken has no bytes; a
// file that ends within one is an error.
func blocks(data []byte) (list []*pem.Block, err error) {
	data = bytes.TrimPrefix(data, []byte("\xef\xbb\xbf")) // a byte order mark would hide the first block
	if err := otherForm(data); err != nil {
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
func parse(data []byte) (*file, error) {
	list, err := blocks(data)
	if err != nil {
		return nil, err
	}
	var f file
	other := ""
	for _, block := range list {
		switch {
		case block.Bytes == nil:
			return nil, errBroken
		case block.Type == "CERTIFICATE" || block.Type == "X509 CERTIFICATE":
			f.chain = append(f.chain, block.Bytes)
		case strings.HasSuffix(block.Type, "PRIVATE KEY"):
			key, err := parseKey(block)
			if err != nil {
				return nil, err
			}
			f.keys = append(f.keys, key)
		default:
			other = cmp.Or(other, otherBlocks[block.Type])
		}
	}
	if other != "" && len(f.chain)+len(f.keys) == 0 {
		return nil, fmt.Errorf("it holds %s", other)
	}
	return &f, nil
}

// otherBlocks are blocks that are taken for certificates or keys.
var otherBlocks = map[string]string{
	"CERTIFICATE REQUEST": "a certificate request: name the certificate that the CA has made of it",
	"PUBLIC KEY":          "a public key: name the private one",
	"TRUSTED CERTIFICATE": "OpenSSL's TRUSTED CERTIFICATE: convert it with openssl x509",
	"PKCS7":               "PKCS #7: convert it with openssl pkcs7 -print_certs",
}

// otherForm tells of a file that is not PEM, or not at its beginning, though it
// was meant to hold what PEM does.
func otherForm(data []byte) error {
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
		return errors.New("it is PKCS #12, not PEM: convert it with openssl pkcs12 -nodes -in")
	case first.Tag == asn1.TagInteger:
		return errors.New("it is DER, not PEM: convert it with openssl pkey -inform der -in")
	case first.Tag == asn1.TagOID:
		return errors.New("it is PKCS #7, not PEM: convert it with openssl pkcs7 -inform der -print_certs -in")
	}
	return errors.New("it is DER, not PEM: convert it with openssl x509 -inform der -in")
}

// parseKey reads a key in PKCS #1, PKCS #8 or SEC 1 form, whatever the block's
// type: some programs write one form under another's name.
func parseKey(block *pem.Block) (crypto.Signer, error) {
	if block.Type == "ENCRYPTED PRIVATE KEY" || strings.Contains(block.Headers["Proc-Type"], "ENCRYPTED") {
		return nil, errEncrypted
	}
	var key any
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		if k, e := x509.ParsePKCS1PrivateKey(block.Bytes); e == nil {
			key, err = k, nil
		} else if k, e := x509.ParseECPrivateKey(block.Bytes); e == nil {
			key, err = k, nil
		}
	}
	if err != nil {
		return nil, errors.New("the private key cannot be read: convert it with openssl pkey")
	}
	signer, ok := key.(crypto.Signer)
	if !ok {
		return nil, errKeyType
	}
	if _, err := keyType(signer.Public()); err != nil {
		return nil, err
	}
	return signer, nil
}

// leastRSA is the shortest key that Go signs with, in bits.
const leastRSA = 1024

var errShortKey = errors.New("an RSA key of less than 1024 bits cannot be used: make one of 2048 bits or more")

var errKeyType = errors.New("the key is of a type that cannot be used: use ECDSA with P-256, P-384 or P-521, Ed25519 or RSA")

// keyType returns the bit of policy.KeyTypes for a public key.
func keyType(public crypto.PublicKey) (policy.KeyTypes, error) {
	switch k := public.(type) {
	case *ecdsa.PublicKey:
		switch k.Curve {
		case elliptic.P256():
			return policy.ECDSAP256, nil
		case elliptic.P384():
			return policy.ECDSAP384, nil
		case elliptic.P521():
			return policy.ECDSAP521, nil
		}
	case ed25519.PublicKey:
		return policy.Ed25519, nil
	case *rsa.PublicKey:
		if k.N.BitLen() < leastRSA {
			return 0, errShortKey
		}
		return policy.RSA, nil
	}
	return 0, errKeyType
}
