package certs

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"strings"

	"postern/policy"
)

var (
	errNoPEM     = errors.New("no PEM in it")
	errBroken    = errors.New("a PEM block is broken or cut off")
	errEncrypted = errors.New("the key is encrypted: decrypt it, nobody can type its password here")
)

// parse reads certificates and keys. It skips other blocks, such as parameters,
// and text around the blocks. It never echoes a key.
func parse(data []byte) (*file, error) {
	var f file
	data = bytes.TrimPrefix(data, []byte("\xef\xbb\xbf")) // a byte order mark would hide the first block
	begun := bytes.Count(append([]byte("\n"), data...), []byte("\n-----BEGIN "))
	ended := 0
	for {
		var block *pem.Block
		if block, data = pem.Decode(data); block == nil {
			break
		}
		ended++
		switch {
		case block.Type == "CERTIFICATE":
			f.chain = append(f.chain, block.Bytes)
		case strings.HasSuffix(block.Type, "PRIVATE KEY"):
			key, err := parseKey(block)
			if err != nil {
				return nil, err
			}
			f.keys = append(f.keys, key)
		}
	}
	switch {
	case begun == 0:
		return nil, errNoPEM
	case ended < begun:
		// pem.Decode silently skips to the next good block.
		return nil, errBroken
	}
	return &f, nil
}

// keyBlocks are named in errors. Other types are not repeated: the file may not
// be PEM at all.
var keyBlocks = []string{"RSA PRIVATE KEY", "EC PRIVATE KEY", "DSA PRIVATE KEY", "OPENSSH PRIVATE KEY"}

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
		name := "PRIVATE KEY"
		if slices.Contains(keyBlocks, block.Type) {
			name = block.Type
		}
		return nil, fmt.Errorf("the %s cannot be read", strings.ToLower(name))
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
		return policy.RSA, nil
	}
	return 0, errKeyType
}
