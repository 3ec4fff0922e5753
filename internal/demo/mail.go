package demo

import (
	"bytes"
	"context"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/mail"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/emersion/go-imap/v2"
	"github.com/emersion/go-imap/v2/imapserver"
	"github.com/emersion/go-imap/v2/imapserver/imapmemserver"
)

// Password is that of every account.
const Password = "demo"

var accounts = []string{"anna@example.org", "bert@example.org", "carla@example.org", "scanner@example.org"}

// A MailServer serves IMAP and POP3 in plaintext on loopback, with a few messages
// for a few made-up people. It accepts passwords without TLS, as all clients are
// on the same host. Each protocol has its own copy of the messages: deleting over
// one keeps them in the other.
type MailServer struct {
	imap, pop3 *listener
	cancel     context.CancelFunc
	serving    sync.WaitGroup // accept loops and connections
}

// StartMail listens on two free ports of 127.0.0.1 and serves until ctx ends or
// Close is called. It fails if it cannot listen on loopback.
func StartMail(ctx context.Context) (*MailServer, error) {
	users, drops, err := fillMailboxes()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	s := &MailServer{cancel: cancel}
	var imapErr, pop3Err error
	s.imap, imapErr = listen(ctx, &s.serving)
	s.pop3, pop3Err = listen(ctx, &s.serving)
	if err := errors.Join(imapErr, pop3Err); err != nil {
		cancel()
		return nil, fmt.Errorf("listening on loopback: %w", err)
	}
	// Serve has one ending: the listener was closed.
	s.serving.Go(func() { _ = newIMAP(users).Serve(s.imap) })
	s.serving.Go(func() { servePOP3(s.pop3, drops) })
	return s, nil
}

// IMAPAddr is the host:port of the IMAP server.
func (s *MailServer) IMAPAddr() string { return s.imap.Addr().String() }

// POP3Addr is the host:port of the POP3 server.
func (s *MailServer) POP3Addr() string { return s.pop3.Addr().String() }

// Accounts lists who can log in with [Password], over both protocols. An account
// is an address.
func (s *MailServer) Accounts() []string { return slices.Clone(accounts) }

// Close breaks off all connections and returns when every one has ended. It
// may be called more than once.
func (s *MailServer) Close() {
	s.cancel()
	s.serving.Wait()
}

// fillMailboxes gives every account its messages, once for each protocol.
func fillMailboxes() (*imapmemserver.Server, map[string]*maildrop, error) {
	users, drops := imapmemserver.New(), make(map[string]*maildrop)
	for _, account := range accounts {
		messages, err := samples(account)
		if err != nil {
			return nil, nil, err
		}
		user := imapmemserver.NewUser(account, Password)
		user.Create("INBOX", nil)
		user.Subscribe("INBOX")
		for _, m := range messages {
			if _, err := user.Append("INBOX", bytes.NewReader(m.text), &imap.AppendOptions{Time: m.date}); err != nil {
				return nil, nil, fmt.Errorf("filling the inbox of %s: %w", account, err)
			}
		}
		users.AddUser(user)
		drops[account] = &maildrop{password: Password, messages: messages}
	}
	return users, drops, nil
}

func newIMAP(users *imapmemserver.Server) *imapserver.Server {
	return imapserver.New(&imapserver.Options{
		NewSession: func(*imapserver.Conn) (imapserver.Session, *imapserver.GreetingData, error) {
			return users.NewSession(), nil, nil
		},
		Caps: imap.CapSet{
			imap.CapIMAP4rev1: {}, imap.CapNamespace: {}, imap.CapUIDPlus: {}, imap.CapMove: {},
		},
		InsecureAuth: true,
		// It logs every client that breaks off, which the demo's do on purpose.
		Logger: slog.NewLogLogger(slog.Default().Handler(), slog.LevelDebug),
	})
}

// A listener ends with its context, and so do its connections. imapserver does not
// see to that: its own Close misses connections that are just starting, and waits
// for none.
type listener struct {
	net.Listener
	ctx     context.Context
	serving *sync.WaitGroup
}

// listen listens on a free port of 127.0.0.1. Each connection is in serving
// until the server has closed it.
func listen(ctx context.Context, serving *sync.WaitGroup) (*listener, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	context.AfterFunc(ctx, func() { l.Close() })
	return &listener{l, ctx, serving}, nil
}

// Accept returns the next connection. Its one error is net.ErrClosed: anything else
// (no descriptors left, say) passes, and is waited out.
func (l *listener) Accept() (net.Conn, error) {
	nc, err := l.Listener.Accept()
	for ; err != nil; nc, err = l.Listener.Accept() {
		if errors.Is(err, net.ErrClosed) {
			return nil, err
		}
		time.Sleep(10 * time.Millisecond)
	}
	l.serving.Add(1)
	stop := context.AfterFunc(l.ctx, func() { nc.Close() })
	return servedConn{nc, sync.OnceFunc(func() {
		stop()
		l.serving.Done()
	})}, nil
}

// A servedConn is served until its Close, which servers call as the last thing
// that they do.
type servedConn struct {
	net.Conn
	closed func()
}

func (c servedConn) Close() error {
	defer c.closed()
	return c.Conn.Close()
}

//go:embed messages
var files embed.FS

// A message is one RFC 5322 text. It is never changed once it is made, so
// sessions share it.
type message struct {
	text []byte // lines end in CRLF, the last one too
	uid  string // for UIDL: same text, same id (RFC 1939, section 7)
	date time.Time
}

// samples are the messages as written to account, oldest first.
func samples(account string) ([]message, error) {
	entries, _ := files.ReadDir("messages") // which the program holds
	var messages []message
	for _, entry := range entries {
		text, _ := files.ReadFile("messages/" + entry.Name())
		m, err := newMessage(strings.ReplaceAll(string(text), "{account}", account))
		if err != nil {
			return nil, fmt.Errorf("parsing sample message %s: %w", entry.Name(), err)
		}
		messages = append(messages, m)
	}
	return messages, nil
}

func newMessage(text string) (message, error) {
	// A checkout may or may not have turned the line ends into CRLF.
	text = strings.ReplaceAll(strings.ReplaceAll(text, "\r\n", "\n"), "\n", "\r\n")
	parsed, err := mail.ReadMessage(strings.NewReader(text))
	if err != nil {
		return message{}, err
	}
	date, err := parsed.Header.Date()
	sum := sha256.Sum256([]byte(text))
	return message{text: []byte(text), uid: hex.EncodeToString(sum[:10]), date: date}, err
}

// top is the header, the empty line, and the first n lines of the body
// (RFC 1939, section 7, TOP).
func (m message) top(n int) []byte {
	_, body, _ := bytes.Cut(m.text, []byte("\r\n\r\n"))
	if lines := bytes.SplitAfterN(body, []byte("\n"), n+1); len(lines) > n {
		return m.text[:len(m.text)-len(lines[n])]
	}
	return m.text
}
