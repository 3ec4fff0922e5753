package proxy

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"postern/internal/mailproto"
	"postern/internal/netpoll"
)

// upstreamConn is a connection to an upstream, until its end.
type upstreamConn struct {
	io.ReadWriter // inside TLS, where there is any, else raw
	raw           *netpoll.Conn
	// tls is nil where the line is plain.
	tls   *tls.Conn
	up    *upstream
	lines *mailproto.Dialogue // until login
	once  sync.Once
}

// CloseWrite tells the upstream that nothing more comes.
func (c *upstreamConn) CloseWrite() error {
	if c.tls != nil {
		c.tls.CloseWrite()
	}
	return c.raw.CloseWrite()
}

// Close may be called more than once.
func (c *upstreamConn) Close() error {
	c.once.Do(func() {
		c.up.connections.Add(-1)
		if c.tls != nil {
			c.raw.ShortenDeadline(lingerTime)
			c.tls.CloseWrite()
		}
	})
	return c.raw.Close()
}

// greeting is an upstream's first line inside TLS, where there is any: as it came, and
// as a client may see it. said is its first line of all.
type greeting struct{ line, shown, said []byte }

// upstreamError is a failed attempt, with its name.
type upstreamError struct {
	reason UpstreamFailure
	err    error
}

func (e *upstreamError) Error() string { return e.err.Error() }
func (e *upstreamError) Unwrap() error { return e.err }

// Answer is what an upstream says to one who asks.
type Answer struct {
	// Greeting is its first line.
	Greeting string
	// Capabilities are those of IMAP, or the lines of CAPA in POP3; nil where it tells
	// none.
	Capabilities []string
	// ID is its reply to an ID with a client's address, if that is configured.
	ID string
}

// Ask connects to an upstream as for a client whose side is secured, and asks for its
// capabilities: one that greets may yet refuse what follows. Of cfg it uses what is about
// upstreams.
func Ask(ctx context.Context, cfg Config, p Protocol, u UpstreamConfig) (Answer, error) {
	idleSet, err := netpoll.NewIdleSet()
	if err != nil {
		return Answer{}, err
	}
	go idleSet.Run()
	defer idleSet.Close()
	up := &upstream{UpstreamConfig: u}
	srv := &Server{cfg: cfg, ctx: ctx, idleSet: idleSet, upstreams: map[Protocol][]*upstream{p: {up}}}
	srv.SetUpstreamRoots(cfg.UpstreamRoots)
	return srv.ask(up, dialectOf(p), true, func() {})
}

// elsewhere is a client of another host, by whether it has IPv4 (RFC 5737, RFC 3849).
var elsewhere = map[bool]netip.Addr{true: netip.MustParseAddr("192.0.2.1"), false: netip.MustParseAddr("2001:db8::1")}

// ask is Ask for a server; it tells when the upstream has greeted. The upstream is told
// the addresses of the connection itself. Where both are one and it is asked as by a
// stranger, it is told another client: Dovecot takes such a line for secured.
func (srv *Server) ask(up *upstream, d dialect, stranger bool, greeted func()) (a Answer, err error) {
	c, stop, err := srv.reach(up, srv.cfg.UpstreamTimeout, srv.cfg.UpstreamTimeout)
	if err != nil {
		return a, err
	}
	defer c.Close()
	defer stop()
	client, destination := netpoll.AddrPort(c.raw.LocalAddr()), netpoll.AddrPort(c.raw.RemoteAddr())
	if stranger && client.Addr() == destination.Addr() {
		client = netip.AddrPortFrom(elsewhere[client.Addr().Is4()], client.Port())
	}
	version := srv.cfg.UpstreamProxyProtocol
	header, err := OwnHeader(version, net.TCPAddrFromAddrPort(client), net.TCPAddrFromAddrPort(destination), true)
	if err != nil {
		return a, err
	}
	g, err := srv.converse(c, d, header)
	if err != nil {
		return a, up.advise(err, version > 0)
	}
	greeted()
	a.Greeting = string(g.said)
	if srv.cfg.UpstreamClientID {
		a.ID, err = d.identify(c, client, destination)
	}
	if err == nil {
		a.Capabilities, err = d.capabilities(c, version > 0)
	}
	if err == nil {
		return a, nil
	}
	if reasonOf(err) != UpstreamRefused {
		err = &upstreamError{dialFailure(err, UpstreamClosed), fmt.Errorf("asking for the capabilities after the greeting: %w", err)}
	}
	return a, up.advise(err, version > 0)
}

