package docs

import (
	"fmt"
	"net"
	"strings"
	"testing"

	"postern/internal/config"
	"postern/internal/dovecot"
	"postern/internal/posterntest"
)

const withoutLoss = "Observing without loss"

// The ports that the page gives to Dovecot, 2.3 and 2.4, are those that it names to
// Postern.
func TestTheOldServersPortsAreNamedToPostern(t *testing.T) {
	blocks := blocksOf(t, upstreams, withoutLoss, "")
	if len(blocks) != 3 {
		t.Fatalf("%d blocks under %q, want those of two Dovecots and Postern's", len(blocks), withoutLoss)
	}
	vars := example(t, false)
	for _, line := range blocks[2].lines {
		name, value, _ := strings.Cut(line, "=")
		vars[name] = value
	}
	cfg, err := config.Load(environ(vars))
	if err != nil {
		t.Fatal(err)
	}
	if w := cfg.Warnings(); len(w) > 0 || len(cfg.PassingThrough()) != 2 {
		t.Errorf("warnings %q, passed through to %v", w, cfg.PassingThrough())
	}
	for i, version := range []string{"2.3", "2.4"} {
		t.Run(version, func(t *testing.T) {
			listen := map[string]string{"2.3": "address", "2.4": "listen"}[version]
			for _, p := range cfg.PassingThrough() {
				host, port, _ := net.SplitHostPort(string(p.Passthrough))
				got := doveconf(t, "protocols = imap pop3\n"+blocks[i].text(), version == "2.4",
					"service/"+strings.TrimSuffix(p.Name, "s")+"-login")
				_, rest, _ := strings.Cut(got, "inet_listener "+p.Name+" {")
				settings, _, _ := strings.Cut(rest, "}")
				for _, want := range []string{listen + " = " + host + "\n", "port = " + port + "\n", "ssl = yes\n"} {
					if !strings.Contains(settings, want) {
						t.Errorf("dovecot's listener %s has no %q:\n%s", p.Name, want, got)
					}
				}
			}
		})
	}
}

// A client that Go cannot serve logs in at a Dovecot 2.4 as the page has it, through
// Postern.
func TestDovecot24ServesWhomPosternCannot(t *testing.T) {
	ca := posterntest.NewCA(t)
	pair := ca.Issue(t, posterntest.DefaultNames, posterntest.RSA)
	conf := blocksOf(t, upstreams, withoutLoss, "")[1].text()
	d := dovecot.Start(t, dovecot.Options{Debian13: true, CertFile: pair.CertFile, KeyFile: pair.KeyFile, Config: portLine.ReplaceAllString(conf, "")})
	g := posterntest.Start(t, map[string]string{
		"UPSTREAM_IMAP": "imap://" + d.IMAP, "UPSTREAM_POP3": "pop3://" + d.POP3, "POLICY_MODE": "observe",
		"UPSTREAM_PASSTHROUGH_IMAPS": d.IMAPS, "UPSTREAM_PASSTHROUGH_POP3S": d.POP3S,
	})
	dialogues := map[string]string{
		"imaps": fmt.Sprintf("a LOGIN %q %q\nb LOGOUT\n", dovecot.Anna.Name, dovecot.Anna.Password),
		"pop3s": fmt.Sprintf("USER %s\nPASS %s\nQUIT\n", dovecot.Anna.Name, dovecot.Anna.Password),
	}
	for listener, want := range map[string]string{"imaps": "a OK", "pop3s": "+OK Logged in"} {
		out := shell(t, "openssl s_client -quiet -crlf -tls1 -cipher DHE-RSA-AES128-SHA:@SECLEVEL=0 -connect "+g.Addr(listener), dialogues[listener])
		if !strings.Contains(out, want) {
			t.Errorf("%s: no %q in\n%s", listener, want, out)
		}
	}
	for listener := range dialogues {
		g.Wait(t, func(s posterntest.Samples) bool {
			return s.Value("postern_legacy_handshakes_total", "listener="+listener, "outcome=observed", "reason=version", "version=tls1.0") == 1
		})
	}
}
