// Package policy checks, through the real binary, what a policy file does: who
// is met with what, that another file takes over without anybody noticing, and
// that a bad one changes nothing.
package policy

import (
	"crypto/tls"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"postern/internal/posterntest"
)

func TestMain(m *testing.M) { posterntest.Main(m) }

const (
	legacyLine = "legacy handshake"
	reloaded   = "policy reloaded"
	kept       = "reloading the policy failed, the old one stays in force"

	failures   = "postern_policy_reload_failures_total"
	lastReload = "postern_policy_last_reload_timestamp_seconds"
	matches    = "postern_policy_rule_matches_total"
	refusals   = "postern_candidate_refusals_total"
	mode       = "postern_policy_mode"
	share      = "postern_policy_share_ratio"
)

// takenOver is more than a change may take on the busiest machine.
const takenOver = time.Minute

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func write(t testing.TB, path, text string) {
	t.Helper()
	must(t, os.MkdirAll(filepath.Dir(path), 0o700))
	must(t, os.WriteFile(path, []byte(text), 0o600))
}

// instance is a proxy with a policy file, in front of small mail servers.
type instance struct {
	*posterntest.Proxy
	file string
}

// start runs a proxy with that policy; env adds to the environment.
func start(t *testing.T, text string, env map[string]string) *instance {
	t.Helper()
	g := &instance{file: filepath.Join(t.TempDir(), "policy.yaml")}
	write(t, g.file, text)
	g.run(t, env)
	return g
}

func (g *instance) run(t *testing.T, env map[string]string) {
	t.Helper()
	imap := posterntest.StartUpstream(t, posterntest.IMAPGreeting, posterntest.IMAPReply)
	pop3 := posterntest.StartUpstream(t, posterntest.POP3Greeting, posterntest.POP3Reply)
	all := map[string]string{"UPSTREAM_IMAP": imap.URL("imap"), "UPSTREAM_POP3": pop3.URL("pop3"), "POLICY_FILE": g.file}
	maps.Copy(all, env)
	g.Proxy = posterntest.Start(t, all)
}

// replace puts another policy in place by a rename.
func (g *instance) replace(t testing.TB, text string) {
	t.Helper()
	write(t, g.file+".new", text)
	must(t, os.Rename(g.file+".new", g.file))
}

// replaceNow is replace with a SIGHUP, until the policy with that floor has
// been taken over.
func (g *instance) replaceNow(t testing.TB, text, floor string) {
	t.Helper()
	g.replace(t, text)
	g.Signal(t, syscall.SIGHUP)
	g.waitFloor(t, floor)
}

// waitFloor waits until the policy that was taken over last has that floor.
func (g *instance) waitFloor(t testing.TB, floor string) {
	t.Helper()
	g.until(t, "policy with the floor "+floor, func() bool {
		log := g.Stderr() // which is long under a crowd: only the last line is parsed
		line, _, ended := strings.Cut(log[max(0, strings.LastIndex(log, reloaded)):], "\n")
		return ended && strings.HasPrefix(line, reloaded) && strings.Contains(line, `"floor":"`+floor+`"`)
	})
}

// until waits for what has to come, however busy the machine is.
func (g *instance) until(t testing.TB, what string, cond func() bool) {
	t.Helper()
	within(t, takenOver, what, cond)
}

func within(t testing.TB, limit time.Duration, what string, cond func() bool) {
	t.Helper()
	for end := time.Now().Add(limit); !cond(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("no %s in %v", what, limit)
		}
	}
}

// addresses counts those that fresh has given away.
var addresses atomic.Uint32

// fresh is a loopback address that nobody had: of one that comes often, the log
// tells in sum only.
func fresh() string {
	n := addresses.Add(1)
	return fmt.Sprintf("127.100.%d.%d", n/250, 1+n%250)
}

// upTo is a client that speaks TLS 1.0 to the given version, with suites of its
// own where they are given. Names that no certificate has are fine with it.
func upTo(version uint16, suites ...uint16) *tls.Config {
	return &tls.Config{MinVersion: tls.VersionTLS10, MaxVersion: version, CipherSuites: suites, InsecureSkipVerify: true}
}

// What a client can meet with.
const (
	letIn      = "let in"
	told       = "told"
	rejectedBy = "rejected"
)

// meets is how it goes for a client: letIn, told or rejectedBy. An error is what
// no policy asks for.
func (g *instance) meets(c posterntest.Caller, listener string) (string, error) {
	if c.TLS == nil {
		c.TLS = upTo(tls.VersionTLS10)
	}
	client, err := c.Open(g.Proxy, listener)
	if err != nil {
		if strings.Contains(err.Error(), "remote error: tls: protocol version not supported") {
			return rejectedBy, nil
		}
		return "", err
	}
	defer client.Close()
	if strings.HasPrefix(client.Greeting, "* BYE [ALERT] TLS 1.") {
		return told, nil
	}
	command := "NOOP"
	if strings.HasPrefix(listener, "pop3") {
		command = "USER anna"
	}
	reply, err := client.Command("%s", command)
	switch {
	case err != nil:
		return "", err
	case strings.HasPrefix(reply.Text, "NO [ALERT] TLS 1."), strings.HasPrefix(reply.Text, "-ERR [SYS/PERM] TLS 1."):
		return told, nil
	case !reply.OK():
		return "", errors.New(reply.Text)
	}
	return letIn, nil
}

// expect fails the test unless the client meets with that.
func (g *instance) expect(t testing.TB, c posterntest.Caller, listener, want string) {
	t.Helper()
	if got, err := g.meets(c, listener); got != want || err != nil {
		t.Errorf("%s, from %q: %q, %v; want %q", listener, c.From, got, err, want)
	}
}

// waitMet waits until fresh old clients on imaps meet with that.
func (g *instance) waitMet(t testing.TB, want string) {
	t.Helper()
	g.until(t, "client that is "+want, func() bool {
		got, err := g.meets(posterntest.Caller{From: fresh()}, "imaps")
		must(t, err)
		return got == want
	})
}
