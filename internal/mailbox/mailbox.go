// Package mailbox is the mail server behind `postern demo`: IMAP and POP3 in
// plain text on loopback, with a few messages for a few made-up people. It
// believes whoever connects to be on the same host, as the gate is, and so
// lets passwords pass without TLS.
package mailbox

import (
	"context"
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

// An Account is someone who has mail here.
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

// A Server is a running pair of IMAP and POP3 servers. Each holds its own
// copy of the messages: what is deleted over one stays in the other.
type Server struct {
	imap, pop3 *crowd
	loops      sync.WaitGroup
	stopWatch  func() bool
}

// Start listens on two free ports of 127.0.0.1 and serves until ctx ends or
// Close is called. It fails where loopback cannot be listened on.
func Start(ctx context.Context) (*Server, error) {
	users, drops, err := furnish()
	if err != nil {
		return nil, err
	}
	imapListener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("listening for imap: %w", err)
	}
	pop3Listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		imapListener.Close()
		return nil, fmt.Errorf("listening for pop3: %w", err)
	}
	s := &Server{
		imap: newCrowd(imapListener, maxConns, imapBusy),
		pop3: newCrowd(pop3Listener, maxConns, pop3Busy),
	}
	s.loops.Go(func() {
		// Serve has one ending: the listener was closed.
		_ = newIMAP(users).Serve(s.imap)
	})
	s.loops.Go(func() { servePOP3(s.pop3, drops) })
	s.stopWatch = context.AfterFunc(ctx, s.shut)
	return s, nil
}

// IMAPAddr is the host:port of the IMAP server.
func (s *Server) IMAPAddr() string { return s.imap.Addr().String() }

// POP3Addr is the host:port of the POP3 server.
func (s *Server) POP3Addr() string { return s.pop3.Addr().String() }

// Accounts lists who can log in, over both protocols.
func (s *Server) Accounts() []Account { return slices.Clone(accounts) }

// Close breaks off all connections and returns when every one has ended. It
// may be called more than once.
func (s *Server) Close() {
	s.stopWatch()
	s.shut()
}

func (s *Server) shut() {
	s.imap.Close()
	s.pop3.Close()
	s.loops.Wait()
}

// furnish gives every account its messages, once for each protocol.
func furnish() (*imapmemserver.Server, map[string]*maildrop, error) {
	users, drops := imapmemserver.New(), make(map[string]*maildrop)
	for _, account := range accounts {
		messages, err := samples(account.Name)
		if err != nil {
			return nil, nil, err
		}
		user := imapmemserver.NewUser(account.Name, account.Password)
		if err := fill(user, messages); err != nil {
			return nil, nil, fmt.Errorf("filling the inbox of %s: %w", account.Name, err)
		}
		users.AddUser(user)
		drops[account.Name] = &maildrop{password: account.Password, messages: messages}
	}
	return users, drops, nil
}

func fill(user *imapmemserver.User, messages []message) error {
	if err := user.Create("INBOX", nil); err != nil {
		return err
	}
	if err := user.Subscribe("INBOX"); err != nil {
		return err
	}
	for _, m := range messages {
		if _, err := user.Append("INBOX", m.literal(), &imap.AppendOptions{Time: m.date}); err != nil {
			return err
		}
	}
	return nil
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
