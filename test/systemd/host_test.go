// Package systemd tests the units of deploy/systemd with a real systemd, that of a Debian
// 13 in a container. What differs from a host are the ports and how long things take.
package systemd

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"postern/internal/debian13"
	"postern/internal/posterntest"
)

func TestMain(m *testing.M) { posterntest.Main(m) }

// host is a machine on which Postern is installed.
type host struct {
	debian13.Booted
	proxy *posterntest.Proxy // has the CA of the service's certificates
	addrs map[string]string  // by listener, and of the admin port
}

const (
	variables = "/etc/postern/postern.env"
	policy    = "/etc/postern/policy.yaml"
	program   = "/usr/local/bin/postern"
	units     = "/etc/systemd/system/"
	sockets   = "postern-imaps.socket postern-pop3s.socket postern-imap.socket postern-pop3.socket postern-admin.socket"
)

// install does what stands at the head of the unit, on a machine that has variables and
// certificates already.
func install(t *testing.T) *host {
	h := &host{Booted: debian13.Boot(t), proxy: &posterntest.Proxy{CA: posterntest.NewCA(t)}, addrs: make(map[string]string)}
	root, err := posterntest.RepoRoot()
	if err != nil {
		t.Fatal(err)
	}
	files := map[string]string{"/src/postern": posterntest.Shipped(t)}
	for _, from := range []string{"deploy/postern.env", "deploy/systemd/*"} {
		found, err := filepath.Glob(filepath.Join(root, from))
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range found {
			files["/src/"+strings.TrimPrefix(file, root)] = file
		}
	}
	environ := []string{
		"POSTERN_TLS_CERT_FILE=/etc/postern/ecdsa.pem,/etc/postern/rsa.pem", "POSTERN_TLS_KEY_FILE=/etc/postern/ecdsa.key,/etc/postern/rsa.key",
		"POSTERN_LEDGER_URL=sqlite:/var/lib/postern/ledger.db", "POSTERN_LEDGER_IDENTITY=plain", "POSTERN_POLICY_FILE=" + policy, "POSTERN_TIMEOUT_DRAIN=2s",
		"POSTERN_UPSTREAM_IMAP=" + posterntest.StartUpstream(t, posterntest.IMAPGreeting, posterntest.IMAPReply).URL("imap"),
		"POSTERN_UPSTREAM_POP3=" + posterntest.StartUpstream(t, posterntest.POP3Greeting, posterntest.POP3Reply).URL("pop3"),
	}
	for _, key := range []string{posterntest.ECDSA, posterntest.RSA} {
		pair := h.proxy.CA.Issue(t, posterntest.DefaultNames, key)
		files["/etc/postern/"+key+".pem"], files["/etc/postern/"+key+".key"] = pair.CertFile, pair.KeyFile
	}
	for to, from := range files {
		content, err := os.ReadFile(from)
		if err != nil {
			t.Fatal(err)
		}
		h.Write(t, to, 0o755, content)
	}
	for _, name := range append(slices.Clone(posterntest.Listeners), "admin") {
		h.addrs[name] = posterntest.FreeAddr(t)
		h.Write(t, units+"postern-"+name+".socket.d/port.conf", 0o644, []byte("[Socket]\nListenStream=\nListenStream="+h.addrs[name]+"\n"))
		variable := "LISTEN_" + strings.ToUpper(name)
		if name == "admin" {
			variable = "ADMIN_LISTEN"
		}
		environ = append(environ, "POSTERN_"+variable+"="+h.addrs[name])
	}
	h.Write(t, variables, 0o644, []byte(strings.Join(environ, "\n")+"\n"))
	h.Write(t, policy, 0o644, []byte("mode: observe\n"))
	h.Write(t, units+"postern.service.d/time.conf", 0o644, []byte("[Service]\nRestartSec=100ms\nWatchdogSec=8s\n"))
	var commands []string
	unit, err := os.ReadFile(filepath.Join(root, "deploy/systemd/postern.service"))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(unit)) {
		if command, found := strings.CutPrefix(line, "#   "); found {
			commands = append(commands, command)
		}
	}
	h.Run(t, "cd /src\n"+strings.Join(commands, "")+"\ninstall -m 644 deploy/systemd/*.socket "+units+"\nsystemctl daemon-reload")
	return h
}

// fresh starts the service anew, without socket units.
func (h *host) fresh(t *testing.T) {
	t.Helper()
	h.Run(t, "systemctl stop "+sockets+" postern.service; systemctl reset-failed; systemctl start postern.service")
	t.Cleanup(func() {
		if t.Failed() {
			out, _ := h.Try("journalctl --unit 'postern*' --output short-precise --no-hostname | tail -n 60; systemctl status postern.service")
			t.Log(out)
		}
	})
}

// show is a property of the service.
func (h *host) show(t *testing.T, property string) string {
	t.Helper()
	return h.Run(t, "systemctl show --value --property "+property+" postern.service")
}

// mainPID is the service's main process, as it is called in the container.
func (h *host) mainPID(t *testing.T) int {
	t.Helper()
	pid, err := strconv.Atoi(h.show(t, "MainPID"))
	if err != nil {
		t.Fatal(err)
	}
	return pid
}

// patience is for a busy machine.
const patience = time.Minute

// becomes waits until something holds.
func becomes(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !holds(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within %v: %s", patience, what)
		}
	}
}

// login logs a client in at a listener.
func (h *host) login(listener string) (*posterntest.Client, error) {
	return posterntest.Caller{To: h.addrs[listener]}.Login(h.proxy, listener, "anna", "secret")
}

// everywhere logs a client in at each listener.
func (h *host) everywhere(t *testing.T) map[string]*posterntest.Client {
	t.Helper()
	clients := make(map[string]*posterntest.Client)
	for _, listener := range posterntest.Listeners {
		c, err := h.login(listener)
		if err != nil {
			t.Fatalf("%s: %v", listener, err)
		}
		clients[listener] = c
	}
	t.Cleanup(func() {
		for c := range maps.Values(clients) {
			c.Close()
		}
	})
	return clients
}
