package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

const (
	// testLimit is what a test may take without a mutant. With one it may take
	// limitFactor times what it took, and minLimit at least; where it runs into
	// that, it has seen the mutant.
	testLimit   = time.Minute
	minLimit    = 6 * time.Second
	limitFactor = 4
	// grace is what a test gets beyond its limit to say so.
	grace = 3 * time.Second
)

// lab builds and runs in a directory of its own.
type lab struct {
	root, dir string
	mutants   []mutant
	packages  map[string][]*file // by directory
	overlay   string

	mu        sync.Mutex
	unchanged map[string]*baseline // by mutant.seen
}

// baseline is how a test goes without a mutant.
type baseline struct {
	once sync.Once
	took time.Duration
	err  error
}

// result is how a mutant ended.
type result struct {
	caught bool
	took   time.Duration
	detail string
}

func (r result) word() string {
	if r.caught {
		return "caught"
	}
	return "NOT SEEN"
}

func newLab(ctx context.Context, chosen []mutant) (*lab, error) {
	out, err := exec.CommandContext(ctx, "go", "env", "GOMOD").Output()
	if err != nil {
		return nil, fmt.Errorf("asking go for the module: %w", err)
	}
	l := &lab{
		root: filepath.Dir(strings.TrimSpace(string(out))), mutants: chosen,
		unchanged: make(map[string]*baseline),
	}
	if l.packages, err = mutateAll(l.root, chosen); err != nil {
		return nil, err
	}
	// A short name: sockets lie below it, and their paths are bounded. Others
	// may pass through it: Dovecot's processes run as users of their own.
	if l.dir, err = os.MkdirTemp("", "pm-"); err != nil {
		return nil, err
	}
	return l, os.Chmod(l.dir, 0o711)
}

func (l *lab) close() { os.RemoveAll(l.dir) }

// mutateAll reads the packages that the mutants name, and adds the mutants to
// them. It reports all that has no place at once.
func mutateAll(root string, chosen []mutant) (map[string][]*file, error) {
	packages := make(map[string][]*file)
	var problems []error
	for i, m := range chosen {
		pkg, _, _ := strings.Cut(m.in, " ")
		if packages[pkg] == nil {
			files, err := readPackage(filepath.Join(root, filepath.FromSlash(pkg)))
			if err != nil {
				return nil, err
			}
			packages[pkg] = files
		}
		if err := m.addTo(packages[pkg], i+1); err != nil {
			problems = append(problems, err)
		}
	}
	return packages, errors.Join(problems...)
}

// build writes the mutated files, and builds all tests with it, and the program
// for those that start it.
func (l *lab) build(ctx context.Context) error {
	if err := l.writeOverlay(); err != nil {
		return err
	}
	tests := make(map[string]bool)
	for _, m := range l.mutants {
		pkg, _, _ := strings.Cut(m.seen, " ")
		tests[pkg] = true
	}
	if err := l.compile(ctx, "build", l.program(), "./cmd/postern"); err != nil {
		return err
	}
	for pkg := range maps.Keys(tests) {
		if err := l.compile(ctx, "test", l.test(pkg), "./"+pkg, "-c", "-vet=off"); err != nil {
			return err
		}
	}
	return nil
}

func (l *lab) program() string { return filepath.Join(l.dir, "postern") }

func (l *lab) test(pkg string) string {
	return filepath.Join(l.dir, strings.ReplaceAll(pkg, "/", "-")+".test")
}

func (l *lab) writeOverlay() error {
	replace := make(map[string]string)
	put := func(path string, text []byte) error {
		copied := filepath.Join(l.dir, fmt.Sprintf("%d.go", len(replace)))
		replace[path] = copied
		return os.WriteFile(copied, text, 0o600)
	}
	for pkg, files := range l.packages {
		for _, f := range files {
			if len(f.edits) == 0 {
				continue
			}
			if err := put(f.path, f.mutated()); err != nil {
				return err
			}
		}
		added := filepath.Join(l.root, filepath.FromSlash(pkg), "mutant_support.go")
		if err := put(added, support(files[0].syntax.Name.Name)); err != nil {
			return err
		}
	}
	text, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		return err
	}
	l.overlay = filepath.Join(l.dir, "overlay.json")
	return os.WriteFile(l.overlay, text, 0o600)
}

