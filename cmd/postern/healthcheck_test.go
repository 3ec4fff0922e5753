package main

import (
	"crypto/tls"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"postern/internal/posterntest"
)

// readyz answers as the admin port does.
func readyz(status int, body string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/readyz" {
			status, body = 404, "not found\n"
		}
		w.WriteHeader(status)
		io.WriteString(w, body)
	})
}

func TestHealthcheckSaysWhatTheInstanceSays(t *testing.T) {
	for _, test := range []struct {
		status int
		body   string
		code   int
		stderr string
	}{
		{200, "listeners: ok\ndraining: no\n", 0, ""},
		{503, "listeners: ok\ncertificate: not loaded\nupstream imap: not answered yet\ndraining: no\n", 1,
			"postern healthcheck: not ready: certificate: not loaded\npostern healthcheck: not ready: upstream imap: not answered yet\n"},
		{503, "listeners: ok\ndraining: yes\n", 1, "postern healthcheck: not ready: draining: yes\n"},
		{302, "", 1, "unexpected status 302"},
		{404, "listeners: ok\n", 1, "unexpected status 404"},
	} {
		s := httptest.NewServer(readyz(test.status, test.body))
		o := runCommand(t, []string{"POSTERN_ADMIN_LISTEN=" + s.Listener.Addr().String(), "POSTERN_NONSENSE=1", "POSTERN_UPSTREAM_IMAP=?"}, "healthcheck")
		s.Close()
		if o.code != test.code || o.stdout != "" || !strings.Contains(o.stderr, test.stderr) || test.stderr == "" && o.stderr != "" {
			t.Errorf("%d %q: exit code %d, stderr %q; want %d, %q", test.status, test.body, o.code, o.stderr, test.code, test.stderr)
		}
	}
}

func TestHealthcheckGoesThroughLoopbackToAWildcard(t *testing.T) {
	s := httptest.NewServer(readyz(200, ""))
	defer s.Close()
	_, port, _ := net.SplitHostPort(s.Listener.Addr().String())
	for _, listen := range []string{":" + port, "0.0.0.0:" + port, "[::]:" + port} {
		if o := runCommand(t, []string{"POSTERN_ADMIN_LISTEN=" + listen}, "healthcheck"); o.code != 0 {
			t.Errorf("%s: exit code %d, %s", listen, o.code, o.stderr)
		}
	}
}

func TestHealthcheckOfAnInstanceThatDoesNotRunOrHangs(t *testing.T) {
	o := runCommand(t, []string{"POSTERN_ADMIN_LISTEN=" + posterntest.FreeAddr(t)}, "healthcheck")
	if o.code != exitNo || !strings.Contains(o.stderr, "no instance answers at ") || strings.Count(o.stderr, "\n") != 1 {
		t.Errorf("not running: exit code %d, %q", o.code, o.stderr)
	}
	hanging := posterntest.StartRawUpstream(t, func(c net.Conn) { io.Copy(io.Discard, c) })
	posterntest.Within(t, "giving up", healthTimeout+2*time.Second, func() time.Duration {
		begun := time.Now()
		if o := runCommand(t, []string{"POSTERN_ADMIN_LISTEN=" + hanging.Addr()}, "healthcheck"); o.code != exitNo {
			t.Errorf("hanging: exit code %d", o.code)
		}
		took := time.Since(begun)
		if took < healthTimeout {
			t.Errorf("hanging: gave up after %v, want %v", took, healthTimeout)
		}
		return took
	})
}

