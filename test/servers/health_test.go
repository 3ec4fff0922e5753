package servers

import (
	"strings"
	"testing"

	"postern/internal/posterntest"
)

// healthy wants the servers behind a proxy up, or down, and check to exit so and to say
// all of that.
func healthy(t *testing.T, g *posterntest.Proxy, want float64, code int, says ...string) {
	t.Helper()
	s := g.Wait(t, func(s posterntest.Samples) bool {
		return s.Value("postern_upstream_up") == 2*want && (want == 1 || s.Value("postern_upstream_failures_total") >= 2)
	})
	if up := s.Value("postern_upstream_up"); up != 2*want {
		t.Errorf("%v of two are up", up)
	}
	got, out := g.Command("check")
	missing := got != code
	for _, part := range says {
		missing = missing || !strings.Contains(out, part)
	}
	if missing {
		t.Errorf("check exits with %d, want %d and %q:\n%s", got, code, says, out)
	}
}

// What Postern says of each server is what its clients meet.
func TestHealthIsTrueOfEveryServer(t *testing.T) {
	t.Parallel()
	for name, start := range map[string]func(*testing.T) *server{
		"Dovecot 2.3": func(t *testing.T) *server { return startDovecot(t, false, "") },
		"Dovecot 2.4": func(t *testing.T) *server { return startDovecot(t, true, "") },
		"Cyrus":       func(t *testing.T) *server { return startCyrus(t, "") },
		"Courier":     startCourier,
	} {
		t.Run(name, func(t *testing.T) {
			s := start(t)
			for _, l := range s.lines() {
				healthy(t, s.behind(t, l, nil), 1, 0)
			}
			for _, version := range []string{"v1", "v2"} {
				g := s.behind(t, line{name: "plain"}, map[string]string{"UPSTREAM_PROXY_PROTOCOL": version})
				healthy(t, g, 0, 1, "set POSTERN_UPSTREAM_PROXY_PROTOCOL=off if it expects no PROXY header, else have it trust this host")
				if status, body, err := g.Get("/readyz"); err != nil || status != 200 || strings.Count(body, "POSTERN_UPSTREAM_PROXY_PROTOCOL") != 2 {
					t.Errorf("%s: /readyz is %d, %v:\n%s", version, status, err, body)
				}
			}
		})
	}
}

func TestCheckSaysWhatServersDoNotTake(t *testing.T) {
	t.Parallel()
	id := map[string]string{"UPSTREAM_CLIENT_ID": "id"}
	t.Run("Cyrus without plaintext", func(t *testing.T) {
		s := startCyrus(t, "allowplaintext: no\n")
		healthy(t, s.behind(t, line{}, nil), 1, 0, "imap://"+s.ports["imap"]+": it refuses logins", "pop3://"+s.ports["pop3"]+": it refuses logins", "set allowplaintext: yes")
	})
	t.Run("Dovecot 2.4 with TLS alone", func(t *testing.T) {
		s := startDovecot(t, true, "ssl = required")
		healthy(t, s.behind(t, line{header: "v1"}, nil), 1, 0, "cannot say that clients are encrypted: set v2")
		healthy(t, s.behind(t, line{}, id), 1, 0, "login_trusted_networks")
	})
	t.Run("Dovecot 2.4 that trusts", func(t *testing.T) {
		healthy(t, startDovecot(t, true, "login_trusted_networks = 127.0.0.1").behind(t, line{}, id), 1, 0, "ok: POSTERN_UPSTREAM_IMAP: imap", "believes the client's address")
	})
	t.Run("Courier", func(t *testing.T) {
		healthy(t, startCourier(t).behind(t, line{}, id), 1, 0, "POSTERN_UPSTREAM_CLIENT_ID=id has no effect")
	})
}
