package demo

import (
	"crypto/subtle"
	"slices"
	"sync"
)

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
