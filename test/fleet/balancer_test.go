package fleet

import (
	"bytes"
	"crypto/rand"
	"crypto/tls"
	"encoding/base64"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"postern/internal/posterntest"
)

// haproxy runs a HAProxy in front of a fleet, which gives each replica a connection in
// turn and tells it the client's address, and returns where it listens.
func haproxy(t *testing.T, f *fleet) string {
	t.Helper()
	at := posterntest.FreeAddr(t)
	config := "global\n\tmaxconn 2000\ndefaults\n\tmode tcp\n\ttimeout connect 5s\n\ttimeout client 1m\n\ttimeout server 1m\n" +
		"listen imaps\n\tbind " + at + "\n\tbalance roundrobin\n\tdefault-server send-proxy-v2 check check-send-proxy inter 500ms fall 1000\n" // none is down
	for i, g := range f.gates {
		config += fmt.Sprintf("\tserver gate%d %s\n", i+1, g.Addr("imaps"))
	}
	file := filepath.Join(t.TempDir(), "haproxy.cfg")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("/usr/sbin/haproxy", "-db", "-f", file)
	posterntest.EndWithTest(cmd, syscall.SIGKILL)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatalf("starting HAProxy, of the Debian package haproxy: %v", err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(50 * time.Millisecond) {
		c, err := posterntest.Caller{To: at, From: "127.8.0.1"}.Open(f.gates[0], "imaps")
		if err == nil {
			c.Close()
			return at
		}
		if time.Now().After(deadline) {
			t.Fatalf("HAProxy does not serve: %v\n%s", err, out.String())
		}
	}
}

// behind is the environment of a replica behind HAProxy.
func behind(more map[string]string) func(int) map[string]string {
	env := map[string]string{"PROXY_PROTOCOL_FROM": "127.0.0.0/8"}
	maps.Copy(env, more)
	return func(int) map[string]string { return env }
}

// TestAClientHasOneShareAtEachReplica: whichever of them the balancer chooses, it meets
// the same, and is logged as itself.
func TestAClientHasOneShareAtEachReplica(t *testing.T) {
	t.Parallel()
	policy := filepath.Join(t.TempDir(), "policy.yaml")
	if err := os.WriteFile(policy, []byte("mode: observe\nrules:\n  - {name: ramp, mode: enforce, share: 50%}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	f := start(t, behind(map[string]string{"POLICY_FILE": policy}))
	at := haproxy(t, f)
	const clients = 60
	for i := range clients * replicas {
		c, err := posterntest.Caller{To: at, From: fmt.Sprintf("127.20.0.%d", 1+i/replicas), TLS: old}.Open(f.gates[0], "imaps")
		if err == nil {
			c.Close()
		}
	}
	met := make(map[string][]string)
	for i, g := range f.gates {
		lines := g.WaitLog(t, "legacy handshake", clients)
		if len(lines) != clients {
			t.Errorf("replica %d met %d clients, want %d", i+1, len(lines), clients)
		}
		for _, l := range lines {
			client := l["client"].(string)
			met[client] = append(met[client], l["outcome"].(string))
		}
	}
	refused := 0
	for client, outcomes := range met {
		if len(outcomes) != replicas || len(slices.Compact(outcomes)) != 1 {
			t.Errorf("%s met %v", client, outcomes)
		}
		if outcomes[0] == "rejected" {
			refused++
		}
	}
	if len(met) != clients || refused < clients/4 || refused > 3*clients/4 {
		t.Errorf("%d of %d clients are refused, want half of %d", refused, len(met), clients)
	}
}

// held is how long the key before goes on making tickets, and then some.
const held = 11 * time.Second

// TestTicketKeysRotateUnderLoad: clients resume at whichever replica they come to,
// before, while and after all of them read a newer key.
func TestTicketKeysRotateUnderLoad(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "tickets")
	write := func(keys string) {
		if err := os.WriteFile(file+".new", []byte(keys), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(file+".new", file); err != nil {
			t.Fatal(err)
		}
	}
	ticketKey := func() string {
		var key [32]byte
		rand.Read(key[:])
		return base64.StdEncoding.EncodeToString(key[:]) + "\n"
	}
	first, second, third := ticketKey(), ticketKey(), ticketKey()
	write(first)
	f := start(t, behind(map[string]string{"TLS_TICKET_KEYS_FILE": file}))
	at := haproxy(t, f)
	var ended atomic.Bool
	var group sync.WaitGroup
	const clients = 8
	var full, resumed [clients]atomic.Int64
	for i := range clients {
		config := &tls.Config{ClientSessionCache: tls.NewLRUClientSessionCache(1), MaxVersion: tls.VersionTLS12 + uint16(i%2)}
		group.Go(func() {
			for !ended.Load() {
				c, err := posterntest.Caller{To: at, TLS: config}.Open(f.gates[0], "imaps")
				if err != nil {
					t.Error(err)
					return
				}
				if c.Conn.(*tls.Conn).ConnectionState().DidResume {
					resumed[i].Add(1)
				} else {
					full[i].Add(1)
				}
				c.Close()
				time.Sleep(100 * time.Millisecond)
			}
		})
	}
	visits(t, resumed[:])
	for i, keys := range []string{second + first, third + second + first, third} {
		if i == 2 {
			time.Sleep(held) // until the third makes all tickets
			visits(t, resumed[:])
		}
		write(keys)
		for _, g := range f.gates {
			g.WaitLog(t, "files reloaded", i+1)
		}
		visits(t, resumed[:])
	}
	ended.Store(true)
	group.Wait()
	var want, counted [2]float64
	want[0] = 1 // through HAProxy, when it was ready
	for i := range clients {
		if n := full[i].Load(); n != 1 {
			t.Errorf("client %d had %d full handshakes, and resumed %d times", i+1, n, resumed[i].Load())
		}
		want[0], want[1] = want[0]+float64(full[i].Load()), want[1]+float64(resumed[i].Load())
	}
	for _, g := range f.gates {
		m := g.Metrics(t)
		for i, of := range []string{"resumed=false", "resumed=true"} {
			counted[i] += m.Count("postern_tls_sessions_total", of)
		}
	}
	if counted != want {
		t.Errorf("the replicas have counted %v full and resumed handshakes, want %v", counted, want)
	}
}

// visits waits until each client has come to every replica.
func visits(t *testing.T, seen []atomic.Int64) {
	t.Helper()
	for i := range seen {
		for before, end := seen[i].Load(), time.Now().Add(time.Minute); seen[i].Load() < before+2*replicas; time.Sleep(50 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("client %d comes no more", i+1)
			}
		}
	}
}
