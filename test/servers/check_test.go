package servers

import (
	"errors"
	"maps"
	"os"
	"os/exec"
	"strings"
	"testing"

	"postern/internal/posterntest"
)

// check runs "postern check" for a proxy in front of the server, and returns what it
// writes and its exit code.
func (s *server) check(t *testing.T, l line, more map[string]string) (string, int) {
	t.Helper()
	pair := s.ca.Issue(t, posterntest.DefaultNames, posterntest.RSA)
	env := map[string]string{
		"UPSTREAM_IMAP": "imap" + l.scheme + "://" + s.port(l, "imap"),
		"UPSTREAM_POP3": "pop3" + l.scheme + "://" + s.port(l, "pop3"),
		"TLS_CERT_FILE": pair.CertFile, "TLS_KEY_FILE": pair.KeyFile, "ADMIN_LISTEN": posterntest.FreeAddr(t),
	}
	for _, listener := range posterntest.Listeners {
		env["LISTEN_"+strings.ToUpper(listener)] = posterntest.FreeAddr(t)
	}
	maps.Copy(env, more)
	cmd := exec.Command(posterntest.Binary(t), "check")
	cmd.Env = os.Environ()
	for name, value := range env {
		cmd.Env = append(cmd.Env, "POSTERN_"+name+"="+value)
	}
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return string(out), cmd.ProcessState.ExitCode()
}

// serversOf start one of each, without any setting that a test is about.
var serversOf = map[string]func(*testing.T) *server{
	"Dovecot 2.3": func(t *testing.T) *server { return startDovecot(t, false, "") },
	"Dovecot 2.4": func(t *testing.T) *server { return startDovecot(t, true, "") },
	"Cyrus":       func(t *testing.T) *server { return startCyrus(t, "") },
	"Courier":     startCourier,
}

// A server greets before it reads a header that it does not expect, and may say much
// before it closes: check has to see that nobody could log in.
func TestCheckNoticesAHeaderThatIsNotExpectedOrMissing(t *testing.T) {
	t.Parallel()
	for name, start := range serversOf {
		t.Run(name, func(t *testing.T) {
			s := start(t)
			said := func(what string, l line, version string, want int) {
				t.Helper()
				out, code := s.check(t, l, map[string]string{"UPSTREAM_PROXY_PROTOCOL": version, "UPSTREAM_TIMEOUT": "7s"})
				if code != want || want == 1 && strings.Count(out, "POSTERN_UPSTREAM_PROXY_PROTOCOL") < 2 {
					t.Errorf("%s: exit code %d, want %d\n%s", what, code, want, out)
				}
			}
			said("no header", line{}, "off", 0)
			for range 3 {
				said("v1 unexpected", line{}, "v1", 1)
				said("v2 unexpected", line{}, "v2", 1)
			}
			for _, version := range s.headers {
				said(version, line{header: version}, version, 0)
				said("none, where one is due", line{header: version}, "off", 1)
			}
		})
	}
}

// What check says of logins and of the client's address is what the servers do.
func TestCheckKnowsWhatServersTake(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		start func(*testing.T) *server
		line  line
		env   map[string]string
		want  []string
	}{
		"Cyrus with allowplaintext: no": {
			func(t *testing.T) *server { return startCyrus(t, "imap_allowplaintext: no\npop3_allowplaintext: no\n") },
			line{}, nil, []string{"use imaps://", "use pop3s://", "allowplaintext: yes"},
		},
		"Dovecot 2.4 with ssl = required and v1": {
			func(t *testing.T) *server { return startDovecot(t, true, "ssl = required") },
			line{header: "v1"}, map[string]string{"UPSTREAM_PROXY_PROTOCOL": "v1"}, []string{"v1 cannot say that clients are encrypted: set v2"},
		},
		"Courier and an ID": {startCourier, line{}, map[string]string{"UPSTREAM_CLIENT_ID": "id"}, []string{"POSTERN_UPSTREAM_CLIENT_ID=id has no effect"}},
		"Dovecot 2.4 and an ID": {
			func(t *testing.T) *server { return startDovecot(t, true, "login_trusted_networks = 127.0.0.1") },
			line{}, map[string]string{"UPSTREAM_CLIENT_ID": "id"}, []string{"believes the client's address"},
		},
		"Dovecot 2.4 and an ID from a stranger": {
			func(t *testing.T) *server { return startDovecot(t, true, "") },
			line{}, map[string]string{"UPSTREAM_CLIENT_ID": "id"}, []string{"does not say that it believes the address"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := test.start(t)
			out, code := s.check(t, test.line, test.env)
			for _, want := range test.want {
				if !strings.Contains(out, want) {
					t.Errorf("exit code %d, no %q in\n%s", code, want, out)
				}
			}
			// None of it stops a start.
			if code != 0 {
				t.Errorf("exit code %d\n%s", code, out)
			}
		})
	}
}
