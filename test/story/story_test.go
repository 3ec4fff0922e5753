// Package story plays what the documentation says to type, page by page: from a
// clone of this repository to the accounts behind the old clients that remain.
package story

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"postern/internal/demo"
	"postern/internal/posterntest"
	"postern/policy"
)

const root = "../.."

// stage is what the script finds there.
type stage struct {
	ca     *posterntest.CA
	mail   *demo.MailServer
	env    map[string]string // of postern.env
	manual string            // the pages, one after the other
	read   int               // how much of it has been played
}

func TestFromACloneToTheNamedAccounts(t *testing.T) {
	mail, err := demo.StartMail(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(mail.Close)
	var manual strings.Builder
	for _, page := range []string{"README.md", "docs/policy.md", "docs/report.md"} {
		text, err := os.ReadFile(filepath.Join(root, page))
		if err != nil {
			t.Fatal(err)
		}
		manual.Write(text)
	}
	ca := posterntest.NewCA(t)
	ec := ca.Issue(t, posterntest.DefaultNames, posterntest.ECDSA)
	rsa := ca.Issue(t, posterntest.DefaultNames, posterntest.RSA)
	s := &stage{ca: ca, mail: mail, manual: manual.String(), env: map[string]string{
		"UPSTREAM_IMAP": "imap://" + mail.IMAPAddr(), "UPSTREAM_POP3": "pop3://" + mail.POP3Addr(),
		"TLS_CERT_FILE": ec.CertFile + "," + rsa.CertFile, "TLS_KEY_FILE": ec.KeyFile + "," + rsa.KeyFile,
		"POLICY_MODE": "enforce", "LEDGER_IDENTITY": "plain", "TIMEOUT_DRAIN": "2s",
	}}
	for _, name := range []string{"LISTEN_IMAPS", "LISTEN_POP3S", "LISTEN_IMAP", "LISTEN_POP3", "ADMIN_LISTEN"} {
		s.env[name] = posterntest.FreeAddr(t)
	}
	testscript.Run(t, testscript.Params{
		Dir:   "testdata",
		Setup: func(e *testscript.Env) error { return s.set(t, e) },
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"type": s.typeIn, "until": until, "visit": s.visit, "ready": s.ready,
		},
		Condition: func(name string) (bool, error) {
			if name != "clone" {
				return false, fmt.Errorf("there is no condition %q", name)
			}
			_, err := os.Stat(filepath.Join(root, ".git"))
			return err == nil, nil
		},
		RequireExplicitExec: true,
	})
}

// set writes the environment file of the proxy, and lets git and Go work in the
// script as they do here.
func (s *stage) set(t *testing.T, e *testscript.Env) error {
	etc := filepath.Join(e.WorkDir, "etc")
	if err := os.MkdirAll(etc, 0o700); err != nil {
		return err
	}
	s.env["LEDGER_URL"] = "sqlite:" + filepath.Join(e.WorkDir, "ledger.db")
	var text strings.Builder
	for name, value := range s.env {
		fmt.Fprintf(&text, "POSTERN_%s=%s\n", name, value)
	}
	if err := os.WriteFile(filepath.Join(etc, "postern.env"), []byte(text.String()), 0o600); err != nil {
		return err
	}
	repository, err := filepath.Abs(root)
	if err != nil {
		return err
	}
	e.Setenv("REPOSITORY", repository)
	e.Setenv("PATH", filepath.Join(e.WorkDir, "bin")+":"+os.Getenv("PATH"))
	e.Setenv("HOME", filepath.Join(e.WorkDir, "home")) // with the .gitconfig of the script
	out, err := exec.Command("go", "env", "GOCACHE", "GOMODCACHE", "GOPROXY", "GOTOOLCHAIN").Output()
	if err != nil {
		return fmt.Errorf("running go env: %w", err)
	}
	for i, value := range strings.Split(strings.TrimSuffix(string(out), "\n"), "\n") {
		e.Setenv([]string{"GOCACHE", "GOMODCACHE", "GOPROXY", "GOTOOLCHAIN"}[i], value)
	}
	return nil
}

