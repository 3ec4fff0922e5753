package proxy

import (
	"bytes"
	"io"
)

// Many mail programs say only behind their login what they are. So in a session
// whose client is to be known, and has not said it yet, the first commands are
// read along: what is copied is neither changed nor held, and goes upstream
// before it is looked at. It ends with the first ID that names a program, and
// sooner where the commands cannot be followed any more.

// maxOverheard is how much of what a client says behind its login is read
// along, in bytes.
const maxOverheard = 8 << 10

// overhearing is a writer to the upstream that reads along.
type overhearing struct {
	to       io.Writer
	observer Observer
	login    *Login

	// left is how much is still read along: nothing once that is over.
	left int
	// part is what has come of a line, or of a literal in an ID.
	part []byte
	// octets are how many of a literal are still to come; inside: after them
	// the command goes on.
	octets int
	inside bool
	// id reads the command under way where it is an ID; message: it may hold a
	// message.
	id      *idReader
	message bool
}

// sniffs reports whether it is of use to read along behind a login.
func (s *session) sniffs(login *Login) bool {
	return s.identified() && s.Listener.Protocol() == ProtocolIMAP && login.Software == ""
}

func newSniffer(s *session, login *Login) *overhearing {
	return &overhearing{to: s.upstream, observer: s.srv.cfg.Observer, login: login, left: maxOverheard}
}

func (o *overhearing) Write(p []byte) (int, error) {
	n, err := o.to.Write(p)
	if o.left > 0 {
		o.read(p[:n])
	}
	return n, err
}

// read reads what comes next of the client's commands.
func (o *overhearing) read(p []byte) {
	p = p[:min(len(p), o.left)]
	o.left -= len(p)
	for ok := true; ok && len(p) > 0; {
		if o.octets > 0 {
			p = o.literal(p)
		} else if p, ok = o.line(p); !ok {
			o.left = 0
		}
	}
	if o.left == 0 {
		o.stop()
	}
}

// stop reads no further.
func (o *overhearing) stop() {
	clear(o.part)
	*o = overhearing{to: o.to}
}

// literal reads octets, and returns what is behind them.
func (o *overhearing) literal(p []byte) (rest []byte) {
	n := min(o.octets, len(p))
	if o.id != nil {
		o.part = append(o.part, p[:n]...)
	}
	if o.octets -= n; o.octets == 0 && o.id != nil {
		o.id.octets(o.part)
		o.forget()
	}
	return p[n:]
}

// line reads a line, or the part of one that there is, and returns what is
// behind it; ok is false where that is not to be read.
func (o *overhearing) line(p []byte) (rest []byte, ok bool) {
	n := bytes.IndexByte(p, '\n') + 1
	if n == 0 {
		o.part = append(o.part, p...)
		return nil, true
	}
	line := p[:n]
	if len(o.part) > 0 {
		o.part = append(o.part, line...)
		line = o.part
	}
	ok = o.whole(line)
	o.forget()
	return p[n:], ok
}

// forget wipes what has been kept of a line or a literal.
func (o *overhearing) forget() {
	clear(o.part)
	o.part = nil
}

// whole reads a whole line; more is false where what follows cannot be followed,
// or need not.
func (o *overhearing) whole(line []byte) (more bool) {
	args := line
	switch {
	case !strictLineEnd(line):
		return false
	case o.inside:
		if c := line[0]; c != ' ' && c != ')' && c != '\r' {
			return false // that was no literal
		}
	case len(line) == len(crlf):
		return true
	default:
		cmd, ok := parseIMAPCommand(line)
		if !ok || !o.begin(cmd.name) {
			return false
		}
		args = cmd.args
	}
	lit, literal := literalAtEnd(line)
	if literal && (!literalPlaced(line, lit) || lit.sync && o.message) {
		return false
	}
	o.inside, o.octets = literal, lit.size
	if o.id == nil {
		return true
	}
	o.id.text(args)
	if literal && lit.size == 0 {
		o.id.octets(nil)
	}
	return literal || !o.told()
}

// begin begins a command, and reports whether what is behind it can be
// followed: behind some is no line with a command, or the session of somebody
// else. Whether the upstream takes a synchronizing literal is for the other
// direction to know: it does, as a rule, but for a message, which it may find too
// long.
func (o *overhearing) begin(name []byte) (ok bool) {
	is := func(s string) bool { return equalFold(name, s) }
	switch {
	case is("IDLE"), is("COMPRESS"), is("LOGIN"), is("AUTHENTICATE"), is("UNAUTHENTICATE"):
		return false
	}
	o.id, o.message = nil, is("APPEND") || is("REPLACE") || is("UID")
	if is("ID") {
		o.id = new(idReader)
	}
	return true
}

// told tells the observer what an ID has named, if it has.
func (o *overhearing) told() bool {
	software := o.id.software()
	if o.id = nil; software == "" {
		return false
	}
	o.observer.Software(&Software{Conn: o.login.Conn, Account: o.login.Account, Software: software})
	return true
}
