package config

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"

	"postern/internal/text"
)

// The bounds on a secret, in bytes. The upper one fits into an HTTP header, also
// in base64.
const (
	leastSecret = 16
	mostSecret  = 4 << 10
)

// ReadSecret reads the file of a variable, which is given without its prefix: a
// secret, and at most one line ending. what describes the secret in errors;
// check, unless nil, may reject it. The error is one line that names variable
// and file, and never holds any of the secret.
func ReadSecret(variable, file, what string, check func([]byte) error) ([]byte, error) {
	secret, err := text.ReadFile(file, mostSecret+len("\r\n"))
	if line, ok := bytes.CutSuffix(secret, []byte("\n")); ok {
		secret = bytes.TrimSuffix(line, []byte("\r"))
	}
	if err == nil && check != nil {
		err = check(secret)
	}
	switch {
	case err != nil:
	case len(secret) < leastSecret:
		err = fmt.Errorf("the %s has %d bytes, %d are the least: openssl rand -base64 32 makes one", what, len(secret), leastSecret)
	case len(secret) > mostSecret:
		err = fmt.Errorf("the %s has more than %d bytes, the most: openssl rand -base64 32 makes one", what, mostSecret)
	}
	switch {
	case err != nil && (!filepath.IsAbs(file) || filepath.Dir(file) == "/") && errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("%s: no such file (its name is not shown, as it may be the %s itself): put the %s into a file, and name that", Prefix+variable, what, what)
	case err != nil:
		return nil, fmt.Errorf("%s: %w", Prefix+variable, text.FileError(file, err))
	}
	return secret, nil
}

// IdentityKey reads the key of hashed accounts, even if accounts are not hashed
// now; nil if no file is configured.
func (c *Config) IdentityKey() ([]byte, error) {
	if c.LedgerIdentityKeyFile == "" {
		return nil, nil
	}
	return ReadSecret("LEDGER_IDENTITY_KEY_FILE", c.LedgerIdentityKeyFile, "key", nil)
}
