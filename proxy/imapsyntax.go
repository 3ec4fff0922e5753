package proxy

import (
	"bytes"
	"strconv"
)

// imapCommand is the first line of a command: tag SP name [SP arguments]
// (RFC 9051, Section 2.2.1). The slices are parts of the line.
type imapCommand struct {
	tag, name []byte
	// args are what follows the name, with the space before it and the CRLF.
	args []byte
}

// parseIMAPCommand takes the strict form only: what a lenient upstream might
// still read as a command, and this function would not, must not be passed on.
func parseIMAPCommand(line []byte) (c imapCommand, ok bool) {
	sp := bytes.IndexByte(line, ' ')
	if sp <= 0 {
		return c, false
	}
	c.tag, line = line[:sp], line[sp+1:]
	end := bytes.IndexAny(line, " \r")
	if end <= 0 {
		return c, false
	}
	c.name, c.args = line[:end], line[end:]
	return c, all(c.tag, isTagChar) && all(c.name, isAtomChar)
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

// literal is the header of a literal at the end of a line (RFC 9051, Section
// 4.3; the form without synchronization is that of RFC 7888).
type literal struct {
	size int
	// sync: whoever sends it waits for a continuation request first.
	sync bool
	// header is the length of the header, CRLF included.
	header int
}

// literalAtEnd finds a literal's header at the end of line. A size that is no
// number of sane length is taken for one that is too long.
func literalAtEnd(line []byte) (literal, bool) {
	end := len(line) - len(lineEnd(line))
	if end == len(line) || end < 3 || line[end-1] != '}' {
		return literal{}, false
	}
	open := bytes.LastIndexByte(line[:end], '{')
	if open < 0 {
		return literal{}, false
	}
	digits, plus := bytes.CutSuffix(line[open+1:end-1], []byte("+"))
	if len(digits) == 0 || !all(digits, func(c byte) bool { return c >= '0' && c <= '9' }) {
		return literal{}, false
	}
	if open > 0 && line[open-1] == '~' { // literal8
		open--
	}
	size, err := strconv.Atoi(string(digits))
	if err != nil || size > maxLiterals {
		size = maxLiterals + 1
	}
	return literal{size: size, sync: !plus, header: len(line) - open}, true
}

// literalPlaced reports whether the header at the end of a client's line is
// where a literal can be: after a space or a parenthesis, outside of quoted
// strings. Elsewhere an upstream might take it for text, and what follows for
// the next command.
func literalPlaced(line []byte, lit literal) bool {
	text := line[:len(line)-lit.header]
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
		_, size, ok := quotedString(text[i:])
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

// quotedString reads the quoted string at the start of b: its value and its
// length with the quotes.
func quotedString(b []byte) (value string, size int, ok bool) {
	v, size, ok := unquote(b)
	return string(v), size, ok
}

// unquote is quotedString with a value that is a part of b, unless there was
// anything to unescape.
func unquote(b []byte) (value []byte, size int, ok bool) {
	escaped := false
	for i := 1; i < len(b); i++ {
		switch b[i] {
		case '"':
			if value = b[1:i]; escaped {
				value = unescape(value)
			}
			return value, i + 1, true
		case '\r', '\n':
			return nil, 0, false
		case '\\':
			if i++; i == len(b) || b[i] != '"' && b[i] != '\\' {
				return nil, 0, false
			}
			escaped = true
		}
	}
	return nil, 0, false
}

// unescape takes the backslashes out that stand before other characters.
func unescape(b []byte) []byte {
	v := make([]byte, 0, len(b))
	for i := 0; i < len(b); i++ {
		if b[i] == '\\' {
			i++
		}
		v = append(v, b[i])
	}
	return v
}

// nextArgument splits an atom or a quoted string off the arguments of a
// command, with the spaces before it; none is ok at the end, or where it is
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
