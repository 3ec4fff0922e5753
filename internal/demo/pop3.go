package demo

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

const (
	// The least that RFC 1939, section 3, allows a server that logs out idle
	// clients.
	pop3Timeout = 10 * time.Minute
	// RFC 2449, section 4, with the CRLF.
	maxCommandLine = 255

	pop3Capabilities = "UIDL\r\nUSER\r\nRESP-CODES\r\nAUTH-RESP-CODE\r\nPIPELINING\r\nIMPLEMENTATION Postern-demo\r\n"
)

// A maildrop is what one account has. RFC 1939, section 4, wants it locked
// while a session is open, as far as that is needed to keep messages from
// changing underneath; here they never change, and each session has its own
// list of them, so several may be open at once.
type maildrop struct {
	mu       sync.Mutex
	messages []message
}

// An entry is a message as one session sees it.
type entry struct {
	message
	deleted bool
}

func (d *maildrop) entries() []entry {
	d.mu.Lock()
	defer d.mu.Unlock()
	view := make([]entry, len(d.messages))
	for i, m := range d.messages {
		view[i].message = m
	}
	return view
}

// remove takes out what view has marked as deleted. What another session
// removed before is gone as well, which is all that was asked for.
func (d *maildrop) remove(view []entry) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.messages = slices.DeleteFunc(slices.Clone(d.messages), func(m message) bool {
		return slices.ContainsFunc(view, func(e entry) bool { return e.deleted && e.uid == m.uid })
	})
}

func servePOP3(l net.Listener, drops map[string]*maildrop) {
	for {
		conn, err := l.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil { // no descriptors left, say
			time.Sleep(10 * time.Millisecond)
			continue
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

	user string // what a USER in the line before said
	drop *maildrop
	view []entry // the maildrop as it was at login
	done bool
}

func newPOP3(conn net.Conn, drops map[string]*maildrop) *pop3Session {
	return &pop3Session{conn: conn, r: bufio.NewReaderSize(conn, maxCommandLine), w: bufio.NewWriter(conn), drops: drops}
}

// run greets and answers until QUIT or the end of the connection. An end
// without QUIT deletes nothing (RFC 1939, section 6). A line that is too long is
// read to its end: to answer and close with bytes unread would be a reset, which
// overtakes the answer.
func (s *pop3Session) run() {
	s.ok("Postern demo mailbox ready")
	for tooLong := false; !s.done; {
		s.conn.SetDeadline(time.Now().Add(pop3Timeout))
		if s.w.Flush() != nil {
			return
		}
		line, err := s.r.ReadSlice('\n')
		switch {
		case errors.Is(err, bufio.ErrBufferFull):
			tooLong = true
		case err != nil:
			return
		case tooLong:
			tooLong = false
			s.fail("line too long")
		default:
			// A lone LF is taken too: people type here, through openssl s_client.
			s.command(strings.TrimSuffix(strings.TrimSuffix(string(line), "\n"), "\r"))
		}
	}
	s.w.Flush()
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
			s.drop.remove(s.view)
		}
		s.ok("goodbye")
	case verb == "CAPA":
		s.ok("what this server can do")
		s.lines([]byte(pop3Capabilities))
	case s.drop == nil:
		s.authorization(verb, args, user)
	default:
		s.transaction(verb, args)
	}
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
		drop := s.drops[user]
		if drop == nil || args != Password {
			s.fail("[AUTH] wrong name or password") // RFC 3206, section 4
			return
		}
		s.drop, s.view = drop, drop.entries()
		n, size := s.count()
		s.ok("logged in, %d messages (%d octets)", n, size)
	default:
		s.fail("unknown command, or not before login")
	}
}

func (s *pop3Session) transaction(verb, args string) {
	switch verb {
	case "STAT":
		n, size := s.count()
		s.ok("%d %d", n, size)
	case "LIST":
		s.list(args, func(e *entry) string { return strconv.Itoa(len(e.text)) })
	case "UIDL":
		s.list(args, func(e *entry) string { return e.uid })
	case "RETR":
		if e := s.pick(args); e != nil {
			s.ok("%d octets", len(e.text))
			s.lines(e.text)
		}
	case "DELE":
		if e := s.pick(args); e != nil {
			e.deleted = true
			s.ok("message deleted")
		}
	case "RSET":
		for i := range s.view {
			s.view[i].deleted = false
		}
		s.ok("nothing is deleted")
	case "NOOP":
		s.ok("still here")
	default:
		s.fail("unknown command, or not after login")
	}
}

// list answers LIST and UIDL, for one message or for all.
func (s *pop3Session) list(args string, say func(*entry) string) {
	if args != "" {
		if e := s.pick(args); e != nil {
			s.ok("%s %s", args, say(e))
		}
		return
	}
	n, size := s.count()
	s.ok("%d messages (%d octets)", n, size)
	var b bytes.Buffer
	for i := range s.view {
		if e := &s.view[i]; !e.deleted {
			fmt.Fprintf(&b, "%d %s\r\n", i+1, say(e))
		}
	}
	s.lines(b.Bytes())
}

// pick finds a message that is not deleted by its number in this session. It
// has answered already where it returns nil.
func (s *pop3Session) pick(arg string) *entry {
	n, err := strconv.ParseUint(arg, 10, 31) // digits alone; Atoi would take a sign too
	if err != nil || n < 1 || int(n) > len(s.view) || s.view[n-1].deleted {
		s.fail("no such message")
		return nil
	}
	return &s.view[n-1]
}

// count leaves deleted messages out (RFC 1939, section 5, STAT).
func (s *pop3Session) count() (n, size int) {
	for _, e := range s.view {
		if !e.deleted {
			n++
			size += len(e.text)
		}
	}
	return n, size
}

func (s *pop3Session) ok(format string, a ...any) { fmt.Fprintf(s.w, "+OK "+format+"\r\n", a...) }

func (s *pop3Session) fail(text string) { fmt.Fprintf(s.w, "-ERR %s\r\n", text) }

// lines sends the rest of a multi-line reply, dots doubled, and its end
// (RFC 1939, section 3). What it is given ends in CRLF or is empty. A failed
// write stays in s.w, and the next flush reports it.
func (s *pop3Session) lines(text []byte) {
	for line := range bytes.Lines(text) {
		if line[0] == '.' {
			s.w.WriteByte('.')
		}
		s.w.Write(line)
	}
	s.w.WriteString(".\r\n")
}
