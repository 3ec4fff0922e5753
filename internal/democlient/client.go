// Package democlient is a mail client of any TLS generation: it connects to one
// of the four kinds of listener, offers what a client of its time would offer,
// logs in where it is let in, and says what it met. crypto/tls speaks for the
// generations that it knows; for older ones a first flight made by hand is
// enough, since nobody answers it with more than an alert.
package democlient

import (
	"bufio"
	"cmp"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"postern/internal/hello"
	"postern/policy"
	"postern/proxy"
)

// Generations lists the TLS generations that a Client can be of.
var Generations = []policy.Version{policy.SSL2, policy.SSL3, policy.TLS10, policy.TLS11, policy.TLS12, policy.TLS13}

// Client is a client of one generation.
type Client struct {
	Generation policy.Version
	// Roots are the certificate authorities that it trusts.
	Roots *x509.CertPool
	// Account and Password are what it logs in with.
	Account, Password string
	// Software is what it says of itself in an ID (RFC 2971) once it has logged in
	// to IMAP; empty says nothing.
	Software string
	// From is the address that it comes from; the zero Addr leaves that to the
	// system.
	From netip.Addr
	// ServerName is what it verifies the certificate for, localhost where it is
	// empty. From TLS 1.0 on it is sent too, unless NoServerName is set.
	ServerName   string
	NoServerName bool
}

// Met is what a client met.
type Met struct {
	// LoggedIn: it came through to its mail; Messages says how much.
	LoggedIn bool
	Messages string
	// Version that was negotiated; NoVersion where TLS was not completed.
	Version policy.Version
	// Alert is the alert of RFC 8446, Section 6.2 that it was sent; -1 for none.
	Alert int
	// Text is the line with which it was turned away inside TLS.
	Text string
	// LocalPort of the client's end.
	LocalPort uint16
}

// Is reports whether a client of that generation met what the outcome says.
func (m Met) Is(o proxy.Outcome, generation policy.Version) bool {
	switch o {
	case proxy.Rejected:
		return m.Alert == 70 // protocol_version
	case proxy.Explained:
		return m.Version == generation && m.Text != ""
	}
	return m.LoggedIn && m.Version == generation
}

// timeout bounds a whole visit.
const timeout = 10 * time.Second

// Visit connects to a listener of the protocol imap or pop3 at addr, with
// STARTTLS or STLS first where startTLS is set. An error means that neither
// mail nor a clear refusal was met.
func (c Client) Visit(addr, protocol string, startTLS bool) (Met, error) {
	m := Met{Alert: -1}
	dialer := net.Dialer{Timeout: timeout}
	if c.From.IsValid() {
		dialer.LocalAddr = net.TCPAddrFromAddrPort(netip.AddrPortFrom(c.From, 0))
	}
	nc, err := dialer.Dial("tcp", addr)
	if err != nil {
		return m, fmt.Errorf("dialing the gate: %w", err)
	}
	defer nc.Close()
	nc.SetDeadline(time.Now().Add(timeout))
	m.LocalPort = nc.LocalAddr().(*net.TCPAddr).AddrPort().Port()
	d := dialogue{protocol: protocol, rw: nc, in: bufio.NewReader(nc)}
	if startTLS {
		if err := d.startTLS(); err != nil {
			return m, err
		}
	}
	if c.Generation < policy.TLS10 {
		return m, c.firstFlight(nc, &m)
	}
	tap := &alertTap{Conn: nc}
	tc := tls.Client(tap, c.config())
	if err := tc.Handshake(); err != nil {
		if m.Alert = tap.alert(); m.Alert < 0 {
			return m, fmt.Errorf("shaking hands: %w", err)
		}
		return m, nil
	}
	m.Version = policy.Version(tc.ConnectionState().Version)
	inside := dialogue{protocol: protocol, rw: tc, in: bufio.NewReader(tc)}
	if err := inside.readMail(c, &m, !startTLS); err != nil {
		return m, fmt.Errorf("reading mail: %w", err)
	}
	return m, nil
}

// firstFlight sends what an SSL 2.0 or SSL 3.0 client sends first.
func (c Client) firstFlight(nc net.Conn, m *Met) error {
	flight := hello.SSLv2()
	if c.Generation == policy.SSL3 {
		flight = hello.ClientHello(hello.Typical(uint16(policy.SSL3)))
	}
	if _, err := nc.Write(flight); err != nil {
		return fmt.Errorf("sending the hello: %w", err)
	}
	a, err := hello.ReadAnswer(nc)
	if err != nil {
		return fmt.Errorf("reading the answer: %w", err)
	}
	if a.Kind != hello.Alert {
		return fmt.Errorf("the answer is no alert: %s", a.Kind)
	}
	m.Alert = int(a.Alert)
	return nil
}