// typeIn runs a line of the documentation, one that follows those before it:
//
//	type 0 'postern report'
//
// The number is the exit code, and words behind the line are added to it. What
// would change this machine goes to the folder of the script, and what listens
// does so on ports of the test's. Every line sees what postern.env says.
func (s *stage) typeIn(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) < 2 || neg {
		ts.Fatalf("usage: type CODE LINE [WORDS]")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	line := regexp.MustCompile(`(?m)^(\$ )?` + regexp.QuoteMeta(args[1]) + `$`).FindStringIndex(s.manual[s.read:])
	if line == nil {
		ts.Fatalf("the documentation does not have %q, or not after what was typed so far", args[1])
	}
	s.read += line[1]
	work := ts.Getenv("WORK")
	moved := strings.NewReplacer("sudo ", "", "/etc/postern", work+"/etc", "/usr/local/bin", work+"/bin",
		"127.0.0.1:9993", s.env["ADMIN_LISTEN"]).Replace(strings.Join(args[1:], " "))
	code := 0
	if err := ts.Exec("sh", "-e", "-c", "set -a; . "+work+"/etc/postern.env; set +a; "+moved); err != nil {
		var exit *exec.ExitError
		if !errors.As(err, &exit) {
			ts.Fatalf("%v", err)
		}
		code = exit.ExitCode()
	}
	if code != want {
		ts.Fatalf("exit code %d, want %d", code, want)
	}
}

// eventually is how long the proxy may take for what it does in the background.
const eventually = time.Minute

// until runs a command again until its output has a text:
//
//	until 'anna@example.org' postern report
func until(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) < 2 || neg {
		ts.Fatalf("usage: until TEXT PROGRAM [ARGUMENTS]")
	}
	for end := time.Now().Add(eventually); ; time.Sleep(200 * time.Millisecond) {
		err := ts.Exec(args[1], args[2:]...)
		if strings.Contains(ts.ReadFile("stdout"), args[0]) {
			return
		}
		if time.Now().After(end) {
			ts.Fatalf("%q does not appear: %v", args[0], err)
		}
	}
}

// ready waits for the proxy that was started in the background.
func (s *stage) ready(ts *testscript.TestScript, _ bool, _ []string) {
	for end := time.Now().Add(eventually); ; time.Sleep(50 * time.Millisecond) {
		resp, err := http.Get("http://" + s.env["ADMIN_LISTEN"] + "/readyz")
		if err == nil {
			resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return
			}
		}
		if time.Now().After(end) {
			ts.Fatalf("the proxy is not ready: %v", err)
		}
	}
}

var versions = map[string]policy.Version{
	"tls1.0": policy.TLS10, "tls1.1": policy.TLS11, "tls1.2": policy.TLS12, "tls1.3": policy.TLS13,
}

// visit lets somebody look for mail; with !, in vain:
//
//	visit anna 127.0.0.11 tls1.0 imaps
func (s *stage) visit(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) != 4 || versions[args[2]] == 0 {
		ts.Fatalf("usage: visit NAME ADDRESS VERSION LISTENER")
	}
	from, err := netip.ParseAddr(args[1])
	ts.Check(err)
	protocol, implicit := strings.CutSuffix(args[3], "s")
	c := demo.Client{
		Generation: versions[args[2]], Roots: s.ca.Pool, ServerName: posterntest.DefaultNames[0],
		Account: args[0] + "@example.org", Password: demo.Password, From: from,
	}
	met, err := c.Visit(s.env["LISTEN_"+strings.ToUpper(args[3])], protocol, !implicit)
	ts.Check(err)
	if met.LoggedIn == neg {
		ts.Fatalf("%s met %+v", args[0], met)
	}
}
