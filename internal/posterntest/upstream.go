package posterntest

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// Hangup, as a reply of a scripted upstream, closes the connection.
const Hangup = "\x00hangup"

// Upstream is a plain-text mail server that a test scripts. It records all
// that it receives.
type Upstream struct {
	listener net.Listener
	handler  func(net.Conn)
	wg       sync.WaitGroup

	mu       sync.Mutex
	open     map[net.Conn]bool
	received []*bytes.Buffer
}

// StartUpstream greets every connection with greeting, as it stands, and
// answers each line (given without its line end) with what reply returns: an
// empty reply says nothing, Hangup closes.
func StartUpstream(t testing.TB, greeting string, reply func(line string) string) *Upstream {
	t.Helper()
	return StartRawUpstream(t, func(c net.Conn) { serveLines(c, greeting, reply) })
}

func serveLines(c net.Conn, greeting string, reply func(line string) string) {
	if _, err := io.WriteString(c, greeting); err != nil {
		return
	}
	r := bufio.NewReader(c)
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			return
		}
		answer := reply(strings.TrimRight(line, "\r\n"))
		if answer == Hangup {
			return
		}
		if _, err := io.WriteString(c, answer); err != nil {
			return
		}
	}
}

// StartRawUpstream hands every connection to handler and closes it when that
// returns. The test's end closes all of them.
func StartRawUpstream(t testing.TB, handler func(net.Conn)) *Upstream {
	t.Helper()
	u := &Upstream{listener: listen(t), handler: handler, open: make(map[net.Conn]bool)}
	u.wg.Go(u.accept)
	t.Cleanup(u.Close)
	return u
}

// listen listens on a port that no client and nobody else gets while the upstream is
// closed.
func listen(t testing.TB) net.Listener {
	t.Helper()
	for try := 1; ; try++ {
		l, err := net.Listen("tcp", FreeAddr(t))
		if err == nil {
			return l
		}
		if try == startTries {
			t.Fatal(err)
		}
	}
}

func (u *Upstream) accept() {
	for {
		c, err := u.listener.Accept()
		if err != nil {
			return
		}
		seen := new(bytes.Buffer)
		u.mu.Lock()
		u.received = append(u.received, seen)
		first := len(u.received) == 1
		u.open[c] = true
		u.mu.Unlock()
		u.wg.Go(func() {
			defer u.drop(c)
			u.handler(&recordingConn{Conn: c, upstream: u, seen: seen, first: first})
		})
	}
}

func (u *Upstream) drop(c net.Conn) {
	c.Close()
	u.mu.Lock()
	delete(u.open, c)
	u.mu.Unlock()
}

// Close stops listening, closes what is open, and waits for the handlers.
func (u *Upstream) Close() {
	u.listener.Close()
	u.CloseConnections()
	u.wg.Wait()
}

// Reopen listens again on the address of an upstream that was closed.
func (u *Upstream) Reopen(t testing.TB) {
	t.Helper()
	l, err := net.Listen("tcp", u.Addr())
	if err != nil {
		t.Fatal(err)
	}
	u.listener = l
	u.wg.Go(u.accept)
}

// Open is how many connections are open now.
func (u *Upstream) Open() int {
	u.mu.Lock()
	defer u.mu.Unlock()
	return len(u.open)
}

// CloseConnections closes what is open, and goes on listening.
func (u *Upstream) CloseConnections() {
	u.mu.Lock()
	defer u.mu.Unlock()
	for c := range u.open {
		c.Close()
	}
}

// Addr is the host:port of the upstream.
func (u *Upstream) Addr() string { return u.listener.Addr().String() }

// URL is the upstream's address under a scheme, such as imap or pop3.
func (u *Upstream) URL(scheme string) string { return scheme + "://" + u.Addr() }

// Connections is how many were accepted so far. A proxy that has become ready
// has connected at least once.
func (u *Upstream) Connections() int {
	u.mu.Lock()
	defer u.mu.Unlock()
	return len(u.received)
}

// Received is what connection i, from 0, has sent so far.
func (u *Upstream) Received(i int) []byte {
	u.mu.Lock()
	defer u.mu.Unlock()
	if i >= len(u.received) {
		return nil
	}
	return bytes.Clone(u.received[i].Bytes())
}

// ReceivedAll is what all connections have sent so far, in their order.
func (u *Upstream) ReceivedAll() []byte {
	u.mu.Lock()
	defer u.mu.Unlock()
	var all []byte
	for _, b := range u.received {
		all = append(all, b.Bytes()...)
	}
	return all
}

// FromClients is how many connections were accepted that are not the prober's, or not
// known to be so yet. A prober that gives up has said a part of what it says.
func (u *Upstream) FromClients() int {
	u.mu.Lock()
	defer u.mu.Unlock()
	n := 0
	for _, b := range u.received {
		if b.Len() == 0 || !slices.ContainsFunc(probes, func(p string) bool { return strings.HasPrefix(p, b.String()) }) {
			n++
		}
	}
	return n
}

