package demo

import (
	"bytes"
	"context"
	"io"
	"net"
	"net/mail"
	"strings"
	"testing"
	"time"

	"github.com/emersion/go-imap/v2"
	"github.com/emersion/go-imap/v2/imapclient"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func start(t *testing.T) *MailServer {
	t.Helper()
	s, err := StartMail(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

func TestEveryAccountReadsTheSameMailOverIMAPAndPOP3(t *testing.T) {
	s := start(t)
	for _, account := range s.Accounts() {
		want, err := samples(account)
		if err != nil {
			t.Fatal(err)
		}
		if len(want) != 4 {
			t.Fatalf("%d sample messages, want 4", len(want))
		}
		overIMAP := fetchIMAP(t, s.IMAPAddr(), account)
		overPOP3 := fetchPOP3(t, s.POP3Addr(), account)
		for i, m := range want {
			if i >= len(overIMAP) || !bytes.Equal(overIMAP[i], m.text) {
				t.Errorf("%s: message %d over IMAP differs", account, i+1)
			}
			if i >= len(overPOP3) || !bytes.Equal(overPOP3[i], m.text) {
				t.Errorf("%s: message %d over POP3 differs", account, i+1)
			}
		}
	}
}

func fetchIMAP(t *testing.T, addr string, account string) [][]byte {
	t.Helper()
	c, err := imapclient.DialInsecure(addr, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.Login(account, Password).Wait(); err != nil {
		t.Fatal(err)
	}
	selected, err := c.Select("INBOX", nil).Wait()
	if err != nil {
		t.Fatal(err)
	}
	var all imap.SeqSet
	all.AddRange(1, selected.NumMessages)
	section := &imap.FetchItemBodySection{}
	found, err := c.Fetch(all, &imap.FetchOptions{
		InternalDate: true,
		BodySection:  []*imap.FetchItemBodySection{section},
	}).Collect()
	if err != nil {
		t.Fatal(err)
	}
	var texts [][]byte
	for _, m := range found {
		if m.InternalDate.Year() != 2026 {
			t.Errorf("internal date %v is not that of the message", m.InternalDate)
		}
		texts = append(texts, m.FindBodySection(section))
	}
	if err := c.Logout().Wait(); err != nil {
		t.Error(err)
	}
	return texts
}

func TestIMAPRefusesAWrongPassword(t *testing.T) {
	s := start(t)
	c, err := imapclient.DialInsecure(s.IMAPAddr(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.Login("anna@example.org", "wrong").Wait(); err == nil {
		t.Error("logged in with a wrong password")
	}
	if err := c.Login("anna@example.org", "demo").Wait(); err != nil {
		t.Errorf("then with the right one: %v", err)
	}
}

func TestSamplesAreWellFormed(t *testing.T) {
	messages, err := samples("anna@example.org")
	if err != nil {
		t.Fatal(err)
	}
	uids := make(map[string]bool)
	eightBit, dots := false, false
	for _, m := range messages {
		text := string(m.text)
		if strings.Count(text, "\n") != strings.Count(text, "\r\n") || !strings.HasSuffix(text, "\r\n") {
			t.Error("a line does not end in CRLF")
		}
		parsed, err := mail.ReadMessage(strings.NewReader(text))
		if err != nil {
			t.Fatal(err)
		}
		if to := parsed.Header.Get("To"); to != "anna@example.org" {
			t.Errorf("To: %q", to)
		}
		head, body, _ := strings.Cut(text, "\r\n\r\n")
		if !isASCII(head) {
			t.Errorf("8-bit header:\n%s", head)
		}
		if !isASCII(body) {
			eightBit = true
			if parsed.Header.Get("Content-Transfer-Encoding") != "8bit" || parsed.Header.Get("MIME-Version") != "1.0" {
				t.Error("8-bit body without MIME headers")
			}
		}
		dots = dots || strings.Contains(text, "\r\n.\r\n") && strings.Contains(text, "\r\n..\r\n")
		if uids[m.uid] || len(m.uid) > 70 {
			t.Errorf("unique id %q comes twice or is over 70 characters", m.uid)
		}
		uids[m.uid] = true
	}
	if !eightBit || !dots {
		t.Errorf("8-bit body: %v, lines with dots: %v, want both", eightBit, dots)
	}
}

func isASCII(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r > 126 })
}

func TestLineEndsOfACheckoutDoNotMatter(t *testing.T) {
	unix := "Date: Mon, 01 Jun 2026 09:00:00 +0200\n\nbody\n"
	a, err := newMessage(unix)
	if err != nil {
		t.Fatal(err)
	}
	b, err := newMessage(strings.ReplaceAll(unix, "\n", "\r\n"))
	if err != nil {
		t.Fatal(err)
	}
	if a.uid != b.uid || !bytes.Equal(a.text, b.text) {
		t.Errorf("%q and %q differ", a.text, b.text)
	}
}

func TestMessageWithoutDateIsRefused(t *testing.T) {
	if _, err := newMessage("Subject: x\n\nbody\n"); err == nil {
		t.Error("taken without a date")
	}
}

func TestCloseEndsEveryConnection(t *testing.T) {
	before := goleak.IgnoreCurrent()
	s, err := StartMail(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	conns := connsIn(t, s)
	s.Close()
	s.Close()
	expectClosed(t, s, conns)
	goleak.VerifyNone(t, before)
}

func TestEndOfContextEndsTheServer(t *testing.T) {
	before := goleak.IgnoreCurrent()
	ctx, cancel := context.WithCancel(context.Background())
	s, err := StartMail(ctx)
	if err != nil {
		t.Fatal(err)
	}
	conns := connsIn(t, s)
	cancel()
	expectClosed(t, s, conns)
	s.Close()
	goleak.VerifyNone(t, before)
}

func TestStartUnderAnEndedContext(t *testing.T) {
	before := goleak.IgnoreCurrent()
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	s, err := StartMail(ctx)
	if err != nil {
		t.Fatal(err)
	}
	s.Close()
	goleak.VerifyNone(t, before)
}

// connsIn opens connections in every state: greeted, logged in, and in the
// middle of a line, of IDLE.
func connsIn(t *testing.T, s *MailServer) []net.Conn {
	t.Helper()
	var conns []net.Conn
	for addr, says := range map[string][]string{
		s.IMAPAddr(): {"", "a LOG", "a LOGIN anna@example.org demo\r\nb SELECT INBOX\r\nc IDLE\r\n"},
		s.POP3Addr(): {"", "US", "USER anna@example.org\r\nPASS demo\r\n"},
	} {
		for _, say := range says {
			conn := dial(t, addr)
			if _, err := conn.Read(make([]byte, 1)); err != nil {
				t.Fatal(err)
			}
			io.WriteString(conn, say)
			conns = append(conns, conn)
		}
	}
	return conns
}

func expectClosed(t *testing.T, s *MailServer, conns []net.Conn) {
	t.Helper()
	for _, conn := range conns {
		conn.SetReadDeadline(time.Now().Add(time.Minute))
		_, err := io.Copy(io.Discard, conn)
		if ne, ok := err.(net.Error); ok && ne.Timeout() {
			t.Error("connection still open")
		}
		conn.Close()
	}
	for _, addr := range []string{s.IMAPAddr(), s.POP3Addr()} {
		if conn, err := net.Dial("tcp", addr); err == nil {
			conn.Close()
			t.Errorf("%s still answers", addr)
		}
	}
}

func dial(t *testing.T, addr string) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(time.Minute))
	return conn
}
