package mailproto

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"

	"postern/internal/text"
)

// Dialogue is a client's side of IMAP or POP3, for commands of Postern's own, one at a
// time.
type Dialogue struct {
	*LineReader
	stream io.ReadWriter
	// IMAP: the server has greeted as one of IMAP.
	IMAP bool
}

// NewDialogue begins a dialogue.
func NewDialogue(stream io.ReadWriter) *Dialogue {
	d := &Dialogue{}
	d.Inside(stream)
	return d
}

// Inside goes on in TLS. What came before counts for nothing there.
func (d *Dialogue) Inside(stream io.ReadWriter) {
	// Nothing that it asks for is answered with a literal.
	d.LineReader, d.stream = &LineReader{src: stream, maxLiterals: MaxLine}, stream
}

// Greeting reads the line that a server says first, and returns it with its end.
func (d *Dialogue) Greeting() (string, error) {
	line, err := d.Line()
	d.IMAP = bytes.HasPrefix(line, []byte("* "))
	return string(line), err
}

// Verb is a command of IMAP, or what POP3 has for it.
func (d *Dialogue) Verb(imap, pop3 string) string { return text.Either(d.IMAP, imap, pop3) }

// ErrOutOfStep is a server that answers what it was not asked.
var ErrOutOfStep = errors.New("the server answers what was not asked")

const (
	// tag stands before each command of IMAP.
	tag = "postern "
	// maxResponses is how many lines or responses a reply may have.
	maxResponses = 100
)

// Say sends a command and reads its reply, without the tag and the end of the line. With
// it come the untagged responses of IMAP that precede it, or the lines of CAPA, as far as
// they have come where there is an error.
func (d *Dialogue) Say(command string) (reply string, lines []string, err error) {
	if _, err = io.WriteString(d.stream, d.Verb(tag, "")+command+"\r\n"); err != nil {
		return "", nil, err
	}
	next := d.IMAPResponse
	if !d.IMAP {
		next = d.Line
		first, err := next()
		if reply = string(TrimLineEnd(first)); err != nil || command != "CAPA" || !Positive(reply) {
			return reply, nil, err
		}
	}
	for size := 0; len(lines) < maxResponses && size < MaxLiterals; {
		response, err := next()
		line := string(TrimLineEnd(response))
		switch tagged, last := strings.CutPrefix(line, tag); {
		case err != nil:
			return "", lines, err
		case d.IMAP && last:
			return tagged, lines, nil
		case !d.IMAP && line == ".":
			return reply, lines, nil
		}
		size += len(line)
		lines = append(lines, line)
	}
	return "", lines, ErrOutOfStep
}

// Positive reports whether a reply is OK or +OK.
func Positive(reply string) bool {
	return IsPOP3Status([]byte(strings.TrimPrefix(reply, "+")), "OK")
}

var (
	// ErrNoStartTLS and ErrInjectedReply are why TLS does not begin.
	ErrNoStartTLS    = errors.New("it refuses, or does not know the command")
	ErrInjectedReply = errors.New("the server sent data behind its OK to STARTTLS")
)

// StartTLS asks for TLS by STARTTLS or STLS (RFC 9051, Section 6.2.1; RFC 2595, Section
// 4), with behind in one piece with the command.
func (d *Dialogue) StartTLS(behind string) error {
	reply, _, err := d.Say(d.Verb("STARTTLS", "STLS") + behind)
	switch {
	case err != nil:
		return err
	case !Positive(reply):
		return fmt.Errorf("%w: %.80q", ErrNoStartTLS, reply)
	case len(d.Buffered()) > 0:
		return ErrInjectedReply
	}
	return nil
}
