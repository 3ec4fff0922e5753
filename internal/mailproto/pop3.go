package mailproto

import (
	"bytes"
	"regexp"
)

// POP3Command is a command: keyword [SP arguments] (RFC 1939, Section 3). It has no tag,
// and its Args are without the spaces around them and without the CRLF.
type POP3Command IMAPCommand

// ParsePOP3Command splits a line; ok is false where the keyword is none.
func ParsePOP3Command(line []byte) (c POP3Command, ok bool) {
	name, args, _ := bytes.Cut(TrimLineEnd(line), []byte(" "))
	return POP3Command{Name: name, Args: bytes.TrimSpace(args)}, len(name) > 0 && all(name, isAtomChar)
}

// IsLogin reports whether +OK to the command means that the client is logged
// in (RFC 1939, Section 7; RFC 5034, Section 4).
func (c POP3Command) IsLogin() bool {
	return c.Name.Is("PASS", "APOP") || c.Name.Is("AUTH") && len(c.Args) > 0
}

// MayList reports whether +OK to the command may be followed by lines: before a login
// that is so of CAPA, AUTH alone and LANG alone (RFC 2449, Section 5; RFC 5034, Section
// 4; RFC 6856, Section 3.2), and not known of commands that no standard describes.
func (c POP3Command) MayList() bool {
	return !c.IsLogin() && !c.Name.Is("USER", "QUIT", "NOOP", "UTF8") && !(c.Name.Is("LANG") && len(c.Args) > 0)
}

// IsPOP3Status reports whether a reply begins with that status indicator: +OK or
// -ERR (RFC 1939, Section 3).
func IsPOP3Status(line []byte, status string) bool {
	if !HasPrefixFold(line, status) {
		return false
	}
	rest := line[len(status):]
	return len(rest) == 0 || rest[0] == ' ' || rest[0] == '\r' || rest[0] == '\n'
}

// FilterPOP3Greeting returns a greeting without the response code by which a server says
// that it takes XCLIENT from a proxy.
func FilterPOP3Greeting(line []byte) []byte { return xclientCode.ReplaceAll(line, []byte("$1")) }

var xclientCode = regexp.MustCompile(`(?i)^(\+OK )\[XCLIENT\] *`)

// POP3Listing reads the rest of a multi-line reply, whose first line is given, up to the
// line with a dot alone (RFC 1939, Section 3). It returns the whole reply without
// capabilities that do not hold inside TLS.
func (r *LineReader) POP3Listing(first []byte) ([]byte, error) {
	whole := bytes.Clone(first)
	for {
		line, err := r.Line()
		if err != nil {
			return nil, err
		}
		whole = append(whole, FilterPOP3Capability(line)...)
		if len(whole) > MaxLiterals {
			return nil, ErrLiterals
		}
		if body := TrimLineEnd(line); len(body) == 1 && body[0] == '.' {
			return whole, nil
		}
	}
}
