// Package passthrough tests, through the built binary, that a client which Go
// cannot serve goes on working with the server that has always served it, while
// it is counted.
package passthrough

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"postern/internal/dovecot"
	"postern/internal/posterntest"
)

func TestMain(m *testing.M) { posterntest.Main(m) }

// listeners are those on which TLS begins with the first byte.
var listeners = []string{"imaps", "pop3s"}

// clientTimeout is for a whole mail program.
const clientTimeout = 60 * time.Second

// run runs a program whose input is held open until it ends, since s_client and
// gnutls-cli hang up at the end of theirs.
func run(t *testing.T, input, name string, args ...string) (stdout []byte, stderr string, code int) {
	t.Helper()
	packages := map[string]string{"openssl": "openssl", "gnutls-cli": "gnutls-bin"}
	path, err := exec.LookPath(name)
	if err != nil {
		t.Fatalf("this test needs the Debian package %s: %v", packages[name], err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), clientTimeout)
	defer cancel()
	var out, errs bytes.Buffer
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Stdout, cmd.Stderr, cmd.WaitDelay = &out, &errs, time.Second
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatalf("starting %s: %v", name, err)
	}
	// A program that is refused may be gone before it reads its input.
	_, _ = in.Write([]byte(input))
	err = cmd.Wait()
	if ctx.Err() != nil {
		t.Fatalf("%s %q did not end in %v\nstdout: %.2000s\nstderr: %s", name, args, clientTimeout, &out, &errs)
	}
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatalf("running %s: %v", name, err)
	}
	return out.Bytes(), errs.String(), cmd.ProcessState.ExitCode()
}

// world is a proxy before a Dovecot that still has TLS ports of its own, where
// it takes what clients offered fifteen years ago.
type world struct {
	*posterntest.Proxy
	dovecot *dovecot.Server
	ca      *posterntest.CA // of Dovecot's certificate
	old     map[string]string
}

// newWorld starts both. Dovecot's own certificate is not the proxy's, so that a
// client can tell who has the other end of its TLS.
func newWorld(t *testing.T, mode string, env map[string]string, messages ...[]byte) *world {
	t.Helper()
	w := &world{ca: posterntest.NewCA(t)}
	pair := w.ca.Issue(t, posterntest.DefaultNames, posterntest.RSA)
	dh := filepath.Join(t.TempDir(), "dh.pem")
	if _, stderr, code := run(t, "", "openssl", "dhparam", "-dsaparam", "-out", dh, "2048"); code != 0 {
		t.Fatalf("making DH parameters: %s", stderr)
	}
	w.dovecot = dovecot.Start(t, dovecot.Options{
		CertFile: pair.CertFile, KeyFile: pair.KeyFile, HAProxy: true,
		Config: "ssl_min_protocol = TLSv1\nssl_cipher_list = ALL:@SECLEVEL=0\nssl_dh = <" + dh +
			"\nlogin_log_format_elements = user=<%u> method=%m rip=%r rport=%{rport} lip=%l mpid=%e %c\n",
	})
	w.dovecot.Deliver(t, dovecot.Anna.Name, messages...)
	w.old = map[string]string{"imaps": w.dovecot.ProxyIMAPS, "pop3s": w.dovecot.ProxyPOP3S}
	all := map[string]string{
		"UPSTREAM_IMAP": "imap://" + w.dovecot.ProxyIMAP, "UPSTREAM_POP3": "pop3://" + w.dovecot.ProxyPOP3,
		"UPSTREAM_PROXY_PROTOCOL":    "v2",
		"UPSTREAM_PASSTHROUGH_IMAPS": w.old["imaps"], "UPSTREAM_PASSTHROUGH_POP3S": w.old["pop3s"],
		"POLICY_MODE": mode,
	}
	maps.Copy(all, env)
	if mode == "" { // a file of env says what
		delete(all, "POLICY_MODE")
	}
	w.Proxy = posterntest.Start(t, all)
	return w
}

// session is what s_client and gnutls-cli say once TLS is up, to read the first
// message. Keywords are in lower case: s_client takes a line that begins with Q
// or R for itself.
func session(listener string) string {
	user, password := dovecot.Anna.Name, dovecot.Anna.Password
	if listener == "imaps" {
		return fmt.Sprintf("a login %q %q\r\nb examine INBOX\r\nc fetch 1 body.peek[]\r\nd logout\r\n", user, password)
	}
	return fmt.Sprintf("user %s\r\npass %s\r\ntop 1 1000000\r\nquit\r\n", user, password)
}

// client is a real mail program's TLS library, told to be old. It takes no
// certificate but the one of who has the other end of its TLS.
type client struct {
	name, version, reason string
	program               string
	args                  func(w *world, listener, ca string) []string
}

func openssl(args ...string) func(*world, string, string) []string {
	return func(w *world, listener, ca string) []string {
		return append([]string{"s_client", "-connect", w.Addr(listener), "-CAfile", ca, "-verify_return_error",
			"-quiet", "-servername", "mail.example.org"}, args...)
	}
}

