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
	out   []byte
	state idState
	// name is that of the field whose value is next, and field what has come of that and
	// is not in out yet; forbidden: it may not go in.
	name      Keyword
	field     []byte
	forbidden bool
	// sent: the header of a synchronizing literal in it has gone in.
	sent bool
	// gap is the one before that field. removed: it was taken out, and the next field
	// comes in its place. kept: one before it was not.
	gap           []byte
	removed, kept bool
	// literal is the one whose octets are next.
	literal token

	program, version string
}

// idState is what an IDFilter waits for.
type idState uint8

const (
	idBegin idState = iota
	idName          // or the end of the list
	idValue
	idEnded
	idBroken
)

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
	tok, rest := nextToken(text, idArguments)
	for ; tok.kind != tokenEnd; tok, rest = nextToken(rest, idArguments) {
		f.token(tok)
	}
	switch {
	case more && lit.Sync:
		f.token(token{kind: tokenSyncHeader, gap: tok.gap, raw: header})
		f.literal = token{kind: tokenSyncLiteral}
	case more:
		f.literal = token{kind: tokenQuoted, gap: bytes.Clone(tok.gap), raw: bytes.Clone(header)}
	case f.state != idEnded:
		f.state = idBroken
	default:
		f.out = append(f.out, tok.gap...)
	}
}

// Literal takes the octets of the literal in whose header the last line ended.
func (f *IDFilter) Literal(octets []byte) {
	tok := f.literal
	tok.raw, tok.value = append(tok.raw, octets...), octets
	f.token(tok)
}

func (f *IDFilter) token(tok token) {
	if f.removed && tok.kind != tokenClose {
		tok.gap, f.removed = f.gap, false
	}
	switch {
	case f.state == idBegin && tok.kind == tokenOpen:
		f.state = idName
	case f.state == idBegin && tok.isNIL(), f.state == idName && tok.kind == tokenClose:
		f.state = idEnded
	case f.state != idName && f.state != idValue, tok.kind < tokenAtom, len(tok.raw) > MaxLine+MaxLiterals-len(f.out):
		f.state = idBroken
		return
	case tok.kind == tokenSyncHeader:
		if f.state == idValue && f.forbidden && !f.sent {
			f.field = slices.Concat(f.gap, []byte(placeholder))
		}
		f.sent = true
	case f.state == idName:
		f.state, f.name, f.gap, f.forbidden = idValue, bytes.Clone(tok.value), bytes.Clone(tok.gap), forbiddenID(tok.value)
		if f.forbidden && f.sent {
			tok.raw = bytes.Repeat([]byte("x"), len(tok.raw))
		}
		f.field = slices.Concat(tok.gap, tok.raw)
		return
	default:
		f.endField(&tok)
	}
	f.out = append(append(append(f.out, f.field...), tok.gap...), tok.raw...)
	f.field = nil
}

// endField takes a value. One that is forbidden goes, and its field with it; or becomes
// meaningless, where that cannot be taken back.
func (f *IDFilter) endField(tok *token) {
	software := ""
	if !tok.isNIL() {
		software = text.Cut(string(tok.value), MaxSoftware)
	}
	switch {
	case f.name.Is("name"):
		f.program = software
	case f.name.Is("version"):
		f.version = software
	case f.forbidden && !f.sent:
		if f.kept && len(f.gap) == 0 {
			f.gap = []byte(" ") // or two atoms might become one
		}
		f.field, f.removed, tok.gap, tok.raw = nil, true, nil, nil
	case f.forbidden && tok.kind == tokenSyncLiteral:
		tok.raw = bytes.Repeat([]byte(" "), len(tok.raw))
	case f.forbidden:
		tok.raw = []byte("NIL")
	}
	f.state, f.sent, f.kept = idName, false, f.kept || !f.removed
}

// Flush returns what the filter has let through since the last call: after a
// line that ends in the header of a synchronizing literal, after the literal,
// and at the end. It returns ErrID where that is no ID.
func (f *IDFilter) Flush() ([]byte, error) {
	if f.state == idBroken {
		return nil, ErrID
	}
	out := f.out
	f.out = nil
	return out, nil
}

// Software returns the name and the version of the mail program; it is empty
// where the ID names none, is malformed, or has not ended yet.
func (f *IDFilter) Software() string {
	switch {
	case f.state != idEnded:
		return ""
	case f.program == "" || f.version == "":
		return f.program
	}
	return text.Cut(f.program+" "+f.version, MaxSoftware)
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
