package demo

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"time"

	"postern/internal/hello"
	"postern/internal/mailproto"
	"postern/internal/probe"
	"postern/internal/text"
	"postern/policy"
	"postern/proxy"
)

// Generations lists the TLS generations that a Client can be of.
var Generations = []policy.Version{policy.SSL2, policy.SSL3, policy.TLS10, policy.TLS11, policy.TLS12, policy.TLS13}

// Client is a mail client of one generation: it offers what a client of its
// time would, and logs in where it can. crypto/tls has no SSL; there a
// ClientHello is enough, since nobody answers it with more than an alert.
type Client struct {
	Generation policy.Version
	// Roots are the certificate authorities that it trusts.
	Roots *x509.CertPool
	// Account and Password are what it logs in with.
	Account, Password string
	// Software is its name in an ID (RFC 2971) once it has logged in
	// to IMAP; empty says nothing.
	Software string
	// From is its local address; the zero Addr leaves that to the system.
	From netip.Addr
	// ServerName is the name that it verifies, localhost if empty. From TLS 1.0
	// on it is sent too, unless NoServerName is set.
	ServerName   string
	NoServerName bool
}

// Result is the result of a visit.
type Result struct {
	// LoggedIn: it has logged in and seen so many Messages.
	LoggedIn bool
	Messages string
	// Version that was negotiated; NoVersion where TLS was not completed.
	Version policy.Version
	// Alert is the alert of RFC 8446, Section 6.2 that it was sent; -1 for none.
	Alert int
	// Text is the line with which it was rejected inside TLS.
	Text string
	// LocalPort of the client's end.
	LocalPort uint16
}

// Is reports whether the outcome says what a client of that generation met.
func (r Result) Is(o proxy.Outcome, generation policy.Version) bool {
	switch o {
	case proxy.Rejected:
		return r.Alert == 70 // protocol_version
	case proxy.Explained:
		return r.Version == generation && r.Text != ""
	}
	return r.LoggedIn && r.Version == generation
}

// visitTimeout bounds a whole visit.
const visitTimeout = 30 * time.Second

// Visit connects to a listener of the protocol imap or pop3 at addr, with
// STARTTLS or STLS first where startTLS is set. An error means that neither
// mail nor a clear refusal was met.
func (c Client) Visit(addr, protocol string, startTLS bool) (Result, error) {
	r := Result{Alert: -1}
	p := probe.Port{Addr: addr, StartTLS: text.Either(startTLS, protocol, ""), Timeout: visitTimeout, From: c.From}
	l, err := p.Open(context.Background(), "")
	if err != nil {
		return r, err
	}
	defer l.Close()
	r.LocalPort = l.LocalAddr().(*net.TCPAddr).AddrPort().Port()
	if c.Generation < policy.TLS10 {
		answer, err := l.Ask(hello.ClientHello(hello.Typical(uint16(c.Generation))))
		if err == nil && answer.Kind != hello.Alert {
			err = fmt.Errorf("the answer is no alert: %s", answer.Kind)
		}
		if err == nil {
			r.Alert = int(answer.Alert)
		}
		return r, err
	}
	verify := x509.VerifyOptions{DNSName: cmp.Or(c.ServerName, "localhost"), Roots: c.Roots}
	state, err := l.Enter(c.Generation, text.Either(c.NoServerName, "", verify.DNSName), func(cs tls.ConnectionState) error {
		_, err := cs.PeerCertificates[0].Verify(verify)
		return err
	})
	if err != nil {
		if r.Alert = alertIn(err); r.Alert < 0 {
			return r, fmt.Errorf("shaking hands: %w", err)
		}
		return r, nil
	}
	r.Version = policy.Version(state.Version)
	if err := c.readMail(l, protocol, &r, !startTLS); err != nil {
		return r, fmt.Errorf("reading mail: %w", err)
	}
	return r, nil
}

// alertIn returns the alert that ended a handshake, or -1. crypto/tls exports no
// type for one over TCP.
func alertIn(err error) int {
	op, ok := errors.AsType[*net.OpError](err)
	if !ok || op.Op != "remote error" {
		return -1
	}
	return int(reflect.ValueOf(op.Err).Uint())
}

// readMail logs in and counts the messages. A refusal in words is no error: it
// replaces the greeting or the first answer.
func (c Client) readMail(l *probe.Line, protocol string, r *Result, greeted bool) error {
	if greeted {
		greeting, err := l.Greeting()
		if err != nil || probe.Refused(greeting) {
			r.Text = strings.TrimSpace(greeting)
			return err
		}
	}
	commands := []string{"NOOP", "LOGIN " + c.Account + " " + c.Password, "SELECT INBOX", "LOGOUT"}
	if c.Software != "" {
		commands = slices.Insert(commands, 2, fmt.Sprintf("ID (\"name\" %q)", c.Software))
	}
	if protocol == "pop3" {
		commands = []string{"USER " + c.Account, "PASS " + c.Password, "STAT", "QUIT"}
	}
	for i, command := range commands {
		answer, untagged, err := l.Say(command)
		if bye := slices.IndexFunc(untagged, probe.Refused); bye >= 0 && command != "LOGOUT" {
			answer, err = untagged[bye], nil
		}
		switch {
		case err != nil:
			return err
		case i == 0 && probe.Refused(answer):
			r.Text = answer
			return nil
		case !mailproto.Positive(answer) && !strings.HasPrefix(command, "ID "): // not every server knows ID
			return errors.New(answer)
		case command == "STAT":
			r.Messages = strings.Fields(answer + " ? ?")[1]
		}
		for _, line := range untagged {
			if n, ok := strings.CutSuffix(line, " EXISTS"); ok {
				r.Messages = strings.TrimPrefix(n, "* ")
			}
		}
	}
	r.LoggedIn = true
	return nil
}
