package passthrough

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"postern/internal/dovecot"
)

func TestAnOldClientReadsItsMailAndIsCounted(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "observe", nil, dovecot.Message(1, []byte("Still here, after all those years.\r\n")))
	n, seen := 0, map[string]float64{}
	for _, c := range append([]client{unread}, unserved...) {
		for _, listener := range listeners {
			out, stderr, code := run(t, session(listener), c.program, c.args(w, listener, w.ca.File)...)
			if code != 0 || !bytes.Contains(out, []byte("Still here, after all those years.")) {
				t.Fatalf("%s, %s: exit code %d\nstdout: %s\nstderr: %s", c.name, listener, code, out, stderr)
			}
			n++
			seen[listener+c.version+c.reason]++
			w.counted(t, listener, c, seen[listener+c.version+c.reason])
			w.expectLog(t, n, map[string]any{"listener": listener, "outcome": "observed", "version": c.version,
				"reason": c.reason, "mode": "observe", "client": "127.0.0.1"})
			w.expectLogin(t, listener)
		}
	}
	w.moved(t, 0, "postern_tls_sessions_total")
	w.moved(t, 0, "postern_relayed_bytes_total")
	w.moved(t, 0, "postern_upstream_failures_total")
	w.CheckIdentities(t, n)
}

func TestAnOldClientThatCanBeServedIsServedHere(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "observe", nil, dovecot.Message(1, []byte("As before.\r\n")))
	for _, c := range served {
		for _, listener := range listeners {
			// It takes the proxy's certificate, and would not take Dovecot's.
			out, stderr, code := run(t, session(listener), c.program, c.args(w, listener, w.CA.File)...)
			if code != 0 || !bytes.Contains(out, []byte("As before.")) {
				t.Errorf("%s, %s: exit code %d\nstdout: %s\nstderr: %s", c.name, listener, code, out, stderr)
			}
			w.counted(t, listener, c, 1)
		}
	}
	w.moved(t, 4, "postern_tls_sessions_total")
	w.CheckIdentities(t, 4)
}

func TestUnderEnforceAndExplainAnOldClientIsRefused(t *testing.T) {
	t.Parallel()
	for _, mode := range []string{"enforce", "explain"} {
		w := newWorld(t, mode, nil)
		before := strings.Count(w.dovecot.Log(t), ", TLS")
		for _, c := range unserved {
			alerts := map[string]string{"version": "protocol version", "cipher": "handshake failure"}
			out, stderr, code := run(t, "", c.program, c.args(w, "imaps", w.ca.File)...)
			said := strings.ToLower(string(out) + stderr)
			if code == 0 || !strings.Contains(said, alerts[c.reason]) && !strings.Contains(said, "handshake failed") {
				t.Errorf("%s, %s: exit code %d\n%s", mode, c.name, code, said)
			}
		}
		w.moved(t, float64(len(unserved)), "postern_legacy_handshakes_total", "listener=imaps", "outcome=rejected")
		if after := strings.Count(w.dovecot.Log(t), ", TLS"); after != before {
			t.Errorf("%s: Dovecot has heard of them:\n%s", mode, w.dovecot.Log(t))
		}
		w.CheckIdentities(t, len(unserved))
	}
}

// Nobody can serve it here, but it is not refused without a word in the log.
func TestAHelloThatIsNotReadIsLogged(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "enforce", nil)
	for i, listener := range listeners {
		if _, stderr, code := run(t, "", unread.program, unread.args(w, listener, w.ca.File)...); code == 0 || !strings.Contains(stderr, "alert number 50") {
			t.Errorf("%s: exit code %d, %s", listener, code, stderr)
		}
		w.moved(t, 1, "postern_handshakes_total", "listener="+listener, "version=tls1.3", "outcome=failed")
		lines := w.WaitLog(t, "handshake failed", i+1)
		if line := lines[len(lines)-1]; line["failure"] != "malformed" || line["version"] != "tls1.3" || line["server_name"] != "mail.example.org" || line["level"] != "INFO" {
			t.Errorf("%s: %v", listener, line)
		}
	}
	w.moved(t, 0, "postern_legacy_handshakes_total")
	w.CheckIdentities(t, len(listeners))
}

// fetched is what a client prints up to the answer to its fetch, and what it says on
// stderr. It logs out only then: s_client now and then leaves without the last record of
// what it has received.
func fetched(t *testing.T, w *world, c client) (out []byte, stderr string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), clientTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, c.program, c.args(w, "imaps", w.ca.File)...)
	var errs bytes.Buffer
	cmd.Stderr = &errs
	in, inErr := cmd.StdinPipe()
	stdout, outErr := cmd.StdoutPipe()
	if err := errors.Join(inErr, outErr, cmd.Start()); err != nil {
		t.Fatalf("%s: %v", c.name, err)
	}
	const logout = "d logout\r\n"
	_, _ = io.WriteString(in, strings.TrimSuffix(session("imaps"), logout))
	lines := bufio.NewReader(stdout)
	for answered := false; !answered; {
		line, err := lines.ReadBytes('\n')
		out = append(out, line...)
		answered = err != nil || bytes.HasPrefix(line, []byte("c OK"))
	}
	_, _ = io.WriteString(in, logout)
	_, _ = io.Copy(io.Discard, lines)
	if err := cmd.Wait(); err != nil {
		t.Fatalf("%s: %v: %s", c.name, err, &errs)
	}
	return out, errs.String()
}

func TestALargeMessageArrivesWholeOverDHE(t *testing.T) {
	t.Parallel()
	line := strings.Repeat("0123456789abcdef", 4) + "\r\n"
	message := dovecot.Message(1, []byte(strings.Repeat(line, 8<<20/len(line))))
	w := newWorld(t, "observe", nil, message)
	for _, c := range unserved[:2] {
		out, stderr := fetched(t, w, c)
		_, literal, _ := bytes.Cut(out, []byte("* 1 FETCH (BODY[] {"))
		_, literal, _ = bytes.Cut(literal, []byte("}\r\n"))
		if len(literal) < len(message) || sha256.Sum256(literal[:len(message)]) != sha256.Sum256(message) {
			t.Errorf("%s: %d bytes came, or others than the %d of the message; stderr: %s", c.name, len(literal), len(message), stderr)
		}
	}
}

// A rule may send clients there that could be served here: they see Dovecot's own certificate.
func TestARulePassesThroughWhoCouldBeServed(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "policy.yaml")
	rule := "rules: [{name: devices, mode: observe, pass_through: always, match: {listener: [imaps, pop3s]}}]\n"
	if err := os.WriteFile(file, []byte(rule), 0o644); err != nil {
		t.Fatal(err)
	}
	w := newWorld(t, "", map[string]string{"POLICY_FILE": file}, dovecot.Message(1, []byte("As ever.\r\n")))
	n := 0
	for _, c := range served {
		for _, listener := range listeners {
			out, stderr, code := run(t, session(listener), c.program, c.args(w, listener, w.ca.File)...)
			if code != 0 || !bytes.Contains(out, []byte("As ever.")) {
				t.Errorf("%s, %s: exit code %d\nstdout: %s\nstderr: %s", c.name, listener, code, out, stderr)
			}
			w.counted(t, listener, c, 1)
			n++
			w.expectLog(t, n, map[string]any{"listener": listener, "outcome": "observed", "rule": "devices"})
			w.expectLogin(t, listener)
		}
	}
	w.moved(t, 0, "postern_tls_sessions_total")
	w.CheckIdentities(t, n)
}
