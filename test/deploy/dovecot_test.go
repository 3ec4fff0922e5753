package deploy

import (
	"bufio"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"

	"postern/internal/config"
	"postern/internal/dovecot"
	"postern/internal/posterntest"
)

// clientAddr is not that of the proxy, nor of Dovecot: what Dovecot says of it,
// it can only have from the proxy.
const clientAddr = "127.0.0.7"

var closedPort = regexp.MustCompile(`(?m)^ *port = 0\n`)

// Each configuration of Dovecot in deploy, with the proxy's as it stands beside
// it, on ports of this test.
func TestDovecotSeesTheClientAndASecuredLine(t *testing.T) {
	env := variables(read(t, "deploy/postern.env"))
	env[config.Prefix+"UPSTREAM_PROXY_PROTOCOL"] = "v2"
	f := composed(t)
	for name, test := range map[string]struct {
		conf  string
		vars  map[string]string
		line  string
		newer bool // Dovecot 2.4, which is in the images
	}{
		"same host":      {read(t, "deploy/dovecot-proxy.conf"), env, "rport=[0-9]+, lip=127.0.0.1, .*secured", false},
		"same host, 2.4": {read(t, "deploy/dovecot-proxy-2.4.conf"), env, "rport=[0-9]+, lip=127.0.0.1, .*TLS", true},
		"kubernetes":     {sidecarConfig(t, "postern.conf"), sidecarVariables(t), "lip=127.0.0.1, .*TLS", true},
		"compose":        {f.Configs["dovecot-postern"].Content, f.Services["postern"].Environment, "lip=127.0.0.1, .*TLS", true},
	} {
		t.Run(strings.ReplaceAll(name, ",", ""), func(t *testing.T) {
			ca := posterntest.NewCA(t)
			pair := ca.Issue(t, []string{"mail.example.org"}, posterntest.ECDSA)
			vars := map[string]string{
				"UPSTREAM_PROXY_PROTOCOL": test.vars[config.Prefix+"UPSTREAM_PROXY_PROTOCOL"],
				"TLS_CERT_FILE":           pair.CertFile, "TLS_KEY_FILE": pair.KeyFile,
			}
			if name := test.vars[config.Prefix+"UPSTREAM_SERVER_NAME"]; name != "" {
				vars["UPSTREAM_SERVER_NAME"], vars["UPSTREAM_CA_FILE"] = name, ca.File
			}
			conf := moved(t, test.conf, test.vars, vars)
			d := dovecot.Start(t, dovecot.Options{Debian13: test.newer, CertFile: pair.CertFile, KeyFile: pair.KeyFile, Config: conf})
			g := posterntest.Start(t, vars)
			checkDisconnected(t, vars["UPSTREAM_IMAP"])
			login(t, g, "imaps", "a LOGIN %q %q\r\nb LOGOUT\r\n", "a OK")
			login(t, g, "pop3s", "USER %s\r\nPASS %s\r\nQUIT\r\n", "+OK Logged in")
			for _, protocol := range []string{"imap", "pop3"} {
				logged := regexp.MustCompile(protocol + `-login: Info: (Login|Logged in): .*rip=` + clientAddr + `, ` + test.line + `,`)
				// Dovecot logs through another process, a moment later.
				for end := time.Now().Add(30 * time.Second); !logged.MatchString(d.Log(t)) && time.Now().Before(end); {
					time.Sleep(20 * time.Millisecond)
				}
				if !logged.MatchString(d.Log(t)) {
					t.Errorf("%s: no line like %v", protocol, logged)
				}
			}
		})
	}
}

// checkDisconnected fails where Dovecot has a word for somebody whom it does not
// trust; the header of such a one is no better than none.
func checkDisconnected(t *testing.T, upstream string) {
	t.Helper()
	_, addr, _ := strings.Cut(upstream, "://")
	dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(clientAddr)}, Timeout: 30 * time.Second}
	conn, err := dialer.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(30 * time.Second))
	fmt.Fprint(conn, "PROXY TCP4 192.0.2.7 192.0.2.8 40000 143\r\n")
	answer, err := io.ReadAll(conn)
	var timeout net.Error
	if len(answer) > 0 || errors.As(err, &timeout) && timeout.Timeout() {
		t.Errorf("a stranger's header is answered by %q, %v", answer, err)
	}
}

// moved brings the ports of Dovecot's configuration and of the proxy's upstreams
// to free ones; both have to name the same. Ports that the configuration closes
// stay open for the harness.
func moved(t *testing.T, conf string, from, to map[string]string) string {
	t.Helper()
	conf = closedPort.ReplaceAllString(conf, "")
	trusted := setting(t, conf, "haproxy_trusted_networks")
	if p, err := netip.ParsePrefix(trusted); err != nil || !p.Addr().IsLoopback() {
		conf = strings.Replace(conf, trusted, "127.0.0.1/32", 1)
	}
	for _, name := range []string{"UPSTREAM_IMAP", "UPSTREAM_POP3"} {
		u, err := url.Parse(from[config.Prefix+name])
		if err != nil {
			t.Fatal(err)
		}
		addr := posterntest.FreeAddr(t)
		_, free, _ := net.SplitHostPort(addr)
		line := "port = " + u.Port() + "\n"
		if strings.Count(conf, line) != 1 {
			t.Fatalf("%s is %s, but Dovecot's configuration is\n%s", name, u, conf)
		}
		conf = strings.Replace(conf, line, "port = "+free+"\n", 1)
		to[name] = u.Scheme + "://" + addr
	}
	return conf
}

func login(t *testing.T, g *posterntest.Proxy, listener, dialogue, want string) {
	t.Helper()
	conn := tls.Client(g.DialFrom(t, listener, clientAddr), &tls.Config{InsecureSkipVerify: true})
	if _, err := fmt.Fprintf(conn, dialogue, dovecot.Anna.Name, dovecot.Anna.Password); err != nil {
		t.Fatal(err)
	}
	var all strings.Builder
	for lines := bufio.NewScanner(conn); lines.Scan(); {
		if strings.HasPrefix(lines.Text(), want) {
			return
		}
		fmt.Fprintln(&all, lines.Text())
	}
	t.Errorf("%s: no %q in\n%s", listener, want, &all)
}
