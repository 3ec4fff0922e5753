package mail

import (
	"bytes"
	"strings"
	"testing"

	"postern/internal/posterntest"
)

// fetchAll returns every message of the INBOX, in order.
func fetchAll(t *testing.T, c *posterntest.Client) [][]byte {
	t.Helper()
	c.Must(t, "EXAMINE INBOX")
	return messagesIn(c.Must(t, "UID FETCH 1:* (UID BODY.PEEK[])"))
}

func messagesIn(fetched posterntest.Reply) [][]byte {
	var messages [][]byte
	for _, r := range fetched.Untagged {
		if strings.Contains(r.Line, "FETCH (UID ") && len(r.Literals) == 1 {
			messages = append(messages, r.Literals[0])
		}
	}
	return messages
}

// start sends a command and reads no reply to it yet.
func start(t *testing.T, c *posterntest.Client, format string, args ...any) {
	t.Helper()
	if err := c.Start(format, args...); err != nil {
		t.Fatal(err)
	}
}

// finish reads the reply to the command that was started, which must begin in
// this way.
func finish(t *testing.T, c *posterntest.Client, want string) posterntest.Reply {
	t.Helper()
	reply, err := c.Finish()
	if err != nil || !strings.HasPrefix(reply.Text, want) {
		t.Fatalf("the exchange ended in %q, %v, want %s", reply.Text, err, want)
	}
	return reply
}

func TestIdleWakesThroughTheProxy(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "enforce", smallMailbox()...)
	for _, listener := range []string{"imaps", "imap"} {
		c := w.open(t, listener)
		w.login(t, c)
		c.Must(t, "SELECT INBOX")
		start(t, c, "IDLE")
		for line := c.ExpectLine(t, ""); !strings.HasPrefix(line, "+"); line = c.ExpectLine(t, "") {
			if !strings.HasPrefix(line, "* ") {
				t.Fatalf("%s: IDLE answered %q", listener, line)
			}
		}
		w.dovecot.Deliver(t, w.user.Name, smallMailbox()[1])
		for line := ""; !strings.HasSuffix(line, " EXISTS"); {
			line = c.ExpectLine(t, "* ")
		}
		c.Send(t, "DONE\r\n")
		finish(t, c, "OK")
		c.Must(t, "LOGOUT")
	}
}

func TestCompressWorksThroughTheProxy(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "enforce", smallMailbox()...)
	for _, listener := range []string{"imaps", "imap"} {
		c := w.open(t, listener)
		w.login(t, c)
		if err := c.Compress(); err != nil {
			t.Fatal(err)
		}
		sameMessages(t, listener, hashAll(fetchAll(t, c)), hashAll(smallMailbox()))
		upload := bytes.Repeat([]byte("STARTTLS \xe9\xff\r\n"), 20_000)
		c.Must(t, "APPEND INBOX {%d+}\r\n%s", len(upload), upload)
		c.Must(t, "SELECT INBOX")
		if got := messagesIn(c.Must(t, "UID FETCH * BODY.PEEK[]")); len(got) != 1 || !bytes.Equal(got[0], upload) {
			t.Errorf("%s: what was appended did not come back", listener)
		}
		c.Must(t, `STORE * +FLAGS.SILENT (\Deleted)`)
		c.Must(t, "EXPUNGE")
		c.Must(t, "LOGOUT")
	}
}
