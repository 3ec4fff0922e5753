package policyfile

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"postern/internal/config"
	"postern/policy"
)

func write(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "policy.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestAFileIsThePolicyThatItSays(t *testing.T) {
	p, err := Load(write(t, "floor: tls1.3\nmode: observe\nrules:\n  - {name: all, mode: explain}\n"))
	if err != nil || p.Floor() != policy.FloorTLS13 || p.Mode() != policy.Observe || p.Rule("all") == nil {
		t.Errorf("got %+v, %v", p, err)
	}
}

func TestEveryProblemIsALineThatBeginsWithThePlace(t *testing.T) {
	path := write(t, "mode: maybe\nrules:\n  - name: ramp\n    mode: explain\n    share: 120%\n")
	_, err := Load(path)
	var got config.Problems
	if !errors.As(err, &got) {
		t.Fatalf("got %v, not config.Problems", err)
	}
	want := []string{
		path + `:1:7: mode: no such mode "maybe": use one of enforce, explain, observe`,
		path + `:5:12: rule "ramp": share: 120% is outside 0% to 100%`,
	}
	if !slices.Equal(got, want) || got.Error() != strings.Join(want, "\n") {
		t.Errorf("got\n%v\nwant\n%s", got, strings.Join(want, "\n"))
	}
}

func TestAFileThatCannotBeReadIsNamedOnce(t *testing.T) {
	dir := t.TempDir()
	gone := filepath.Join(dir, "gone.yaml")
	for path, want := range map[string]string{
		gone: gone + ": no such file or directory: create it, or mend the name",
		dir:  dir + ": is a directory: name a file in it",
	} {
		if _, err := Load(path); err == nil || err.Error() != want {
			t.Errorf("got %v, want %s", err, want)
		}
	}
	if _, err := Load(gone); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v, not fs.ErrNotExist", err)
	}
	if p, err := Load("/dev/zero"); err == nil || !strings.Contains(err.Error(), "longer than") {
		t.Errorf("a file without end: got %v, %v", p, err)
	}
}

func TestTheEnvironmentNamesAFileOrSaysItAll(t *testing.T) {
	path := write(t, "mode: explain\nfloor: tls1.2-aead\n")
	for _, tt := range []struct {
		environ []string
		floor   policy.Floor
		mode    policy.Mode
	}{
		{nil, policy.FloorTLS12, policy.Enforce},
		{[]string{"POSTERN_POLICY_MODE=observe", "POSTERN_POLICY_FLOOR=tls1.3"}, policy.FloorTLS13, policy.Observe},
		{[]string{"POSTERN_POLICY_FILE=" + path}, policy.FloorTLS12AEAD, policy.Explain},
	} {
		cfg, err := config.LoadPolicy(tt.environ)
		if err != nil {
			t.Fatal(err)
		}
		p, err := Of(cfg)
		if err != nil || p.Floor() != tt.floor || p.Mode() != tt.mode {
			t.Errorf("%v: got %+v, %v", tt.environ, p, err)
		}
	}
	if _, err := Of(&config.Config{PolicyFile: path + ".gone"}); err == nil {
		t.Error("a file that is gone: no error")
	}
}

// The mode of crypto/fips140 is set when a process starts.
func TestFIPSModeRefusesAFileThatMayServeLegacy(t *testing.T) {
	if path := os.Getenv("POLICYFILE_TEST_LOAD"); path != "" {
		if _, err := Load(path); err != nil {
			os.Stdout.WriteString(err.Error() + "\n")
		}
		os.Exit(0)
	}
	for text, want := range map[string]string{
		"mode: enforce\n": "",
		"rules: [{name: all, mode: enforce, from: 2026-07-01T00:00:00Z}]\n": "",
		"mode: observe\n": ": FIPS 140 mode forbids TLS 1.0 and 1.1: set every mode to enforce\n",
		"rules: [{name: scanners, mode: explain, until: 2020-01-01T00:00:00Z}]\n": ": FIPS 140 mode forbids TLS 1.0 and 1.1: set every mode to enforce\n",
	} {
		path := write(t, text)
		if want != "" {
			want = path + want
		}
		cmd := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$")
		cmd.Env = append(os.Environ(), "GODEBUG=fips140=on", "POLICYFILE_TEST_LOAD="+path)
		if out, err := cmd.CombinedOutput(); err != nil || string(out) != want {
			t.Errorf("%s: got %q, %v; want %q", text, out, err, want)
		}
	}
}

func TestTheTextOfTheFileTakesThePlaceOfTheVariable(t *testing.T) {
	path := write(t, "mode: explain\nexplain_text: too old\n")
	for environ, want := range map[string]string{
		"POSTERN_LOG_LEVEL=info": "",
		"POSTERN_EXPLAIN_TEXT=x": "POSTERN_EXPLAIN_TEXT: not used, since explain_text in " + path + " takes its place: take one of them away",
	} {
		cfg, _ := config.Inspect([]string{"POSTERN_POLICY_FILE=" + path, "POSTERN_LEDGER_URL=sqlite:/a", "POSTERN_LEDGER_IDENTITY=off", environ})
		p, err := Of(cfg)
		if err != nil {
			t.Fatal(err)
		}
		if got := strings.Join(Warnings(cfg, p, nil, time.Time{}), "\n"); got != want || p.ExplainText() != "too old" {
			t.Errorf("%s: %q, want %q; the text is %q", environ, got, want, p.ExplainText())
		}
	}
}
