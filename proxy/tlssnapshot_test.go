package proxy

import (
	"crypto/tls"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"postern/internal/netpoll"
	"postern/policy"
)

// clock is one that a test sets.
type clock struct{ atomic.Pointer[time.Time] }

func (c *clock) set(s string) {
	t, err := time.Parse(time.RFC3339, s)
	if err != nil {
		panic(err)
	}
	c.Store(&t)
}

func (c *clock) now() time.Time { return *c.Load() }

func parsePolicy(t *testing.T, text string) *policy.Policy {
	t.Helper()
	p, err := policy.Parse([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// A rule begins and ends on the moment, with no handshake in between to notice;
// and a policy that has come to its cut-over forgets how to serve old clients.
func TestRulesComeAndGoByTheClock(t *testing.T) {
	imap, _ := stubs(t)
	var at clock
	at.set("2026-06-01T00:00:00Z")
	p := parsePolicy(t, `
mode: observe
rules:
  - {name: told, mode: explain, from: 2026-06-15T00:00:00Z, until: 2026-07-01T00:00:00Z}
  - {name: cut, mode: enforce, from: 2026-07-01T00:00:00Z}
`)
	g := StartProxy(t, policy.Enforce, imap.Addr(), "", func(c *Config) { c.Policy, c.Now = p, at.now })
	for i, tt := range []struct {
		now     string
		outcome Outcome
		rule    string
		lenient bool
	}{
		{"2026-06-01T00:00:00Z", Observed, "", true},
		{"2026-06-14T23:59:59.999999999Z", Observed, "", true},
		{"2026-06-15T00:00:00Z", Explained, "told", true},
		{"2026-06-30T23:59:59.999999999Z", Explained, "told", true},
		{"2026-07-01T00:00:00Z", Rejected, "cut", false},
		// The clock was wrong, and is set back.
		{"2026-06-20T00:00:00Z", Explained, "told", true},
		{"2036-01-01T00:00:00Z", Rejected, "cut", false},
	} {
		at.set(tt.now)
		c := tls.Client(g.Dial(t, IMAPS), g.oldClient())
		err := c.Handshake()
		if (err != nil) != (tt.outcome == Rejected) {
			t.Errorf("%s: %v", tt.now, err)
		}
		c.Close()
		h := g.WaitHandshake(t, i+1)
		if h.Outcome != tt.outcome || h.Verdict.Rule != tt.rule {
			t.Errorf("%s: %s by rule %q, want %s by %q", tt.now, h.Outcome, h.Verdict.Rule, tt.outcome, tt.rule)
		}
		if got := len(g.tls.snapshot.Load().lenient) > 0; got != tt.lenient {
			t.Errorf("%s: a lenient configuration exists: %v", tt.now, got)
		}
	}
}

// Rules get all that they can match: the local port, the server name, and the
// client's address, version and listener.
func TestRulesMatchClientAndListener(t *testing.T) {
	imap, _ := stubs(t)
	observed := func(match string) bool {
		t.Helper()
		g := StartProxy(t, policy.Enforce, imap.Addr(), "", func(c *Config) {
			keys := fmt.Sprintf(match, netpoll.AddrPort(c.Listeners[IMAPS][0].Addr()).Port())
			c.Policy = parsePolicy(t, "rules: [{name: r, mode: observe, match: {"+keys+"}}]")
		})
		c := tls.Client(g.Dial(t, IMAPS), g.oldClient())
		c.Handshake()
		c.Close()
		return g.WaitHandshake(t, 1).Outcome == Observed
	}
	for match, want := range map[string]bool{
		"port: [%d]":                           true,
		"port: [%d], client: [127.0.0.0/8]":    true,
		"port: [%d], client: [10.0.0.0/8]":     false,
		"port: [%d], listener: [imaps]":        true,
		"port: [%d], listener: [imap, pop3s]":  false,
		"port: [%d], version: [tls1.0]":        true,
		"port: [%d], version: [tls1.1, ssl3]":  false,
		"port: [1, %d], server_name: [x.test]": false,
		"port: [1], version: [tls1.0] # %d\n":  false,
	} {
		if got := observed(match); got != want {
			t.Errorf("%s: observed %v", match, got)
		}
	}
}

// A rule with a floor of its own moves one port first, up or down, and another floor's
// session is not resumed there.
func TestARulesFloorIsEnforcedAndToldOf(t *testing.T) {
	imap, _ := stubs(t)
	only := func(g *Proxy, version uint16) *tls.Config {
		c := g.ClientConfig()
		c.MinVersion, c.MaxVersion = version, version
		c.ClientSessionCache = tls.NewLRUClientSessionCache(4)
		return c
	}
	start := func(file string) *Proxy {
		return StartProxy(t, policy.Enforce, imap.Addr(), "", func(c *Config) {
			c.Policy = parsePolicy(t, fmt.Sprintf(file, netpoll.AddrPort(c.Listeners[IMAPS][0].Addr()).Port()))
		})
	}
	for _, tt := range []struct {
		file, text string
		version    uint16
		outcome    Outcome
		floor      policy.Floor
	}{
		{"rules: [{name: early, mode: enforce, floor: tls1.3, match: {port: [%d]}}]", "", tls.VersionTLS13, Accepted, policy.FloorTLS13},
		{"rules: [{name: early, mode: enforce, floor: tls1.3, match: {port: [%d]}}]", "", tls.VersionTLS12, Rejected, policy.FloorTLS13},
		{"rules: [{name: early, mode: explain, floor: tls1.3, match: {port: [%d]}}]", "TLS 1.3", tls.VersionTLS12, Explained, policy.FloorTLS13},
		{"rules: [{name: early, mode: enforce, floor: tls1.3, match: {port: [1, %d], server_name: [new.test]}}]", "", tls.VersionTLS12, Accepted, policy.FloorTLS12},
		{"floor: tls1.3\nrules: [{name: late, mode: enforce, floor: tls1.2, match: {port: [%d]}}]", "", tls.VersionTLS12, Accepted, policy.FloorTLS12},
		{"floor: tls1.3\nrules: [{name: late, mode: observe, floor: tls1.2, match: {port: [%d]}}]", "", tls.VersionTLS11, Observed, policy.FloorTLS12},
	} {
		g := start(tt.file)
		c := tls.Client(g.Dial(t, IMAPS), only(g, tt.version))
		err := c.Handshake()
		if (err == nil) == (tt.outcome == Rejected) {
			t.Errorf("%s: TLS %x: %v", tt.file, tt.version, err)
		}
		if h := g.WaitHandshake(t, 1); h.Outcome != tt.outcome || h.Verdict.Floor != tt.floor {
			t.Errorf("%s: TLS %x: %s under %s, want %s under %s", tt.file, tt.version, h.Outcome, h.Verdict.Floor, tt.outcome, tt.floor)
		}
		if tt.text != "" {
			if said, _ := io.ReadAll(c); !strings.Contains(string(said), tt.text) {
				t.Errorf("%s: told %q, without %s", tt.file, said, tt.text)
			}
		}
		c.Close()
	}

	g := start("rules: [{name: old port, mode: observe, match: {port: [%d]}}]")
	config := only(g, tls.VersionTLS12)
	session := func() bool {
		c := tls.Client(g.Dial(t, IMAPS), config)
		defer c.Close()
		if c.Handshake() != nil {
			return false
		}
		c.Read(make([]byte, 1))
		return c.ConnectionState().DidResume
	}
	if session() || !session() {
		t.Error("a session of TLS 1.2 is not resumed under the floor that it was made under")
	}
	g.SetPolicy(parsePolicy(t, "rules: [{name: new, mode: enforce, floor: tls1.3}]"))
	if session() {
		t.Error("a session of TLS 1.2 is resumed under the floor tls1.3")
	}
	if h := g.WaitHandshake(t, 3); h.Outcome != Rejected {
		t.Errorf("outcome %s", h.Outcome)
	}
}

// A rule names listeners as they are called here.
func TestAPolicyKnowsTheListeners(t *testing.T) {
	var names []string
	for _, l := range Listeners {
		names = append(names, string(l))
	}
	if !slices.Equal(names, policy.ListenerNames) {
		t.Errorf("%v, the policy knows %v", names, policy.ListenerNames)
	}
}

// Another policy is for the next hello, also of a client that was connected
// before; and the floor is that of the policy that has judged.
func TestAnotherPolicyIsForTheNextHello(t *testing.T) {
	imap, _ := stubs(t)
	g := StartProxy(t, policy.Enforce, imap.Addr(), "", nil)
	silent := g.Dial(t, IMAPS)
	time.Sleep(20 * time.Millisecond) // it waits in its handshake
	g.SetPolicy(policy.New(policy.FloorTLS12, policy.Observe))
	c := tls.Client(silent, g.oldClient())
	if err := c.Handshake(); err != nil {
		t.Errorf("an old client under observe: %v", err)
	}
	if h := g.WaitHandshake(t, 1); h.Outcome != Observed {
		t.Errorf("outcome %s", h.Outcome)
	}
	silent = g.Dial(t, IMAPS)
	time.Sleep(20 * time.Millisecond)
	g.SetPolicy(policy.New(policy.FloorTLS13, policy.Enforce))
	only12 := g.ClientConfig()
	only12.MaxVersion = tls.VersionTLS12
	if err := tls.Client(silent, only12).Handshake(); err == nil {
		t.Error("TLS 1.2 came in under the floor tls1.3")
	}
	if h := g.WaitHandshake(t, 2); h.Outcome != Rejected || h.Verdict.Floor != policy.FloorTLS13 {
		t.Errorf("outcome %s, floor %s", h.Outcome, h.Verdict.Floor)
	}
}
