package demo

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/textproto"
	"strings"
	"testing"
)

func fetchPOP3(t *testing.T, addr string, account string) [][]byte {
	t.Helper()
	conn := dial(t, addr)
	defer conn.Close()
	// Everything at once, as a pipelining client does.
	fmt.Fprintf(conn, "USER %s\r\nPASS %s\r\nRETR 1\r\nRETR 2\r\nRETR 3\r\nRETR 4\r\nQUIT\r\n",
		account, Password)
	r := textproto.NewReader(bufio.NewReader(conn))
	var texts [][]byte
	for i := range 8 {
		line, err := r.ReadLine()
		if err != nil || !strings.HasPrefix(line, "+OK") {
			t.Fatalf("reply %d: %q, %v", i, line, err)
		}
		if i < 3 || i == 7 {
			continue
		}
		// ReadDotBytes turns CRLF into LF.
		text, err := r.ReadDotBytes()
		if err != nil {
			t.Fatal(err)
		}
		texts = append(texts, bytes.ReplaceAll(text, []byte("\n"), []byte("\r\n")))
	}
	return texts
}

// converse plays a transcript against a server with three short messages.
// "C: " lines are sent, "S: " lines must come back, to the letter; a server
// line that ends in "..." may go on. C lines that follow each other go out in
// one segment. At the end the server must have nothing more to say.
func converse(t *testing.T, drops map[string]*maildrop, transcript string) {
	t.Helper()
	client, server := loopback(t)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		defer server.Close()
		newPOP3(server, drops).run()
	}()
	r := bufio.NewReader(client)
	var send strings.Builder
	flush := func() {
		io.WriteString(client, send.String())
		send.Reset()
	}
	for line := range strings.Lines(transcript) {
		line = strings.TrimSpace(line)
		if said, ok := strings.CutPrefix(line, "C: "); ok {
			send.WriteString(said + "\r\n")
			continue
		}
		want, ok := strings.CutPrefix(line, "S:")
		if !ok {
			continue
		}
		want = strings.TrimPrefix(want, " ")
		if want == "+" {
			want = "+ " // RFC 5034, section 4; editors take the space away
		}
		flush()
		got, err := r.ReadString('\n')
		if err != nil {
			t.Fatalf("waiting for %q: %v", want, err)
		}
		prefix, open := strings.CutSuffix(want, "...")
		if open && !strings.HasPrefix(got, prefix) || !open && got != want+"\r\n" {
			t.Fatalf("got %q, want %q", got, want)
		}
	}
	flush()
	client.(*net.TCPConn).CloseWrite()
	if rest, _ := io.ReadAll(r); len(rest) > 0 {
		t.Errorf("then it said %q", rest)
	}
	<-ended
}

func loopback(t *testing.T) (client, server net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	client = dial(t, l.Addr().String())
	if server, err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	return client, server
}

func smallDrops() map[string]*maildrop {
	return map[string]*maildrop{"anna": {password: "de mo", messages: []message{
		{text: []byte("Subject: one\r\n\r\nfirst\r\nsecond\r\n"), uid: "uid1"},
		{text: []byte("Subject: two\r\n\r\n.\r\n..\r\n.x\r\nx.\r\n"), uid: "uid2"},
		{text: []byte("Subject: three\r\n\r\nSTLS\r\n"), uid: "uid3"},
	}}}
}

const greeted = "S: +OK Postern demo mailbox ready\n"
const loggedIn = greeted + "C: USER anna\nC: PASS de mo\nS: +OK now...\nS: +OK logged in, 3 messages (86 octets)\n"

