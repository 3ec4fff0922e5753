package dovecot

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

const (
	mailboxSize = 300
	bigMessage  = 20 << 20 // bytes of body
	longLine    = 5 << 10  // bytes without the CRLF
)

// Deliver puts messages into a user's INBOX as a mail server would: each
// written aside, then renamed into new, where a waiting IDLE sees it whole.
func (s *Server) Deliver(t testing.TB, user string, messages ...[]byte) {
	t.Helper()
	box := s.maildir(user)
	info, err := os.Stat(box)
	if err != nil {
		t.Fatalf("delivering: %v", err)
	}
	for _, m := range messages {
		// Dovecot numbers messages in the order of their file names.
		name := fmt.Sprintf("%d.M%09d.test", time.Now().Unix(), s.delivered.Add(1))
		tmp := filepath.Join(box, "tmp", name)
		if err := os.WriteFile(tmp, m, 0o600); err != nil {
			t.Fatalf("delivering: %v", err)
		}
		if err := chownLike(tmp, info); err != nil {
			t.Fatalf("delivering: %v", err)
		}
		if err := os.Rename(tmp, filepath.Join(box, "new", name)); err != nil {
			t.Fatalf("delivering: %v", err)
		}
	}
}

// chownLike gives a file to the owner of the directory that info describes.
func chownLike(path string, info os.FileInfo) error {
	st := info.Sys().(*syscall.Stat_t)
	return os.Chown(path, int(st.Uid), int(st.Gid))
}

// Mailbox returns 300 messages that a relay could be tempted to touch, the same
// ones for the same seed: 8-bit bytes, lines of 5 KB, leading dots, words of
// both protocols in bodies, an empty body, and one body of 20 MB. Line ends
// are CRLF throughout, and no byte is NUL: Dovecot would change either.
func Mailbox(seed uint64) [][]byte {
	rng := rand.New(rand.NewPCG(seed, mailboxSize))
	box := make([][]byte, mailboxSize)
	for i := range box {
		var body []byte
		switch i {
		case mailboxSize / 2:
			body = eightBit(rng, bigMessage)
		default:
			body = bodies[i%len(bodies)](rng)
		}
		box[i] = Message(i, body)
	}
	return box
}

// Message puts a header before a body, which must be empty or end in CRLF.
func Message(number int, body []byte) []byte {
	return fmt.Appendf(nil, "From: Bernd <bernd@example.net>\r\nTo: Anna <anna@example.org>\r\n"+
		"Subject: message %d\r\nDate: Mon, 01 Jun 2026 08:00:00 +0000\r\nMessage-ID: <%d@example.net>\r\n"+
		"MIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\n%s",
		number, number, body)
}

var bodies = []func(*rand.Rand) []byte{
	func(rng *rand.Rand) []byte { return eightBit(rng, 200+rng.IntN(8000)) },
	func(rng *rand.Rand) []byte { return protocolWords(rng) },
	func(rng *rand.Rand) []byte { return longLines(rng) },
	func(rng *rand.Rand) []byte { return dots(rng) },
	func(*rand.Rand) []byte { return nil },
}

// lines that mean something elsewhere in a session, and nothing here.
var temptations = []string{
	"STARTTLS", "STLS", "LOGINDISABLED", "SASL PLAIN SCRAM-SHA-256-PLUS", "AUTH=SCRAM-SHA-256-PLUS",
	"* CAPABILITY IMAP4rev1 STARTTLS LOGINDISABLED", "* OK [CAPABILITY IMAP4rev1 STARTTLS AUTH=PLAIN] ready",
	"a OK", "a OK [CAPABILITY IMAP4rev1 STARTTLS] Logged in", "* PREAUTH IMAP4rev1 ready", "* BYE [ALERT] gone",
	"+OK", "-ERR [AUTH] no", "+ idling", "* 1 FETCH (BODY[] {5}", "a LOGIN anna {12}", "{5+}", ".", "..", ")",
	"* ID (\"x-originating-ip\" \"192.0.2.1\")", "XCLIENT ADDR=192.0.2.1",
}

func protocolWords(rng *rand.Rand) []byte {
	var b bytes.Buffer
	for range 5 + rng.IntN(40) {
		b.WriteString(temptations[rng.IntN(len(temptations))])
		b.WriteString("\r\n")
	}
	return b.Bytes()
}

func dots(rng *rand.Rand) []byte {
	var b bytes.Buffer
	for range 5 + rng.IntN(40) {
		b.Write(bytes.Repeat([]byte{'.'}, rng.IntN(4)))
		if rng.IntN(2) == 0 {
			b.WriteString("dot")
		}
		b.WriteString("\r\n")
	}
	return b.Bytes()
}

func longLines(rng *rand.Rand) []byte {
	var b bytes.Buffer
	for range 1 + rng.IntN(4) {
		line := bytes.Repeat([]byte{byte('a' + rng.IntN(26))}, longLine)
		copy(line[rng.IntN(longLine-8):], "STARTTLS")
		b.Write(line)
		b.WriteString("\r\n")
	}
	return b.Bytes()
}

// eightBit returns at least size random bytes in lines of 76, none of them NUL
// or a line end out of place.
func eightBit(rng *rand.Rand, size int) []byte {
	const width = 76
	b := make([]byte, 0, size+width+2)
	for len(b) < size {
		for i := 0; i < width; i += 4 {
			word := rng.Uint32() | 0x40404040 // keeps every byte above the controls
			b = append(b, byte(word), byte(word>>8), byte(word>>16), byte(word>>24))
		}
		b = append(b, '\r', '\n')
	}
	return b
}
