package deploy

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"postern/internal/policyfile"
	"postern/internal/posterntest"
	"postern/policy"
)

// rehearsalPorts and rehearsalNames are what the policy files need that a proxy
// does not have by itself.
var (
	rehearsalPorts = []uint16{20993, 20995, 21993, 21995}
	rehearsalNames = []string{"imap-legacy.example.org", "pop-legacy.example.org", "imap-early.example.org", "pop-early.example.org"}
)

// rehearsalFiles are the policy files, by name.
func rehearsalFiles(t *testing.T) map[string]string {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(root, "deploy/rehearsal", "*"))
	if err != nil {
		t.Fatal(err)
	}
	files := make(map[string]string)
	for _, path := range paths {
		files[filepath.Base(path)] = path
	}
	for _, name := range []string{"observe.yaml", "growing-share.yaml", "brownouts.yaml", "early.yaml", "back.yaml"} {
		if files[name] == "" {
			t.Errorf("%s is not there", name)
		}
	}
	return files
}

// Before their first date the files say what is meant and nothing else. The time
// is fixed: a test that goes by the clock would fail once the dates have passed.
func TestRehearsalFilesHaveNoWarningsBeforeTheyBegin(t *testing.T) {
	before := time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC)
	ready := policy.Site{Ports: append([]uint16{993, 995, 143, 110}, rehearsalPorts...), Names: append([]string{"mail.example.org"}, rehearsalNames...)}
	plain := policy.Site{Ports: []uint16{993, 995, 143, 110}, Names: []string{"mail.example.org"}}
	missing := make(map[string][]string)
	for name, what := range map[string]struct {
		names []string
		ports []int
	}{
		"growing-share.yaml": {[]string{"imap-legacy.example.org", "pop-legacy.example.org"}, []int{20993, 20995}},
		"early.yaml":         {[]string{"imap-early.example.org", "pop-early.example.org"}, []int{21993, 21995}},
	} {
		for _, n := range what.names {
			missing[name] = append(missing[name], "no certificate covers the name "+n+": mend it, or add one to POSTERN_TLS_CERT_FILE and restart")
		}
		for _, p := range what.ports {
			missing[name] = append(missing[name], fmt.Sprintf("no listener has the port %d: mend it, or add it to that POSTERN_LISTEN_ variable and restart", p))
		}
	}
	for name, path := range rehearsalFiles(t) {
		p, err := policyfile.Load(path)
		if err != nil {
			t.Error(err)
			continue
		}
		if w := p.Warnings(before, ready); len(w) > 0 {
			t.Errorf("%s: %v", name, w)
		}
		var texts []string
		for _, w := range p.Warnings(before, plain) {
			texts = append(texts, w.Text)
		}
		if !slices.Equal(texts, missing[name]) {
			t.Errorf("%s: without the ports and the certificate: %q, want %q", name, texts, missing[name])
		}
	}
}

// A port of the endpoint that people opt in to must be none that everybody comes
// to: in a container the listeners have other ports than the published ones.
func TestRehearsalPortsAreNobodyElses(t *testing.T) {
	deployments := []map[string]string{
		sidecarVariables(t), composed(t).Services["postern"].Environment, variables(read(t, "deploy/postern.env")),
	}
	for _, vars := range deployments {
		for _, l := range taken(t, vars).Listeners() {
			for _, addr := range l.Addrs {
				if slices.Contains(rehearsalPorts, uint16(port(t, addr))) {
					t.Errorf("%s listens on %s", l.Name, addr)
				}
			}
		}
	}
}

func TestCheckTakesTheRehearsalFiles(t *testing.T) {
	ca := posterntest.NewCA(t)
	names := append([]string{"mail.example.org"}, rehearsalNames...)
	ec, rsa := ca.Issue(t, names, posterntest.ECDSA), ca.Issue(t, names, posterntest.RSA)
	for name, path := range rehearsalFiles(t) {
		code, out := run(t, map[string]string{
			"POSTERN_UPSTREAM_IMAP": "imap://127.0.0.1:10143", "POSTERN_UPSTREAM_POP3": "pop3://127.0.0.1:10110",
			"POSTERN_TLS_CERT_FILE": ec.CertFile + "," + rsa.CertFile, "POSTERN_TLS_KEY_FILE": ec.KeyFile + "," + rsa.KeyFile,
			// Addresses of their own: check binds them for a moment.
			"POSTERN_LISTEN_IMAPS": "127.77.0.1:20993,127.77.0.1:21993", "POSTERN_LISTEN_POP3S": "127.77.0.1:20995,127.77.0.1:21995",
			"POSTERN_LISTEN_IMAP": "127.77.0.1:20143", "POSTERN_LISTEN_POP3": "127.77.0.1:20110", "POSTERN_ADMIN_LISTEN": "127.77.0.1:29993",
			"POSTERN_POLICY_FILE": path,
		}, "check", "-offline")
		if code != 0 || strings.Contains(out, "error: ") {
			t.Errorf("%s: exit code %d\n%s", name, code, out)
		}
		if !strings.Contains(out, path+": ") {
			t.Errorf("%s is not mentioned:\n%s", name, out)
		}
	}
}

// Exceptions come first, or they would be none, and what comes last never ends.
func TestRehearsalBeginsWithAnExemptionAndEndsWithACutOver(t *testing.T) {
	for _, name := range []string{"growing-share.yaml", "brownouts.yaml"} {
		text, err := os.ReadFile(rehearsalFiles(t)[name])
		if err != nil {
			t.Fatal(err)
		}
		p, err := policy.Parse(text)
		if err != nil {
			t.Fatal(err)
		}
		first := p.Rules()[0]
		if !first.Exemption() || first.Mode != policy.Observe || len(first.Match) == 0 || first.Match[0].Key.Name != "client" || len(first.Match[0].Values) == 0 {
			t.Errorf("%s begins with %+v", name, first)
		}
		last := p.Rules()[len(p.Rules())-1]
		if last.Mode != policy.Enforce || !last.Until.IsZero() || last.Match != nil || last.Share != nil || last.Schedule != nil {
			t.Errorf("%s ends with %+v", name, last)
		}
	}
}
