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

const (
	// maxID bounds the arguments of an ID, in bytes.
	maxID = MaxLine + MaxLiterals
	// maxFlushes bounds the synchronizing literals in it: a client may send 30 fields
	// (RFC 2971, Section 3.3).
	maxFlushes = 100
)

// IDFilter reads the arguments of one ID command (RFC 2971, Section 3.1). It
// removes the fields that only a proxy may send, since Dovecot and its kin
// believe what a trusted peer says there; and it finds the name of the mail
// program.
//
// The arguments go in by Add, as they come, and come out of Flush. A server must ask for
// a synchronizing literal before it is sent, so there the filter is flushed: a field that
// ends in one cannot be taken back, and is made meaningless instead.
type IDFilter struct {
	// head is the tag and the name of the command, until they have come out.
	head, args []byte
	// sent is how much of what is kept of the arguments has come out, by so many flushes.
	sent, flushes int
}

// forbiddenID reports whether an ID field is one that only a proxy may send.
func forbiddenID(name []byte) bool { return proxyFields.Match(name) }

var proxyFields = regexp.MustCompile(`(?i)^(x-(originating|connected)-(ip|port)|x-proxy-ttl|x-session-(ext-)?id)$|^x-forward-`)

// NewIDFilter returns the filter of a command; what it lets through begins with
// tag and name, and what it takes is Args and whatever follows.
func NewIDFilter(cmd IMAPCommand) *IDFilter {
	return &IDFilter{head: slices.Concat(cmd.Tag, []byte(" "), cmd.Name)}
}

// Add takes a line, or the octets of the literal in whose header the last line ended.
func (f *IDFilter) Add(p []byte) {
	f.args = append(f.args, p[:min(len(p), maxID+1-len(f.args))]...)
}

// Flush returns what the filter has let through since the last call: after a
// line that ends in the header of a synchronizing literal, and at the end. It returns
// ErrID where that is no ID.
func (f *IDFilter) Flush() ([]byte, error) {
	kept, _, err := readID(f.args)
	if f.flushes++; err != nil || len(f.args) > maxID || f.flushes > maxFlushes {
		return nil, ErrID
	}
	out := append(f.head, kept[f.sent:]...)
	f.head, f.sent = nil, len(kept)
	return out, nil
}

// Software returns the name and the version of the mail program; it is empty
// where the ID names none, is malformed, or has not ended yet.
func (f *IDFilter) Software() string {
	_, software, _ := readID(f.args)
	return software
}

// readID returns what may go in of the arguments of an ID and, where they are whole, the
// software that they name. Where they end in the header of a synchronizing literal, it
// returns the beginning of what it will return once there are more.
func readID(args []byte) (kept []byte, software string, err error) {
	keep := func(tok token) { kept = append(append(kept, tok.gap...), tok.raw...) }
	tok, rest := nextIDToken(args)
	if keep(tok); tok.kind != tokenOpen && !tok.isNIL() {
		return nil, "", ErrID
	}
	var version string
	var gap []byte // before a field that was removed: the next one comes in its place
	for begin := len(kept); tok.kind == tokenOpen; {
		name, behind := nextIDToken(rest)
		if name.kind == tokenClose {
			keep(name)
			rest = behind
			break
		}
		var value token
		if value, rest = nextIDToken(behind); name.kind < tokenAtom || value.kind < tokenAtom && name.kind != tokenSyncHeader {
			return nil, "", ErrID
		}
		if gap != nil {
			name.gap, gap = gap, nil
		}
		switch forbidden := forbiddenID(name.value); {
		case Keyword(name.value).Is("name"):
			software = text.Cut(string(value.value), MaxSoftware)
		case Keyword(name.value).Is("version"):
			version = text.Cut(string(value.value), MaxSoftware)
		case forbidden && max(name.kind, value.kind) < tokenSyncHeader:
			if gap = name.gap; len(gap) == 0 && len(kept) > begin {
				gap = []byte(" ") // or two atoms might become one
			}
			continue
		case forbidden:
			name.raw, value.raw = name.blanked("x", `"x-removed"`), value.blanked(" ", "NIL")
		}
		keep(name)
		if keep(value); name.kind == tokenSyncHeader || value.kind == tokenSyncHeader {
			return kept, "", nil
		}
	}
	if tok, _ = nextIDToken(rest); tok.kind != tokenEnd {
		return nil, "", ErrID
	}
	if software != "" && version != "" {
		software = text.Cut(software+" "+version, MaxSoftware)
	}
	return append(kept, tok.gap...), software, nil
}

var idLiteral = regexp.MustCompile(`^( *)(~?\{[0-9]+\+?\}\r\n)`)

// nextIDToken is nextToken for the arguments of an ID, with their literals.
func nextIDToken(in []byte) (tok token, rest []byte) {
	m := idLiteral.FindSubmatch(in)
	if m == nil {
		if tok, rest = nextToken(in, idArguments); tok.isNIL() {
			tok.value = nil
		}
		return tok, rest
	}
	tok, rest = token{kind: tokenSyncHeader, gap: m[1], raw: m[2]}, in[len(m[0]):]
	lit, _ := LiteralAtEnd(tok.raw)
	if len(rest) <= lit.Size { // a line is behind each
		return tok, nil
	}
	tok.raw, tok.value, rest = in[len(tok.gap):len(m[0])+lit.Size], rest[:lit.Size], rest[lit.Size:]
	if tok.kind = tokenSyncLiteral; !lit.Sync {
		tok.kind = tokenQuoted
	}
	return tok, rest
}

// blanked returns a token that cannot be taken back, a synchronizing literal, filled with
// something else, and another one as something else.
func (t token) blanked(filling, otherwise string) []byte {
	if t.kind < tokenSyncHeader {
		return []byte(otherwise)
	}
	header := t.raw[:len(t.raw)-len(t.value)]
	return slices.Concat(header, bytes.Repeat([]byte(filling), len(t.value)))
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
	for {
		end := size + bytes.IndexByte(b[size:], '\n') + 1
		if end == size {
			return 0, ""
		}
		line := b[size:end]
		switch c := line[0]; {
		case !strictLineEnd(line), size > 0 && c != ' ' && c != ')' && c != '\r': // what came before was no literal
			s.over = true
		case size == 0 && len(line) == len(crlf):
			return end, ""
		case size == 0:
			var ok bool
			cmd, ok = ParseIMAPCommand(line)
			// Behind these may be no line with a command, or the session of somebody else.
			s.over = !ok || cmd.Name.Is("IDLE", "COMPRESS", "LOGIN", "AUTHENTICATE", "UNAUTHENTICATE")
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
		if literal {
			continue
		}
		if cmd.Name.Is("ID") {
			_, software, _ = readID(b[len(cmd.Tag)+len(" ")+len(cmd.Name) : size])
		}
		return size, software
	}
}
