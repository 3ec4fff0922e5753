package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"
	"unicode"
)

// status is how a defect ended.
type status string

const (
	isCaught     status = "caught"
	isSurvivor   status = "SURVIVED"
	isStale      status = "stale"
	isNoProgram  status = "does not compile"
	isNoBaseline status = "no baseline"
	isNoResult   status = "did not run"
)

// result is that, with what there is to say about it.
type result struct {
	status status
	took   time.Duration
	detail string
}

// lab builds and runs, in a directory of its own.
type lab struct {
	root, dir string
	// slots bounds how much runs at once.
	slots chan struct{}

	mu        sync.Mutex
	builds    map[string]*built // of the code as it is, by path
	unchanged map[check]baseline
}

// baseline is how a test goes without a defect.
type baseline struct {
	took time.Duration
	err  error
}

// With a defect a test may take limitFactor times as long, and minLimit at
// least; where it runs into that, it has seen the defect.
const (
	baselineLimit = time.Minute
	minLimit      = 8 * time.Second
	limitFactor   = 5
)

// built is made once.
type built struct {
	once sync.Once
	err  error
}

func newLab(ctx context.Context, workers int) (*lab, error) {
	out, err := exec.CommandContext(ctx, "go", "env", "GOMOD").Output()
	if err != nil {
		return nil, fmt.Errorf("asking go for the module: %w", err)
	}
	// A short name: Dovecot's sockets lie below it, and a path to a socket has
	// 107 bytes at most.
	dir, err := openDir("", "pm-")
	if err != nil {
		return nil, err
	}
	return &lab{
		root: filepath.Dir(strings.TrimSpace(string(out))), dir: dir,
		slots:  make(chan struct{}, workers),
		builds: make(map[string]*built), unchanged: make(map[check]baseline),
	}, nil
}

// openDir makes a directory that others may pass through: Dovecot's processes
// run as users of their own.
func openDir(in, pattern string) (string, error) {
	dir, err := os.MkdirTemp(in, pattern)
	if err != nil {
		return "", err
	}
	return dir, os.Chmod(dir, 0o711)
}

func (l *lab) close() { os.RemoveAll(l.dir) }

// each calls f for 0 to n-1, as many at once as there are slots, and returns
// when all have ended.
func (l *lab) each(n int, f func(i int)) {
	var work sync.WaitGroup
	for i := range n {
		l.slots <- struct{}{}
		work.Go(func() {
			defer func() { <-l.slots }()
			f(i)
		})
	}
	work.Wait()
}

// baselines runs every test that is named, once, without a defect.
func (l *lab) baselines(ctx context.Context, chosen []mutant) {
	var checks []check
	for _, m := range chosen {
		if _, seen := l.unchanged[m.seen]; !seen {
			l.unchanged[m.seen] = baseline{}
			checks = append(checks, m.seen)
		}
	}
	l.each(len(checks), func(i int) {
		took, err := l.baseline(ctx, checks[i])
		l.mu.Lock()
		l.unchanged[checks[i]] = baseline{took, err}
		l.mu.Unlock()
	})
}

func (l *lab) baseline(ctx context.Context, c check) (time.Duration, error) {
	program := filepath.Join(l.dir, "postern")
	if err := l.buildOnce(ctx, program, "build", "./cmd/postern"); err != nil {
		return 0, err
	}
	test, err := l.unchangedTest(ctx, c)
	if err != nil {
		return 0, err
	}
	begun := time.Now()
	output, err := l.runTest(ctx, c, test, program, baselineLimit)
	if err != nil {
		return 0, fmt.Errorf("%s fails without a defect: %w\n%s", c, err, tail(output))
	}
	if !ran(output, c.run) {
		return 0, fmt.Errorf("%s runs no test", c)
	}
	return time.Since(begun), nil
}

// ran reports whether a test or subtest as deep as the pattern was run.
func ran(output []byte, pattern string) bool {
	deep := strings.Count(pattern, "/")
	for line := range bytes.Lines(output) {
		if bytes.HasPrefix(line, []byte("=== RUN ")) && bytes.Count(line, []byte("/")) >= deep {
			return true
		}
	}
	return false
}

// tryAll begins to plant the defects; each has a channel for its result.
func (l *lab) tryAll(ctx context.Context, chosen []mutant) []chan result {
	results := make([]chan result, len(chosen))
	for i := range results {
		results[i] = make(chan result, 1)
	}
	go l.each(len(chosen), func(i int) {
		begun := time.Now()
		status, detail := l.try(ctx, chosen[i], fmt.Sprintf("%03d", i))
		results[i] <- result{status, time.Since(begun), detail}
	})
	return results
}

func (l *lab) try(ctx context.Context, m mutant, name string) (status, string) {
	base := l.unchanged[m.seen]
	if base.err != nil {
		return isNoBaseline, base.err.Error()
	}
	dir := filepath.Join(l.dir, name)
	if err := os.Mkdir(dir, 0o700); err != nil {
		return isNoResult, err.Error()
	}
	defer os.RemoveAll(dir)
	overlay, err := m.plant(l.root, dir)
	if err != nil {
		return isStale, err.Error()
	}
	test, program, err := l.buildPlanted(ctx, m.seen, dir, overlay)
	if err != nil {
		return isNoProgram, err.Error()
	}
	output, err := l.runTest(ctx, m.seen, test, program, max(minLimit, limitFactor*base.took))
	return verdict(output, err)
}

