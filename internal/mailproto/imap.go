package mailproto

import (
	"bytes"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// IMAPCommand is the first line of a command: tag SP name [SP arguments]
// (RFC 9051, Section 2.2.1). The slices are parts of the line.
type IMAPCommand struct {
	Tag  []byte
	Name Keyword
	// Args are what follows the name, with the space before it and the CRLF.
	Args []byte
}

// ParseIMAPCommand accepts the strict form only: what a lenient server might
// still read as a command, and this function would not, must not be passed on.
func ParseIMAPCommand(line []byte) (c IMAPCommand, ok bool) {
	tag, rest, _ := bytes.Cut(line, []byte(" "))
	end := bytes.IndexAny(rest, " \r")
	if len(tag) == 0 || end <= 0 {
		return c, false
	}
	c = IMAPCommand{tag, rest[:end], rest[end:]}
	return c, all(c.Tag, isTagChar) && all(c.Name, isAtomChar)
}

// maxTag is the longest tag that is echoed, in bytes.
const maxTag = 64

// IMAPTag returns the tag that a line begins with, if it can be echoed, or nil. What
// follows the space behind it need not be a command.
func IMAPTag(line []byte) []byte {
	tag, _, ok := bytes.Cut(line, []byte(" "))
	if !ok || len(tag) == 0 || len(tag) > maxTag || !all(tag, isTagChar) {
		return nil
	}
	return tag
}

// isAtomChar is ATOM-CHAR of RFC 9051, Section 9, without resp-specials.
func isAtomChar(c byte) bool {
	return c > ' ' && c < 0x7f && bytes.IndexByte([]byte(`(){%*"\]`), c) < 0
}

// isTagChar is any ASTRING-CHAR but "+".
func isTagChar(c byte) bool { return c != '+' && (isAtomChar(c) || c == ']') }

func all(b []byte, is func(byte) bool) bool {
	return !slices.ContainsFunc(b, func(c byte) bool { return !is(c) })
}

// Literal is the header of a literal at the end of a line (RFC 9051, Section
// 4.3; the form without synchronization is that of RFC 7888).
type Literal struct {
	// Size is the number of octets: any number above MaxLiterals is
	// MaxLiterals+1.
	Size int
	// Sync: the sender waits for a continuation request first.
	Sync bool
	// Header is the length of the header, CRLF included.
	Header int
}

var literalHeader = regexp.MustCompile(`~?\{([0-9]+)(\+?)\}\r?\n$`)

// LiteralAtEnd finds the header of a literal at the end of line.
func LiteralAtEnd(line []byte) (Literal, bool) {
	if !bytes.HasSuffix(TrimLineEnd(line), []byte("}")) {
		return Literal{}, false
	}
	m := literalHeader.FindSubmatch(line)
	if m == nil {
		return Literal{}, false
	}
	size, err := strconv.Atoi(string(m[1]))
	if err != nil || size > MaxLiterals {
		size = MaxLiterals + 1
	}
	return Literal{Size: size, Sync: len(m[2]) == 0, Header: len(m[0])}, true
}

// PlacedIn reports whether the header at the end of a client's line is where a
// literal can be: after a space or a parenthesis, outside of quoted strings.
// Elsewhere a server might take it for text, and what follows for the next
// command.
func (l Literal) PlacedIn(line []byte) bool { return placed.Match(line[:len(line)-l.Header]) }

// quoted is a quoted string (RFC 9051, Section 4.3), with its value in a group.
const quoted = `"((?:[^"\\\r\n]|\\["\\])*)"`

var (
	placed = regexp.MustCompile(`^[^"]*[ (](?:` + quoted + `(?: |[ )][^"]*[ (]))*$`)

	// arguments and idArguments split the next token off, with the spaces before it. In
	// an ID a parenthesis or a quote ends an atom; elsewhere an atom is what has no space
	// in it.
	arguments   = regexp.MustCompile(`^( *)(` + quoted + `|[^ "\r][^ \r]*|\r|$)`)
	idArguments = regexp.MustCompile(`^( *)(` + quoted + `|[()]|[^ ()"\r]+|\r|$)`)
	unescape    = strings.NewReplacer(`\\`, `\`, `\"`, `"`)
)

// token is a part of the arguments of a command: the spaces before it, how it stands
// there, and what it means.
type token struct {
	kind            tokenKind
	gap, raw, value []byte
}

type tokenKind uint8

const (
	tokenEnd tokenKind = iota // of the line: all that is left of it is the gap
	tokenMalformed
	tokenOpen
	tokenClose
	tokenAtom
	tokenQuoted      // or a literal without synchronization
	tokenSyncHeader  // the header of a synchronizing literal
	tokenSyncLiteral // its octets
)

func (t token) isNIL() bool { return t.kind == tokenAtom && Keyword(t.raw).Is("NIL") }

// nextToken splits the next token off what is left of a line, by one of the patterns above.
func nextToken(in []byte, pattern *regexp.Regexp) (tok token, rest []byte) {
	m := pattern.FindSubmatch(in)
	if m == nil {
		return token{kind: tokenMalformed}, nil
	}
	tok = token{kind: tokenAtom, gap: m[1], raw: m[2], value: m[2]}
	switch {
	case len(tok.raw) == 0, tok.raw[0] == '\r':
		return token{gap: in}, nil
	case tok.raw[0] == '"':
		tok.kind, tok.value = tokenQuoted, []byte(unescape.Replace(string(m[3])))
	case tok.raw[0] == '(':
		tok.kind = tokenOpen
	case tok.raw[0] == ')':
		tok.kind = tokenClose
	}
	return tok, in[len(m[0]):]
}

// IMAPStatus splits the tag off a status response, and returns its word: OK,
// NO, BAD, PREAUTH or BYE, in whatever case (RFC 9051, Section 7.1). The word is
// nil for any other response.
func IMAPStatus(line []byte) (tag []byte, word Keyword) {
	tag, rest, _ := bytes.Cut(TrimLineEnd(line), []byte(" "))
	if word, _, _ = bytes.Cut(rest, []byte(" ")); !word.Is("OK", "NO", "BAD", "PREAUTH", "BYE") {
		word = nil
	}
	return tag, word
}

// RefusalCode returns the response code of a NO, BAD or -ERR in upper case, such as
// AUTHENTICATIONFAILED (RFC 5530) or SYS/TEMP (RFC 3206), or nothing.
func RefusalCode(line []byte) string {
	if m := refusalCode.FindSubmatch(line); m != nil {
		return strings.ToUpper(string(m[1]))
	}
	return ""
}

var refusalCode = regexp.MustCompile(`(?i)^(?:[^ ]+ (?:NO|BAD)|-ERR) \[([A-Z/-]{1,32})[] ]`)

// IMAPResponse reads one response with its literals (RFC 9051, Section 2.2.2);
// the slice is valid until the next call. In the text of a status response and
// of a continuation request nothing is a literal.
func (r *LineReader) IMAPResponse() ([]byte, error) {
	line, err := r.Line()
	if err != nil {
		return nil, err
	}
	lit, more := LiteralAtEnd(line)
	if !more || line[0] == '+' {
		return line, nil
	}
	if _, status := IMAPStatus(line); status != nil {
		return line, nil
	}
	whole := bytes.Clone(line)
	for literals := 0; more; lit, more = LiteralAtEnd(line) {
		if literals += lit.Size; literals > r.maxLiterals {
			return nil, ErrLiterals
		}
		if whole, err = r.Octets(whole, lit.Size); err != nil {
			return nil, err
		}
		if line, err = r.Line(); err != nil {
			return nil, err
		}
		if whole = append(whole, line...); len(whole)-literals > MaxLine {
			return nil, ErrLineTooLong
		}
	}
	return whole, nil
}
