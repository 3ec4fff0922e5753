package posterntest

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
)

var build struct {
	once sync.Once
	dir  string
	path string
	err  error
}

// Main runs the tests, removes what Binary built, and exits.
func Main(m *testing.M) {
	code := m.Run()
	if build.dir != "" {
		os.RemoveAll(build.dir)
	}
	os.Exit(code)
}

// Binary returns the path of the postern under test: $POSTERN_BIN where that
// is set, else cmd/postern built with the race detector, once per test
// process.
func Binary(t testing.TB) string {
	t.Helper()
	if bin := os.Getenv("POSTERN_BIN"); bin != "" {
		return bin
	}
	build.once.Do(func() {
		build.dir, build.path, build.err = buildBinary()
	})
	if build.err != nil {
		t.Fatalf("building postern: %v", build.err)
	}
	return build.path
}

func buildBinary() (dir, path string, err error) {
	root, err := repoRoot()
	if err != nil {
		return "", "", err
	}
	dir, err = os.MkdirTemp("", "postern-bin-")
	if err != nil {
		return "", "", err
	}
	path = filepath.Join(dir, "postern")
	cmd := exec.Command("go", "build", "-race", "-buildvcs=false", "-o", path, "./cmd/postern")
	cmd.Dir = root
	if out, err := cmd.CombinedOutput(); err != nil {
		return dir, "", fmt.Errorf("running go build: %w\n%s", err, out)
	}
	return dir, path, nil
}

// repoRoot is the nearest directory upwards that holds a go.mod.
func repoRoot() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir, nil
		}
		up := filepath.Dir(dir)
		if up == dir {
			return "", fmt.Errorf("finding go.mod: none above the working directory")
		}
		dir = up
	}
}
