package mailproto

import (
	"bytes"
	"regexp"
	"slices"
	"strings"

	"postern/internal/text"
)

// Speech is how a client speaks before its login, as a line that holds nothing of what it
// says of itself or of its account, such as
//
//	imap a0000 CAPABILITY STARTTLS TLS CAPABILITY AUTHENTICATE:PLAIN:ir
//
// The listener comes first and, in IMAP, the shape of the first tag: A and a for letters,
// the digits at its end if they begin with 0 or are 1, 10 and so on, and 9 for any other. The
// commands follow in the case in which they were sent, X for one that is not known. Tags
// are taken to count up: ^ is before a command whose tag is the first one again, and ?
// before one with any other tag. LOGIN has the form of its arguments, and AUTHENTICATE and
// AUTH the mechanism, and ir for an initial response. TLS is where TLS begins. The first
// login is the last command.
type Speech struct {
	text []byte
	pop3 bool
	// tls: what comes next is the first inside TLS, after STARTTLS.
	tls, spoken, ended bool
	first, next        []byte // the first tag, and the one behind the last
	space              [maxSpeech + 2*maxShape + 1]byte
}

// maxSpeech is the longest line, and maxShape the longest shape of a tag, in bytes.
const (
	maxSpeech = 160
	maxShape  = 16
)

// NewSpeech begins with what a client has said before TLS, in whole lines and literals.
func NewSpeech(listener string, said []byte) *Speech {
	s := &Speech{pop3: strings.HasPrefix(listener, "pop3")}
	s.text, s.first, s.next = append(s.space[:0:maxSpeech], listener...), s.space[maxSpeech:][:0:maxShape], s.space[maxSpeech+maxShape:][:0]
	for len(said) > 0 {
		line, rest, _ := bytes.Cut(said, crlf[1:])
		line = said[:len(said)-len(rest)]
		s.Line(line)
		lit, _ := LiteralAtEnd(line)
		said = rest[min(lit.Size, len(rest)):]
	}
	s.tls = !strings.HasSuffix(listener, "s")
	return s
}

// Pattern returns the line, empty where the client has said nothing.
func (s *Speech) Pattern() string {
	if s == nil || !s.spoken {
		return ""
	}
	return string(s.text)
}

// Line adds the line that begins a command; a nil Speech takes none.
func (s *Speech) Line(line []byte) {
	if s == nil || s.ended {
		return
	}
	var cmd IMAPCommand
	var ok bool
	if s.pop3 {
		var c POP3Command
		c, ok = ParsePOP3Command(line)
		cmd.Name, cmd.Args = c.Name, c.Args
	} else {
		cmd, ok = ParseIMAPCommand(line)
	}
	if !ok {
		return
	}
	if s.tls {
		s.add(" TLS")
	}
	s.tls, s.spoken = false, true
	s.add(" ", s.tag(cmd.Tag), spelling(cmd.Name))
	switch args := bytes.TrimSpace(cmd.Args); {
	case cmd.Name.Is("LOGIN"):
		s.arguments(cmd.Args)
		s.ended = true
	case cmd.Name.Is("AUTHENTICATE", "AUTH") && len(args) > 0:
		s.add(":", Mechanism(cmd.Name, args))
		if bytes.IndexByte(args, ' ') > 0 {
			s.add(":ir")
		}
		s.ended = true
	case cmd.Name.Is("USER", "PASS", "APOP"):
		s.ended = true
	}
}

// add adds a word, and ends the line where it would be too long.
func (s *Speech) add(parts ...string) {
	for _, p := range parts {
		if s.ended = s.ended || len(s.text)+len(p) > maxSpeech; s.ended {
			return
		}
		s.text = append(s.text, p...)
	}
}

// The commands that are known, and in lower case.
const commands = "CAPABILITY STARTTLS AUTHENTICATE LOGIN ID NOOP LOGOUT ENABLE NAMESPACE CAPA STLS AUTH USER PASS APOP QUIT UTF8 LANG"

var spoken, spokenLower = strings.Fields(commands), strings.Fields(strings.ToLower(commands))

// spelling returns the name of a command, in upper, lower or mixed case.
func spelling(name Keyword) string {
	for i, word := range spoken {
		switch lower := spokenLower[i]; {
		case !name.Is(word):
		case string(name) == word:
			return word
		case string(name) == lower:
			return lower
		default:
			return word[:1] + lower[1:]
		}
	}
	return "X"
}

// tag adds the shape of the first tag, and returns the mark of another one.
func (s *Speech) tag(tag []byte) (mark string) {
	tag = tag[max(0, len(tag)-maxShape):]
	switch {
	case s.pop3:
		return ""
	case len(s.first) == 0:
		s.first = append(s.first, tag...)
		s.text = append(s.text, ' ')
		s.text = appendShape(s.text, tag)
	case bytes.Equal(tag, s.next):
	case bytes.Equal(tag, s.first):
		mark = "^"
	default:
		mark = "?"
	}
	s.next = following(append(s.next[:0], tag...))
	return mark
}

// appendShape appends the shape of a tag.
func appendShape(b, tag []byte) []byte {
	digits := len(tag)
	for digits > 0 && isDigit(tag[digits-1]) {
		digits--
	}
	if n := string(tag[digits:]); !strings.HasPrefix(n, "0") && strings.TrimRight(n, "0") != "1" { // as Thunderbird's
		digits = len(tag)
	}
	for i, c := range tag {
		switch {
		case i >= digits, c == '.', c == '-', c == '_':
		case isDigit(c):
			c = '9'
		case c >= 'a' && c <= 'z':
			c = 'a'
		case c >= 'A' && c <= 'Z':
			c = 'A'
		default:
			c = '*'
		}
		b = append(b, c)
	}
	return b
}

func isDigit(c byte) bool { return c >= '0' && c <= '9' }

// following counts a tag up by one.
func following(tag []byte) []byte {
	for i := len(tag) - 1; i >= 0 && isDigit(tag[i]); i-- {
		if tag[i]++; tag[i] <= '9' {
			return tag
		}
		if tag[i] = '0'; i == 0 || !isDigit(tag[i-1]) { // 9 becomes 10
			return slices.Insert(tag, i, '1')
		}
	}
	return tag
}

// argument finds one of LOGIN.
var argument = regexp.MustCompile(`"(?:[^"\\]|\\.)*"|\{[0-9]+\+?\}\r?\n|[^ \r\n]+`)

// arguments adds the form of each, up to the first literal.
func (s *Speech) arguments(b []byte) {
	for _, arg := range argument.FindAll(b, 2) {
		switch {
		case arg[0] == '"':
			s.add(":quoted")
		case arg[len(arg)-1] != '\n':
			s.add(":atom")
		default:
			s.add(text.Either(bytes.IndexByte(arg, '+') > 0, ":literal+", ":literal"))
		}
	}
}
