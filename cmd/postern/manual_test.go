package main

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

// Every shell that is on the machine reads its script; bash completes with it.
func TestCompletionKnowsEveryCommandAndFlag(t *testing.T) {
	for _, shell := range []string{"bash", "zsh", "fish"} {
		o := runCommand(t, nil, "completion", shell)
		for _, d := range describe() {
			if !strings.Contains(o.stdout, d.Name) || o.code != exitOK {
				t.Errorf("%s does not know %s: exit %d", shell, d.Name, o.code)
			}
		}
		if !strings.Contains(o.stdout, "offline") {
			t.Errorf("%s does not know check -offline:\n%s", shell, o.stdout)
		}
	}
	script := filepath.Join(t.TempDir(), "postern")
	if err := os.WriteFile(script, []byte(runCommand(t, nil, "completion", "bash").stdout), 0o600); err != nil {
		t.Fatal(err)
	}
	for line, want := range map[string]string{
		"COMP_WORDS=(postern ch) COMP_CWORD=1":                "check",
		"COMP_WORDS=(postern check -of) COMP_CWORD=2":         "-offline",
		"COMP_WORDS=(postern report -env x -re) COMP_CWORD=4": "-ready",
		"COMP_WORDS=(postern help demo) COMP_CWORD=2":         "demo",
		"COMP_WORDS=(postern completion f) COMP_CWORD=2":      "fish",
	} {
		out, err := exec.Command("bash", "-c", `. "$0"; `+line+`; _postern; echo "${COMPREPLY[*]}"`, script).CombinedOutput()
		if got := strings.TrimSpace(string(out)); err != nil || got != want {
			t.Errorf("%s: %q, %v, want %q", line, got, err, want)
		}
	}
}

func TestTheManualSaysWhatHelpSays(t *testing.T) {
	o := runCommand(t, nil, "help", "-man")
	plain := strings.NewReplacer(`\-`, "-", `\&`, "", `\e`, `\`).Replace(o.stdout)
	for _, d := range describe() {
		for line := range strings.Lines(d.Help) {
			if !strings.Contains(plain, strings.TrimSpace(line)) {
				t.Errorf("%s: no line %q", d.Name, line)
			}
		}
	}
	for line := range strings.Lines(o.stdout) {
		if strings.HasPrefix(line, "'") || strings.HasPrefix(line, ".") && !strings.HasPrefix(line, ".TH ") && !strings.HasPrefix(line, ".SH ") &&
			line != ".nf\n" && line != ".fi\n" && line != ".B postern\n" && line != ".I COMMAND\n" {
			t.Errorf("troff takes this for a command: %q", line)
		}
	}
}

func TestJSONForPrograms(t *testing.T) {
	var v map[string]string
	if err := json.Unmarshal([]byte(runCommand(t, nil, "version", "-json").stdout), &v); err != nil || v["goversion"] != runtime.Version() || v["version"] == "" {
		t.Errorf("version: %v, %v", v, err)
	}
	var found map[string][]string
	o := runCommand(t, []string{"POSTERN_LOG_LEVEL=loud", "POSTERN_ADMIN_LISTEN=127.0.0.1:0"}, "check", "-offline", "-json")
	err := json.Unmarshal([]byte(o.stdout), &found)
	if err != nil || o.code != exitUsage || o.stderr != "" || len(found["errors"]) != 3 || found["ok"] == nil || found["unanswered"] == nil || found["warnings"] == nil {
		t.Errorf("check: exit %d, %v, %v, stderr %q", o.code, found, err, o.stderr)
	}
}
