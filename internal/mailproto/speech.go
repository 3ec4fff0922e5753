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
// the digits at its end if they are 0 to 99 behind a 0, or 1, 10 and so on, and 9 for any
// other; * alone where letters, digits, - and _ are mixed, as only random ones are. The commands
// follow in the case in which they were sent, X for one that is not known. Tags are taken
// to count up: ^ is before a command whose tag is the first one again, and ? before one
// with any other tag. LOGIN has the form of its arguments, and AUTHENTICATE and AUTH the
// mechanism, and ir for an initial response. TLS is where TLS begins. The first login is
// the last command.
type Speech struct {
	text                []byte
	pop3, spoken, ended bool
	first, next         []byte // the first tag, and the one behind the last
}

// maxSpeech is the longest line, and maxShape the longest shape of a tag, in bytes.
const (
	maxSpeech = 160
	maxShape  = 16
)

// NewSpeech begins with what a client has said before TLS, in whole lines and literals.
func NewSpeech(listener string, said []byte) *Speech {
	s := &Speech{text: append(make([]byte, 0, maxSpeech), listener...), pop3: strings.HasPrefix(listener, "pop3")}
	for len(said) > 0 {
		_, rest, _ := bytes.Cut(said, crlf[1:])
		line := said[:len(said)-len(rest)]
		s.Line(line)
		lit, _ := LiteralAtEnd(line)
		said = rest[min(lit.Size, len(rest)):]
	}
	return s
}

// StartTLS adds that TLS begins: what a client has said so far is all that is known of
// one that is refused, but not of one that is let in and then says nothing.
func (s *Speech) StartTLS() { s.add(" TLS") }

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
	cmd, ok := ParseIMAPCommand(line)
	if s.pop3 {
		var c POP3Command
		c, ok = ParsePOP3Command(line)
		cmd = IMAPCommand(c)
	}
	if !ok {
		return
	}
	s.spoken = true
	s.add(" ", s.tag(cmd.Tag), spelling(cmd.Name))
	switch args := bytes.TrimSpace(cmd.Args); {
	case cmd.Name.Is("LOGIN"):
		s.addArguments(cmd.Args)
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

// commands are those that are known.
var commands = strings.Fields("CAPABILITY STARTTLS AUTHENTICATE LOGIN ID NOOP LOGOUT ENABLE NAMESPACE CAPA STLS AUTH USER PASS APOP QUIT UTF8 LANG")

// spelling returns the name of a command, in upper, lower or mixed case.
func spelling(name Keyword) string {
	i := slices.IndexFunc(commands, func(known string) bool { return name.Is(known) })
	if i < 0 {
		return "X"
	}
	word := commands[i]
	if string(name) != word {
		word = strings.ToLower(word)
	}
	if string(name) != word { // in mixed case
		word = commands[i][:1] + word[1:]
	}
	return word
}

// tag adds the shape of the first tag, and returns the mark of another one.
func (s *Speech) tag(tag []byte) (mark string) {
	tag = tag[max(0, len(tag)-maxShape):]
	switch {
	case s.pop3:
		return ""
	case len(s.first) == 0:
		s.first = bytes.Clone(tag)
		s.text = appendShape(append(s.text, ' '), tag)
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
	begin := len(b)
	for _, c := range tag {
		switch {
		case c == '.', c == '-', c == '_':
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
	for _, random := range []string{"9A", "9a", "aA", "AAa", "9-", "9_", "-A", "-a", "_A", "_a"} {
		if bytes.Contains(b[begin:], []byte(random)) {
			return append(b[:begin], strings.Repeat("*", len(tag))...)
		}
	}
	digits := len(bytes.TrimRight(tag, "0123456789"))
	n := string(tag[digits:])
	value := strings.TrimLeft(n, "0")
	if n != value && len(value) <= 2 || strings.TrimRight(n, "0") == "1" { // others are random, as Thunderbird's
		copy(b[begin+digits:], n)
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

// loginArgument is an argument of LOGIN behind a space, with a quoted string in a group:
// one with any escapes, and maybe without its end, as some programs send passwords.
var loginArgument = regexp.MustCompile(`(?s) (?:("(?:[^"\\]|\\.)*(?:"|\\?$))|[^ "])[^ ]*`)

// addArguments adds the form of each argument of LOGIN, up to the first literal.
func (s *Speech) addArguments(b []byte) {
	lit, isLiteral := LiteralAtEnd(b)
	for _, form := range loginArgument.FindAllSubmatch(bytes.TrimRight(b[:len(b)-lit.Header], " \r\n"), maxSpeech) {
		s.add(text.Either(form[1] != nil, ":quoted", ":atom"))
	}
	if isLiteral {
		s.add(text.Either(lit.Sync, ":literal", ":literal+"))
	}
}
