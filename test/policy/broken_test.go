package policy

import (
	"crypto/tls"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"postern/internal/posterntest"
)

const goodPolicy = `
floor: tls1.2
mode: enforce
rules:
  - name: old friends
    mode: observe
    match: {client: [127.0.0.0/9]}
`

// threeProblems has as many, each on a line of its own.
const threeProblems = `floor: tls1.2
mode: lenient
rules:
  - {name: first, mode: observe, share: 150%}
  - {name: first, mode: enforce, colour: blue}
`

// Whatever happens to the file, who was let in before is let in further, and
// nobody else.
func TestABadFileChangesNothing(t *testing.T) {
	t.Parallel()
	g := start(t, goodPolicy, nil)
	session, err := posterntest.Caller{}.Login(g.Proxy, "imaps", "anna", "secret")
	must(t, err)
	session.Timeout = 5 * time.Minute
	read := g.Metrics(t).Value(lastReload)
	bad := []struct {
		what string
		do   func()
		says []string
	}{
		{"three problems", func() { g.replace(t, threeProblems) }, []string{
			g.file + `:2:7: mode: no such mode "lenient"`,
			g.file + `:4:41: rule "first": share: 150% is outside 0% to 100%`,
			g.file + `:5:5: rule "first": the name is taken by line 4: choose another`,
			g.file + `:5:34: rule "first": unknown key "colour"`,
		}},
		{"empty", func() { write(t, g.file, "") }, []string{g.file + ":1:1: the file is empty"}},
		{"vanished", func() { must(t, os.Remove(g.file)) }, []string{g.file + ": no such file or directory"}},
		{"a directory", func() { must(t, os.Mkdir(g.file, 0o700)) }, []string{g.file + ": is a directory"}},
		{"half-written", func() {
			must(t, os.Remove(g.file))
			write(t, g.file, goodPolicy[:strings.Index(goodPolicy, "mode: observe")+5])
		}, []string{g.file + `:6:5: rule "old friends": mode has no value`}},
		{"no text", func() { g.replace(t, "\x7fELF\x00\x01") }, []string{g.file + ":1:1: not YAML"}},
	}
	for i, b := range bad {
		b.do()
		g.until(t, "failure of a file that is "+b.what, func() bool { return g.Metrics(t).Count(failures) > float64(i) })
		lines := g.WaitLog(t, kept, i+1)
		last := lines[len(lines)-1]
		if last["level"] != "ERROR" || last["file"] != g.file {
			t.Errorf("%s: %v", b.what, last)
		}
		checkErrors(t, b.what, last["errors"], b.says)
		g.expect(t, posterntest.Caller{From: fresh()}, "imaps", letIn)
		g.expect(t, posterntest.Caller{From: "127.200.0.1"}, "imaps", rejectedBy)
		must(t, session.Do("NOOP"))
	}
	// Nobody complains of the same file twice.
	time.Sleep(2 * time.Second)
	m := g.Metrics(t)
	if n, lines := m.Count(failures), len(g.LogLines(kept)); n != float64(len(bad)) || lines != len(bad) {
		t.Errorf("%v failures counted and %d logged after %d bad files", n, lines, len(bad))
	}
	if at := m.Value(lastReload); at != read {
		t.Errorf("last reload at %.0f, but nothing was taken over since %.0f", at, read)
	}
	if n := len(g.LogLines(reloaded)); n != 0 {
		t.Errorf("%d bad files were taken over", n)
	}
	// A signal has it looked at again: who asks gets an answer.
	g.Signal(t, syscall.SIGHUP)
	g.WaitLog(t, kept, len(bad)+1)
	g.replace(t, "mode: enforce\n")
	g.waitMet(t, rejectedBy)
	must(t, session.Do("NOOP"))
	if m := g.Metrics(t); m.Value(lastReload) <= read || m.Count(failures) != float64(len(bad)+1) {
		t.Errorf("after a good file: last reload at %.0f, before it %.0f; %v failures", m.Value(lastReload), read, m.Count(failures))
	}
}

// checkErrors compares the beginnings of the errors in a log line.
func checkErrors(t *testing.T, what string, got any, want []string) {
	t.Helper()
	errors, ok := got.([]any)
	if !ok || len(errors) != len(want) {
		t.Errorf("%s: errors %q, want %q", what, got, want)
		return
	}
	for i, e := range errors {
		if !strings.HasPrefix(fmt.Sprint(e), want[i]) {
			t.Errorf("%s: error %q, want %q", what, e, want[i])
		}
	}
}

// Who signals gets an answer, also where the file is the same.
func TestASignalHasThePolicyReadAgain(t *testing.T) {
	t.Parallel()
	g := start(t, goodPolicy, nil)
	g.Signal(t, syscall.SIGHUP)
	if line := g.WaitLog(t, reloaded, 1)[0]; line["floor"] != "tls1.2" || line["mode"] != "enforce" || line["rules"] != 1.0 || line["file"] != g.file {
		t.Errorf("line %v", line)
	}
	must(t, os.Remove(g.file))
	g.Signal(t, syscall.SIGHUP)
	g.WaitLog(t, kept, 1)
	g.expect(t, posterntest.Caller{From: fresh()}, "imaps", letIn)
}

// A ConfigMap is swapped below the file that is named, by a link to another
// directory.
func TestAPolicyFromAConfigMapTakesOver(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	link := func(target, name string) {
		must(t, os.Symlink(target, filepath.Join(dir, "..tmp")))
		must(t, os.Rename(filepath.Join(dir, "..tmp"), filepath.Join(dir, name)))
	}
	version := 0
	swap := func(text string) {
		version++
		name := fmt.Sprintf("..2026_%02d", version)
		write(t, filepath.Join(dir, name, "policy.yaml"), text)
		link(name, "..data")
		must(t, os.RemoveAll(filepath.Join(dir, fmt.Sprintf("..2026_%02d", version-1))))
	}
	swap("mode: enforce\n")
	link("..data/policy.yaml", "policy.yaml")
	g := &instance{file: filepath.Join(dir, "policy.yaml")}
	g.run(t, nil)
	g.waitMet(t, rejectedBy)
	swap("mode: observe\n")
	g.waitMet(t, letIn)
	swap("mode: unserve\n")
	g.until(t, "failure", func() bool { return g.Metrics(t).Count(failures) == 1 })
	g.expect(t, posterntest.Caller{From: fresh()}, "imaps", letIn)
	swap("mode: explain\nexplain_text: TLS {version} is over\n")
	g.waitMet(t, told)
	c, err := posterntest.Caller{TLS: upTo(tls.VersionTLS10)}.Open(g.Proxy, "imaps")
	must(t, err)
	defer c.Close()
	if c.Greeting != "* BYE [ALERT] TLS 1.0 is over" {
		t.Errorf("told %q, want the text of the file", c.Greeting)
	}
	if n := g.Metrics(t).Count(failures); n != 1 {
		t.Errorf("%v failures counted, want 1", n)
	}
}
