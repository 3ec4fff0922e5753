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
	"postern/policy"
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
	*mailproto.Dialogue
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
	l := &Line{conn, mailproto.NewDialogue(conn)}
	header, err := proxy.OwnHeader(p.Header, conn.LocalAddr(), conn.RemoteAddr(), false)
	if err == nil {
		_, err = conn.Write(header)
	}
	if err == nil && p.StartTLS != "" {
		var greeting string
		if greeting, err = l.Greeting(); err == nil && (l.IMAP != (p.StartTLS == "imap") || !mailproto.Positive(strings.TrimPrefix(greeting, "* "))) {
			hint := text.Either(l.IMAP != (p.StartTLS == "imap"), protocolHint(greeting), "")
			err = refusal("greets with " + Quoted(greeting) + hint)
		}
	}
	if err != nil {
		conn.Close()
		return nil, err
	}
	return l, nil
}

// protocolHint says which -starttls a server needs that begins with that line.
func protocolHint(greeting string) string {
	switch {
	case strings.HasPrefix(greeting, "* "):
		return " (try -starttls imap)"
	case strings.HasPrefix(greeting, "+OK"):
		return " (try -starttls pop3)"
	}
	return ""
}

// Refused reports whether a line turns a client away.
func Refused(line string) bool {
	return mailproto.HasPrefixFold([]byte(line), "* BYE") || mailproto.HasPrefixFold([]byte(line), "-ERR")
}

// leave ends a dialogue as the protocol asks for, and waits a little for the answer.
func (l *Line) leave() {
	l.SetDeadline(time.Now().Add(time.Second))
	l.Say(l.Verb("LOGOUT", "QUIT"))
}

// Open opens a connection up to where TLS begins. Behind is sent in one piece with
// STARTTLS or STLS.
func (p Port) Open(ctx context.Context, behind string) (*Line, error) {
	l, err := p.dial(ctx)
	if err != nil || p.StartTLS == "" {
		return l, err
	}
	if err = l.StartTLS(behind); err != nil {
		if errors.Is(err, mailproto.ErrNoStartTLS) {
			l.leave()
		}
		l.Close()
		return nil, err
	}
	return l, nil
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

// Enter carries a handshake of one version to its end; the dialogue goes on inside. The
// certificate is judged by verify alone, and by nothing where that is nil.
func (l *Line) Enter(version policy.Version, name string, verify func(tls.ConnectionState) error) (tls.ConnectionState, error) {
	tc := tls.Client(l.Conn, &tls.Config{
		MinVersion: uint16(version), MaxVersion: uint16(version), CipherSuites: hello.Typical(uint16(version)).CipherSuites,
		ServerName: name, InsecureSkipVerify: true, VerifyConnection: verify,
	})
	err := tc.Handshake()
	l.Conn = tc
	l.Inside(tc)
	return tc.ConnectionState(), err
}

// turnedAway returns the line with which a server refuses a client inside TLS, if it
// does, and takes its leave.
func (l *Line) turnedAway(greets bool) string {
	defer l.Close()
	var greeting string
	if greets {
		greeting, _ = l.Greeting()
	}
	_, lines, _ := l.Say(l.Verb(`ID ("name" "postern probe")`, "CAPA"))
	for _, line := range append([]string{greeting}, lines...) {
		if Refused(line) {
			return Quoted(line)
		}
	}
	l.leave()
	if _, refused := mailproto.Logins(lines, false); !l.IMAP && refused {
		return "no login in CAPA"
	}
	return ""
}

// Quoted makes a server's line short and harmless on a terminal.
func Quoted(s string) string { return text.Quote(strings.TrimRight(s, "\r\n"), 120) }

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