var pop3Dialogues = map[string]string{
	"capabilities before login": greeted + `
			C: CAPA
			S: +OK what this server can do
			S: TOP
			S: UIDL
			S: USER
			S: RESP-CODES
			S: AUTH-RESP-CODE
			S: PIPELINING
			S: IMPLEMENTATION Postern-demo
			S: .
			C: QUIT
			S: +OK goodbye`,
	"capabilities after login": loggedIn + `
			C: capa
			S: +OK ...
			S: TOP
			S: UIDL
			S: USER
			S: RESP-CODES
			S: AUTH-RESP-CODE
			S: PIPELINING
			S: IMPLEMENTATION Postern-demo
			S: .`,
	"reading": loggedIn + `
			C: STAT
			S: +OK 3 86
			C: LIST
			S: +OK 3 messages (86 octets)
			S: 1 31
			S: 2 31
			S: 3 24
			S: .
			C: LIST 2
			S: +OK 2 31
			C: UIDL
			S: +OK ...
			S: 1 uid1
			S: 2 uid2
			S: 3 uid3
			S: .
			C: UIDL 3
			S: +OK 3 uid3
			C: NOOP
			S: +OK still here
			C: QUIT
			S: +OK goodbye`,
	"dots are doubled": loggedIn + `
			C: RETR 2
			S: +OK 31 octets
			S: Subject: two
			S:
			S: ..
			S: ...
			S: ..x
			S: x.
			S: .
			C: NOOP
			S: +OK still here`,
	"top": loggedIn + `
			C: TOP 1 0
			S: +OK top of message follows
			S: Subject: one
			S:
			S: .
			C: TOP 1 1
			S: +OK top of message follows
			S: Subject: one
			S:
			S: first
			S: .
			C: TOP 2 99
			S: +OK top of message follows
			S: Subject: two
			S:
			S: ..
			S: ...
			S: ..x
			S: x.
			S: .
			C: TOP 1
			S: -ERR TOP needs a message number and a number of lines
			C: TOP 9 1
			S: -ERR no such message`,
	"deleting and taking it back": loggedIn + `
			C: DELE 1
			S: +OK message deleted
			C: DELE 1
			S: -ERR no such message
			C: RETR 1
			S: -ERR no such message
			C: STAT
			S: +OK 2 55
			C: LIST
			S: +OK 2 messages (55 octets)
			S: 2 31
			S: 3 24
			S: .
			C: RSET
			S: +OK nothing is deleted
			C: STAT
			S: +OK 3 86`,
	"numbers that are none": loggedIn + `
			C: RETR
			S: -ERR no such message
			C: RETR 0
			S: -ERR no such message
			C: RETR 4
			S: -ERR no such message
			C: RETR -1
			S: -ERR no such message
			C: RETR +1
			S: -ERR no such message
			C: RETR 99999999999999999999
			S: -ERR no such message
			C: TOP 1 -1
			S: -ERR TOP needs...
			C: LIST x
			S: -ERR no such message`,
	"everything in one segment": greeted + `
			C: CAPA
			C: USER anna
			C: PASS de mo
			C: STAT
			C: RETR 3
			C: DELE 3
			C: QUIT
			C: NOOP
			S: +OK what...
			S: TOP
			S: UIDL
			S: USER
			S: RESP-CODES
			S: AUTH-RESP-CODE
			S: PIPELINING
			S: IMPLEMENTATION Postern-demo
			S: .
			S: +OK now the password
			S: +OK logged in, 3 messages (86 octets)
			S: +OK 3 86
			S: +OK 24 octets
			S: Subject: three
			S:
			S: STLS
			S: .
			S: +OK message deleted
			S: +OK goodbye`,
	"wrong password, then the right one": greeted + `
			C: USER anna
			C: PASS demo
			S: +OK now the password
			S: -ERR [AUTH] wrong name or password
			C: USER nobody
			C: PASS de mo
			S: +OK now the password
			S: -ERR [AUTH] wrong name or password
			C: USER anna
			C: PASS de mo
			S: +OK now the password
			S: +OK logged in, 3 messages (86 octets)`,
	"PASS comes right behind USER": greeted + `
			C: PASS de mo
			S: -ERR USER first
			C: USER anna
			C: CAPA2
			C: PASS de mo
			S: +OK now the password
			S: -ERR unknown command, or not before login
			S: -ERR USER first
			C: USER
			S: -ERR USER needs a name`,
	"commands of the other state": greeted + `
			C: STAT
			S: -ERR unknown command, or not before login
			C: NOOP
			S: -ERR unknown command, or not before login
			C: STLS
			S: -ERR unknown command, or not before login
			C: AUTH PLAIN
			S: -ERR unknown command, or not before login
			C: USER anna
			C: PASS de mo
			S: +OK now the password
			S: +OK logged in, 3 messages (86 octets)
			C: USER anna
			S: -ERR unknown command, or not after login`,
	"the longest command": greeted + `
			C: USER ` + strings.Repeat("x", 248) + `
			S: +OK now the password`,
	"one octet more": greeted + `
			C: USER ` + strings.Repeat("x", 249) + `
			S: -ERR line too long
			C: PASS x
			S: -ERR USER first`,
	"control characters": greeted + `
			C: USER an` + "\x00" + `na
			S: -ERR control character in line
			C: USER an` + "\r" + `na
			S: -ERR control character in line`,
}

func TestPOP3Dialogues(t *testing.T) {
	for name, transcript := range pop3Dialogues {
		t.Run(name, func(t *testing.T) { converse(t, smallDrops(), transcript) })
	}
}

func TestDeletionIsForGoodOnlyAtQuit(t *testing.T) {
	drops := smallDrops()
	converse(t, drops, loggedIn+"C: DELE 1\nS: +OK message deleted\n")
	converse(t, drops, loggedIn+"C: DELE 1\nS: +OK message deleted\nC: QUIT\nS: +OK goodbye\n")
	converse(t, drops, greeted+`
		C: USER anna
		C: PASS de mo
		C: UIDL
		S: +OK now...
		S: +OK logged in, 2 messages (55 octets)
		S: +OK 2 messages (55 octets)
		S: 1 uid2
		S: 2 uid3
		S: .
		C: DELE 1
		C: DELE 2
		C: LIST
		C: QUIT
		S: +OK message deleted
		S: +OK message deleted
		S: +OK 0 messages (0 octets)
		S: .
		S: +OK goodbye`)
}

func TestASessionKeepsWhatItSawWhileAnotherDeletes(t *testing.T) {
	drops := smallDrops()
	first := &pop3Session{drop: drops["anna"], view: drops["anna"].list()}
	converse(t, drops, loggedIn+"C: DELE 2\nC: QUIT\nS: +OK message deleted\nS: +OK goodbye\n")
	if n, size := first.count(); n != 3 || size != 86 {
		t.Errorf("the other session now sees %d messages, %d octets", n, size)
	}
	first.drop.remove(map[string]bool{"uid2": true, "uid3": true})
	if left := drops["anna"].messages; len(left) != 1 || left[0].uid != "uid1" {
		t.Errorf("left over: %v", left)
	}
}

func TestLoneLineFeedEndsALine(t *testing.T) {
	client, server := loopback(t)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		defer server.Close()
		newPOP3(server, smallDrops()).run()
	}()
	io.WriteString(client, "USER anna\nPASS de mo\nQUIT\n")
	got, err := io.ReadAll(client)
	if err != nil {
		t.Fatal(err)
	}
	if want := 4; bytes.Count(got, []byte("+OK")) != want {
		t.Errorf("got %q, want %d times +OK", got, want)
	}
	<-ended
}