// compile goes without the race detector and without debug information: what
// it makes runs for seconds.
func (l *lab) compile(ctx context.Context, verb, output, pkg string, flags ...string) error {
	args := append([]string{verb, "-o", output, "-overlay", l.overlay, "-buildvcs=false", "-ldflags=-s -w"}, flags...)
	cmd := exec.CommandContext(ctx, "go", append(args, pkg)...)
	cmd.Dir = l.root
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("building %s with the mutants: %w\n%s", pkg, err, bytes.TrimSpace(out))
	}
	return nil
}

// tryAll begins to run the tests; each mutant has a channel for its result.
func (l *lab) tryAll(ctx context.Context, workers int) []chan result {
	results := make([]chan result, len(l.mutants))
	slots := make(chan struct{}, workers)
	for i := range results {
		results[i] = make(chan result, 1)
	}
	go func() {
		for i, m := range l.mutants {
			slots <- struct{}{}
			go func() {
				begun := time.Now()
				caught, detail := l.try(ctx, m, i+1)
				results[i] <- result{caught, time.Since(begun), detail}
				<-slots
			}()
		}
	}()
	return results
}

func (l *lab) try(ctx context.Context, m mutant, id int) (caught bool, detail string) {
	l.mu.Lock()
	base := l.unchanged[m.seen]
	if base == nil {
		base = new(baseline)
		l.unchanged[m.seen] = base
	}
	l.mu.Unlock()
	base.once.Do(func() {
		begun := time.Now()
		output, err := l.runTest(ctx, m.seen, 0, testLimit)
		if err == nil && !bytes.Contains(output, []byte("=== RUN ")) {
			err = errors.New("no test of that name ran")
		}
		if err != nil {
			base.err = fmt.Errorf("without the mutant %q: %w\n%s", m.seen, err, tail(output))
		}
		base.took = time.Since(begun)
	})
	if base.err != nil {
		return false, base.err.Error()
	}
	output, err := l.runTest(ctx, m.seen, id, max(minLimit, limitFactor*base.took))
	if err == nil {
		return false, fmt.Sprintf("%q passes with it: the test is too weak, or the wrong one", m.seen)
	}
	late := errors.Is(err, context.DeadlineExceeded)
	failed := slices.ContainsFunc([]string{"--- FAIL: ", "panic: ", "fatal error: "}, func(sign string) bool {
		return bytes.Contains(output, []byte(sign))
	})
	return late || failed, fmt.Sprintf("%v\n%s", err, tail(output))
}

// runTest runs a test in its package's directory, and ends whatever it leaves
// behind.
func (l *lab) runTest(ctx context.Context, seen string, alive int, limit time.Duration) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, limit+grace)
	defer cancel()
	pkg, run, _ := strings.Cut(seen, " ")
	// A test that runs into its limit does not tidy up.
	temp, err := os.MkdirTemp(l.dir, "")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(temp)
	if err := os.Chmod(temp, 0o711); err != nil {
		return nil, err
	}
	pattern := "^" + strings.ReplaceAll(run, "/", "$/^") + "$"
	cmd := exec.CommandContext(ctx, l.test(pkg), "-test.v", "-test.run", pattern, "-test.timeout", limit.String())
	cmd.Dir = filepath.Join(l.root, filepath.FromSlash(pkg))
	cmd.Env = slices.DeleteFunc(os.Environ(), func(kv string) bool { return strings.HasPrefix(kv, "POSTERN_") })
	cmd.Env = append(cmd.Env, "TMPDIR="+temp, "POSTERN_BIN="+l.program(), fmt.Sprintf("MUTANT=%d", alive))
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.WaitDelay = time.Second
	end := func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.Cancel = end
	var output bytes.Buffer
	cmd.Stdout, cmd.Stderr = &output, &output
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("starting the test: %w", err)
	}
	err = cmd.Wait()
	// A test that panics does not stop the program that it has started.
	_ = end()
	if ctx.Err() != nil {
		err = ctx.Err()
	}
	return output.Bytes(), err
}

// tail is the end of what a test printed, without the names of tests that were
// begun or passed and without the program's log.
func tail(output []byte) string {
	const lines, length = 12, 300
	var kept []string
	for line := range strings.Lines(strings.ToValidUTF8(string(output), "?")) {
		text := strings.TrimSpace(line)
		if text != "" && !strings.HasPrefix(text, "=== ") && !strings.HasPrefix(text, "--- PASS") && !strings.HasPrefix(text, `{"time":`) {
			kept = append(kept, fmt.Sprintf("    %.*s", length, text))
		}
	}
	return strings.Join(kept[max(0, len(kept)-lines):], "\n")
}
