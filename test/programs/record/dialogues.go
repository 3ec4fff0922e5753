package main

import (
	"slices"
	"strings"
	"time"
)

// What Postern says before TLS (proxy/starttls.go).
const beforeTLS = "IMAP4rev1 ID STARTTLS LOGINDISABLED"

func (s *session) imap(inside bool) {
	switch {
	case !inside:
		s.say("* OK [CAPABILITY %s] Postern ready, STARTTLS first.\r\n", beforeTLS)
	case s.server.capabilities != "":
		s.say("* OK [CAPABILITY %s] Dovecot ready.\r\n", s.server.capabilities)
	default:
		s.say("* OK IMAP4 ready\r\n")
	}
	for {
		line, ok := s.command()
		if !ok {
			return
		}
		tag, rest, _ := strings.Cut(string(line), " ")
		name, args, _ := strings.Cut(rest, " ")
		name = strings.ToUpper(name)
		if name == "UID" {
			name, args, _ = strings.Cut(args, " ")
			name = strings.ToUpper(name)
		}
		switch {
		case name == "LOGOUT":
			s.say("* BYE Logging out\r\n%s OK Logout completed.\r\n", tag)
			return
		case name == "STARTTLS" && !inside:
			s.say("%s OK Begin TLS now.\r\n", tag)
			if !s.startTLS() {
				return
			}
			inside = true
		case s.loggedIn:
			if !s.mailbox(tag, name, args) {
				return
			}
		default:
			s.beforeLogin(tag, name, args, inside)
			if s.loggedIn {
				s.write()
			}
		}
	}
}

func (s *session) beforeLogin(tag, name, args string, inside bool) {
	capabilities := strings.TrimSpace(s.server.capabilities)
	switch {
	case !inside:
		capabilities = beforeTLS
	case capabilities == "":
		capabilities = "IMAP4rev1"
		for _, mechanism := range s.server.mechanisms {
			capabilities += " AUTH=" + mechanism
		}
	}
	switch {
	case name == "CAPABILITY":
		s.say("* CAPABILITY %s\r\n%s OK Done.\r\n", capabilities, tag)
	case name == "NOOP":
		s.say("%s OK Done.\r\n", tag)
	case name == "ID" && strings.Contains(capabilities, "ID"):
		s.say("* ID (\"name\" \"Dovecot\")\r\n%s OK Done.\r\n", tag)
	case !inside && (name == "LOGIN" || name == "AUTHENTICATE"):
		s.say("%s NO [PRIVACYREQUIRED] Log in over TLS only: say STARTTLS first.\r\n", tag)
	case name == "LOGIN":
		s.welcome(tag)
	case name == "AUTHENTICATE":
		if s.authenticate(args) {
			s.welcome(tag)
		} else {
			s.say("%s NO Authentication failed.\r\n", tag)
		}
	default:
		s.say("%s BAD Unknown command.\r\n", tag)
	}
}

func (s *session) welcome(tag string) {
	if s.server.capabilities != "" {
		s.say("%s OK [CAPABILITY IMAP4rev1 ID ENABLE IDLE LITERAL+ NAMESPACE] Logged in\r\n", tag)
	} else {
		s.say("%s OK LOGIN completed\r\n", tag)
	}
	s.loggedIn = true
}

// authenticate is the dialogue of a SASL mechanism; every response is right.
func (s *session) authenticate(args string) bool {
	mechanism, response, initial := strings.Cut(args, " ")
	mechanism = strings.ToUpper(mechanism)
	if !slices.Contains(s.server.mechanisms, mechanism) {
		return false
	}
	var challenges []string
	switch mechanism {
	case "PLAIN":
		challenges = []string{""}
	case "LOGIN":
		challenges = []string{"VXNlcm5hbWU6", "UGFzc3dvcmQ6"}
	case "CRAM-MD5":
		challenges = []string{"PDQ3MTEuMUBtYWlsLmV4YW1wbGUub3JnPg=="}
	}
	if initial && response != "" && len(challenges) > 0 {
		challenges = challenges[1:]
	}
	for _, challenge := range challenges {
		s.say("+ %s\r\n", challenge)
		if !s.response() {
			return false
		}
	}
	return true
}