// verdict reads how a test ended that ran with a defect.
func verdict(output []byte, err error) (status, string) {
	failed := bytes.Contains(output, []byte("--- FAIL: "))
	seen, _, late := bytes.Cut(output, []byte("panic: test timed out"))
	switch {
	case err == nil:
		return isSurvivor, "its test passes: it is too weak, or the wrong one"
	case late, errors.Is(err, context.DeadlineExceeded):
		return isCaught, tail(seen) + "\nstopped at the time limit"
	case failed, bytes.Contains(output, []byte("panic: ")), bytes.Contains(output, []byte("fatal error: ")):
		return isCaught, tail(output)
	}
	return isNoResult, err.Error() + "\n" + tail(output)
}

// buildPlanted builds what the check needs, with the defect: the program, the
// tests, or both.
func (l *lab) buildPlanted(ctx context.Context, c check, dir, overlay string) (test, program string, err error) {
	if c.blackBox() {
		program = filepath.Join(dir, "postern")
		if err := l.build(ctx, program, "build", "./cmd/postern", "-overlay", overlay); err != nil {
			return "", "", err
		}
	}
	if !c.inside() {
		test, err = l.unchangedTest(ctx, c)
		return test, program, err
	}
	test = filepath.Join(dir, "unit.test")
	return test, program, l.build(ctx, test, "test", "./"+c.pkg, "-c", "-overlay", overlay)
}

// unchangedTest is the test binary of a package as it is.
func (l *lab) unchangedTest(ctx context.Context, c check) (string, error) {
	path := filepath.Join(l.dir, strings.ReplaceAll(c.pkg, "/", "-")+".test")
	return path, l.buildOnce(ctx, path, "test", "./"+c.pkg, "-c")
}

func (l *lab) buildOnce(ctx context.Context, path, verb, pkg string, args ...string) error {
	l.mu.Lock()
	b := l.builds[path]
	if b == nil {
		b = new(built)
		l.builds[path] = b
	}
	l.mu.Unlock()
	b.once.Do(func() { b.err = l.build(ctx, path, verb, pkg, args...) })
	return b.err
}

// build runs go build or go test -c. It goes without the race detector and
// without debug information: many programs are linked here, to run for a
// second.
func (l *lab) build(ctx context.Context, path, verb, pkg string, args ...string) error {
	args = append([]string{verb, "-o", path, "-buildvcs=false", "-ldflags=-s -w"}, args...)
	cmd := exec.CommandContext(ctx, "go", append(args, pkg)...)
	cmd.Dir = l.root
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("running go %s: %w\n%s", verb, err, tail(out))
	}
	return nil
}

// grace is what a test gets beyond its limit to say so.
const grace = 3 * time.Second

// runTest runs a test binary in its package's directory, and ends whatever it
// has left behind.
func (l *lab) runTest(ctx context.Context, c check, test, program string, limit time.Duration) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, limit+grace)
	defer cancel()
	// A test that runs into its limit does not tidy up.
	temp, err := openDir(l.dir, "")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(temp)
	cmd := exec.CommandContext(ctx, test, "-test.v", "-test.run", c.run, "-test.timeout", limit.String())
	cmd.Dir = filepath.Join(l.root, filepath.FromSlash(c.pkg))
	cmd.Env = append(environ(program), "TMPDIR="+temp)
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

// environ is the environment of a test: what configures a postern stays out.
func environ(program string) []string {
	var env []string
	for _, kv := range os.Environ() {
		if !strings.HasPrefix(kv, "POSTERN_") {
			env = append(env, kv)
		}
	}
	if program != "" {
		env = append(env, "POSTERN_BIN="+program)
	}
	return env
}

// tailLines and lineLength are how much of a long output is shown.
const (
	tailLines  = 12
	lineLength = 300
)

// tail is the end of an output, without the lines that say nothing.
func tail(output []byte) string {
	var lines []string
	for line := range strings.Lines(strings.TrimSpace(string(output))) {
		if !silent(strings.TrimSpace(line)) {
			lines = append(lines, printable(strings.TrimRight(line, "\n")))
		}
	}
	return strings.Join(lines[max(0, len(lines)-tailLines):], "\n")
}

// silent reports whether a line says nothing of why a test failed: which tests
// were begun or passed, and the log of the program.
func silent(line string) bool {
	return strings.HasPrefix(line, "=== ") || strings.HasPrefix(line, "--- PASS") || strings.HasPrefix(line, `{"time":`)
}

// printable cuts a line, and takes out what would upset a terminal: tests quote
// mail.
func printable(line string) string {
	line = strings.Map(func(c rune) rune {
		if c == '\t' || unicode.IsPrint(c) && c != unicode.ReplacementChar {
			return c
		}
		return '?'
	}, line)
	if len(line) > lineLength {
		return strings.ToValidUTF8(line[:lineLength], "") + "..."
	}
	return line
}

func indent(s string) string {
	return "    " + strings.ReplaceAll(strings.TrimRight(s, "\n"), "\n", "\n    ") + "\n"
}