// refusedAfterGreeting is for an answer that refuses, or that nobody asked for.
func refusedAfterGreeting(command, answer string) error {
	return &upstreamError{UpstreamRefused, fmt.Errorf("upstream greets, but answers %s with %.80q", command, answer)}
}

// capabilities asks for the capabilities (RFC 9051, Section 6.1.1). Before their reply
// a server may send untagged data and an OK, but nothing that answers something else, as
// it would a PROXY header that it takes for a command.
func (imapDialect) capabilities(c *upstreamConn, _ bool) (list []string, err error) {
	const command = "CAPABILITY"
	reply, lines, err := c.lines.Say(command)
	for _, response := range lines {
		if tag, status := mailproto.IMAPStatus([]byte(response)); string(tag) != "*" || status != nil && !status.Is("OK") {
			return nil, refusedAfterGreeting(command, response)
		}
	}
	switch {
	case err != nil:
		return nil, err
	case !mailproto.Positive(reply):
		return nil, refusedAfterGreeting(command, reply)
	}
	io.WriteString(c, "postern LOGOUT\r\n") // it is closed in any case
	return mailproto.IMAPCapabilities(lines...), nil
}

// headerLines is how many commands a server may see in a PROXY header of version 2
// before the QUIT that is in it.
const headerLines = 3

// capabilities asks for the capabilities (RFC 2449, Section 5). Replies have no tags, and
// before RFC 2449 CAPA was refused: so a server that refuses it has to take its leave when
// told to, and to refuse CAPA once more than it can have refused a PROXY header.
func (pop3Dialect) capabilities(c *upstreamConn, header bool) (list []string, err error) {
	const command = "CAPA"
	reply, list, err := c.lines.Say(command)
	if err == nil && mailproto.Positive(reply) {
		io.WriteString(c, "QUIT\r\n") // it is closed in any case
		return list, nil
	}
	refused := func() bool { return err == nil && mailproto.IsPOP3Status([]byte(reply), "-ERR") }
	for i := 0; header && i < headerLines && refused(); i++ {
		reply, _, err = c.lines.Say(command)
	}
	if err != nil {
		return nil, err
	}
	refusal := refusedAfterGreeting(command, reply)
	if !refused() {
		return nil, refusal
	}
	if reply, _, err = c.lines.Say("QUIT"); err != nil || !mailproto.Positive(reply) {
		return nil, refusal
	}
	if header {
		if line, err := c.lines.Line(); err == nil {
			return nil, refusedAfterGreeting(command, string(mailproto.TrimLineEnd(line)))
		}
	}
	return nil, nil
}

// reach opens a connection to an upstream. The deadline of c is within from
// now, or the end of the server, until stop is called.
func (srv *Server) reach(up *upstream, dialWithin, within time.Duration) (c *upstreamConn, stop func() bool, err error) {
	begun := time.Now()
	dialer := net.Dialer{Deadline: begun.Add(dialWithin), KeepAlive: -1, Control: srv.notItself}
	nc, err := dialer.DialContext(srv.ctx, "tcp", up.Addr)
	if err != nil {
		return nil, nil, up.advise(&upstreamError{dialFailure(err, UpstreamDial), fmt.Errorf("dialing upstream: %w", err)}, false)
	}
	up.connections.Add(1)
	raw := &netpoll.Conn{Socket: nc.(*net.TCPConn), IdleSet: srv.idleSet}
	c = &upstreamConn{ReadWriter: raw, raw: raw, up: up}
	c.raw.SetDeadline(begun.Add(within))
	return c, context.AfterFunc(srv.ctx, func() { c.raw.SetDeadline(past) }), nil
}

