package ledger

import (
	"fmt"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"postern/internal/posterntest"
)

// pooled runs a PgBouncer in transaction mode, as replicas often have it before
// their database, and returns the URL of a database through it.
func pooled(t *testing.T, database string) string {
	t.Helper()
	u, err := url.Parse(database)
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "pgb")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	host, port, _ := net.SplitHostPort(u.Host)
	at := posterntest.FreeAddr(t)
	_, own, _ := net.SplitHostPort(at)
	conf := fmt.Sprintf("[databases]\n* = host=%s port=%s user=%s\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = %s\nunix_socket_dir =\n"+
		"auth_type = any\npool_mode = transaction\ndefault_pool_size = 2\n", host, port, u.User.Username(), own)
	file := filepath.Join(dir, "pgbouncer.ini")
	if err := os.WriteFile(file, []byte(conf), 0o644); err != nil {
		t.Fatal(err)
	}
	os.Chmod(dir, 0o755)
	cmd := exec.Command("pgbouncer", file)
	if os.Getuid() == 0 { // which it refuses to be
		const nobody = 65534
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	}
	posterntest.EndWithTest(cmd, syscall.SIGQUIT)
	var log strings.Builder
	cmd.Stderr = &log
	if err := cmd.Start(); err != nil {
		t.Fatalf("starting PgBouncer, of the Debian package pgbouncer: %v", err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		if c, err := net.Dial("tcp", at); err == nil {
			c.Close()
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("PgBouncer does not listen:\n%s", log.String())
		}
	}
	u.Host = at
	return u.String()
}

func TestReplicasBehindPgBouncer(t *testing.T) {
	first := newReplica(t, pooled(t, newURL(t, "postgres")))
	for i := range 20 {
		for j, g := range []*replica{first, first.another(), first.another()} {
			// A login, and a mark of the client, are more statements in a transaction.
			g.session(hello(fmt.Sprintf("192.0.2.%d", 3*i+j), passed), "anna", "")
			g.flush()
			if _, _, err := g.store.Distinct(t.Context(), g.now()); err != nil {
				t.Fatal(err)
			}
		}
	}
	if list := first.clients(Filter{Noise: true}); len(list) != 60 {
		t.Errorf("%d clients, want 60", len(list))
	}
	reader, err := OpenReadOnly(t.Context(), first.url)
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	if n, err := reader.Count(t.Context(), Filter{Noise: true}); n != 60 || err != nil {
		t.Errorf("a report reads %d clients, %v", n, err)
	}
	if err := Try(t.Context(), first.url); err != nil {
		t.Error(err)
	}
}
