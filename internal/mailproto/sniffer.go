package mailproto

import "bytes"

// maxSniffed is how much of what a client sends behind its login is read, in
// bytes.
const maxSniffed = 8 << 10

// Sniffer reads the commands of an IMAP client behind its login, where many
// mail programs send their ID. It ends with the first ID that names a program,
// and sooner where the commands cannot be followed any more.
type Sniffer struct {
	// left is how much will still be read: nothing once that is over.
	left int
	// part is what has come of a line, or of a literal in an ID.
	part []byte
	// octets are how many of a literal are still to come; inside: after them
	// the command goes on.
	octets int
	inside bool
	// id reads the command under way where it is an ID; message: it may hold a
	// message.
	id      *IDFilter
	message bool
}

// NewSniffer returns a Sniffer for what follows a login.
func NewSniffer() *Sniffer { return &Sniffer{left: maxSniffed} }

// Sniff reads what comes next, and does not keep it. Once the client has named
// its software, more is false, as it is where nothing more will be read.
func (s *Sniffer) Sniff(p []byte) (software string, more bool) {
	p = p[:min(len(p), s.left)]
	s.left -= len(p)
	for more = true; more && len(p) > 0; {
		if s.octets > 0 {
			p = s.readLiteral(p)
		} else {
			software, p, more = s.readLine(p)
		}
	}
	if more = more && s.left > 0; !more {
		s.wipe()
		*s = Sniffer{}
	}
	return software, more
}

// wipe forgets what has been kept of a line or a literal.
func (s *Sniffer) wipe() {
	clear(s.part)
	s.part = nil
}

// readLiteral reads octets, and returns what is behind them.
func (s *Sniffer) readLiteral(p []byte) (rest []byte) {
	n := min(s.octets, len(p))
	if s.id != nil {
		s.part = append(s.part, p[:n]...)
	}
	if s.octets -= n; s.octets == 0 && s.id != nil {
		s.id.Literal(s.part)
		s.wipe()
	}
	return p[n:]
}

// readLine reads a line, or the part of one that there is, and returns what is
// behind it; more is false where that cannot be followed, or need not.
func (s *Sniffer) readLine(p []byte) (software string, rest []byte, more bool) {
	n := bytes.IndexByte(p, '\n') + 1
	if n == 0 {
		s.part = append(s.part, p...)
		return "", nil, true
	}
	line := p[:n]
	if len(s.part) > 0 {
		s.part = append(s.part, line...)
		line = s.part
	}
	software, more = s.line(line)
	s.wipe()
	return software, p[n:], more
}

func (s *Sniffer) line(line []byte) (software string, more bool) {
	args := line
	switch {
	case !strictLineEnd(line):
		return "", false
	case s.inside:
		if c := line[0]; c != ' ' && c != ')' && c != '\r' {
			return "", false // that was no literal
		}
	case len(line) == len(crlf):
		return "", true
	default:
		cmd, ok := ParseIMAPCommand(line)
		if !ok || !s.begin(cmd) {
			return "", false
		}
		args = cmd.Args
	}
	lit, literal := LiteralAtEnd(line)
	if literal && (!lit.PlacedIn(line) || lit.Sync && s.message) {
		return "", false
	}
	s.inside, s.octets = literal, lit.Size
	if s.id == nil {
		return "", true
	}
	s.id.Line(args)
	if literal && lit.Size == 0 {
		s.id.Literal(nil)
	}
	if !literal {
		software = s.id.Software()
		s.id = nil
	}
	return software, software == ""
}

// begin begins a command, and reports whether what is behind it can be
// followed: behind some is no line with a command, or the session of somebody
// else. Whether the server accepts a synchronizing literal is for the other
// direction to know: as a rule it does, except for a message, which it may find
// too long.
func (s *Sniffer) begin(cmd IMAPCommand) (ok bool) {
	if cmd.Name.Is("IDLE", "COMPRESS", "LOGIN", "AUTHENTICATE", "UNAUTHENTICATE") {
		return false
	}
	s.id, s.message = nil, cmd.Name.Is("APPEND", "REPLACE", "UID")
	if cmd.Name.Is("ID") {
		s.id = NewIDFilter(cmd)
	}
	return true
}
