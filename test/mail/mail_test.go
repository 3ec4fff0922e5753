// Package mail runs real mail programs through the real proxy to a real Dovecot.
package mail

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"maps"
	"net"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"postern/internal/dovecot"
	"postern/internal/posterntest"
)

func TestMain(m *testing.M) { posterntest.Main(m) }

// programTimeout is for a whole mail program.
const programTimeout = 60 * time.Second

// world is a proxy in front of a Dovecot that itself offers STARTTLS and STLS,
// so that the proxy has something to hide.
type world struct {
	*posterntest.Proxy
	dovecot *dovecot.Server
	user    dovecot.User
}

// newWorld starts both, with messages in Anna's INBOX.
func newWorld(t *testing.T, mode string, messages ...[]byte) *world {
	t.Helper()
	return newWorldWith(t, map[string]string{"POLICY_MODE": mode}, messages...)
}

func newWorldWith(t *testing.T, env map[string]string, messages ...[]byte) *world {
	t.Helper()
	pair := posterntest.NewCA(t).Issue(t, posterntest.DefaultNames, posterntest.RSA)
	d := dovecot.Start(t, dovecot.Options{CertFile: pair.CertFile, KeyFile: pair.KeyFile})
	d.Deliver(t, dovecot.Anna.Name, messages...)
	all := map[string]string{"UPSTREAM_IMAP": "imap://" + d.IMAP, "UPSTREAM_POP3": "pop3://" + d.POP3}
	maps.Copy(all, env)
	g := posterntest.Start(t, all)
	w := &world{Proxy: g, dovecot: d, user: dovecot.Anna}
	t.Cleanup(func() {
		for _, secret := range []string{w.user.Password, plainResponse(w.user.Name, w.user.Password)} {
			if strings.Contains(g.Stderr(), secret) {
				t.Error("the password is in the proxy's log")
			}
		}
	})
	return w
}

func (w *world) port(t *testing.T, listener string) string {
	t.Helper()
	_, port, err := net.SplitHostPort(w.Addr(listener))
	if err != nil {
		t.Fatal(err)
	}
	return port
}

// elsewhere is where clients come from. Dovecot takes for secure only a line
// whose two ends are one address: from there nothing but the proxy can make a
// login work.
const elsewhere = "127.0.0.9"

// open returns a client inside TLS.
func (w *world) open(t *testing.T, listener string) *posterntest.Client {
	t.Helper()
	c, err := posterntest.Caller{From: elsewhere}.Open(w.Proxy, listener)
	if err != nil {
		t.Fatalf("%s: %v", listener, err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// direct talks to Dovecot itself, from the proxy's address.
func (w *world) direct(t *testing.T, protocol string) *posterntest.Client {
	t.Helper()
	conn, err := net.Dial("tcp", map[string]string{"imap": w.dovecot.IMAP, "pop3": w.dovecot.POP3}[protocol])
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	c := posterntest.NewClient(conn, protocol)
	c.Greeting = c.ExpectLine(t, "")
	return c
}

func (w *world) login(t *testing.T, c *posterntest.Client) {
	t.Helper()
	if err := c.Login(w.user.Name, w.user.Password); err != nil {
		t.Fatal(err)
	}
}

// smallMailbox is the first twenty messages: every kind but the big one.
func smallMailbox() [][]byte { return wholeMailbox()[:20] }

var wholeMailbox = sync.OnceValue(func() [][]byte { return dovecot.Mailbox(20260601) })

func hash(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

func hashAll(messages [][]byte) []string {
	sums := make([]string, len(messages))
	for i, m := range messages {
		sums[i] = hash(m)
	}
	return sums
}

// sameMessages compares hashes in order and names the first that differs.
func sameMessages(t *testing.T, what string, got, want []string) {
	t.Helper()
	if len(got) != len(want) {
		t.Errorf("%s: %d messages, want %d", what, len(got), len(want))
		return
	}
	for i := range got {
		if got[i] != want[i] {
			t.Errorf("%s: message %d differs", what, i+1)
			return
		}
	}
}

// packages name what to install for each program.
var packages = map[string]string{
	"openssl": "openssl", "gnutls-cli": "gnutls-bin", "curl": "curl",
	"mbsync": "isync", "fetchmail": "fetchmail", "python3": "python3",
}

// program is one run of a mail program. Its input is held open until it ends,
// since s_client and gnutls-cli hang up at the end of theirs.
type program struct {
	name  string
	args  []string
	env   []string // besides PATH, HOME and the locale
	input string
}

// run returns what the program wrote and its exit code.
func (p program) run(t *testing.T) (stdout, stderr string, code int) {
	t.Helper()
	path, err := exec.LookPath(p.name)
	if err != nil {
		t.Fatalf("this test needs the Debian package %s: %v", packages[p.name], err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), programTimeout)
	defer cancel()
	var out, errs bytes.Buffer
	cmd := exec.CommandContext(ctx, path, p.args...)
	cmd.Stdout, cmd.Stderr = &out, &errs
	cmd.Env = append(cmd.Environ(), append([]string{"LC_ALL=C.UTF-8", "HOME=" + t.TempDir()}, p.env...)...)
	cmd.WaitDelay = time.Second
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatalf("starting %s: %v", p.name, err)
	}
	// A program that is refused may be gone before it reads its input.
	_, _ = in.Write([]byte(p.input))
	err = cmd.Wait()
	if ctx.Err() != nil {
		t.Fatalf("%s %q did not end in %v\nstdout: %s\nstderr: %s", p.name, p.args, programTimeout, &out, &errs)
	}
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatalf("running %s: %v", p.name, err)
	}
	return out.String(), errs.String(), cmd.ProcessState.ExitCode()
}

// succeed is run for a program that must exit with 0.
func (p program) succeed(t *testing.T) string {
	t.Helper()
	stdout, stderr, code := p.run(t)
	if code != 0 {
		t.Fatalf("%s %q: exit code %d\nstdout: %s\nstderr: %s", p.name, p.args, code, stdout, stderr)
	}
	return stdout
}
