package proxy

import (
	"crypto/tls"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"postern/internal/mailproto"
	"postern/internal/posterntest"
	"postern/policy"
)

// talk is a dialogue: what the client says, and what the upstream answers once
// it has that.
type talk [][2]string

func (d talk) said() (all string) {
	for _, step := range d {
		all += step[0]
	}
	return all
}

func (d talk) answers() (all string) {
	for _, step := range d {
		all += step[1]
	}
	return all
}

// talker is the upstream of a dialogue. It takes no byte for another one.
type talker struct {
	*posterntest.Upstream
	mu   sync.Mutex
	talk talk
}

func startTalker(t *testing.T, greeting string) *talker {
	up := &talker{}
	up.Upstream = posterntest.StartRawUpstream(t, func(c net.Conn) {
		io.WriteString(c, greeting)
		up.mu.Lock()
		d := up.talk
		up.mu.Unlock()
		for _, step := range d {
			said := make([]byte, len(step[0]))
			if _, err := io.ReadFull(c, said); err != nil || string(said) != step[0] {
				return
			}
			io.WriteString(c, step[1])
		}
		io.Copy(io.Discard, c)
	})
	return up
}

// talks is a proxy with two talkers.
type talks struct {
	*Proxy
	up     map[Protocol]*talker
	closed int
}

func startTalks(t *testing.T, identity bool) *talks {
	up := map[Protocol]*talker{ProtocolIMAP: startTalker(t, posterntest.IMAPGreeting), ProtocolPOP3: startTalker(t, posterntest.POP3Greeting)}
	return &talks{up: up, Proxy: StartProxy(t, policy.Observe, up[ProtocolIMAP].Addr(), up[ProtocolPOP3].Addr(), func(c *Config) { c.Identity = identity })}
}

// run has a dialogue, line by line or all of the client's at once, and returns
// what was reported of it.
func (g *talks) run(t *testing.T, config *tls.Config, l Listener, d talk, pipelined bool) reported {
	t.Helper()
	up := g.up[l.Protocol()]
	up.mu.Lock()
	up.talk = d
	up.mu.Unlock()
	nc := g.Dial(t, l)
	if !l.ImplicitTLS() {
		askTLS(nc, l)
	}
	c := newClient(tls.Client(nc, config))
	if l.ImplicitTLS() {
		c.ExpectLine(t, "")
	}
	if pipelined {
		go io.WriteString(c, d.said())
		d = talk{{"", d.answers()}}
	}
	for _, step := range d {
		c.Send(t, step[0])
		got := make([]byte, len(step[1]))
		if n, err := io.ReadFull(c, got); err != nil || string(got) != step[1] {
			t.Fatalf("to %.200q the client reads %q, %v, want %q", step[0], got[:n], err, step[1])
		}
	}
	c.Conn.(*tls.Conn).CloseWrite()
	io.Copy(io.Discard, c)
	c.Close()
	g.closed++
	return g.reportedOf(g.WaitClosed(t, g.closed))
}

// reported is what the observer was reported of a connection.
type reported struct {
	events                   string
	account, software, later string
	failed                   int
}

func (r *Recorder) reportedOf(c Closed) reported {
	r.mu.Lock()
	defer r.mu.Unlock()
	w := reported{failed: c.FailedLogins, events: strings.Join(r.events[c.ID], " ")}
	for _, l := range r.logins {
		if l.ID == c.ID {
			w.account, w.software = l.Account, l.Software
		}
	}
	for _, s := range r.software {
		if s.ID == c.ID {
			w.later = s.Software
			if s.Account != w.account {
				w.later = fmt.Sprintf("%s of %s", s.Software, s.Account)
			}
		}
	}
	return w
}

func b64(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }

// lit is a string as a literal whose header is answered.
func lit(s string) string { return fmt.Sprintf("{%d}\r\n", len(s)) }

// litPlus is one as a literal without synchronization.
func litPlus(s string) string { return fmt.Sprintf("{%d+}\r\n%s", len(s), s) }

const plus, okIn, noIn = "+ \r\n", "a OK in\r\n", "a NO no\r\n"

type identityCase struct {
	name string
	talk talk
	want reported
}