// mailbox answers what comes after the login, so that the program ends well.
func (s *session) mailbox(tag, name, args string) bool {
	s.conn.SetDeadline(time.Now().Add(patience))
	switch name {
	case "CAPABILITY":
		s.say("* CAPABILITY IMAP4rev1 ID ENABLE IDLE LITERAL+ NAMESPACE\r\n")
	case "ID":
		s.say("* ID NIL\r\n")
	case "NAMESPACE":
		s.say("* NAMESPACE ((\"\" \"/\")) NIL NIL\r\n")
	case "LIST", "LSUB":
		if strings.HasSuffix(args, `""`) {
			s.say("* %s (\\Noselect) \"/\" \"\"\r\n", name)
		} else {
			s.say("* %s (\\HasNoChildren) \"/\" INBOX\r\n", name)
		}
	case "SELECT", "EXAMINE":
		s.say("* FLAGS (\\Answered \\Flagged \\Deleted \\Seen \\Draft)\r\n" +
			"* OK [PERMANENTFLAGS (\\Answered \\Flagged \\Deleted \\Seen \\Draft \\*)] Flags.\r\n" +
			"* 0 EXISTS\r\n* 0 RECENT\r\n* OK [UIDVALIDITY 1] UIDs.\r\n* OK [UIDNEXT 1] Next.\r\n")
		s.say("%s OK [READ-WRITE] Done.\r\n", tag)
		return true
	case "STATUS":
		s.say("* STATUS INBOX (MESSAGES 0 RECENT 0 UNSEEN 0 UIDNEXT 1 UIDVALIDITY 1)\r\n")
	case "SEARCH":
		s.say("* SEARCH\r\n")
	case "IDLE":
		s.say("+ idling\r\n")
		if _, ok := s.command(); !ok {
			return false
		}
	}
	s.say("%s OK Done.\r\n", tag)
	return true
}

func (s *session) pop3(inside bool) {
	if inside {
		s.say("+OK Dovecot ready.%s\r\n", s.server.timestamp)
	} else {
		s.say("+OK Postern ready, STLS first.\r\n")
	}
	for {
		line, ok := s.command()
		if !ok {
			return
		}
		name, args, _ := strings.Cut(string(line), " ")
		name = strings.ToUpper(name)
		switch {
		case name == "QUIT":
			s.say("+OK Goodbye.\r\n")
			return
		case name == "STLS" && !inside:
			s.say("+OK Begin TLS now.\r\n")
			if !s.startTLS() {
				return
			}
			inside = true
		case s.loggedIn:
			s.maildrop(name, args)
		default:
			s.popLogin(name, args, inside)
			if s.loggedIn {
				s.write()
			}
		}
	}
}

func (s *session) popLogin(name, args string, inside bool) {
	switch {
	case name == "CAPA" && !inside:
		s.say("+OK Capabilities follow.\r\nSTLS\r\nRESP-CODES\r\nAUTH-RESP-CODE\r\n.\r\n")
	case name == "CAPA" && s.server.mechanisms != nil:
		s.say("+OK\r\nCAPA\r\nTOP\r\nUIDL\r\nRESP-CODES\r\nPIPELINING\r\nAUTH-RESP-CODE\r\nUSER\r\nSASL %s\r\n.\r\n",
			strings.Join(s.server.mechanisms, " "))
	case name == "CAPA":
		s.say("+OK Capability list follows\r\nTOP\r\nUIDL\r\nUSER\r\n.\r\n")
	case name == "NOOP":
		s.say("+OK\r\n")
	case !inside:
		s.say("-ERR [AUTH] Log in over TLS only: say STLS first.\r\n")
	case name == "USER":
		s.say("+OK\r\n")
	case name == "PASS", name == "APOP" && s.server.timestamp != "":
		s.loggedIn = true
		s.say("+OK Logged in.\r\n")
	case name == "AUTH" && args == "" && s.server.mechanisms != nil:
		s.say("+OK\r\n%s\r\n.\r\n", strings.Join(s.server.mechanisms, "\r\n"))
	case name == "AUTH":
		if s.loggedIn = s.authenticate(args); s.loggedIn {
			s.say("+OK Logged in.\r\n")
		} else {
			s.say("-ERR Authentication failed.\r\n")
		}
	default:
		s.say("-ERR Unknown command.\r\n")
	}
}

func (s *session) maildrop(name, args string) {
	switch {
	case name == "CAPA":
		s.say("+OK\r\nTOP\r\nUIDL\r\nUSER\r\n.\r\n")
	case name == "STAT":
		s.say("+OK 0 0\r\n")
	case args == "" && (name == "LIST" || name == "UIDL"):
		s.say("+OK 0 messages:\r\n.\r\n")
	case name == "LAST":
		s.say("+OK 0\r\n")
	case name == "NOOP", name == "RSET":
		s.say("+OK\r\n")
	default:
		s.say("-ERR There is no such message.\r\n")
	}
}
