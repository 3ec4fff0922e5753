package docs

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"postern/internal/config"
)

const withoutLoss = "Observing without loss"

// The ports that the page gives to Dovecot are those that it names to Postern.
func TestTheOldServersPortsAreNamedToPostern(t *testing.T) {
	blocks := blocksOf(t, upstreams, withoutLoss, "")
	if len(blocks) != 2 {
		t.Fatalf("%d blocks under %q, want Dovecot's and Postern's", len(blocks), withoutLoss)
	}
	vars := example(t, false)
	for _, line := range blocks[1].lines {
		name, value, _ := strings.Cut(line, "=")
		vars[name] = value
	}
	cfg, err := config.Load(environ(vars))
	if err != nil {
		t.Fatal(err)
	}
	if w := cfg.Warnings(); len(w) > 0 || len(cfg.Passthrough()) != 2 {
		t.Errorf("warnings %q, passed through to %v", w, cfg.Passthrough())
	}
	path := filepath.Join(t.TempDir(), "doveconf.conf")
	if err := os.WriteFile(path, []byte("protocols = imap pop3\n"+blocks[0].text()), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, p := range cfg.Passthrough() {
		host, port, _ := net.SplitHostPort(p.Addr)
		got := shell(t, "doveconf -c "+path+" service/"+strings.TrimSuffix(p.Listener, "s")+"-login", "")
		_, rest, _ := strings.Cut(got, "inet_listener "+p.Listener+" {")
		settings, _, _ := strings.Cut(rest, "}")
		for _, want := range []string{"address = " + host + "\n", "port = " + port + "\n", "ssl = yes\n"} {
			if !strings.Contains(settings, want) {
				t.Errorf("dovecot's listener %s has no %q:\n%s", p.Listener, want, got)
			}
		}
	}
}
