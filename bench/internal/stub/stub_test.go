package stub

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"
)

// talk runs serve and plays a dialogue: lines that begin with "C: " are sent,
// the others must come.
func talk(t *testing.T, serve func(*conn), dialogue ...string) {
	t.Helper()
	client, server := net.Pipe()
	defer client.Close()
	client.SetDeadline(time.Now().Add(5 * time.Second))
	go func() {
		defer server.Close()
		serve(&conn{Conn: server, r: bufio.NewReaderSize(server, 512)})
	}()
	r := bufio.NewReader(client)
	for _, line := range dialogue {
		if send, ok := strings.CutPrefix(line, "C: "); ok {
			if _, err := io.WriteString(client, send+"\r\n"); err != nil {
				t.Fatalf("%s: %v", line, err)
			}
			continue
		}
		got, err := r.ReadString('\n')
		if err != nil || strings.TrimSpace(got) != line {
			t.Fatalf("%q instead of %q, %v", got, line, err)
		}
	}
}

func TestIMAPDialogue(t *testing.T) {
	talk(t, imap,
		"* OK [CAPABILITY "+capability+"] stub ready.",
		"C: PROXY TCP4 192.0.2.1 192.0.2.2 1 993",
		"C: a LOGIN {5}",
		"+ OK",
		"C: bench secret",
		"a OK [CAPABILITY "+capability+"] Logged in",
		"C: a AUTHENTICATE LOGIN",
		"+", "C: YQ==", "+", "C: YQ==",
		"a OK [CAPABILITY "+capability+"] Logged in",
		"C: a IDLE",
		"+ idling",
		"C: DONE",
		"a OK done",
		"C: a FROBNICATE",
		"a BAD unknown",
		"C: a LOGOUT",
		"* BYE",
		"a OK done",
	)
}

func TestAppendedMessagesAreDiscarded(t *testing.T) {
	text := strings.Repeat("x", 1<<20)
	talk(t, imap,
		"* OK [CAPABILITY "+capability+"] stub ready.",
		fmt.Sprintf("C: a APPEND INBOX {%d}", len(text)),
		"+ OK",
		"C: "+text,
		"a OK done",
		fmt.Sprintf("C: a APPEND INBOX {%d+}\r\n%s", len(text), text),
		"a OK done",
		"C: a NOOP",
		"a OK done",
	)
}

func TestPOP3Dialogue(t *testing.T) {
	talk(t, pop3,
		"+OK stub ready.",
		"C: USER bench",
		"+OK",
		"C: PASS secret",
		"+OK",
		"C: AUTH PLAIN",
		"+", "C: YQ==",
		"+OK",
		"C: XYZZY",
		"-ERR unknown",
		"C: QUIT",
		"+OK bye",
	)
}

func TestMessagesHaveTheSizeThatIsAnnounced(t *testing.T) {
	client, server := net.Pipe()
	defer client.Close()
	go func() {
		defer server.Close()
		(&conn{Conn: server}).sendBody(bodySize(2))
	}()
	b, err := io.ReadAll(client)
	if err != nil || len(b) != bodySize(2) || !strings.HasSuffix(string(b), "\r\n") {
		t.Errorf("%d octets, %v", len(b), err)
	}
}
