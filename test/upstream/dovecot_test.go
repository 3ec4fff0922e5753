package upstream

import (
	"net"
	"net/netip"
	"strings"
	"testing"

	"github.com/pires/go-proxyproto"

	"postern/internal/dovecot"
	"postern/internal/posterntest"
)

// claim is the header of a proxy in front that speaks for a client.
func claim(t *testing.T, version byte, source, destination string) []byte {
	t.Helper()
	h := proxyproto.HeaderProxyFromAddrs(version,
		net.TCPAddrFromAddrPort(netip.MustParseAddrPort(source)), net.TCPAddrFromAddrPort(netip.MustParseAddrPort(destination)))
	b, err := h.Format()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestARealDovecotSeesTheClientAndItsTLS(t *testing.T) {
	t.Parallel()
	d := dovecot.Start(t, dovecot.Options{HAProxy: true})
	d.Deliver(t, dovecot.Anna.Name, dovecot.Message(1, nil))
	start := func(version string) *posterntest.Proxy {
		return posterntest.Start(t, map[string]string{
			"UPSTREAM_IMAP": "imap://" + d.ProxyIMAP, "UPSTREAM_POP3": "pop3://" + d.ProxyPOP3,
			"UPSTREAM_PROXY_PROTOCOL": version, "PROXY_PROTOCOL_FROM": "127.0.0.8/32",
		})
	}
	direct := posterntest.Caller{From: "127.0.0.9"}
	through := posterntest.Caller{From: "127.0.0.8", Header: claim(t, 2, "192.0.2.7:4711", "198.51.100.1:993")}
	v2, v1 := start("v2"), start("v1")
	for _, listener := range posterntest.Listeners {
		for _, caller := range []posterntest.Caller{direct, through} {
			c, err := caller.Login(v2, listener, dovecot.Anna.Name, dovecot.Anna.Password)
			if err != nil {
				t.Errorf("%s: Dovecot does not take the line for secure: %v", listener, err)
				continue
			}
			c.Close()
			// Without the TLS facts Dovecot would have refused.
			if c, err := caller.Login(v1, listener, dovecot.Anna.Name, dovecot.Anna.Password); err == nil {
				t.Errorf("%s: version 1 tells nothing of TLS, and still the login succeeded", listener)
				c.Close()
			} else if !strings.Contains(err.Error(), "PRIVACYREQUIRED") && !strings.Contains(err.Error(), "-ERR") {
				t.Errorf("%s: %v", listener, err)
			}
		}
	}
	logged(t, d, 4, `Login: user=<anna@example.org>, .* rip=127\.0\.0\.9, lip=127\.0\.0\.1, .* secured`)
	logged(t, d, 4, `Login: user=<anna@example.org>, .* rip=192\.0\.2\.7, lip=198\.51\.100\.1, .* secured`)
}

func TestARealDovecotTakesTheAddressFromAnID(t *testing.T) {
	t.Parallel()
	d := dovecot.Start(t, dovecot.Options{Config: "login_trusted_networks = 127.0.0.1"})
	g := posterntest.Start(t, map[string]string{
		"UPSTREAM_IMAP": "imap://" + d.IMAP, "UPSTREAM_POP3": "pop3://" + d.POP3,
		"UPSTREAM_CLIENT_ID": "id", "PROXY_PROTOCOL_FROM": "127.0.0.8/32",
	})
	callers := []posterntest.Caller{
		{From: "127.0.0.9"},
		{From: "127.0.0.8", Header: claim(t, 1, "[2001:db8::7]:4711", "[2001:db8::1]:993")},
	}
	for _, listener := range posterntest.Listeners {
		for _, caller := range callers {
			c, err := caller.Open(g, listener)
			if err != nil {
				t.Fatal(err)
			}
			if strings.HasPrefix(listener, "imap") {
				// What a client says of itself is not believed.
				if err := c.Do(`ID ("name" "x" "x-originating-ip" "203.0.113.9")`); err != nil {
					t.Error(err)
				}
			}
			if err := c.Login(dovecot.Anna.Name, dovecot.Anna.Password); err != nil {
				t.Errorf("%s: %v", listener, err)
			}
			c.Close()
		}
	}
	logged(t, d, 2, `imap-login: Info: Login: user=<anna@example.org>, .* rip=127\.0\.0\.9, lip=127\.0\.0\.1`)
	logged(t, d, 2, `imap-login: Info: Login: user=<anna@example.org>, .* rip=2001:db8::7, lip=2001:db8::1`)
	logged(t, d, 4, `pop3-login: Info: Login: user=<anna@example.org>`)
	if strings.Contains(d.Log(t), "203.0.113.9") {
		t.Error("Dovecot has believed the client")
	}
}
