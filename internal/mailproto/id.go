package mailproto

import (
	"bytes"
	"errors"
	"regexp"
	"slices"

	"postern/internal/text"
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
	// literal is the header of the literal that is next.
	literal idToken

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
func forbiddenID(name []byte) bool { return proxyFields.Match(name) }

var proxyFields = regexp.MustCompile(`(?i)^(x-(originating|connected)-(ip|port)|x-proxy-ttl|x-session-(ext-)?id)$|^x-forward-`)

// placeholder stands for a forbidden name whose value cannot be taken back.
const placeholder = `"x-removed"`

// NewIDFilter returns the filter of a command; what it lets through begins with
// tag and name, and what it takes is Args and whatever follows.
func NewIDFilter(cmd IMAPCommand) *IDFilter {
	return &IDFilter{out: slices.Concat(cmd.Tag, []byte(" "), cmd.Name)}
}

// Line takes a line, with the header of a literal that it may end in.
func (f *IDFilter) Line(line []byte) {
	lit, more := LiteralAtEnd(line)
	text, header := line[:len(line)-lit.Header], line[len(line)-lit.Header:]
	tok, rest := nextIDToken(text)
	for ; tok.kind != idEnd; tok, rest = nextIDToken(rest) {
		f.token(tok)
	}
	switch {
	case !more:
		f.broken = f.broken || !f.ended
		f.out = append(f.out, tok.gap...)
	case lit.Sync:
		f.token(idToken{kind: idSyncHeader, gap: tok.gap, raw: header})
		f.literal = idToken{kind: idSyncLiteral}
	default:
		f.literal = idToken{kind: idQuoted, gap: bytes.Clone(tok.gap), raw: bytes.Clone(header)}
	}
}

// Literal takes the octets of the literal in whose header the last line ended.
func (f *IDFilter) Literal(octets []byte) {
	tok := f.literal
	tok.raw = append(tok.raw, octets...)
	tok.value = tok.raw[len(tok.raw)-len(octets):]
	f.token(tok)
}

func (f *IDFilter) token(tok idToken) {
	if f.trim {
		tok.gap, f.trim = nil, false
	}
	switch {
	case !f.broken && !f.begun && (tok.kind == idOpen || tok.isNIL()):
		f.begun, f.ended, f.first = true, tok.kind != idOpen, true
	case !f.begun, f.ended, tok.kind == idMalformed, tok.kind == idOpen, tok.kind == idClose && f.value,
		f.broken, len(tok.raw) > MaxLine+MaxLiterals-len(f.out):
		f.broken = true
		return
	case tok.kind == idClose:
		f.ended = true
	case tok.kind == idSyncHeader:
		if f.name != nil && f.forbidden {
			f.name = []byte(" " + placeholder)
			if f.first {
				f.name = f.name[1:]
			}
		}
		f.out, f.name, f.first = append(f.out, f.name...), nil, false
	case !f.value:
		f.beginField(tok.value)
		switch {
		case tok.kind != idSyncLiteral:
			f.name = slices.Concat(tok.gap, tok.raw)
			return
		case f.forbidden:
			tok.raw = bytes.Repeat([]byte("x"), len(tok.raw))
		}
	case f.forbidden && f.name != nil:
		f.endField(tok)
		f.name, f.trim = nil, f.first
		return
	default:
		switch { // where it is forbidden, its name has been flushed
		case f.forbidden && tok.kind == idSyncLiteral:
			tok.raw = bytes.Repeat([]byte(" "), len(tok.raw))
		case f.forbidden:
			tok.raw = []byte("NIL")
		}
		f.endField(tok)
		f.out, f.name, f.first = append(f.out, f.name...), nil, false
	}
	f.out = append(append(f.out, tok.gap...), tok.raw...)
}

func (f *IDFilter) beginField(name Keyword) {
	f.value, f.forbidden, f.field = true, forbiddenID(name), nil
	switch {
	case name.Is("name"):
		f.field = &f.program
	case name.Is("version"):
		f.field = &f.version
	}
}

func (f *IDFilter) endField(tok idToken) {
	if f.field != nil {
		*f.field = ""
		if !tok.isNIL() {
			*f.field = text.Cut(string(tok.value), MaxSoftware)
		}
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
	return text.Cut(f.program+" "+f.version, MaxSoftware)
}

// idToken is a part of the arguments: the spaces before it, how it stands there,
// and what it means.
type idToken struct {
	kind            idTokenKind
	gap, raw, value []byte
}

type idTokenKind uint8

const (
	idEnd idTokenKind = iota
	idOpen
	idClose
	idAtom
	idQuoted      // or a literal without synchronization
	idSyncHeader  // the header of a synchronizing literal
	idSyncLiteral // its octets
	idMalformed
)

func (t idToken) isNIL() bool { return t.kind == idAtom && Keyword(t.raw).Is("NIL") }

// nextIDToken splits the next token off. Of the end of the text the gap is what
// is left.
func nextIDToken(in []byte) (tok idToken, rest []byte) {
	text := bytes.TrimLeft(in, " ")
	tok.gap = in[:len(in)-len(text)]
	if len(text) == 0 || text[0] == '\r' {
		return idToken{gap: in}, nil
	}
	size := 1
	switch text[0] {
	case '(':
		tok.kind = idOpen
	case ')':
		tok.kind = idClose
	case '"':
		var ok bool
		if tok.value, size, ok = unquote(text); !ok {
			return idToken{kind: idMalformed}, nil
		}
		tok.kind = idQuoted
	default:
		if size = bytes.IndexAny(text, " ()\"\r"); size < 0 {
			size = len(text)
		}
		tok.kind, tok.value = idAtom, text[:size]
	}
	tok.raw = text[:size]
	return tok, text[size:]
}

// maxSniffed is how much of what a client sends behind its login is read, in
// bytes.
const maxSniffed = 8 << 10

// Sniffer reads the commands of an IMAP client behind its login, where many
// mail programs send their ID. It ends with the first ID that names a program,
// and sooner where the commands cannot be followed any more.
type Sniffer struct {
	// left is how much may still be read.
	left int
	over bool
	// part is what has come of the command under way.
	part []byte
}

// NewSniffer returns a Sniffer for what follows a login.
func NewSniffer() *Sniffer { return &Sniffer{left: maxSniffed} }

// Sniff reads what comes next, and does not keep p. Once the client has named
// its software, more is false, as it is where nothing more will be read.
func (s *Sniffer) Sniff(p []byte) (software string, more bool) {
	p = p[:min(len(p), s.left)]
	s.left -= len(p)
	s.part = append(s.part, p...)
	read := 0
	for size := 1; size > 0 && software == "" && !s.over; read += size {
		size, software = s.readCommand(s.part[read:])
	}
	left := copy(s.part, s.part[read:])
	clear(s.part[left:])
	if s.part = s.part[:left]; left == 0 {
		s.part = nil
	}
	if s.over || software != "" || s.left == 0 {
		clear(s.part)
		*s = Sniffer{over: true}
	}
	return software, !s.over
}

// readCommand reads the first command in b, and returns its size, or zero where
// it has not come whole, and the software that it names. It is over where the
// command, or what is behind it, cannot be followed.
func (s *Sniffer) readCommand(b []byte) (size int, software string) {
	var cmd IMAPCommand
	var id *IDFilter
	for {
		end := size + bytes.IndexByte(b[size:], '\n') + 1
		if end == size {
			return 0, ""
		}
		line := b[size:end]
		args := line
		switch c := line[0]; {
		case !strictLineEnd(line), size > 0 && c != ' ' && c != ')' && c != '\r': // what came before was no literal
			s.over = true
		case size == 0 && len(line) == len(crlf):
			return end, ""
		case size == 0:
			var ok bool
			cmd, ok = ParseIMAPCommand(line)
			s.over = !ok || unfollowable(cmd)
			if args = cmd.Args; cmd.Name.Is("ID") {
				id = NewIDFilter(cmd)
			}
		}
		lit, literal := LiteralAtEnd(line)
		size = end + lit.Size
		// Whether the server accepts a synchronizing literal is for the other
		// direction to know: as a rule it does, except for a message, which it
		// may find too long.
		if literal && (!lit.PlacedIn(line) || lit.Sync && cmd.Name.Is("APPEND", "REPLACE", "UID") || size > len(b)+s.left) {
			s.over = true
		}
		if s.over || size > len(b) {
			return 0, ""
		}
		if id != nil {
			id.Line(args)
		}
		switch {
		case literal && id != nil:
			id.Literal(b[end:size])
		case id != nil:
			return size, id.Software()
		case !literal:
			return size, ""
		}
	}
}

// unfollowable reports whether what is behind a command may be no line with a
// command, or the session of somebody else.
func unfollowable(cmd IMAPCommand) bool {
	return cmd.Name.Is("IDLE", "COMPRESS", "LOGIN", "AUTHENTICATE", "UNAUTHENTICATE")
}
