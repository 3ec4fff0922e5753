package demo

import (
	"bufio"
	"bytes"
	"crypto/subtle"
	"errors"
	"fmt"
	"net"
	"net/textproto"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

const (
	// The least that RFC 1939, section 3, allows a server that logs out idle
	// clients.
	pop3ReadTimeout = 10 * time.Minute
	// How long a client may leave its side unread.
	pop3WriteTimeout = 30 * time.Second

	// RFC 2449, section 4, with the CRLF.
	maxCommandLine = 255
)

const pop3Capabilities = "TOP\r\nUIDL\r\nUSER\r\nRESP-CODES\r\nAUTH-RESP-CODE\r\nPIPELINING\r\n" +
	"IMPLEMENTATION Postern-demo\r\n"

func servePOP3(l net.Listener, drops map[string]*maildrop) {
	for {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			defer conn.Close()
			newPOP3(conn, drops).run()
		}()
	}
}

// A pop3Session is one connection. Its state is AUTHORIZATION while drop is
// nil, TRANSACTION after (RFC 1939, section 3).
type pop3Session struct {
	conn  net.Conn
	r     *bufio.Reader
	w     *bufio.Writer
	drops map[string]*maildrop

	user    string // what a USER in the line before said
	drop    *maildrop
	view    []message       // the maildrop as it was at login
	deleted map[string]bool // by unique id
	done    bool
}

func newPOP3(conn net.Conn, drops map[string]*maildrop) *pop3Session {
	return &pop3Session{
		conn:  conn,
		r:     bufio.NewReaderSize(conn, maxCommandLine),
		w:     bufio.NewWriter(deadlineWriter{conn}),
		drops: drops,
	}
}

// deadlineWriter gives every write its own deadline.
type deadlineWriter struct{ net.Conn }

func (d deadlineWriter) Write(b []byte) (int, error) {
	d.SetWriteDeadline(time.Now().Add(pop3WriteTimeout))
	return d.Conn.Write(b)
}

// run greets and answers until QUIT, an unreadable line, or the end of the
// connection. An end without QUIT deletes nothing (RFC 1939, section 6).
func (s *pop3Session) run() {
	s.ok("Postern demo mailbox ready")
	for !s.done {
		line, err := s.readLine()
		switch {
		case errors.Is(err, bufio.ErrBufferFull):
			s.fail("line too long")
		case err != nil:
			s.done = true
		default:
			s.command(line)
		}
	}
	// The peer may be gone, and nobody is left to tell.
	_ = s.w.Flush()
}

// readLine returns the next line without its end, or bufio.ErrBufferFull for a
// line over maxCommandLine, which it throws away: to answer and close with bytes
// unread would be a reset, which overtakes the answer. It holds replies back
// only while a whole further line is there already, so that pipelined commands
// are answered in few segments and nobody waits for what is in the buffer.
func (s *pop3Session) readLine() (string, error) {
	if buffered, _ := s.r.Peek(s.r.Buffered()); !bytes.ContainsRune(buffered, '\n') {
		if err := s.w.Flush(); err != nil {
			return "", err
		}
	}
	s.conn.SetReadDeadline(time.Now().Add(pop3ReadTimeout))
	line, err := s.r.ReadSlice('\n')
	tooLong := err == bufio.ErrBufferFull
	for err == bufio.ErrBufferFull {
		_, err = s.r.ReadSlice('\n')
	}
	if tooLong && err == nil {
		err = bufio.ErrBufferFull
	}
	// A lone LF is taken too: people type here, through openssl s_client.
	return strings.TrimSuffix(strings.TrimSuffix(string(line), "\n"), "\r"), err
}

func (s *pop3Session) command(line string) {
	verb, args, _ := strings.Cut(line, " ")
	verb = strings.ToUpper(verb)
	user := s.user
	s.user = "" // PASS follows USER at once or not at all
	switch {
	case strings.ContainsAny(line, "\r\x00"):
		s.fail("control character in line")
	case verb == "QUIT":
		// This is the UPDATE state: here, and only here, messages go for good.
		s.done = true
		if s.drop != nil {
			s.drop.remove(s.deleted)
		}
		s.ok("goodbye")
	case verb == "CAPA":
		s.lines([]byte(pop3Capabilities), "what this server can do")
	case s.drop == nil:
		s.authorization(verb, args, user)
	default:
		s.transaction(verb, args)
	}
}

