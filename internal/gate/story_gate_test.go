package gate_test

import (
	"bytes"
	"context"
	"encoding/json"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	dto "github.com/prometheus/client_model/go"

	"postern/internal/config"
	"postern/internal/demo"
	"postern/internal/gate"
	"postern/internal/logging"
	"postern/internal/policyfile"
	"postern/internal/posterntest"
	"postern/policy"
)

// legacyNames are those of the endpoint that people opt in to.
var legacyNames = map[string]string{"imap": "imap-legacy.example.org", "pop3": "pop-legacy.example.org"}

// theater is where a story of deploy/rehearsal is played: a gate that goes by a
// clock of ours, in front of a mail server.
type theater struct {
	*testing.T
	gate   *gate.Runtime
	policy *policy.Policy // that of the story
	file   string
	text   []byte // of the file
	log    *storyLog
	clock  atomic.Pointer[time.Time]
	ca     *posterntest.CA
	mail   *demo.MailServer
	// doors are where clients go in, the four listeners and the endpoint's own
	// two ports.
	doors doors
	// addresses that were used up, by network.
	used map[string]int
}

type door struct {
	listener, protocol string
	addr               string
}

func (d door) port() uint16 {
	return netip.MustParseAddrPort(d.addr).Port()
}

// on puts the network and the ports of a file to where the test can come from
// and go to.
func (d doors) on(t *testing.T, name string) []byte {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("../../deploy/rehearsal", name))
	if err != nil {
		t.Fatal(err)
	}
	for old, new := range map[string]string{
		"client: [10.20.0.0/16,": "client: [127.20.0.0/16,",
		"port: [20993, 20995]":   "port: [" + strconv.Itoa(int(d["imaps 2"].port())) + ", " + strconv.Itoa(int(d["pop3s 2"].port())) + "]",
	} {
		text = bytes.ReplaceAll(text, []byte(old), []byte(new))
	}
	return text
}

type doors map[string]door

func freeDoors(t *testing.T) doors {
	t.Helper()
	d := make(doors)
	for _, name := range []string{"imaps", "pop3s", "imap", "pop3", "imaps 2", "pop3s 2"} {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		// All are open at once, so that no two are the same.
		defer l.Close()
		listener, _, _ := strings.Cut(name, " ")
		d[name] = door{listener: listener, protocol: listener[:4], addr: l.Addr().String()}
	}
	return d
}

