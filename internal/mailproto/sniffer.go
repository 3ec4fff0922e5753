package mailproto

import "bytes"

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