func (s *pop3Session) transaction(verb, args string) {
	switch verb {
	case "STAT":
		n, size := s.count()
		s.ok("%d %d", n, size)
	case "LIST":
		s.list(args, func(m *message) string { return strconv.Itoa(len(m.text)) })
	case "UIDL":
		s.list(args, func(m *message) string { return m.uid })
	case "RETR":
		if m := s.pick(args); m != nil {
			s.lines(m.text, "%d octets", len(m.text))
		}
	case "TOP":
		s.top(args)
	case "DELE":
		if m := s.pick(args); m != nil {
			s.deleted[m.uid] = true
			s.ok("message deleted")
		}
	case "RSET":
		clear(s.deleted)
		s.ok("nothing is deleted")
	case "NOOP":
		s.ok("still here")
	default:
		s.fail("unknown command, or not after login")
	}
}

// list answers LIST and UIDL, for one message or for all.
func (s *pop3Session) list(args string, say func(*message) string) {
	if args != "" {
		if m := s.pick(args); m != nil {
			s.ok("%s %s", args, say(m))
		}
		return
	}
	n, size := s.count()
	var b bytes.Buffer
	for i, m := range s.view {
		if !s.deleted[m.uid] {
			fmt.Fprintf(&b, "%d %s\r\n", i+1, say(&m))
		}
	}
	s.lines(b.Bytes(), "%d messages (%d octets)", n, size)
}

func (s *pop3Session) top(args string) {
	number, count, _ := strings.Cut(args, " ")
	n, err := parseNumber(count)
	if err != nil {
		s.fail("TOP needs a message number and a number of lines")
		return
	}
	if m := s.pick(number); m != nil {
		s.lines(m.top(n), "top of message follows")
	}
}

// pick finds a message that is not deleted by its number in this session. It
// has answered already where it returns nil.
func (s *pop3Session) pick(arg string) *message {
	n, err := parseNumber(arg)
	if err != nil || n < 1 || n > len(s.view) || s.deleted[s.view[n-1].uid] {
		s.fail("no such message")
		return nil
	}
	return &s.view[n-1]
}

// parseNumber takes digits alone; strconv would take a sign too.
func parseNumber(s string) (int, error) {
	n, err := strconv.ParseUint(s, 10, 31)
	return int(n), err
}

// count leaves deleted messages out (RFC 1939, section 5, STAT).
func (s *pop3Session) count() (n, size int) {
	for _, m := range s.view {
		if !s.deleted[m.uid] {
			n++
			size += len(m.text)
		}
	}
	return n, size
}

func (s *pop3Session) ok(format string, a ...any) { fmt.Fprintf(s.w, "+OK "+format+"\r\n", a...) }

func (s *pop3Session) fail(text string) { fmt.Fprintf(s.w, "-ERR %s\r\n", text) }

// lines sends a reply of several lines (RFC 1939, section 3). The text ends in CRLF or is
// empty. A failed write stays in s.w, and the next flush reports it.
func (s *pop3Session) lines(text []byte, format string, a ...any) {
	w := textproto.NewWriter(s.w).DotWriter()
	fmt.Fprintf(w, "+OK "+format+"\r\n", a...)
	w.Write(text)
	w.Close()
}

// A maildrop is what one account has. RFC 1939, section 4, wants it locked
// while a session is open, as far as that is needed to keep messages from
// changing underneath; here they never change, and each session has its own
// list of them, so several may be open at once.
type maildrop struct {
	password string

	mu       sync.Mutex
	messages []message // replaced, and never changed
}

func (d *maildrop) list() []message {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.messages
}

// remove takes out what one session has deleted, by unique id. What another session
// removed before is gone as well, which is all that was asked for.
func (d *maildrop) remove(deleted map[string]bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.messages = slices.DeleteFunc(slices.Clone(d.messages), func(m message) bool { return deleted[m.uid] })
}

func (s *pop3Session) authorization(verb, args, user string) {
	switch {
	case verb == "USER" && args == "":
		s.fail("USER needs a name")
	case verb == "USER":
		// The same for names that exist and names that do not.
		s.user = args
		s.ok("now the password")
	case verb == "PASS" && user == "":
		s.fail("USER first")
	case verb == "PASS":
		s.login(user, args)
	default:
		s.fail("unknown command, or not before login")
	}
}

func (s *pop3Session) login(user, password string) {
	drop := s.drops[user]
	if drop == nil || subtle.ConstantTimeCompare([]byte(drop.password), []byte(password)) != 1 {
		s.fail("[AUTH] wrong name or password") // RFC 3206, section 4
		return
	}
	s.drop, s.view, s.deleted = drop, drop.list(), make(map[string]bool)
	n, size := s.count()
	s.ok("logged in, %d messages (%d octets)", n, size)
}