// open starts a gate with a file of deploy/rehearsal at some time.
func open(t *testing.T, name string, at time.Time) *theater {
	t.Helper()
	th := &theater{T: t, log: &storyLog{}, ca: posterntest.NewCA(t), used: make(map[string]int), file: filepath.Join(t.TempDir(), "policy.yaml")}
	th.clock.Store(&at)
	var err error
	if th.mail, err = demo.StartMail(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(th.mail.Close)
	names := []string{"localhost", "mail.example.org", legacyNames["imap"], legacyNames["pop3"]}
	ec, rsa := th.ca.Issue(t, names, posterntest.ECDSA), th.ca.Issue(t, names, posterntest.RSA)
	for try := 1; ; try++ {
		d := freeDoors(t)
		th.doors, th.text = d, d.on(t, name)
		th.put(th.text)
		cfg, err := config.Load([]string{
			"POSTERN_UPSTREAM_IMAP=imap://" + th.mail.IMAPAddr(), "POSTERN_UPSTREAM_POP3=pop3://" + th.mail.POP3Addr(),
			"POSTERN_TLS_CERT_FILE=" + ec.CertFile + "," + rsa.CertFile, "POSTERN_TLS_KEY_FILE=" + ec.KeyFile + "," + rsa.KeyFile,
			"POSTERN_POLICY_FILE=" + th.file, "POSTERN_ADMIN_LISTEN=127.0.0.1:0", "POSTERN_TIMEOUT_DRAIN=2s",
			"POSTERN_LISTEN_IMAPS=" + d["imaps"].addr + "," + d["imaps 2"].addr,
			"POSTERN_LISTEN_POP3S=" + d["pop3s"].addr + "," + d["pop3s 2"].addr,
			"POSTERN_LISTEN_IMAP=" + d["imap"].addr, "POSTERN_LISTEN_POP3=" + d["pop3"].addr,
		})
		if err != nil {
			t.Fatal(err)
		}
		if th.policy, err = policyfile.Of(cfg); err != nil {
			t.Fatal(err)
		}
		if th.gate, err = gate.New(cfg, gate.Build{}, th.log, th.now); err == nil {
			break
		}
		// Somebody else may take a free port before the gate does.
		if try == 3 {
			t.Fatal(err)
		}
	}
	th.gate.Start()
	t.Cleanup(func() { th.gate.Stop(context.Background()) })
	return th
}

func (th *theater) now() time.Time { return *th.clock.Load() }

func (th *theater) set(at time.Time) { th.clock.Store(&at) }

// put puts a text in the place of the policy file, in one step.
func (th *theater) put(text []byte) {
	th.Helper()
	next := th.file + ".next"
	if err := os.WriteFile(next, text, 0o600); err != nil {
		th.Fatal(err)
	}
	if err := os.Rename(next, th.file); err != nil {
		th.Fatal(err)
	}
}

// address gives one of 127.x.0.0/16 that nobody has had, so that no line of the
// log is folded into another.
func (th *theater) address(network string) netip.Addr {
	n := th.used[network]
	th.used[network]++
	return netip.MustParseAddr(network + "." + strconv.Itoa(n/250) + "." + strconv.Itoa(n%250+1))
}

// series are the values of a metric, by the values of its labels in the order
// of their names.
func (th *theater) series(metric string) map[string]float64 {
	th.Helper()
	families, err := th.gate.Gatherer().Gather()
	if err != nil {
		th.Fatal(err)
	}
	values := make(map[string]float64)
	i := slices.IndexFunc(families, func(f *dto.MetricFamily) bool { return f.GetName() == metric })
	if i < 0 {
		th.Fatalf("no metric %s", metric)
	}
	for _, m := range families[i].GetMetric() {
		var labels []string
		for _, l := range m.GetLabel() {
			labels = append(labels, l.GetValue())
		}
		values[strings.Join(labels, " ")] = m.GetCounter().GetValue() + m.GetGauge().GetValue()
	}
	return values
}

// logTimeout bounds how long a counter or a line of the log is waited for.
const logTimeout = 5 * time.Second

// storyLog is what would be stderr.
type storyLog struct {
	mu    sync.Mutex
	lines []storyLine
}

type storyLine struct {
	Msg                         string
	Client                      netip.Addr
	ClientPort                  uint16 `json:"client_port"`
	Outcome, Mode, Rule, Reason string
	Begun, Ended                []string
}

// Write takes one line of JSON.
func (l *storyLog) Write(p []byte) (int, error) {
	var line storyLine
	if err := json.Unmarshal(bytes.TrimSpace(p), &line); err == nil {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.lines = append(l.lines, line)
	}
	return len(p), nil
}

// find waits for a line; nil where none comes.
func (l *storyLog) find(wait time.Duration, is func(*storyLine) bool) *storyLine {
	for end := time.Now().Add(wait); ; time.Sleep(2 * time.Millisecond) {
		l.mu.Lock()
		i := slices.IndexFunc(l.lines, func(line storyLine) bool { return is(&line) })
		var found storyLine
		if i >= 0 {
			found = l.lines[i]
		}
		l.mu.Unlock()
		if i >= 0 {
			return &found
		}
		if time.Now().After(end) {
			return nil
		}
	}
}

// about is the line about one handshake.
func (l *storyLog) about(from netip.AddrPort, wait time.Duration) *storyLine {
	return l.find(wait, func(line *storyLine) bool {
		return line.Msg == logging.LegacyHandshake && line.Client == from.Addr() && line.ClientPort == from.Port()
	})
}
