package probe

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"syscall"
	"time"

	"postern/internal/hello"
	"postern/internal/mailproto"
	"postern/internal/text"
	"postern/proxy"
)

// Port is a port of a server, and how to come to it.
type Port struct {
	Addr string
	// StartTLS is imap or pop3 where TLS begins behind STARTTLS or STLS; else empty.
	StartTLS string
	// Timeout bounds a connection as a whole.
	Timeout time.Duration
	// From is the local address; the zero Addr leaves that to the system.
	From netip.Addr
	// Header is the version of the PROXY header that goes before all else; 0 for none.
	Header int
}

// refusal is why TLS does not begin, in words.
type refusal string

func (r refusal) Error() string { return string(r) }

// Line is a connection to a server, and the dialogue on it.
type Line struct {
	net.Conn
	lines *mailproto.LineReader
	imap  bool // as its greeting says
}

// dial opens a connection, which ends with the context, and reads the greeting where
// there is one before TLS.
func (p Port) dial(ctx context.Context) (*Line, error) {
	dialer := net.Dialer{Timeout: p.Timeout, LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(p.From, 0))}
	conn, err := dialer.DialContext(ctx, "tcp", p.Addr)
	if err != nil {
		return nil, err
	}
	conn.SetDeadline(time.Now().Add(p.Timeout))
	context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })
	l := &Line{Conn: conn, lines: mailproto.NewLineReader(conn)}
	header, err := proxy.OwnHeader(p.Header, conn.LocalAddr(), conn.RemoteAddr(), false)
	if err == nil {
		_, err = conn.Write(header)
	}
	if err == nil && p.StartTLS != "" {
		var greeting string
		if greeting, err = l.Greeting(); err == nil && (l.imap != (p.StartTLS == "imap") || !Positive(strings.TrimPrefix(greeting, "* "))) {
			err = refusal("greets with " + quoted(greeting))
		}
	}
	if err != nil {
		conn.Close()
		return nil, err
	}
	return l, nil
}

// short is a line without its end, or the beginning of one that only a hostile server sends.
func short(line []byte) string { return string(mailproto.TrimLineEnd(line[:min(len(line), 4096)])) }

// Next reads a line.
func (l *Line) Next() (string, error) {
	b, err := l.lines.Line()
	return short(b), err
}

// Greeting reads the line that a server says first.
func (l *Line) Greeting() (string, error) {
	line, err := l.Next()
	l.imap = strings.HasPrefix(line, "* ")
	return line, err
}

// verb is a command of IMAP, or what POP3 has for it.
func (l *Line) verb(imap, pop3 string) string { return text.Either(l.imap, imap, pop3) }

const (
	// tag stands before each command of IMAP.
	tag = "postern"
	// maxLines is more than any server has capabilities.
	maxLines = 100
)

// Say sends a command and returns what answers it, over IMAP without the tag, and the
// lines with it: the untagged ones, or those of CAPA.
func (l *Line) Say(command string) (reply string, lines []string, err error) {
	if _, err = io.WriteString(l, l.verb(tag+" ", "")+command+"\r\n"); err != nil {
		return "", nil, err
	}
	for l.imap { // what is in a literal counts for lines
		line, err := l.Next()
		reply, done := strings.CutPrefix(line, tag+" ")
		if err == nil && len(lines) == maxLines {
			err = mailproto.ErrOutOfStep
		}
		if done || err != nil {
			return reply, lines, err
		}
		lines = append(lines, line)
	}
	if reply, err = l.Next(); err != nil || command != "CAPA" || !Positive(reply) {
		return reply, nil, err
	}
	for line := ""; err == nil && line != "." && len(lines) < maxLines; line, err = l.Next() {
		lines = append(lines, line)
	}
	return reply, lines, err
}

// Positive reports whether a reply is OK or +OK.
func Positive(reply string) bool {
	return mailproto.HasPrefixFold([]byte(strings.TrimPrefix(reply, "+")), "OK")
}

// Refused reports whether a line turns a client away.
func Refused(line string) bool {
	return mailproto.HasPrefixFold([]byte(line), "* BYE") || mailproto.HasPrefixFold([]byte(line), "-ERR")
}

