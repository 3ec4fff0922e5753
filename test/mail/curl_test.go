package mail

import (
	"fmt"
	"strings"
	"testing"
)

func (w *world) curl(listener, path string, args ...string) program {
	url := fmt.Sprintf("%s://%s/%s", listener, w.Addr(listener), path)
	return program{name: "curl", args: append([]string{"--silent", "--show-error", "--cacert", w.CA.File,
		"--interface", "127.0.0.9", "--user", w.user.Name + ":" + w.user.Password, url}, args...)}
}

// message is the path of one message in a URL of curl's.
func message(listener string, number int) string {
	if strings.HasPrefix(listener, "imap") {
		return fmt.Sprintf("INBOX;MAILINDEX=%d", number)
	}
	return fmt.Sprint(number)
}

func TestCurlFetchesMessages(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "enforce", smallMailbox()...)
	eachListener(t, func(t *testing.T, listener string) {
		var got []string
		for i := range smallMailbox()[:5] {
			got = append(got, hash([]byte(w.curl(listener, message(listener, i+1), "--ssl-reqd").succeed(t))))
		}
		sameMessages(t, listener, got, hashAll(smallMailbox()[:5]))
	})
	w.CheckIdentities(t, 20)
}

func TestCurlWithoutTLSOrWithAWrongPasswordIsRefused(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "enforce", smallMailbox()...)
	const loginDenied = 67
	for _, listener := range []string{"imap", "pop3"} {
		stdout, stderr, code := w.curl(listener, message(listener, 1)).run(t)
		if code != loginDenied || stdout != "" {
			t.Errorf("%s without TLS: exit code %d, %q, %s", listener, code, stdout, stderr)
		}
	}
	eachListener(t, func(t *testing.T, listener string) {
		stdout, stderr, code := w.curl(listener, message(listener, 1), "--ssl-reqd",
			"--user", w.user.Name+":wrong").run(t)
		if code != loginDenied || stdout != "" {
			t.Errorf("wrong password: exit code %d, %q, %s", code, stdout, stderr)
		}
	})
}