// notItself keeps the server from a connection to a listener of its own, which would
// bring about the next one, without end.
func (srv *Server) notItself(_, address string, _ syscall.RawConn) error {
	to, err := netip.ParseAddrPort(address)
	for l, list := range srv.cfg.Listeners {
		if err == nil && slices.ContainsFunc(list, func(nl net.Listener) bool { return netpoll.Accepts(nl, to) }) {
			return fmt.Errorf("%w %s", errOwnListener, l)
		}
	}
	return nil
}

var errOwnListener = errors.New("this is the instance's own listener")

// converse is the dialogue with an upstream from the first byte to a greeting.
func (srv *Server) converse(c *upstreamConn, d dialect, header []byte) (g greeting, err error) {
	c.lines = mailproto.NewDialogue(c.raw)
	if len(header) > 0 {
		if _, err := c.raw.Write(header); err != nil {
			return g, &upstreamError{dialFailure(err, UpstreamClosed), fmt.Errorf("sending the PROXY header: %w", err)}
		}
	}
	if c.up.TLS == LineTLS {
		if err := c.secure(); err != nil {
			return g, err
		}
	}
	if g, err = readGreeting(c, d); err != nil || c.up.TLS != LineStartTLS {
		return g, err
	}
	// What was said so far was said to anybody, and counts for nothing.
	if err = c.lines.StartTLS(""); err == nil && c.raw.Pending() {
		err = mailproto.ErrInjectedReply
	}
	if err != nil {
		return greeting{}, &upstreamError{dialFailure(err, UpstreamStartTLS), fmt.Errorf("asking the upstream for TLS: %w", err)}
	}
	if err := c.secure(); err != nil {
		return greeting{}, err
	}
	said := g.said
	if g, err = d.greetAgain(c); err != nil {
		return greeting{}, &upstreamError{dialFailure(err, UpstreamGreeting), fmt.Errorf("asking the upstream inside TLS: %w", err)}
	}
	g.said = said
	return g, nil
}

// secure does TLS with an upstream; its certificate is always verified.
func (c *upstreamConn) secure() error {
	tc := tls.Client(c.raw, c.up.config.Load())
	if err := tc.Handshake(); err != nil {
		return &upstreamError{dialFailure(err, UpstreamTLS), fmt.Errorf("TLS with the upstream: %w", err)}
	}
	c.tls, c.ReadWriter = tc, tc
	c.lines.Inside(tc)
	return nil
}

func readGreeting(c *upstreamConn, d dialect) (greeting, error) {
	line, err := c.lines.Greeting()
	if err != nil {
		return greeting{}, &upstreamError{dialFailure(err, UpstreamClosed), fmt.Errorf("reading the upstream's greeting: %w", err)}
	}
	g := greeting{line: []byte(line)}
	g.said = g.line
	shown, failure := d.judgeGreeting(g.line)
	if g.shown = shown; failure != "" {
		if c.up.TLS == LineStartTLS {
			g.shown = nil // before TLS anybody may have said it
		}
		err := fmt.Errorf("upstream greets with %.80q", g.line)
		for _, p := range []Protocol{ProtocolIMAP, ProtocolPOP3} {
			if _, other := dialectOf(p).judgeGreeting(g.line); failure == UpstreamGreeting && other == "" {
				err = fmt.Errorf("%w, which is %s: name the server's other port, or move the URL to the variable of that protocol", err, strings.ToUpper(string(p)))
			}
		}
		return g, &upstreamError{failure, err}
	}
	return g, nil
}

// TrustHeader says how a mail server is made to take PROXY headers from Postern.
const TrustHeader = "Dovecot: haproxy = yes on this listener, and this host in haproxy_trusted_networks; see deploy/dovecot-proxy.conf"

