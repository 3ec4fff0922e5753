package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"postern/internal/posterntest"
)

// outcome is what a command left behind.
type outcome struct {
	code           int
	stdout, stderr string
}

// runCommand runs a command line in an environment of its own.
func runCommand(t *testing.T, environ []string, args ...string) outcome {
	t.Helper()
	var stdout, stderr buffer
	code := run(t.Context(), system{args: args, environ: environ, stdout: &stdout, stderr: &stderr, stop: make(chan os.Signal)})
	return outcome{code, stdout.String(), stderr.String()}
}

// buffer may be written and read by several goroutines.
type buffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

func TestHelpNamesEveryCommand(t *testing.T) {
	for _, arg := range []string{"-h", "-help", "--help", "help"} {
		o := runCommand(t, nil, arg)
		if o.code != exitOK || o.stderr != "" {
			t.Errorf("%s: exit %d, stderr %q", arg, o.code, o.stderr)
		}
		for _, c := range commands() {
			if !regexp.MustCompile(`(?m)^  postern ` + c.name + ` +` + regexp.QuoteMeta(c.summary) + `$`).MatchString(o.stdout) {
				t.Errorf("%s does not name %s:\n%s", arg, c.name, o.stdout)
			}
		}
	}
}

func TestEveryCommandHasHelp(t *testing.T) {
	says := map[string][]string{
		"serve":   {"postern serve", "POSTERN_UPSTREAM_IMAP", "POSTERN_TLS_CERT_FILE", "POSTERN_TIMEOUT_IDLE", "Dovecot"},
		"demo":    {"postern demo", "-once", "-mode", "-floor"},
		"version": {"postern version", "-json"},

		"completion": {"postern completion", "bash", "fish"},
		"check":      {"postern check", "-offline", "Exit code"},
		"plan":       {"postern plan", "-for", "-policy", "-at", "-client", "-version", "RFC 3339", "Exit code"},

		"report": {"postern report", "-since", "-ready", "-forget", "-accounts", "POSTERN_LEDGER_URL", "Exit code"},
		"replay": {"postern replay", "-policy", "-at", "candidates", "RFC 3339", "Exit code"},

		"probe":       {"postern probe", "-starttls", "-targets", "-floor", "LOGOUT", "Exit code"},
		"guard":       {"postern guard", "-release", "-until", "Exit code"},
		"healthcheck": {"postern healthcheck", "POSTERN_ADMIN_LISTEN"},
	}
	for _, c := range commands() {
		// The environment is wrong on purpose: help does not look at it.
		o := runCommand(t, []string{"POSTERN_NONSENSE=1"}, c.name, "-h")
		if o.code != exitOK || o.stderr != "" || len(says[c.name]) == 0 {
			t.Errorf("%s: exit %d, stderr %q", c.name, o.code, o.stderr)
		}
		if help := runCommand(t, nil, "help", c.name); help != o {
			t.Errorf("help %s is not %s -h: exit %d, %q", c.name, c.name, help.code, help.stdout)
		}
		for _, want := range says[c.name] {
			if !strings.Contains(o.stdout, want) {
				t.Errorf("%s -h does not say %q:\n%s", c.name, want, o.stdout)
			}
		}
	}
}

func TestWrongUsageIsOneLineAndExitTwo(t *testing.T) {
	for _, args := range [][]string{
		{"serv"}, {"-v"}, {""}, {"serve", "-once"}, {"serve", "now"}, {"demo", "-onc"}, {"demo", "once"}, {"demo", "-once=maybe"},
		{"demo", "-mode"}, {"demo", "-once", "-mode", "lenient"}, {"demo", "-once", "-floor", "tls1.1"}, {"version", "-x"}, {"version", "all"}, {"help", "me"},
	} {
		o := runCommand(t, nil, args...)
		if o.code != exitUsage || strings.Count(o.stderr, "\n") != 1 || !strings.HasPrefix(o.stderr, "postern") || o.stdout != "" {
			t.Errorf("%q: exit %d, stdout %q, stderr %q", args, o.code, o.stdout, o.stderr)
		}
	}
}

func TestVersion(t *testing.T) {
	o := runCommand(t, nil, "version")
	for _, flag := range []string{"-version", "--version"} {
		if same := runCommand(t, nil, flag); same != o {
			t.Errorf("%s: exit %d, stdout %q", flag, same.code, same.stdout)
		}
	}
	want := fmt.Sprintf(`^postern \S+ \(commit \S+, %s %s/%s\)\n$`, regexp.QuoteMeta(runtime.Version()), runtime.GOOS, runtime.GOARCH)
	if o.code != exitOK || o.stderr != "" || !regexp.MustCompile(want).MatchString(o.stdout) {
		t.Errorf("exit %d, stderr %q, stdout %q, want %s", o.code, o.stderr, o.stdout, want)
	}
}

