package mail

import (
	"strings"
	"testing"

	"postern/internal/posterntest"
)

// multiline sends a command with a multi-line answer, and returns that as it
// was on the wire and as text.
func multiline(t *testing.T, c *posterntest.Client, format string, args ...any) (wire, text []byte) {
	t.Helper()
	c.Must(t, format, args...)
	wire, text, err := c.Multiline()
	if err != nil {
		t.Fatal(err)
	}
	return wire, text
}

// list returns the lines of a command with a multi-line answer.
func list(t *testing.T, c *posterntest.Client, command string) []string {
	t.Helper()
	_, text := multiline(t, c, "%s", command)
	return strings.Split(strings.TrimSuffix(string(text), "\r\n"), "\r\n")
}

// retrieveAll returns hashes of every message, as on the wire and unstuffed.
func retrieveAll(t *testing.T, c *posterntest.Client) (wires, texts []string) {
	t.Helper()
	for i := range list(t, c, "UIDL") {
		wire, text := multiline(t, c, "RETR %d", i+1)
		wires, texts = append(wires, hash(wire)), append(texts, hash(text))
	}
	return wires, texts
}
