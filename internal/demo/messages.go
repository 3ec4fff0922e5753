package demo

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"fmt"
	"net/mail"
	"strings"
	"time"
)

//go:embed messages
var files embed.FS

// A message is one RFC 5322 text. It is never changed once it is made, so
// sessions share it.
type message struct {
	text []byte // lines end in CRLF, the last one too
	uid  string // for UIDL: same text, same id (RFC 1939, section 7)
	date time.Time
}

// samples are the messages as written to account, oldest first.
func samples(account string) ([]message, error) {
	entries, _ := files.ReadDir("messages") // which the program holds
	var messages []message
	for _, entry := range entries {
		text, _ := files.ReadFile("messages/" + entry.Name())
		m, err := newMessage(strings.ReplaceAll(string(text), "{account}", account))
		if err != nil {
			return nil, fmt.Errorf("parsing sample message %s: %w", entry.Name(), err)
		}
		messages = append(messages, m)
	}
	return messages, nil
}

func newMessage(text string) (message, error) {
	// A checkout may or may not have turned the line ends into CRLF.
	text = strings.ReplaceAll(strings.ReplaceAll(text, "\r\n", "\n"), "\n", "\r\n")
	parsed, err := mail.ReadMessage(strings.NewReader(text))
	if err != nil {
		return message{}, err
	}
	date, err := parsed.Header.Date()
	sum := sha256.Sum256([]byte(text))
	return message{text: []byte(text), uid: hex.EncodeToString(sum[:10]), date: date}, err
}

// top is the header, the empty line, and the first n lines of the body
// (RFC 1939, section 7, TOP).
func (m message) top(n int) []byte {
	_, body, _ := bytes.Cut(m.text, []byte("\r\n\r\n"))
	if lines := bytes.SplitAfterN(body, []byte("\n"), n+1); len(lines) > n {
		return m.text[:len(m.text)-len(lines[n])]
	}
	return m.text
}
