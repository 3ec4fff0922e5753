package upstream

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"strings"
	"sync/atomic"
	"testing"

	"postern/internal/posterntest"
)

// trap is a server with STARTTLS or STLS, where what it says before is marked
// and its answer to the command can be chosen.
type trap struct {
	*posterntest.Upstream
	config *tls.Config
	play   atomic.Pointer[play]
}

// play is what a trap says before TLS; {tag} in its answer is the client's.
type play struct{ greeting, answer string }

// mark is in everything that a trap says before TLS.
const mark = "X-BEFORE-TLS"

var honest = map[string]play{
	"imap": {"* OK [CAPABILITY IMAP4rev1 STARTTLS LITERAL+ " + mark + "] " + mark + "\r\n", "{tag} OK " + mark + "\r\n"},
	"pop3": {"+OK <1896.697170952@" + mark + ">\r\n", "+OK " + mark + "\r\n"},
}

func startTrap(t *testing.T, protocol string, pair posterntest.Pair) *trap {
	t.Helper()
	u := &trap{config: &tls.Config{Certificates: []tls.Certificate{pair.Load(t)}}}
	p := honest[protocol]
	u.play.Store(&p)
	u.Upstream = posterntest.StartRawUpstream(t, func(c net.Conn) { u.serve(c, protocol) })
	return u
}

func (u *trap) serve(c net.Conn, protocol string) {
	p := u.play.Load()
	io.WriteString(c, p.greeting)
	in := bufio.NewReader(c)
	for {
		line, err := in.ReadString('\n')
		if err != nil {
			return
		}
		tag, command, _ := strings.Cut(strings.TrimRight(line, "\r\n"), " ")
		if protocol == "pop3" {
			tag, command = "", tag
		}
		switch command {
		case "STARTTLS", "STLS":
			said := strings.ReplaceAll(p.answer, "{tag}", tag)
			io.WriteString(c, said)
			if !strings.HasPrefix(said, tag+" OK") && !strings.HasPrefix(said, "+OK") {
				continue
			}
		default:
			io.WriteString(c, dialogues[protocol].reply(line))
			continue
		}
		break
	}
	secured := tls.Server(c, u.config)
	if secured.Handshake() == nil {
		answer(secured, dialogues[protocol].reply) // no greeting inside TLS
	}
}

func TestAnUpstreamThatPlaysWithSTARTTLSIsRefused(t *testing.T) {
	t.Parallel()
	const after = "* CAPABILITY IMAP4rev1 AUTH=" + mark + "\r\n"
	plays := map[string]map[string]play{
		"imap": {
			"missing":  {"* OK [CAPABILITY IMAP4rev1 " + mark + "] " + mark + "\r\n", "{tag} BAD " + mark + "\r\n"},
			"no":       {honest["imap"].greeting, "{tag} NO " + mark + "\r\n"},
			"preauth":  {"* PREAUTH [CAPABILITY IMAP4rev1 STARTTLS " + mark + "] " + mark + "\r\n", honest["imap"].answer},
			"injected": {honest["imap"].greeting, honest["imap"].answer + after},
			"bye":      {"* BYE " + mark + "\r\n", ""},
		},
		"pop3": {
			"missing":  {honest["pop3"].greeting, "-ERR " + mark + "\r\n"},
			"injected": {honest["pop3"].greeting, honest["pop3"].answer + "+OK " + mark + "\r\n"},
			"bye":      {"-ERR " + mark + "\r\n", ""},
		},
	}
	reasons := map[string]string{"preauth": "preauth", "bye": "refused"}
	ca := posterntest.NewCA(t)
	for protocol, plays := range plays {
		t.Run(protocol, func(t *testing.T) {
			t.Parallel()
			u := startTrap(t, protocol, ca.Issue(t, []string{"127.0.0.1"}, posterntest.ECDSA))
			url := u.URL(protocol + "+starttls")
			g := posterntest.Start(t, map[string]string{
				"UPSTREAM_" + strings.ToUpper(protocol): url, "UPSTREAM_CA_FILE": ca.File,
			})
			told := make(map[string]string) // what the log says, by play
			for name, p := range plays {
				isUp(t, g, url, 1)
				reason := "starttls"
				if r, ok := reasons[name]; ok {
					reason = r
				}
				before := len(failuresLogged(g, url, reason))
				u.play.Store(&p)
				for _, listener := range listenersOf(protocol) {
					expectUnavailable(t, g, listener)
				}
				said := failureLogged(t, g, url, reason, before)
				for other, same := range told {
					if same == said {
						t.Errorf("the log tells %s and %s in the same words: %q", name, other, said)
					}
				}
				told[name] = said
				noSecret(t, u.Upstream)
				back := honest[protocol]
				u.play.Store(&back)
			}
			isUp(t, g, url, 1)
			for _, listener := range listenersOf(protocol) {
				serves(t, g, listener)
			}
		})
	}
}

func TestNothingFromBeforeTheUpstreamsTLSReachesTheClient(t *testing.T) {
	t.Parallel()
	ca := posterntest.NewCA(t)
	pair := ca.Issue(t, []string{"127.0.0.1"}, posterntest.ECDSA)
	imap, pop3 := startTrap(t, "imap", pair), startTrap(t, "pop3", pair)
	g := posterntest.Start(t, map[string]string{
		"UPSTREAM_IMAP": imap.URL("imap+starttls"), "UPSTREAM_POP3": pop3.URL("pop3+starttls"), "UPSTREAM_CA_FILE": ca.File,
	})
	for _, listener := range posterntest.Listeners {
		conn := tls.Client(g.DialForTLS(t, listener), &tls.Config{RootCAs: g.CA.Pool, ServerName: "localhost"})
		whole := "a CAPABILITY\r\nb LOGIN anna password\r\nc NOOP\r\nd LOGOUT\r\n"
		if strings.HasPrefix(listener, "pop3") {
			whole = "CAPA\r\nUSER anna\r\nPASS password\r\nNOOP\r\n"
		}
		fmt.Fprint(conn, whole)
		conn.CloseWrite()
		got, err := io.ReadAll(conn)
		if err != nil {
			t.Errorf("%s: %v", listener, err)
		}
		if bytes.Contains(got, []byte(mark)) {
			t.Errorf("%s: the client was told what stood before TLS: %q", listener, got)
		}
		if !bytes.HasSuffix(got, []byte("OK done\r\n")) && !bytes.HasSuffix(got, []byte("+OK\r\n+OK\r\n+OK\r\n")) {
			t.Errorf("%s: the session went wrong: %q", listener, got)
		}
		if listener == "imaps" && !bytes.HasPrefix(got, []byte("* OK [CAPABILITY IMAP4rev1 ID] ")) {
			t.Errorf("%s: the greeting does not tell what is true inside TLS: %q", listener, got)
		}
	}
}
