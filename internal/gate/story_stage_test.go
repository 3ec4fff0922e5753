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
	"postern/internal/handover"
	"postern/internal/logging"
	"postern/internal/policyfile"
	"postern/internal/posterntest"
	"postern/policy"
)

// legacyNames are those of the endpoint that people opt in to.
var legacyNames = map[string]string{"imap": "imap-legacy.example.org", "pop3": "pop-legacy.example.org"}

// stage is where a story of deploy/rehearsal is played: a Postern that goes by a
// clock of ours, in front of a mail server.
type stage struct {
	*testing.T
	postern *gate.Runtime
	policy  *policy.Policy // that of the story
	file    string
	text    []byte // of the file
	log     *storyLog
	clock   atomic.Pointer[time.Time]
	ca      *posterntest.CA
	mail    *demo.MailServer
	// entries are what clients connect to, the four listeners and the endpoint's own
	// two ports.
	entries entries
	// addresses that were used up, by network.
	used map[string]int
}

type entry struct {
	listener, protocol string
	addr               string
}

func (d entry) port() uint16 {
	return netip.MustParseAddrPort(d.addr).Port()
}

// on puts the network and the ports of a file to where the test can come from
// and go to.
func (d entries) on(t *testing.T, name string) []byte {
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

type entries map[string]entry

func freeEntries(t *testing.T) entries {
	t.Helper()
	d := make(entries)
	for _, name := range []string{"imaps", "pop3s", "imap", "pop3", "imaps 2", "pop3s 2"} {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		// All are open at once, so that no two are the same.
		defer l.Close()
		listener, _, _ := strings.Cut(name, " ")
		d[name] = entry{listener: listener, protocol: listener[:4], addr: l.Addr().String()}
	}
	return d
}

// open starts a Postern with a file of deploy/rehearsal at some time.
func open(t *testing.T, name string, at time.Time) *stage {
	t.Helper()
	st := &stage{T: t, log: &storyLog{}, ca: posterntest.NewCA(t), used: make(map[string]int), file: filepath.Join(t.TempDir(), "policy.yaml")}
	st.clock.Store(&at)
	var err error
	if st.mail, err = demo.StartMail(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(st.mail.Close)
	names := []string{"localhost", "mail.example.org", legacyNames["imap"], legacyNames["pop3"]}
	ec, rsa := st.ca.Issue(t, names, posterntest.ECDSA), st.ca.Issue(t, names, posterntest.RSA)
	for try := 1; ; try++ {
		d := freeEntries(t)
		st.entries, st.text = d, d.on(t, name)
		st.put(st.text)
		cfg, err := config.Load([]string{
			"POSTERN_UPSTREAM_IMAP=imap://" + st.mail.IMAPAddr(), "POSTERN_UPSTREAM_POP3=pop3://" + st.mail.POP3Addr(),
			"POSTERN_TLS_CERT_FILE=" + ec.CertFile + "," + rsa.CertFile, "POSTERN_TLS_KEY_FILE=" + ec.KeyFile + "," + rsa.KeyFile,
			"POSTERN_POLICY_FILE=" + st.file, "POSTERN_ADMIN_LISTEN=127.0.0.1:0", "POSTERN_TIMEOUT_DRAIN=2s",
			"POSTERN_LISTEN_IMAPS=" + d["imaps"].addr + "," + d["imaps 2"].addr,
			"POSTERN_LISTEN_POP3S=" + d["pop3s"].addr + "," + d["pop3s 2"].addr,
			"POSTERN_LISTEN_IMAP=" + d["imap"].addr, "POSTERN_LISTEN_POP3=" + d["pop3"].addr,
		})
		if err != nil {
			t.Fatal(err)
		}
		if st.policy, err = policyfile.Of(cfg); err != nil {
			t.Fatal(err)
		}
		if st.postern, err = gate.New(cfg, gate.Build{}, handover.Given{}, st.log, st.now); err == nil {
			break
		}
		// Somebody else may take a free port before Postern does.
		if try == 3 {
			t.Fatal(err)
		}
	}
	st.postern.Start()
	t.Cleanup(func() { st.postern.Stop(context.Background()) })
	return st
}

func (st *stage) now() time.Time { return *st.clock.Load() }

func (st *stage) set(at time.Time) { st.clock.Store(&at) }

// put puts a text in the place of the policy file, in one step.
func (st *stage) put(text []byte) {
	st.Helper()
	next := st.file + ".next"
	if err := os.WriteFile(next, text, 0o600); err != nil {
		st.Fatal(err)
	}
	if err := os.Rename(next, st.file); err != nil {
		st.Fatal(err)
	}
}

// address gives one of 127.x.0.0/16 that nobody has had, so that no line of the
// log is suppressed with others.
func (st *stage) address(network string) netip.Addr {
	n := st.used[network]
	st.used[network]++
	return netip.MustParseAddr(network + "." + strconv.Itoa(n/250) + "." + strconv.Itoa(n%250+1))
}

// series are the values of a metric, by the values of its labels in the order
// of their names.
func (st *stage) series(metric string) map[string]float64 {
	st.Helper()
	families, err := st.postern.Gatherer().Gather()
	if err != nil {
		st.Fatal(err)
	}
	values := make(map[string]float64)
	i := slices.IndexFunc(families, func(f *dto.MetricFamily) bool { return f.GetName() == metric })
	if i < 0 {
		st.Fatalf("no metric %s", metric)
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
const logTimeout = 30 * time.Second

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
	Admin                       string
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

// find waits for a line, and takes it out: a client may come again from the same
// port. It is nil where none comes.
func (l *storyLog) find(wait time.Duration, is func(*storyLine) bool) *storyLine {
	for end := time.Now().Add(wait); ; time.Sleep(2 * time.Millisecond) {
		l.mu.Lock()
		i := slices.IndexFunc(l.lines, func(line storyLine) bool { return is(&line) })
		var found storyLine
		if i >= 0 {
			found = l.lines[i]
			l.lines = slices.Delete(l.lines, i, i+1)
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
