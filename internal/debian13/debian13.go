// Package debian13 has a Debian 13 with its mail servers and its systemd, in a directory
// that outlives a test run, for programs that tests start in there, or all of it in a
// container.
package debian13

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"postern/internal/posterntest"
)

// The script is run from its file, by which it names the directory.
const script = "internal/debian13/tree.sh"

// cannot is the exit code of the script where this machine cannot have a tree.
const cannot = 77

// Tree is a root directory; the empty one is the system's own.
type Tree string

type made struct {
	tree  Tree
	words string
	err   error
}

var tree = sync.OnceValue(func() made {
	root, err := posterntest.RepoRoot()
	if err != nil {
		return made{err: err}
	}
	var stdout, stderr bytes.Buffer
	cmd := exec.Command("bash", filepath.Join(root, script))
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	posterntest.EndWithTest(cmd, syscall.SIGTERM)
	err = cmd.Run()
	return made{Tree(strings.TrimSpace(stdout.String())), stderr.String(), err}
})

// Get returns the tree, which is made first where it is missing: that takes a
// minute. The test is skipped where this machine cannot have one.
func Get(t testing.TB) Tree {
	t.Helper()
	m := tree()
	var exit *exec.ExitError
	if errors.As(m.err, &exit) && exit.ExitCode() == cannot {
		lines := strings.Split(strings.TrimSpace(m.words), "\n")
		t.Skip(lines[len(lines)-1])
	}
	if m.err != nil {
		t.Fatalf("making a Debian 13: %v\n%s", m.err, m.words)
	}
	return m.tree
}

// Command runs a program of the tree in the tree, and ends it with the test.
func (tree Tree) Command(program string, args ...string) *exec.Cmd {
	cmd := exec.Command(program, args...)
	cmd.Dir = "/"
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C.UTF-8"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Chroot: string(tree)} // none where empty
	posterntest.EndWithTest(cmd, syscall.SIGTERM)
	return cmd
}

// Inside is what a path is called in the tree.
func (tree Tree) Inside(path string) string {
	return "/" + strings.TrimPrefix(strings.TrimPrefix(path, string(tree)), "/")
}

// Dir makes a directory in the tree until the test ends, and returns its path
// outside: short inside, as a unix socket's path has room for 108 bytes.
func (tree Tree) Dir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp(filepath.Join(string(tree), "tmp"), "t")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) }) // a dying process may still write
	return dir
}

// Lock waits until no other test, of any run, holds this part of the tree.
func (tree Tree) Lock(t testing.TB, part string) {
	t.Helper()
	f, err := os.OpenFile(filepath.Join(string(tree), "tmp", part+".lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
}