func gnutls(priority string) func(*world, string, string) []string {
	return func(w *world, listener, ca string) []string {
		_, port, _ := net.SplitHostPort(w.Addr(listener))
		return []string{"--port", port, "--x509cafile", ca, "--priority", priority, "127.0.0.1"}
	}
}

const gnutlsOld = ":%VERIFY_ALLOW_SIGN_WITH_SHA1"

// unserved are clients that Go cannot serve; served is one that it can, though
// it is no newer.
var (
	unserved = []client{
		{"OpenSSL with TLS 1.0 and DHE", "tls1.0", "version", "openssl", openssl("-tls1", "-cipher", "DHE-RSA-AES128-SHA:@SECLEVEL=0")},
		{"OpenSSL with TLS 1.2 and DHE", "tls1.2", "cipher", "openssl", openssl("-tls1_2", "-cipher", "DHE-RSA-AES128-GCM-SHA256:@SECLEVEL=0")},
		{"GnuTLS with TLS 1.0 and DHE", "tls1.0", "version", "gnutls-cli", gnutls("NORMAL:-VERS-ALL:+VERS-TLS1.0:-KX-ALL:+DHE-RSA" + gnutlsOld)},
		{"GnuTLS with TLS 1.2 and DHE", "tls1.2", "cipher", "gnutls-cli", gnutls("NORMAL:-VERS-ALL:+VERS-TLS1.2:-KX-ALL:+DHE-RSA" + gnutlsOld)},
		{"OpenSSL with ECDHE and SHA-1", "tls1.2", "cipher", "openssl", openssl("-tls1_2", "-cipher", "ECDHE-RSA-AES128-SHA:@SECLEVEL=0", "-sigalgs", "RSA+SHA1")},
		{"OpenSSL with CBC and SHA-384", "tls1.2", "cipher", "openssl", openssl("-tls1_2", "-cipher", "ECDHE-RSA-AES256-SHA384")},
		{"OpenSSL with CCM and ARIA", "tls1.2", "cipher", "openssl", openssl("-tls1_2", "-cipher", "ECDHE-ARIA128-GCM-SHA256:AES128-CCM")},
		{"GnuTLS with Camellia", "tls1.2", "cipher", "gnutls-cli", gnutls("NORMAL:-VERS-ALL:+VERS-TLS1.2:-CIPHER-ALL:+CAMELLIA-128-CBC:+CAMELLIA-256-CBC")},
	}
	// unread is one whose hello Go does not read, though it offers enough.
	unread = client{"OpenSSL with a dot behind the name", "tls1.3", "malformed", "openssl", openssl("-servername", "mail.example.org.")}
	served = []client{
		{"OpenSSL with TLS 1.0 and RSA", "tls1.0", "version", "openssl", openssl("-tls1", "-cipher", "ALL:@SECLEVEL=0")},
		{"GnuTLS with TLS 1.1", "tls1.1", "version", "gnutls-cli", gnutls("NORMAL:-VERS-ALL:+VERS-TLS1.1" + gnutlsOld)},
	}
)

// moved waits until a series is at n.
func (w *world) moved(t *testing.T, n float64, name string, labels ...string) {
	t.Helper()
	got := 0.0
	w.Wait(t, func(s posterntest.Samples) bool {
		got = s.Count(name, labels...)
		return got == n
	})
	if got != n {
		t.Errorf("%s %v is %v, want %v", name, labels, got, n)
	}
}

// counted waits until that many of such clients have been observed.
func (w *world) counted(t *testing.T, listener string, c client, n float64) {
	t.Helper()
	w.moved(t, n, "postern_legacy_handshakes_total", "listener="+listener, "version="+c.version, "reason="+c.reason, "outcome=observed")
}

// expectLog waits for the nth line of a legacy handshake, which must say all of
// it.
func (w *world) expectLog(t *testing.T, n int, want map[string]any) {
	t.Helper()
	lines := w.WaitLog(t, "legacy handshake", n)
	if len(lines) != n {
		t.Fatalf("%d log lines, want %d", len(lines), n)
	}
	for key, value := range want {
		if lines[n-1][key] != value {
			t.Errorf("%s is %v in the log, want %v", key, lines[n-1][key], value)
		}
	}
}

// expectLogin wants one line of Dovecot's that tells of a login of the client
// that the proxy's last log line is about, in TLS that ends at Dovecot, whose log comes a
// little late.
func (w *world) expectLogin(t *testing.T, listener string) {
	t.Helper()
	lines := w.LogLines("legacy handshake")
	peer := fmt.Sprintf("rip=%v, rport=%v, ", lines[len(lines)-1]["client"], lines[len(lines)-1]["client_port"])
	found := 0
	for end := time.Now().Add(clientTimeout); found == 0 && time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		for line := range strings.Lines(w.dovecot.Log(t)) {
			if strings.Contains(line, strings.TrimSuffix(listener, "s")+"-login: Info: Login: user=<"+dovecot.Anna.Name+">") &&
				strings.Contains(line, peer) && strings.Contains(line, ", TLS") {
				found++
			}
		}
	}
	if found != 1 {
		t.Errorf("%s: %d logins with %s and TLS in Dovecot's log:\n%s", listener, found, peer, w.dovecot.Log(t))
	}
}
