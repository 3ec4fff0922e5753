package admin

import (
	"bytes"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"strings"

	"postern/internal/config"
)

const (
	leastToken = 16 // bytes
	// mostToken leaves room in maxHeaderBytes, also in base64.
	mostToken = 4 << 10
)

// Token is what page and API ask for. It holds a sum alone, so that nothing
// that prints it can tell what it was.
type Token struct{ sum [sha256.Size]byte }

// ReadToken reads the file that ADMIN_TOKEN_FILE names: one token, and one
// line ending behind it or none. Without a name there is no token, and no
// error. The error is one line that names variable and file, and never holds
// any of the token.
func ReadToken(name string) (*Token, error) {
	if name == "" {
		return nil, nil
	}
	text, err := readToken(name)
	if err != nil {
		// The path in a PathError would come twice.
		if pathErr, ok := errors.AsType[*fs.PathError](err); ok {
			err = pathErr.Err
		}
		return nil, fmt.Errorf("%sADMIN_TOKEN_FILE: %s: %w", config.Prefix, name, err)
	}
	return &Token{sha256.Sum256(text)}, nil
}

func readToken(name string) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, mostToken+3)) // CRLF, and one to tell that there is more
	if err != nil {
		return nil, err
	}
	if line, ok := bytes.CutSuffix(text, []byte("\n")); ok {
		text, _ = bytes.CutSuffix(line, []byte("\r"))
	}
	for _, b := range text {
		if b <= ' ' || b > '~' {
			return nil, errors.New("the token is not one line of printable ASCII without blanks")
		}
	}
	switch {
	case len(text) < leastToken:
		return nil, fmt.Errorf("the token has %d bytes, %d are the least", len(text), leastToken)
	case len(text) > mostToken:
		return nil, fmt.Errorf("the token has more than %d bytes", mostToken)
	}
	return text, nil
}

// is compares in a time that tells nothing about the token, not even how long
// it is.
func (t *Token) is(given string) bool {
	if t == nil {
		return false
	}
	sum := sha256.Sum256([]byte(given))
	return subtle.ConstantTimeCompare(sum[:], t.sum[:]) == 1
}

// tokenIn returns what a request gives as the token: that of a Bearer scheme
// (RFC 6750, Section 2.1), or the password of a Basic one, whoever the user.
// Anything else is no token, and no wrong one either.
func tokenIn(r *http.Request) string {
	if _, password, ok := r.BasicAuth(); ok {
		return password
	}
	scheme, given, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	if !strings.EqualFold(scheme, "Bearer") { // RFC 9110, Section 11.1
		return ""
	}
	return strings.Trim(given, " ")
}
