package debian13

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"postern/internal/posterntest"
)

// Booted is a container of the tree in which systemd runs, and no service but the
// journal's. It has the network of the test. What is written in it is gone with it.
type Booted struct {
	systemd int
	input   io.Closer // the container ends when this is closed, or collected as garbage
}

// Boot boots one that lives as long as the test binary. The test is skipped where this
// machine cannot.
func Boot(t testing.TB) Booted {
	t.Helper()
	Get(t)
	root, err := posterntest.RepoRoot()
	if err != nil {
		t.Fatal(err)
	}
	var words bytes.Buffer
	cmd := exec.Command("bash", filepath.Join(root, filepath.Dir(script), "boot.sh"))
	cmd.Stderr = &words
	input, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, _ := bufio.NewReader(out).ReadString('\n')
	pid, err := strconv.Atoi(strings.TrimSpace(line))
	if err == nil {
		return Booted{pid, input}
	}
	err = cmd.Wait()
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.ExitCode() == cannot {
		t.Skip(words.String())
	}
	t.Fatalf("booting a Debian 13: %v\n%s", err, words.String())
	return Booted{}
}

// Path is what a file of the container is called out here.
func (b Booted) Path(inside string) string { return fmt.Sprintf("/proc/%d/root%s", b.systemd, inside) }

// Write writes a file in the container, and the directory that it is in.
func (b Booted) Write(t testing.TB, inside string, mode os.FileMode, content []byte) {
	t.Helper()
	if err := os.MkdirAll(b.Path(filepath.Dir(inside)), 0o755); err != nil {
		t.Fatal(err)
	}
	// A program that runs cannot be written to.
	if err := os.WriteFile(b.Path(inside+".new"), content, mode); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(b.Path(inside+".new"), b.Path(inside)); err != nil {
		t.Fatal(err)
	}
}

// Try runs a shell script in the container, and returns all that it says.
func (b Booted) Try(script string) (string, error) {
	cmd := exec.Command("nsenter", "--target", strconv.Itoa(b.systemd), "--mount", "--uts", "--ipc", "--pid", "--cgroup",
		"--", "/bin/sh", "-ec", script)
	cmd.Env = []string{"PATH=/usr/local/bin:/usr/sbin:/usr/bin", "LC_ALL=C.UTF-8"}
	posterntest.EndWithTest(cmd, syscall.SIGTERM)
	out, err := cmd.CombinedOutput()
	return strings.TrimSpace(string(out)), err
}

// Run is Try for a script that must succeed.
func (b Booted) Run(t testing.TB, script string) string {
	t.Helper()
	out, err := b.Try(script)
	if err != nil {
		t.Fatalf("%s: %v\n%s", script, err, out)
	}
	return out
}
