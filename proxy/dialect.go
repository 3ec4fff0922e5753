package proxy

import (
	"io"
	"time"
)

// dialect is what differs between IMAP and POP3.
type dialect interface {
	// goodbye is a last word in the protocol's form.
	goodbye(n notice, text string) []byte
	// frontGreeting and frontCommand are the dialogue before TLS.
	frontGreeting() []byte
	frontCommand(f *front, line []byte) (begin []byte, err error)
	// greeting judges an upstream's greeting, and returns it as it is true
	// inside TLS.
	greeting(line []byte) ([]byte, UpstreamFailure)
	noteGreeting(r *relay, line []byte)
	// identify tells the upstream where the client is, as far as the protocol
	// has a way.
	identify(s *session) error
	// requestTLS asks an upstream for STARTTLS or STLS; nil is its OK.
	requestTLS(in *lineReader, out io.Writer) error
	// greetAgain makes a greeting of what the upstream says inside TLS, after
	// STARTTLS, where it does not greet.
	greetAgain(c *upstreamConn) (greeting, error)
	// commands and replies are the two sides of the relay before login. What
	// commands returns is the login that has succeeded, or why there is none.
	commands(r *relay) (*Login, error)
	replies(r *relay) error
}

func dialectOf(p Protocol) dialect {
	if p == ProtocolIMAP {
		return imapDialect{}
	}
	return pop3Dialect{}
}

// notice is the kind of a last word, which decides its response code.
type notice uint8

const (
	noticeUnavailable notice = iota
	noticeLimit
	noticeExplain
	noticeShutdown
	noticeTimeout
	noticeProtocol
)

// farewell is the last word to a client below TLS.
func (s *session) farewell(text []byte) {
	s.raw.SetWriteDeadline(time.Now().Add(lingerTime))
	s.raw.Write(text)
	s.raw.linger()
}

// tlsFarewell is the last word to a client inside TLS: text, close_notify, FIN,
// and what still comes is thrown away for a while, so that no reset overtakes
// the text.
func (s *session) tlsFarewell(text []byte) {
	s.raw.SetWriteDeadline(time.Now().Add(lingerTime))
	s.tls.Write(text)
	s.closeTLS()
}

// closeTLS closes in order (RFC 8446, Section 6.1).
func (s *session) closeTLS() {
	s.raw.SetWriteDeadline(time.Now().Add(lingerTime))
	s.tls.CloseWrite()
	s.raw.linger()
}
