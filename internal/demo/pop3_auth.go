package demo

import (
	"bufio"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"slices"
	"strings"
	"sync"
)

// A maildrop is what one account has. RFC 1939, section 4, wants it locked
// while a session is open, as far as that is needed to keep messages from
// changing underneath; here they never change, and each session has its own
// list of them, so several may be open at once.
type maildrop struct {
	password string

	mu       sync.Mutex
	messages []message
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
	case verb == "AUTH":
		s.auth(args)
	default:
		s.fail("unknown command, or not before login")
	}
}

// auth is AUTH PLAIN, with an initial response or without (RFC 5034,
// section 4; RFC 4616).
func (s *pop3Session) auth(args string) {
	mechanism, response, given := strings.Cut(args, " ")
	if !strings.EqualFold(mechanism, "PLAIN") {
		s.fail("the one mechanism here is PLAIN")
		return
	}
	if !given {
		s.w.WriteString("+ \r\n")
		line, err := s.readLine()
		if errors.Is(err, bufio.ErrBufferFull) {
			s.fail("line too long")
			return
		}
		if err != nil {
			s.done = true
			return
		}
		response = line
	}
	if response == "*" {
		s.fail("AUTH cancelled")
		return
	}
	user, password, ok := parsePlain(response)
	if !ok {
		s.fail("malformed PLAIN response")
		return
	}
	s.login(user, password)
}

// parsePlain reads a PLAIN message in base64. To act for somebody else is
// malformed here: no account may. So is "=", which stands for an empty message.
func parsePlain(response string) (user, password string, ok bool) {
	raw, err := base64.StdEncoding.DecodeString(response)
	if err != nil {
		return "", "", false
	}
	parts := strings.Split(string(raw), "\x00")
	if len(parts) != 3 || parts[0] != "" && parts[0] != parts[1] {
		return "", "", false
	}
	return parts[1], parts[2], true
}

func (s *pop3Session) login(user, password string) {
	drop := s.drops[user]
	if drop == nil || subtle.ConstantTimeCompare([]byte(drop.password), []byte(password)) != 1 {
		s.fail("[AUTH] wrong name or password") // RFC 3206, section 4
		return
	}
	s.drop, s.view = drop, drop.entries()
	n, size := s.count()
	s.ok("logged in, %d messages (%d octets)", n, size)
}
