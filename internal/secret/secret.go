// Package secret reads the files that hold one secret each.
package secret

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
)

// How long a secret may be, in bytes. The most leaves room in an HTTP header,
// also in base64.
const (
	Least = 16
	Most  = 4 << 10
)

// Read reads the secret in the file that a variable names, and drops one line
// ending behind it. What says what the secret is; check, where it is not nil,
// may refuse it. The error is one line that names variable and file, and never
// holds any of the secret.
func Read(variable, file, what string, check func([]byte) error) ([]byte, error) {
	text, err := read(file)
	if err == nil && check != nil {
		err = check(text)
	}
	switch {
	case err != nil:
	case len(text) < Least:
		err = fmt.Errorf("the %s has %d bytes, %d are the least", what, len(text), Least)
	case len(text) > Most:
		err = fmt.Errorf("the %s has more than %d bytes", what, Most)
	}
	if err != nil {
		// The path in a PathError would come twice.
		if pathErr, ok := errors.AsType[*fs.PathError](err); ok {
			err = pathErr.Err
		}
		return nil, fmt.Errorf("%s: %s: %w", variable, file, err)
	}
	return text, nil
}

func read(file string) ([]byte, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, Most+3)) // CRLF, and one to tell that there is more
	if line, ok := bytes.CutSuffix(text, []byte("\n")); ok {
		text, _ = bytes.CutSuffix(line, []byte("\r"))
	}
	return text, err
}