// advise adds to the error of a connection what is most often wrong.
func (up *upstream) advise(err error, header bool) error {
	const prefix, variable = "POSTERN_UPSTREAM_", "POSTERN_UPSTREAM_PROXY_PROTOCOL"
	scheme, _, _ := strings.Cut(up.Name, ":")
	protocol := strings.TrimSuffix(strings.TrimSuffix(scheme, "+starttls"), "s")
	its := prefix + strings.ToUpper(protocol)
	if up.passedFrom != "" {
		its = prefix + "PASSTHROUGH_" + strings.ToUpper(string(up.passedFrom))
	}
	reason, advice := reasonOf(err), ""
	op, isOp := errors.AsType[*net.OpError](err)
	dialling := isOp && op.Op == "dial"
	var notTLS tls.RecordHeaderError
	var wrongName x509.HostnameError
	var unknown x509.UnknownAuthorityError
	switch {
	case errors.Is(err, errOwnListener):
		advice = "name the mail server's port in " + its
	case errors.Is(err, syscall.ECONNREFUSED) && dialling:
		advice = "nothing listens there: start the mail server, or name its port in " + its
	case dialling:
		advice = "is its address right in " + its + ", and does no firewall stand between?"
	case reason == UpstreamPreauth:
		advice = "everybody would be logged in as somebody: let it ask for a login"
	case errors.As(err, &wrongName) && len(wrongName.Certificate.DNSNames) > 0:
		advice = "set POSTERN_UPSTREAM_SERVER_NAME to a name in its certificate: " + strings.Join(wrongName.Certificate.DNSNames, " or ")
	case errors.As(err, &wrongName):
		advice = "no host name is in its certificate: have one issued with a subjectAltName"
	case errors.As(err, &unknown) && unknown.Cert != nil:
		advice = fmt.Sprintf("put the certificate of its CA (%s) into the file of POSTERN_UPSTREAM_CA_FILE", unknown.Cert.Issuer)
	case errors.As(err, new(x509.CertificateInvalidError)):
		advice = "give that server a certificate that is valid"
	case errors.Is(err, mailproto.ErrNoStartTLS):
		advice = fmt.Sprintf("write %[1]ss:// and its port for TLS, or %[1]s:// on loopback", protocol)
	case reason == UpstreamStartTLS:
	case header:
		advice = "set " + variable + "=off if it expects no PROXY header, else have it trust this host with one (" + TrustHeader + ")"
	case errors.As(err, &notTLS):
		advice = fmt.Sprintf("it does not begin with TLS here: write %[1]s+starttls://, %[1]s:// on loopback, or name its port for TLS", protocol)
	case up.TLS != LineTLS && (reason == UpstreamClosed || reason == UpstreamTimeout):
		advice = fmt.Sprintf("write %ss://%s if it is a port for TLS, or set %s=v2 if it waits for a PROXY header", protocol, up.Addr, variable)
	case reason == UpstreamClosed, reason == UpstreamTimeout, reason == UpstreamTLS:
		advice = fmt.Sprintf("set %s=v2 if it waits for a PROXY header, or write %s+starttls:// if it is no port for TLS", variable, protocol)
	}
	if advice == "" {
		return err
	}
	return &upstreamError{reason, fmt.Errorf("%w; %s", err, advice)}
}

func dialFailure(err error, otherwise UpstreamFailure) UpstreamFailure {
	nerr, ok := errors.AsType[net.Error](err)
	switch {
	case ok && nerr.Timeout():
		return UpstreamTimeout
	case err == mailproto.ErrLineTooLong:
		return UpstreamGreeting
	}
	return otherwise
}

// reasonOf names a failed attempt.
func reasonOf(err error) UpstreamFailure {
	if uerr, ok := errors.AsType[*upstreamError](err); ok {
		return uerr.reason
	}
	return UpstreamDial
}
