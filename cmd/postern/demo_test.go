package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"net"
	"os"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"postern/proxy"
)

var generations = []string{"SSL 2.0", "SSL 3.0", "TLS 1.0", "TLS 1.1", "TLS 1.2", "TLS 1.3"}

// demoOutcomes is what each generation, the oldest first, meets in each mode.
var demoOutcomes = map[string][]string{
	"enforce": {"rejected", "rejected", "rejected", "rejected", "accepted", "accepted"},
	"explain": {"rejected", "rejected", "explained", "explained", "accepted", "accepted"},
	"observe": {"rejected", "rejected", "observed", "observed", "accepted", "accepted"},
}

// demoStories are the words of the table for an outcome.
var demoStories = map[string]*regexp.Regexp{
	"rejected":  regexp.MustCompile(`alert 70, protocol_version +rejected, reason version +rejected \+1 `),
	"explained": regexp.MustCompile(`(\* BYE \[ALERT\]|-ERR \[SYS/PERM\]) TLS 1\.[01] is no longer.* +explained, reason version +explained \+1 `),
	"observed":  regexp.MustCompile(`TLS 1\.[01], logged in, [1-9][0-9]* messages +observed, reason version +observed \+1 `),
	"accepted":  regexp.MustCompile(`TLS 1\.[23], logged in, [1-9][0-9]* messages +- +accepted \+1 `),
}

func TestDemoOnceShowsWhatThePolicySays(t *testing.T) {
	for _, mode := range []string{"", "enforce", "explain", "observe"} {
		t.Run(mode, func(t *testing.T) {
			args := []string{"demo", "-once"}
			if mode != "" {
				args = append(args, "-mode", mode)
			}
			o := runCommand(t, []string{"POSTERN_NONSENSE=1"}, args...)
			if o.code != exitOK || o.stderr != "" || !strings.Contains(o.stdout, "All 24 rows are what the policy says.") {
				t.Fatalf("exit %d, stderr %q, stdout:\n%s", o.code, o.stderr, o.stdout)
			}
			var rows []string
			for line := range strings.Lines(o.stdout) {
				if strings.Contains(line, "as the policy says") && regexp.MustCompile(`^\W*(imaps|pop3s|imap|pop3) `).MatchString(line) {
					rows = append(rows, line)
				}
			}
			if len(rows) != 24 {
				t.Fatalf("%d rows, want 24:\n%s", len(rows), o.stdout)
			}
			for i, row := range rows {
				l := proxy.Listeners[i/6]
				if !strings.HasPrefix(strings.TrimSpace(row), string(l)+" ") || !strings.Contains(row, " "+generations[i%6]+" ") {
					t.Errorf("row %d is not %s and %s: %s", i, l, generations[i%6], row)
				}
				outcomes := demoOutcomes[mode]
				if mode == "" { // the ports with TLS from the first byte come first
					outcomes = demoOutcomes[map[bool]string{true: "enforce", false: "observe"}[l.ImplicitTLS()]]
				}
				if !demoStories[outcomes[i%6]].MatchString(row) {
					t.Errorf("want %s: %s", outcomes[i%6], row)
				}
			}
		})
	}
}

// With the strictest floor a TLS 1.2 client is old too.
func TestDemoFollowsTheFloor(t *testing.T) {
	o := runCommand(t, nil, "demo", "-once", "-floor", "tls1.3")
	if o.code != exitOK || strings.Count(o.stdout, "rejected +1") != 14 || strings.Count(o.stdout, "observed +1") != 6 ||
		strings.Count(o.stdout, "accepted +1") != 4 {
		t.Errorf("exit %d, stdout:\n%s", o.code, o.stdout)
	}
}

// The demo's last words are who is left: three people, by account, with their
// programs where those have said what they are.
func TestDemoEndsWithTheRemainingClients(t *testing.T) {
	o := runCommand(t, nil, "demo", "-once")
	_, report, found := strings.Cut(o.stdout, "All 24 rows are what the policy says.\n")
	if !found || !strings.HasPrefix(report, "\nNO-GO: 3 clients with old TLS are left.\n") {
		t.Fatalf("exit %d, stdout:\n%s", o.code, o.stdout)
	}
	for _, line := range []string{
		`anna@example\.org +Outlook 14\.0 +1\.0 +1 `, `bert@example\.org +K-9 Mail 4\.2 +1\.0, 1\.1 +1 `, `carla@example\.org +like .+ +1\.1 +1 `,
	} {
		if !regexp.MustCompile("(?m)^" + line).MatchString(report) {
			t.Errorf("no line %q in:\n%s", line, report)
		}
	}
}

func TestDemoStaysUpUntilASignal(t *testing.T) {
	var stdout, stderr buffer
	stop := make(chan os.Signal, 1)
	code := make(chan int, 1)
	if taken, err := net.Listen("tcp", "127.0.0.1:9993"); err == nil { // if not, somebody else has it
		defer taken.Close()
	}
	go func() {
		code <- run(context.Background(), system{args: []string{"demo"}, stdout: &stdout, stderr: &stderr, stop: stop})
	}()
	waitFor(t, &stdout, "Ctrl-C ends it")
	waitFor(t, &stdout, "in a browser: http://127.0.0.1:")
	waitFor(t, &stdout, "(port 9993 is taken here: admin is on 127.0.0.1:")
	dir := regexp.MustCompile(`--cacert (\S+)/ca\.pem`).FindStringSubmatch(stdout.String())
	if dir == nil {
		t.Fatalf("no line to try:\n%s", stdout.String())
	}
	if _, err := os.Stat(dir[1] + "/ca.pem"); err != nil {
		t.Error(err)
	}
	expectBothKeyTypes(t, regexp.MustCompile(`-connect (\S+) -tls1`).FindStringSubmatch(stdout.String())[1])
	select {
	case c := <-code:
		t.Fatalf("it left with exit %d", c)
	case <-time.After(200 * time.Millisecond):
	}
	stop <- syscall.SIGINT
	select {
	case c := <-code:
		if c != exitOK || stderr.String() != "" || !strings.HasSuffix(stdout.String(), "Stopping.\n") {
			t.Errorf("exit %d, stderr %q", c, stderr.String())
		}
	case <-time.After(time.Minute):
		t.Fatal("it did not stop")
	}
	if _, err := os.Stat(dir[1]); !os.IsNotExist(err) {
		t.Errorf("its files are left: %v", err)
	}
}

// Clients older than ECDSA need the RSA certificate; all others are shown the
// smaller one.
func expectBothKeyTypes(t *testing.T, addr string) {
	t.Helper()
	for suite, key := range map[uint16]x509.PublicKeyAlgorithm{
		tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256: x509.ECDSA, tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256: x509.RSA,
	} {
		c, err := tls.Dial("tcp", addr, &tls.Config{
			InsecureSkipVerify: true, MaxVersion: tls.VersionTLS12, CipherSuites: []uint16{suite},
		})
		if err != nil {
			t.Errorf("a client that knows only %v: %v", key, err)
			continue
		}
		if got := c.ConnectionState().PeerCertificates[0].PublicKeyAlgorithm; got != key {
			t.Errorf("a client that knows only %v is shown a certificate for %v", key, got)
		}
		c.Close()
	}
}
