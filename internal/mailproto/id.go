package mailproto

import (
	"bytes"
	"errors"
	"slices"
	"strings"
)

// ErrID is an ID command whose arguments are malformed.
var ErrID = errors.New("malformed ID")

// MaxSoftware is where the name of a mail program is cut, in bytes.
const MaxSoftware = 128

// IDFilter reads the arguments of one ID command (RFC 2971, Section 3.1). It
// removes the fields that only a proxy may send, since Dovecot and its kin
// believe what a trusted peer says there; and it finds the name of the mail
// program.
//
// The arguments go in by Line and Literal, in the order in which they come, and
// come out of Flush. A server must ask for a synchronizing literal before it is
// sent, so there the filter is flushed: a field that ends in one cannot be taken
// back, and is made meaningless instead.
type IDFilter struct {
	out []byte
	// name is the name of the field under way, with the space before it, until
	// its value is there or it is flushed.
	name []byte
	// gap and header stand before the literal that is next, where that is one
	// without synchronization.
	gap, header []byte

	begun, ended, broken bool
	value                bool // a value is next
	forbidden            bool // and it belongs to a forbidden field
	first                bool // out ends in the parenthesis that begins the list
	trim                 bool // the first field was removed: no space before the next

	// field is where the value is kept, if at all.
	field            *string
	program, version string
}

// forbiddenID reports whether an ID field is one that only a proxy may send.
func forbiddenID(name string) bool {
	switch name = strings.ToLower(name); name {
	case "x-originating-ip", "x-originating-port", "x-connected-ip", "x-connected-port",
		"x-proxy-ttl", "x-session-id", "x-session-ext-id":
		return true
	}
	return strings.HasPrefix(name, "x-forward-")
}

// placeholder stands for a forbidden name whose value cannot be taken back.
const placeholder = `"x-removed"`

// NewIDFilter returns the filter of a command; what it lets through begins with
// tag and name, and what it takes is Args and whatever follows.
func NewIDFilter(cmd IMAPCommand) *IDFilter {
	return &IDFilter{out: slices.Concat(cmd.Tag, []byte(" "), cmd.Name)}
}

// Line takes a line.
func (f *IDFilter) Line(line []byte) {
	lit, more := LiteralAtEnd(line)
	text, header := line[:len(line)-lit.Header], line[len(line)-lit.Header:]
	for !f.broken {
		gap, tok, rest, ok := nextIDToken(text)
		if tok.raw != nil {
			f.token(gap, tok)
			text = rest
			continue
		}
		switch {
		case !ok:
			f.broken = true
		case !more:
			f.broken = !f.ended
			f.out = append(f.out, gap...)
		case lit.Sync:
			f.announce(gap, header)
		default:
			f.gap, f.header = bytes.Clone(gap), bytes.Clone(header)
		}
		return
	}
}

// announce takes the header of a synchronizing literal.
func (f *IDFilter) announce(gap, header []byte) {
	switch {
	case !f.begun, f.ended:
		f.broken = true
		return
	case f.trim:
		gap, f.trim = nil, false
	}
	if f.name != nil && f.forbidden {
		if f.name = nil; !f.first {
			f.name = append(f.name, ' ')
		}
		f.name = append(f.name, placeholder...)
	}
	f.out = slices.Concat(f.out, f.name, gap, header)
	f.name = nil
}

// Literal takes the octets of the literal whose header ended the last line.
func (f *IDFilter) Literal(octets []byte) {
	if f.broken {
		return
	}
	if f.header != nil {
		raw := slices.Concat(f.header, octets)
		f.token(f.gap, idToken{raw: raw, value: raw[len(f.header):]})
		f.gap, f.header = nil, nil
		return
	}
	substitute, isName := " ", !f.value
	if isName {
		substitute = "x"
		f.beginField(octets)
	}
	if f.forbidden {
		f.out = append(f.out, strings.Repeat(substitute, len(octets))...)
	} else {
		f.out = append(f.out, octets...)
	}
	if !isName {
		f.endField(octets)
	}
}

