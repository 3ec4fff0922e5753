package mailproto

import (
	"bytes"
	"errors"
	"regexp"
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
	sp := bytes.IndexByte(line, ' ')
	if sp <= 0 {
		return c, false
	}
	c.Tag, line = line[:sp], line[sp+1:]
	end := bytes.IndexAny(line, " \r")
	if end <= 0 {
		return c, false
	}
	c.Name, c.Args = line[:end], line[end:]
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
	for _, c := range b {
		if !is(c) {
			return false
		}
	}
	return true
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

// LiteralAtEnd finds the header of a literal at the end of line.
func LiteralAtEnd(line []byte) (Literal, bool) {
	end := len(TrimLineEnd(line))
	if end == len(line) || end < 3 || line[end-1] != '}' {
		return Literal{}, false
	}
	open := bytes.LastIndexByte(line[:end], '{')
	if open < 0 {
		return Literal{}, false
	}
	digits, plus := bytes.CutSuffix(line[open+1:end-1], []byte("+"))
	if len(digits) == 0 || !all(digits, func(c byte) bool { return c >= '0' && c <= '9' }) {
		return Literal{}, false
	}
	if open > 0 && line[open-1] == '~' { // literal8
		open--
	}
	size, err := strconv.Atoi(string(digits))
	if err != nil || size > MaxLiterals {
		size = MaxLiterals + 1
	}
	return Literal{Size: size, Sync: !plus, Header: len(line) - open}, true
}

// PlacedIn reports whether the header at the end of a client's line is where a
// literal can be: after a space or a parenthesis, outside of quoted strings.
// Elsewhere a server might take it for text, and what follows for the next
// command.
func (l Literal) PlacedIn(line []byte) bool {
	text := line[:len(line)-l.Header]
	if n := len(text); n == 0 || text[n-1] != ' ' && text[n-1] != '(' {
		return false
	}
	for i := 0; i < len(text); i++ {
		if text[i] != '"' {
			continue
		}
		if i == 0 || text[i-1] != ' ' && text[i-1] != '(' {
			return false
		}
		_, size, ok := unquote(text[i:])
		if !ok {
			return false
		}
		i += size
		if i < len(text) && text[i] != ' ' && text[i] != ')' {
			return false
		}
	}
	return true
}

var unescape = strings.NewReplacer(`\\`, `\`, `\"`, `"`)

// unquote reads the quoted string at the start of b: its value and its length
// with the quotes.
func unquote(b []byte) (value []byte, size int, ok bool) {
	for i := 1; i < len(b); i++ {
		switch b[i] {
		case '"':
			return []byte(unescape.Replace(string(b[1:i]))), i + 1, true
		case '\r', '\n':
			return nil, 0, false
		case '\\':
			if i++; i == len(b) || b[i] != '"' && b[i] != '\\' {
				return nil, 0, false
			}
		}
	}
	return nil, 0, false
}

// nextArgument splits an atom or a quoted string off the arguments of a
// command, with the spaces before it; ok is false at the end, or where it is
// malformed. An atom is what has no space in it.
func nextArgument(b []byte) (value, rest []byte, ok bool) {
	b = bytes.TrimLeft(b, " ")
	if len(b) == 0 || b[0] == '\r' {
		return nil, nil, false
	}
	if b[0] == '"' {
		value, size, ok := unquote(b)
		return value, b[size:], ok
	}
	size := bytes.IndexAny(b, " \r")
	if size < 0 {
		size = len(b)
	}
	return b[:size], b[size:], true
}

// IMAPStatus splits the tag off a status response, and returns its word: OK,
// NO, BAD, PREAUTH or BYE, in whatever case (RFC 9051, Section 7.1). The word is
// nil for any other response.
func IMAPStatus(line []byte) (tag []byte, word Keyword) {
	tag, rest, _ := bytes.Cut(TrimLineEnd(line), []byte(" "))
	if word, _, _ = bytes.Cut(rest, []byte(" ")); !isStatus(word) {
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

func isStatus(word Keyword) bool { return word.Is("OK", "NO", "BAD", "PREAUTH", "BYE") }

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
		if literals += lit.Size; literals > MaxLiterals {
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

// ErrOutOfStep is a server that answers what it was not asked.
var ErrOutOfStep = errors.New("upstream answers what was not asked")

// maxResponses is how many responses may come before a tagged reply.
const maxResponses = 100

// IMAPReply reads up to the reply with the given tag, and returns what is behind
// the tag. The responses before it are handed to untagged, unless that is nil;
// where there are too many, it returns ErrOutOfStep.
func (r *LineReader) IMAPReply(tag string, untagged func(response []byte)) (reply []byte, err error) {
	for range maxResponses {
		response, err := r.IMAPResponse()
		if err != nil {
			return nil, err
		}
		if reply, ok := bytes.CutPrefix(response, []byte(tag+" ")); ok {
			return reply, nil
		}
		if untagged != nil {
			untagged(response)
		}
	}
	return nil, ErrOutOfStep
}