// probes are what the prober says to a server that answers it.
var probes = []string{"postern CAPABILITY\r\npostern LOGOUT\r\n", "CAPA\r\nQUIT\r\n"}

// ReceivedFromClients is ReceivedAll without the connections of the prober.
func (u *Upstream) ReceivedFromClients() []byte {
	u.mu.Lock()
	defer u.mu.Unlock()
	var all []byte
	for _, b := range u.received {
		if !slices.ContainsFunc(probes, func(p string) bool { return strings.HasPrefix(p, b.String()) }) {
			all = append(all, b.Bytes()...)
		}
	}
	return all
}

// probeTime is how long the prober takes to ask, once it is greeted.
const probeTime = 100 * time.Millisecond

// AnswerProbe answers on a connection that has been greeted if it is the prober's, as
// the first one is, however long it takes. It returns any other, from which nothing has
// been read as its reader sees it.
func AnswerProbe(c net.Conn) net.Conn {
	in, wait := bufio.NewReader(c), probeTime
	if r, ok := c.(*recordingConn); ok && r.first {
		wait = pollTimeout
	}
	c.SetReadDeadline(time.Now().Add(wait))
	begin, _ := in.Peek(len("CAPA\r\n"))
	c.SetReadDeadline(time.Time{})
	switch string(begin) {
	case "poster":
		io.WriteString(c, "* CAPABILITY IMAP4rev1\r\npostern OK done\r\n")
	case "CAPA\r\n":
		io.WriteString(c, "+OK\r\nUSER\r\n.\r\n")
	default:
		return peeked{c, in}
	}
	io.Copy(io.Discard, in)
	return nil
}

// peeked is a connection of which something has been read ahead.
type peeked struct {
	net.Conn
	in *bufio.Reader
}

func (c peeked) Read(p []byte) (int, error) { return c.in.Read(p) }

// CloseWrite sends FIN and leaves the other direction open.
func (c peeked) CloseWrite() error { return c.Conn.(interface{ CloseWrite() error }).CloseWrite() }

// recordingConn keeps what is read from it. It hides no method of a TCP
// connection that handlers need but CloseWrite, which it passes on.
type recordingConn struct {
	net.Conn
	upstream *Upstream
	seen     *bytes.Buffer
	first    bool
}

func (c *recordingConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.upstream.mu.Lock()
	c.seen.Write(p[:n])
	c.upstream.mu.Unlock()
	return n, err
}

// CloseWrite sends FIN and leaves the other direction open.
func (c *recordingConn) CloseWrite() error { return c.Conn.(*net.TCPConn).CloseWrite() }

// IMAPReply answers as a small IMAP server does: it knows CAPABILITY, NOOP,
// LOGIN, LOGOUT and little else, and accepts every password.
func IMAPReply(line string) string {
	tag, rest, _ := strings.Cut(line, " ")
	verb, _, _ := strings.Cut(rest, " ")
	switch strings.ToUpper(verb) {
	case "CAPABILITY":
		return "* CAPABILITY IMAP4rev1 ID\r\n" + tag + " OK done\r\n"
	case "ID":
		return "* ID NIL\r\n" + tag + " OK done\r\n"
	case "LOGIN":
		return tag + " OK [CAPABILITY IMAP4rev1 ID] logged in\r\n"
	case "LOGOUT":
		return "* BYE until next time\r\n" + tag + " OK done\r\n"
	case "NOOP":
		return tag + " OK done\r\n"
	}
	return tag + " BAD not known here\r\n"
}

// IMAPGreeting goes with IMAPReply.
const IMAPGreeting = "* OK [CAPABILITY IMAP4rev1 ID] upstream ready\r\n"

// POP3Reply answers as a small POP3 server does: it accepts every password.
func POP3Reply(line string) string {
	verb, _, _ := strings.Cut(line, " ")
	switch strings.ToUpper(verb) {
	case "CAPA":
		return "+OK\r\nUSER\r\nPIPELINING\r\n.\r\n"
	case "USER", "PASS", "NOOP", "QUIT":
		return "+OK\r\n"
	case "STAT":
		return "+OK 0 0\r\n"
	}
	return "-ERR not known here\r\n"
}

// POP3Greeting goes with POP3Reply.
const POP3Greeting = "+OK upstream ready\r\n"

// StartTLSUpstream is StartUpstream behind implicit TLS. What it records is
// what comes over the wire.
func StartTLSUpstream(t testing.TB, config *tls.Config, greeting string, reply func(line string) string) *Upstream {
	t.Helper()
	return StartRawUpstream(t, func(c net.Conn) { serveLines(tls.Server(c, config), greeting, reply) })
}
