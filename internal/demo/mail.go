package demo

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"

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