func TestHealthcheckOverTLSKnowsItsOwnCertificate(t *testing.T) {
	ca := posterntest.NewCA(t)
	own, other := ca.Issue(t, []string{"admin.example.org"}, posterntest.ECDSA), ca.Issue(t, []string{"127.0.0.1"}, posterntest.ECDSA)
	cert, err := tls.LoadX509KeyPair(own.CertFile, own.KeyFile)
	if err != nil {
		t.Fatal(err)
	}
	s := httptest.NewUnstartedServer(readyz(200, ""))
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.TLS = &tls.Config{Certificates: []tls.Certificate{cert}}
	s.StartTLS()
	defer s.Close()
	for file, want := range map[string]struct {
		code   int
		stderr string
	}{
		own.CertFile:   {0, ""},
		other.CertFile: {0, ""}, // on disk, and not taken yet
		"/nonexistent": {0, ""}, // the proxy keeps what it has
	} {
		o := runCommand(t, []string{"POSTERN_ADMIN_LISTEN=" + s.Listener.Addr().String(), "POSTERN_ADMIN_TLS_CERT_FILE=" + file}, "healthcheck")
		if o.code != want.code || !strings.Contains(o.stderr, want.stderr) {
			t.Errorf("%s: exit code %d, %q; want %d, %q", file, o.code, o.stderr, want.code, want.stderr)
		}
	}
}

func TestHealthcheckUsage(t *testing.T) {
	for _, args := range [][]string{{"healthcheck", "now"}, {"healthcheck", "-x"}, {"check", "file"}} {
		if o := runCommand(t, nil, args...); o.code != exitUsage || o.stderr == "" {
			t.Errorf("%q: exit code %d, %q", args, o.code, o.stderr)
		}
	}
	if o := runCommand(t, []string{"POSTERN_ADMIN_LISTEN=off"}, "healthcheck"); o.code != exitUsage || !strings.Contains(o.stderr, "POSTERN_ADMIN_LISTEN") {
		t.Errorf("exit code %d, %q", o.code, o.stderr)
	}
}

func TestCheckPutsProblemsOnStderrAndCountsThem(t *testing.T) {
	ca := posterntest.NewCA(t)
	pair := ca.Issue(t, posterntest.DefaultNames, posterntest.ECDSA)
	up := posterntest.StartUpstream(t, posterntest.POP3Greeting, posterntest.POP3Reply)
	environ := func(more ...string) []string {
		return append([]string{"POSTERN_TLS_CERT_FILE=" + pair.CertFile, "POSTERN_TLS_KEY_FILE=" + pair.KeyFile,
			"POSTERN_LISTEN_POP3S=127.0.0.1:0", "POSTERN_LISTEN_POP3=off", "POSTERN_ADMIN_LISTEN=127.0.0.1:0",
			"POSTERN_UPSTREAM_POP3=" + up.URL("pop3")}, more...)
	}
	down := "POSTERN_UPSTREAM_POP3=pop3://" + posterntest.FreeAddr(t)
	for _, test := range []struct {
		environ        []string
		args           []string
		code           int
		stdout, stderr string
	}{
		{environ(), nil, 0, "warning: POSTERN_TLS_CERT_FILE: " + pair.CertFile + ": the certificate of its issuer ", ""},
		{environ(), nil, 0, "ok: POSTERN_UPSTREAM_POP3: " + up.URL("pop3") + ": answers with ", ""},
		{environ(down), nil, 1, "warning: ", "error: POSTERN_UPSTREAM_POP3: pop3://"},
		{environ(down), []string{"-offline"}, 0, "warning: ", ""},
		{environ(down, "POSTERN_LOG_LEVEL=loud"), nil, 2, "warning: ", "error: POSTERN_LOG_LEVEL: "},
		{nil, nil, 2, "", "error: POSTERN_TLS_CERT_FILE: must be set"},
	} {
		o := runCommand(t, test.environ, append([]string{"check"}, test.args...)...)
		if o.code != test.code || !strings.Contains(o.stdout, test.stdout) || !strings.Contains(o.stderr, test.stderr) || test.stderr == "" && o.stderr != "" {
			t.Errorf("%v: exit code %d\nstdout:\n%sstderr:\n%s", test, o.code, o.stdout, o.stderr)
		}
		for line := range strings.Lines(o.stderr) {
			if !strings.HasPrefix(line, "error: ") {
				t.Errorf("line on stderr: %q", line)
			}
		}
	}
}