func (c Client) config() *tls.Config {
	v := uint16(c.Generation)
	config := &tls.Config{
		ServerName: cmp.Or(c.ServerName, "localhost"), RootCAs: c.Roots, MinVersion: v, MaxVersion: v,
		CipherSuites: hello.Typical(v).CipherSuites,
	}
	if c.NoServerName {
		// crypto/tls verifies for the name that it sends, so here it is done by
		// hand.
		verify := x509.VerifyOptions{DNSName: config.ServerName, Roots: c.Roots}
		config.ServerName, config.InsecureSkipVerify = "", true
		config.VerifyConnection = func(cs tls.ConnectionState) error {
			_, err := cs.PeerCertificates[0].Verify(verify)
			return err
		}
	}
	return config
}

// dialogue is a line dialogue with a mail server.
type dialogue struct {
	protocol string
	rw       io.ReadWriter
	in       *bufio.Reader
}

func (d *dialogue) line() (string, error) {
	line, err := d.in.ReadString('\n')
	if err != nil {
		return line, fmt.Errorf("reading a line: %w", err)
	}
	return strings.TrimRight(line, "\r\n"), nil
}

// ask sends a command and returns the line that answers it; for IMAP the
// tagged one, and the untagged ones before it.
func (d *dialogue) ask(command string) (answer string, untagged []string, err error) {
	tag := ""
	if d.protocol == "imap" {
		tag = "a "
	}
	if _, err := io.WriteString(d.rw, tag+command+"\r\n"); err != nil {
		return "", nil, err
	}
	for {
		line, err := d.line()
		if err != nil || strings.HasPrefix(line, tag) {
			return line, untagged, err
		}
		untagged = append(untagged, line)
	}
}

func (d *dialogue) startTLS() error {
	if _, err := d.line(); err != nil {
		return err
	}
	command, good := "STARTTLS", "a OK"
	if d.protocol == "pop3" {
		command, good = "STLS", "+OK"
	}
	answer, _, err := d.ask(command)
	if err == nil && !strings.HasPrefix(answer, good) {
		err = fmt.Errorf("%s is answered %q", command, answer)
	}
	return err
}

// readMail logs in and counts the messages. Being turned away in words is no
// error.
func (d *dialogue) readMail(c Client, m *Met, greeted bool) error {
	first, err := d.first(greeted)
	if err != nil {
		return err
	}
	if strings.HasPrefix(first, "* BYE") || strings.HasPrefix(first, "-ERR") {
		m.Text = first
		return nil
	}
	commands := []string{"LOGIN " + c.Account + " " + c.Password, "SELECT INBOX", "LOGOUT"}
	if c.Software != "" {
		commands = slices.Insert(commands, 1, fmt.Sprintf("ID (\"name\" %q)", c.Software))
	}
	if d.protocol == "pop3" {
		commands = []string{"USER " + c.Account, "PASS " + c.Password, "STAT", "QUIT"}
	}
	for _, command := range commands {
		answer, untagged, err := d.ask(command)
		if err != nil {
			return err
		}
		good := strings.HasPrefix(answer, "+OK") || strings.HasPrefix(answer, "a OK")
		if !good && !strings.HasPrefix(command, "ID ") { // not every server knows ID
			return errors.New(answer)
		}
		switch {
		case strings.HasPrefix(command, "SELECT"):
			m.Messages = exists(untagged)
		case command == "STAT":
			m.Messages = strings.Fields(answer + " ? ?")[1]
		}
	}
	m.LoggedIn = true
	return nil
}

// first is the server's first line inside TLS. After STARTTLS there is no
// greeting, but there may be a goodbye: a command brings out which.
func (d *dialogue) first(greeted bool) (string, error) {
	if !greeted {
		command := "a NOOP\r\n"
		if d.protocol == "pop3" {
			command = "CAPA\r\n"
		}
		if _, err := io.WriteString(d.rw, command); err != nil {
			return "", err
		}
	}
	line, err := d.line()
	for more := line; err == nil && d.protocol == "pop3" && !greeted && line[0] == '+' && more != "."; {
		more, err = d.line()
	}
	return line, err
}

func exists(untagged []string) string {
	for _, line := range untagged {
		if n, ok := strings.CutSuffix(line, " EXISTS"); ok {
			return strings.TrimPrefix(n, "* ")
		}
	}
	return "?"
}

// alertTap remembers whether the last thing that came was an alert in clear.
type alertTap struct {
	net.Conn
	tail []byte
}

const alertRecord = 7

func (t *alertTap) Read(p []byte) (int, error) {
	n, err := t.Conn.Read(p)
	t.tail = append(t.tail, p[:n]...)
	t.tail = t.tail[max(0, len(t.tail)-alertRecord):]
	return n, err
}

// alert is the description of the alert, or -1.
func (t *alertTap) alert() int {
	const typeAlert = 21
	if len(t.tail) < alertRecord || t.tail[0] != typeAlert || t.tail[4] != 2 {
		return -1
	}
	return int(t.tail[6])
}
