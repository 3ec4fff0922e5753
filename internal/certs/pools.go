package certs

import (
	"bytes"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"slices"
)

var errNoTicketKey = errors.New("no key in it")

// ReadCertificates reads the certificates in a PEM file; there must be at least
// one. The error names the file.
func ReadCertificates(name string) ([]*x509.Certificate, error) {
	c, err := readPEM(name)
	if err == nil && len(c.chain) == 0 {
		err = errNoCertificate
	}
	if err != nil {
		return nil, named(name, err)
	}
	list := make([]*x509.Certificate, len(c.chain))
	for i, der := range c.chain {
		if list[i], err = x509.ParseCertificate(der); err != nil {
			return nil, named(name, fmt.Errorf("parsing certificate %d: %w", i+1, err))
		}
	}
	return list, nil
}

// LoadPool reads CA certificates. Without a name there is no pool, and no
// error.
func LoadPool(name string) (*x509.CertPool, error) {
	if name == "" {
		return nil, nil
	}
	list, err := ReadCertificates(name)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	for _, cert := range list {
		pool.AddCert(cert)
	}
	return pool, nil
}

// LoadPair reads one certificate with its key, which may be in the same file.
// Without a certificate's name there is no store, and no error.
func LoadPair(certFile, keyFile string) (*Store, error) {
	if certFile == "" {
		return nil, nil
	}
	return Load([]string{certFile}, slices.DeleteFunc([]string{keyFile}, func(s string) bool { return s == "" }))
}

// ticketKeyBytes is the size of a session ticket key of crypto/tls.
const ticketKeyBytes = 32

// LoadTicketKeys reads session ticket keys: base64 of 32 bytes each, one a
// line, newest first, skipping empty lines and those that begin with #. Without
// a name there are none, and no error. The error names the file and the lines,
// one line of text each, and never holds any of a key.
func LoadTicketKeys(name string) ([][ticketKeyBytes]byte, error) {
	if name == "" {
		return nil, nil
	}
	data, err := readBounded(name)
	if err != nil {
		return nil, named(name, err)
	}
	var keys [][ticketKeyBytes]byte
	var problems []error
	for i, line := range bytes.Split(data, []byte("\n")) {
		line = bytes.TrimSpace(line)
		if len(line) == 0 || line[0] == '#' {
			continue
		}
		key, reason := ticketKey(line)
		if reason == "" && slices.Contains(keys, key) {
			reason = "the same key as before"
		}
		if reason != "" {
			problems = append(problems, fmt.Errorf("%s:%d: %s", name, i+1, reason))
		}
		keys = append(keys, key)
	}
	switch {
	case len(problems) > 0:
		return nil, errors.Join(problems...)
	case len(keys) == 0:
		return nil, named(name, errNoTicketKey)
	}
	return keys, nil
}

func ticketKey(line []byte) (key [ticketKeyBytes]byte, reason string) {
	raw := make([]byte, base64.StdEncoding.DecodedLen(len(line)))
	n, err := base64.StdEncoding.Decode(raw, line)
	switch {
	case err != nil:
		return key, "not base64"
	case n != ticketKeyBytes:
		return key, fmt.Sprintf("%d bytes, not %d", n, ticketKeyBytes)
	}
	copy(key[:], raw)
	return key, ""
}

// named puts the name of the file before the problem.
func named(name string, err error) error {
	// The path in a PathError would come twice.
	if pathErr, ok := errors.AsType[*fs.PathError](err); ok {
		err = pathErr.Err
	}
	return fmt.Errorf("%s: %w", name, err)
}