// leave ends a dialogue as the protocol asks for, and waits a little for the answer.
func (l *Line) leave() {
	l.SetDeadline(time.Now().Add(time.Second))
	l.Say(l.verb("LOGOUT", "QUIT"))
}

// Open opens a connection up to where TLS begins. Behind is sent in one piece with
// STARTTLS or STLS.
func (p Port) Open(ctx context.Context, behind string) (*Line, error) {
	l, err := p.dial(ctx)
	if err != nil || p.StartTLS == "" {
		return l, err
	}
	command := l.verb("STARTTLS", "STLS")
	reply, _, err := l.Say(command + behind)
	switch {
	case err != nil:
	case !Positive(reply):
		l.leave()
		err = refusal(command + " is answered " + quoted(reply))
	case len(l.lines.Buffered()) > 0:
		err = refusal("sends data behind its OK to " + command)
	default:
		return l, nil
	}
	l.Close()
	return nil, err
}

// Ask sends a hello on a connection of its own, and reads what comes back.
func (p Port) Ask(ctx context.Context, first []byte) (hello.Flight, error) {
	l, err := p.Open(ctx, "")
	if err != nil {
		return hello.Flight{}, err
	}
	defer l.Close()
	return l.Ask(first)
}

// Ask is Ask of the port where TLS begins.
func (l *Line) Ask(first []byte) (hello.Flight, error) {
	if _, err := l.Write(first); err != nil {
		return hello.Flight{}, err
	}
	return hello.ReadFlight(l)
}

// Enter carries a handshake to its end; the dialogue goes on inside.
func (l *Line) Enter(config *tls.Config) (tls.ConnectionState, error) {
	tc := tls.Client(l.Conn, config)
	err := tc.Handshake()
	l.Conn, l.lines = tc, mailproto.NewLineReader(tc)
	return tc.ConnectionState(), err
}

// enter carries a handshake of one version to its end, and returns the chain too. Behind
// is sent in one piece with STARTTLS.
func (p Port) enter(ctx context.Context, version uint16, name, behind string) (l *Line, chain [][]byte, err error) {
	if l, err = p.Open(ctx, behind); err != nil {
		return nil, nil, err
	}
	state, err := l.Enter(&tls.Config{
		MinVersion: version, MaxVersion: version, CipherSuites: hello.Typical(version).CipherSuites, ServerName: name,
		InsecureSkipVerify: true, // what is wrong with the chain is said
	})
	if err != nil {
		l.Close()
	}
	for _, c := range state.PeerCertificates {
		chain = append(chain, c.Raw)
	}
	return l, chain, err
}

// turnedAway returns the line with which a server refuses a client inside TLS, if it
// does, and takes its leave.
func (l *Line) turnedAway(greets bool) string {
	defer l.Close()
	var greeting string
	if greets {
		greeting, _ = l.Greeting()
	}
	_, lines, _ := l.Say(l.verb(`ID ("name" "postern probe")`, "CAPA"))
	for _, line := range append([]string{greeting}, lines...) {
		if Refused(line) {
			return quoted(line)
		}
	}
	l.leave()
	if _, refused := mailproto.Logins(lines, false); !l.imap && refused {
		return "no login in CAPA"
	}
	return ""
}

// quoted makes a server's text short and harmless on a terminal.
func quoted(s string) string { return text.Quote(s, 120) }

// Dialing reports whether there is no connection.
func Dialing(err error) bool {
	op, ok := errors.AsType[*net.OpError](err)
	return ok && op.Op == "dial"
}

// timedOut reports whether time has run out.
func timedOut(err error) bool {
	return errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, context.DeadlineExceeded)
}

// words says why there is no answer.
func words(err error, timeout time.Duration) string {
	switch {
	case timedOut(err):
		return fmt.Sprintf("no %s in %s", text.Either(Dialing(err), "connection", "answer"), text.Duration(timeout))
	case errors.Is(err, syscall.ECONNREFUSED):
		return "nothing listens there"
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return "resets the connection"
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return "closes the connection"
	}
	return text.Clean(err.Error(), 200)
}