// token takes a token, and the spaces before it.
func (f *IDFilter) token(gap []byte, tok idToken) {
	if f.trim {
		gap, f.trim = nil, false
	}
	raw := tok.raw
	switch c := raw[0]; {
	case len(raw) > MaxLine+MaxLiterals-len(f.out):
		f.broken = true
	case !f.begun && (c == '(' || Keyword(raw).Is("NIL")):
		f.begun, f.ended, f.first = true, c != '(', true
	case !f.begun, f.ended, c == '(', c == ')' && f.value:
		f.broken = true
	case c == ')':
		f.ended = true
	case !f.value:
		f.beginField(tok.value)
		f.name = slices.Concat(gap, raw)
		return
	case f.forbidden && f.name != nil:
		f.endField(nil)
		f.name, f.trim = nil, f.first
		return
	default:
		if f.forbidden { // its name has been flushed
			raw = []byte("NIL")
		}
		f.endField(tok.value)
		f.out, f.name, f.first = append(f.out, f.name...), nil, false
	}
	f.out = append(append(f.out, gap...), raw...)
}

func (f *IDFilter) beginField(name Keyword) {
	f.value, f.forbidden = true, forbiddenID(string(name))
	switch {
	case name.Is("name"):
		f.field = &f.program
	case name.Is("version"):
		f.field = &f.version
	default:
		f.field = nil
	}
}

func (f *IDFilter) endField(value []byte) {
	if f.field != nil {
		*f.field = cutText(value, MaxSoftware)
	}
	f.value, f.forbidden = false, false
}

// Flush returns what the filter has let through since the last call: after a
// line that ends in the header of a synchronizing literal, after the literal,
// and at the end. It returns ErrID where that is no ID.
func (f *IDFilter) Flush() ([]byte, error) {
	if f.broken {
		return nil, ErrID
	}
	out := f.out
	f.out, f.first = nil, false
	return out, nil
}

// Software returns the name and the version of the mail program; it is empty
// where the ID names none, is malformed, or has not ended yet.
func (f *IDFilter) Software() string {
	switch {
	case f.broken || !f.ended:
		return ""
	case f.program == "" || f.version == "":
		return f.program
	}
	return cutText([]byte(f.program+" "+f.version), MaxSoftware)
}

// cutText cuts between characters.
func cutText(b []byte, n int) string {
	if len(b) <= n {
		return string(b)
	}
	return strings.ToValidUTF8(string(b[:n]), "")
}

// idToken is a parenthesis, a name or a value: as it stands, and what it means;
// a value that is NIL means nothing.
type idToken struct{ raw, value []byte }

// nextIDToken splits the next token off, with the spaces before it: a
// parenthesis, a quoted string, or a run of other characters. There is none at
// the end of the text, where the gap is what is left, and where a quoted string
// is malformed, which is not ok.
func nextIDToken(in []byte) (gap []byte, tok idToken, rest []byte, ok bool) {
	n := len(in) - len(bytes.TrimLeft(in, " "))
	gap, rest = in[:n], in[n:]
	switch {
	case len(rest) == 0 || rest[0] == '\r':
		return in, idToken{}, nil, true
	case rest[0] == '(' || rest[0] == ')':
		return gap, idToken{raw: rest[:1]}, rest[1:], true
	case rest[0] == '"':
		value, size, ok := unquote(rest)
		if !ok {
			return nil, idToken{}, nil, false
		}
		return gap, idToken{rest[:size], value}, rest[size:], true
	}
	size := bytes.IndexAny(rest, " ()\"\r")
	if size < 0 {
		size = len(rest)
	}
	if tok.raw = rest[:size]; !Keyword(tok.raw).Is("NIL") {
		tok.value = tok.raw
	}
	return gap, tok, rest[size:], true
}
