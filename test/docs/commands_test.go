package docs

import (
	"context"
	"debug/elf"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

const freshMachine = "On a fresh machine"

const (
	demoCommand = "go run ./cmd/postern demo"
	testCommand = "./test/run"
)

// commandTimeout has room for a first build on a slow machine.
const commandTimeout = 5 * time.Minute

// shell runs a script in the repository's root, stopping at its first error,
// and returns what it wrote.
func shell(t *testing.T, script, input string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), commandTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, "sh", "-e", "-c", script)
	cmd.Dir = root
	cmd.Env = withoutPostern(os.Environ())
	cmd.Stdin = strings.NewReader(input)
	cmd.WaitDelay = time.Second
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("running %s: %v\n%s", script, err, out)
	}
	return string(out)
}

// withoutPostern leaves out what configures another Postern.
func withoutPostern(environ []string) []string {
	return slices.DeleteFunc(environ, func(kv string) bool { return strings.HasPrefix(kv, "POSTERN_") })
}

func TestFreshMachine(t *testing.T) {
	blocks := blocksOf(t, readme, freshMachine, "sh")
	if len(blocks) != 1 || !slices.Equal(blocks[0].lines, []string{demoCommand, testCommand}) {
		t.Fatalf("under %q stands %v, not the two commands", freshMachine, blocks)
	}
	for _, script := range []string{"test/run", ".ci/run"} {
		info, err := os.Stat(filepath.Join(root, script))
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode()&0o111 != 0o111 {
			t.Errorf("%s is not executable: %v", script, info.Mode())
		}
		shell(t, "bash -n "+script, "")
	}
}

func TestDemoPrintsWhatTheREADMEShows(t *testing.T) {
	blocks := blocksOf(t, readme, "Postern", "")
	if len(blocks) != 1 || blocks[0].lines[0] != "$ "+demoCommand {
		t.Fatalf("the README does not begin with the demo: %v", blocks)
	}
	var printed []string
	for line := range strings.Lines(shell(t, demoCommand+" -once", "")) {
		printed = append(printed, oneBlank(line))
	}
	for _, shown := range blocks[0].lines[1:] {
		if !slices.ContainsFunc(printed, func(line string) bool { return strings.HasPrefix(line, oneBlank(shown)) }) {
			t.Errorf("the demo does not print %q, but\n%s", shown, strings.Join(printed, "\n"))
		}
	}
}

// oneBlank makes any run of blanks one.
func oneBlank(line string) string { return strings.Join(strings.Fields(line), " ") }

// The image is made from nothing: a binary that asks for a loader would not
// start in it.
func TestImageHoldsAStaticBinaryOfTheVersionAskedFor(t *testing.T) {
	const run = "RUN CGO_ENABLED=0 go build "
	out := filepath.Join(t.TempDir(), "postern")
	built := false
	for line := range strings.Lines(read(t, "Dockerfile")) {
		if !strings.HasPrefix(line, run) {
			continue
		}
		built = true
		command := strings.TrimPrefix(strings.TrimSpace(line), "RUN ")
		if !strings.Contains(command, "-o /out/postern ") {
			t.Fatalf("the build does not write to /out/postern: %s", command)
		}
		shell(t, "export VERSION=v9.8.7 GOFLAGS=-buildvcs=false; "+strings.Replace(command, "/out/postern", out, 1), "")
	}
	if !built {
		t.Fatalf("the Dockerfile has no line %q", run)
	}
	file, err := elf.Open(out)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	for _, p := range file.Progs {
		if p.Type == elf.PT_INTERP || p.Type == elf.PT_DYNAMIC {
			t.Errorf("the binary is not static: it has a %v", p.Type)
		}
	}
	if version := shell(t, out+" version", ""); !strings.HasPrefix(version, "postern v9.8.7 ") {
		t.Errorf("the binary says %q", version)
	}
}