func TestServeNamesAllThatIsWrongAtOnce(t *testing.T) {
	o := runCommand(t, []string{
		"POSTERN_UPSTREM_IMAP=imap://127.0.0.1:1", "POSTERN_UPSTREAM_POP3=imap://127.0.0.1:1", "POSTERN_POLICY_MODE=lenient",
		"POSTERN_TIMEOUT_IDLE=", "POSTERN_ADMIN_LISTEN=127.0.0.1:0", "POSTERN_LISTEN_IMAPS=nowhere", "POSTERN_LOG_LEVEL=loud", "POSTERN_SERVICE_HOST=10.0.0.1", "PATH=/bin",
	}, "serve")
	lines := strings.Split(strings.TrimSuffix(o.stderr, "\n"), "\n")
	want := []string{"UPSTREM_IMAP", "UPSTREAM_POP3", "POLICY_MODE", "TIMEOUT_IDLE", "LISTEN_IMAPS", "LOG_LEVEL", "TLS_CERT_FILE"}
	if o.code != exitUsage || o.stdout != "" || len(lines) != len(want) {
		t.Errorf("exit %d, stdout %q, %d lines, want %d:\n%s", o.code, o.stdout, len(lines), len(want), o.stderr)
	}
	for _, name := range want {
		if n := len(regexp.MustCompile(`(?m)^POSTERN_`+name+`: .+$`).FindAllString(o.stderr, -1)); n != 1 {
			t.Errorf("%d lines about %s:\n%s", n, name, o.stderr)
		}
	}
	// A bare postern is postern serve.
	if bare := runCommand(t, []string{"POSTERN_POLICY_MODE=lenient"}); bare.code != exitUsage || !strings.Contains(bare.stderr, "POSTERN_POLICY_MODE: ") {
		t.Errorf("bare: exit %d, stderr %q", bare.code, bare.stderr)
	}
}

func TestServeNamesWhatItCannotLoadOrBind(t *testing.T) {
	dir := t.TempDir()
	pair := posterntest.NewCA(t).Issue(t, posterntest.DefaultNames, posterntest.ECDSA)
	base := func(cert, imaps, pop3s string) []string {
		return []string{"POSTERN_UPSTREAM_IMAP=imap://127.0.0.1:1", "POSTERN_UPSTREAM_POP3=pop3://127.0.0.1:1", "POSTERN_TLS_CERT_FILE=" + cert,
			"POSTERN_LISTEN_IMAPS=" + imaps, "POSTERN_LISTEN_POP3S=" + pop3s, "POSTERN_LISTEN_IMAP=off", "POSTERN_LISTEN_POP3=off", "POSTERN_ADMIN_LISTEN=127.0.0.1:0"}
	}
	missing := filepath.Join(dir, "missing.pem")
	token := "POSTERN_ADMIN_TOKEN_FILE=" + filepath.Join(dir, "token")
	for name, tt := range map[string]struct {
		environ []string
		want    []string
	}{
		"no certificate": {base(missing+","+filepath.Join(dir, "absent.pem"), "127.0.0.1:0", "off"), []string{"missing.pem", "absent.pem"}},
		"no token": {append(base(missing, "127.0.0.1:0", "off"), token),
			[]string{"missing.pem", token[:len("POSTERN_ADMIN_TOKEN_FILE")] + ": " + filepath.Join(dir, "token") + ": no such file"}},
		"no address": {append(base(pair.CertFile, "192.0.2.1:993", "192.0.2.1:995"), "POSTERN_TLS_KEY_FILE="+pair.KeyFile), []string{"POSTERN_LISTEN_IMAPS: ", "POSTERN_LISTEN_POP3S: "}},
	} {
		o := runCommand(t, tt.environ, "serve")
		if o.code != exitUsage || strings.Count(o.stderr, "\n") != len(tt.want) {
			t.Errorf("%s: exit %d, stderr %q", name, o.code, o.stderr)
		}
		for _, want := range tt.want {
			if !strings.Contains(o.stderr, want) {
				t.Errorf("%s: %q is not in %q", name, want, o.stderr)
			}
		}
	}
}

func TestServeStopsOnASignal(t *testing.T) {
	pair := posterntest.NewCA(t).Issue(t, posterntest.DefaultNames, posterntest.ECDSA)
	var stderr buffer
	stop := make(chan os.Signal, 2)
	code := make(chan int, 1)
	go func() {
		code <- run(context.Background(), system{environ: []string{
			"POSTERN_UPSTREAM_IMAP=imap://127.0.0.1:1", "POSTERN_TLS_CERT_FILE=" + pair.CertFile, "POSTERN_TLS_KEY_FILE=" + pair.KeyFile,
			"POSTERN_LISTEN_IMAPS=127.0.0.1:0", "POSTERN_LISTEN_IMAP=127.0.0.1:0", "POSTERN_ADMIN_LISTEN=127.0.0.1:0",
		}, stdout: &buffer{}, stderr: &stderr, stop: stop})
	}()
	waitFor(t, &stderr, `"msg":"serving"`)
	stop <- syscall.SIGTERM
	select {
	case c := <-code:
		if c != exitOK || !strings.Contains(stderr.String(), `"msg":"stopped"`) {
			t.Errorf("exit %d, stderr %s", c, stderr.String())
		}
	case <-time.After(time.Minute):
		t.Fatal("it did not stop")
	}
}

// waitFor waits for text in what a command writes.
func waitFor(t *testing.T, b *buffer, text string) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !strings.Contains(b.String(), text); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waiting for %q, there is only:\n%s", text, b.String())
		}
	}
}
