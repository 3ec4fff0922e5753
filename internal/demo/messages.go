package demo

import (
	"embed"
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
	uid  string // for UIDL (RFC 1939, section 7): the name of its file
	date time.Time
}

// samples are the messages as written to account, oldest first.
func samples(account string) ([]message, error) {
	entries, err := files.ReadDir("messages")
	if err != nil {
		return nil, fmt.Errorf("listing sample messages: %w", err)
	}
	var messages []message
	for _, entry := range entries {
		text, err := files.ReadFile("messages/" + entry.Name())
		if err != nil {
			return nil, fmt.Errorf("reading sample message: %w", err)
		}
		m, err := newMessage(entry.Name(), strings.ReplaceAll(string(text), "{account}", account))
		if err != nil {
			return nil, fmt.Errorf("parsing sample message %s: %w", entry.Name(), err)
		}
		messages = append(messages, m)
	}
	return messages, nil
}

func newMessage(uid, text string) (message, error) {
	// A checkout may or may not have turned the line ends into CRLF.
	text = strings.ReplaceAll(strings.ReplaceAll(text, "\r\n", "\n"), "\n", "\r\n")
	parsed, err := mail.ReadMessage(strings.NewReader(text))
	if err != nil {
		return message{}, err
	}
	date, err := parsed.Header.Date()
	return message{text: []byte(text), uid: uid, date: date}, err
}
