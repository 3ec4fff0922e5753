package main

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// session is one connection of a mail program.
type session struct {
	*recorder
	server   server
	listener string
	conn     net.Conn
	hello    *hello
	in       *bufio.Reader
	out      io.Writer
	lines    []string
	loggedIn bool
	written  bool
}

func newLines(r io.Reader) *bufio.Reader { return bufio.NewReaderSize(r, 64<<10) }

func (s *session) run() {
	defer s.conn.Close()
	defer s.write()
	s.conn.SetDeadline(time.Now().Add(patience))
	s.in, s.out = newLines(s.conn), s.conn
	implicit := strings.HasSuffix(s.listener, "s")
	if implicit && !s.startTLS() {
		return
	}
	if strings.HasPrefix(s.listener, "imap") {
		s.imap(implicit)
	} else {
		s.pop3(implicit)
	}
}

// line notes a line of the dialogue, up to the login.
func (s *session) line(text string) {
	if !s.written {
		s.lines = append(s.lines, text)
	}
}

// escaped is text as it stands in a transcript.
func (s *session) escaped(text []byte) string {
	var b strings.Builder
	for _, c := range []byte(s.replacer.Replace(string(text))) {
		switch {
		case c == '\\':
			b.WriteString(`\\`)
		case c == '\n':
			b.WriteString(`\n`)
		case c < ' ' || c > '~':
			fmt.Fprintf(&b, `\x%02x`, c)
		default:
			b.WriteByte(c)
		}
	}
	return b.String()
}

func (s *session) say(format string, args ...any) {
	text := fmt.Appendf(nil, format, args...)
	for line := range bytes.SplitSeq(bytes.TrimSuffix(text, []byte("\r\n")), []byte("\r\n")) {
		s.line("S: " + s.escaped(line))
	}
	s.out.Write(text)
}

var (
	initialResponse = regexp.MustCompile(`(?i)^(\S+ AUTHENTICATE \S+ |AUTH \S+ )([A-Za-z0-9+/]+=*)$`)
	digest          = regexp.MustCompile(`(?i)^(APOP .+ )[0-9a-f]{32}$`)
	literal         = regexp.MustCompile(`\{(\d+)(\+?)\}$`)
)

// command reads a line, and with it the literals of an IMAP command.
func (s *session) command() ([]byte, bool) {
	var octets, whole []byte
	for {
		line, err := s.in.ReadBytes('\n')
		if err != nil {
			return nil, false
		}
		line = append(octets, bytes.TrimSuffix(line, []byte("\r\n"))...)
		shown := initialResponse.ReplaceAll(line, []byte("${1}BASE64"))
		shown = digest.ReplaceAll(shown, []byte("${1}DIGEST"))
		s.line("C: " + s.escaped(shown))
		line = bytes.TrimSuffix(line, []byte("\n"))
		whole = append(whole, line...)
		size := literal.FindSubmatch(line)
		if size == nil || !strings.HasPrefix(s.listener, "imap") {
			return whole, true
		}
		n, err := strconv.Atoi(string(size[1]))
		if err != nil || n > 64<<10 {
			return nil, false
		}
		if len(size[2]) == 0 {
			s.say("+ OK\r\n")
		}
		octets = make([]byte, n)
		if _, err := io.ReadFull(s.in, octets); err != nil {
			return nil, false
		}
	}
}

// response reads what answers a challenge of SASL.
func (s *session) response() bool {
	line, err := s.in.ReadString('\n')
	switch text := strings.TrimRight(line, "\r\n"); {
	case err != nil:
		return false
	case text == "" || text == "*" || text == "=":
		s.line("C: " + text)
		return text == "="
	}
	s.line("C: BASE64")
	return true
}
