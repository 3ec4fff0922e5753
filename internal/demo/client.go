package demo

import (
	"cmp"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/textproto"
	"reflect"
	"slices"
	"strings"
	"time"

	"postern/internal/hello"
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
	dialer := net.Dialer{Timeout: visitTimeout}
	if c.From.IsValid() {
		dialer.LocalAddr = net.TCPAddrFromAddrPort(netip.AddrPortFrom(c.From, 0))
	}
	nc, err := dialer.Dial("tcp", addr)
	if err != nil {
		return r, fmt.Errorf("dialing: %w", err)
	}
	defer nc.Close()
	nc.SetDeadline(time.Now().Add(visitTimeout))
	r.LocalPort = nc.LocalAddr().(*net.TCPAddr).AddrPort().Port()
	tag := map[string]string{"imap": "a "}[protocol]
	if startTLS {
		if err := (dialogue{textproto.NewConn(nc), tag}).startTLS(); err != nil {
			return r, err
		}
	}
	if c.Generation < policy.TLS10 {
		r.Alert, err = c.offerSSL(nc)
		return r, err
	}
	tc := tls.Client(nc, c.config())
	if err := tc.Handshake(); err != nil {
		if r.Alert = alertIn(err); r.Alert < 0 {
			return r, fmt.Errorf("shaking hands: %w", err)
		}
		return r, nil
	}
	r.Version = policy.Version(tc.ConnectionState().Version)
	if err := (dialogue{textproto.NewConn(tc), tag}).readMail(c, &r, !startTLS); err != nil {
		return r, fmt.Errorf("reading mail: %w", err)
	}
	return r, nil
}

// offerSSL sends the hello of an SSL 2.0 or SSL 3.0 client, and returns the alert
// in the answer.
func (c Client) offerSSL(nc net.Conn) (alert int, err error) {
	if _, err := nc.Write(hello.ClientHello(hello.Typical(uint16(c.Generation)))); err != nil {
		return -1, err
	}
	a, err := hello.ReadFlight(nc)
	if err == nil && a.Kind != hello.Alert {
		err = fmt.Errorf("the answer is no alert: %s", a.Kind)
	}
	if err != nil {
		return -1, err
	}
	return int(a.Alert), nil
}

func (c Client) config() *tls.Config {
	v := uint16(c.Generation)
	verify := x509.VerifyOptions{DNSName: cmp.Or(c.ServerName, "localhost"), Roots: c.Roots}
	config := &tls.Config{
		MinVersion: v, MaxVersion: v, CipherSuites: hello.Typical(v).CipherSuites,
		// crypto/tls verifies for the name that it sends, which may be none.
		InsecureSkipVerify: true,
		VerifyConnection: func(cs tls.ConnectionState) error {
			_, err := cs.PeerCertificates[0].Verify(verify)
			return err
		},
	}
	if !c.NoServerName {
		config.ServerName = verify.DNSName
	}
	return config
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

// dialogue is a client's side of IMAP or POP3.
type dialogue struct {
	*textproto.Conn
	tag string // before a command and its answer; empty for POP3
}

// command sends a command and returns the line that answers it; for IMAP that
// is the tagged one or a BYE, and there are untagged ones before it.
func (d dialogue) command(command string) (answer string, untagged []string, err error) {
	if err := d.PrintfLine("%s%s", d.tag, command); err != nil {
		return "", nil, err
	}
	for {
		line, err := d.ReadLine()
		if err != nil {
			return "", nil, fmt.Errorf("reading a line: %w", err)
		}
		if strings.HasPrefix(line, d.tag) || refused(line) && command != "LOGOUT" {
			return line, untagged, nil
		}
		untagged = append(untagged, line)
	}
}

func good(answer string) bool {
	return strings.HasPrefix(answer, "a OK") || strings.HasPrefix(answer, "+OK")
}

func refused(answer string) bool {
	return strings.HasPrefix(answer, "* BYE") || strings.HasPrefix(answer, "-ERR")
}

func (d dialogue) startTLS() error {
	if _, err := d.ReadLine(); err != nil {
		return fmt.Errorf("reading the greeting: %w", err)
	}
	command := "STARTTLS"
	if d.tag == "" {
		command = "STLS"
	}
	answer, _, err := d.command(command)
	if err == nil && !good(answer) {
		err = fmt.Errorf("%s is answered %q", command, answer)
	}
	return err
}

// readMail logs in and counts the messages. A refusal in words is no error: it
// replaces the greeting or the first answer.
func (d dialogue) readMail(c Client, r *Result, greeted bool) error {
	if greeted {
		greeting, err := d.ReadLine()
		if err != nil || refused(greeting) {
			r.Text = greeting
			return err
		}
	}
	commands := []string{"NOOP", "LOGIN " + c.Account + " " + c.Password, "SELECT INBOX", "LOGOUT"}
	if c.Software != "" {
		commands = slices.Insert(commands, 2, fmt.Sprintf("ID (\"name\" %q)", c.Software))
	}
	if d.tag == "" {
		commands = []string{"USER " + c.Account, "PASS " + c.Password, "STAT", "QUIT"}
	}
	for i, command := range commands {
		answer, untagged, err := d.command(command)
		switch {
		case err != nil:
			return err
		case i == 0 && refused(answer):
			r.Text = answer
			return nil
		case !good(answer) && !strings.HasPrefix(command, "ID "): // not every server knows ID
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
