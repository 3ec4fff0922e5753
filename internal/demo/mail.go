package demo

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"sync"

	"github.com/emersion/go-imap/v2"
	"github.com/emersion/go-imap/v2/imapserver"
	"github.com/emersion/go-imap/v2/imapserver/imapmemserver"
)

// maxConns bounds the connections of each protocol.
const maxConns = 1024

const (
	imapBusy = "* BYE [LIMIT] Too many connections, try again later.\r\n"
	pop3Busy = "-ERR [SYS/TEMP] Too many connections, try again later.\r\n"
)

// An Account is someone who has mail on a MailServer.
type Account struct {
	Name     string // an address, which is the login name too
	Password string
}

var accounts = []Account{
	{"anna@example.org", "demo"},
	{"bert@example.org", "demo"},
	{"carla@example.org", "demo"},
	{"scanner@example.org", "demo"},
}

// A MailServer is IMAP and POP3 in plain text on loopback, with a few messages
// for a few made-up people. It believes whoever connects to be on the same
// host, as Postern is, and so lets passwords pass without TLS. Each protocol
// holds its own copy of the messages: what is deleted over one stays in the
// other.
type MailServer struct {
	imap, pop3 *listener
	loops      sync.WaitGroup
	cancel     context.CancelFunc
}

// StartMail listens on two free ports of 127.0.0.1 and serves until ctx ends or
// Close is called. It fails where loopback cannot be listened on.
func StartMail(ctx context.Context) (*MailServer, error) {
	users, drops, err := fillMailboxes()
	if err != nil {
		return nil, err
	}
	imapListener, imapErr := net.Listen("tcp", "127.0.0.1:0")
	pop3Listener, pop3Err := net.Listen("tcp", "127.0.0.1:0")
	if err := errors.Join(imapErr, pop3Err); err != nil {
		return nil, fmt.Errorf("listening on loopback: %w", err)
	}
	ctx, cancel := context.WithCancel(ctx)
	s := &MailServer{
		imap:   newListener(ctx, imapListener, maxConns, imapBusy),
		pop3:   newListener(ctx, pop3Listener, maxConns, pop3Busy),
		cancel: cancel,
	}
	// Serve has one ending: the listener was closed.
	s.loops.Go(func() { _ = newIMAP(users).Serve(s.imap) })
	s.loops.Go(func() { servePOP3(s.pop3, drops) })
	return s, nil
}

// IMAPAddr is the host:port of the IMAP server.
func (s *MailServer) IMAPAddr() string { return s.imap.Addr().String() }

// POP3Addr is the host:port of the POP3 server.
func (s *MailServer) POP3Addr() string { return s.pop3.Addr().String() }

// Accounts lists who can log in, over both protocols.
func (s *MailServer) Accounts() []Account { return slices.Clone(accounts) }

// Close breaks off all connections and returns when every one has ended. It
// may be called more than once.
func (s *MailServer) Close() {
	s.cancel()
	s.loops.Wait()
	s.imap.served.Wait()
	s.pop3.served.Wait()
}

// fillMailboxes gives every account its messages, once for each protocol.
func fillMailboxes() (*imapmemserver.Server, map[string]*maildrop, error) {
	users, drops := imapmemserver.New(), make(map[string]*maildrop)
	for _, account := range accounts {
		messages, err := samples(account.Name)
		if err != nil {
			return nil, nil, err
		}
		user := imapmemserver.NewUser(account.Name, account.Password)
		user.Create("INBOX", nil)
		user.Subscribe("INBOX")
		for _, m := range messages {
			if _, err := user.Append("INBOX", bytes.NewReader(m.text), &imap.AppendOptions{Time: m.date}); err != nil {
				return nil, nil, fmt.Errorf("filling the inbox of %s: %w", account.Name, err)
			}
		}
		users.AddUser(user)
		drops[account.Name] = &maildrop{password: account.Password, messages: messages}
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
