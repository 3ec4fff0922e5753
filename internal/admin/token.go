package admin

import (
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"net/http"
	"strings"

	"postern/internal/config"
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
	text, err := config.ReadSecret("ADMIN_TOKEN_FILE", name, "token", oneWord)
	if err != nil {
		return nil, err
	}
	return &Token{sha256.Sum256(text)}, nil
}

// oneWord: a token goes into an HTTP header.
func oneWord(text []byte) error {
	for _, b := range text {
		if b <= ' ' || b > '~' {
			return errors.New("the token is not one line of printable ASCII without blanks")
		}
	}
	return nil
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
