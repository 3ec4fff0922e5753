package posterntest

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
)

// build is one way to build the binary, at most once in a test process.
type build struct {
	flags []string

	once sync.Once
	dir  string
	path string
	err  error
}

var (
	raced    = build{flags: []string{"-race"}}
	measured build
)

// Main runs the tests, removes what Binary built, and exits.
func Main(m *testing.M) {
	code := m.Run()
	for _, b := range []*build{&raced, &measured} {
		if b.dir != "" {
			os.RemoveAll(b.dir)
		}
	}
	os.Exit(code)
}

// Binary returns the path of the postern under test: $POSTERN_BIN where that
// is set, else cmd/postern built with the race detector, once per test
// process.
func Binary(t testing.TB) string {
	t.Helper()
	return raced.get(t)
}

// Shipped is Binary without the race detector: the program that users have.
func Shipped(t testing.TB) string {
	t.Helper()
	return measured.get(t)
}

func (b *build) get(t testing.TB) string {
	t.Helper()
	if bin := os.Getenv("POSTERN_BIN"); bin != "" {
		return bin
	}
	b.once.Do(func() {
		b.dir, b.path, b.err = buildBinary(b.flags)
	})
	if b.err != nil {
		t.Fatalf("building postern: %v", b.err)
	}
	return b.path
}

func buildBinary(flags []string) (dir, path string, err error) {
	root, err := RepoRoot()
	if err != nil {
		return "", "", err
	}
	dir, err = os.MkdirTemp("", "postern-bin-")
	if err != nil {
		return "", "", err
	}
	path = filepath.Join(dir, "postern")
	args := append([]string{"build"}, flags...)
	cmd := exec.Command("go", append(args, "-buildvcs=false", "-o", path, "./cmd/postern")...)
	cmd.Dir = root
	if len(flags) == 0 {
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0") // static, as documented and released
	}
	if out, err := cmd.CombinedOutput(); err != nil {
		return dir, "", fmt.Errorf("running go build: %w\n%s", err, out)
	}
	return dir, path, nil
}

// RepoRoot is the nearest directory upwards that holds a go.mod.
func RepoRoot() (string, error) {
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
