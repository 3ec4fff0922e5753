package certs

import (
	"bytes"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"strings"

	"postern/internal/text"
)

// ReadCertificates reads the certificates in a PEM file; there must be at least
// one that can be used. Of each of the others there is a warning. Error and
// warnings name the file.
func ReadCertificates(name string) (list []*x509.Certificate, warnings []string, err error) {
	data, err := readBounded(name)
	if err != nil {
		return nil, nil, text.FileError(name, err)
	}
	all, err := blocks(name, data)
	if err != nil {
		return nil, nil, text.FileError(name, err)
	}
	entries := slices.DeleteFunc(all, func(b *pem.Block) bool { return !strings.HasSuffix(b.Type, "CERTIFICATE") })
	for i, b := range entries {
		cert, err := x509.ParseCertificate(b.Bytes)
		if err != nil {
			warnings = append(warnings, fmt.Sprintf("%s: certificate %d%s cannot be used (%v): export it again, or take it away", name, i+1, subjectOf(b.Bytes), err))
			continue
		}
		list = append(list, cert)
	}
	switch {
	case len(entries) == 0:
		return nil, nil, text.FileError(name, fmt.Errorf("%w: name the file that has one", errNoCertificate))
	case len(list) == 0:
		return nil, nil, errors.New(strings.Join(warnings, "\n"))
	}
	return list, warnings, nil
}

// subjectOf returns the subject of a certificate that cannot be used, in
// brackets; empty where that cannot be read either.
func subjectOf(der []byte) string {
	var cert struct { // RFC 5280, Section 4.1, as far as the subject
		TBS struct {
			Version                             int `asn1:"optional,explicit,default:0,tag:0"`
			Serial, Algorithm, Issuer, Validity asn1.RawValue
			Subject                             pkix.RDNSequence
		}
	}
	if _, err := asn1.Unmarshal(der, &cert); err != nil {
		return ""
	}
	return " (" + text.Clean(cert.TBS.Subject.String(), 200) + ")"
}

// LoadPool reads CA certificates, as [ReadCertificates] does.
func LoadPool(name string) (*x509.CertPool, error) {
	list, _, err := ReadCertificates(name)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	for _, cert := range list {
		pool.AddCert(cert)
	}
	return pool, nil
}

// LoadPair reads one certificate with its key, which may be in the same file: then there
// is no other.
func LoadPair(certFile, keyFile string) (*Store, error) {
	return load("POSTERN_ADMIN_", []string{certFile}, slices.DeleteFunc([]string{keyFile}, func(s string) bool { return s == "" }))
}

// ticketKeyBytes is the size of a session ticket key of crypto/tls.
const ticketKeyBytes = 32

// LoadTicketKeys reads session ticket keys: base64 of 32 bytes each, one a
// line, newest first, skipping empty lines and those that begin with #. The error
// names the file and the lines, one line of text each, and never holds any of a key.
func LoadTicketKeys(name string) ([][ticketKeyBytes]byte, error) {
	data, err := readBounded(name)
	if err != nil {
		return nil, text.FileError(name, err)
	}
	var keys [][ticketKeyBytes]byte
	var problems []error
	for i, line := range bytes.Split(data, []byte("\n")) {
		line = bytes.TrimSpace(line)
		if len(line) == 0 || line[0] == '#' {
			continue
		}
		key, err := base64.StdEncoding.DecodeString(string(line))
		switch {
		case err != nil:
			err = errors.New("not base64: make a key with openssl rand -base64 32")
		case len(key) != ticketKeyBytes:
			err = fmt.Errorf("%d bytes, not %d: make a key with openssl rand -base64 32", len(key), ticketKeyBytes)
		case slices.Contains(keys, [ticketKeyBytes]byte(key)):
			err = errors.New("the same key as before: take one of them away")
		default:
			keys = append(keys, [ticketKeyBytes]byte(key))
			continue
		}
		problems = append(problems, fmt.Errorf("%s:%d: %w", name, i+1, err))
	}
	switch {
	case len(problems) > 0:
		return nil, errors.Join(problems...)
	case len(keys) == 0:
		return nil, text.FileError(name, errors.New("no key in it: put one there with openssl rand -base64 32"))
	}
	return keys, nil
}
