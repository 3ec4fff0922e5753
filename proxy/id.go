package proxy

import (
	"bytes"
	"errors"
	"strings"
)

// A client must not be able to say where it comes from: Dovecot and its kin
// believe what a trusted peer puts into an ID before login, and the gate is
// such a peer.

// forbiddenID reports whether an ID field is one that only a proxy may send.
func forbiddenID(key string) bool {
	switch key = strings.ToLower(key); key {
	case "x-originating-ip", "x-originating-port", "x-connected-ip", "x-connected-port",
		"x-proxy-ttl", "x-session-id", "x-session-ext-id":
		return true
	}
	return strings.HasPrefix(key, "x-forward-")
}

var errID = errors.New("malformed ID")

// idFilter takes the forbidden fields out of the arguments of one ID command
// (RFC 2971, Section 3.1). They come in pieces, since the upstream must ask for
// each synchronizing literal before it is sent: a field that ends in one cannot
// be taken back, it is made meaningless instead.
type idFilter struct {
	begun, ended bool
	value        bool // a value is next
	drop         bool // and it belongs to a forbidden field
	trim         bool // the first field was taken out: no space before the next
}

// placeholder stands for a forbidden name whose value has yet to come.
const placeholder = `"x-removed"`

// text filters a piece of the arguments: whole tokens, non-synchronizing
// literals with their octets among them. Where sync is set, the {n} of a
// synchronizing literal is the last of it.
func (f *idFilter) text(in []byte, sync bool) ([]byte, error) {
	out := make([]byte, 0, len(in))
	name := -1 // where in out the name begins whose value is next
	open := -1 // where in out the first name may begin
	for {
		gap, tok, rest, err := idToken(in)
		if err != nil {
			return nil, err
		}
		if tok.raw == nil {
			out = append(out, gap...)
			break
		}
		in = rest
		if f.trim && f.begun {
			gap, f.trim = nil, false
		}
		switch c := tok.raw[0]; {
		case !f.begun && (c == '(' || equalFold(tok.raw, "NIL")):
			f.begun, f.ended = true, c != '('
		case !f.begun, f.ended, c == '(', c == ')' && f.value:
			return nil, errID
		case c == ')':
			f.ended = true
		case sync && len(in) == 0:
			if f.value && f.drop && name >= 0 {
				if out = out[:name]; name != open {
					out = append(out, ' ')
				}
				out = append(out, placeholder...)
			}
		case !f.value:
			name = len(out)
			f.value, f.drop = true, forbiddenID(tok.value)
		case f.drop && name >= 0:
			out = out[:name]
			f.value, f.drop = false, false
			f.trim = name == open
			continue
		default:
			if f.drop { // its name is gone upstream already
				tok.raw = []byte("NIL")
			}
			f.value, f.drop = false, false
		}
		if out = append(append(out, gap...), tok.raw...); tok.raw[0] == '(' {
			open = len(out)
		}
	}
	if !sync && !f.ended {
		return nil, errID
	}
	return out, nil
}

// literal filters the octets of a synchronizing literal in place.
func (f *idFilter) literal(octets []byte) {
	if !f.value {
		f.value, f.drop = true, forbiddenID(string(octets))
		if f.drop {
			fill(octets, 'x')
		}
		return
	}
	if f.drop {
		fill(octets, ' ')
	}
	f.value, f.drop = false, false
}

func fill(b []byte, c byte) {
	for i := range b {
		b[i] = c
	}
}

// idTok is one token: as it stands, and what it means.
type idTok struct {
	raw   []byte
	value string
}

// idToken splits the next token off, with the spaces before it: a parenthesis,
// a quoted string, a literal, or a run of other characters. At the end of the
// piece the token is empty and the gap is what is left.
func idToken(in []byte) (gap []byte, tok idTok, rest []byte, err error) {
	n := len(in) - len(bytes.TrimLeft(in, " "))
	gap, in = in[:n:n], in[n:]
	switch {
	case len(in) == 0 || in[0] == '\r':
		return append(gap, in...), idTok{}, nil, nil
	case in[0] == '(' || in[0] == ')':
		return gap, idTok{raw: in[:1]}, in[1:], nil
	case in[0] == '"':
		value, size, ok := quotedString(in)
		if !ok {
			return nil, idTok{}, nil, errID
		}
		return gap, idTok{in[:size], value}, in[size:], nil
	}
	if end := bytes.IndexByte(in, '\n') + 1; end > 0 {
		if lit, ok := literalAtEnd(in[:end]); ok && lit.header == end && lit.size <= len(in)-end {
			return gap, idTok{in[:end+lit.size], string(in[end : end+lit.size])}, in[end+lit.size:], nil
		}
	}
	size := bytes.IndexAny(in, " ()\"\r")
	if size < 0 {
		size = len(in)
	}
	return gap, idTok{in[:size], string(in[:size])}, in[size:], nil
}
