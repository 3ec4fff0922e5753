package servers

import (
	"fmt"
	"regexp"
	"strings"
	"testing"

	"postern/internal/posterntest"
)

// balancer is where connections come from that begin with a PROXY header, and
// stranger where others come from; neither is an address of a server.
const (
	balancer = "127.0.0.8"
	stranger = "127.0.0.9"
)

// What a server is told of the client, it logs.
func TestServersLogTheClientsAddress(t *testing.T) {
	t.Parallel()
	secured := `rip=192\.0\.2\.7, lip=198\.51\.100\.1, mpid=\d+, (TLS|secured)`
	for name, test := range map[string]struct {
		start   func(*testing.T) *server
		version string
		log     string
	}{
		"Dovecot 2.3 v2": {func(t *testing.T) *server { return startDovecot(t, false, "ssl = required") }, "v2", secured},
		"Dovecot 2.4 v2": {func(t *testing.T) *server { return startDovecot(t, true, "ssl = required") }, "v2", secured},
		"Dovecot 2.4 v1": {func(t *testing.T) *server { return startDovecot(t, true, "") }, "v1", secured},
		"Courier v1":     {startCourier, "v1", `LOGIN, user=anna00, ip=\[::ffff:192\.0\.2\.7\], port=\[4711\]`},
	} {
		t.Run(name, func(t *testing.T) {
			s := test.start(t)
			g := s.behind(t, line{header: test.version}, map[string]string{"PROXY_PROTOCOL_FROM": balancer + "/32"})
			caller := posterntest.Caller{From: balancer, Header: claim(t, "192.0.2.7:4711", "198.51.100.1:993")}
			for _, listener := range posterntest.Listeners {
				c, err := caller.Login(g, listener, userName(0), password)
				if err != nil {
					t.Fatalf("%s: %v", listener, err)
				}
				c.Close()
			}
			wanted := regexp.MustCompile(test.log)
			waitFor(t, s.name+"'s log", func() error {
				if n := len(wanted.FindAllString(s.log(), -1)); n != len(posterntest.Listeners) {
					return fmt.Errorf("%d lines with %s, want %d in\n%s", n, wanted, len(posterntest.Listeners), s.log())
				}
				return nil
			})
		})
	}
}

// secondAddress is one of Dovecot's, from where it sees the proxy under another: a
// line with one address on both ends it would take for secure in any case.
const secondAddress = "127.0.0.2"

// Which logins Dovecot allows on a plaintext line from the proxy, by version and by
// what it is told. The documentation has the same.
func TestDovecotAllowsLoginsOnAPlaintextLine(t *testing.T) {
	t.Parallel()
	const trusted = "listen = 127.0.0.1, " + secondAddress + "\nlogin_trusted_networks = 127.0.0.1\n"
	for _, version := range []string{"2.3", "2.4"} {
		for _, ssl := range []string{"yes", "required"} {
			t.Run(version+" ssl="+ssl, func(t *testing.T) {
				s := startDovecot(t, version == "2.4", trusted+"ssl = "+ssl)
				allowed := map[string]bool{
					"v1": version == "2.4" && ssl == "yes",
					"v2": true,
					"id": version == "2.3" || ssl == "yes",
				}
				for told, want := range allowed {
					g := s.telling(t, told)
					c, err := posterntest.Caller{From: stranger}.Login(g, "imaps", userName(0), password)
					switch {
					case (err == nil) != want:
						t.Errorf("%s: %v, want it to be allowed: %v", told, err, want)
					case err == nil:
						c.Close()
					case !strings.Contains(err.Error(), "PRIVACYREQUIRED"):
						t.Errorf("%s: %v", told, err)
					}
				}
				s.logged(t, "rip="+stranger)
			})
		}
	}
}

// telling is a proxy that tells the server the client's address, over a plaintext line.
func (s *server) telling(t *testing.T, how string) *posterntest.Proxy {
	t.Helper()
	if how != "id" {
		return s.behind(t, line{header: how}, nil)
	}
	elsewhere := strings.Replace(s.ports["imap"], "127.0.0.1", secondAddress, 1)
	return posterntest.Start(t, map[string]string{"UPSTREAM_IMAP": "imap://" + elsewhere, "UPSTREAM_CLIENT_ID": "id"})
}
