package mail

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// localForm is a message as programs keep it on a Unix disk.
func localForm(m []byte) []byte { return bytes.ReplaceAll(m, []byte("\r\n"), []byte("\n")) }

// writePrivate writes a configuration that holds a password: both programs
// refuse one that others may read.
func writePrivate(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// readDirs returns the sorted hashes of all files, seen through a filter.
func readDirs(t *testing.T, filter func([]byte) []byte, dirs ...string) []string {
	t.Helper()
	var sums []string
	for _, dir := range dirs {
		entries, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			b, err := os.ReadFile(filepath.Join(dir, e.Name()))
			if err != nil {
				t.Fatal(err)
			}
			sums = append(sums, hash(filter(b)))
		}
	}
	slices.Sort(sums)
	return sums
}

// expect hashes the small mailbox as a filter shows it.
func expect(filter func([]byte) []byte) []string {
	var sums []string
	for _, m := range smallMailbox() {
		sums = append(sums, hash(filter(localForm(m))))
	}
	slices.Sort(sums)
	return sums
}

// mbsync marks what it has stored with a header line of its own.
func withoutMark(b []byte) []byte {
	var kept []byte
	for line := range bytes.Lines(b) {
		if !bytes.HasPrefix(line, []byte("X-TUID: ")) {
			kept = append(kept, line...)
		}
	}
	return kept
}

func TestMbsyncPullsAMailbox(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "enforce", smallMailbox()...)
	for listener, security := range map[string]string{"imaps": "IMAPS", "imap": "STARTTLS"} {
		t.Run(listener, func(t *testing.T) {
			t.Parallel()
			near := t.TempDir()
			rc := writePrivate(t, "mbsyncrc", fmt.Sprintf(`
IMAPAccount proxy
Host localhost
Port %s
User %s
Pass "%s"
SSLType %s
CertificateFile %s

IMAPStore far
Account proxy

MaildirStore near
Path %s/
Inbox %s/INBOX

Channel pull
Far :far:
Near :near:
Create Near
Sync Pull
SyncState *
`, w.port(t, listener), w.user.Name, w.user.Password, security, w.CA.File, near, near))
			program{name: "mbsync", args: []string{"--config", rc, "pull"}}.succeed(t)
			got := readDirs(t, withoutMark, filepath.Join(near, "INBOX", "new"), filepath.Join(near, "INBOX", "cur"))
			sameMessages(t, listener, got, expect(withoutMark))
		})
	}
}

// Fetchmail adds to the header and folds it anew: subject and body are left.
func subjectAndBody(b []byte) []byte {
	header, body, _ := bytes.Cut(b, []byte("\n\n"))
	for line := range bytes.Lines(header) {
		if bytes.HasPrefix(line, []byte("Subject:")) {
			return append(bytes.Clone(line), body...)
		}
	}
	return body
}

func TestFetchmailDeliversAMailbox(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "enforce", smallMailbox()...)
	eachListener(t, func(t *testing.T, listener string) {
		security := `sslproto "TLS1.2+"`
		if strings.HasSuffix(listener, "s") {
			security = `ssl ` + security
		}
		into, home := t.TempDir(), t.TempDir()
		rc := writePrivate(t, "fetchmailrc", fmt.Sprintf(`
poll localhost protocol %s port %s timeout 30
  user "%s" password "%s" is root here
  %s sslcertck sslcertfile "%s"
  fetchall keep pass8bits no mimedecode no rewrite
  mda "cat > $(mktemp %s/XXXXXXXX)"
`, strings.TrimSuffix(listener, "s"), w.port(t, listener), w.user.Name, w.user.Password, security, w.CA.File, into))
		program{name: "fetchmail", args: []string{"--fetchmailrc", rc, "--nosyslog",
			"--pidfile", filepath.Join(home, "pid")},
			env: []string{"FETCHMAILHOME=" + home}}.succeed(t)
		sameMessages(t, listener, readDirs(t, subjectAndBody, into), expect(subjectAndBody))
	})
}