func imapIdentities() []identityCase {
	long := strings.Repeat("x", mailproto.MaxAccount)
	forged := "an\r\nna\x1b[31m<b>\"&"
	bearer := "\x01auth=Bearer " + strings.Repeat("t", 5000) + "\x01\x01"
	return []identityCase{
		{"atom", talk{{"a LOGIN anna secret\r\n", okIn}}, reported{account: "anna"}},
		{"an address, in small letters", talk{{"a login anna@example.org secret\r\n", okIn}}, reported{account: "anna@example.org"}},
		{"quoted", talk{{`a LOGIN "anna" "secret"` + "\r\n", okIn}}, reported{account: "anna"}},
		{"quoted, with escapes and a space", talk{{`a LOGIN "an\"n\\a b" secret` + "\r\n", okIn}}, reported{account: `an"n\a b`}},
		{"empty", talk{{`a LOGIN "" secret` + "\r\n", okIn}}, reported{}},
		{"literals", talk{{"a LOGIN " + lit("anna"), plus}, {"anna " + lit("secret"), plus}, {"secret\r\n", okIn}}, reported{account: "anna"}},
		{"literals without synchronization", talk{{"a LOGIN " + litPlus("anna") + " " + litPlus("secret") + "\r\n", okIn}}, reported{account: "anna"}},
		{"literal and quoted", talk{{"a LOGIN " + lit("anna"), plus}, {`anna "secret"` + "\r\n", okIn}}, reported{account: "anna"}},
		{"quoted and literal", talk{{`a LOGIN "anna" ` + lit("secret"), plus}, {"secret\r\n", okIn}}, reported{account: "anna"}},
		{"atom and literal", talk{{"a LOGIN anna " + litPlus("secret") + "\r\n", okIn}}, reported{account: "anna"}},
		{"empty literal", talk{{"a LOGIN {0+}\r\n " + litPlus("secret") + "\r\n", okIn}}, reported{}},
		{"the longest", talk{{"a LOGIN " + long + " secret\r\n", okIn}}, reported{account: long}},
		{"one longer", talk{{"a LOGIN " + long + "x secret\r\n", okIn}}, reported{}},
		{"64 KB", talk{{"a LOGIN " + lit(strings.Repeat("x", 64<<10)), plus}, {strings.Repeat("x", 64<<10) + " secret\r\n", okIn}}, reported{}},
		{"forged", talk{{"a LOGIN " + lit(forged), plus}, {forged + " secret\r\n", okIn}}, reported{account: forged}},
		{"a literal that is refused", talk{{"a LOGIN " + lit("bert"), noIn}, {"a LOGIN anna secret\r\n", okIn}}, reported{account: "anna", failed: 1}},
		{"wrong, then as somebody else", talk{{"a LOGIN bert wrong\r\n", noIn}, {"a LOGIN bert wrong\r\n", "a BAD no\r\n"}, {"a LOGIN anna secret\r\n", okIn}}, reported{account: "anna", failed: 2}},
		{"wrong by LOGIN, then by what is not known", talk{{"a LOGIN bert wrong\r\n", noIn}, {"a AUTHENTICATE GSSAPI YII=\r\n", okIn}}, reported{failed: 1}},
		{"something else is refused", talk{{"a SELECT INBOX\r\n", noIn}, {"a LOGIN anna secret\r\n", okIn}}, reported{account: "anna"}},
		{"PLAIN", talk{{"a AUTHENTICATE PLAIN\r\n", plus}, {b64("\x00anna\x00secret") + "\r\n", okIn}}, reported{account: "anna"}},
		{"PLAIN at once", talk{{"a authenticate plain " + b64("\x00anna\x00secret") + "\r\n", okIn}}, reported{account: "anna"}},
		{"PLAIN at once, in a literal", talk{{"a AUTHENTICATE PLAIN " + litPlus(b64("\x00anna\x00secret")) + "\r\n", okIn}}, reported{account: "anna"}},
		{"PLAIN, all in literals", talk{{"a AUTHENTICATE " + lit("PLAIN"), plus}, {"PLAIN " + lit(b64("\x00anna\x00secret")), plus}, {b64("\x00anna\x00secret") + "\r\n", okIn}}, reported{account: "anna"}},
		{"PLAIN, empty at first", talk{{"a AUTHENTICATE PLAIN =\r\n", plus}, {b64("\x00anna\x00secret") + "\r\n", okIn}}, reported{account: "anna"}},
		{"PLAIN for somebody else", talk{{"a AUTHENTICATE PLAIN " + b64("anna\x00admin\x00secret") + "\r\n", okIn}}, reported{account: "anna"}},
		{"PLAIN without a password", talk{{"a AUTHENTICATE PLAIN " + b64("anna\x00secret") + "\r\n", okIn}}, reported{}},
		{"PLAIN with a long password", talk{{"a AUTHENTICATE PLAIN " + b64("\x00anna\x00"+strings.Repeat("s", 9000)) + "\r\n", okIn}}, reported{account: "anna"}},
		{"PLAIN that is no base64", talk{{"a AUTHENTICATE PLAIN anna\x01secret\r\n", okIn}}, reported{}},
		{"SASL LOGIN", talk{{"a AUTHENTICATE LOGIN\r\n", "+ VXNlcm5hbWU6\r\n"}, {b64("anna") + "\r\n", "+ UGFzc3dvcmQ6\r\n"}, {b64("secret") + "\r\n", okIn}}, reported{account: "anna"}},
		{"SASL LOGIN at once", talk{{"a AUTHENTICATE LOGIN " + b64("anna") + "\r\n", plus}, {b64("secret") + "\r\n", okIn}}, reported{account: "anna"}},
		{"SASL LOGIN, empty at first", talk{{"a AUTHENTICATE LOGIN =\r\n", plus}, {b64("secret") + "\r\n", okIn}}, reported{}},
		{"SASL LOGIN, no base64 at first", talk{{"a AUTHENTICATE LOGIN\r\n", plus}, {"anna\x01\r\n", plus}, {b64("secret") + "\r\n", okIn}}, reported{}},
		{"XOAUTH2", talk{{"a AUTHENTICATE XOAUTH2 " + b64("user=anna@example.org"+bearer) + "\r\n", okIn}}, reported{account: "anna@example.org"}},
		{"XOAUTH2, asked", talk{{"a AUTHENTICATE XOAUTH2\r\n", plus}, {b64("user=anna"+bearer) + "\r\n", okIn}}, reported{account: "anna"}},
		{"XOAUTH2, an old token", talk{{"a AUTHENTICATE XOAUTH2 " + b64("user=bert"+bearer) + "\r\n", "+ eyJzdGF0dXMi\r\n"}, {"\r\n", noIn}, {"a AUTHENTICATE XOAUTH2 " + b64("user=anna"+bearer) + "\r\n", okIn}}, reported{account: "anna", failed: 1}},
		{"OAUTHBEARER", talk{{"a AUTHENTICATE OAUTHBEARER " + b64("n,a=an=2Cna=3Dx@example.org,\x01host=h\x01port=993"+bearer) + "\r\n", okIn}}, reported{account: "an,na=x@example.org"}},
		{"OAUTHBEARER without a name", talk{{"a AUTHENTICATE OAUTHBEARER " + b64("n,,"+bearer) + "\r\n", okIn}}, reported{}},
		{"SCRAM", talk{{"a AUTHENTICATE SCRAM-SHA-256\r\n", plus}, {b64("n,,n=an=2Cna,r=nonce") + "\r\n", "+ cj1u\r\n"}, {b64("c=biws,r=nonce,p=proof") + "\r\n", plus}, {"\r\n", okIn}}, reported{account: "an,na"}},
		{"SCRAM for somebody else", talk{{"a AUTHENTICATE SCRAM-SHA-1 " + b64("y,a=anna,n=admin,r=nonce") + "\r\n", okIn}}, reported{account: "anna"}},
		{"CRAM-MD5", talk{{"a AUTHENTICATE CRAM-MD5\r\n", "+ PDFAaD4=\r\n"}, {b64("an na "+strings.Repeat("0", 32)) + "\r\n", okIn}}, reported{account: "an na"}},
		{"GSSAPI", talk{{"a AUTHENTICATE GSSAPI " + b64("\x00anna\x00secret") + "\r\n", okIn}}, reported{}},
		{"cancelled", talk{{"a AUTHENTICATE LOGIN\r\n", plus}, {b64("bert") + "\r\n", plus}, {"*\r\n", "a BAD cancelled\r\n"}, {"a LOGIN anna secret\r\n", okIn}}, reported{account: "anna"}},
		{"ID", talk{{`a ID ("name" "Outlook" "version" "14.0" "vendor" "M")` + "\r\n", "a OK\r\n"}, {"a LOGIN anna secret\r\n", okIn}, {`b ID ("name" "x")` + "\r\n", "b OK\r\n"}}, reported{account: "anna", software: "Outlook 14.0"}},
		{"ID without a version", talk{{`a ID ("os" "x" "NAME" "Mail \"\\")` + "\r\n", "a BAD what\r\n"}, {"a LOGIN anna secret\r\n", okIn}}, reported{account: "anna", software: `Mail "\`}},
		{"ID without a name", talk{{`a ID ("version" "1" "name" NIL)` + "\r\n", "a OK\r\n"}, {"a ID NIL\r\n", "a OK\r\n"}, {"a LOGIN anna secret\r\n", okIn}}, reported{account: "anna"}},
		{"ID in literals", talk{{"a ID (" + lit("name"), plus}, {"name " + lit("Mail\r\n"), plus}, {"Mail\r\n \"version\" " + litPlus("2") + ")\r\n", "a OK\r\n"}, {"a LOGIN anna secret\r\n", okIn}}, reported{account: "anna", software: "Mail\r\n 2"}},
		{"ID of 64 KB", talk{{`a ID ("x" "` + strings.Repeat("y", 30<<10) + `" "name" ` + lit(strings.Repeat("ä", 64<<9)), plus}, {strings.Repeat("ä", 64<<9) + ` "version" "9")` + "\r\n", "a OK\r\n"}, {"a LOGIN anna secret\r\n", okIn}}, reported{account: "anna", software: strings.Repeat("ä", mailproto.MaxSoftware/2)}},
		{"ID, then a login that fails", talk{{`a ID ("name" "x")` + "\r\n", "a OK\r\n"}, {"a LOGIN bert secret\r\n", noIn}}, reported{failed: 1}},
	}
}

func pop3Identities() []identityCase {
	const ok, err = "+OK\r\n", "-ERR no\r\n"
	return []identityCase{
		{"USER", talk{{"USER anna\r\n", ok}, {"PASS secret\r\n", ok}}, reported{account: "anna"}},
		{"user with a space", talk{{"user anna b\r\n", ok}, {"pass secret with spaces\r\n", ok}}, reported{account: "anna b"}},
		{"two users", talk{{"USER bert\r\n", ok}, {"USER anna\r\n", ok}, {"PASS secret\r\n", ok}}, reported{account: "anna"}},
		{"a user that is refused", talk{{"USER anna\r\n", ok}, {"USER bert\r\n", err}, {"PASS secret\r\n", ok}}, reported{}},
		{"wrong, then as somebody else", talk{{"USER bert\r\n", ok}, {"PASS wrong\r\n", err}, {"USER anna\r\n", ok}, {"PASS secret\r\n", ok}}, reported{account: "anna", failed: 1}},
		{"wrong, then the same again", talk{{"USER anna\r\n", ok}, {"PASS wrong\r\n", err}, {"PASS secret\r\n", ok}}, reported{account: "anna", failed: 1}},
		{"no user", talk{{"PASS secret\r\n", ok}}, reported{}},
		{"64 KB", talk{{"USER " + strings.Repeat("x", 60<<10) + "\r\n", ok}, {"PASS secret\r\n", ok}}, reported{}},
		{"forged", talk{{"USER an\x1b[31m<b>,=1+1\r\n", ok}, {"PASS secret\r\n", ok}}, reported{account: "an\x1b[31m<b>,=1+1"}},
		{"APOP", talk{{"APOP anna c4c9334bac560ecc979e58001b3e22fb\r\n", ok}}, reported{account: "anna"}},
		{"APOP, wrong", talk{{"APOP bert c4\r\n", err}, {"APOP anna c4\r\n", ok}}, reported{account: "anna", failed: 1}},
		{"PLAIN", talk{{"AUTH PLAIN " + b64("\x00anna\x00secret") + "\r\n", ok}}, reported{account: "anna"}},
		{"PLAIN, asked", talk{{"AUTH PLAIN\r\n", plus}, {b64("\x00anna\x00secret") + "\r\n", ok}}, reported{account: "anna"}},
		{"PLAIN, empty at first", talk{{"AUTH PLAIN =\r\n", plus}, {b64("anna\x00x\x00secret") + "\r\n", ok}}, reported{account: "anna"}},
		{"LOGIN", talk{{"AUTH LOGIN\r\n", plus}, {b64("anna") + "\r\n", plus}, {b64("secret") + "\r\n", ok}}, reported{account: "anna"}},
		{"XOAUTH2", talk{{"AUTH XOAUTH2 " + b64("user=anna\x01auth=Bearer t\x01\x01") + "\r\n", ok}}, reported{account: "anna"}},
		{"OAUTHBEARER", talk{{"AUTH OAUTHBEARER\r\n", plus}, {b64("n,a=anna,\x01auth=Bearer t\x01\x01") + "\r\n", ok}}, reported{account: "anna"}},
		{"NTLM", talk{{"AUTH NTLM\r\n", plus}, {b64("anna") + "\r\n", ok}}, reported{}},
		{"USER, then AUTH", talk{{"USER bert\r\n", ok}, {"AUTH NTLM " + b64("anna") + "\r\n", ok}}, reported{}},
		{"cancelled", talk{{"AUTH LOGIN\r\n", plus}, {b64("bert") + "\r\n", plus}, {"*\r\n", err}, {"USER anna\r\n", ok}, {"PASS secret\r\n", ok}}, reported{account: "anna"}},
		{"AUTH alone is no login", talk{{"AUTH\r\n", err}, {"STAT\r\n", err}, {"USER anna\r\n", ok}, {"PASS secret\r\n", ok}}, reported{account: "anna"}},
		{"an ID is none behind a login", talk{{"USER anna\r\n", ok}, {"PASS secret\r\n", ok}, {`a ID ("name" "x")` + "\r\n", err}}, reported{account: "anna"}},
	}
}

func TestTheAccountOfALegacySessionIsReported(t *testing.T) {
	g := startTalks(t, true)
	for _, l := range Listeners {
		list := imapIdentities()
		if l.Protocol() == ProtocolPOP3 {
			list = pop3Identities()
		}
		for i, tt := range list {
			for _, pipelined := range []bool{false, true} {
				if !l.ImplicitTLS() && i > 3 {
					continue // after STARTTLS it is the same code
				}
				t.Run(fmt.Sprintf("%s %s, pipelined %v", l, tt.name, pipelined), func(t *testing.T) {
					want := tt.want
					if want.events = "handshake closed"; !strings.HasSuffix(tt.talk.answers(), noIn) {
						want.events = "handshake login closed"
					}
					if got := g.run(t, g.oldClient(), l, tt.talk, pipelined); got != want {
						t.Errorf("reported %+v\n want %+v", got, want)
					}
				})
			}
		}
	}
}

// Of a modern client, or with identity off, nothing is reported.
func TestNoOtherClientIsIdentified(t *testing.T) {
	d := talk{{`a ID ("name" "x")` + "\r\n", "a OK\r\n"}, {"a LOGIN bert wrong\r\n", noIn}, {"a LOGIN anna secret\r\n", okIn}, {`b ID ("name" "y")` + "\r\n", "b OK\r\n"}}
	want := reported{events: "handshake login closed", failed: 1}
	on, off := startTalks(t, true), startTalks(t, false)
	if got := on.run(t, on.ClientConfig(), IMAPS, d, false); got != want {
		t.Errorf("of a modern client is reported %+v", got)
	}
	if got := off.run(t, off.oldClient(), IMAPS, d, false); got != want {
		t.Errorf("with identity off is reported %+v", got)
	}
}

// The first upstream goes away between two commands: the login is another one's.
func TestTheAccountIsReportedOfALoginOnAnotherUpstream(t *testing.T) {
	first := posterntest.StartRawUpstream(t, hangupAfter("CAPA", "+OK\r\n.\r\n"))
	second := posterntest.StartUpstream(t, posterntest.POP3Greeting, posterntest.POP3Reply)
	g := StartProxy(t, policy.Observe, "", first.Addr(), func(c *Config) {
		c.Identity = true
		twoUpstreams(ProtocolPOP3, second.Addr())(c)
	})
	for end := time.Now().Add(time.Minute); g.upstreams[ProtocolPOP3][0].served.Load() == 0; time.Sleep(time.Millisecond) {
		if time.Now().After(end) { // until then the prober's connection counts, and the client may get the second
			t.Fatal("the first upstream has not answered the prober")
		}
	}
	c := newClient(tls.Client(g.Dial(t, POP3S), g.oldClient()))
	c.ExpectLine(t, "")
	c.Send(t, "CAPA\r\n")
	c.Until(t, ".")
	g.wait(t, "the first upstream to be lost", func() bool { return g.failures[UpstreamClosed] == 1 })
	c.Send(t, "USER anna\r\nPASS secret\r\n")
	c.ExpectLine(t, "")
	c.ExpectLine(t, "")
	c.Close()
	want := reported{events: "handshake login closed", account: "anna"}
	if got := g.reportedOf(g.WaitClosed(t, 1)); got != want {
		t.Errorf("reported %+v", got)
	}
}

// Of a refused login the observer learns whom a client claims to be, old or not, once
// that is certain.
func TestARefusedLoginNamesTheAccount(t *testing.T) {
	imap := posterntest.StartUpstream(t, posterntest.IMAPGreeting, func(line string) string {
		if strings.HasSuffix(line, "AUTHENTICATE LOGIN") || line == "YW5uYQ==" {
			return "+ \r\n"
		}
		return "a NO no\r\n"
	})
	g := StartProxy(t, policy.Observe, imap.Addr(), "", func(c *Config) { c.Identity = true })
	for i, tt := range []struct {
		old           bool
		said, account string
	}{
		{true, "a LOGIN anna secret\r\n", "anna"}, {false, "a LOGIN anna secret\r\n", "anna"},
		{true, "a AUTHENTICATE LOGIN\r\nYW5uYQ==\r\nc2VjcmV0\r\n", "anna"}, {true, "a AUTHENTICATE LOGIN\r\nc2VjcmV0\r\n", ""},
	} {
		config := g.ClientConfig()
		if tt.old {
			config = g.oldClient()
		}
		c := newClient(tls.Client(g.Dial(t, IMAPS), config))
		c.ExpectLine(t, "* OK")
		c.Send(t, tt.said)
		g.wait(t, "a refused login", func() bool { return len(g.refused) == i+1 })
		if got := g.refused[i]; got.Account != tt.account || got.Mechanism != "LOGIN" || got.BeforeTLS || got.Legacy != tt.old {
			t.Errorf("%q: %+v", tt.said, got)
		}
		c.Close()
	}
}

// Whom a remembered candidate refuses is known as a legacy client is that is let in, of
// nobody else is anything read, and it is no legacy client for that.
func TestWhomARememberedCandidateRefusesIsIdentified(t *testing.T) {
	p, err := policy.Parse([]byte("candidates: [{name: new, floor: tls1.3, remember: true}, {name: counted, floor: tls1.3-pq}]\n"))
	if err != nil {
		t.Fatal(err)
	}
	for _, identity := range []bool{true, false} {
		g := startTalks(t, identity)
		g.SetPolicy(p)
		d := talk{{"i ID (\"name\" \"Mail\")\r\n", "* ID NIL\r\ni OK\r\n"}, {"a LOGIN anna secret\r\n", okIn}}
		for i, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
			config := &tls.Config{RootCAs: g.CA.Pool, ServerName: "localhost", MaxVersion: version}
			for _, l := range []Listener{IMAPS, IMAP} {
				want := reported{events: "handshake login closed"}
				if identity && version == tls.VersionTLS12 {
					want.account, want.software = "anna", "Mail"
				}
				if got := g.run(t, config, l, d, false); got != want {
					t.Errorf("identity %v, %s with %x: %+v, want %+v", identity, l, version, got, want)
				}
			}
			for n := 2*i + 1; n <= 2*i+2; n++ {
				h := g.WaitHandshake(t, n)
				if remembered := version == tls.VersionTLS12; h.Legacy || h.Outcome != Accepted || h.Remembered.Has(policy.FloorTLS13) != remembered ||
					(h.JA4 != policy.JA4{}) != remembered || h.Remembered.Has(policy.FloorTLS13PQ) {
					t.Errorf("with %x: %+v", version, h.Conn)
				}
			}
		}
	}
}
