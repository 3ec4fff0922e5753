package posterntest

import (
	"bytes"
	"errors"
	"io"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// What follows reads mail protocols in a second way, as the reference for the
// product's own reader.

// ErrLineTooLong is a line of more than 64 KB.
var ErrLineTooLong = errors.New("line too long")

// NextLine splits the first line off; no more than 64 KB are one.
func NextLine(data []byte) (line, rest []byte, err error) {
	i := bytes.IndexByte(data, '\n')
	switch {
	case i >= 0 && i < 64<<10:
		return data[:i+1], data[i+1:], nil
	case i >= 0 || len(data) >= 64<<10:
		return nil, nil, ErrLineTooLong
	case len(data) > 0:
		return nil, nil, io.ErrUnexpectedEOF
	}
	return nil, nil, io.EOF
}

// ASCIIUpper knows no letters but those of ASCII, as the protocols do.
func ASCIIUpper(s string) string {
	b := []byte(s)
	for i, c := range b {
		if c >= 'a' && c <= 'z' {
			b[i] = c - 'a' + 'A'
		}
	}
	return string(b)
}

// HoldsInsideTLS is the rule for one capability of IMAP.
func HoldsInsideTLS(word string) bool {
	word = ASCIIUpper(word)
	return word != "STARTTLS" && word != "LOGINDISABLED" && word != "XCLIENT" && !(strings.HasPrefix(word, "AUTH=") && strings.HasSuffix(word, "-PLUS"))
}

var (
	quotedString  = regexp.MustCompile(`^"((?:[^"\\\r\n]|\\["\\])*)"`)
	quoting       = regexp.MustCompile(`\\(.)`)
	literalHeader = regexp.MustCompile(`^~?\{(\d+)\+?\}\r\n`)
)

// IDStrings is a reader of ID arguments of its own, as an upstream would have
// one; it returns the strings in the list, and whether it is one.
func IDStrings(b []byte) (list []string, ok bool) {
	s := strings.TrimSpace(strings.TrimSuffix(string(b), "\r\n"))
	if strings.EqualFold(s, "NIL") {
		return nil, true
	}
	if !strings.HasPrefix(s, "(") {
		return nil, false
	}
	for s = s[1:]; ; {
		s = strings.TrimLeft(s, " ")
		switch {
		case s == ")":
			return list, len(list)%2 == 0
		case s == "" || s[0] == ')' || s[0] == '(':
			return list, false
		case s[0] == '"':
			m := quotedString.FindStringSubmatch(s)
			if m == nil {
				return list, false
			}
			list, s = append(list, quoting.ReplaceAllString(m[1], "$1")), s[len(m[0]):]
			continue
		}
		if m := literalHeader.FindStringSubmatch(s); m != nil {
			if size, err := strconv.Atoi(m[1]); err == nil && size <= len(s)-len(m[0]) {
				list, s = append(list, s[len(m[0]):][:size]), s[len(m[0])+size:]
				continue
			}
		}
		n := strings.IndexAny(s, " ()\"\r")
		if n <= 0 {
			return list, false
		}
		list, s = append(list, s[:n]), s[n:]
	}
}

// WithoutForbidden returns the fields of an ID that a client may send, and
// whether there were others.
func WithoutForbidden(list []string) (kept []string, found bool) {
	for i := 0; i+1 < len(list); i += 2 {
		key := strings.ToLower(list[i])
		if strings.HasPrefix(key, "x-forward-") || slices.Contains([]string{"x-originating-ip", "x-originating-port",
			"x-connected-ip", "x-connected-port", "x-proxy-ttl", "x-session-id", "x-session-ext-id"}, key) {
			found = true
			continue
		}
		kept = append(kept, list[i], list[i+1])
	}
	return kept, found
}
