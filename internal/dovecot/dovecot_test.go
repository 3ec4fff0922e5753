package dovecot

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestServerAnswersBothProtocols(t *testing.T) {
	for version, debian13 := range map[string]bool{"2.3": false, "2.4": true} {
		t.Run(version, func(t *testing.T) { answersBothProtocols(t, Start(t, Options{Debian13: debian13})) })
	}
}

func answersBothProtocols(t *testing.T, s *Server) {
	if err := s.login(Anna); err != nil {
		t.Error(err)
	}
	wrong := User{Name: Anna.Name, Password: "wrong"}
	if err := s.login(wrong); err == nil {
		t.Error("a wrong password was let in")
	}
	if log := s.Log(t); !strings.Contains(log, "user=<"+Anna.Name+">") {
		t.Errorf("no login in the log:\n%s", log)
	}
}

func TestServerRefusesPlaintextFromElsewhere(t *testing.T) {
	s := Start(t, Options{})
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 9)}}
	c, err := d.Dial("tcp", s.IMAP)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	greeting := make([]byte, 4096)
	n, err := c.Read(greeting)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Contains(greeting[:n], []byte("LOGINDISABLED")) {
		t.Errorf("greeting to another address: %q", greeting[:n])
	}
}

func TestServerLeavesNothingBehind(t *testing.T) {
	var s *Server
	t.Run("server", func(t *testing.T) { s = Start(t, Options{}) })
	if _, err := os.Stat(filepath.Join(s.dir, "conf")); !os.IsNotExist(err) {
		t.Errorf("the directory is still there: %v", err)
	}
	if c, err := net.Dial("tcp", s.IMAP); err == nil {
		c.Close()
		t.Error("the port is still open")
	}
}

func TestMailboxIsTheSameForTheSameSeed(t *testing.T) {
	a, b := Mailbox(1), Mailbox(1)
	sum := func(box [][]byte) string { return fmt.Sprintf("%x", sha256.Sum256(bytes.Join(box, nil))) }
	if sum(a) != sum(b) {
		t.Error("two mailboxes of one seed differ")
	}
	if sum(a) == sum(Mailbox(2)) {
		t.Error("mailboxes of two seeds do not differ")
	}
	if len(a) != mailboxSize {
		t.Errorf("%d messages", len(a))
	}
	for i, m := range a {
		rest := bytes.ReplaceAll(m, []byte("\r\n"), nil)
		if bytes.ContainsAny(rest, "\r\n\x00") {
			t.Errorf("message %d holds a bare line end or NUL", i)
		}
	}
	if all := bytes.Join(a, nil); len(all) < bigMessage || !bytes.Contains(all, []byte("\r\n.\r\n")) {
		t.Error("no big message, or no line of a single dot")
	}
}
